"""One owner a run: the process that may write its folder."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from fr_ps.errors import InputError
from fr_ps.files import translate_write_errors
from fr_ps.json_files import NonNegativeInt, parse_json

_LOCK_FILE = "owner.lock"
_lock_fds: set[int] = set()


@dataclass(frozen=True)
class _LockHolder:
    """The process that has the lock; the content of its file."""

    pid: NonNegativeInt
    host: str


def _close_inherited_locks() -> None:
    """In a forked child: close the locks of its parent, which it would hold on to after the death of that."""
    while _lock_fds:
        os.close(_lock_fds.pop())


os.register_at_fork(after_in_child=_close_inherited_locks)


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Own the run in `folder` for the block. The system frees the lock of a process that dies, however it dies.

    Raises:
        InputError: a living process owns it, or the folder cannot be written.
    """
    path = folder / _LOCK_FILE
    with translate_write_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    _lock_fds.add(file)
    try:
        if not _try_lock(file):
            raise InputError(
                f"run {folder.name}: process {_describe_holder(file)} is running it; stop that one first, or wait until it ends"
            )
        with translate_write_errors(path):
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps(asdict(_LockHolder(os.getpid(), socket.gethostname()))).encode(), 0)
        yield
    finally:
        if file in _lock_fds:
            _lock_fds.remove(file)
            os.close(file)


def _try_lock(fd: int) -> bool:
    """Whether the lock could be had; who only looks whether a run is owned holds it for a moment, too."""
    for _ in range(10):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.1)
    return False


def is_locked(folder: Path) -> bool:
    """Whether a living process owns the run in `folder`."""
    try:
        file = os.open(folder / _LOCK_FILE, os.O_RDONLY)
    except OSError:  # whoever owns the run has opened it
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def _describe_holder(fd: int) -> str:
    try:
        owner = parse_json(os.pread(fd, 1000, 0), _LockHolder, _LOCK_FILE, "start the run again")
        return f"{owner.pid} on {owner.host}"
    except InputError:
        return "of another user"
