"""How a process of ours ends: what it met, as a line for the user and an exit code."""

import signal
import sys
from collections.abc import Callable
from types import FrameType

from fr_ps.errors import InputError


def exit_code(main: Callable[[], object]) -> int:
    """Call `main`; returns the exit code: 0, 2 (bad input), 130 (SIGINT).

    A fault of ours leaves as an exception (exit code 1, with its traceback), SIGTERM as SystemExit(143).
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped by SIGINT", file=sys.stderr)
        return 130
    return 0


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(143)
