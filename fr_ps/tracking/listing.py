"""Lists runs with their actual status: a run whose process was killed is detected and marked KILLED."""

import socket
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fr_ps.errors import InputError
from fr_ps.tracking.delivery import DeliveryQueue
from fr_ps.tracking.journal import JOURNAL_FILE, read_events
from fr_ps.tracking.run import Run, is_epoch_metric
from fr_ps.tracking.run_folder import CONFIG_FILE, find_run_by_prefix, read_run_info, run_folders
from fr_ps.tracking.run_lock import is_locked, run_lock

INTERRUPTED_TAG = "fr_ps.interrupted"
BEST_EPOCH_TAG = "fr_ps.best_epoch"
_VALIDATION_AUC, _TEST_AUC = "val/identity/auc", "test/identity/auc"
_OPEN_STATUSES = ("RUNNING", "")
"""Statuses that are not final; empty: none is logged yet."""


@dataclass(frozen=True)
class RunSummary:
    """State of a run, from its folder.

    Attributes:
        folder: of the run.
        id: our run id.
        mlflow_id: empty before MLflow has created the run.
        name: display name.
        kind: `train`, `evaluate`, ...; empty if the run ended before it logged its kind.
        status: RUNNING, FINISHED, FAILED or KILLED; `?` if unknown.
        note: details of the status.
        epoch: the last epoch with metrics; 0 for none.
        validation_auc: identity AUC on validation at the best epoch, or the highest so far; None without one.
        test_auc: identity AUC on test; None without one.
        pending_events: number of undelivered events.
        error: why the folder cannot be read; empty if it can.
    """

    folder: Path
    id: str
    mlflow_id: str = ""
    name: str = ""
    kind: str = ""
    status: str = "?"
    note: str = ""
    epoch: int = 0
    validation_auc: float | None = None
    test_auc: float | None = None
    pending_events: int = 0
    error: str = ""


@dataclass
class _JournalSummary:
    """What a journal contributes to a `RunSummary`."""

    status: str = ""
    interrupted: bool = False
    kind: str = ""
    epoch: int = 0
    best_epoch: int = 0
    validation_aucs: dict[int, float] = field(default_factory=dict)
    test_auc: float | None = None
    pending_events: int = 0

    @property
    def validation_auc(self) -> float | None:
        """At the best epoch, or the highest before the end of the training."""
        return self.validation_aucs.get(self.best_epoch, max(self.validation_aucs.values(), default=None))


def list_runs(runs: Path) -> list[RunSummary]:
    """All runs under `runs`, oldest first. Interrupted runs are marked first; a damaged run has an `error`."""
    return [summarize_run(folder) for folder in run_folders(runs)]


def summarize_run(folder: Path) -> RunSummary:
    """The state of the run in `folder`; an interrupted run is marked first."""
    try:
        return _summarize(folder)
    except InputError as error:
        return RunSummary(folder, folder.name, error=str(error), note=str(error))


def mark_interrupted(folder: Path) -> str:
    """Set the status KILLED and the tag `fr_ps.interrupted` if the run's process ended on this machine without a final status.

    Returns:
        Why the status could not be written; empty otherwise.

    Raises:
        InputError: the folder is damaged.
    """
    if read_run_info(folder).host != socket.gethostname() or last_status(folder) not in _OPEN_STATUSES or is_locked(folder):
        return ""
    try:
        with run_lock(folder):
            if last_status(folder) not in _OPEN_STATUSES:  # resumed and ended since the first check
                return ""
            run = Run(folder)
            try:
                run.set_status("KILLED")
                run.set_tags({INTERRUPTED_TAG: "process died without a final status (SIGKILL, crash or out of memory)"})
                run.journal.sync()
            finally:
                run.journal.close()
    except InputError as error:
        return "" if is_locked(folder) else str(error)
    return ""


def find_resumable_run(run: str, runs: Path) -> Path:
    """The folder under `runs` of the training to resume.

    Args:
        run: id of the training, ours or MLflow's, or its beginning; empty: the last run with the tag `fr_ps.kind` = train that
            is neither finished nor running.
        runs: folder of the runs.

    Raises:
        InputError: there is no such run, or it is not a training.
    """
    if not run:
        trainings = [file.parent for file in sorted(runs.glob(f"*/{CONFIG_FILE}"), reverse=True)]
        for folder in trainings:
            with suppress(InputError):  # damage of another run
                is_trial = bool(read_run_info(folder).parent_id)  # only its study resumes a trial
                journal = _read_journal(folder)
                is_unfinished = journal.kind == "train" and journal.status not in ("FINISHED", "")
                if is_unfinished and not is_trial and not is_locked(folder):
                    return folder
        raise InputError(f"--resume: no training under {runs.resolve()} was interrupted; fr-ps runs lists all runs")
    found = find_run_by_prefix(run, runs)
    if found is None:
        raise InputError(f"--resume {run}: no such run under {runs.resolve()}; fr-ps runs lists all runs")
    if not (found / CONFIG_FILE).is_file():
        raise InputError(
            f"--resume {run}: {found} has no {CONFIG_FILE}: not a training, or it failed before its start; start a new training"
        )
    return found


def last_status(folder: Path) -> str:
    """The last status in the journal of the run in `folder`; empty for none."""
    return _read_journal(folder).status


def _read_journal(folder: Path, delivered_bytes: int = 0) -> _JournalSummary:
    """Summarize the journal of the run in `folder`, of which MLflow has acknowledged the first `delivered_bytes`."""
    found = _JournalSummary()
    for end, event in read_events(folder / JOURNAL_FILE):
        found.pending_events += end > delivered_bytes
        if event.kind == "status":
            found.status, found.interrupted = event.data["status"], False
        elif event.kind == "tags":
            found.kind = event.data.get("fr_ps.kind", found.kind)
            found.interrupted |= INTERRUPTED_TAG in event.data
            found.best_epoch = int(event.data.get(BEST_EPOCH_TAG, found.best_epoch))
        elif event.kind == "metrics" and any(map(is_epoch_metric, event.data["values"])):
            step, values = event.data["step"], event.data["values"]
            found.epoch = max(found.epoch, step)
            found.test_auc = values.get(_TEST_AUC, found.test_auc)
            if _VALIDATION_AUC in values:
                found.validation_aucs.setdefault(step, values[_VALIDATION_AUC])
    return found


def _summarize(folder: Path) -> RunSummary:
    info, delivered_bytes = read_run_info(folder), DeliveryQueue(folder).delivered_bytes
    locked = is_locked(folder)  # read before the journal: a run writes its final status before it releases the lock
    journal = _read_journal(folder, delivered_bytes)
    here, error = info.host == socket.gethostname(), ""
    if here and not locked and journal.status in _OPEN_STATUSES:
        error = mark_interrupted(folder)
        journal = _read_journal(folder, delivered_bytes)
    status, note = journal.status or "?", "interrupted" if journal.interrupted else ""
    if not info.host:
        note = "made by an earlier version"
    elif journal.status in _OPEN_STATUSES and not locked and not here:
        note = f"on {info.host}, may be running there"
    elif error:
        status, note = "KILLED", f"interrupted; cannot be marked: {error}"
    return RunSummary(
        folder=folder,
        id=info.id,
        mlflow_id=info.mlflow_id or "",
        name=info.name,
        kind=journal.kind,
        status=status,
        note=note,
        epoch=journal.epoch,
        validation_auc=journal.validation_auc,
        test_auc=journal.test_auc,
        pending_events=journal.pending_events,
    )
