"""Atomic writes (temporary name, fsync, rename), and checked reads, with errors in one line."""

import errno
import io
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fr_ps.errors import DiskFullError, InputError, one_line

TEMP_PREFIX = ".partial-"
_STALE_TEMP = f"{TEMP_PREFIX}{8 * '[0-9a-f]'}-*"
_MAX_NAME_BYTES = 255
"""Bytes of a name in the usual file systems."""
_NOT_PLAIN = re.compile(r"\A\.|[/\\:\x00-\x1f\x7f-\x9f]")
"""A leading dot, a separator, or a control character (Unicode category Cc)."""
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
    errno.ENOENT,  # the folder was removed in the meantime
)


def sync_folder(folder: Path) -> None:
    """Flush the entries of `folder` to disk, but not the contents of its files."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(file: IO[Any]) -> None:
    """Flush the open `file` to disk."""
    file.flush()
    os.fsync(file.fileno())


def _temp_path(final: Path) -> Path:
    """A new temporary path beside `final`; contains its name, shortened to the longest allowed length."""
    start = f"{TEMP_PREFIX}{uuid.uuid4().hex[:8]}-"
    return final.with_name(start + os.fsencode(final.name)[: _MAX_NAME_BYTES - len(start)].decode(errors="ignore"))


@contextmanager
def translate_write_errors(where: Path) -> Iterator[None]:
    """Convert an OSError of a full disk or of an unwritable folder to an `InputError` that names `where`."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise DiskFullError(
                f"{where}: the disk is full; free some space and run again (fr-ps train continues with --resume)"
            ) from None
        if error.errno in _NOT_WRITABLE_ERRNOS:
            raise InputError(f"{where}: cannot be written ({error.strerror}); choose another place") from None
        raise


def write_atomic(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call `write` with a temporary binary file, which then replaces `path`.

    Raises:
        InputError: the disk is full, or the folder cannot be written.
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
    """Check that the disk of `folder`, which is created if needed, has `needed` free bytes.

    Raises:
        InputError: it has fewer.
    """
    with translate_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFullError(
            f"{folder}: {needed / 1e6:.1f} MB needed, but the disk has {free / 1e6:.1f} MB left; free some space and run again "
            "(fr-ps train continues with --resume)"
        )


def write_text(path: Path, text: str) -> None:
    """`write_atomic` for text in UTF-8."""
    write_atomic(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """`write_atomic` for JSON. NaN and infinity raise ValueError, as they are not JSON."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def is_file(path: Path) -> bool:
    """Whether `path` is a file or a link to one; False on errors, as for a name that is too long."""
    try:
        return path.is_file()
    except OSError:
        return False


def read_bytes(path: Path, max_bytes: int, remedy: str) -> bytes:
    """Read the regular file `path`.

    Raises:
        InputError: the file is missing, unreadable or larger than `max_bytes`. The message ends with `remedy`.
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
        raise InputError(f"{path}: larger than {max_bytes / 1e6:g} MB; {remedy}")
    return content


@contextmanager
def atomic_folder(final: Path) -> Iterator[Path]:
    """Yield an empty temporary folder, which replaces `final` when the block ends without an error.

    The caller's block must sync the files that it writes.

    Raises:
        InputError: the disk is full, or the folder cannot be written, by this function or by the block.
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


def remove_stale_temp(folder: Path) -> None:
    """Remove temporary files of killed processes, up to two levels below `folder`. No other process may write there."""
    for stale in [*folder.glob(_STALE_TEMP), *folder.glob(f"*/{_STALE_TEMP}")]:
        if stale.is_dir():
            shutil.rmtree(stale, ignore_errors=True)
        else:
            stale.unlink(missing_ok=True)


def open_regular(path: Path) -> io.BufferedReader:
    """Open the regular file `path` for reading. Reading a FIFO or a device could block for ever.

    Raises:
        InputError: it is not a regular file.
        OSError: as `open`.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise InputError(f"{path}: not a regular file; expected a file that can be read to its end")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def check_regular_file(path: Path) -> None:
    """Raise the errors of `open_regular`, before a library opens `path` itself."""
    open_regular(path).close()


def is_plain_name(name: str) -> bool:
    """Whether `name` is safe as one component of a path: not empty, no leading dot, no separator, no control character."""
    return bool(name) and not _NOT_PLAIN.search(name)


def check_path_component(name: str, where: str) -> str:
    """Return `name` if it is safe as one component of a path, so that no path from a table leaves its root.

    Raises:
        InputError: empty, hidden, `..`, or with a separator or a control character. The message begins with `where`.
    """
    if not is_plain_name(name):
        raise InputError(f"{where}: {name!r} is not a plain name (no separators, no leading dot); rename it")
    return name
