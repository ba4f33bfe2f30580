"""The recorded environment of a run, and the samples of the machine in journal and MLflow against psutil."""

import subprocess
import time
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from fr_ps.tracking import delivery, lifecycle
from fr_ps.tracking.environment import environment_text, git_commit
from fr_ps.tracking.journal import read_events
from fr_ps.tracking.lifecycle import resume_run, start_run
from fr_ps.tracking.listing import list_runs
from fr_ps.tracking.run import Run
from fr_ps.tracking.run_folder import read_run_info
from fr_ps.tracking.sync import move_to_store, pending_runs, sync
from tests.tracking import servers

RUNS = Path("runs")
NAMES = {
    *("cpu_utilization_percentage", "system_memory_usage_megabytes", "system_memory_usage_percentage"),
    *("disk_usage_percentage", "disk_usage_megabytes", "disk_available_megabytes"),
    *("network_receive_megabytes", "network_transmit_megabytes"),
}
"""From MLflow's documentation; its user interface shows names under `system/` on a page of their own."""


@pytest.fixture(autouse=True)
def interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")


def wait_for_samples(run: Run, count: int) -> None:
    """Wait until the journal has `count` samples of the machine."""
    while sum(event.kind == "metrics" and "cpu" in str(event.data) for _, event in read_events(run.journal.path)) < count:
        time.sleep(0.02)


@pytest.mark.parametrize("by", ["environment", "setting"])
def test_system_metrics_are_recorded_on_request(store, monkeypatch, by):
    if by == "environment":
        monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    with start_run("x", RUNS, system_metrics=by == "setting") as run:
        run.log_metrics({"val/identity/auc": 0.5}, 1)
        wait_for_samples(run, 3)
    metrics = store.get_run(run.mlflow_id).data.metrics
    assert set(metrics) == {"val/identity/auc", *(f"system/{name}" for name in NAMES)}
    memory = psutil.virtual_memory()
    assert metrics["system/system_memory_usage_megabytes"] == pytest.approx(memory.used / 1e6, rel=0.5)
    assert 0 <= metrics["system/cpu_utilization_percentage"] <= 100
    history = store.get_metric_history(run.mlflow_id, "system/cpu_utilization_percentage")
    steps = [point.step for point in history]
    assert steps == list(range(len(steps)))
    assert len(steps) >= 3
    (summary,) = list_runs(RUNS)
    assert summary.epoch == 1  # samples are no epochs
    with resume_run(run.folder, system_metrics=True) as again:
        assert set(again.metric_history) == {"val/identity/auc"}
    again_steps = [point.step for point in store.get_metric_history(run.mlflow_id, "system/cpu_utilization_percentage")]
    assert again_steps == list(range(len(steps) + 1))


def test_system_metrics_are_off_by_default(store):
    with start_run("x", RUNS) as run:
        time.sleep(0.2)
    assert store.get_run(run.mlflow_id).data.metrics == {}


def test_an_outage_loses_no_system_metrics(store, monkeypatch):
    up = store.tracking_uri
    monkeypatch.setattr(lifecycle, "_TIMEOUT", 0.2)
    monkeypatch.setattr(delivery, "_CLOSING_BACKOFF", 0.1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", servers.refusing())
    with start_run("x", RUNS, lambda line: None, system_metrics=True) as run:
        wait_for_samples(run, 3)
    assert move_to_store([run.folder], up) == []
    (row,) = sync(list(pending_runs(RUNS)), lambda taken: None)
    assert row.reason == ""
    history = MlflowClient(up).get_metric_history(str(read_run_info(run.folder).mlflow_id), "system/cpu_utilization_percentage")
    assert [point.step for point in history] == list(range(len(history)))
    assert len(history) >= 3


def test_the_commit_has_a_mark_for_uncommitted_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert git_commit() == "unknown"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "a").write_text("1")
    subprocess.run([*git, "add", "a"], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert git_commit() == head
    (tmp_path / "a").write_text("2")
    assert git_commit() == head + "-dirty"


def test_the_environment_lists_the_installed_versions():
    import numpy

    assert f"numpy=={numpy.__version__}" in environment_text().splitlines()
