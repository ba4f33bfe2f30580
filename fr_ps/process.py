"""How a process of ours ends: what it met, as a line for the user and an exit code. What it prints holds no secret."""

import logging
import signal
import sys
from collections.abc import Callable
from types import FrameType

from fr_ps.errors import InputError
from fr_ps.redaction import RedactedStream


def exit_code(main: Callable[[], object]) -> int:
    """Call `main`; returns the exit code: 0, 2 (bad input), 130 (SIGINT).

    A fault of ours leaves as an exception (exit code 1, with its traceback), SIGTERM as SystemExit(143). From here on, the
    process redacts its standard output and standard error, tracebacks and log messages of libraries included.
    """
    signal.signal(signal.SIGTERM, _terminate)
    _redact_output()
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped by SIGINT", file=sys.stderr)
        return 130
    return 0


def _redact_output() -> None:
    """Redact the two standard streams, and what log handlers of libraries imported before write to them."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, RedactedStream):
            continue
        redacted = RedactedStream(stream)
        setattr(sys, name, redacted)
        loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
        for handler in {handler for logger in loggers for handler in logger.handlers}:
            if isinstance(handler, logging.StreamHandler) and handler.stream is stream:
                handler.setStream(redacted)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(143)
