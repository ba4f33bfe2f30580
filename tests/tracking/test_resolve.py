"""The MODEL argument of commands."""

import json
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from fr_ps.errors import InputError
from fr_ps.tracking.resolve import display_name, resolve_model
from tests.conftest import AssertRejected, MakeStore

BEST_FILES = {"checkpoints/best/model.json": "{}", "checkpoints/best/model.safetensors": "w", "report/metrics.json": "{}"}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, make_store: MakeStore) -> Path:
    """The folder of a SQLite store with an experiment `e` and a registered model `faces`."""
    folder = tmp_path_factory.mktemp("store")
    client = MlflowClient(make_store(folder))
    client.create_experiment("e", artifact_location=str(folder / "artifacts"))
    client.create_registered_model("faces")
    return folder


@pytest.fixture
def client(registry: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{registry}/mlflow.db")
    return MlflowClient()


def log_run(client: MlflowClient, files: dict[str, str]) -> str:
    """The id of a new run with these artifacts."""
    folder = Path("files")
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    experiment = client.get_experiment_by_name("e")
    assert experiment is not None
    run = client.create_run(experiment.experiment_id).info.run_id
    client.log_artifacts(run, str(folder))
    shutil.rmtree(folder)
    return run


def register(client: MlflowClient, files: dict[str, str], source: str = "checkpoints/best") -> str:
    """A new version of `faces`, whose source is the folder `source` of a run with these artifacts; its number."""
    run = log_run(client, files)
    return client.create_model_version("faces", f"runs:/{run}/{source}", run).version


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "20260101-000000-abcdef"
    (folder / "checkpoints/best").mkdir(parents=True)
    (folder / "checkpoints/best/model.json").write_text("{}")
    (folder / "run.json").write_text(json.dumps({"id": folder.name, "mlflow_id": "f" * 32, "name": "x"}))
    return tmp_path / "runs"


def test_a_run_is_resolved_by_both_ids_and_by_its_folders(runs):
    best = runs / "20260101-000000-abcdef/checkpoints/best"
    for name in ("20260101-000000-abcdef", "f" * 32, str(best), str(best.parents[1])):
        assert resolve_model(name, runs).resolve() == best.resolve()


def test_a_model_is_named_by_its_run_and_a_model_folder_by_itself(runs, monkeypatch, tmp_path):
    """Also if the folder's name is the beginning of a run's id."""
    monkeypatch.chdir(tmp_path)
    for name in ("20260101-000000-abcdef", str(runs / "20260101-000000-abcdef/checkpoints/best")):
        assert display_name(name, runs) == "x"
    shutil.copytree(runs / "20260101-000000-abcdef/checkpoints/best", "20260101")
    assert display_name("20260101", runs) == "20260101"
    assert display_name("models:/faces/2", runs) == "faces/2"


def test_a_run_without_a_checkpoint_is_an_error(runs):
    (runs / "20260101-000000-abcdef/checkpoints/best/model.json").unlink()
    with pytest.raises(InputError, match="before its first checkpoint"):
        resolve_model("f" * 32, runs)


@pytest.mark.parametrize("name", ["nothing", "../../etc", "0" * 32])
def test_an_unknown_model_is_an_error_in_one_line(name, runs, client):
    with pytest.raises(InputError) as error:
        resolve_model(name, runs)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_run_without_a_folder_is_downloaded_from_mlflow(client, tmp_path):
    run = log_run(client, BEST_FILES)
    assert (resolve_model(run, tmp_path / "runs") / "model.json").is_file()


def test_the_beginning_of_an_id_is_enough_also_for_a_run_of_mlflow_only(client, runs, tmp_path):
    run = log_run(client, BEST_FILES)
    assert (resolve_model(run[:12], tmp_path / "none") / "model.json").is_file()
    assert resolve_model("ffff", runs) == resolve_model("20260101-0000", runs) == runs / "20260101-000000-abcdef/checkpoints/best"


def test_a_version_of_a_registered_model_is_found_by_its_number_and_by_its_alias(client: MlflowClient) -> None:
    first = register(client, BEST_FILES)
    second = register(client, BEST_FILES | {"checkpoints/best/model.json": '{"the": "second"}'})
    client.set_registered_model_alias("faces", "champion", second)
    for name, text in ((f"models:/faces/{first}", "{}"), (f"models:/faces/{second}", '{"the": "second"}')):
        folder = resolve_model(name)
        assert (folder / "model.json").read_text() == text
        assert (folder / "model.safetensors").read_text() == "w"
    assert (resolve_model("models:/faces@champion") / "model.json").read_text() == '{"the": "second"}'
    client.set_registered_model_alias("faces", "champion", first)
    assert (resolve_model("models:/faces@champion") / "model.json").read_text() == "{}"


def test_a_model_folder_deep_among_the_files_of_a_version_is_found(client: MlflowClient) -> None:
    """As in a pyfunc model, where it is an artifact of it."""
    version = register(client, {"packed/MLmodel": "flavors: {}", "packed/artifacts/model/model.json": "{}"}, "packed")
    folder = resolve_model(f"models:/faces/{version}")
    assert folder.parts[-2:] == ("artifacts", "model")
    assert (folder / "model.json").is_file()


@pytest.mark.parametrize(
    ("files", "count"), [({"a.txt": ""}, 0), ({"a/model.json": "{}", "b/model.json": "{}"}, 2)], ids=["none", "two"]
)
def test_a_version_without_exactly_one_model_folder_is_an_error(
    client: MlflowClient, rejected: AssertRejected, files: dict[str, str], count: int
) -> None:
    version = register(client, {f"x/{name}": text for name, text in files.items()}, "x")
    with rejected(f"models:/faces/{version}", f"hold {count} model folders"):
        resolve_model(f"models:/faces/{version}")


@pytest.mark.parametrize(
    "name", ["models:/faces/999", "models:/faces@unknown", "models:/nothing/1", "models:/faces/one", "models:/faces", "models:/"]
)
def test_an_unknown_version_is_an_error(client: MlflowClient, rejected: AssertRejected, name: str) -> None:
    register(client, BEST_FILES)
    with rejected(f"{name}: ", "models:/NAME/VERSION or models:/NAME@ALIAS"):
        resolve_model(name)


def test_a_version_without_its_files_is_an_error(client: MlflowClient, registry: Path, rejected: AssertRejected) -> None:
    version = register(client, BEST_FILES)
    shutil.rmtree(registry / "artifacts")
    with rejected(f"models:/faces/{version}"):
        resolve_model(f"models:/faces/{version}")


@pytest.mark.parametrize("model", ["x" * 300, "runs/" + "x" * 300, "x" * 5000, "a\0b"])
def test_a_name_that_cannot_be_a_path_is_an_error(client: MlflowClient, runs: Path, rejected: AssertRejected, model: str) -> None:
    with rejected("no model folder, no run under"):
        resolve_model(model, runs)


def test_missing_files_of_a_version_and_a_wrong_name_have_different_messages(
    client: MlflowClient, registry: Path, runs: Path, rejected: AssertRejected
) -> None:
    """As in a project folder that was moved."""
    number = register(client, BEST_FILES)
    moved = (registry / "artifacts").rename(registry / "moved")
    try:
        with rejected(f"models:/faces/{number}: the registry has this version", str(registry / "artifacts"), "move it back"):
            resolve_model(f"models:/faces/{number}", runs)
    finally:
        moved.rename(registry / "artifacts")
    resolve_model(f"models:/faces/{number}", runs)
    with rejected("not found in the model registry", "expected models:/NAME/VERSION"):
        resolve_model("models:/faces/9999", runs)
