"""The runs of a folder with their true status."""

import socket
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fr_ps.errors import InputError
from fr_ps.tracking.journal import JOURNAL_FILE, read_events
from fr_ps.tracking.layout import CONFIG_FILE
from fr_ps.tracking.outbox import DeliveryQueue
from fr_ps.tracking.run import Run, is_epoch_metric
from fr_ps.tracking.run_folder import RUN_INFO_FILE, find_run, read_run_info
from fr_ps.tracking.run_lock import is_locked, run_lock

INTERRUPTED_TAG = "fr_ps.interrupted"
_OPEN_STATUSES = ("RUNNING", "")


@dataclass(frozen=True)
class RunSummary:
    """What a run's folder tells.

    Attributes:
        id: ours.
        mlflow_id: empty where there is none yet.
        name: of the run.
        kind: `train`, `evaluate`, ...; empty where it ended before it said so.
        status: RUNNING, FINISHED, FAILED or KILLED; `?` where it cannot be told.
        note: what else is to be known of the status.
        epoch: the last one with a point on a curve; 0 for none.
        begun: date and time.
        pending: events that MLflow has not.
    """

    id: str
    mlflow_id: str
    name: str
    kind: str
    status: str
    note: str
    epoch: int
    started: str
    pending_events: int


def list_runs(runs: Path) -> list[RunSummary]:
    """All runs under `runs`, the oldest first; those that were interrupted are marked first.

    A run whose folder is damaged is told as that.
    """
    found = []
    for file in sorted(runs.glob(f"*/{RUN_INFO_FILE}")):
        try:
            found.append(_summarize(file.parent))
        except InputError as error:
            found.append(RunSummary(file.parent.name, "", "", "", "?", str(error), 0, "", 0))
    return found


def mark_interrupted(folder: Path) -> str:
    """Write down that the run in `folder` is KILLED, if it says RUNNING, is of this machine, and its process is gone.

    The tag `fr_ps.interrupted` tells it from one that ended by a signal. Returns why it could not be written down.

    Raises:
        InputError: the folder is damaged.
    """
    if read_run_info(folder).host != socket.gethostname() or last_status(folder) not in _OPEN_STATUSES or is_locked(folder):
        return ""
    try:
        with run_lock(folder):
            if last_status(folder) not in _OPEN_STATUSES:
                return ""  # since it was looked at, somebody went on with it, to its end
            run = Run(folder)
            try:
                run.set_status("KILLED")
                run.set_tags({INTERRUPTED_TAG: "its process ended without a word (SIGKILL, a crash, or no memory left)"})
                run.journal.sync()
            finally:
                run.journal.close()
    except InputError as error:
        return "" if is_locked(folder) else str(error)
    return ""


def find_resumable_run(run: str, runs: Path) -> Path:
    """The folder under `runs` of the training that is to be resumed: that of the id `run`, ours or MLflow's.

    Where `run` is empty, that of the last training that is neither finished nor running.

    Raises:
        InputError: there is no such run, or it is no training.
    """
    if not run:
        trainings = [file.parent for file in sorted(runs.glob(f"*/{CONFIG_FILE}"), reverse=True)]
        for folder in trainings:
            with suppress(InputError):  # another run's damage is not this one's
                alone = not read_run_info(folder).parent  # a trial is gone on with by its study
                if alone and last_status(folder) not in ("FINISHED", "") and not is_locked(folder):
                    return folder
        raise InputError(f"--resume: no training under {runs.resolve()} was interrupted; fr-ps runs lists what is there")
    found = find_run(run, runs)
    if found is None:
        raise InputError(f"--resume {run}: no such run under {runs.resolve()}; fr-ps runs lists those that are there")
    if not (found / CONFIG_FILE).is_file():
        raise InputError(f"--resume {run}: {found} has no {CONFIG_FILE}: no training, or ended before its start; begin a new one")
    return found


def last_status(folder: Path) -> str:
    """The status that the run in `folder` wrote down last; empty if none."""
    status = ""
    for _, event in read_events(folder / JOURNAL_FILE):
        if event.kind == "status":
            status = event.data["status"]
    return status


def _summarize(folder: Path) -> RunSummary:
    trouble = mark_interrupted(folder)
    card = read_run_info(folder)
    status, kind, epoch, note = "?", "", 0, ""
    running = is_locked(folder)  # asked before the journal is read, in which a run that ends between the two says how
    for _, event in read_events(folder / JOURNAL_FILE):
        if event.kind == "status":
            status, note = event.data["status"], ""
        elif event.kind == "tags":
            kind = event.data.get("fr_ps.kind", kind)
            note = "interrupted" if INTERRUPTED_TAG in event.data else note
        elif event.kind == "metrics":
            epoch = max(epoch, event.data["step"] if any(map(is_epoch_metric, event.data["values"])) else 0)
    if not card.host:
        note = "made by an earlier version"
    elif status in ("RUNNING", "?") and not running and card.host != socket.gethostname():
        note = f"on {card.host}, where it may be running"
    elif trouble:
        status, note = "KILLED", f"interrupted; not written down: {trouble}"
    return RunSummary(
        id=card.id,
        mlflow_id=card.mlflow_id or "",
        name=card.name,
        kind=kind,
        status=status,
        note=note,
        epoch=epoch,
        started=f"{datetime.fromtimestamp(card.begun / 1000):%Y-%m-%d %H:%M}" if card.begun else "",
        pending_events=DeliveryQueue(folder).pending(),
    )
