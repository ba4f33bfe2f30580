"""Thresholds that were chosen on validation: part of a model, and never of what it is tested on."""

import os
from dataclasses import dataclass
from pathlib import Path

from fr_ps.errors import InputError
from fr_ps.files import write_json
from fr_ps.json_files import NonNegativeInt, read_json

THRESHOLDS_FILE = "thresholds.json"


@dataclass(frozen=True)
class ValidationThreshold:
    """A threshold of verification.

    Attributes:
        fmr: that was wanted.
        threshold: cosine; a pair is accepted that scores as much or more.
        false_matches: it gave so many on validation.
        impostors: of so many impostor pairs.
        support: why it should not be leant on; empty where it may.
    """

    fmr: float
    threshold: float
    false_matches: NonNegativeInt
    impostors: NonNegativeInt
    support: str


@dataclass(frozen=True)
class Thresholds:
    """What validation said.

    Attributes:
        people: who were validated on.
        sessions: of theirs.
        identity: by wanted FMR, the largest first.
        attributes: attribute of two classes to the probability of the positive one from which it is said.
    """

    people: NonNegativeInt
    sessions: NonNegativeInt
    identity: tuple[ValidationThreshold, ...]
    attributes: dict[str, float]

    @property
    def strictest(self) -> ValidationThreshold | None:
        """That of the smallest FMR with support."""
        supported = [point for point in self.identity if not point.support]
        return supported[-1] if supported else None

    def for_fmr(self, fmr: float | None) -> ValidationThreshold:
        """The threshold whose FMR on validation is the largest that is not above `fmr`; of None, `strictest`.

        Raises:
            InputError: validation, with the people it had, cannot tell so small an FMR.
        """
        if fmr is None and self.strictest:
            return self.strictest
        known = [point for point in self.identity if fmr is None or point.fmr <= fmr * (1 + 1e-9)]
        if not known:
            least = f"the smallest is {self.identity[-1].fmr:g}" if self.identity else "they have no pairs of both kinds"
            raise InputError(
                f"--fmr {fmr or ''}: {self.people} people of validation cannot tell it; {least}; or give --threshold"
            )
        return known[0]


def write_thresholds(folder: Path, thresholds: Thresholds) -> None:
    """Write them into the model folder."""
    identity = [vars(point) for point in thresholds.identity]
    write_json(folder / THRESHOLDS_FILE, vars(thresholds) | {"identity": identity})


def read_thresholds(folder: Path) -> Thresholds | None:
    """Those of the model in `folder`; None where it has none, as one that nobody was validated on.

    Raises:
        InputError: the file is no such file.
    """
    path = folder / THRESHOLDS_FILE
    if not os.path.lexists(path):  # a link to nothing is damage
        return None
    return read_json(path, Thresholds, "expected the thresholds of a model; copy the model again, or remove the file")
