"""The life of a run: begun or gone on with, told about while it lasts, and ended with the status that is true."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from fr_ps.errors import one_line
from fr_ps.files import dir_lock, sync_folder, translate_write_errors
from fr_ps.progress import echo
from fr_ps.tracking.delivery import DeliveryThread
from fr_ps.tracking.journal import Event
from fr_ps.tracking.mlflow_sink import MlflowSink, display_uri, uses_current_store
from fr_ps.tracking.outbox import DeliveryQueue
from fr_ps.tracking.run import Run, RunStatus, RunStopped, new_run_id
from fr_ps.tracking.run_folder import ParentRun, RunInfo, find_run, new_run_info, read_run_info
from fr_ps.tracking.run_lock import run_lock
from fr_ps.tracking.system_metrics import record_system_metrics
from fr_ps.tracking.uris import redacted_uri

Echo = Callable[[str], None]
_TIMEOUT, _TIMEOUT_UNFINISHED, _SILENT_WAIT = 60.0, 10.0, 3.0


def echo_stderr(line: str) -> None:
    """Tell the user a line that is no result."""
    echo(line, sys.stderr)


@contextmanager
def start_run(
    name: str,
    runs: Path,
    echo: Echo = echo_stderr,
    parent: ParentRun | None = None,
    timeout: float = _TIMEOUT,
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
    card = new_run_info(run_id or new_run_id(), name, parent)
    folder = runs / card.id
    with run_lock(folder):
        with (
            translate_write_errors(folder),
            dir_lock(runs),
        ):  # so that of two processes that MLFLOW_RUN_ID reaches only one takes it
            if card.mlflow_id and (taken := find_run(card.mlflow_id, runs)):
                echo(f"tracking: MLFLOW_RUN_ID names the MLflow run of {taken.name}; run {card.id} gets one of its own")
                card = replace(card, mlflow_id=None)
            card.write(folder)
        sync_folder(runs)
        yield from _track(folder, card, echo, timeout, system_metrics)


@contextmanager
def resume_run(folder: Path, echo: Echo = echo_stderr, timeout: float = _TIMEOUT, system_metrics: bool = False) -> Iterator[Run]:
    """The run in `folder`, gone on with; otherwise as `new_run`.

    The run that `mlflow run` may have begun for it gets a tag that names the one that is gone on with.

    Raises:
        InputError: a living process runs it, or its folder cannot be written or read.
    """
    card = read_run_info(folder)
    begun_by_mlflow = os.environ.pop("MLFLOW_RUN_ID", None)
    given = redacted_uri(os.environ.get("MLFLOW_TRACKING_URI", ""))
    if given and not uses_current_store(card):
        echo(f"tracking: run {card.id} belongs to {display_uri(card)}, not to {given}, which MLFLOW_TRACKING_URI names")
    with run_lock(folder):
        empty = begun_by_mlflow if begun_by_mlflow != card.mlflow_id else None
        yield from _track(folder, card, echo, timeout, system_metrics, empty)


def _track(
    folder: Path, info: RunInfo, echo: Echo, timeout: float, system_metrics: bool, placeholder_id: str | None = None
) -> Iterator[Run]:
    run = Run(folder)
    run.mlflow_id = info.mlflow_id
    if run.journal.truncated_bytes:
        echo(f"{run.journal.path}: its last line was half written and is cut off ({run.journal.truncated_bytes} bytes)")
    run.set_status("RUNNING")
    if placeholder_id:
        run.tag_other_run(placeholder_id, {"fr_ps.kind": "resume", "fr_ps.resumes": info.mlflow_id or info.id})

    store = MlflowSink(folder, info)

    def connected(mlflow_id: str) -> None:
        run.mlflow_id = mlflow_id
        if store.note:
            echo(store.note)
            store.note = ""

    delivery = DeliveryThread(run.journal, DeliveryQueue(folder), store, connected, echo)
    delivery.start()
    status: RunStatus = "FAILED"
    try:
        with record_system_metrics(run, system_metrics):
            yield run
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit, RunStopped):
        status = "KILLED"
        raise
    finally:
        _finish(run, status, delivery, store, echo, timeout)


def _finish(run: Run, status: RunStatus, delivery: DeliveryThread, sink: MlflowSink, echo: Echo, timeout: float) -> None:
    """Write down how the run ended, wait for its delivery, and say what is not delivered."""
    try:
        if run.journal.is_present():
            _write_status(run, status, echo)
        delivered = _await_delivery(delivery, min(timeout, _TIMEOUT if status == "FINISHED" else _TIMEOUT_UNFINISHED), echo)
        if not run.journal.is_present():
            _send_status(status, sink, echo)
            echo(f"run {run.id}: {run.folder} was removed or replaced; MLflow has what was delivered before")
            return
        for refused in delivery.queue.rejected:
            echo(f"tracking: MLflow refused {refused}")
        if not delivered:
            left = delivery.queue.pending()
            why = delivery.last_error or "it takes too long"
            echo(f"tracking: {left} events are not in MLflow yet ({why}); later: fr-ps sync")
    finally:
        delivery.cancel()
        run.journal.close()


def _write_status(run: Run, status: RunStatus, echo: Echo) -> None:
    try:
        run.set_status(status)
        run.journal.sync()
    except Exception as error:  # what ended the run is to be told, not this
        echo(f"run {run.id}: that it is {status} could not be written down: {one_line(error)}")


def _send_status(status: RunStatus, sink: MlflowSink, echo: Echo) -> None:
    """Send how a run ended past its journal, which is gone: MLflow would show it as RUNNING for ever."""
    if sink.client is None:  # MLflow does not have the run
        return
    try:
        sink.send([Event("status", int(time.time() * 1000), {"status": status})])
    except Exception as error:  # what ended the run is to be reported, not this
        echo(f"tracking: MLflow does not take the status {status} ({one_line(error)})")


def _await_delivery(delivery: DeliveryThread, timeout: float, echo: Echo) -> bool:
    """Wait for what is left, so long; whether all was taken. Ctrl-C ends the waiting, as the run itself is over."""
    if timeout <= _SILENT_WAIT:  # who waits so little has more to do after the run, and Ctrl-C is to end that
        return delivery.finish(timeout)
    try:
        if delivery.finish(_SILENT_WAIT):
            return True
        echo(f"tracking: waiting for MLflow, {timeout:.0f} s at most (Ctrl-C: leave it to fr-ps sync)")
        return delivery.finish(timeout)
    except KeyboardInterrupt:
        return False
