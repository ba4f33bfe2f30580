"""From what a user calls a run or a model to its folder on disk."""

import os
from pathlib import Path

from fr_ps.errors import InputError, one_line
from fr_ps.models.folder import INFO_FILE
from fr_ps.tracking.card import find_run
from fr_ps.tracking.layout import BEST, RUNS_FOLDER

REGISTERED = "models:/"
"""Before the name of a registered model: `models:/NAME/VERSION` or `models:/NAME@ALIAS`."""


def model_folder(model: str, runs: Path = RUNS_FOLDER) -> Path:
    """The model folder that MODEL names.

    It is a folder; or a run (our id, or MLflow's), which means its best checkpoint; or a version of a registered model,
    which means the one model folder among its files. A run whose folder is not under `runs` is looked for in MLflow, and
    what is there only is downloaded.

    Raises:
        InputError: there is no such thing.
    """
    if model.startswith(REGISTERED):
        return _registered(model)
    given = Path(model)
    for folder in (given, given / BEST):
        if (folder / INFO_FILE).is_file():
            return folder
    local = find_run(model, runs)
    if local is not None:
        if not (local / BEST / INFO_FILE).is_file():
            raise InputError(f"run {model} has no {BEST} in {local}; it ended before its first checkpoint")
        return local / BEST
    return _download(model, runs)


def _download(run: str, runs: Path) -> Path:
    import mlflow
    from mlflow.exceptions import MlflowException

    missing = InputError(f"{run}: no model folder, no run under {runs}, and no run in MLflow with a {BEST}; check the name")
    if "/" in run:
        raise missing
    try:
        return Path(mlflow.artifacts.download_artifacts(run_id=run, artifact_path=str(BEST)))
    except (MlflowException, OSError):
        raise missing from None


def _registered(model: str) -> Path:
    import mlflow
    from mlflow.exceptions import MlflowException

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        files = Path(mlflow.artifacts.download_artifacts(artifact_uri=model))
    except (MlflowException, OSError) as error:
        text = one_line(error, 200).rstrip(".")
        raise InputError(
            f"{model}: cannot be had from the registry ({text}); expected models:/NAME/VERSION or models:/NAME@ALIAS"
        ) from None
    found = sorted({file.parent for file in files.rglob(INFO_FILE)})
    if len(found) != 1:
        raise InputError(f"{model}: has {len(found)} model folders (with {INFO_FILE}) among its files; expected one")
    return found[0]
