"""A run of MLflow that others are parts of, as the trials of a study."""

import os
import sys
from pathlib import Path

from fr_ps.errors import InputError, one_line
from fr_ps.progress import say
from fr_ps.redaction import redact
from fr_ps.tracking.card import CARD_FILE, Card, Parent, new_card, read_card
from fr_ps.tracking.owner import owned
from fr_ps.tracking.run import new_id


def begin_parent(name: str, runs: Path) -> tuple[Card, Parent]:
    """Make such a run in MLflow, and its folder under `runs`; `resumed_run` of that folder is the run itself.

    In the run that `mlflow run` began, where it did. Its parts need its id, so that this one waits for MLflow.

    Raises:
        InputError: MLflow does not answer, or `runs` cannot be written.
    """
    from fr_ps.tracking.store import RunStore  # mlflow takes a second

    card = new_card(new_id(), name)
    with owned(runs / card.id):
        card.write(runs / card.id)
        store = RunStore(runs / card.id, card)
        try:
            store.connect()
            if store.note:
                say(store.note, sys.stderr)
            return store.card, Parent(str(store.card.mlflow_id), store.experiment())
        except InputError:
            raise
        except Exception as error:  # whatever it is, the parts would be without their whole
            where = redact(os.environ.get("MLFLOW_TRACKING_URI", "")) or "its default store"
            raise InputError(
                f"MLflow ({where}) does not take the run of the study, which holds its trials together ({one_line(error)}); "
                "see that it answers, or set MLFLOW_TRACKING_URI"
            ) from None


def present_parent(parent: Parent, folder: Path) -> Parent:
    """`parent`, whose run is in `folder`, with the MLflow id that it has now: `fr-ps sync --store` may have moved it.

    Raises:
        InputError: its `run.json` is damaged.
        Exception: whatever keeps MLflow from answering.
    """
    from fr_ps.tracking.store import RunStore

    card = read_card(folder) if (folder / CARD_FILE).is_file() else None
    if card is None or not card.mlflow_id or card.mlflow_id == parent.mlflow_id:
        return parent
    return Parent(card.mlflow_id, RunStore(folder, card).experiment())


def parent_folder(card: Card, runs: Path) -> Path:
    """The folder under `runs` of a parent that was perhaps begun on another machine; made where it is not there yet.

    Raises:
        InputError: it cannot be written.
    """
    folder = runs / card.id
    if not (folder / CARD_FILE).is_file():
        with owned(folder):
            card.write(folder)
    return folder
