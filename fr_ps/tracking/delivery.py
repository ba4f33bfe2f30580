"""From a growing journal to MLflow, in the background."""

import threading
import time
from collections.abc import Callable

from fr_ps.errors import one_line
from fr_ps.tracking.journal import Journal
from fr_ps.tracking.outbox import Outbox, Store

_GATHER = 1.0
_FIRST_PAUSE, _LONGEST_PAUSE, _CLOSING_PAUSE = 1.0, 60.0, 2.0


class Delivery(threading.Thread):
    """Carries a growing journal to MLflow; whatever happens there, only this thread waits.

    Args:
        journal: that grows.
        outbox: of that journal.
        store: where to.
        connected: called with the run's id in MLflow once it has one.
        say: called with a line when delivery stops working, and when it works again.
    """

    def __init__(
        self, journal: Journal, outbox: Outbox, store: Store, connected: Callable[[str], None], say: Callable[[str], None]
    ) -> None:
        super().__init__(name="delivery", daemon=True)  # a call that hangs must not keep the process
        self.journal, self.outbox, self.store, self.connected, self.say = journal, outbox, store, connected, say
        self.trouble = ""
        self._closing = threading.Event()
        self._given_up = False

    def run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._given_up:
            closing = self._closing.is_set()  # asked before the last look, so that nothing is told between the two
            if not self.journal.is_present():  # which ends the run; sending would make its folder again
                return
            try:
                # What MLflow has must never be more than what a power cut leaves of the journal.
                size = self.journal.sync()
                sent = self.outbox.deliver(self.store, size)
            except Exception as error:  # whatever it is, it is no reason to end a training
                if not self.trouble:
                    self._tell(
                        f"tracking: MLflow does not take it ({one_line(error)}); the run goes on, and what it tells is kept"
                    )
                self.trouble = one_line(error)
                self._closing.wait(pause) if not self._closing.is_set() else time.sleep(_CLOSING_PAUSE)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            pause = _FIRST_PAUSE
            if sent:
                self.connected(self.store.connect())
                if self.trouble:
                    self._tell("tracking: MLflow takes it again")
                self.trouble = ""
            elif closing:
                return
            else:
                self.journal.wait(self.outbox.done, 3600.0)
            if self.outbox.done >= size:
                self._closing.wait(_GATHER)  # so that what is told step by step goes together

    def _tell(self, line: str) -> None:
        if not self._given_up:  # the end of the run was told, and a call that hung until after it adds nothing
            self.say(line)

    def finish(self, seconds: float) -> bool:
        """Wait for what is left, at most so many seconds after the last acknowledgement; whether all was taken."""
        self._closing.set()
        self.journal.wake()
        done, since = self.outbox.done, time.monotonic()
        while self.is_alive() and time.monotonic() - since < seconds:
            self.join(0.1)
            if self.outbox.done != done:
                done, since = self.outbox.done, time.monotonic()
        return not self.is_alive() and self.outbox.done >= self.journal.size

    def give_up(self) -> None:
        """Try nothing again, and say nothing more."""
        self._given_up = True
