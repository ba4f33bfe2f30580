"""A run folder of version 0.1: delivered to a new store, resumed to its end, and used for predictions.

`old_files/interrupted_run.tar.xz` was written at commit c38f007: a training of two epochs, stopped after the first step of the
second. Its weights have two values per tensor, which keeps the archive small.
"""

import tarfile
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from fr_ps.cli import main
from fr_ps.config import PrepareConfig
from fr_ps.data.prepare import prepare
from fr_ps.synthetic.captures import write_synthetic_captures
from fr_ps.tracking.listing import list_runs
from tests.conftest import MakeStore

ARCHIVE = Path(__file__).parent / "old_files" / "interrupted_run.tar.xz"
RUN = "20261129-022924-96cca8"


@pytest.fixture
def old_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_store: MakeStore, undrawn: None) -> MlflowClient:
    """The run in the folder `runs` of an empty working folder, and a client of a new tracking store."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    uri = make_store(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall("runs", filter="data")
    return MlflowClient(uri)


def test_a_run_of_version_0_1_is_delivered_resumed_and_used(old_run: MlflowClient, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sync", "--store", old_run.tracking_uri]) == 0
    # The built-in faces may differ in the last bits on another machine.
    assert main(["train", "--resume", RUN, "--allow-changed", "--device=cpu"]) == 0
    printed = capsys.readouterr().out
    assert "epoch 2/2" in printed
    assert "epoch 1/2" not in printed
    (summary,) = list_runs(Path("runs"))
    assert (summary.id, summary.status, summary.epoch, summary.pending_events) == (RUN, "FINISHED", 2, 0)
    run = old_run.get_run(summary.mlflow_id)
    assert run.info.status == "FINISHED"
    assert [point.step for point in old_run.get_metric_history(summary.mlflow_id, "train/loss/total")] == [1, 2]
    curve = [point.value for point in old_run.get_metric_history(summary.mlflow_id, "val/identity/auc")]
    assert run.data.metrics["best/val/identity/auc"] == max(curve)
    assert run.data.params["train/scoring_batch"] == "64"
    write_synthetic_captures(Path("raw"), people=2, sessions=2, seed=0, size=32)
    prepare(PrepareConfig(captures="raw/captures", out="prepared", labels="raw/labels.csv", size=32))
    assert main(["predict", "--model", RUN, "--data", "prepared", "--out", "predictions.csv"]) == 0
    assert len(pd.read_csv("predictions.csv")) == 4
