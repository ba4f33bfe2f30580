"""benchmarks/gallery_search.py at tiny size."""

import json
from pathlib import Path

import gallery_search
import pytest


def test_a_tiny_run_measures_every_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # restored after the benchmark has set them
    gallery_search.main(["--sessions", "20", "41", "--turns", "1", "--threads", "1", "--json", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found) == {"query_20", "query_41"}
    assert all(one["value"] > 0 and one["better"] == "lower" for one in found.values())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[2:4]] == [["20", "10"], ["41", "21"]]
