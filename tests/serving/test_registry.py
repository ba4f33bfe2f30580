"""The model registry in a real MLflow store."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

import fr_ps
from fr_ps.cli import main
from fr_ps.errors import InputError
from fr_ps.models.folder import weights_digest
from fr_ps.serving.recognizer import Recognizer
from fr_ps.serving.registry import ModelVersion, demote, get_champion, parse_version, register, roll_back, set_champion
from fr_ps.tracking.layout import BEST_CHECKPOINT
from fr_ps.tracking.lifecycle import resume_run, start_run
from fr_ps.tracking.run import Run
from fr_ps.tracking.run_folder import new_run_info, read_run_info
from tests.serving.conftest import make_model


@pytest.fixture
def run(both: Path, store: MlflowClient) -> Run:
    """A run with the model `both` and metrics."""
    with start_run("r", Path("runs")) as run:
        shutil.copytree(both, run.folder / BEST_CHECKPOINT)
        for epoch, auc in enumerate((0.7, 0.9, 0.8), start=1):
            run.log_metrics({"val/identity/auc": auc, "train/loss/total": 9.0 - epoch}, epoch)
        run.log_metrics({"test/identity/auc": 0.85}, 2)
        run.log_model(run.folder / BEST_CHECKPOINT, 2)
    return run


def test_the_best_checkpoint_is_a_logged_model_with_step_and_metrics(run: Run, store: MlflowClient) -> None:
    stored = store.get_run(run.mlflow_id)
    (output,) = stored.outputs.model_outputs
    assert output.step == 2
    logged = store.get_logged_model(output.model_id)
    assert (logged.name, logged.status, logged.source_run_id) == ("best", "READY", run.mlflow_id)
    assert {(metric.key, metric.value, metric.step) for metric in logged.metrics} == {
        ("val/identity/auc", 0.9, 2),
        ("test/identity/auc", 0.85, 2),
    }
    # The run's own metrics have no duplicate points.
    assert [(point.step, point.value) for point in store.get_metric_history(run.mlflow_id, "val/identity/auc")] == [
        (1, 0.7),
        (2, 0.9),
        (3, 0.8),
    ]
    assert len(store.get_metric_history(run.mlflow_id, "test/identity/auc")) == 1


def test_a_version_predicts_like_its_model_folder(run: Run, both: Path, prepared: Path) -> None:
    version = register(run.id, "faces", {"site": "lab 3"})
    assert version == ModelVersion("faces", "1")
    assert register(str(run.mlflow_id), "faces") == ModelVersion("faces", "2")
    set_champion(version, None)
    folder = next((prepared / "data").glob("*/*"))
    maps = {name: np.load(folder / f"{name}.npy") for name in ("albedo", "normal")}
    expected = fr_ps.load(str(both), "cpu").embed(maps)
    for name in ("models:/faces@champion", "models:/faces/2"):
        loaded = mlflow.pyfunc.load_model(name)
        answer = loaded.predict(pd.DataFrame([maps]))
        assert np.array_equal(np.stack(answer["embedding"]), expected)
        assert np.array_equal(fr_ps.load(name, "cpu").embed(maps), expected)
    client = MlflowClient()
    stored = client.get_model_version("faces", "1")
    assert stored.tags["site"] == "lab 3"
    assert stored.tags["fr_ps.weights"] == weights_digest(both)
    assert stored.run_id == run.mlflow_id


def test_a_version_has_no_pickle_and_lists_its_requirements(run: Run) -> None:
    register(run.id, "faces")
    files = Path(mlflow.artifacts.download_artifacts("models:/faces/1"))
    assert not [file for file in files.rglob("*") if file.suffix in (".pkl", ".pickle", ".pt", ".pth", ".bin")]
    needs = (files / "requirements.txt").read_text()
    for name in ("torch==", "timm==", "safetensors==", "mlflow=="):
        assert name in needs
    assert (files / "code/fr_ps/serving/recognizer.py").is_file()
    assert not list(files.rglob("__pycache__"))


def test_register_logs_the_model_of_a_run_that_ended_early(both: Path, store: MlflowClient) -> None:
    with start_run("early", Path("runs")) as run:
        shutil.copytree(both, run.folder / BEST_CHECKPOINT)
        for epoch, auc in enumerate((0.7, 0.9, 0.8), start=1):
            run.log_metrics({"val/identity/auc": auc, "val/identity/eer": 1 - auc}, epoch)
    register(run.id, "faces", description="a description")
    (output,) = store.get_run(run.mlflow_id).outputs.model_outputs
    assert output.step == 2
    logged = store.get_logged_model(output.model_id)
    assert {(metric.key, metric.value) for metric in logged.metrics} == {
        ("val/identity/auc", 0.9),
        ("val/identity/eer", 1 - 0.9),
    }
    assert MlflowClient().get_model_version("faces", "1").description == "a description"
    assert isinstance(fr_ps.load("models:/faces/1", "cpu"), Recognizer)


def test_a_resumed_run_is_registered_with_its_new_weights(run: Run, prepared: Path, store: MlflowClient, tmp_path: Path) -> None:
    register(run.id, "faces")
    shutil.rmtree(run.folder / BEST_CHECKPOINT)
    make_model(run.folder / BEST_CHECKPOINT, prepared, "albedo", "normal", seed=7)
    register(run.id, "faces")
    digests = [fr_ps.load(f"models:/faces/{number}", "cpu").digest for number in (1, 2)]
    assert digests[1] == weights_digest(run.folder / BEST_CHECKPOINT) != digests[0]
    tags = [store.get_model_version("faces", number).tags["fr_ps.weights"] for number in ("1", "2")]
    assert tags == digests


def test_invalid_runs_and_names_are_rejected(run: Run, store: MlflowClient) -> None:
    with pytest.raises(InputError, match="nothing: no model folder"):
        register("nothing", "faces")
    for name in ("", "a/b", "x:y", "a@b", "a\nb"):
        with pytest.raises(InputError, match=r"^--name is .*; expected a name") as caught:
            register(run.id, name)
        assert "\n" not in str(caught.value)


def test_a_damaged_model_is_not_registered(run: Run, store: MlflowClient) -> None:
    (run.folder / BEST_CHECKPOINT / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"model\.safetensors: was changed after it was saved"):
        register(run.id, "faces")
    assert store.search_registered_models() == []


@pytest.fixture
def three(run: Run) -> list[ModelVersion]:
    return [register(run.id, "faces") for _ in range(3)]


def test_parse_version(three: list[ModelVersion]) -> None:
    assert parse_version("models:/faces/2") == three[1]
    set_champion(three[2], None)
    assert parse_version("models:/faces@champion") == three[2]
    for name in ("faces/2", "models:/faces", "models:/faces/two", "models:/faces/9", "models:/faces@nobody", "models:/no/1"):
        with pytest.raises(InputError, match=name):
            parse_version(name)


def test_champion_roll_back_and_demote(three: list[ModelVersion]) -> None:
    first, second, third = three
    assert get_champion("faces") is None
    for version, before in ((first, None), (second, first), (third, second)):
        set_champion(version, before)
        assert get_champion("faces") == version
    assert roll_back("faces") == (third, second)
    assert get_champion("faces") == second
    assert demote("faces") == second
    assert get_champion("faces") is None
    with pytest.raises(InputError, match="has no champion"):
        demote("faces")
    assert roll_back("faces") == (None, second)
    assert roll_back("faces") == (second, first)
    with pytest.raises(InputError, match="no other champion"):
        roll_back("faces")
    assert get_champion("faces") == first


def test_roll_back_skips_deleted_versions(three: list[ModelVersion]) -> None:
    first, second, third = three
    set_champion(first, None)
    set_champion(second, first)
    set_champion(third, second)
    MlflowClient().delete_model_version("faces", "2")
    assert roll_back("faces") == (third, first)


def test_of_two_concurrent_promotions_the_second_is_rejected(three: list[ModelVersion]) -> None:
    first, second, third = three
    set_champion(first, None)
    set_champion(second, first)  # by another process
    with pytest.raises(InputError, match="the champion is now models:/faces/2"):
        set_champion(third, first)
    assert get_champion("faces") == second
    history = MlflowClient().get_registered_model("faces").tags["fr_ps.champions"]
    assert json.loads(history) == ["1", "2"]


def test_an_unreachable_artifact_storage_is_named_in_one_line(both: Path, store: MlflowClient, capsys) -> None:
    """The storage fails after the run ended."""
    experiment = store.create_experiment("e", artifact_location="file:///proc/nowhere")
    folder = Path("runs/r")
    replace(new_run_info("r", "r"), experiment_id=experiment, experiment="e").write(folder)
    with resume_run(folder):
        shutil.copytree(both, folder / BEST_CHECKPOINT)
    assert main(["register", "--model", "r", "--name", "faces"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: run ")
    assert "the model cannot be written to the artifact storage file:///proc/nowhere" in line
    assert store.search_registered_models() == []


def test_a_run_of_another_store_is_rejected_with_both_stores(run: Run, make_store, tmp_path: Path, monkeypatch, refused) -> None:
    (tmp_path / "other").mkdir()
    before, uri = str(read_run_info(run.folder).tracking_uri), make_store(tmp_path / "other")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with refused(run.id, before, uri, f"fr-ps sync --run {run.id} --store"):
        register(run.id, "faces")
