"""Leakage: subjects or sessions of an evaluation that the model was trained or selected on."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fr_ps.data.split_files import SPLIT_FILE, read_parts
from fr_ps.tables import SessionKey

Unit = Literal["subject", "session"]


@dataclass(frozen=True)
class Overlap:
    """What an evaluation shares with the split of a model; a key is (id,) of a subject or (id, session) of a session.

    Attributes:
        trained: keys in the train part.
        selected: keys in the val part only, which selected the checkpoint and calibrated the thresholds.
    """

    trained: frozenset[tuple[str, ...]]
    selected: frozenset[tuple[str, ...]]


def split_overlap(model: Path, sessions: Collection[SessionKey], by: Unit) -> Overlap | None:
    """Overlap of some sessions with the split of a model; None if the model folder has no split.csv.

    Args:
        model: model folder.
        sessions: (id, session) of each session of the evaluation.
        by: compare subjects or sessions.

    Raises:
        InputError: split.csv cannot be read.
    """
    path = model / SPLIT_FILE
    if not path.is_file():
        return None
    length = 1 if by == "subject" else 2
    tested = {key[:length] for key in sessions}
    train, val = ({key[:length] for key, part in read_parts(path).items() if part == name} for name in ("train", "val"))
    return Overlap(frozenset(tested & train), frozenset(tested & val - train))


def leakage_notes(name: str, overlap: Overlap | None) -> list[str]:
    """What the overlap by subject means for the test metrics of the model `name`; empty without overlap."""
    if overlap is None:
        return [f"the training subjects of {name} are unknown: its folder has no {SPLIT_FILE}"]
    notes = []
    if count := len(overlap.trained):
        notes.append(f"{name} was trained on {count} of the test subjects: its metrics do not hold for new subjects")
    if count := len(overlap.selected):
        notes.append(
            f"checkpoint and thresholds of {name} were selected on {count} of the test subjects: its metrics are optimistic"
        )
    return notes
