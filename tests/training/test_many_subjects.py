"""The tiny form of benchmarks/many_subjects.py."""

import json
from pathlib import Path

import many_subjects
import pytest


def test_a_tiny_run_prints_and_writes_each_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # In this process: a new one imports torch, which takes seconds.
    monkeypatch.setattr(many_subjects, "in_new_process", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(many_subjects, "available_mb", lambda: 100.0)
    monkeypatch.setattr(many_subjects, "limit_threads", lambda threads: None)
    words = ["--counts", "200", "300000", "--shares", "1", "0.5", "--steps", "1", "--threads", "1"]
    monkeypatch.setattr("sys.argv", ["many_subjects.py", *words, "--json", str(tmp_path / "rows.json")])
    many_subjects.main()
    exact, sampled, *skipped = json.loads((tmp_path / "rows.json").read_text())
    assert [exact["share"], sampled["share"]] == [1, 0.5]
    assert exact["seconds"] > 0
    assert sampled["seconds"] > 0
    assert exact["centres"] == pytest.approx(200 * 512 * 4 * 3 / 2**20)
    assert [row["seconds"] for row in skipped] == [None, None]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 4
    assert lines[-1].count("does not fit") == 1
