"""What of a run's journal MLflow has not acknowledged, and sending it, batch by batch."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from fr_ps.errors import InputError
from fr_ps.files import write_json
from fr_ps.json_files import NonNegativeInt, read_json
from fr_ps.tracking.journal import JOURNAL_FILE, Event, read_events

DELIVERED_FILE = "delivered.json"
_MAX_BATCH_ITEMS = 1000


@dataclass(frozen=True)
class _Delivered:
    """The content of `delivered.json`; see `Outbox`."""

    bytes: NonNegativeInt
    refused: list[str]


class EventSink(Protocol):
    """Where events go."""

    def connect(self) -> str:
        """The run's id there; raises whatever keeps it from answering."""

    def send(self, events: Sequence[Event]) -> list[str]:
        """Send events in their order; returns what will never be taken, with its reasons."""


class DeliveryQueue:
    """What of a run's journal MLflow has not acknowledged yet.

    What was acknowledged is written to `delivered.json`; where that is lost, everything is sent again, which changes
    nothing.

    Attributes:
        done: bytes of the journal that were acknowledged.
        refused: what MLflow will never take, with its reasons.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / DELIVERED_FILE
        self.journal_path = folder / JOURNAL_FILE
        self.delivered_bytes = 0
        self.rejected: list[str] = []
        try:
            found = read_json(self.path, _Delivered, "all events are sent again")
        except InputError:  # as before the first delivery
            return
        self.delivered_bytes, self.rejected = found.bytes, found.refused
        if not self._is_line_end(self.delivered_bytes):
            self.delivered_bytes = 0

    def journal_bytes(self) -> int:
        """Bytes of the journal."""
        try:
            return self.journal_path.stat().st_size
        except OSError:
            return 0

    def _is_line_end(self, size: int) -> bool:
        """Whether a line of the journal ends there: it is another journal where somebody cut or mended it."""
        if not 0 < size <= self.journal_bytes():
            return False
        try:
            with self.journal_path.open("rb") as file:
                file.seek(size - 1)
                return file.read(1) == b"\n"
        except OSError:  # whoever reads its events names the reason
            return False

    def pending(self) -> int:
        """The number of events that were not acknowledged."""
        return sum(1 for _ in read_events(self.journal_path, self.delivered_bytes))

    def send_batch(self, sink: EventSink, max_bytes: int | None = None) -> int:
        """Send one batch and note that it was taken; returns its number of events.

        Nothing beyond `size` bytes of the journal is sent; None: all that there is.

        Raises:
            Exception: whatever keeps MLflow from taking it; the next call sends the same again.
        """
        events: list[Event] = []
        items, taken = 0, self.delivered_bytes
        for end, event in read_events(self.journal_path, self.delivered_bytes):
            if max_bytes is not None and end > max_bytes:
                break
            events.append(event)
            taken = end
            items += len(event.data.get("values", event.data))
            if items >= _MAX_BATCH_ITEMS or event.kind in ("artifact", "status"):
                break
        if not events:
            return 0
        sink.connect()
        self.rejected += sink.send(events)
        self.delivered_bytes = taken
        if self.path.parent.is_dir():  # else it was removed, and is not made again
            with suppress(InputError):  # a full disk; at worst all is sent again
                write_json(self.path, asdict(_Delivered(self.delivered_bytes, self.rejected)))
        return len(events)
