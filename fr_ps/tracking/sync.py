"""Delivery to MLflow, after the end of runs: what an outage held back, or all of a run to another store."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from fr_ps.errors import InputError, one_line
from fr_ps.progress import silent
from fr_ps.tracking.card import CARD_FILE, PARENT_TAG, Card, find_run, read_card
from fr_ps.tracking.listing import Story, mark_interrupted, stories
from fr_ps.tracking.outbox import DELIVERED_FILE, Outbox
from fr_ps.tracking.owner import is_owned, owned


@dataclass(frozen=True)
class Synced:
    """What became of one run.

    Attributes:
        id: ours.
        store: that the run belongs to; empty where its `run.json` is damaged.
        mlflow_id: empty where there is none yet.
        sent: events that MLflow took now.
        left: events that it did not.
        why: events are left.
        running: a living process delivers them.
        refused: what it will never take, with its reasons.
        note: why the MLflow run that MLFLOW_RUN_ID named is not this run; empty where it is.
    """

    id: str
    store: str
    mlflow_id: str
    sent: int
    left: int
    why: str
    running: bool
    refused: tuple[str, ...]
    note: str = ""


def run_folders(runs: Path) -> list[Path]:
    """The folders of all runs under `runs`, the oldest first."""
    return [file.parent for file in sorted(runs.glob(f"*/{CARD_FILE}"))]


def unsynced(runs: Path) -> dict[Path, int]:
    """The folders of the runs that MLflow does not know all of, each with the number of events; those that were interrupted
    are marked first. One that is damaged is among them with 0, and `sync` says why."""
    found = {}
    for folder in run_folders(runs):
        try:
            mark_interrupted(folder)
            if pending := Outbox(folder).pending():
                found[folder] = pending
        except InputError:
            found[folder] = 0
    return found


def move(folders: Sequence[Path], uri: str) -> list[Synced]:
    """Let runs belong to the MLflow store `uri` from now on, so that `sync` delivers all of each run to it.

    A run that the store has already, by our id, goes on there; others get a new MLflow run. The store drops points that it
    has, so that no point is doubled. Runs come before their parts, as the trials of a study, which name the run that they
    are a part of.

    Returns:
        The runs that could not be moved, with the reason.
    """
    failed = []
    for folder in sorted(folders, key=_is_part):
        try:
            _move_one(folder, uri)
        except Exception as error:  # one run's trouble is not that of the next
            failed.append(Synced(folder.name, uri, "", 0, 0, _why(error), False, ()))
    return failed


def _is_part(folder: Path) -> bool:
    with suppress(InputError):
        return bool(read_card(folder).parent)
    return False


def _move_one(folder: Path, uri: str) -> None:
    from fr_ps.tracking.address import default_uri, recorded_uri
    from fr_ps.tracking.store import RunStore, open_store, store_uri

    with owned(folder):
        card = read_card(folder)
        earlier = [*card.earlier_ids, *([card.mlflow_id] if card.mlflow_id else [])]
        card = replace(card, tracking_uri=recorded_uri(uri), mlflow_id=None, experiment_id="", earlier_ids=earlier)
        if store_uri(card) == default_uri():
            card = replace(card, tracking_uri="")
        whole = find_run(card.parent, folder.parent) if card.parent else None
        if whole and (parent := read_card(whole)).tracking_uri == card.tracking_uri and parent.mlflow_id:
            card = replace(card, tags=card.tags | {PARENT_TAG: parent.mlflow_id})
        open_store(store_uri(card)).search_experiments(max_results=1)  # nothing changes where it does not answer
        (folder / DELIVERED_FILE).unlink(missing_ok=True)
        RunStore(folder, card).connect()


def missing_from_store(runs: Path) -> dict[Path, str]:
    """The newest delivered run of each store that no longer has it, as after a store was deleted, with the store's address.

    A store that does not answer is left out.
    """
    newest: dict[str, tuple[Path, Card]] = {}
    for folder in run_folders(runs):
        with suppress(InputError):
            card = read_card(folder)
            if not Outbox(folder).pending():
                newest[card.tracking_uri] = folder, card
    from fr_ps.tracking.store import shown_store

    return {folder: shown_store(card) for folder, card in newest.values() if _is_missing(card)}


def _is_missing(card: Card) -> bool:
    from fr_ps.tracking.address import sqlite_file
    from fr_ps.tracking.store import is_missing, open_store, store_uri

    uri = store_uri(card)
    if not card.mlflow_id:
        return False
    if (file := sqlite_file(uri)) and not file.exists():
        return True
    try:
        open_store(uri).get_run(card.mlflow_id)
    except Exception as error:
        return is_missing(error)
    return False


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
    from fr_ps.tracking.store import RunStore, answers, shown_store  # mlflow takes a second

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
        why = _why(error)
        if store and not store.client and not answers(error) and not isinstance(error, InputError):
            silent_places[store.card.tracking_uri] = why
    mlflow_id = store.card.mlflow_id if store else None
    where = shown_store(store.card) if store else ""
    refused = tuple(outbox.refused if outbox else ())
    note = store.note if store else ""
    return Synced(folder.name, where, mlflow_id or "", sent, before - sent, why, running, refused, note)


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, InputError) else one_line(error)
