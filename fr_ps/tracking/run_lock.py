"""The lock of a run folder: only one process at a time writes to a run."""

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
    """Content of the lock file: the process that holds the lock."""

    pid: NonNegativeInt
    host: str


def _close_inherited_locks() -> None:
    """Close the parent's lock files in a forked child, which would otherwise hold the locks after the parent has ended."""
    while _lock_fds:
        os.close(_lock_fds.pop())


os.register_at_fork(after_in_child=_close_inherited_locks)


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of the run in `folder` for the block. The system releases it when the process dies.

    Raises:
        InputError: another process holds the lock, or the folder cannot be written.
    """
    path = folder / _LOCK_FILE
    with translate_write_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    _lock_fds.add(fd)
    try:
        if not _try_lock(fd):
            raise InputError(f"run {folder.name} is locked by {_describe_holder(fd)}; stop that process or wait until it ends")
        with translate_write_errors(path):
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps(asdict(_LockHolder(os.getpid(), socket.gethostname()))).encode(), 0)
        yield
    finally:
        if fd in _lock_fds:  # not in a forked child, which has closed it
            _lock_fds.remove(fd)
            os.close(fd)


def _try_lock(fd: int) -> bool:
    """Lock `fd`; retries for one second, as `is_locked` in another process locks the file for a moment."""
    for _ in range(10):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.1)
    return False


def is_locked(folder: Path) -> bool:
    """Whether a living process holds the lock of the run in `folder`."""
    try:
        fd = os.open(folder / _LOCK_FILE, os.O_RDONLY)
    except OSError:  # without a lock file there is no holder
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _describe_holder(fd: int) -> str:
    try:
        holder = parse_json(os.pread(fd, 1000, 0), _LockHolder, _LOCK_FILE, "start the run again")
        return f"process {holder.pid} on {holder.host}"
    except InputError:
        return "a process of another user"
