"""A run in MLflow: made once, and told what the journal says. Sending anything twice changes nothing."""

import json
import logging
import os
import shlex
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from requests import RequestException

from fr_ps.errors import InputError, one_line
from fr_ps.files import DISK_FULL_ERRNOS
from fr_ps.tracking.journal import JOURNAL_FILE, Event, read_events
from fr_ps.tracking.outbox import DELIVERED_FILE
from fr_ps.tracking.run_folder import RunInfo
from fr_ps.tracking.uris import (
    DEFAULT_STORE_FILE,
    artifact_root,
    create_sqlite_store,
    default_tracking_uri,
    is_database,
    limit_http_retries,
    redacted_uri,
    sqlite_path,
    sqlite_uri,
    tracking_uri,
)

RUN_ID_TAG = "fr_ps.run_id"
STATUS_TAG = "fr_ps.status"
_MAX_PARAM_LENGTH = 6000
_MAX_TAG_LENGTH = 8000
_PARAMS_PER_CALL = 100
_TAGS_PER_CALL = 100
_REJECTION_CODES = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
_NOT_FOUND_CODE = "RESOURCE_DOES_NOT_EXIST"
# It would print the address of every run that ends, with the user information of MLFLOW_TRACKING_URI.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# Its notes on every new database, and its tracebacks of a full disk, stand between the user and the one line that says what
# is wrong.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
Item = TypeVar("Item")


class MlflowSink:
    """The run of a card in MLflow, reached by explicit run id: no global state of mlflow is used.

    Args:
        folder: of the run.
        card: of the run; `mlflow_id` becomes known by `connect`.

    Attributes:
        note: why the run that MLFLOW_RUN_ID names is not this run; empty where it is.
    """

    def __init__(self, folder: Path, info: RunInfo) -> None:
        self.folder, self.info = folder, info
        self.client: MlflowClient | None = None
        self.note = ""

    def experiment_id(self) -> str:
        """The id of the run's experiment in MLflow.

        Raises:
            Exception: whatever keeps MLflow from answering.
        """
        client, mlflow_id = self._client_and_id()
        return str(client.get_run(mlflow_id).info.experiment_id)

    def connect(self) -> str:
        """The run's id in MLflow; found there by our id, or made, and written on the card before anything else is sent.

        Raises:
            InputError: the store does not have the run any more.
            Exception: whatever keeps MLflow from answering.
        """
        if self.client and self.info.mlflow_id:
            return self.info.mlflow_id
        client = open_client(run_tracking_uri(self.info))
        found = self._adopt_run(client, self.info.mlflow_id) if self.info.mlflow_id else None
        mlflow_id = found or self._find_or_create_run(client)
        experiment = client.get_experiment(client.get_run(mlflow_id).info.experiment_id).name  # its id is of this store only
        before, self.client = self.info, client
        self.info = replace(before, mlflow_id=mlflow_id, experiment=experiment)
        if self.info != before and self.folder.is_dir():  # else it was removed, and is not made again
            self.info.write(self.folder)
        return str(mlflow_id)

    def _adopt_run(self, client: MlflowClient, mlflow_id: str) -> str | None:
        """The MLflow run of the card, if it is this run; None where MLFLOW_RUN_ID named a run that is not free.

        A run that `mlflow run` began for this process has no id of ours, and is RUNNING, or was when this run began: where
        MLflow is reached only after the process ended, `mlflow run` has ended it. It gets our name and id, once: its user
        may rename it later.
        """
        delivered = (self.folder / DELIVERED_FILE).exists()
        try:
            run = client.get_run(mlflow_id)
        except MlflowException as error:
            if error.error_code != _NOT_FOUND_CODE:
                raise
            if delivered:
                raise InputError(
                    self._lost_run_message(f"does not have MLflow run {mlflow_id} of run {self.info.id} any more")
                ) from None
            self.note = self._unavailable_note(mlflow_id, "is not there")
            return None
        owner = run.data.tags.get(RUN_ID_TAG)
        ended_before = run.info.status != "RUNNING" and (run.info.end_time or 0) < self.info.begun
        if owner is None and not delivered and ended_before:
            self.note = self._unavailable_note(mlflow_id, f"is {run.info.status}")
            return None
        if owner is None:
            client.update_run(mlflow_id, name=self.info.name)
            client.set_tag(mlflow_id, RUN_ID_TAG, self.info.id)
            owner = client.get_run(mlflow_id).data.tags.get(RUN_ID_TAG)  # another process may have been faster
        if owner == self.info.id:
            return mlflow_id
        if delivered:
            raise InputError(
                self._lost_run_message(f"has run {owner} as MLflow run {mlflow_id}, to which run {self.info.id} was sent")
            )
        self.note = self._unavailable_note(mlflow_id, f"belongs to run {owner}")
        return None

    def _unavailable_note(self, mlflow_id: str, why: str) -> str:
        return f"tracking: MLFLOW_RUN_ID names MLflow run {mlflow_id}, which {why}; run {self.info.id} gets one of its own"

    def _lost_run_message(self, what: str) -> str:
        where = display_uri(self.info)
        return f"{where} {what}; deliver the run anew: fr-ps sync --run {self.info.id} --store {shlex.quote(where)}"

    def _find_or_create_run(self, client: MlflowClient) -> str:
        card = self.info
        experiment = card.experiment_id or _find_or_create_experiment(client, card.experiment)
        # A process that died between making the run and writing it down left one.
        found = client.search_runs([experiment], f"tags.`{RUN_ID_TAG}` = '{card.id}'", max_results=1)
        if found:
            return found[0].info.run_id
        tags = card.tags | {RUN_ID_TAG: card.id}
        return client.create_run(experiment, start_time=card.begun, tags=tags, run_name=card.name).info.run_id

    def send(self, events: Sequence[Event]) -> list[str]:
        """Send events of the journal, in their order; returns what MLflow will never take, with its reasons.

        Raises:
            Exception: whatever keeps MLflow from answering, or from taking anything of this run now.
        """
        refused: list[str] = []
        together: list[Event] = []
        for event in events:
            if event.kind in ("metrics", "params", "tags"):
                together.append(event)
                continue
            refused += self._send_batch(together)
            together = []
            refused += self._send_one(event)
        return refused + self._send_batch(together)

    def _send_batch(self, events: Sequence[Event]) -> list[str]:
        metrics = [
            Metric(name, value, event.time, event.data["step"])
            for event in events
            if event.kind == "metrics"
            for name, value in event.data["values"].items()
        ]
        params = [Param(*item) for event in events if event.kind == "params" for item in event.data.items()]
        tags = {key: value for event in events if event.kind == "tags" for key, value in event.data.items()}
        shorter = [Param(param.key, _truncate(param.value, _MAX_PARAM_LENGTH)) for param in params]
        client, mlflow_id = self._client_and_id()
        return [
            *self._send_bisecting(metrics, 1000, lambda some: client.log_batch(mlflow_id, metrics=some)),
            *self._send_bisecting(shorter, _PARAMS_PER_CALL, lambda some: client.log_batch(mlflow_id, params=some)),
            *self._send_bisecting(
                [RunTag(key, _truncate(value, _MAX_TAG_LENGTH)) for key, value in tags.items()],
                _TAGS_PER_CALL,
                lambda some: client.log_batch(mlflow_id, tags=some),
            ),
        ]

    def _send_bisecting(self, items: list[Item], max_items: int, send: Callable[[list[Item]], object]) -> list[str]:
        """Send `items`, at most so many a call; of a call that is refused, halves, so that one bad item costs only itself."""
        refused: list[str] = []
        for start in range(0, len(items), max_items):
            some = items[start : start + max_items]
            reason = self._rejection_reason(lambda some=some: send(some))  # type: ignore[misc]
            if reason and len(some) == 1:
                refused.append(f"{some[0].key}: {reason}")  # type: ignore[attr-defined]
            elif reason:
                refused += self._send_bisecting(some, (len(some) + 1) // 2, send)
        return refused

    def _send_one(self, event: Event) -> list[str]:
        client, mlflow_id = self._client_and_id()
        data = event.data
        if event.kind == "status":
            reason = self._rejection_reason(lambda: _set_status(client, mlflow_id, data["status"], event.time))
        elif event.kind == "elsewhere":
            reason = self._rejection_reason(
                lambda: _tag_unowned_run(client, data["run"], data["tags"]), (*_REJECTION_CODES, _NOT_FOUND_CODE)
            )
        elif event.kind == "dataset":
            reason = self._rejection_reason(lambda: client.log_inputs(mlflow_id, [_dataset_input(**data)]))
        else:
            path = self.folder / data["path"]
            if not path.exists():
                return [f"{path}: is not there any more"]
            send = client.log_artifacts if path.is_dir() else client.log_artifact
            try:
                if event.kind == "model":
                    reason = self._rejection_reason(lambda: self._log_model(path, data["name"], data["step"]))
                else:
                    reason = self._rejection_reason(lambda: send(mlflow_id, str(path), data["folder"] or None))
            except InputError as error:
                reason = str(error)
            except (OSError, ImportError) as error:
                # Not MLflow, but the place where it has its files: that must not keep the curves.
                if (
                    isinstance(error, (RequestException, ConnectionError, TimeoutError))
                    or getattr(error, "errno", 0) in DISK_FULL_ERRNOS
                ):
                    raise
                reason = f"{path.name}: {one_line(error)}; it stays in {self.folder}"
        return [f"{event.kind}: {reason}"] if reason else []

    def _log_model(self, model: Path, name: str, step: int) -> None:
        """With the validation's and the test's points of that step, each with the time that it has in the run's curve."""
        from fr_ps.serving.mlflow_model import log_model

        client, mlflow_id = self._client_and_id()
        points = [
            Metric(key, value, event.time, step)
            for _, event in read_events(self.folder / JOURNAL_FILE)
            if event.kind == "metrics" and event.data["step"] == step
            for key, value in event.data["values"].items()
            if key.startswith(("val/", "test/"))
        ]
        log_model(client, mlflow_id, model, name, step, points)

    def _rejection_reason(self, send: Callable[[], object], rejection_codes: Sequence[str] = _REJECTION_CODES) -> str:
        """Why MLflow refused what `send` sends, for good; empty if it took it."""
        try:
            send()
        except MlflowException as error:
            if error.error_code not in rejection_codes or not self._is_active():
                raise
            return one_line(error)
        return ""

    def _is_active(self) -> bool:
        """Whether the run takes anything at all: a deleted one refuses everything, until it is restored."""
        client, mlflow_id = self._client_and_id()
        run: Run = client.get_run(mlflow_id)
        return bool(run.info.lifecycle_stage == "active")

    def _client_and_id(self) -> tuple[MlflowClient, str]:
        mlflow_id = self.connect()
        assert self.client is not None
        return self.client, mlflow_id


def open_client(uri: str) -> MlflowClient:
    """A client of the store; a SQLite store that is not there yet is made first."""
    limit_http_retries(0, timeout=20)  # the caller retries
    create_sqlite_store(uri)
    return MlflowClient(uri)


def run_tracking_uri(info: RunInfo) -> str:
    """The address of the store that a run belongs to: the one that it began with, whatever MLFLOW_TRACKING_URI names now.

    The card has it without secrets; MLFLOW_TRACKING_URI may give them.
    """
    if not info.tracking_uri:
        return default_tracking_uri()
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    uri = given if redacted_uri(given) == redacted_uri(info.tracking_uri) else info.tracking_uri
    file = sqlite_path(uri)
    return sqlite_uri(file.absolute()) if file else uri


def uses_current_store(info: RunInfo) -> bool:
    """Whether the store that a run belongs to is the one in use, which MLFLOW_TRACKING_URI names."""
    return run_tracking_uri(info) == run_tracking_uri(replace(info, tracking_uri=redacted_uri(tracking_uri())))


def display_uri(info: RunInfo) -> str:
    """The address of the store that a run belongs to, without secrets."""
    return info.tracking_uri or f"sqlite:///{DEFAULT_STORE_FILE}"


def is_missing(error: Exception) -> bool:
    """Whether `error` is MLflow's answer that it has no such run."""
    return isinstance(error, MlflowException) and error.error_code == _NOT_FOUND_CODE


def is_run_error(error: Exception) -> bool:
    """Whether `error` is MLflow's answer about one run, so that it can be asked about others."""
    return isinstance(error, MlflowException) and error.error_code in (*_REJECTION_CODES, _NOT_FOUND_CODE)


def _find_or_create_experiment(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=_artifact_location(client.tracking_uri)))
        except MlflowException:  # another process was faster; anything else shows in the next line
            found = client.get_experiment_by_name(name)
    if found is None:
        raise InputError(f"MLflow experiment {name!r} can be neither found nor made; check MLFLOW_TRACKING_URI")
    return str(found.experiment_id)


def _artifact_location(uri: str) -> str | None:
    """Where a new experiment has its artifacts; None: where MLflow puts them by itself."""
    root = artifact_root()
    return f"{root}/{uuid.uuid4().hex}" if is_database(uri) and root.startswith("file:") else None


def _set_status(client: MlflowClient, mlflow_id: str, status: str, time: int) -> None:
    client.set_tag(mlflow_id, STATUS_TAG, status)
    if status == "RUNNING":
        client.update_run(mlflow_id, status=status)
    else:
        client.set_terminated(mlflow_id, status, end_time=time)


def _tag_unowned_run(client: MlflowClient, mlflow_id: str, tags: dict[str, str]) -> None:
    """Tag a run that `mlflow run` began, unless it belongs to a run of ours."""
    if RUN_ID_TAG in client.get_run(mlflow_id).data.tags:
        return
    for key, value in tags.items():
        client.set_tag(mlflow_id, key, value)


def _dataset_input(name: str, source: str, digest: str, profile: dict[str, int], context: str) -> DatasetInput:
    entity = Dataset(
        name=name, digest=digest, source_type="local", source=json.dumps({"uri": source}), profile=json.dumps(profile)
    )
    return DatasetInput(entity, [InputTag("mlflow.data.context", context)])


def _truncate(text: str, max_length: int) -> str:
    return text if len(text) <= max_length else text[: max_length - 3] + "..."
