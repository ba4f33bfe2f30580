"""Delivery of a run's journal to MLflow: the queue of undelivered events, and the thread that sends them in the background."""

import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from fr_ps.errors import InputError, one_line
from fr_ps.files import write_json
from fr_ps.json_files import NonNegativeInt, read_json
from fr_ps.progress import Echo
from fr_ps.tracking.journal import JOURNAL_FILE, Event, Journal, read_events

DELIVERED_FILE = "delivered.json"
_MAX_BATCH_ITEMS = 1000
_BATCH_ENDS = ("artifact", "model", "status")
"""Kinds of events that end a batch, so that they are acknowledged before the next events are sent. An upload is slow."""
_BATCH_DELAY = 1.0
_MIN_BACKOFF, _MAX_BACKOFF, _CLOSING_BACKOFF = 1.0, 60.0, 2.0


def failure_reason(error: BaseException) -> str:
    """Why MLflow failed, on one line: the cause of a failed connection, as `Connection refused`, or the message of `error`."""
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, (ConnectionError, socket.gaierror)) and cause.strerror:
            return str(cause.strerror)
        cause = cause.__cause__ or cause.__context__
    return str(error) if isinstance(error, InputError) else one_line(error)


@dataclass(frozen=True)
class _Delivered:
    """Content of `delivered.json`; see `DeliveryQueue`."""

    bytes: NonNegativeInt
    refused: list[str]


class EventSink(Protocol):
    """Receiver of a run's events."""

    def ensure_run(self) -> str:
        """Connect if not connected yet, and return the receiver's id of the run.

        Raises:
            Exception: any reason why the receiver does not answer.
        """

    def send(self, events: Sequence[Event]) -> list[str]:
        """Send events in their order. Sending an event twice has the same effect as once.

        Returns:
            The items that the receiver rejects for good, with the reasons.

        Raises:
            Exception: any other failure; the caller sends the same events again later.
        """


class DeliveryQueue:
    """The events of a run's journal that MLflow has not acknowledged.

    `delivered.json` stores the size of the acknowledged part. Without it all events are sent again; MLflow ignores duplicates.

    Attributes:
        delivered_bytes: size of the acknowledged part of the journal.
        rejected: items that MLflow rejects for good, with the reasons.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / DELIVERED_FILE
        self.journal_path = folder / JOURNAL_FILE
        self.delivered_bytes = 0
        self.rejected: list[str] = []
        try:
            found = read_json(self.path, _Delivered, "all events are sent again")
        except InputError:  # missing before the first delivery, or damaged
            return
        self.rejected = found.refused
        if self._is_line_end(found.bytes):
            self.delivered_bytes = found.bytes

    def _is_line_end(self, size: int) -> bool:
        """Whether a line ends after `size` bytes; if not, the user has edited the journal."""
        if size == 0:
            return False
        try:
            with self.journal_path.open("rb") as file:
                file.seek(size - 1)
                return file.read(1) == b"\n"
        except OSError:  # reading the events reports the reason
            return False

    def pending(self) -> int:
        """The number of events that are not acknowledged."""
        return sum(1 for _ in read_events(self.journal_path, self.delivered_bytes))

    def send_batch(self, sink: EventSink, max_bytes: int | None = None) -> int:
        """Send one batch and record its acknowledgement.

        Args:
            sink: receiver.
            max_bytes: only events in the first `max_bytes` of the journal are sent; None: no limit.

        Returns:
            The number of events of the batch; 0 if nothing is left.

        Raises:
            Exception: any failure of the sink; the next call sends the same batch again.
        """
        events: list[Event] = []
        items, end_of_batch = 0, self.delivered_bytes
        for end, event in read_events(self.journal_path, self.delivered_bytes):
            if max_bytes is not None and end > max_bytes:
                break
            events.append(event)
            end_of_batch = end
            items += len(event.data.get("values", event.data))  # metrics, params or tags
            if items >= _MAX_BATCH_ITEMS or event.kind in _BATCH_ENDS:
                break
        if not events:
            return 0
        sink.ensure_run()
        self.rejected += sink.send(events)
        self.delivered_bytes = end_of_batch
        if self.path.parent.is_dir():  # a removed run folder is not created again
            with suppress(InputError):  # on a full disk, the batch is sent again later
                write_json(self.path, asdict(_Delivered(self.delivered_bytes, self.rejected)))
        return len(events)


class DeliveryThread(threading.Thread):
    """Sends a growing journal to MLflow. Calls that block or fail affect this thread only.

    Args:
        journal: journal of the run.
        queue: undelivered events of that journal.
        sink: receiver.
        on_delivery: called after each delivered batch with the receiver's id of the run.
        echo: prints a line when the connection is lost, and when it is back.
    """

    def __init__(
        self, journal: Journal, queue: DeliveryQueue, sink: EventSink, on_delivery: Callable[[str], None], echo: Echo
    ) -> None:
        super().__init__(name="delivery", daemon=True)  # a call that hangs does not keep the process alive
        self.journal, self.queue, self.sink, self.on_delivery, self.echo = journal, queue, sink, on_delivery, echo
        self.last_error = ""
        self._closing = threading.Event()
        self._cancelled = False

    def run(self) -> None:
        backoff = _MIN_BACKOFF
        while not self._cancelled:
            # The flag is read before the journal. Nothing is logged after `finish` has set it. Hence, if it is set and this pass
            # finds nothing to send, everything is delivered, and the thread ends.
            closing = self._closing.is_set()
            if not self.journal.is_present():  # the run folder was removed; sending would recreate it
                return
            try:
                # After a power cut, MLflow must not have more than the journal: only synced events are sent.
                size = self.journal.sync()
                sent = self.queue.send_batch(self.sink, size)
            except Exception as error:  # no failure of MLflow ends a training
                if not self.last_error:
                    self._report(f"tracking: MLflow unreachable ({failure_reason(error)}); buffering in {self.journal.path}")
                self.last_error = failure_reason(error)
                if self._closing.is_set():
                    time.sleep(_CLOSING_BACKOFF)
                else:
                    self._closing.wait(backoff)
                backoff = min(2 * backoff, _MAX_BACKOFF)
                continue
            backoff = _MIN_BACKOFF
            if sent:
                self.on_delivery(self.sink.ensure_run())
                if self.last_error:
                    self._report("tracking: MLflow reconnected")
                self.last_error = ""
            elif closing:
                return
            else:
                self.journal.wait(self.queue.delivered_bytes)
            if self.queue.delivered_bytes >= size:
                # All that was synced in this pass is delivered. Pause, even if `wait` has just returned for a new event, so that
                # the events of several steps make one batch.
                self._closing.wait(_BATCH_DELAY)

    def _report(self, line: str) -> None:
        if not self._cancelled:
            self.echo(line)

    def finish(self, timeout: float) -> bool:
        """Wait until all events are delivered, or no batch is acknowledged for `timeout` seconds; returns whether all are."""
        self._closing.set()
        self.journal.wake()
        delivered, since = self.queue.delivered_bytes, time.monotonic()
        while self.is_alive() and time.monotonic() - since < timeout:
            self.join(0.1)
            if self.queue.delivered_bytes != delivered:
                delivered, since = self.queue.delivered_bytes, time.monotonic()
        return not self.is_alive() and self.queue.delivered_bytes >= self.journal.size

    def cancel(self) -> None:
        """Send and print nothing more; a call in progress is not interrupted."""
        self._cancelled = True
