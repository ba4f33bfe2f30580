"""Sends the journal of a run to MLflow. The MLflow run is created once; sending an event again has no further effect."""

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
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from requests import RequestException

from fr_ps.errors import InputError, one_line
from fr_ps.files import DISK_FULL_ERRNOS
from fr_ps.tracking.delivery import DELIVERED_FILE
from fr_ps.tracking.journal import JOURNAL_FILE, Event, read_events
from fr_ps.tracking.run_folder import BEST_CHECKPOINT, RunInfo
from fr_ps.tracking.table_view import SERVER_SCHEMES, save_view, view_url
from fr_ps.tracking.tracked_metrics import BEST_PREFIX
from fr_ps.tracking.uris import (
    DEFAULT_STORE_FILE,
    artifact_root,
    default_tracking_uri,
    is_database,
    open_client,
    redacted_uri,
    sqlite_path,
    sqlite_uri,
    tracking_uri,
)

RUN_ID_TAG = "fr_ps.run_id"
STATUS_TAG = "fr_ps.status"
_MAX_PARAM_LENGTH = 6000
_MAX_TAG_LENGTH = 8000
_METRICS_PER_CALL = 1000
_PARAMS_PER_CALL = 100
_TAGS_PER_CALL = 100
_REJECTION_CODES = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
_NOT_FOUND_CODE = "RESOURCE_DOES_NOT_EXIST"
# MLflow would print the URL of each run that ends, with the credentials in MLFLOW_TRACKING_URI.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# MLflow would log the creation of each database, and a full disk with a traceback; for the latter we have a one-line message.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
Item = TypeVar("Item")


class MlflowSink:
    """Sends the events of one run folder to its MLflow run, through a client and not MLflow's global state.

    Args:
        folder: run folder.
        info: content of its `run.json`; `ensure_run` sets `mlflow_id`.

    Attributes:
        note: why the MLflow run that `run.json` names is not used (its id may come from an outdated MLFLOW_RUN_ID); empty if it
            is used, or if `run.json` names none.
        table_url: address of the run table on the tracking server; empty before `ensure_run`, and without a server.
    """

    def __init__(self, folder: Path, info: RunInfo) -> None:
        self.folder, self.info = folder, info
        self.client: MlflowClient | None = None
        self.note = ""
        self.table_url = ""

    def experiment_id(self) -> str:
        """The id of the run's MLflow experiment.

        Raises:
            Exception: any failure of MLflow.
        """
        client, mlflow_id = self._client_and_id()
        return str(client.get_run(mlflow_id).info.experiment_id)

    def ensure_run(self) -> str:
        """The MLflow id of this run: the run is found in MLflow, or created there, and the id is written to `run.json`.

        Raises:
            InputError: the store no longer has the run.
            Exception: any other failure of MLflow.
        """
        if self.client and self.info.mlflow_id:
            return self.info.mlflow_id
        client = open_client(run_tracking_uri(self.info))
        found = self._verify_or_adopt_run(client, self.info.mlflow_id) if self.info.mlflow_id else None
        mlflow_id = found or self._find_or_create_run(client)
        # The experiment's name goes into `run.json` even if `experiment_id` is set: that id is valid in this tracking store only,
        # and `fr-ps sync --store` delivers to another one.
        experiment = client.get_experiment(client.get_run(mlflow_id).info.experiment_id)
        save_view(client, experiment)
        before, self.client = self.info, client
        self.info = replace(before, mlflow_id=mlflow_id, experiment=experiment.name)
        if self.info.tracking_uri.startswith(SERVER_SCHEMES):
            self.table_url = view_url(self.info.tracking_uri, experiment.experiment_id)
        if self.info != before and self.folder.is_dir():  # a removed folder is not created again
            self.info.write(self.folder)
        return str(mlflow_id)

    def _verify_or_adopt_run(self, client: MlflowClient, mlflow_id: str) -> str | None:
        """Return `mlflow_id`, from `run.json`, if that MLflow run has our id as a tag or can be adopted; else None.

        An MLflow run that `mlflow run` created for this process is adopted if it has no `RUN_ID_TAG` and did not end before
        this run started. (It may have ended later: after an outage, the first delivery can come after the end of the command.)
        Name and tag are set only on adoption, as the user may rename the run later.

        Raises:
            InputError: the MLflow run no longer exists or belongs to another run, although events were delivered to it.
        """
        # Once events were delivered, the id is surely that of this run, and a missing MLflow run is an error. Until then it may
        # come from an outdated MLFLOW_RUN_ID: if that run is unusable, a new one is created.
        delivered = (self.folder / DELIVERED_FILE).exists()
        try:
            run = client.get_run(mlflow_id)
        except MlflowException as error:
            if error.error_code != _NOT_FOUND_CODE:
                raise
            if delivered:
                raise InputError(self._lost_run_message(mlflow_id, "no longer exists")) from None
            self.note = self._unavailable_note(mlflow_id, "does not exist")
            return None
        owner = run.data.tags.get(RUN_ID_TAG)
        if owner is None:
            ended_before = run.info.status != "RUNNING" and (run.info.end_time or 0) < self.info.begun
            if ended_before and not delivered:
                self.note = self._unavailable_note(mlflow_id, f"is {run.info.status}")
                return None
            client.update_run(mlflow_id, name=self.info.name)
            client.set_tag(mlflow_id, RUN_ID_TAG, self.info.id)
            owner = client.get_run(mlflow_id).data.tags.get(RUN_ID_TAG)  # another process may have adopted it
        if owner == self.info.id:
            return mlflow_id
        if delivered:
            raise InputError(self._lost_run_message(mlflow_id, f"now belongs to run {owner}"))
        self.note = self._unavailable_note(mlflow_id, f"belongs to run {owner}")
        return None

    def _unavailable_note(self, mlflow_id: str, why: str) -> str:
        return (
            f"tracking: MLflow run {mlflow_id}, from MLFLOW_RUN_ID or run.json, {why}; run {self.info.id} gets a new MLflow run"
        )

    def _lost_run_message(self, mlflow_id: str, what: str) -> str:
        where, run_id = display_uri(self.info), self.info.id
        return (
            f"MLflow run {mlflow_id} in {where}, to which run {run_id} was delivered, {what}; "
            f"deliver the run again: fr-ps sync --run {run_id} --store {shlex.quote(where)}"
        )

    def _find_or_create_run(self, client: MlflowClient) -> str:
        info = self.info
        experiment = info.experiment_id or _find_or_create_experiment(client, info.experiment)
        # The MLflow run exists if an earlier process was killed between `create_run` and writing `run.json`.
        found = client.search_runs([experiment], f"tags.`{RUN_ID_TAG}` = '{info.id}'", max_results=1)
        if found:
            return found[0].info.run_id
        tags = info.tags | {RUN_ID_TAG: info.id}
        return client.create_run(experiment, start_time=info.begun, tags=tags, run_name=info.name).info.run_id

    def send(self, events: Sequence[Event]) -> list[str]:
        """Send events in their order; see `EventSink.send`."""
        rejected: list[str] = []
        batch: list[Event] = []
        for event in events:
            if event.kind in ("metrics", "params", "tags"):
                batch.append(event)
                continue
            rejected += self._send_batch(batch)
            batch = []
            rejected += self._send_one(event)
        return rejected + self._send_batch(batch)

    def _send_batch(self, events: Sequence[Event]) -> list[str]:
        metrics = [
            Metric(name, value, event.time, event.data["step"])
            for event in events
            if event.kind == "metrics"
            for name, value in event.data["values"].items()
        ]
        params = [
            Param(key, _truncate(value, _MAX_PARAM_LENGTH))
            for event in events
            if event.kind == "params"
            for key, value in event.data.items()
        ]
        latest_tags = {key: value for event in events if event.kind == "tags" for key, value in event.data.items()}
        tags = [RunTag(key, _truncate(value, _MAX_TAG_LENGTH)) for key, value in latest_tags.items()]
        client, mlflow_id = self._client_and_id()
        return [
            *self._send_bisecting(metrics, _METRICS_PER_CALL, lambda chunk: client.log_batch(mlflow_id, metrics=chunk)),
            *self._send_bisecting(params, _PARAMS_PER_CALL, lambda chunk: client.log_batch(mlflow_id, params=chunk)),
            *self._send_bisecting(tags, _TAGS_PER_CALL, lambda chunk: client.log_batch(mlflow_id, tags=chunk)),
        ]

    def _send_bisecting(self, items: list[Item], max_items: int, send: Callable[[list[Item]], object]) -> list[str]:
        """Send `items` in calls of at most `max_items`; a rejected call is split in halves, down to the rejected item."""
        rejected: list[str] = []
        for start in range(0, len(items), max_items):
            chunk = items[start : start + max_items]
            reason = self._try_send(lambda chunk=chunk: send(chunk))  # type: ignore[misc]
            if reason and len(chunk) == 1:
                rejected.append(f"{chunk[0].key}: {reason}")  # type: ignore[attr-defined]
            elif reason:
                rejected += self._send_bisecting(chunk, (len(chunk) + 1) // 2, send)
        return rejected

    def _send_one(self, event: Event) -> list[str]:
        client, mlflow_id = self._client_and_id()
        data = event.data
        if event.kind == "status":
            reason = self._try_send(lambda: _set_status(client, mlflow_id, data["status"], event.time))
        elif event.kind == "elsewhere":
            reason = self._try_send(
                lambda: _tag_unowned_run(client, data["run"], data["tags"]), (*_REJECTION_CODES, _NOT_FOUND_CODE)
            )
        elif event.kind == "dataset":
            reason = self._try_send(lambda: client.log_inputs(mlflow_id, [_dataset_input(**data)]))
        else:
            reason = self._send_path(self.folder / data["path"], event)
        return [f"{event.kind}: {reason}"] if reason else []

    def _send_path(self, path: Path, event: Event) -> str:
        """Log an artifact or a model; returns why it can never be logged, or an empty text after a success."""
        client, mlflow_id = self._client_and_id()
        if not path.exists():
            return f"{path}: file not found"
        try:
            if event.kind == "model":
                return self._try_send(lambda: self._log_model(path, event.data["name"], event.data["step"]))
            log = client.log_artifacts if path.is_dir() else client.log_artifact
            return self._try_send(lambda: log(mlflow_id, str(path), event.data["folder"] or None))
        except InputError as error:
            return str(error)
        except (OSError, ImportError) as error:
            unreachable = isinstance(error, (RequestException, ConnectionError, TimeoutError))
            if unreachable or getattr(error, "errno", 0) in DISK_FULL_ERRNOS:
                raise
            # Only the artifact storage failed, not the tracking store. The file counts as rejected, so that the delivery of
            # metrics continues.
            return f"{path.name}: {one_line(error)}; the file stays in {self.folder}"

    def _log_model(self, model: Path, name: str, step: int) -> None:
        """Log a model with the validation metrics of that step, at their times in the journal.

        The selected model, which is the tested one, also gets the `test/...` and `best/...` metrics.
        """
        from fr_ps.serving.mlflow_model import log_model

        client, mlflow_id = self._client_and_id()
        is_selected = model.name == BEST_CHECKPOINT.name
        points = [
            Metric(key, value, event.time, event.data["step"])
            for _, event in read_events(self.folder / JOURNAL_FILE)
            if event.kind == "metrics"
            for key, value in event.data["values"].items()
            if (key.startswith("val/") and event.data["step"] == step)
            or (is_selected and key.startswith(BEST_PREFIX) and event.data["step"] >= step)
            or (is_selected and key.startswith("test/"))
        ]
        log_model(client, mlflow_id, model, name, step, points)

    def _try_send(self, send: Callable[[], object], rejection_codes: Sequence[str] = _REJECTION_CODES) -> str:
        """Call `send`; returns why MLflow rejected it permanently, or an empty text after a success."""
        try:
            send()
        except MlflowException as error:
            if error.error_code not in rejection_codes or not self._is_active():
                raise
            return one_line(error)
        return ""

    def _is_active(self) -> bool:
        """Whether the MLflow run is not deleted; a deleted run rejects all events until it is restored."""
        client, mlflow_id = self._client_and_id()
        run: MlflowRun = client.get_run(mlflow_id)
        return bool(run.info.lifecycle_stage == "active")

    def _client_and_id(self) -> tuple[MlflowClient, str]:
        mlflow_id = self.ensure_run()
        assert self.client is not None
        return self.client, mlflow_id


def run_tracking_uri(info: RunInfo) -> str:
    """URI of the tracking store that the run was started with, regardless of the current MLFLOW_TRACKING_URI.

    `run.json` has this URI without credentials; they are taken from MLFLOW_TRACKING_URI if it names the same store.
    """
    if not info.tracking_uri:
        return default_tracking_uri()
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    uri = given if redacted_uri(given) == redacted_uri(info.tracking_uri) else info.tracking_uri
    file = sqlite_path(uri)
    return sqlite_uri(file.absolute()) if file else uri


def uses_current_store(info: RunInfo) -> bool:
    """Whether the run belongs to the tracking store that MLFLOW_TRACKING_URI names now."""
    # `run_tracking_uri` normalises both: with credentials, and with the absolute path of a SQLite file.
    return run_tracking_uri(info) == run_tracking_uri(replace(info, tracking_uri=redacted_uri(tracking_uri())))


def display_uri(info: RunInfo) -> str:
    """URI of the tracking store of a run, without secrets."""
    return info.tracking_uri or f"sqlite:///{DEFAULT_STORE_FILE}"


def is_missing(error: Exception) -> bool:
    """Whether MLflow answered that it has no such run."""
    return isinstance(error, MlflowException) and error.error_code == _NOT_FOUND_CODE


def is_run_error(error: Exception) -> bool:
    """Whether `error` concerns one run only, so that requests about other runs may succeed."""
    return isinstance(error, MlflowException) and error.error_code in (*_REJECTION_CODES, _NOT_FOUND_CODE)


def _find_or_create_experiment(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=_artifact_location(client.tracking_uri)))
        except MlflowException:  # another process may have created it; any other error recurs in the next line
            found = client.get_experiment_by_name(name)
    if found is None:
        raise InputError(f"cannot find or create MLflow experiment {name!r}; check MLFLOW_TRACKING_URI")
    return str(found.experiment_id)


def _artifact_location(uri: str) -> str | None:
    """Artifact location of a new experiment; None: MLflow's choice."""
    root = artifact_root()
    return f"{root}/{uuid.uuid4().hex}" if is_database(uri) and root.startswith("file:") else None


def _set_status(client: MlflowClient, mlflow_id: str, status: str, time: int) -> None:
    client.set_tag(mlflow_id, STATUS_TAG, status)
    if status == "RUNNING":
        client.update_run(mlflow_id, status=status)
    else:
        client.set_terminated(mlflow_id, status, end_time=time)


def _tag_unowned_run(client: MlflowClient, mlflow_id: str, tags: dict[str, str]) -> None:
    """Tag a run that `mlflow run` started, unless it is the run of another run folder."""
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
