"""Resolves the MODEL argument of commands (a run, a registered model or a folder) to a model folder."""

import os
from pathlib import Path
from string import hexdigits
from typing import TYPE_CHECKING

from fr_ps.errors import InputError, one_line
from fr_ps.files import is_file
from fr_ps.models.folder import INFO_FILE, check_no_external_links
from fr_ps.redaction import redact
from fr_ps.tracking.run_folder import BEST_CHECKPOINT, MIN_PREFIX, RUN_INFO_FILE, RUNS_FOLDER, find_run_by_prefix, read_run_info

if TYPE_CHECKING:
    from mlflow import MlflowClient

_ID_LENGTH = 32
"""Characters of an MLflow run id."""
REGISTRY_PREFIX = "models:/"
"""Prefix of registered models: `models:/NAME/VERSION` or `models:/NAME@ALIAS`."""


def resolve_model(model: str, runs: Path = RUNS_FOLDER) -> Path:
    """The model folder for the argument MODEL.

    - A model folder: itself.
    - A run (its folder, our id, or MLflow's, or the beginning of an id): its best checkpoint, downloaded from MLflow if `runs`
      does not have the run.
    - A version of a registered model: the model folder among its files, which are downloaded.

    Raises:
        InputError: MODEL does not exist, or has a link to a file outside of it.
    """
    folder = _resolve(model, runs)
    check_no_external_links(folder)
    return folder


def display_name(model: str, runs: Path = RUNS_FOLDER) -> str:
    """Short name of the argument MODEL for the names of runs: that of its run or registered version, else of its folder."""
    if model.startswith(REGISTRY_PREFIX):
        return model.removeprefix(REGISTRY_PREFIX)
    given = Path(model).absolute()
    run = next((folder for folder in (given, *given.parents) if is_file(folder / RUN_INFO_FILE)), None)
    is_model_folder = is_file(given / INFO_FILE) or is_file(given / BEST_CHECKPOINT / INFO_FILE)
    if run is None and not is_model_folder:
        run = find_run_by_prefix(model, runs)
    return read_run_info(run).name if run else given.name


def _resolve(model: str, runs: Path) -> Path:
    is_registered = model.startswith(REGISTRY_PREFIX)
    if not is_registered:
        given = Path(model)
        for folder in (given, given / BEST_CHECKPOINT):
            if is_file(folder / INFO_FILE):
                return folder
        local = find_run_by_prefix(model, runs)
        if local is not None:
            if not is_file(local / BEST_CHECKPOINT / INFO_FILE):
                raise InputError(f"run {model} has no {BEST_CHECKPOINT} in {local}; it ended before its first checkpoint")
            return local / BEST_CHECKPOINT
    from fr_ps.tracking.uris import retried_requests  # importing mlflow takes a second

    with retried_requests():
        return _download_version(model) if is_registered else _download_best(model, runs)


def _download_best(run: str, runs: Path) -> Path:
    import mlflow
    from mlflow.exceptions import MlflowException

    from fr_ps.tracking.uris import tracking_uri

    missing = InputError(f"{run}: no model folder, no run under {runs}, and no MLflow run with {BEST_CHECKPOINT}; check the name")
    if "/" in run:
        raise missing
    try:
        return Path(
            mlflow.artifacts.download_artifacts(
                run_id=complete_mlflow_id(run), artifact_path=str(BEST_CHECKPOINT), tracking_uri=tracking_uri()
            )
        )
    except (MlflowException, OSError):
        raise missing from None


def complete_mlflow_id(run: str) -> str:
    """The MLflow id that begins with `run`.

    Raises:
        InputError: the prefix matches several runs.
        MlflowException: the store rejects the request.
    """
    if not MIN_PREFIX <= len(run) < _ID_LENGTH or not set(run) <= set(hexdigits):
        return run
    from fr_ps.tracking.uris import registry_client

    client = registry_client()
    experiments = [one.experiment_id for one in client.search_experiments()]
    found = [one.info.run_id for one in client.search_runs(experiments, f"attributes.run_id LIKE '{run}%'", max_results=2)]
    if len(found) > 1:
        raise InputError(f"{run}: the prefix matches several MLflow runs, as {found[0]} and {found[1]}; give more characters")
    return found[0] if found else run


def _download_version(model: str) -> Path:
    """The model folder among the files of a registered version.

    Raises:
        InputError: the registry has no such version, its files cannot be read, or they do not hold exactly one model folder.
    """
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.utils.models import get_model_name_and_version

    from fr_ps.tracking.uris import registry_client, tracking_uri

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # mlflow's loader is not used: it needs a global tracking URI, and its errors for an unknown version and for unreadable files
    # are the same.
    client = registry_client()
    try:
        location = _artifact_location(client, get_model_name_and_version(client, model))
    except MlflowException as error:
        text = one_line(error, 200).rstrip(".")
        raise InputError(
            f"{model}: not found in the model registry ({text}); expected models:/NAME/VERSION or models:/NAME@ALIAS, as "
            "mlflow ui lists them under Models"
        ) from None
    try:
        files = Path(mlflow.artifacts.download_artifacts(artifact_uri=location, tracking_uri=tracking_uri()))
    except Exception as error:  # each kind of storage has exceptions of its own
        raise InputError(
            f"{model}: the registry has this version, but its files cannot be read from {redact(location)} "
            f"({one_line(error, 200).rstrip('.')}); if the project was moved, move it back, or name a run or a model folder"
        ) from None
    found = sorted({file.parent for file in files.rglob(INFO_FILE)})
    if len(found) != 1:
        raise InputError(f"{model}: its files hold {len(found)} model folders (with {INFO_FILE}); expected one")
    return found[0]


def _artifact_location(client: "MlflowClient", version: tuple[str, ...]) -> str:
    """Artifact URI of a model version, given as (name, number), or of a logged model, given as (id,)."""
    if len(version) == 1:
        return str(client.get_logged_model(version[0]).artifact_location)
    location = str(client.get_model_version_download_uri(*version))
    if location.startswith(REGISTRY_PREFIX):
        return _artifact_location(client, (location.removeprefix(REGISTRY_PREFIX),))
    if location.startswith("runs:/"):
        run, _, path = location.removeprefix("runs:/").partition("/")
        from mlflow.utils.uri import append_to_uri_path

        return str(append_to_uri_path(client.get_run(run).info.artifact_uri, path))
    return location
