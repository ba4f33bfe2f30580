"""Models by name and version: which there are, and which one is the champion."""

import json
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
from fr_ps.redaction import redact, redact_tree
from fr_ps.serving.mlflow_model import WEIGHTS_TAG, log_model
from fr_ps.tracking.layout import BEST_CHECKPOINT, CONFIG_FILE, MODEL_CARD_FILE, RUNS_FOLDER
from fr_ps.tracking.mlflow_sink import display_uri, uses_current_store
from fr_ps.tracking.resolve import REGISTRY_PREFIX, resolve_model
from fr_ps.tracking.run_folder import find_run, read_run_info
from fr_ps.tracking.uris import connect, redacted_uri, tracking_uri

CHAMPION = "champion"
"""The alias of the version that is to be used."""
_HISTORY_TAG = "fr_ps.champions"
_MISSING = "RESOURCE_DOES_NOT_EXIST"


@dataclass(frozen=True)
class ModelVersion:
    """A version of a registered model."""

    name: str
    number: str

    @property
    def uri(self) -> str:
        """As MODEL is written."""
        return f"{REGISTRY_PREFIX}{self.name}/{self.number}"


def register(
    run: str, name: str, tags: dict[str, str] | None = None, description: str = "", runs: Path = RUNS_FOLDER
) -> ModelVersion:
    """Make the best model of a run the next version of the registered model `name`.

    The version is the run's logged model; a run that has none, as it ended early, gets one now.

    Args:
        run: id of the run, ours or MLflow's.
        name: of the registered model, made where it is not there yet.
        tags: of the version, beside those that say what it is.
        description: of the version; empty: its model card.
        runs: folder of the runs.

    Raises:
        InputError: the name cannot be written as models:/NAME, there is no such run or model, it cannot be loaded, or MLflow
            refuses it or does not answer.
    """
    check_registered_name("--name", name)
    folder = resolve_model(run, runs)
    mlflow_run = _mlflow_run_id(run, runs)
    _, info = load_model(folder, torch.device("cpu"))  # a version that cannot be loaded would be found out by its users
    client = connect()
    with (
        _registry_errors(f"{name}: run {run} cannot be registered under that name"),
        _artifact_storage_errors(client, mlflow_run),
    ):
        model_id = log_model(client, mlflow_run, folder, BEST_CHECKPOINT.name, *_best_epoch(client, mlflow_run, folder))
        with _ignore_existing():
            client.create_registered_model(name)
        told = {
            "fr_ps.run_id": info.provenance.get("run", ""),
            WEIGHTS_TAG: weights_digest(folder),
            "fr_ps.data_digest": info.provenance.get("data_digest", ""),
            "fr_ps.modality": "+".join(info.modalities),
            "fr_ps.backbone": info.backbones,
        }
        source = client.get_logged_model(model_id).artifact_location
        version = client.create_model_version(
            name,
            source,
            run_id=mlflow_run,
            tags=redact_tree(told | (tags or {})),
            description=redact(description) or _read_model_card(folder),
            model_id=model_id,
        )
    return ModelVersion(name, str(version.version))


def parse_version(model: str) -> ModelVersion:
    """The version that `models:/NAME/VERSION` or `models:/NAME@ALIAS` names.

    Raises:
        InputError: it is written otherwise, or there is no such version.
    """
    rest = model.removeprefix(REGISTRY_PREFIX)
    name, at, alias = rest.partition("@")
    with _registry_errors(f"{model}: cannot be had from the registry"):
        client = connect()
        if rest != model and at and name and alias:
            return ModelVersion(name, str(client.get_model_version_by_alias(name, alias).version))
        name, slash, number = rest.rpartition("/")
        if rest == model or not slash or not name or not number.isdigit():
            raise InputError(f"{model}: expected models:/NAME/VERSION or models:/NAME@ALIAS")
        client.get_model_version(name, number)
    return ModelVersion(name, number)


def get_champion(name: str) -> ModelVersion | None:
    """The version that is the champion; None if there is none.

    Raises:
        InputError: there is no registered model of that name, or MLflow does not answer.
    """
    with _registry_errors(f"{REGISTRY_PREFIX}{name}: cannot be had from the registry"):
        number = connect().get_registered_model(name).aliases.get(CHAMPION)
    return None if number is None else ModelVersion(name, str(number))


def set_champion(version: ModelVersion, expected: ModelVersion | None) -> None:
    """Make `version` the champion, if `before` (None: nobody) still is.

    Raises:
        InputError: somebody else became it meanwhile, or MLflow does not answer.
    """
    now = get_champion(version.name)
    if now != expected:
        raise InputError(f"{version.uri}: the champion is {now.uri if now else 'nobody'} by now; promote again")
    with _registry_errors(f"{version.uri}: cannot be made the champion"):
        client = connect()
        client.set_registered_model_alias(version.name, CHAMPION, version.number)
        _write_history(client, version.name, [*_history(client, version.name), version.number])
    if (now := get_champion(version.name)) != version:
        raise InputError(f"{version.uri}: somebody else made {now.uri if now else 'nobody'} the champion; promote again")


def demote(name: str) -> ModelVersion:
    """Let the model have no champion; returns who was it. `roll_back` brings that one back.

    Raises:
        InputError: there is no such model or champion, or MLflow does not answer.
    """
    before = get_champion(name)
    if before is None:
        raise InputError(f"{REGISTRY_PREFIX}{name}: has no champion; promote one")
    with _registry_errors(f"{before.uri}: cannot be demoted"):
        connect().delete_registered_model_alias(name, CHAMPION)
    return before


def roll_back(name: str) -> tuple[ModelVersion | None, ModelVersion]:
    """Make the champion before this one the champion again, or the last one where there is none; returns before and after.

    Raises:
        InputError: there was none, or MLflow does not answer.
    """
    before = get_champion(name)
    with _registry_errors(f"{REGISTRY_PREFIX}{name}: cannot be rolled back"):
        client = connect()
        known = [number for number in _history(client, name) if _exists(client, name, number)]
        while known and before is not None and known[-1] == before.number:
            known.pop()
        if not known:
            raise InputError(f"{REGISTRY_PREFIX}{name}: has had no other champion; promote another version")
        client.set_registered_model_alias(name, CHAMPION, known[-1])
        _write_history(client, name, known)
    return before, ModelVersion(name, known[-1])


def set_tags(version: ModelVersion, tags: dict[str, str]) -> None:
    """Set tags of a version."""
    with _registry_errors(f"{version.uri}: cannot be tagged"):
        for key, value in tags.items():
            connect().set_model_version_tag(version.name, version.number, key, value)


def _mlflow_run_id(run: str, runs: Path) -> str:
    folder = find_run(run, runs)
    if folder is None:
        return run
    card = read_run_info(folder)
    if card.mlflow_id is None:
        raise InputError(f"{run}: MLflow does not know this run yet; deliver it by fr-ps sync, then register it")
    if not uses_current_store(card):
        raise InputError(
            f"{run}: belongs to the MLflow store {display_uri(card)}, and {redacted_uri(tracking_uri())} is in use; set "
            f"MLFLOW_TRACKING_URI to the former, or deliver the run to the latter by fr-ps sync --run {card.id} --store URI"
        )
    return card.mlflow_id


def _best_epoch(client: MlflowClient, run: str, folder: Path) -> tuple[int, list[Metric]]:
    """The epoch of the model in `folder`, by the run's curve of the metric that chose it, and what was told of that epoch."""
    try:
        metric = str(read_settings(folder / CONFIG_FILE)["train"]["select"])
    except (InputError, TypeError, KeyError) as error:
        raise InputError(
            f"{folder / CONFIG_FILE}: does not say what chose the model ({one_line(error)}); copy it again"
        ) from None
    curve = client.get_metric_history(run, metric)
    if not curve:  # nobody was validated on, or MLflow has not heard of it
        return 0, []
    from fr_ps.evaluation.metrics import lower_is_better  # here: serving a model needs no metrics code

    best = (min if lower_is_better(metric) else max)(curve, key=lambda point: point.value)
    names = [name for name in client.get_run(run).data.metrics if name.startswith(("val/", "test/"))]
    return best.step, [point for name in names for point in client.get_metric_history(run, name) if point.step == best.step]


def _history(client: MlflowClient, name: str) -> list[str]:
    """Numbers of the versions that became champion, the last one last."""
    stored = client.get_registered_model(name).tags.get(_HISTORY_TAG, "[]")
    try:
        return parse_json(stored, list[str], f"{REGISTRY_PREFIX}{name}: tag {_HISTORY_TAG}", "remove the tag")
    except InputError:  # somebody else wrote it
        return []


def _write_history(client: MlflowClient, name: str, numbers: list[str]) -> None:
    client.set_registered_model_tag(name, _HISTORY_TAG, json.dumps(numbers))


def _exists(client: MlflowClient, name: str, number: str) -> bool:
    try:
        client.get_model_version(name, number)
        return True
    except MlflowException as error:
        if error.error_code != _MISSING:
            raise
        return False


def _read_model_card(folder: Path) -> str:
    card = folder / MODEL_CARD_FILE
    return card.read_text() if card.is_file() else ""


@contextmanager
def _registry_errors(message: str) -> Iterator[None]:
    """MLflow's refusals in the block become an `InputError` that begins with `trouble`."""
    try:
        yield
    except MlflowException as error:
        raise InputError(f"{message} ({one_line(error, 200).rstrip('.')}); see what mlflow ui lists under Models") from None


@contextmanager
def _artifact_storage_errors(client: MlflowClient, run: str) -> Iterator[None]:
    """A failure of the storage of artifacts in the block becomes an `InputError` that names the storage."""
    try:
        yield
    except (InputError, MlflowException):
        raise
    except Exception as error:  # each kind of storage has exceptions of its own
        where = redact(str(client.get_run(run).info.artifact_uri))
        raise InputError(
            f"run {run}: its model cannot be written to the artifact storage {where} ({one_line(error, 200)}); see that it "
            "is reachable and register again"
        ) from None


@contextmanager
def _ignore_existing() -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"):
            raise
