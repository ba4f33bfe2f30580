"""A model folder as a model of MLflow's: what `mlflow.pyfunc.load_model` and `mlflow models serve` take."""

import logging
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import mlflow.pyfunc
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import AnyType, ColSpec, Schema

import fr_ps
from fr_ps.data.labels import ATTRIBUTES
from fr_ps.data.layout import CHANNELS
from fr_ps.errors import InputError, one_line
from fr_ps.models.folder import weights_digest

PACKAGE_FOLDER = Path(fr_ps.__file__).parent
PYFUNC_FILE = PACKAGE_FOLDER / "serving" / "pyfunc_model.py"
MODEL_ARTIFACT = "model"
INPUT_COLUMNS = (*CHANNELS, "images", "azimuth_deg", "elevation_deg", "intensity", "landmarks")
"""What a request may have of a session: its maps, or its pictures with their lights."""
MODEL_TYPE = "fr_ps"
WEIGHTS_TAG = "fr_ps.weights"
"""SHA-256 of a model's weights, of logged models and of versions."""
# What MLflow would print between a training's own lines: bars for copying five files, and advice to add an input example, of
# which the signature has no need.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
warnings.filterwarnings("ignore", ".*An input example was not provided.*")
logging.getLogger("mlflow.utils.requirements_utils").setLevel(logging.ERROR)


def save_pyfunc_model(model: Path, target: Path, mlflow_model: Model | None = None) -> None:
    """Write the model folder `model` as a model of MLflow's to `target`, which must not be there yet.

    It has the weights as they are, this package's code, and no pickle. `described` is what MLflow knows of it already.

    Raises:
        InputError: MLflow cannot make it.
        OSError: the disk is full, or another fault of it.
    """
    try:
        mlflow.pyfunc.save_model(
            str(target),
            python_model=str(PYFUNC_FILE),
            artifacts={MODEL_ARTIFACT: str(model)},
            code_paths=[str(PACKAGE_FOLDER)],
            pip_requirements=requirements(),
            signature=signature(),
            mlflow_model=mlflow_model or Model(),
        )
    except OSError:
        raise
    except Exception as error:
        raise InputError(f"{model}: MLflow cannot make a model of it ({one_line(error)})") from error
    for folder in target.rglob("__pycache__"):
        shutil.rmtree(folder, ignore_errors=True)


def signature() -> ModelSignature:
    """What is asked and answered, a row a session. Everything asked may be left away: which maps are needed, the model says.

    Cells are not typed: MLflow would walk through every pixel of a map to check it.
    """
    asked = Schema([ColSpec(AnyType(), name, required=False) for name in INPUT_COLUMNS])
    answered = Schema([ColSpec(AnyType(), name, required=False) for name in ("quality", "embedding", *ATTRIBUTES)])
    return ModelSignature(inputs=asked, outputs=answered)


def requirements() -> list[str]:
    """What this package needs, in the versions that are installed."""
    try:
        needed = [text for text in requires("fr-ps") or [] if "extra ==" not in text]
    except PackageNotFoundError:  # run from its folder, not installed
        return []
    names = [re.split(r"[\s<>=!~;\[(]", text, maxsplit=1)[0] for text in needed]
    return [f"{name}=={version(name)}" for name in names]


def log_model(client: MlflowClient, run: str, model: Path, name: str, step: int, points: Sequence[Metric]) -> str:
    """Log the model folder `model` with a run in MLflow; returns the id of the logged model. Twice is as good as once.

    A run that goes on after its model was logged may end with other weights: these are a logged model of their own.

    Args:
        client: of MLflow.
        run: MLflow's id of the run.
        model: the folder.
        name: of the logged model.
        step: of the run that the model is of.
        points: of the run's curves, which say how good the model is.

    Raises:
        InputError: it cannot be made a model of MLflow's.
        Exception: whatever keeps MLflow from taking it.
    """
    info, digest = client.get_run(run).info, weights_digest(model)
    found = find_logged_model(client, run, name, digest)
    if found is not None and found.status == LoggedModelStatus.READY:
        return str(found.model_id)
    tags = {WEIGHTS_TAG: digest}
    logged = found or client.create_logged_model(info.experiment_id, name, run, tags=tags, model_type=MODEL_TYPE)
    with tempfile.TemporaryDirectory() as temporary:
        target = Path(temporary) / "model"
        described = Model(
            artifact_path=logged.artifact_location, run_id=run, model_uuid=logged.model_id, model_id=logged.model_id
        )
        save_pyfunc_model(model, target, described)
        client.log_model_artifacts(logged.model_id, str(target))
    client.log_outputs(run, [LoggedModelOutput(logged.model_id, step)])
    for start in range(0, len(points), 1000):
        some = [Metric(p.key, p.value, p.timestamp, p.step, model_id=logged.model_id) for p in points[start : start + 1000]]
        client.log_batch(run, metrics=some)
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    return str(logged.model_id)


def find_logged_model(client: MlflowClient, run: str, name: str, digest: str):  # type: ignore[no-untyped-def]  # mlflow has no types
    """The logged model of that name and these weights of a run in MLflow, a whole one first; None if there is none."""
    experiment = client.get_run(run).info.experiment_id
    found = client.search_logged_models([experiment], filter_string=f"name = '{name}' AND source_run_id = '{run}'")
    same = [one for one in found if one.tags.get(WEIGHTS_TAG) == digest]
    return min(same, key=lambda one: one.status != LoggedModelStatus.READY, default=None)
