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

_COMMAND = [sys.executable, "-m", "fr_ps.search.trials.worker"]
_LOOK = 0.5
_DEATHS = 3
"""Of one worker in a row, within which nothing ended, after which it is not replaced."""
Order = Mapping[str, Any]


class Worker:
    """A process of a worker; what it prints goes to a file.

    Args:
        log: that file, to which is appended.
        order: what it is to do.
    """

    def __init__(self, log: Path, order: Order) -> None:
        self.log, self.order, self.deaths = log, order, 0
        self.process = self._started()

    def _started(self) -> subprocess.Popen[str]:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        threads = {"OMP_NUM_THREADS": str(self.order["threads"])} if self.order.get("threads") else {}
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
        process.stdin.write(json.dumps(self.order) + "\n")
        process.stdin.flush()  # and it stays open: when it ends, so does the worker
        return process

    def replace(self) -> None:
        """Start it again after its death."""
        self.deaths += 1
        self.process = self._started()

    @property
    def last_words(self) -> str:
        """The last line of its log."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("error: ") if lines else "it said nothing"


def work(orders: Mapping[Path, Order], ended: Callable[[], int], lost: Callable[[str], None]) -> None:
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
    left, done = list[Worker](), ended()
    # Begun before the workers are: where a shell's background has SIGINT ignored, they would start with that.
    with _passing_on(left) as signals:
        for log, order in orders.items():
            left.append(Worker(log, order))
            _tell_new(left[-1], signals)
        while left:
            time.sleep(_LOOK)
            now = ended()
            if now != done:
                done = now
                for worker in left:
                    worker.deaths = 0
            for worker in [one for one in left if one.process.poll() is not None]:
                code = worker.process.returncode
                if code == 0 or signals or code in (130, 143):
                    left.remove(worker)
                elif code == 2 or worker.deaths >= _DEATHS:
                    _stop(left)
                    raise InputError(f"a worker ended: {worker.last_words} (all of it in {worker.log})")
                else:
                    lost(f"a worker died ({_how(code)}) and is replaced; its words are in {worker.log}")
                    worker.replace()
                    _tell_new(worker, signals)
        ended()
    if signals:
        raise KeyboardInterrupt if signals[0] == signal.SIGINT else SystemExit(128 + signals[0])


def _tell_new(worker: Worker, signals: Sequence[int]) -> None:
    """Give it the signal that came while it was being started, and found nobody there to be given to."""
    if signals:
        worker.process.send_signal(signals[0])


@contextmanager
def _passing_on(workers: Sequence[Worker]) -> Iterator[list[int]]:
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
        _stop(workers)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(workers: Sequence[Worker]) -> None:
    """End all that still run, after a checkpoint, and wait for them."""
    running = [worker.process for worker in workers if worker.process.poll() is None]
    for process in running:
        process.terminate()
    for process in running:
        process.wait()


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
