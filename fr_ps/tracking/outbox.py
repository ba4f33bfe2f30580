"""What of a run's journal MLflow has not acknowledged, and sending it, batch by batch."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from fr_ps.errors import InputError
from fr_ps.files import write_json
from fr_ps.json_files import Count, read_json
from fr_ps.tracking.journal import JOURNAL_FILE, Event, read_events

DELIVERED_FILE = "delivered.json"
_ITEMS = 1000


@dataclass(frozen=True)
class _Delivered:
    """The content of `delivered.json`; see `Outbox`."""

    bytes: Count
    refused: list[str]


class Store(Protocol):
    """Where events go."""

    def connect(self) -> str:
        """The run's id there; raises whatever keeps it from answering."""

    def send(self, events: Sequence[Event]) -> list[str]:
        """Send events in their order; returns what will never be taken, with its reasons."""


class Outbox:
    """What of a run's journal MLflow has not acknowledged yet.

    What was acknowledged is written to `delivered.json`; where that is lost, everything is sent again, which changes
    nothing.

    Attributes:
        done: bytes of the journal that were acknowledged.
        refused: what MLflow will never take, with its reasons.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / DELIVERED_FILE
        self.journal = folder / JOURNAL_FILE
        self.done = 0
        self.refused: list[str] = []
        try:
            found = read_json(self.path, _Delivered, "all events are sent again")
        except InputError:  # as before the first delivery
            return
        self.done, self.refused = found.bytes, found.refused
        if not self._ends_a_line(self.done):
            self.done = 0

    def size(self) -> int:
        """Bytes of the journal."""
        try:
            return self.journal.stat().st_size
        except OSError:
            return 0

    def _ends_a_line(self, size: int) -> bool:
        """Whether a line of the journal ends there: it is another journal where somebody cut or mended it."""
        if not 0 < size <= self.size():
            return False
        try:
            with self.journal.open("rb") as file:
                file.seek(size - 1)
                return file.read(1) == b"\n"
        except OSError:  # whoever reads its events names the reason
            return False

    def pending(self) -> int:
        """The number of events that were not acknowledged."""
        return sum(1 for _ in read_events(self.journal, self.done))

    def deliver(self, store: Store, size: int | None = None) -> int:
        """Send one batch and note that it was taken; returns its number of events.

        Nothing beyond `size` bytes of the journal is sent; None: all that there is.

        Raises:
            Exception: whatever keeps MLflow from taking it; the next call sends the same again.
        """
        events: list[Event] = []
        items, taken = 0, self.done
        for end, event in read_events(self.journal, self.done):
            if size is not None and end > size:
                break
            events.append(event)
            taken = end
            items += len(event.data.get("values", event.data))
            if items >= _ITEMS or event.kind in ("artifact", "status"):
                break
        if not events:
            return 0
        store.connect()
        self.refused += store.send(events)
        self.done = taken
        if self.path.parent.is_dir():  # else it was removed, and is not made again
            with suppress(InputError):  # a full disk; at worst all is sent again
                write_json(self.path, asdict(_Delivered(self.done, self.refused)))
        return len(events)
