"""SIGINT and SIGTERM during a training: finish the step, write a checkpoint, exit."""

import os
import signal
import threading
from contextlib import suppress
from types import FrameType
from typing import Any


class StopRequested(Exception):
    """A signal asked the training to stop."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number

    def exit_exception(self) -> BaseException:
        """The exception to raise once everything is on disk: KeyboardInterrupt, or SystemExit(143) for SIGTERM."""
        return KeyboardInterrupt() if self.signal_number == signal.SIGINT else SystemExit(128 + self.signal_number)


class GracefulStop:
    """In its block, the first SIGINT or SIGTERM is stored until `check`, or until the block ends; a second SIGINT stops at once.

    Outside the main thread, where Python handles no signals, it does nothing.
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

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, before in self._previous_handlers.items():
            signal.signal(number, before)
        # A signal after the last `check`, as while a pruner ends the trial, must not be lost.
        if self.signal_number and not self._was_raised and (kind is None or issubclass(kind, Exception)):
            signal.raise_signal(self.signal_number)

    def check(self, _items: int = 0) -> None:
        """Raise if a signal came; called where the training can stop. Its signature is that of `OnProgress`.

        Raises:
            StopRequested: a signal came.
        """
        if self.signal_number:
            self._was_raised = True
            raise StopRequested(self.signal_number)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.signal_number and number == signal.SIGINT:
            self._was_raised = True
            raise KeyboardInterrupt
        self.signal_number = self.signal_number or number
        name = signal.Signals(number).name
        # os.write, because the signal may interrupt a print, and a nested print raises RuntimeError.
        with suppress(OSError):
            os.write(2, f"{name}: finishing the step and writing a checkpoint (Ctrl-C stops at once)\n".encode())
