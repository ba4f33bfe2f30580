"""Thresholds calibrated on validation; part of a model folder."""

import os
from dataclasses import dataclass
from pathlib import Path

from fr_ps.errors import InputError
from fr_ps.files import write_json
from fr_ps.json_files import NonNegativeInt, read_json

THRESHOLDS_FILE = "thresholds.json"


@dataclass(frozen=True)
class ValidationThreshold:
    """A verification threshold.

    Attributes:
        fmr: target false match rate.
        threshold: cosine; a pair is accepted at this score or above.
        false_matches: false matches on validation.
        impostors: impostor pairs on validation.
        support: reason for low support; empty if supported.
    """

    fmr: float
    threshold: float
    false_matches: NonNegativeInt
    impostors: NonNegativeInt
    support: str


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of a model.

    Attributes:
        people: validation subjects.
        sessions: validation sessions.
        identity: thresholds by target FMR, the largest first.
        attributes: attribute with two classes to the probability from which the positive class is predicted.
    """

    people: NonNegativeInt
    sessions: NonNegativeInt
    identity: tuple[ValidationThreshold, ...]
    attributes: dict[str, float]

    @property
    def strictest(self) -> ValidationThreshold | None:
        """The threshold of the lowest FMR with support."""
        supported = [point for point in self.identity if not point.support]
        return supported[-1] if supported else None

    def for_fmr(self, fmr: float | None) -> ValidationThreshold:
        """The threshold with the largest target FMR of at most `fmr`; `strictest` if `fmr` is None.

        Raises:
            InputError: the validation set supports no FMR this low.
        """
        if fmr is None and self.strictest:
            return self.strictest
        known = [point for point in self.identity if fmr is None or point.fmr <= fmr * (1 + 1e-9)]
        if not known:
            lowest = (
                f"lowest false match rate that the validation set supports: {self.identity[-1].fmr:g}"
                if self.identity
                else "the validation set has no genuine or no impostor pairs"
            )
            raise InputError(f"--fmr {fmr or ''}: not supported by {self.people} validation subjects ({lowest}); use --threshold")
        return known[0]


def write_thresholds(folder: Path, thresholds: Thresholds) -> None:
    """Write the thresholds into the model folder."""
    identity = [vars(point) for point in thresholds.identity]
    write_json(folder / THRESHOLDS_FILE, vars(thresholds) | {"identity": identity})


def read_thresholds(folder: Path) -> Thresholds | None:
    """Thresholds of the model in `folder`; None without the file, as after a training without validation.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / THRESHOLDS_FILE
    if not os.path.lexists(path):  # a dangling link is damage
        return None
    return read_json(path, Thresholds, "expected the thresholds of a model; copy the model again, or remove the file")
