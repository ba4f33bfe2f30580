"""The worker processes of a search: started, restarted when they crash, and stopped together."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from fr_ps.errors import InputError
from fr_ps.progress import echo

_COMMAND = [sys.executable, "-m", "fr_ps.search.worker"]
_POLL_SECONDS = 0.5
_MAX_RESTARTS = 3
"""Largest number of restarts of a worker while no trial or final run finishes. The next crash ends the search."""
Job = Mapping[str, Any]


class WorkerProcess:
    """A worker process.

    Args:
        log: file to which its output is appended.
        job: for its standard input.
    """

    def __init__(self, log: Path, job: Job) -> None:
        self.log, self.job, self.restarts = log, job, 0
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        threads = {"OMP_NUM_THREADS": str(self.job["threads"])} if self.job.get("threads") else {}
        with self.log.open("a") as log:
            process = subprocess.Popen(
                _COMMAND,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                env=os.environ | threads,
                start_new_session=True,  # Ctrl-C in the terminal then reaches only the launcher, which forwards it
            )
        assert process.stdin is not None
        process.stdin.write(json.dumps(self.job) + "\n")
        process.stdin.flush()  # not closed: the worker stops at the end of its standard input
        return process

    def restart(self) -> None:
        """Start it again after a crash."""
        self.restarts += 1
        self.process = self._start()

    @property
    def last_log_line(self) -> str:
        """The last line of its log."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("error: ") if lines else "empty log"


def run_workers(jobs: Mapping[Path, Job], poll_finished: Callable[[], int], limit: int = 0) -> None:
    """Run a worker process for each job, restart those that crash, and wait until all have ended.

    Signals are forwarded to the workers. At the first SIGINT or SIGTERM they finish their step and write a checkpoint. If
    the second signal is SIGINT, they stop at once. At the third signal of either kind they are killed.

    Args:
        jobs: mapping from log file to job.
        poll_finished: called twice a second, and once after the last worker has ended. It may report progress, and returns the
            number of finished trials or final runs.
        limit: number of processes at the same time; 0: all jobs.

    Raises:
        InputError: a worker rejected its input, or crashed repeatedly.
        KeyboardInterrupt, SystemExit: on a signal, after all workers have ended.
    """
    workers, waiting, finished = list[WorkerProcess](), list(jobs.items()), poll_finished()
    # The handlers are set before any worker starts. In a shell's background job SIGINT is ignored, and a child process would
    # inherit that. It does not inherit a handler: with one set here, the workers start with the default action.
    with _forward_signals(workers) as signals:
        while workers or waiting:
            while waiting and not signals and (not limit or len(workers) < limit):
                workers.append(WorkerProcess(*waiting.pop(0)))
                _forward_pending(workers[-1], signals)
            if signals:
                waiting.clear()
            time.sleep(_POLL_SECONDS)
            now = poll_finished()
            if now != finished:
                finished = now
                for worker in workers:
                    worker.restarts = 0
            for worker in [one for one in workers if one.process.poll() is not None]:
                code = worker.process.returncode
                was_stopped = code in (130, 143)  # by a signal to this worker only; the other workers continue
                if code == 0 or signals or was_stopped:
                    workers.remove(worker)
                elif code == 2 or worker.restarts >= _MAX_RESTARTS:
                    raise InputError(f"worker failed: {worker.last_log_line}; see {worker.log}")
                else:
                    echo(f"worker exited ({_exit_reason(code)}), restarting; log: {worker.log}")
                    worker.restart()
                    _forward_pending(worker, signals)
        poll_finished()
    if signals:
        raise KeyboardInterrupt if signals[0] == signal.SIGINT else SystemExit(128 + signals[0])


def _forward_pending(worker: WorkerProcess, signals: Sequence[int]) -> None:
    """Forward a signal that was received while the worker started."""
    if signals:
        worker.process.send_signal(signals[0])


@contextmanager
def _forward_signals(workers: Sequence[WorkerProcess]) -> Iterator[list[int]]:
    """In the block, forward signals to the workers; yields the received ones. An error in the block terminates the workers."""
    received: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if len(received) >= 3:
            action = "workers are killed"
        elif len(received) == 2 and number == signal.SIGINT:
            action = "workers stop at once"
        elif len(received) == 2:
            action = "workers finish their step and write a checkpoint (a third signal kills them)"
        else:
            action = "workers finish their step and write a checkpoint (Ctrl-C: stop at once)"
        os.write(2, f"{signal.Signals(number).name}: stopping; {action}\n".encode())
        for worker in workers:
            if worker.process.poll() is None:
                worker.process.send_signal(number if len(received) < 3 else signal.SIGKILL)

    handlers = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    except BaseException:
        _terminate(workers)
        raise
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _terminate(workers: Sequence[WorkerProcess]) -> None:
    """Send SIGTERM to the running workers, and wait until they have written a checkpoint and ended."""
    running = [worker.process for worker in workers if worker.process.poll() is None]
    for process in running:
        process.terminate()
    for process in running:
        process.wait()


def _exit_reason(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
