"""Progress of long work: a bar with rate and time left in a terminal; elsewhere a plain line every 10 seconds."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

OnProgress = Callable[[int], None]
"""Called with how many more items are done."""

_SECONDS_BETWEEN_LINES = 10.0


def echo(line: str, stream: TextIO | None = None) -> None:
    """Print a line to `stream` (None: standard output). A reader who is gone, as with `| tee` after Ctrl-C, ends nothing."""
    stream = stream or sys.stdout
    try:
        print(line, file=stream, flush=True)
    except (OSError, ValueError):
        with suppress(OSError, ValueError):  # else the interpreter's own last flush says so, with an exit code of its own
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def no_progress(_items: int) -> None:
    """An `Advance` that shows nothing."""


@contextmanager
def progress(label: str, total: int, unit: str) -> Iterator[OnProgress]:
    """Show on standard error how far `total` items have come; yields what to call with each advance."""
    with _bar(label, total, unit) if sys.stderr.isatty() else _lines(label, total, unit) as advance:
        yield advance


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
