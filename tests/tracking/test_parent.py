"""A parent run, as of a study: created once in MLflow, with its children below it."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from fr_ps.tracking.lifecycle import create_parent_run, refresh_parent, restore_run_folder, resume_run, start_run
from fr_ps.tracking.run_folder import PARENT_TAG, RUN_INFO_FILE, read_run_info
from fr_ps.tracking.sync import move_to_store
from tests.tracking import servers

RUNS = Path("runs")


def test_children_are_in_the_experiment_of_the_parent(store: MlflowClient, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "studies")
    info, parent = create_parent_run("a study", RUNS)
    assert store.get_run(parent.mlflow_id).info.run_name == "a study"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "elsewhere")
    monkeypatch.setenv("MLFLOW_RUN_ID", "of another run")
    with start_run("a trial", RUNS, parent=parent, run_id="known-before") as run:
        assert run.id == "known-before"
    assert os.environ["MLFLOW_RUN_ID"] == "of another run"
    stored = store.get_run(run.mlflow_id)
    assert stored.data.tags[PARENT_TAG] == info.mlflow_id == parent.mlflow_id
    assert stored.info.experiment_id == store.get_experiment_by_name("studies").experiment_id == parent.experiment_id
    assert store.get_experiment_by_name("elsewhere") is None
    assert read_run_info(run.folder).parent_id == parent.mlflow_id
    assert read_run_info(RUNS / info.id).parent_id == ""


def test_a_parent_adopts_the_run_of_mlflow_run(store: MlflowClient, monkeypatch):
    started = store.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", started)
    info, parent = create_parent_run("a study", RUNS)
    assert info.mlflow_id == parent.mlflow_id == started
    assert parent.experiment_id == "0"


def test_a_parent_is_resumed_as_the_same_run_also_on_another_machine(store: MlflowClient):
    info, parent = create_parent_run("a study", RUNS)
    with resume_run(restore_run_folder(info, RUNS)) as run:
        run.log_metrics({"best": 0.5}, 1)
    other = Path("another machine")
    with resume_run(restore_run_folder(info, other)) as run:
        assert run.mlflow_id == parent.mlflow_id
        run.log_metrics({"best": 0.7}, 2)
    points = [(point.step, point.value) for point in store.get_metric_history(parent.mlflow_id, "best")]
    assert points == [(1, 0.5), (2, 0.7)]
    assert len(store.search_runs([parent.experiment_id])) == 1


def test_an_existing_parent_folder_is_unchanged(store: MlflowClient):
    info, _ = create_parent_run("a study", RUNS)
    assert restore_run_folder(replace(info, name="renamed"), RUNS) == RUNS / info.id
    assert read_run_info(RUNS / info.id).name == "a study"


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "nonsense://x"])
def test_a_parent_without_mlflow_is_an_error(monkeypatch, rejected, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with rejected(uri, "check that the server answers"):
        create_parent_run("a study", RUNS)


def test_a_runs_folder_that_cannot_be_written_is_an_error(store: MlflowClient, small_disk: Path, rejected):
    (small_disk / "fill").write_bytes(b"0" * 190_000)
    shutil.rmtree(small_disk / "runs", ignore_errors=True)
    with rejected("disk"):
        for _ in range(100):
            create_parent_run("a study", small_disk / "runs")
    assert not list((small_disk / "runs").glob(f"*/.partial*{RUN_INFO_FILE}"))


def test_a_parent_moved_to_another_store_has_its_new_id(store: MlflowClient, make_store, tmp_path, monkeypatch):
    info, parent = create_parent_run("a study", RUNS)
    folder = RUNS / info.id
    assert refresh_parent(parent, folder) == parent == refresh_parent(parent, RUNS / "nowhere")
    (tmp_path / "other").mkdir()
    uri = make_store(tmp_path / "other")
    other = MlflowClient(uri)
    other.create_experiment("so that the ids of experiments differ")
    assert move_to_store([folder], uri) == []
    found = refresh_parent(parent, folder)
    assert found.mlflow_id == read_run_info(folder).mlflow_id != parent.mlflow_id
    assert other.get_experiment(found.experiment_id).name == "fr-ps"


def test_a_moved_parent_whose_server_is_down_is_an_error(store: MlflowClient, rejected):
    info, parent = create_parent_run("a study", RUNS)
    folder = RUNS / info.id
    uri = servers.refusing()
    replace(read_run_info(folder), mlflow_id="0" * 32, tracking_uri=uri).write(folder)
    with rejected(f"MLflow ({uri}) cannot create or find the parent run of the study", "check that the server answers"):
        refresh_parent(parent, folder)


def test_a_parent_does_not_adopt_an_ended_run(store: MlflowClient, monkeypatch, capsys):
    started = store.create_run("0").info.run_id
    store.set_terminated(started)
    monkeypatch.setenv("MLFLOW_RUN_ID", started)
    info, parent = create_parent_run("a study", RUNS)
    assert parent.mlflow_id == info.mlflow_id != started
    assert (
        f"MLflow run {started}, from MLFLOW_RUN_ID or run.json, is FINISHED; run {info.id} gets a new MLflow run"
        in capsys.readouterr().err
    )
