"""Model folders like those of a training, with untrained weights."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
import torch
from mlflow import MlflowClient

from fr_ps.config import Config, DataConfig, FusionConfig, ModelConfig
from fr_ps.data.dataset import open_dataset
from fr_ps.data.labels import ATTRIBUTES
from fr_ps.data.preparation import find_acquisitions, find_preparation
from fr_ps.data.splits import make_split
from fr_ps.evaluation.calibrate_thresholds import calibrate_thresholds
from fr_ps.models.folder import ModelInfo
from fr_ps.models.inference import predict
from fr_ps.models.thresholds import write_thresholds
from fr_ps.serving.recognizer import Recognizer
from fr_ps.training.setup import TrainingSetup, write_config_and_split
from tests.conftest import MakeStore
from tests.models.small import save_model
from tests.tracking.conftest import no_settings  # noqa: F401

CPU = torch.device("cpu")
SMALL = ModelConfig(backbone="timm:test_resnet", channels=32, fsm=False)
MakeModel = Callable[..., Path]


def make_model(
    folder: Path,
    root: Path,
    *modalities: str,
    seed: int = 0,
    val: float = 2,
    test: float = 2,
    model: ModelConfig = SMALL,
    fusion: FusionConfig | None = None,
) -> Path:
    """An untrained model with a split and thresholds."""
    data = DataConfig(root=str(root), modalities=modalities, val_people=val, test_people=test)
    config = Config(data=data, model=model, fusion=fusion or FusionConfig())
    dataset = open_dataset(root, modalities)
    split = make_split(dataset.labels, data)
    branches = dict.fromkeys(config.branch_names, model)
    preparation = find_preparation(root, str(dataset.labels.ids[0]), str(dataset.labels.sessions[0]))
    provenance = {"run": "r1", "data_digest": dataset.store.digest}
    trained = tuple(name for name in ATTRIBUTES if name != "pose")
    acquisition = find_acquisitions(root, dataset.labels.row_keys())
    about_maps = preparation, config.joint, acquisition
    info = ModelInfo(
        branches, config.fusion.name, dataset.store.map_size, dataset.labels.classes, trained, provenance, *about_maps
    )
    torch.manual_seed(seed)
    network = info.build_network()
    save_model(folder, network, info)
    write_config_and_split(folder, TrainingSetup(config, dataset, split, info))
    predictions = predict(network, dataset.store, split.val, 64)
    write_thresholds(folder, calibrate_thresholds(predictions, dataset.labels.subset(split.val), info.trained))
    return folder


@pytest.fixture(scope="module")
def both(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of albedo and normals."""
    return make_model(tmp_path_factory.mktemp("models") / "both", prepared, "albedo", "normal")


@pytest.fixture(scope="module")
def recognizer(both: Path) -> Recognizer:
    return Recognizer(both, CPU)


@pytest.fixture
def older(both: Path) -> Recognizer:
    """The recognizer of a model of an earlier version, which did not record the format of its maps."""
    recognizer = Recognizer(both, CPU)
    known = {key: value for key, value in recognizer.info.preparation.items() if key != "format"}
    recognizer.info = replace(recognizer.info, preparation=known)
    return recognizer


@pytest.fixture(scope="session")
def captures(prepared: Path) -> Path:
    """The captures that `prepared` was made from."""
    return prepared.parent / "captures"


@contextmanager
def in_store(folder: Path) -> Iterator[MlflowClient]:
    """Work in `folder`, with its MLflow store in use."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
        yield MlflowClient(f"sqlite:///{folder}/mlflow.db")


@pytest.fixture(scope="module")
def store_folder(make_store: MakeStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store for all tests of a module, each of which registers under `name`."""
    folder = tmp_path_factory.mktemp("store")
    make_store(folder)
    return folder


@pytest.fixture
def store(store_folder: Path) -> Iterator[MlflowClient]:
    with in_store(store_folder) as client:
        yield client


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """The test's own name of a registered model."""
    return str(request.node.name)[:60]
