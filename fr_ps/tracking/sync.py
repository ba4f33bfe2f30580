"""Delivers undelivered events to MLflow after an outage, and moves runs to another tracking store."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from fr_ps.errors import InputError
from fr_ps.progress import no_progress
from fr_ps.tracking.delivery import DELIVERED_FILE, DeliveryQueue, failure_reason
from fr_ps.tracking.listing import RunSummary, list_runs, summarize_run
from fr_ps.tracking.run_folder import PARENT_TAG, RunInfo, find_run, read_run_info, run_folders
from fr_ps.tracking.run_lock import is_locked, run_lock

_CHECKED_RUNS = 5


@dataclass(frozen=True)
class SyncResult:
    """Result of the delivery of one run.

    Attributes:
        id: our run id.
        store: URI of the run's tracking store; empty if `run.json` is damaged.
        mlflow_id: empty before MLflow has created the run.
        sent: number of events that were delivered now.
        remaining: number of events that are still undelivered.
        reason: why the delivery failed or was skipped; empty if all events are delivered.
        running: whether the run's own process is running; it delivers the remaining events.
        rejected: items that MLflow rejects permanently, with the reasons.
        note: as in `MlflowSink`.
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


def pending_runs(runs: Path) -> dict[Path, int]:
    """The folders under `runs` with undelivered events, and their number; 0 for a damaged run, which `sync` reports.

    Interrupted runs get the status KILLED first, which is an event too.
    """
    return {one.folder: one.pending_events for one in list_runs(runs) if one.pending_events or one.error}


def move_to_store(folders: Sequence[Path], uri: str) -> list[SyncResult]:
    """Assign runs to the tracking store `uri`, so that `sync` delivers all their events to it.

    If the store already has an MLflow run with our run id, it is used, and the store ignores points that it already has;
    otherwise a new MLflow run is created. Parent runs come first, as the runs of trials refer to their MLflow ids.

    Returns:
        The runs that could not be moved, with the reasons.
    """
    failed = []
    for folder in sorted(folders, key=_has_parent):
        try:
            _move_run(folder, uri)
        except Exception as error:  # the other runs are moved all the same
            failed.append(SyncResult(folder.name, uri, "", 0, 0, failure_reason(error), False, ()))
    return failed


def _has_parent(folder: Path) -> bool:
    with suppress(InputError):
        return bool(read_run_info(folder).parent_id)
    return False


def _move_run(folder: Path, uri: str) -> None:
    from fr_ps.tracking.mlflow_sink import MlflowSink, run_tracking_uri
    from fr_ps.tracking.uris import default_tracking_uri, open_client, redacted_uri

    with run_lock(folder):
        info = read_run_info(folder)
        earlier = [*info.earlier_ids, *([info.mlflow_id] if info.mlflow_id else [])]
        info = replace(info, tracking_uri=redacted_uri(uri), mlflow_id=None, experiment_id="", earlier_ids=earlier)
        if run_tracking_uri(info) == default_tracking_uri():
            info = replace(info, tracking_uri="")
        parent_folder = find_run(info.parent_id, folder.parent) if info.parent_id else None
        if parent_folder:
            parent = read_run_info(parent_folder)
            if parent.tracking_uri == info.tracking_uri and parent.mlflow_id:
                info = replace(info, tags=info.tags | {PARENT_TAG: parent.mlflow_id})
        open_client(run_tracking_uri(info)).search_experiments(max_results=1)  # raises before anything changes
        (folder / DELIVERED_FILE).unlink(missing_ok=True)
        MlflowSink(folder, info).ensure_run()


def find_lost_run(runs: Path) -> tuple[Path, str] | None:
    """A delivered run that its tracking store no longer has, with the URI of that store; None if there is none.

    A user may delete single runs in MLflow. So a run counts as lost only if the store has none of the last `_CHECKED_RUNS`
    runs that were delivered to it: then the store itself was probably deleted. A store that does not answer is left out.
    """
    delivered: dict[str, list[tuple[Path, RunInfo]]] = {}
    for folder in run_folders(runs):
        with suppress(InputError):
            info = read_run_info(folder)
            if not DeliveryQueue(folder).pending():
                delivered.setdefault(info.tracking_uri, []).append((folder, info))
    from fr_ps.tracking.mlflow_sink import display_uri

    for stored in delivered.values():
        if all(_is_missing(info) for _, info in stored[-_CHECKED_RUNS:]):
            folder, info = stored[-1]
            return folder, display_uri(info)
    return None


def _is_missing(info: RunInfo) -> bool:
    from fr_ps.tracking.mlflow_sink import is_missing, run_tracking_uri
    from fr_ps.tracking.uris import open_client, sqlite_path

    uri = run_tracking_uri(info)
    if not info.mlflow_id:
        return False
    if (file := sqlite_path(uri)) and not file.exists():
        return True
    try:
        open_client(uri).get_run(info.mlflow_id)
    except Exception as error:
        return is_missing(error)
    return False


def sync_interrupted(found: Sequence[RunSummary]) -> list[RunSummary]:
    """Deliver the events of the interrupted runs among `found` to MLflow; returns the runs as they are then."""
    interrupted = [one.folder for one in found if one.note == "interrupted" and one.pending_events]
    if interrupted:
        sync(interrupted, no_progress)
    return [summarize_run(one.folder) if one.folder in interrupted else one for one in found]


def sync(folders: Sequence[Path], advance: Callable[[int], None]) -> list[SyncResult]:
    """Deliver the undelivered events of each run.

    A locked run is skipped, as its own process delivers its events. If a tracking store does not answer for one run, the
    other runs of that store are skipped.

    Args:
        folders: run folders.
        advance: called with the number of events of each delivered batch.
    """
    unreachable: dict[str, str] = {}
    return [_sync_run(folder, advance, unreachable) for folder in folders]


def _sync_run(folder: Path, advance: Callable[[int], None], unreachable: dict[str, str]) -> SyncResult:
    """Deliver one run. `unreachable` maps the URI of each store that does not answer to the reason; new ones are added."""
    from fr_ps.tracking.mlflow_sink import MlflowSink, display_uri, is_run_error  # importing mlflow takes a second

    sent = pending = 0
    running, reason, queue, sink = is_locked(folder), "", None, None
    try:
        queue, sink = DeliveryQueue(folder), MlflowSink(folder, read_run_info(folder))
        pending = queue.pending()
        reason = "running; its process delivers the events" if running else unreachable.get(sink.info.tracking_uri, "")
        if not reason:
            with run_lock(folder):
                while batch := queue.send_batch(sink):
                    advance(batch)
                    sent += batch
    except Exception as error:  # the other runs are delivered all the same
        reason = failure_reason(error)
        if sink and not sink.client and not is_run_error(error) and not isinstance(error, InputError):
            unreachable[sink.info.tracking_uri] = reason
    return SyncResult(
        id=folder.name,
        store=display_uri(sink.info) if sink else "",
        mlflow_id=(sink.info.mlflow_id if sink else None) or "",
        sent=sent,
        remaining=pending - sent,
        reason=reason,
        running=running,
        rejected=tuple(queue.rejected if queue else ()),
        note=sink.note if sink else "",
    )
