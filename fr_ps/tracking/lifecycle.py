"""Start, resume and end of a run: the folder, its lock, the delivery thread, and the final status."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from fr_ps.errors import InputError, one_line
from fr_ps.files import sync_folder, translate_write_errors
from fr_ps.locks import dir_lock
from fr_ps.process import unredacted_output
from fr_ps.progress import Echo
from fr_ps.progress import echo as print_line
from fr_ps.redaction import redact
from fr_ps.tracking.delivery import DeliveryQueue, DeliveryThread, failure_reason
from fr_ps.tracking.environment import record_system_metrics
from fr_ps.tracking.journal import Event
from fr_ps.tracking.mlflow_sink import MlflowSink, display_uri, uses_current_store
from fr_ps.tracking.run import EndRunAsKilled, Run, RunStatus, new_run_id
from fr_ps.tracking.run_folder import RUN_INFO_FILE, ParentRun, RunInfo, find_run, new_run_info, read_run_info
from fr_ps.tracking.run_lock import run_lock
from fr_ps.tracking.uris import redacted_uri

_TIMEOUT, _TIMEOUT_UNFINISHED, _SILENT_WAIT = 60.0, 10.0, 3.0


def echo_stderr(line: str) -> None:
    """Print a line to standard error, which is for messages; results go to standard output."""
    print_line(line, sys.stderr)


@contextmanager
def start_run(
    name: str,
    runs: Path,
    echo: Echo = echo_stderr,
    parent: ParentRun | None = None,
    timeout: float = _TIMEOUT,
    run_id: str = "",
    system_metrics: bool = False,
    interrupt_ends_wait: bool = True,
) -> Iterator[Run]:
    """Start a run with a new folder under `runs`.

    The final status is FINISHED at the end of the block, KILLED after Ctrl-C, SIGTERM or `EndRunAsKilled`, and FAILED after any
    other exception. A thread sends the journal to MLflow. With `parent`, it goes into a new child run in the parent's
    experiment. Otherwise it goes into the run that `mlflow run` started, or into a new run of the experiment
    MLFLOW_EXPERIMENT_ID, MLFLOW_EXPERIMENT_NAME or `fr-ps`. The end of the block waits for the delivery, and gives up after
    `timeout` seconds without an acknowledgement of MLflow (10 at most if the run is not FINISHED); `fr-ps sync` delivers the
    rest.

    Args:
        name: display name.
        runs: folder of the runs.
        echo: prints a line for the user.
        parent: parent run.
        timeout: seconds without an acknowledgement from MLflow after which the end of the block stops waiting.
        run_id: id of the run's folder (not MLflow's id); empty: a new one.
        system_metrics: log system metrics even if MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING is not set.
        interrupt_ends_wait: what Ctrl-C does during the wait at the end of the block. True: it ends only the wait, as the run
            already has its final status. False: it raises KeyboardInterrupt.

    Raises:
        InputError: `runs` cannot be written.
    """
    info = new_run_info(run_id or new_run_id(), name, parent)
    folder = runs / info.id
    with run_lock(folder):
        with translate_write_errors(folder), dir_lock(runs):  # two processes must not both adopt the same MLFLOW_RUN_ID
            if info.mlflow_id and (owner := find_run(info.mlflow_id, runs)):
                echo(f"tracking: MLFLOW_RUN_ID names the MLflow run of {owner.name}; run {info.id} gets a new MLflow run")
                info = replace(info, mlflow_id=None)
            info.write(folder)
        sync_folder(runs)
        yield from _track(folder, info, echo, timeout, system_metrics, interrupt_ends_wait)


@contextmanager
def resume_run(
    folder: Path,
    echo: Echo = echo_stderr,
    timeout: float = _TIMEOUT,
    system_metrics: bool = False,
    interrupt_ends_wait: bool = True,
) -> Iterator[Run]:
    """Resume the run in `folder`: a context manager like `start_run`.

    Under `mlflow run`, MLflow has created an empty run for the command. This empty run gets a tag with the id of the resumed run.

    Raises:
        InputError: another process holds the lock of the run, or its folder cannot be read or written.
    """
    info = read_run_info(folder)
    id_from_mlflow_run = os.environ.pop("MLFLOW_RUN_ID", None)
    given = redacted_uri(os.environ.get("MLFLOW_TRACKING_URI", ""))
    if given and not uses_current_store(info):
        echo(f"tracking: run {info.id} stays in {display_uri(info)}; MLFLOW_TRACKING_URI names {given}")
    with run_lock(folder):
        placeholder = id_from_mlflow_run if id_from_mlflow_run != info.mlflow_id else None
        yield from _track(folder, info, echo, timeout, system_metrics, interrupt_ends_wait, placeholder)


def create_parent_run(name: str, runs: Path) -> tuple[RunInfo, ParentRun]:
    """Create a parent run in MLflow, with a folder under `runs`; `resume_run` opens it.

    Under `mlflow run`, the run that MLflow has created becomes the parent run. The call waits for MLflow, because the child runs
    need the MLflow id of their parent.

    Raises:
        InputError: MLflow does not answer, or `runs` cannot be written.
    """
    info = new_run_info(new_run_id(), name)
    with run_lock(runs / info.id):
        info.write(runs / info.id)
        sink = MlflowSink(runs / info.id, info)
        given = redact(os.environ.get("MLFLOW_TRACKING_URI", "")) or "default store"
        with _parent_run_required(given, "check that the server answers, or set MLFLOW_TRACKING_URI"):
            sink.ensure_run()
            if sink.note:
                echo_stderr(sink.note)
            return sink.info, ParentRun(str(sink.info.mlflow_id), sink.experiment_id())


def refresh_parent(parent: ParentRun, folder: Path) -> ParentRun:
    """`parent` with its current MLflow id, read from `run.json` in `folder`: `fr-ps sync --store` may have changed the id.

    Raises:
        InputError: `run.json` is damaged, or MLflow does not answer.
    """
    info = read_run_info(folder) if (folder / RUN_INFO_FILE).is_file() else None
    if info is None or not info.mlflow_id or info.mlflow_id == parent.mlflow_id:
        return parent
    with _parent_run_required(display_uri(info), "check that the server answers"):
        return ParentRun(info.mlflow_id, MlflowSink(folder, info).experiment_id())


@contextmanager
def _parent_run_required(store: str, remedy: str) -> Iterator[None]:
    """Raise an InputError for a failure of MLflow in the block: without a parent run, no trial can start."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"MLflow ({store}) cannot create or find the parent run of the study ({failure_reason(error)}); {remedy}"
        ) from None


def restore_run_folder(info: RunInfo, runs: Path) -> Path:
    """The folder of a parent run, in `runs`; created again if it is missing.

    Raises:
        InputError: the folder cannot be written.
    """
    folder = runs / info.id
    if not (folder / RUN_INFO_FILE).is_file():
        with run_lock(folder):
            info.write(folder)
    return folder


def _track(
    folder: Path,
    info: RunInfo,
    echo: Echo,
    timeout: float,
    system_metrics: bool,
    interrupt_ends_wait: bool,
    placeholder_id: str | None = None,
) -> Iterator[Run]:
    """Open the journal, deliver it while the caller's block runs, and record the final status."""
    run = Run(folder)
    run.mlflow_id = info.mlflow_id
    if run.journal.truncated_bytes:
        echo(f"{run.journal.path}: removed an incomplete last line ({run.journal.truncated_bytes} bytes)")
    run.set_status("RUNNING")
    if placeholder_id:
        run.tag_other_run(placeholder_id, {"fr_ps.kind": "resume", "fr_ps.resumes": info.mlflow_id or info.id})

    sink = MlflowSink(folder, info)

    def on_delivery(mlflow_id: str) -> None:
        run.mlflow_id = mlflow_id
        if sink.note:
            echo(sink.note)
            sink.note = ""

    delivery = DeliveryThread(run.journal, DeliveryQueue(folder), sink, on_delivery, echo)
    delivery.start()
    status: RunStatus = "FAILED"
    try:
        with record_system_metrics(run, system_metrics):
            yield run
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit, EndRunAsKilled):
        status = "KILLED"
        raise
    finally:
        _finish(run, status, delivery, sink, echo, timeout, interrupt_ends_wait)


def _finish(
    run: Run,
    status: RunStatus,
    delivery: DeliveryThread,
    sink: MlflowSink,
    echo: Echo,
    timeout: float,
    interrupt_ends_wait: bool,
) -> None:
    """Record the final status, wait for the delivery, and report undelivered and rejected events."""
    try:
        if run.journal.is_present():
            _write_status(run, status, echo)
        limit = min(timeout, _TIMEOUT if status == "FINISHED" else _TIMEOUT_UNFINISHED)
        delivered = _await_delivery(delivery, limit, echo, interrupt_ends_wait)
        if not run.journal.is_present():
            _send_status(status, sink, echo)
            echo(f"run {run.id}: {run.folder} was removed or replaced; MLflow has the events delivered before that")
            return
        for rejected in delivery.queue.rejected:
            echo(f"tracking: MLflow rejected {rejected}")
        if not delivered:
            reason = delivery.last_error or "time limit reached"
            echo(f"tracking: {delivery.queue.pending()} events not delivered to MLflow ({reason}); deliver them with: fr-ps sync")
        elif sink.table_url and not sink.info.parent_id:
            with unredacted_output():  # the address has a query, and no secret
                print_line(f"view: {sink.table_url}")
    finally:
        delivery.cancel()
        run.journal.close()


def _write_status(run: Run, status: RunStatus, echo: Echo) -> None:
    try:
        run.set_status(status)
        run.journal.sync()
    except Exception as error:  # must not replace the exception that ended the run
        echo(f"run {run.id}: cannot write the status {status} to the journal: {one_line(error)}")


def _send_status(status: RunStatus, sink: MlflowSink, echo: Echo) -> None:
    """Send the final status without the journal, which was removed. Without this call, the run would stay RUNNING in MLflow."""
    if sink.client is None:  # MLflow does not have the run
        return
    try:
        sink.send([Event("status", int(time.time() * 1000), {"status": status})])
    except Exception as error:  # must not replace the exception that ended the run
        echo(f"tracking: cannot send the status {status} to MLflow ({one_line(error)})")


def _await_delivery(delivery: DeliveryThread, timeout: float, echo: Echo, interrupt_ends_wait: bool) -> bool:
    """Wait for the delivery; returns whether all is delivered. `interrupt_ends_wait` as in `start_run`."""
    try:
        if timeout <= _SILENT_WAIT:
            return delivery.finish(timeout)
        if delivery.finish(_SILENT_WAIT):
            return True
        echo(
            f"tracking: waiting for MLflow, at most {timeout:.0f} s without an acknowledgement "
            "(Ctrl-C stops waiting; fr-ps sync delivers later)"
        )
        return delivery.finish(timeout)
    except KeyboardInterrupt:
        if not interrupt_ends_wait:
            raise
        return False
