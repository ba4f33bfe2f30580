"""A model folder packaged as an MLflow model, for `mlflow.pyfunc.load_model` and `mlflow models serve`."""

import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import mlflow.pyfunc
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import AnyType, ColSpec, Schema

from fr_ps.data.labels import ATTRIBUTES
from fr_ps.data.layout import CHANNELS
from fr_ps.errors import InputError, one_line
from fr_ps.models.folder import weights_digest
from fr_ps.serving.request import CAPTURE_COLUMNS

PACKAGE_FOLDER = Path(__file__).parents[1]
PYFUNC_FILE = Path(__file__).with_name("pyfunc_model.py")
MODEL_ARTIFACT = "model"
INPUT_COLUMNS = (*CHANNELS, *CAPTURE_COLUMNS)
"""Columns of a request, one row per session: its maps, or its images with their lights."""
REQUIREMENTS = (
    "annotated-types",
    "mlflow",
    "numpy",
    "pandas",
    "pillow",
    "pydantic",
    "safetensors",
    "scipy",
    "timm",
    "torch",
)
"""Distributions that the code of a loaded model imports; training, search and reports need more."""
MODEL_TYPE = "fr_ps"
WEIGHTS_TAG = "fr_ps.weights"
"""Tag of logged models and versions: SHA-256 of the weights."""
# Silences what MLflow prints during a training: progress bars for five files, and the advice to add an input example, which
# is not needed with a signature.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
warnings.filterwarnings("ignore", ".*An input example was not provided.*")
logging.getLogger("mlflow.utils.requirements_utils").setLevel(logging.ERROR)


def save_pyfunc_model(model: Path, target: Path, mlflow_model: Model | None = None) -> None:
    """Package the model folder `model` as an MLflow model in `target`, which must not exist.

    It contains the model folder, the code of this package, and no pickle.

    Args:
        model: the model folder.
        target: folder to create.
        mlflow_model: metadata that link the package to a logged model of MLflow; None: not linked.

    Raises:
        InputError: MLflow rejects the model.
        OSError: the disk is full or fails.
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
        raise InputError(f"{model}: MLflow cannot package this model ({one_line(error)}); check the model folder") from error
    for folder in target.rglob("__pycache__"):
        shutil.rmtree(folder, ignore_errors=True)


def signature() -> ModelSignature:
    """Columns of requests and results, all optional: the model itself checks which maps it needs.

    Cells have no type, because MLflow would check every pixel of a map.
    """
    inputs = Schema([ColSpec(AnyType(), name, required=False) for name in INPUT_COLUMNS])
    outputs = Schema([ColSpec(AnyType(), name, required=False) for name in ("quality", "embedding", *ATTRIBUTES)])
    return ModelSignature(inputs=inputs, outputs=outputs)


def requirements() -> list[str]:
    """`REQUIREMENTS`, pinned to the installed versions. A local part such as `+cu128` is dropped: PyPI does not have it."""
    return [f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS]


def log_model(client: MlflowClient, run: str, model: Path, name: str, step: int, points: Sequence[Metric]) -> str:
    """Log the model folder `model` to a run, and return the id of the logged model.

    Logging the same weights again changes nothing. A resumed run may log other weights under the same name: these become
    another logged model.

    Args:
        client: MLflow client.
        run: MLflow's id of the run.
        model: the model folder.
        name: name of the logged model.
        step: epoch of the model.
        points: metrics of that epoch.

    Raises:
        InputError: the model cannot be packaged.
        Exception: MLflow or its artifact storage fails.
    """
    info, digest = client.get_run(run).info, weights_digest(model)
    existing = _find_logged_model(client, run, digest, f" AND name = '{name}'")
    if existing is not None and existing.status == LoggedModelStatus.READY:
        return str(existing.model_id)
    tags = {WEIGHTS_TAG: digest}
    logged = existing or client.create_logged_model(info.experiment_id, name, run, tags=tags, model_type=MODEL_TYPE)
    with tempfile.TemporaryDirectory() as temporary:
        target = Path(temporary) / "model"
        metadata = Model(artifact_path=logged.artifact_location, run_id=run, model_uuid=logged.model_id, model_id=logged.model_id)
        save_pyfunc_model(model, target, metadata)
        client.log_model_artifacts(logged.model_id, str(target))
    client.log_outputs(run, [LoggedModelOutput(logged.model_id, step)])
    for start in range(0, len(points), 1000):
        batch = [Metric(p.key, p.value, p.timestamp, p.step, model_id=logged.model_id) for p in points[start : start + 1000]]
        client.log_batch(run, metrics=batch)
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    return str(logged.model_id)


def find_logged_model(client: MlflowClient, run: str, model: Path) -> str:
    """Id of the run's complete logged model with the weights of the model folder `model`; empty if there is none."""
    found = _find_logged_model(client, run, weights_digest(model))
    return str(found.model_id) if found is not None and found.status == LoggedModelStatus.READY else ""


def _find_logged_model(client: MlflowClient, run: str, digest: str, filters: str = ""):  # type: ignore[no-untyped-def]  # mlflow has no types
    """The run's logged model with this weights digest, preferably a READY one, the oldest first; None if there is none."""
    experiment = client.get_run(run).info.experiment_id
    models = client.search_logged_models([experiment], filter_string=f"source_run_id = '{run}'{filters}")
    matching = [model for model in models if model.tags.get(WEIGHTS_TAG) == digest]
    return min(matching, key=lambda model: (model.status != LoggedModelStatus.READY, model.creation_timestamp), default=None)
