"""A run that others are parts of: made once in MLflow, and its parts are shown below it."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from fr_ps.tracking.lifecycle import ensure_parent_folder, refresh_parent, resume_run, start_parent_run, start_run
from fr_ps.tracking.run_folder import PARENT_TAG, RUN_INFO_FILE, read_run_info
from fr_ps.tracking.sync import move_to_store

RUNS = Path("runs")


def test_its_parts_are_below_it_in_its_experiment_whatever_the_environment_says(store: MlflowClient, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "studies")
    card, parent = start_parent_run("a study", RUNS)
    assert store.get_run(parent.mlflow_id).info.run_name == "a study"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "elsewhere")
    monkeypatch.setenv("MLFLOW_RUN_ID", "of somebody else")
    with start_run("a trial", RUNS, parent=parent, run_id="known-before") as run:
        assert run.id == "known-before"
    assert os.environ["MLFLOW_RUN_ID"] == "of somebody else"
    stored = store.get_run(run.mlflow_id)
    assert stored.data.tags[PARENT_TAG] == card.mlflow_id == parent.mlflow_id
    assert stored.info.experiment_id == store.get_experiment_by_name("studies").experiment_id == parent.experiment_id
    assert store.get_experiment_by_name("elsewhere") is None
    assert read_run_info(run.folder).parent == parent.mlflow_id
    assert read_run_info(RUNS / card.id).parent == ""


def test_it_is_the_run_that_mlflow_run_began(store: MlflowClient, monkeypatch):
    begun = store.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", begun)
    card, parent = start_parent_run("a study", RUNS)
    assert card.mlflow_id == parent.mlflow_id == begun
    assert parent.experiment_id == "0"


def test_it_goes_on_as_the_same_run_also_where_its_folder_was_not(store: MlflowClient):
    card, parent = start_parent_run("a study", RUNS)
    with resume_run(ensure_parent_folder(card, RUNS)) as run:
        run.log_metrics({"best": 0.5}, 1)
    other = Path("another machine")
    with resume_run(ensure_parent_folder(card, other)) as run:
        assert run.mlflow_id == parent.mlflow_id
        run.log_metrics({"best": 0.7}, 2)
    points = [(point.step, point.value) for point in store.get_metric_history(parent.mlflow_id, "best")]
    assert points == [(1, 0.5), (2, 0.7)]
    assert len(store.search_runs([parent.experiment_id])) == 1


def test_a_folder_that_is_there_keeps_its_card(store: MlflowClient):
    card, _ = start_parent_run("a study", RUNS)
    assert ensure_parent_folder(replace(card, name="renamed"), RUNS) == RUNS / card.id
    assert read_run_info(RUNS / card.id).name == "a study"


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "nonsense://x"])
def test_without_mlflow_there_is_no_whole_and_that_is_said(monkeypatch, refused, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with refused(uri, "check that the server answers"):
        start_parent_run("a study", RUNS)


def test_a_place_that_cannot_be_written_is_refused(store: MlflowClient, small_disk: Path, refused):
    (small_disk / "fill").write_bytes(b"0" * 190_000)
    shutil.rmtree(small_disk / "runs", ignore_errors=True)
    with refused("disk"):
        for _ in range(100):
            start_parent_run("a study", small_disk / "runs")
    assert not list((small_disk / "runs").glob(f"*/.partial*{RUN_INFO_FILE}"))


def test_a_parent_that_was_moved_to_another_store_has_its_id_there(store: MlflowClient, make_store, tmp_path, monkeypatch):
    card, parent = start_parent_run("a study", RUNS)
    folder = RUNS / card.id
    assert refresh_parent(parent, folder) == parent == refresh_parent(parent, RUNS / "nowhere")
    (tmp_path / "other").mkdir()
    uri = make_store(tmp_path / "other")
    other = MlflowClient(uri)
    other.create_experiment("so that the ids of experiments differ")
    assert move_to_store([folder], uri) == []
    found = refresh_parent(parent, folder)
    assert found.mlflow_id == read_run_info(folder).mlflow_id != parent.mlflow_id
    assert other.get_experiment(found.experiment_id).name == "fr-ps"


def test_it_is_a_run_of_its_own_where_the_named_one_is_not_free(store: MlflowClient, monkeypatch, capsys):
    begun = store.create_run("0").info.run_id
    store.set_terminated(begun)
    monkeypatch.setenv("MLFLOW_RUN_ID", begun)
    card, parent = start_parent_run("a study", RUNS)
    assert parent.mlflow_id == card.mlflow_id != begun
    assert (
        f"MLFLOW_RUN_ID names MLflow run {begun}, which is FINISHED; run {card.id} gets a new MLflow run"
        in capsys.readouterr().err
    )
