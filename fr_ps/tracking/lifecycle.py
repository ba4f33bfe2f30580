"""The life of a run: begun or gone on with, told about while it lasts, and ended with the status that is true."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from fr_ps.errors import one_line
from fr_ps.files import alone, sync_folder, writable
from fr_ps.progress import say
from fr_ps.tracking.address import recorded_uri
from fr_ps.tracking.card import Card, Parent, find_run, new_card, read_card
from fr_ps.tracking.delivery import Delivery
from fr_ps.tracking.journal import Event
from fr_ps.tracking.outbox import Outbox
from fr_ps.tracking.owner import owned
from fr_ps.tracking.run import Run, Status, StoppedEarly, new_id
from fr_ps.tracking.store import RunStore, is_in_use, shown_store
from fr_ps.tracking.system_metrics import record_system_metrics

Say = Callable[[str], None]
_WAIT, _WAIT_ENDED, _WAIT_SILENTLY = 60.0, 10.0, 3.0


def warn(line: str) -> None:
    """Tell the user a line that is no result."""
    say(line, sys.stderr)


@contextmanager
def new_run(
    name: str,
    runs: Path,
    tell: Say = warn,
    parent: Parent | None = None,
    wait: float = _WAIT,
    run_id: str = "",
    system_metrics: bool = False,
) -> Iterator[Run]:
    """A run with a folder of its own under `runs`; its status at the end says how the block ended.

    FINISHED after the last line, KILLED after Ctrl-C, SIGTERM or `StoppedEarly`, FAILED after any other exception. MLflow
    hears of it in the background: in the run that `mlflow run` began, or in a new one of the experiment that
    MLFLOW_EXPERIMENT_ID or MLFLOW_EXPERIMENT_NAME says, or `fr-ps`. At the end the block waits for that, a minute at most in
    which nothing is acknowledged (10 seconds unless it is finished), and says what is left to `sync`.

    Args:
        name: of the run.
        runs: the folder of the runs.
        tell: called with lines for the user.
        parent: run that it is a part of.
        wait: seconds to wait at the end, at most.
        run_id: ours, where it is known already; empty: a new one.
        system_metrics: whether the machine is sampled, also where MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING is not true.

    Raises:
        InputError: `runs` cannot be written.
    """
    card = new_card(run_id or new_id(), name, parent)
    folder = runs / card.id
    with owned(folder):
        with writable(folder), alone(runs):  # so that of two processes that MLFLOW_RUN_ID reaches only one takes it
            if card.mlflow_id and (taken := find_run(card.mlflow_id, runs)):
                tell(f"tracking: MLFLOW_RUN_ID names the MLflow run of {taken.name}; run {card.id} gets one of its own")
                card = replace(card, mlflow_id=None)
            card.write(folder)
        sync_folder(runs)
        yield from _live(folder, card, tell, wait, system_metrics)


@contextmanager
def resumed_run(folder: Path, tell: Say = warn, wait: float = _WAIT, system_metrics: bool = False) -> Iterator[Run]:
    """The run in `folder`, gone on with; otherwise as `new_run`.

    The run that `mlflow run` may have begun for it gets a tag that names the one that is gone on with.

    Raises:
        InputError: a living process runs it, or its folder cannot be written or read.
    """
    card = read_card(folder)
    begun_by_mlflow = os.environ.pop("MLFLOW_RUN_ID", None)
    given = recorded_uri(os.environ.get("MLFLOW_TRACKING_URI", ""))
    if given and not is_in_use(card):
        tell(f"tracking: run {card.id} belongs to {shown_store(card)}, not to {given}, which MLFLOW_TRACKING_URI names")
    with owned(folder):
        empty = begun_by_mlflow if begun_by_mlflow != card.mlflow_id else None
        yield from _live(folder, card, tell, wait, system_metrics, empty)


def _live(folder: Path, card: Card, tell: Say, wait: float, system_metrics: bool, empty: str | None = None) -> Iterator[Run]:
    run = Run(folder)
    run.mlflow_id = card.mlflow_id
    if run.journal.cut:
        tell(f"{run.journal.path}: its last line was half written and is cut off ({run.journal.cut} bytes)")
    run.status("RUNNING")
    if empty:
        run.elsewhere(empty, {"fr_ps.kind": "resume", "fr_ps.resumes": card.mlflow_id or card.id})

    store = RunStore(folder, card)

    def connected(mlflow_id: str) -> None:
        run.mlflow_id = mlflow_id
        if store.note:
            tell(store.note)
            store.note = ""

    delivery = Delivery(run.journal, Outbox(folder), store, connected, tell)
    delivery.start()
    status: Status = "FAILED"
    try:
        with record_system_metrics(run, system_metrics):
            yield run
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit, StoppedEarly):
        status = "KILLED"
        raise
    finally:
        _end(run, status, delivery, store, tell, wait)


def _end(run: Run, status: Status, delivery: Delivery, store: RunStore, tell: Say, wait: float) -> None:
    """Write down how the run ended, wait for its delivery, and say what is not delivered."""
    try:
        if run.journal.is_present():
            _write_status(run, status, tell)
        delivered = _delivered(delivery, min(wait, _WAIT if status == "FINISHED" else _WAIT_ENDED), tell)
        if not run.journal.is_present():
            _send_status(status, store, tell)
            tell(f"run {run.id}: {run.folder} was removed or replaced; MLflow has what was delivered before")
            return
        for refused in delivery.outbox.refused:
            tell(f"tracking: MLflow refused {refused}")
        if not delivered:
            left = delivery.outbox.pending()
            why = delivery.trouble or "it takes too long"
            tell(f"tracking: {left} events are not in MLflow yet ({why}); later: fr-ps sync")
    finally:
        delivery.give_up()
        run.journal.close()


def _write_status(run: Run, status: Status, tell: Say) -> None:
    try:
        run.status(status)
        run.journal.sync()
    except Exception as error:  # what ended the run is to be told, not this
        tell(f"run {run.id}: that it is {status} could not be written down: {one_line(error)}")


def _send_status(status: Status, store: RunStore, tell: Say) -> None:
    """Send how a run ended past its journal, which is gone: MLflow would show it as RUNNING for ever."""
    if store.client is None:  # MLflow does not have the run
        return
    try:
        store.send([Event("status", int(time.time() * 1000), {"status": status})])
    except Exception as error:  # what ended the run is to be reported, not this
        tell(f"tracking: MLflow does not take the status {status} ({one_line(error)})")


def _delivered(delivery: Delivery, seconds: float, tell: Say) -> bool:
    """Wait for what is left, so long; whether all was taken. Ctrl-C ends the waiting, as the run itself is over."""
    if seconds <= _WAIT_SILENTLY:  # who waits so little has more to do after the run, and Ctrl-C is to end that
        return delivery.finish(seconds)
    try:
        if delivery.finish(_WAIT_SILENTLY):
            return True
        tell(f"tracking: waiting for MLflow, {seconds:.0f} s at most (Ctrl-C: leave it to fr-ps sync)")
        return delivery.finish(seconds)
    except KeyboardInterrupt:
        return False
