"""Output for the user: lines, and progress (a bar in a terminal, otherwise a line every 10 seconds)."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

OnProgress = Callable[[int], None]
"""Called with the number of items done since the previous call."""
Echo = Callable[[str], None]
"""Prints a line for the user."""

_SECONDS_BETWEEN_LINES = 10.0


def echo(line: str, stream: TextIO | None = None) -> None:
    """Print a line to `stream` (None: standard output). A closed pipe, as of `| tee` after Ctrl-C, raises nothing."""
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


def no_progress(_items: int) -> None:
    """An `OnProgress` that shows nothing."""


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
        TextColumn(f"{{task.fields[rate]}} {unit}/s", markup=False),
        TimeRemainingColumn(),
    ]
    started = time.perf_counter()
    done = 0
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total, rate="-")

        def advance(items: int) -> None:
            nonlocal done
            done += items
            bar.update(task, advance=items, rate=f"{done / max(time.perf_counter() - started, 1e-9):.1f}")

        yield advance


@contextmanager
def _lines(label: str, total: int, unit: str) -> Iterator[OnProgress]:
    started = last = time.perf_counter()
    done = 0

    def advance(items: int) -> None:
        nonlocal done, last
        done += items
        now = time.perf_counter()
        if now - last < _SECONDS_BETWEEN_LINES and (done < total or last == started):
            return
        last = now
        rate = done / max(now - started, 1e-9)
        left = f", {(total - done) / rate:.0f} s left" if 0 < done < total else ""
        echo(f"{label}: {done}/{total} {unit}, {rate:.1f} {unit}/s{left}", sys.stderr)

    yield advance
