"""Locks of folders between processes. The system releases the lock of a process that dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fr_ps.files import translate_write_errors

LOCK_FILE = ".lock"


@contextmanager
def dir_lock(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on `folder` itself, so that no lock file appears in a user's folder. Waits for other processes."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def file_lock(folder: Path) -> Iterator[None]:
    """Create `folder` and hold an exclusive lock on its file `.lock`. Waits for other processes."""
    with translate_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK_FILE).open("a")  # mode "a" does not truncate a user's file of that name
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
