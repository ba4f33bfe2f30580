"""Runs that `mlflow run` left open without a command of fr-ps."""

import os
from pathlib import Path

import pytest
from mlflow import MlflowClient

from fr_ps.cli import main
from fr_ps.errors import InputError
from fr_ps.tracking.mlflow_sink import RUN_ID_TAG
from fr_ps.tracking.unattended import end_unattended_run, unattended_runs


def opened_by_mlflow(store: MlflowClient, **tags: str) -> str:
    """A run with the tags that `mlflow run` of MLflow 3.17 gives it; its id."""
    given = {"mlflow.source.type": "PROJECT", "mlflow.source.name": str(Path.cwd()), "mlflow.project.entryPoint": "train"}
    return str(store.create_run("0", tags=given | tags).info.run_id)


def test_only_open_runs_of_this_folder_without_a_command_are_unattended(store, monkeypatch):
    left = opened_by_mlflow(store)
    opened_by_mlflow(store, **{RUN_ID_TAG: "20261129-aa"})
    opened_by_mlflow(store, **{"mlflow.source.name": "/elsewhere"})
    store.set_terminated(opened_by_mlflow(store))
    store.create_run("0")
    own = opened_by_mlflow(store)
    monkeypatch.setitem(os.environ, "MLFLOW_RUN_ID", own)
    assert [(one.id, one.entry_point) for one in unattended_runs()] == [(left, "train")]


def test_runs_shows_an_unattended_run_and_ends_it(store, capsys):
    run = opened_by_mlflow(store)
    assert main(["runs"]) == 0
    assert f"end it with: fr-ps runs --end {run[:8]}" in capsys.readouterr().out
    assert main(["runs", "--end", run[:8]]) == 0
    assert store.get_run(run).info.status == "KILLED"
    with pytest.raises(InputError, match="expected one of the ids"):
        end_unattended_run(run)
