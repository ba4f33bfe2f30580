"""Writing that a crash or a full disk cannot leave half done: temporary name, sync, rename."""

import errno
import fcntl
import io
import json
import os
import shutil
import stat
import unicodedata
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from fr_ps.errors import DiskFullError, InputError, one_line

if TYPE_CHECKING:
    import numpy as np  # which takes as long to import as all else that --help needs

TEMP_PREFIX = ".partial-"
_STALE_TEMP = f"{TEMP_PREFIX}{8 * '[0-9a-f]'}-*"
_MAX_NAME_BYTES = 255
"""Bytes of a name in the usual file systems."""
LOCK_FILE = ".lock"
DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
_NOT_WRITABLE_ERRNOS = (
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENOTEMPTY,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,  # the folder was removed meanwhile
)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` (not the contents of its files) survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(file: IO[Any]) -> None:
    """Make what was written to the open `file` survive a power cut."""
    file.flush()
    os.fsync(file.fileno())


def _temp_path(final: Path) -> Path:
    """A new name beside `final`, with as much of its name as fits."""
    start = f"{TEMP_PREFIX}{uuid.uuid4().hex[:8]}-"
    return final.with_name(start + os.fsencode(final.name)[: _MAX_NAME_BYTES - len(start)].decode(errors="ignore"))


@contextmanager
def translate_write_errors(where: Path) -> Iterator[None]:
    """A full disk or a folder that may not be written, met in the block, becomes an `InputError` that names `where`.

    What was written whole before stays.
    """
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise DiskFullError(f"{where}: the disk is full; make room and run again (a training: with --resume)") from None
        if error.errno in _NOT_WRITABLE_ERRNOS:
            raise InputError(f"{where}: cannot be written ({error.strerror}); choose another place") from None
        raise


def write_atomic(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call `write` with a binary file that becomes `path` only when all of it is on disk.

    Raises:
        InputError: the disk is full, or the folder may not be written.
    """
    temporary = _temp_path(path)
    with translate_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                write(file)
                sync_file(file)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def check_free_space(folder: Path, needed: int) -> None:
    """Refuse to begin writing what will not fit on the disk of `folder`.

    Raises:
        InputError: fewer than `needed` bytes are free.
    """
    with translate_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFullError(
            f"{folder}: the disk has {free / 1e6:.1f} MB left, and {needed / 1e6:.1f} MB are to be written; make room and run "
            "again (a training: with --resume)"
        )


def write_text(path: Path, text: str) -> None:
    """`write_atomic` for text in UTF-8."""
    write_atomic(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """`write_atomic` for JSON; NaN and infinity are refused, as no other program reads them."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def is_file(path: Path) -> bool:
    """Whether `path` is a file or a link to one; False where that cannot be found out, as for a name that is too long."""
    try:
        return path.is_file()
    except OSError:
        return False


def read_bytes(path: Path, max_bytes: int, remedy: str) -> bytes:
    """The content of the regular file `path`, of at most `most` bytes.

    Raises:
        InputError: there is no such file, it cannot be read, or it is larger; ends with `remedy`.
    """
    try:
        with open_regular(path) as file:
            content = file.read(max_bytes + 1)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {remedy}") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = error.strerror if isinstance(error, OSError) else one_line(error)
        raise InputError(f"{path}: cannot be read ({reason}); {remedy}") from None
    if len(content) > max_bytes:
        raise InputError(f"{path}: is larger than {max_bytes / 1e6:g} MB; expected less; {remedy}")
    return content


@contextmanager
def atomic_folder(final: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `final` that takes its place, synced, when the block ends without an error.

    A folder that stands at `final` is replaced. The files inside must be synced by whoever writes them.

    Raises:
        InputError: the disk is full, or the folder may not be written, in the block as well.
    """
    temporary = _temp_path(final)
    with translate_write_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        try:
            yield temporary
            sync_folder(temporary)
            if final.exists():
                old = final.with_name(f"{TEMP_PREFIX}{uuid.uuid4().hex[:8]}-old")
                final.rename(old)
                temporary.rename(final)
                shutil.rmtree(old)
            else:
                temporary.rename(final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(final.parent)


@contextmanager
def dir_lock(folder: Path) -> Iterator[None]:
    """Wait until no other process is in here for `folder`; unlike `locked`, nothing is left in it, as it is the user's."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Wait until no other process is inside `locked` for `folder`; the system frees the lock of a process that dies."""
    with translate_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK_FILE).open("a")  # a file of that name that is not ours keeps its content
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def remove_stale_temp(folder: Path) -> None:
    """Remove what killed processes left unfinished up to two levels below `folder`; only while nobody else writes there."""
    for remains in [*folder.glob(_STALE_TEMP), *folder.glob(f"*/{_STALE_TEMP}")]:
        if remains.is_dir():
            shutil.rmtree(remains, ignore_errors=True)
        else:
            remains.unlink(missing_ok=True)


def write_array(path: Path, array: "np.ndarray") -> None:
    """Write `array` as .npy and sync it. Not atomic: for files inside `new_folder`."""
    with path.open("wb") as file:
        file.write(array_bytes(array))
        sync_file(file)


def array_bytes(array: "np.ndarray") -> bytes:
    """`array` as the content of a .npy file.

    numpy, writing to a file by itself, does not say that the disk is full, only that it wrote less.
    """
    import numpy as np

    stored = io.BytesIO()
    np.save(stored, array, allow_pickle=False)
    return stored.getvalue()


def open_regular(path: Path) -> io.BufferedReader:
    """The regular file `path`, open for reading. A FIFO or a device would wait for ever, or never end.

    Raises:
        InputError: it is something else than a regular file.
        OSError: as of `open`.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise InputError(f"{path}: is no regular file; expected a file that can be read to its end")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def check_regular_file(path: Path) -> None:
    """Refuse what `open_regular` refuses, for a library that opens `path` by itself.

    Raises:
        InputError: it is something else than a regular file.
        OSError: as of `open`.
    """
    open_regular(path).close()


def read_array(path: Path) -> "np.ndarray":
    """The array in the .npy file `path`; no object array, whose loading would run code.

    Raises:
        InputError: the file is missing, no regular file, truncated, no .npy, or holds Python objects.
    """
    from fr_ps.npy import NpyError, read_npy

    try:
        with open_regular(path) as file:
            return read_npy(file, os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run prepare again to write it") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions or copy it again") from None
    except (NpyError, MemoryError) as error:
        raise InputError(f"{path}: not a readable .npy file ({one_line(error)}); prepare or copy it again") from None


def check_path_component(name: str, where: str) -> str:
    """`name` if it is safe as one component of a path, so that no path from a table leaves its root.

    Raises:
        InputError: empty, hidden, `..`, or with a separator or a control character; names `where` it stands.
    """
    if not name or name.startswith(".") or any(c in "/\\:" or unicodedata.category(c) == "Cc" for c in name):
        raise InputError(f"{where}: {name!r} is not a plain name (no separators, no leading dot); rename it")
    return name
