"""Delivery to MLflow, after the end of runs: what an outage held back, or all of a run to another store."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from fr_ps.errors import InputError, one_line
from fr_ps.progress import no_progress
from fr_ps.tracking.listing import RunSummary, list_runs, mark_interrupted
from fr_ps.tracking.outbox import DELIVERED_FILE, DeliveryQueue
from fr_ps.tracking.run_folder import PARENT_TAG, RUN_INFO_FILE, RunInfo, find_run, read_run_info
from fr_ps.tracking.run_lock import is_locked, run_lock


@dataclass(frozen=True)
class SyncResult:
    """What became of one run.

    Attributes:
        id: ours.
        store: that the run belongs to; empty where its `run.json` is damaged.
        mlflow_id: empty where there is none yet.
        sent: events that MLflow took now.
        left: events that it did not.
        why: events are left.
        running: a living process delivers them.
        refused: what it will never take, with its reasons.
        note: why the MLflow run that MLFLOW_RUN_ID named is not this run; empty where it is.
    """

    id: str
    store: str
    mlflow_id: str
    sent: int
    remaining: int
    reason: str
    running: bool
    rejected: tuple[str, ...]
    note: str = ""


def run_folders(runs: Path) -> list[Path]:
    """The folders of all runs under `runs`, the oldest first."""
    return [file.parent for file in sorted(runs.glob(f"*/{RUN_INFO_FILE}"))]


def pending_runs(runs: Path) -> dict[Path, int]:
    """The folders of the runs that MLflow does not know all of, each with the number of events; those that were interrupted
    are marked first. One that is damaged is among them with 0, and `sync` says why."""
    found = {}
    for folder in run_folders(runs):
        try:
            mark_interrupted(folder)
            if pending := DeliveryQueue(folder).pending():
                found[folder] = pending
        except InputError:
            found[folder] = 0
    return found


def move_to_store(folders: Sequence[Path], uri: str) -> list[SyncResult]:
    """Let runs belong to the MLflow store `uri` from now on, so that `sync` delivers all of each run to it.

    A run that the store has already, by our id, goes on there; others get a new MLflow run. The store drops points that it
    has, so that no point is doubled. Runs come before their parts, as the trials of a study, which name the run that they
    are a part of.

    Returns:
        The runs that could not be moved, with the reason.
    """
    failed = []
    for folder in sorted(folders, key=_has_parent):
        try:
            _move_run(folder, uri)
        except Exception as error:  # one run's trouble is not that of the next
            failed.append(SyncResult(folder.name, uri, "", 0, 0, _error_reason(error), False, ()))
    return failed


def _has_parent(folder: Path) -> bool:
    with suppress(InputError):
        return bool(read_run_info(folder).parent)
    return False


def _move_run(folder: Path, uri: str) -> None:
    from fr_ps.tracking.mlflow_sink import MlflowSink, open_client, run_tracking_uri
    from fr_ps.tracking.uris import default_tracking_uri, redacted_uri

    with run_lock(folder):
        card = read_run_info(folder)
        earlier = [*card.earlier_ids, *([card.mlflow_id] if card.mlflow_id else [])]
        card = replace(card, tracking_uri=redacted_uri(uri), mlflow_id=None, experiment_id="", earlier_ids=earlier)
        if run_tracking_uri(card) == default_tracking_uri():
            card = replace(card, tracking_uri="")
        whole = find_run(card.parent, folder.parent) if card.parent else None
        if whole and (parent := read_run_info(whole)).tracking_uri == card.tracking_uri and parent.mlflow_id:
            card = replace(card, tags=card.tags | {PARENT_TAG: parent.mlflow_id})
        open_client(run_tracking_uri(card)).search_experiments(max_results=1)  # nothing changes where it does not answer
        (folder / DELIVERED_FILE).unlink(missing_ok=True)
        MlflowSink(folder, card).connect()


def missing_from_store(runs: Path) -> dict[Path, str]:
    """The newest delivered run of each store that no longer has it, as after a store was deleted, with the store's address.

    A store that does not answer is left out.
    """
    newest: dict[str, tuple[Path, RunInfo]] = {}
    for folder in run_folders(runs):
        with suppress(InputError):
            card = read_run_info(folder)
            if not DeliveryQueue(folder).pending():
                newest[card.tracking_uri] = folder, card
    from fr_ps.tracking.mlflow_sink import display_uri

    return {folder: display_uri(card) for folder, card in newest.values() if _is_missing(card)}


def _is_missing(card: RunInfo) -> bool:
    from fr_ps.tracking.mlflow_sink import is_missing, open_client, run_tracking_uri
    from fr_ps.tracking.uris import sqlite_path

    uri = run_tracking_uri(card)
    if not card.mlflow_id:
        return False
    if (file := sqlite_path(uri)) and not file.exists():
        return True
    try:
        open_client(uri).get_run(card.mlflow_id)
    except Exception as error:
        return is_missing(error)
    return False


def sync_interrupted(runs: Path) -> list[RunSummary]:
    """The runs under `runs`, after MLflow was told of those that were interrupted."""
    found = list_runs(runs)
    interrupted = [runs / one.id for one in found if one.note == "interrupted" and one.pending_events]
    if not interrupted:
        return found
    sync(interrupted, no_progress)
    return list_runs(runs)


def sync(folders: Sequence[Path], advance: Callable[[int], None]) -> list[SyncResult]:
    """Deliver what is left of each run; `advance` is called with the events as they are taken.

    Runs that a living process owns deliver by themselves and are left to it. Once MLflow did not answer for one run, it
    is not asked again for the others that go to the same place.
    """

    silent_places: dict[str, str] = {}
    return [_sync_run(folder, advance, silent_places) for folder in folders]


def _sync_run(folder: Path, advance: Callable[[int], None], unreachable: dict[str, str]) -> SyncResult:
    from fr_ps.tracking.mlflow_sink import MlflowSink, display_uri, is_run_error  # mlflow takes a second

    sent = before = 0
    running, why, outbox, store = is_locked(folder), "", None, None
    try:
        outbox, store = DeliveryQueue(folder), MlflowSink(folder, read_run_info(folder))
        before = outbox.pending()
        why = "it is running, and delivers by itself" if running else unreachable.get(store.info.tracking_uri, "")
        if not why:
            with run_lock(folder):
                while batch := outbox.send_batch(store):
                    advance(batch)
                    sent += batch
    except Exception as error:  # one run's trouble is not that of the next
        why = _error_reason(error)
        if store and not store.client and not is_run_error(error) and not isinstance(error, InputError):
            unreachable[store.info.tracking_uri] = why
    mlflow_id = store.info.mlflow_id if store else None
    where = display_uri(store.info) if store else ""
    refused = tuple(outbox.rejected if outbox else ())
    note = store.note if store else ""
    return SyncResult(folder.name, where, mlflow_id or "", sent, before - sent, why, running, refused, note)


def _error_reason(error: Exception) -> str:
    return str(error) if isinstance(error, InputError) else one_line(error)
