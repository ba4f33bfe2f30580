"""What a user may call a run or a model."""

import json
from pathlib import Path

import pytest

from fr_ps.errors import InputError
from fr_ps.tracking.find import model_folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "20260101-000000-abcdef"
    (folder / "checkpoints/best").mkdir(parents=True)
    (folder / "checkpoints/best/model.json").write_text("{}")
    (folder / "run.json").write_text(json.dumps({"id": folder.name, "mlflow_id": "f" * 32, "name": "x"}))
    return tmp_path / "runs"


def test_a_run_is_found_by_either_id_and_by_its_folders(runs):
    best = runs / "20260101-000000-abcdef/checkpoints/best"
    for name in ("20260101-000000-abcdef", "f" * 32, str(best), str(best.parents[1])):
        assert model_folder(name, runs).resolve() == best.resolve()


def test_a_run_without_a_checkpoint_says_so(runs):
    (runs / "20260101-000000-abcdef/checkpoints/best/model.json").unlink()
    with pytest.raises(InputError, match="before its first checkpoint"):
        model_folder("f" * 32, runs)


@pytest.mark.parametrize("name", ["nothing", "../../etc", "0" * 32])
def test_what_is_nowhere_is_one_line(name, runs, monkeypatch, tmp_path):
    import mlflow

    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(InputError) as error:
        model_folder(name, runs)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_run_whose_folder_is_gone_comes_from_mlflow(tmp_path, monkeypatch):
    import mlflow
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    client = MlflowClient()
    run = client.create_run(client.create_experiment("e")).info.run_id
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model.json").write_text("{}")
    client.log_artifacts(run, str(tmp_path / "model"), "checkpoints/best")
    assert (model_folder(run, tmp_path / "runs") / "model.json").is_file()
