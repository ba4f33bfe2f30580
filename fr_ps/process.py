"""Entry point of the command line and of worker processes: exit codes, errors in one line, and redacted output."""

import errno
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import FrameType

from fr_ps.errors import InputError
from fr_ps.redaction import RedactedStream

_SYSTEM_ERRORS = {
    errno.ENAMETOOLONG: "use a shorter name",
    errno.ELOOP: "remove the link that leads back to itself",
    errno.EACCES: "make it accessible, or choose another place",
    errno.EPERM: "make it accessible, or choose another place",
    errno.EROFS: "choose another place",
    errno.ENOSPC: "free some space and run again",
    errno.EDQUOT: "free some space and run again",
    errno.EIO: "check the disk and run again",
    errno.ESTALE: "check the network disk and run again",
}
"""Errors caused by the environment, on any path: errno to remedy."""
_USER_PATH_ERRORS = {
    errno.ENOENT: "check the name",
    errno.EISDIR: "name a file",
    errno.ENOTDIR: "name a folder",
    errno.ENXIO: "name a regular file",
}
"""Errors that are bad input if the user named the path, else internal errors: errno to remedy."""
_SYMLINK_LOOP = "Symlink loop from "
"""Start of the RuntimeError of `Path.resolve`."""
_MAX_SHOWN, _MAX_PATH = 200, 4096


def run_main(main: Callable[[], object], user_texts: Sequence[str] = ()) -> int:
    """Call `main`; returns the exit code: 0, 2 (bad input), 130 (SIGINT).

    From this call on, standard output and standard error are redacted (secrets in URLs are masked, see `fr_ps.redaction`),
    including tracebacks and log messages of libraries, except inside `unredacted_output`. An OSError counts as bad input if it
    concerns a path that the user named, or if its cause is the environment, as a full disk.

    Args:
        main: function to run.
        user_texts: strings of the command line, among them its paths. They are read after `main`, which may add them.

    Raises:
        SystemExit: 143, after SIGTERM.
        Exception: an internal error of `main`; the process ends with exit code 1 and a traceback.
    """
    signal.signal(signal.SIGTERM, _exit_on_sigterm)
    _redact_output()
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped by SIGINT", file=sys.stderr)
        return 130
    except (OSError, RuntimeError) as error:
        message = _path_error(error, user_texts)
        if not message:
            raise
        print(f"error: {message}", file=sys.stderr)
        return 2
    return 0


@contextmanager
def unredacted_output() -> Iterator[None]:
    """Use the standard output without redaction, for help and the user's own settings."""
    stream = sys.stdout
    with redirect_stdout(stream.stream if isinstance(stream, RedactedStream) else stream):
        yield


def _path_error(error: OSError | RuntimeError, user_texts: Sequence[str]) -> str:
    """The message for an error that is bad input; empty for an internal error."""
    if not isinstance(error, OSError):
        message = str(error)
        if not message.startswith(_SYMLINK_LOOP):
            return ""
        return f"{message.removeprefix(_SYMLINK_LOOP)}: {_SYSTEM_ERRORS[errno.ELOOP]}"
    if not isinstance(error.filename, (str, bytes, os.PathLike)) or error.errno is None:
        return ""
    path = os.fsdecode(error.filename)
    remedy = _SYSTEM_ERRORS.get(error.errno) or (_USER_PATH_ERRORS.get(error.errno) if _is_user_path(path, user_texts) else None)
    shown = path if len(path) <= _MAX_SHOWN else f"{path[:_MAX_SHOWN]}..."
    return f"{shown}: {error.strerror}; {remedy}" if remedy else ""


def _is_user_path(path: str, user_texts: Sequence[str]) -> bool:
    """Whether `user_texts` contain `path`, a path below it, or a file that `path` uses as a folder."""
    absolute = Path(path).absolute()
    paths = [Path(text).absolute() for text in user_texts if text and len(text) < _MAX_PATH and "\0" not in text]
    return any(one.is_relative_to(absolute) or (absolute.is_relative_to(one) and one.is_file()) for one in paths)


def _redact_output() -> None:
    """Redact both standard streams, also for existing log handlers of libraries."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or isinstance(stream, RedactedStream):  # None: the shell closed it, as `fr-ps runs >&-`
            continue
        redacted = RedactedStream(stream)
        setattr(sys, name, redacted)
        loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
        for handler in {handler for logger in loggers for handler in logger.handlers}:
            if isinstance(handler, logging.StreamHandler) and handler.stream is stream:
                handler.setStream(redacted)


def _exit_on_sigterm(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(143)
