"""Processes of workers: started, watched, replaced when they die, and stopped together."""

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

_COMMAND = [sys.executable, "-m", "fr_ps.search.worker"]
_POLL_SECONDS = 0.5
_MAX_CRASHES = 3
"""Of one worker in a row, within which nothing ended, after which it is not replaced."""
Job = Mapping[str, Any]


class WorkerProcess:
    """A process of a worker; what it prints goes to a file.

    Args:
        log: that file, to which is appended.
        order: what it is to do.
    """

    def __init__(self, log: Path, job: Job) -> None:
        self.log, self.job, self.crashes = log, job, 0
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
                start_new_session=True,  # Ctrl-C in the terminal comes to the launcher, which passes it on
            )
        assert process.stdin is not None
        process.stdin.write(json.dumps(self.job) + "\n")
        process.stdin.flush()  # and it stays open: when it ends, so does the worker
        return process

    def restart(self) -> None:
        """Start it again after its death."""
        self.crashes += 1
        self.process = self._start()

    @property
    def last_log_line(self) -> str:
        """The last line of its log."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("error: ") if lines else "it said nothing"


def run_workers(jobs: Mapping[Path, Job], count_finished: Callable[[], int], on_crash: Callable[[str], None]) -> None:
    """Start a worker for each order, wait until all have ended, and replace those that die.

    Signals are passed on to them: by the first SIGINT or SIGTERM they finish their step and write a checkpoint, by a further
    SIGINT they stop at once.

    Args:
        orders: file for what a worker prints to what it is to do.
        ended: called again and again; how much has come to an end so far.
        lost: called with a line where a worker died.

    Raises:
        InputError: a worker met bad input, or died again and again.
        KeyboardInterrupt, SystemExit: a signal came; all workers have ended.
    """
    left, done = list[WorkerProcess](), count_finished()
    # Begun before the workers are: where a shell's background has SIGINT ignored, they would start with that.
    with _forward_signals(left) as signals:
        for log, order in jobs.items():
            left.append(WorkerProcess(log, order))
            _forward_pending(left[-1], signals)
        while left:
            time.sleep(_POLL_SECONDS)
            now = count_finished()
            if now != done:
                done = now
                for worker in left:
                    worker.crashes = 0
            for worker in [one for one in left if one.process.poll() is not None]:
                code = worker.process.returncode
                if code == 0 or signals or code in (130, 143):
                    left.remove(worker)
                elif code == 2 or worker.crashes >= _MAX_CRASHES:
                    _terminate(left)
                    raise InputError(f"a worker ended: {worker.last_log_line} (all of it in {worker.log})")
                else:
                    on_crash(f"a worker died ({_exit_reason(code)}) and is replaced; its words are in {worker.log}")
                    worker.restart()
                    _forward_pending(worker, signals)
        count_finished()
    if signals:
        raise KeyboardInterrupt if signals[0] == signal.SIGINT else SystemExit(128 + signals[0])


def _forward_pending(worker: WorkerProcess, signals: Sequence[int]) -> None:
    """Give it the signal that came while it was being started, and found nobody there to be given to."""
    if signals:
        worker.process.send_signal(signals[0])


@contextmanager
def _forward_signals(workers: Sequence[WorkerProcess]) -> Iterator[list[int]]:
    """In the block signals go on to the workers; yields those that came. If the block ends by an error, the workers end."""
    came: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        words = "stopping: workers finish their step and write a checkpoint (Ctrl-C: at once)"
        os.write(2, f"{signal.Signals(number).name}: {words if len(came) == 1 else 'stopping at once'}\n".encode())
        for worker in workers:
            if worker.process.poll() is None:
                worker.process.send_signal(number if len(came) < 3 else signal.SIGKILL)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    except BaseException:
        _terminate(workers)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminate(workers: Sequence[WorkerProcess]) -> None:
    """End all that still run, after a checkpoint, and wait for them."""
    running = [worker.process for worker in workers if worker.process.poll() is None]
    for process in running:
        process.terminate()
    for process in running:
        process.wait()


def _exit_reason(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
