"""SIGINT and SIGTERM during a training: finish the step, write a checkpoint, exit."""

import os
import signal
import threading
from contextlib import suppress
from types import FrameType
from typing import Any

from fr_ps.distributed import any_process, world_size


class StopRequested(Exception):
    """A signal asked the training to stop."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number

    def exit_exception(self) -> BaseException:
        """The exception to raise once everything is on disk: KeyboardInterrupt, or SystemExit(143) for SIGTERM."""
        return KeyboardInterrupt() if self.signal_number == signal.SIGINT else SystemExit(128 + self.signal_number)


class GracefulStop:
    """Within its `with` block, the first SIGINT or SIGTERM waits for `check` or the end of the block; a later SIGINT does not.

    Outside the main thread it does nothing, because Python handles signals in the main thread only.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self._was_raised = False
        self._previous_handlers: dict[int, Any] = {}

    def __enter__(self) -> "GracefulStop":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) != signal.SIG_IGN:  # a shell's background jobs ignore SIGINT
                    self._previous_handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        for number, before in self._previous_handlers.items():
            signal.signal(number, before)
        # A signal after the last `check`, for example while the pruner ends a trial, must not be lost.
        if self.signal_number and not self._was_raised and (error is None or issubclass(error, Exception)):
            signal.raise_signal(self.signal_number)

    def check(self) -> None:
        """Raise if a signal came to any process of the training. Called by all of them at the same points, where they can stop.

        Raises:
            StopRequested: a signal came.
        """
        if number := any_process(self.signal_number):
            self._was_raised = True
            raise StopRequested(number)

    def check_if_single_process(self, _items: float = 0) -> None:
        """`check` if the training has one process; nothing with several, as they do not reach this point together.

        Usable as an `OnProgress`.
        """
        if world_size() == 1:
            self.check()

    def acknowledge(self) -> None:
        """Ignore a signal that came or comes within the block (except a second SIGINT), because the training ends anyway.

        SIGTERM is ignored even after the block: torchrun sends it soon after a process has ended, while this process still has to
        record the end of the run.
        """
        self._was_raised = True
        if self._previous_handlers.pop(signal.SIGTERM, None) is not None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.signal_number and number == signal.SIGINT:
            self._was_raised = True
            raise KeyboardInterrupt
        self.signal_number = self.signal_number or number
        name = signal.Signals(number).name
        # os.write, because the signal may interrupt a print, and a nested print raises RuntimeError.
        with suppress(OSError):
            os.write(2, f"{name}: finishing the step and writing a checkpoint (Ctrl-C stops at once)\n".encode())
