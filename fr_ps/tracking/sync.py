"""Delivering to MLflow, after the end of runs, what an outage held back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fr_ps.errors import InputError, one_line
from fr_ps.progress import silent
from fr_ps.tracking.card import CARD_FILE, read_card
from fr_ps.tracking.listing import Story, mark_interrupted, stories
from fr_ps.tracking.outbox import Outbox
from fr_ps.tracking.owner import is_owned, owned


@dataclass(frozen=True)
class Synced:
    """What became of one run.

    Attributes:
        id: ours.
        mlflow_id: empty where there is none yet.
        sent: events that MLflow took now.
        left: events that it did not.
        why: events are left.
        running: a living process delivers them.
        refused: what it will never take, with its reasons.
    """

    id: str
    mlflow_id: str
    sent: int
    left: int
    why: str
    running: bool
    refused: tuple[str, ...]


def unsynced(runs: Path) -> dict[Path, int]:
    """The folders of the runs that MLflow does not know all of, each with the number of events; those that were interrupted
    are marked first. One that is damaged is among them with 0, and `sync` says why."""
    found = {}
    for file in sorted(runs.glob(f"*/{CARD_FILE}")):
        folder = file.parent
        try:
            mark_interrupted(folder)
            if pending := Outbox(folder).pending():
                found[folder] = pending
        except InputError:
            found[folder] = 0
    return found


def tell_interrupted(runs: Path) -> list[Story]:
    """The runs under `runs`, after MLflow was told of those that were interrupted."""
    found = stories(runs)
    interrupted = [runs / one.id for one in found if one.note == "interrupted" and one.pending]
    if not interrupted:
        return found
    sync(interrupted, silent)
    return stories(runs)


def sync(folders: Sequence[Path], advance: Callable[[int], None]) -> list[Synced]:
    """Deliver what is left of each run; `advance` is called with the events as they are taken.

    Runs that a living process owns deliver by themselves and are left to it. Once MLflow did not answer for one run, it
    is not asked again for the others that go to the same place.
    """

    silent_places: dict[str, str] = {}
    return [_sync_one(folder, advance, silent_places) for folder in folders]


def _sync_one(folder: Path, advance: Callable[[int], None], silent_places: dict[str, str]) -> Synced:
    from fr_ps.tracking.store import RunStore, answers  # mlflow takes a second

    sent = before = 0
    running, why, outbox, store = is_owned(folder), "", None, None
    try:
        outbox, store = Outbox(folder), RunStore(folder, read_card(folder))
        before = outbox.pending()
        why = "it is running, and delivers by itself" if running else silent_places.get(store.card.tracking_uri, "")
        if not why:
            with owned(folder):
                while batch := outbox.deliver(store):
                    advance(batch)
                    sent += batch
    except Exception as error:  # one run's trouble is not that of the next
        why = one_line(error)
        if store and not store.client and not answers(error) and not isinstance(error, InputError):
            silent_places[store.card.tracking_uri] = why
    mlflow_id = store.card.mlflow_id if store else None
    return Synced(folder.name, mlflow_id or "", sent, before - sent, why, running, tuple(outbox.refused if outbox else ()))
