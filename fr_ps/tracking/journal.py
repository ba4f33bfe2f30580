"""The journal of a run: each logged event is first appended to a file of the run folder."""

import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Any, Literal

from fr_ps.errors import InputError
from fr_ps.files import DISK_FULL_ERRNOS, sync_folder, translate_write_errors
from fr_ps.json_files import MAX_BYTES, Milliseconds, NonNegativeInt, parse_json
from fr_ps.redaction import redact_tree

JOURNAL_FILE = "journal.jsonl"
_RESERVE_FILE = ".reserve"
_RESERVE_BYTES = 1 << 16

EventKind = Literal["params", "tags", "metrics", "dataset", "artifact", "model", "status", "elsewhere"]
RunStatus = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
"""MLflow's names."""


@dataclass(frozen=True)
class Event:
    """One logged event.

    Attributes:
        kind: type of the event.
        time: milliseconds since 1970. Metrics have it as their timestamp in MLflow, which ignores a point that it already has.
        data: content, as JSON.
    """

    kind: EventKind
    time: Milliseconds
    data: dict[str, Any]


@dataclass(frozen=True)
class _Metrics:
    step: NonNegativeInt
    values: dict[str, float]


@dataclass(frozen=True)
class _Dataset:
    name: str
    source: str
    digest: str
    profile: dict[str, NonNegativeInt]
    context: str


@dataclass(frozen=True)
class _Artifact:
    path: str
    folder: str


@dataclass(frozen=True)
class _Model:
    path: str
    name: str
    step: NonNegativeInt


@dataclass(frozen=True)
class _Status:
    status: RunStatus


@dataclass(frozen=True)
class _OtherRunTags:
    run: str
    tags: dict[str, str]


_DATA_TYPES: dict[EventKind, Any] = {
    "params": dict[str, str],
    "tags": dict[str, str],
    "metrics": _Metrics,
    "dataset": _Dataset,
    "artifact": _Artifact,
    "model": _Model,
    "status": _Status,
    "elsewhere": _OtherRunTags,
}
"""Kind of an event to the type of its data."""
_LINE_TYPES = {kind: make_dataclass("_Line", [("data", data)]) for kind, data in _DATA_TYPES.items()}
"""Kind of an event to a dataclass with the single field `data`, whose type is the one in `_DATA_TYPES`. `_event` checks
each line twice: against `Event`, then against the dataclass of the event's kind (argument `refine` of `parse_json`)."""


class Journal:
    """The file `journal.jsonl` of a run folder, open for appending: one line of JSON per event. Lines never change.

    Several threads may append, and other processes may read the growing file. Opening removes a last line that is incomplete or
    damaged, as a crash leaves it. On a full disk, a reserve file beside the journal is deleted to make room for the final status.

    Attributes:
        size: bytes of complete events.
        truncated_bytes: bytes of the incomplete last line that was removed.

    Raises:
        InputError: the folder cannot be written, or a line before the last is not an event.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL_FILE
        self.reserve = folder / _RESERVE_FILE
        self._writer = threading.Lock()
        self._changed = threading.Condition()
        self._wake_requested = False
        self._synced_bytes = 0
        with translate_write_errors(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            self.size = max((end for end, _ in read_events(self.path)), default=0)
            self.truncated_bytes = os.fstat(self._file).st_size - self.size
            with translate_write_errors(self.path):
                self.reserve.write_bytes(bytes(_RESERVE_BYTES))
                os.ftruncate(self._file, self.size)
                sync_folder(folder)
        except BaseException:
            self.close()
            raise

    def append(self, kind: EventKind, data: dict[str, Any]) -> None:
        """Append an event with its secrets redacted. It survives a crash of the process, and after `sync` also a power cut.

        Raises:
            InputError: the disk is full, or the run folder was removed.
        """
        redacted = data if kind == "metrics" else redact_tree(data)
        line = (json.dumps({"kind": kind, "time": int(time.time() * 1000), "data": redacted}) + "\n").encode()
        with self._writer:
            self._append(kind, line)

    def _append(self, kind: EventKind, line: bytes) -> None:
        if not self.is_present():
            raise InputError(f"{self.path}: was removed or replaced during the run; start a new run")
        with translate_write_errors(self.path):
            try:
                self._write(line)
            except OSError as error:
                if error.errno not in DISK_FULL_ERRNOS or not self.reserve.exists():
                    raise
                self.reserve.unlink()
                if kind != "status":  # the failed write of this event ends the run, whose final status now has room
                    raise
                self._write(line)
        with self._changed:
            self.size += len(line)
            self._changed.notify_all()

    def is_present(self) -> bool:
        """Whether `path` is still the open file; False after the run folder was removed, renamed or replaced."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._file))
        except OSError:
            return False

    def _write(self, line: bytes) -> None:
        done = 0
        try:
            while done < len(line):
                done += os.write(self._file, line[done:])
        except OSError:
            os.ftruncate(self._file, self.size)
            raise

    def sync(self) -> int:
        """Flush all events to disk; returns their size in bytes."""
        size = self.size
        if size > self._synced_bytes:
            with translate_write_errors(self.path):
                os.fsync(self._file)
            self._synced_bytes = size
        return size

    def wait(self, size: int) -> None:
        """Wait until the journal has more than `size` bytes."""
        with self._changed:
            self._changed.wait_for(lambda: self.size > size or self._wake_requested)

    def wake(self) -> None:
        """Make the current and all later calls of `wait` return at once."""
        with self._changed:
            self._wake_requested = True
            self._changed.notify_all()

    def close(self) -> None:
        """Close the file and delete the reserve."""
        os.close(self._file)
        self.reserve.unlink(missing_ok=True)


def read_events(path: Path, start: int = 0) -> Iterator[tuple[int, Event]]:
    """The events of the journal `path` from byte `start` on, each with the byte at which it ends.

    An incomplete or damaged last line is skipped (another process is writing it, or a crash left it), and so is a damaged line
    directly before an incomplete last line.

    Raises:
        InputError: a line that is not an event has a complete line after it, or the file cannot be read.
    """
    end = start
    damage: InputError | None = None
    for line in _lines(path, start):
        if not line.endswith(b"\n") and len(line) <= MAX_BYTES:
            return
        if damage:  # of the line before, which is not the last one
            raise damage
        end += len(line)
        try:
            event = _event(line, f"{path}: the line that ends at byte {end} is damaged")
        except InputError as error:
            damage = error
        else:
            yield end, event


def _lines(path: Path, start: int) -> Iterator[bytes]:
    """The lines from byte `start` on; none if the file is missing. A line longer than `MAX_BYTES` is yielded in pieces."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            yield from iter(lambda: file.readline(MAX_BYTES + 1), b"")
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); restore it from a copy") from None


def _event(line: bytes, where: str) -> Event:
    """Parse the event in `line`. Metrics may be NaN or infinite, as in MLflow.

    Raises:
        InputError: the line is not an event; the message begins with `where`.
    """
    remedy = "to continue without it, remove it and the file delivered.json"
    return parse_json(line, Event, where, remedy, finite=False, refine=lambda event: _LINE_TYPES[event.kind])
