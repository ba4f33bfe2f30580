"""From a growing journal to MLflow, in the background."""

import threading
import time
from collections.abc import Callable

from fr_ps.errors import one_line
from fr_ps.tracking.journal import Journal
from fr_ps.tracking.outbox import DeliveryQueue, EventSink

_BATCH_DELAY = 1.0
_MIN_BACKOFF, _MAX_BACKOFF, _CLOSING_BACKOFF = 1.0, 60.0, 2.0


class DeliveryThread(threading.Thread):
    """Carries a growing journal to MLflow; whatever happens there, only this thread waits.

    Args:
        journal: that grows.
        outbox: of that journal.
        store: where to.
        connected: called with the run's id in MLflow once it has one.
        say: called with a line when delivery stops working, and when it works again.
    """

    def __init__(
        self,
        journal: Journal,
        queue: DeliveryQueue,
        sink: EventSink,
        on_connect: Callable[[str], None],
        echo: Callable[[str], None],
    ) -> None:
        super().__init__(name="delivery", daemon=True)  # a call that hangs must not keep the process
        self.journal, self.queue, self.sink, self.on_connect, self.echo = journal, queue, sink, on_connect, echo
        self.last_error = ""
        self._closing = threading.Event()
        self._cancelled = False

    def run(self) -> None:
        pause = _MIN_BACKOFF
        while not self._cancelled:
            closing = self._closing.is_set()  # asked before the last look, so that nothing is told between the two
            if not self.journal.is_present():  # which ends the run; sending would make its folder again
                return
            try:
                # What MLflow has must never be more than what a power cut leaves of the journal.
                size = self.journal.sync()
                sent = self.queue.send_batch(self.sink, size)
            except Exception as error:  # whatever it is, it is no reason to end a training
                if not self.last_error:
                    self._report(
                        f"tracking: MLflow does not take it ({one_line(error)}); the run goes on, and what it tells is kept"
                    )
                self.last_error = one_line(error)
                self._closing.wait(pause) if not self._closing.is_set() else time.sleep(_CLOSING_BACKOFF)
                pause = min(2 * pause, _MAX_BACKOFF)
                continue
            pause = _MIN_BACKOFF
            if sent:
                self.on_connect(self.sink.connect())
                if self.last_error:
                    self._report("tracking: MLflow takes it again")
                self.last_error = ""
            elif closing:
                return
            else:
                self.journal.wait(self.queue.delivered_bytes, 3600.0)
            if self.queue.delivered_bytes >= size:
                self._closing.wait(_BATCH_DELAY)  # so that what is told step by step goes together

    def _report(self, line: str) -> None:
        if not self._cancelled:  # the end of the run was told, and a call that hung until after it adds nothing
            self.echo(line)

    def finish(self, timeout: float) -> bool:
        """Wait for what is left, at most so many seconds after the last acknowledgement; whether all was taken."""
        self._closing.set()
        self.journal.wake()
        done, since = self.queue.delivered_bytes, time.monotonic()
        while self.is_alive() and time.monotonic() - since < timeout:
            self.join(0.1)
            if self.queue.delivered_bytes != done:
                done, since = self.queue.delivered_bytes, time.monotonic()
        return not self.is_alive() and self.queue.delivered_bytes >= self.journal.size

    def cancel(self) -> None:
        """Try nothing again, and say nothing more."""
        self._cancelled = True
