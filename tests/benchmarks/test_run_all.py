"""benchmarks/run_all.py: the table, a benchmark that fails, the run in MLflow, and every benchmark at tiny size."""

import json
from pathlib import Path

import mlflow
import pytest
import run_all
from run_all import BENCHMARKS, EXPERIMENT, Benchmark, run_benchmark, run_benchmarks

GOOD = """
import json, sys
from pathlib import Path
numbers = {"ratio": {"value": 0.98, "goal": 0.97, "better": "higher", "unit": "of a | step"}}
numbers["cost"] = {"value": 2.0, "goal": 1.0, "better": "lower", "unit": "s"}
Path(sys.argv[sys.argv.index("--json") + 1]).write_text(json.dumps(numbers))
"""


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_store) -> Path:  # type: ignore[no-untyped-def]
    """A folder with a benchmark that succeeds and one that fails."""
    (tmp_path / "good.py").write_text(GOOD)
    (tmp_path / "bad.py").write_text("raise SystemExit('no disk')")
    monkeypatch.setattr(run_all, "FOLDER", tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", make_store(tmp_path))
    return tmp_path


def test_a_failed_benchmark_is_listed_and_the_others_still_run(scripts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = scripts / "out"
    assert run_benchmarks([Benchmark("bad", (), ()), Benchmark("good", ("--turns", "2"), ())], out) == 1
    printed = capsys.readouterr().out
    assert "1/2  FAILED: no disk" in printed
    assert "2/2  2 numbers" in printed
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in (out / "benchmarks.md").read_text().splitlines()]
    assert ["good", "ratio", "0.98", "≥ 0.97", "met", "of a \\| step", "`python benchmarks/good.py --turns 2`"] in rows
    assert ["good", "cost", "2", "≤ 1", "MISSED", "s", "`python benchmarks/good.py --turns 2`"] in rows
    assert any(row[:1] == ["bad"] and "FAILED" in row for row in rows)
    written = json.loads((out / "benchmarks.json").read_text())
    assert written["benchmarks"]["good"]["numbers"]["ratio"]["value"] == 0.98
    assert written["machine"]["cores"]


def test_numbers_and_files_are_logged_to_mlflow(scripts: Path) -> None:
    assert run_benchmarks([Benchmark("good", (), ())], scripts / "out") == 0
    run = mlflow.search_runs(experiment_names=[EXPERIMENT], output_format="list")[0]
    assert run.info.status == "FINISHED"
    assert run.data.metrics["good/ratio"] == 0.98
    assert run.data.tags["fr_ps.bench.commit"]
    names = {file.path for file in mlflow.MlflowClient().list_artifacts(run.info.run_id)}
    assert names == {"benchmarks.json", "benchmarks.md"}


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda benchmark: benchmark.script)
def test_each_benchmark_runs_at_tiny_size(benchmark: Benchmark, tmp_path: Path) -> None:
    if benchmark.script == "lightning_loop":
        pytest.importorskip("lightning")
    result = run_benchmark(Benchmark(benchmark.script, benchmark.tiny, ()), tmp_path)
    assert not result.failure, (tmp_path / f"{benchmark.script}.log").read_text()
    assert result.numbers


@pytest.mark.slow
def test_the_profile_of_a_small_network_has_every_task(tmp_path: Path) -> None:
    arguments = ["--threads", "1", "--backbones", "timm:test_resnet", "--size", "48", "--epochs", "1"]
    result = run_benchmark(Benchmark("profile_time", tuple(arguments), ()), tmp_path)
    assert not result.failure, (tmp_path / "profile_time.log").read_text()
    log = (tmp_path / "profile_time.log").read_text()
    for task in ("step", "epoch of 3 steps", "train, 1 epochs", "evaluate", "search trial", "request of one session"):
        assert any(line.startswith("timm:test_resnet") and task in line for line in log.splitlines()), log
