"""The model registry: versions of registered models, and the alias `champion`."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from fr_ps.config.checks import check_registered_name
from fr_ps.config.yaml_files import read_settings
from fr_ps.errors import InputError, one_line
from fr_ps.json_files import parse_json
from fr_ps.models.folder import load_model, weights_digest
from fr_ps.progress import echo
from fr_ps.redaction import redact, redact_tree
from fr_ps.serving.mlflow_model import WEIGHTS_TAG, find_logged_model, log_model
from fr_ps.tracking.mlflow_sink import display_uri, uses_current_store
from fr_ps.tracking.resolve import REGISTRY_PREFIX, complete_mlflow_id, resolve_model
from fr_ps.tracking.run import logged_model_name
from fr_ps.tracking.run_folder import (
    CONFIG_FILE,
    FOLDER_PLACEHOLDER,
    MODEL_CARD_FILE,
    RUNS_FOLDER,
    find_run_by_prefix,
    read_run_info,
)
from fr_ps.tracking.tracked_metrics import BEST_PREFIX
from fr_ps.tracking.uris import redacted_uri, registry_client, retried_requests, tracking_uri

CHAMPION = "champion"
"""Alias of the version in use."""
_HISTORY_TAG = "fr_ps.champions"
"""Tag of a registered model: JSON list of the versions that became champion, the latest last."""
_ARTIFACT_API = "/mlflow-artifacts/"
"""Part of the URLs by which an MLflow server proxies its artifact storage; errors there are errors of the storage."""
_MISSING = "RESOURCE_DOES_NOT_EXIST"


@dataclass(frozen=True)
class ModelVersion:
    """A version of a registered model."""

    name: str
    number: str

    @property
    def uri(self) -> str:
        """URI of the version, `models:/NAME/VERSION`."""
        return f"{REGISTRY_PREFIX}{self.name}/{self.number}"


def register(
    run: str, name: str, tags: dict[str, str] | None = None, description: str = "", runs: Path = RUNS_FOLDER
) -> ModelVersion:
    """Register the best checkpoint of a run as the next version of the registered model `name`.

    The version refers to the model that the run logged to MLflow. If the run ended before that, the model is logged now.

    Args:
        run: id of the run, ours or MLflow's, or its beginning.
        name: name of the registered model, which is created if it is missing.
        tags: tags of the version, in addition to those that describe the model.
        description: description of the version, to which how to load the version is added; empty: the model card.
        runs: folder of the runs.

    Raises:
        InputError: the name is invalid, there is no such run or model, the model cannot be loaded, MLflow rejects it or is
            unreachable, or its artifact storage fails.
    """
    check_registered_name("--name", name)
    folder = resolve_model(run, runs)
    mlflow_run = _mlflow_run_id(run, runs)
    _, info = load_model(folder, torch.device("cpu"))  # never register a version that cannot be loaded
    with _registry_client(f"{name}: run {run} cannot be registered under that name") as client:
        with _artifact_storage_errors(client, mlflow_run):
            model_id = find_logged_model(client, mlflow_run, folder) or _log_model(client, mlflow_run, folder)
        with _ignore_existing():
            client.create_registered_model(name)
        model_tags = {
            "fr_ps.run_id": info.provenance.get("run", ""),
            WEIGHTS_TAG: weights_digest(folder),
            "fr_ps.data_digest": info.provenance.get("data_digest", ""),
            "fr_ps.modality": "+".join(info.modalities),
            "fr_ps.backbone": info.backbones,
        }
        card = folder / MODEL_CARD_FILE
        text = redact(description) or (card.read_text() if card.is_file() else "")
        version = client.create_model_version(
            name,
            client.get_logged_model(model_id).artifact_location,
            run_id=mlflow_run,
            tags=redact_tree(model_tags | (tags or {})),
            description=text,
            model_id=model_id,
        )
        registered = ModelVersion(name, str(version.version))
        _add_loading_line(client, registered, text)
    return registered


def parse_version(model: str) -> ModelVersion:
    """The version `models:/NAME/VERSION` or `models:/NAME@ALIAS`.

    Raises:
        InputError: another form, or there is no such version.
    """
    rest = model.removeprefix(REGISTRY_PREFIX)
    name, at, alias = rest.partition("@")
    with _registry_client(f"{model}: cannot be read from the registry") as client:
        if rest != model and at and name and alias:
            return ModelVersion(name, str(client.get_model_version_by_alias(name, alias).version))
        name, slash, number = rest.rpartition("/")
        if rest == model or not slash or not name or not number.isdigit():
            raise InputError(f"{model}: expected models:/NAME/VERSION or models:/NAME@ALIAS")
        client.get_model_version(name, number)
    return ModelVersion(name, number)


def get_champion(name: str) -> ModelVersion | None:
    """The version with the alias `champion`; None if there is none.

    Raises:
        InputError: there is no registered model of that name, or MLflow is unreachable.
    """
    with _registry_client(f"{REGISTRY_PREFIX}{name}: cannot be read from the registry") as client:
        number = client.get_registered_model(name).aliases.get(CHAMPION)
    return None if number is None else ModelVersion(name, str(number))


def set_champion(version: ModelVersion, expected: ModelVersion | None) -> None:
    """Make `version` the champion, provided that the champion is `expected` (None: there is none).

    Raises:
        InputError: another process changed the champion, or MLflow is unreachable.
    """
    current = get_champion(version.name)
    if current != expected:
        raise InputError(f"{version.uri}: the champion is now {_uri_or_none(current)}, changed meanwhile; promote again")
    with _registry_client(f"{version.uri}: cannot become the champion") as client:
        client.set_registered_model_alias(version.name, CHAMPION, version.number)
        _write_champion_history(client, version.name, [*_champion_history(client, version.name), version.number])
    if (current := get_champion(version.name)) != version:
        raise InputError(f"{version.uri}: another process made {_uri_or_none(current)} the champion; promote again")


def demote(name: str) -> ModelVersion:
    """Remove the alias `champion`, and return the version that had it. `roll_back` restores it.

    Raises:
        InputError: there is no such registered model, it has no champion, or MLflow is unreachable.
    """
    previous = get_champion(name)
    if previous is None:
        raise InputError(f"{REGISTRY_PREFIX}{name}: has no champion; promote a version")
    with _registry_client(f"{previous.uri}: cannot be demoted") as client:
        client.delete_registered_model_alias(name, CHAMPION)
    return previous


def roll_back(name: str) -> tuple[ModelVersion | None, ModelVersion]:
    """Restore the previous champion; without a champion, the latest one. Return the champions before and after.

    Raises:
        InputError: there was no other champion, or MLflow is unreachable.
    """
    current = get_champion(name)
    with _registry_client(f"{REGISTRY_PREFIX}{name}: cannot be rolled back") as client:
        past = [number for number in _champion_history(client, name) if _exists(client, name, number)]
        while past and current is not None and past[-1] == current.number:
            past.pop()
        if not past:
            raise InputError(f"{REGISTRY_PREFIX}{name}: has had no other champion; promote another version")
        client.set_registered_model_alias(name, CHAMPION, past[-1])
        _write_champion_history(client, name, past)
    return current, ModelVersion(name, past[-1])


def set_tags(version: ModelVersion, tags: dict[str, str]) -> None:
    """Set tags of a version.

    Raises:
        InputError: there is no such version, or MLflow is unreachable.
    """
    with _registry_client(f"{version.uri}: cannot be tagged") as client:
        for key, value in tags.items():
            client.set_model_version_tag(version.name, version.number, key, value)


def _mlflow_run_id(run: str, runs: Path) -> str:
    folder = find_run_by_prefix(run, runs)
    if folder is None:
        with _registry_client(f"{run}: cannot be found in MLflow"):
            return complete_mlflow_id(run)
    info = read_run_info(folder)
    if info.mlflow_id is None:
        raise InputError(f"{run}: this run is not in MLflow yet; deliver it with fr-ps sync, then register it")
    if not uses_current_store(info):
        raise InputError(
            f"{run}: is in the MLflow store {display_uri(info)}, and {redacted_uri(tracking_uri())} is in use; set "
            f"MLFLOW_TRACKING_URI to the former, or deliver the run to the latter with fr-ps sync --run {info.id} --store URI"
        )
    return info.mlflow_id


def _log_model(client: MlflowClient, run: str, folder: Path) -> str:
    """Log the best checkpoint of a run that ended before it logged its models; returns the id of the logged model."""
    name = logged_model_name(str(client.get_run(run).info.run_name))
    return log_model(client, run, folder, name, *_best_epoch(client, run, folder))


def _best_epoch(client: MlflowClient, run: str, folder: Path) -> tuple[int, list[Metric]]:
    """The epoch with the best value of the metric `train.select` in MLflow, its validation metrics, and the test metrics."""
    try:
        metric = str(read_settings(folder / CONFIG_FILE)["train"]["select"])
    except (InputError, TypeError, KeyError) as error:
        raise InputError(
            f"{folder / CONFIG_FILE}: train.select cannot be read ({one_line(error)}); copy the model again"
        ) from None
    curve = client.get_metric_history(run, metric)
    if not curve:  # no validation set, or the metrics are not delivered yet
        return 0, []
    from fr_ps.evaluation.metrics import lower_is_better  # here: serving a model needs no metrics code

    best = (min if lower_is_better(metric) else max)(curve, key=lambda point: point.value)
    names = [name for name in client.get_run(run).data.metrics if name.startswith(("val/", "test/", BEST_PREFIX))]
    points = [point for name in names for point in client.get_metric_history(run, name)]
    return best.step, [point for point in points if point.step == best.step or point.key.startswith("test/")]


def _champion_history(client: MlflowClient, name: str) -> list[str]:
    """Numbers of the versions that became champion, the latest last."""
    stored = client.get_registered_model(name).tags.get(_HISTORY_TAG, "[]")
    try:
        return parse_json(stored, list[str], f"{REGISTRY_PREFIX}{name}: tag {_HISTORY_TAG}", "remove the tag")
    except InputError:  # another program wrote the tag
        return []


def _write_champion_history(client: MlflowClient, name: str, numbers: list[str]) -> None:
    client.set_registered_model_tag(name, _HISTORY_TAG, json.dumps(numbers))


def _exists(client: MlflowClient, name: str, number: str) -> bool:
    try:
        client.get_model_version(name, number)
        return True
    except MlflowException as error:
        if error.error_code != _MISSING:
            raise
        return False


def _add_loading_line(client: MlflowClient, version: ModelVersion, description: str) -> None:
    """Write into the description how to load the version, whose number is known only now.

    If this fails, the version is registered nevertheless: a warning names it.
    """
    if FOLDER_PLACEHOLDER in description:  # a model card
        text = description.replace(FOLDER_PLACEHOLDER, version.uri)
    else:
        text = f'{description}\n\nLoad it with `fr_ps.load("{version.uri}")`.'.lstrip()
    try:
        client.update_model_version(version.name, version.number, text)
    except MlflowException as error:
        reason = one_line(error, 200).rstrip(".")
        echo(f"warning: {version.uri}: registered, but its description lacks the URI that loads it ({reason})", sys.stderr)


def _uri_or_none(version: ModelVersion | None) -> str:
    return version.uri if version else "none"


@contextmanager
def _registry_client(message: str) -> Iterator[MlflowClient]:
    """A client of the registry. MLflow's errors in the block become an `InputError` that begins with `message`."""
    try:
        with retried_requests():
            yield registry_client()
    except MlflowException as error:
        remedy = "see the registered models in mlflow ui"
        if "API request to" in str(error):
            remedy = f"check that the MLflow server {redacted_uri(tracking_uri())} is reachable, then try again"
        raise InputError(f"{message} ({one_line(error, 200).rstrip('.')}); {remedy}") from None


@contextmanager
def _artifact_storage_errors(client: MlflowClient, run: str) -> Iterator[None]:
    """Errors of the artifact storage in the block become an `InputError` that names the storage."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # every kind of storage raises its own types
        if isinstance(error, MlflowException) and _ARTIFACT_API not in str(error):
            raise
        storage = redact(str(client.get_run(run).info.artifact_uri))
        server = f" of the MLflow server {redacted_uri(tracking_uri())}" if storage.startswith("mlflow-artifacts:") else ""
        raise InputError(
            f"run {run}: the model cannot be written to the artifact storage {storage}{server} ({one_line(error, 200)}); check "
            "that the storage is reachable and writable, then register again"
        ) from None


@contextmanager
def _ignore_existing() -> Iterator[None]:
    """Suppress MLflow's error that the registered model exists already."""
    try:
        yield
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"):
            raise
