"""Open MLflow runs without an fr-ps process."""

import os
import sys
from pathlib import Path

import pytest
from git import Repo
from mlflow import MlflowClient
from mlflow.tracking._tracking_service.utils import _get_git_url_if_present

from fr_ps.cli import main
from fr_ps.errors import InputError
from fr_ps.tracking.mlflow_sink import RUN_ID_TAG
from fr_ps.tracking.open_runs import end_open_run, open_runs
from fr_ps.tracking.run_folder import RUNS_FOLDER, RunInfo


def opened_by_mlflow(store: MlflowClient, **tags: str) -> str:
    """A run with the tags that `mlflow run` of MLflow 3.17 gives it; its id."""
    given = {"mlflow.source.type": "PROJECT", "mlflow.source.name": str(Path.cwd()), "mlflow.project.entryPoint": "train"}
    return str(store.create_run("0", tags=given | tags).info.run_id)


def test_only_open_runs_of_this_folder_that_no_process_adopted_are_listed(store, monkeypatch):
    left = opened_by_mlflow(store)
    opened_by_mlflow(store, **{RUN_ID_TAG: "20261129-aa"})
    opened_by_mlflow(store, **{"mlflow.project.entryPoint": "resume", "fr_ps.kind": "resume"})
    opened_by_mlflow(store, **{"mlflow.project.entryPoint": "demo"})  # has no run of ours
    opened_by_mlflow(store, **{"mlflow.source.name": "/elsewhere"})
    store.set_terminated(opened_by_mlflow(store))
    store.create_run("0")
    RunInfo("20261129-bb", "during an outage", mlflow_id=opened_by_mlflow(store)).write(RUNS_FOLDER / "20261129-bb")
    own = opened_by_mlflow(store)
    monkeypatch.setitem(os.environ, "MLFLOW_RUN_ID", own)
    assert [(one.id, one.entry_point) for one in open_runs()] == [(left, "train")]


@pytest.mark.parametrize("folder", [".", "my%20project/part one"])
def test_runs_of_a_git_checkout_are_found(store, tmp_path, monkeypatch, folder):
    Repo.init(tmp_path)
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path / folder)
    source = _get_git_url_if_present(str(Path.cwd()))
    assert source.startswith("file://")
    run = opened_by_mlflow(store, **{"mlflow.source.name": source})
    assert [one.id for one in open_runs()] == [run]


def test_runs_open_shows_an_open_run_and_end_ends_it(store, capsys):
    run = opened_by_mlflow(store)
    assert main(["runs", "--open"]) == 0
    assert f"end it with: fr-ps runs --end {run[:8]}" in capsys.readouterr().out
    assert main(["runs", "--end", run[:8]]) == 0
    assert store.get_run(run).info.status == "KILLED"
    with pytest.raises(InputError, match="expected one of the ids"):
        end_open_run(run)


def test_runs_without_a_flag_asks_a_local_store_and_no_server(store, monkeypatch, run_command):
    run = opened_by_mlflow(store)
    assert f"--end {run[:8]}" in run_command("runs")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "fr_ps.tracking.open_runs", None)  # its import would fail
    assert "no runs under" in run_command("runs")
