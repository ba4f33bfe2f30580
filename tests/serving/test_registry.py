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
from mlflow.exceptions import MlflowException

import fr_ps
from fr_ps.cli import main
from fr_ps.errors import InputError
from fr_ps.models.folder import weights_digest
from fr_ps.serving.recognizer import Recognizer
from fr_ps.serving.registry import ModelVersion, demote, get_champion, parse_version, register, roll_back, set_champion
from fr_ps.tracking.lifecycle import resume_run, start_run
from fr_ps.tracking.run import Run
from fr_ps.tracking.run_folder import BEST_CHECKPOINT, new_run_info, read_run_info
from tests.serving.conftest import in_store, make_model
from tests.tracking import servers


def finished_run(model: Path, log_model: bool = False) -> Run:
    """A run with metrics and `model` as its best checkpoint."""
    with start_run("r", Path("runs")) as run:
        shutil.copytree(model, run.folder / BEST_CHECKPOINT)
        for epoch, auc in enumerate((0.7, 0.9, 0.8), start=1):
            run.log_metrics({"val/identity/auc": auc, "train/loss/total": 9.0 - epoch}, epoch)
        run.log_metrics({"test/identity/auc": 0.85}, 0)
        if log_model:
            run.log_model(run.folder / BEST_CHECKPOINT, 2)
    return run


@pytest.fixture(scope="module")
def shared_run(both: Path, store_folder: Path) -> Run:
    with in_store(store_folder):
        return finished_run(both, log_model=True)


@pytest.fixture
def run(shared_run: Run, store: MlflowClient) -> Run:
    """A finished run with a logged model. To be read only."""
    return shared_run


def test_a_model_of_another_metric_has_no_metrics_of_the_tested_one(both: Path, store: MlflowClient) -> None:
    with start_run("r", Path("runs")) as run:
        run.log_metrics({"val/identity/eer": 0.1, "best/val/identity/auc": 0.7}, 1)
        run.log_metrics({"best/val/identity/auc": 0.9}, 2)
        run.log_metrics({"test/identity/auc": 0.85}, 0)
        for name, epoch in (("best", 2), ("best_val-identity-eer", 1)):
            shutil.copytree(both, run.folder / "checkpoints" / name)
            run.log_model(run.folder / "checkpoints" / name, epoch)
    models = [store.get_logged_model(one.model_id) for one in store.get_run(run.mlflow_id).outputs.model_outputs]
    found = {model.name: {metric.key: metric.value for metric in model.metrics} for model in models}
    assert found == {
        "best": {"best/val/identity/auc": 0.9, "test/identity/auc": 0.85},
        "best_val-identity-eer": {"val/identity/eer": 0.1},
    }


def test_the_best_checkpoint_is_a_logged_model_with_step_and_metrics(run: Run, store: MlflowClient) -> None:
    stored = store.get_run(run.mlflow_id)
    (output,) = stored.outputs.model_outputs
    assert output.step == 2
    logged = store.get_logged_model(output.model_id)
    assert (logged.name, logged.status, logged.source_run_id) == ("best", "READY", run.mlflow_id)
    assert {(metric.key, metric.value, metric.step) for metric in logged.metrics} == {
        ("val/identity/auc", 0.9, 2),
        ("test/identity/auc", 0.85, 0),
    }
    # The run's own metrics have no duplicate points.
    assert [(point.step, point.value) for point in store.get_metric_history(run.mlflow_id, "val/identity/auc")] == [
        (1, 0.7),
        (2, 0.9),
        (3, 0.8),
    ]
    assert len(store.get_metric_history(run.mlflow_id, "test/identity/auc")) == 1


def test_a_version_predicts_like_its_model_folder(run: Run, name: str, both: Path, prepared: Path, store: MlflowClient) -> None:
    version = register(run.id, name, {"site": "lab 3"})
    assert version == ModelVersion(name, "1")
    assert register(str(run.mlflow_id), name) == ModelVersion(name, "2")
    set_champion(version, None)
    folder = next((prepared / "data").glob("*/*"))
    maps = {modality: np.load(folder / f"{modality}.npy") for modality in ("albedo", "normal")}
    expected = fr_ps.load(str(both), "cpu").embed(maps)
    for model in (f"models:/{name}@champion", f"models:/{name}/2"):
        table = mlflow.pyfunc.load_model(model).predict(pd.DataFrame([maps]))
        assert np.array_equal(np.stack(table["embedding"]), expected)
        assert np.array_equal(fr_ps.load(model, "cpu").embed(maps), expected)
    stored = store.get_model_version(name, "1")
    assert stored.tags["site"] == "lab 3"
    assert stored.tags["fr_ps.weights"] == weights_digest(both)
    assert stored.run_id == run.mlflow_id


def test_register_logs_the_model_of_a_run_that_ended_early(both: Path, store: MlflowClient, name: str) -> None:
    run = finished_run(both)
    register(run.id, name, description="a description")
    (output,) = store.get_run(run.mlflow_id).outputs.model_outputs
    assert output.step == 2
    logged = store.get_logged_model(output.model_id)
    assert {(metric.key, metric.value) for metric in logged.metrics} == {("val/identity/auc", 0.9), ("test/identity/auc", 0.85)}
    expected = f'a description\n\nLoad it with `fr_ps.load("models:/{name}/1")`.'
    assert store.get_model_version(name, "1").description == expected
    assert isinstance(fr_ps.load(f"models:/{name}/1", "cpu"), Recognizer)


def test_a_version_whose_description_cannot_be_completed_is_registered_with_a_warning(
    run: Run, store: MlflowClient, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_arguments: object, **_named: object) -> None:
        raise MlflowException("API request to http://host failed")

    monkeypatch.setattr(MlflowClient, "update_model_version", fail)
    assert register(run.id, name, description="a description") == ModelVersion(name, "1")
    assert store.get_model_version(name, "1").description == "a description"
    assert f"warning: models:/{name}/1: registered, but " in capsys.readouterr().err


def test_a_resumed_run_is_registered_with_its_new_weights(both: Path, prepared: Path, store: MlflowClient, name: str) -> None:
    run = finished_run(both)
    register(run.id, name)
    shutil.rmtree(run.folder / BEST_CHECKPOINT)
    make_model(run.folder / BEST_CHECKPOINT, prepared, "albedo", "normal", seed=7)
    register(run.id, name)
    digests = [fr_ps.load(f"models:/{name}/{number}", "cpu").digest for number in (1, 2)]
    assert digests[1] == weights_digest(run.folder / BEST_CHECKPOINT) != digests[0]
    assert [store.get_model_version(name, number).tags["fr_ps.weights"] for number in ("1", "2")] == digests


def test_invalid_runs_and_names_are_rejected(run: Run) -> None:
    with pytest.raises(InputError, match="nothing: no model folder"):
        register("nothing", "faces")
    for invalid in ("", "a/b", "x:y", "a@b", "a\nb"):
        with pytest.raises(InputError, match=r"^--name is .*; expected a name") as caught:
            register(run.id, invalid)
        assert "\n" not in str(caught.value)


def is_registered(store: MlflowClient, name: str) -> bool:
    return name in [model.name for model in store.search_registered_models()]


def test_a_damaged_model_is_not_registered(both: Path, store: MlflowClient, name: str) -> None:
    run = finished_run(both)
    (run.folder / BEST_CHECKPOINT / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"model\.safetensors: was changed after it was saved"):
        register(run.id, name)
    assert not is_registered(store, name)


@pytest.fixture
def three(run: Run, name: str) -> list[ModelVersion]:
    return [register(run.id, name) for _ in range(3)]


def test_parse_version(three: list[ModelVersion], name: str) -> None:
    assert parse_version(f"models:/{name}/2") == three[1]
    set_champion(three[2], None)
    assert parse_version(f"models:/{name}@champion") == three[2]
    for rest in ("", "/two", "/9", "@missing"):
        with pytest.raises(InputError, match=f"^models:/{name}{rest}: "):
            parse_version(f"models:/{name}{rest}")
    for model in (f"{name}/2", "models:/no/1"):
        with pytest.raises(InputError, match=f"^{model}: "):
            parse_version(model)


def test_champion_roll_back_and_demote(three: list[ModelVersion], name: str) -> None:
    first, second, third = three
    assert get_champion(name) is None
    for version, before in ((first, None), (second, first), (third, second)):
        set_champion(version, before)
        assert get_champion(name) == version
    assert roll_back(name) == (third, second)
    assert get_champion(name) == second
    assert demote(name) == second
    assert get_champion(name) is None
    with pytest.raises(InputError, match="has no champion"):
        demote(name)
    assert roll_back(name) == (None, second)
    assert roll_back(name) == (second, first)
    with pytest.raises(InputError, match="no other champion"):
        roll_back(name)
    assert get_champion(name) == first


def test_roll_back_skips_deleted_versions(three: list[ModelVersion], name: str) -> None:
    first, second, third = three
    set_champion(first, None)
    set_champion(second, first)
    set_champion(third, second)
    MlflowClient().delete_model_version(name, "2")
    assert roll_back(name) == (third, first)


def test_of_two_concurrent_promotions_the_second_is_rejected(three: list[ModelVersion], name: str) -> None:
    first, second, third = three
    set_champion(first, None)
    set_champion(second, first)  # by another process
    with pytest.raises(InputError, match=f"the champion is now models:/{name}/2, changed meanwhile"):
        set_champion(third, first)
    assert get_champion(name) == second
    history = MlflowClient().get_registered_model(name).tags["fr_ps.champions"]
    assert json.loads(history) == ["1", "2"]


def test_an_unreachable_artifact_storage_is_named_in_one_line(both: Path, store: MlflowClient, name: str, capsys) -> None:
    """The storage fails after the run ended."""
    experiment = store.create_experiment("e", artifact_location="file:///proc/nowhere")
    folder = Path("runs/r")
    replace(new_run_info("r", "r"), experiment_id=experiment, experiment="e").write(folder)
    with resume_run(folder):
        shutil.copytree(both, folder / BEST_CHECKPOINT)
    assert main(["register", "--model", "r", "--name", name]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: run ")
    assert "the model cannot be written to the artifact storage file:///proc/nowhere" in line
    assert not is_registered(store, name)


def test_a_server_that_drops_between_the_download_and_the_id_is_named_at_once(
    both: Path, tmp_path, monkeypatch, rejected
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := servers.refusing())
    monkeypatch.setattr("fr_ps.serving.registry.resolve_model", lambda *_: both)  # it answered
    with rejected("abcdef: cannot be found in MLflow", f"check that the MLflow server {uri} is reachable"):
        register("abcdef", "a-name")


def test_a_run_of_another_store_is_rejected_with_both_stores(run: Run, make_store, tmp_path: Path, monkeypatch, rejected) -> None:
    (tmp_path / "other").mkdir()
    before, uri = str(read_run_info(run.folder).tracking_uri), make_store(tmp_path / "other")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with rejected(run.id, before, uri, f"fr-ps sync --run {run.id} --store"):
        register(run.id, "faces")


def test_a_failing_artifact_storage_behind_an_mlflow_server_is_named(
    both: Path, store: MlflowClient, name: str, monkeypatch: pytest.MonkeyPatch, rejected
) -> None:
    """The server passes artifacts on to its storage, and MLflow's retries of that request are used up."""
    run = finished_run(both)
    failure = MlflowException("API request to http://host/api/2.0/mlflow-artifacts/artifacts/1/x failed with exception: 503")

    def fail(*_arguments: object) -> None:
        raise failure

    monkeypatch.setattr(MlflowClient, "log_model_artifacts", fail)
    with rejected(f"run {run.mlflow_id}: the model cannot be written to the artifact storage ", "mlruns", "storage is reachable"):
        register(run.id, name)
    assert not is_registered(store, name)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("API request to http://host/api/2.0/mlflow/runs failed with exception: refused", "check that the MLflow server"),
        ("Registered Model name=faces is locked", "see the registered models in mlflow ui"),
    ],
)
def test_an_error_of_the_registry_has_a_remedy(
    run: Run, monkeypatch: pytest.MonkeyPatch, rejected, text: str, remedy: str
) -> None:
    def fail(*_arguments: object, **_named: object) -> None:
        raise MlflowException(text)

    monkeypatch.setattr(MlflowClient, "create_registered_model", fail)
    with rejected(f"faces: run {run.id} cannot be registered under that name ({text}); {remedy}"):
        register(run.id, "faces")
