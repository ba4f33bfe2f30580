"""The tiny form of benchmarks/many_subjects.py."""

import argparse
import json
from pathlib import Path

import many_subjects
import pytest


def test_a_tiny_run_prints_and_writes_each_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # In this process: a new one imports torch, which takes seconds.
    monkeypatch.setattr(many_subjects, "in_new_processes", lambda number, function, *arguments: [function(*arguments)] * number)
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


def test_rows_of_several_processes_are_relative_to_one_with_the_same_share() -> None:
    rows = [many_subjects.Row(100, share, processes, share / processes, 9.0, 1.0) for share in (0.5, 0.1) for processes in (1, 2)]
    lines = [line.split() for line in many_subjects.table(rows).splitlines()[2:]]
    assert [(line[2], line[4]) for line in lines] == [("1", "1.000"), ("2", "0.500")] * 2


@pytest.mark.slow
def test_two_processes_hold_half_of_the_centres_each() -> None:
    options = argparse.Namespace(steps=1, threads=1, device="cpu", processes=2)
    one, two = (many_subjects.measure_if_it_fits(100_000, 0.01, processes, options) for processes in (1, 2))
    assert two.seconds > 0
    assert two.centres == one.centres / 2
    assert two.memory < 0.7 * one.memory
