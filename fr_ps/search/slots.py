"""Which trial is to be begun next, and which is to be made: told by the list of a study's trials alone.

Every worker reads the same list and comes to the same answer, so that the number of trials is exact, and a trial is tried
again once, at whatever moment whichever process dies. A place in the study is a trial and the one that tries it again; the first
`budget` places, in the order of their numbers, are those of the study, and the first retry of a trial is its retry. What two
workers make at once beyond that is never begun.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

State = Literal["waiting", "running", "complete", "pruned", "failed", "killed"]
"""Of a trial; killed: its worker died; failed: it came to nothing by itself, which trying again would not change."""


@dataclass(frozen=True)
class TrialEntry:
    """A trial.

    Attributes:
        number: of it.
        state: of it.
        first: number of the trial that it tries again; its own where it tries none.
    """

    number: int
    state: State
    original: int


@dataclass(frozen=True)
class TrialSlots:
    """A study's trials.

    Attributes:
        entries: all of them.
        budget: how many places the study has.
    """

    entries: Sequence[TrialEntry]
    budget: int

    @cached_property
    def slots(self) -> list[list[TrialEntry]]:
        """Of each place of the study, its trial, and the one that tries it again, if there is one."""
        by_first: dict[int, list[TrialEntry]] = {}
        for entry in sorted(self.entries, key=lambda one: one.number):
            by_first.setdefault(entry.original, []).append(entry)
        return [by_first[first][:2] for first in sorted(by_first)][: self.budget]

    @property
    def ready(self) -> list[int]:
        """Numbers of the trials that wait to be begun, those first that try again."""
        waiting = [place[-1] for place in self.slots if place[-1].state == "waiting"]
        return [one.number for one in sorted(waiting, key=lambda one: (one.original == one.number, one.number))]

    @property
    def to_retry(self) -> list[int]:
        """Numbers of the trials whose worker died, and which nobody tries again yet."""
        return [place[0].number for place in self.slots if len(place) == 1 and place[0].state == "killed"]

    @property
    def unfilled(self) -> int:
        """How many places have no trial yet."""
        return self.budget - len(self.slots)

    @property
    def running(self) -> list[int]:
        """Numbers of the trials that are being done."""
        return [place[-1].number for place in self.slots if place[-1].state == "running"]

    @property
    def finished(self) -> dict[int, State]:
        """Number of each place's last trial that ended for good, to how."""
        over = ("complete", "pruned", "failed")
        return {
            place[-1].number: place[-1].state
            for place in self.slots
            if place[-1].state in over or (place[-1].state == "killed" and len(place) == 2)
        }

    @property
    def all_finished(self) -> bool:
        """Whether every place has ended for good."""
        return len(self.finished) == self.budget

    def slot_of(self, number: int) -> int:
        """The place of a trial, from 0."""
        return next(i for i, place in enumerate(self.slots) if any(one.number == number for one in place))
