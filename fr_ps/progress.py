"""Output for the user: lines, and progress (a bar in a terminal, otherwise a line every 10 seconds)."""

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

OnProgress = Callable[[float], None]
"""Called with the number of items done since the previous call; a part of a long item is a fraction."""
Echo = Callable[[str], None]
"""Prints a line for the user."""

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_POLLS = 0.5
_ROUNDING = 1e-6
"""Fractions of an item that add up to less than one by rounding still complete it."""


def echo(line: str, stream: TextIO | None = None) -> None:
    """Print a line to `stream` (None: standard output); only the main one of several processes does.

    A closed pipe, as of `| tee` after Ctrl-C, raises nothing.
    """
    if _is_silent_process():
        return
    stream = stream or sys.stdout
    try:
        print(line, file=stream, flush=True)
    except (OSError, ValueError):
        with suppress(OSError, ValueError):  # without this, the interpreter's flush at exit fails and changes the exit code
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, stream.fileno())
            os.close(devnull)


def no_progress(_items: float) -> None:
    """An `OnProgress` that shows nothing."""


@contextmanager
def share_progress(advance: OnProgress) -> Iterator["Synchronized[float]"]:
    """A number in shared memory, to which worker processes add the items they do; its growth is passed to `advance`."""
    done = multiprocessing.Value("d", 0.0)
    value = done.get_obj()  # is read without the lock, which a killed worker may hold for ever
    stopped = threading.Event()

    def poll() -> None:
        passed = 0.0
        while not stopped.wait(_SECONDS_BETWEEN_POLLS) or value.value > passed:
            now = value.value
            if now > passed:
                advance(now - passed)
            passed = now

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield done
    finally:
        stopped.set()
        thread.join()


@contextmanager
def progress(label: str, total: int, unit: str) -> Iterator[OnProgress]:
    """Show the progress over `total` items on standard error; yields a function to call with newly done items."""
    if _is_silent_process():
        yield no_progress
        return
    with _bar(label, total, unit) if sys.stderr.isatty() else _lines(label, total, unit) as advance:
        yield advance


def _is_silent_process() -> bool:
    """Whether torchrun started this process beside another one, which prints for all."""
    return os.environ.get("WORLD_SIZE", "1") not in ("", "1") and os.environ.get("RANK", "0") != "0"


@contextmanager
def _bar(label: str, total: int, unit: str) -> Iterator[OnProgress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(),
    ]
    started = time.perf_counter()
    done = 0.0
    # Lines printed meanwhile appear above the bar; those of a redirected standard output stay there.
    redirect = sys.stdout.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=redirect) as bar:
        task = bar.add_task(label, total=total, rate=f"- {unit}/s")

        def advance(items: float) -> None:
            nonlocal done
            done += items
            bar.update(task, completed=done + _ROUNDING, rate=_rate_text(done, time.perf_counter() - started, unit))

        yield advance


@contextmanager
def _lines(label: str, total: int, unit: str) -> Iterator[OnProgress]:
    started = last = time.perf_counter()
    done = 0.0

    def advance(items: float) -> None:
        nonlocal done, last
        done += items
        now = time.perf_counter()
        complete = done + _ROUNDING >= total
        if now - last < _SECONDS_BETWEEN_LINES and (not complete or last == started):
            return
        last = now
        left = "" if complete or not done else f", {(total - done) * (now - started) / done:.0f} s left"
        echo(f"{label}: {int(done + _ROUNDING)}/{total} {unit}, {_rate_text(done, now - started, unit)}{left}", sys.stderr)

    yield advance


def _rate_text(done: float, seconds: float, unit: str) -> str:
    """`12.5 sessions/s`; a rate below one as `9.0 s/session`."""
    rate = done / max(seconds, 1e-9)
    if not 0 < rate < 1:
        return f"{rate:.1f} {unit}/s"
    singular = unit.removesuffix("es") if unit.endswith("ches") else unit.removesuffix("s")
    return f"{1 / rate:.1f} s/{singular}"
