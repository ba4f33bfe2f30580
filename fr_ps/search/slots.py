"""The trials of a study as slots: which trial starts next, which is retried, which is new. A function of the trials alone.

Every worker reads the same trials and derives the same answer: the number of trials is exact and each trial is retried once,
whichever process dies at whatever moment. A slot is a trial and its retry. The first `budget` slots, by number, belong to the
study; the first retry of a trial is its retry. A surplus that two workers add at the same moment never starts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

State = Literal["waiting", "running", "complete", "pruned", "failed", "killed"]
"""State of a trial. killed: its worker died, a retry may succeed; failed: the training raised an error, a retry would too."""


@dataclass(frozen=True)
class TrialEntry:
    """A trial.

    Attributes:
        number: of the trial.
        state: of the trial.
        original: number of the trial that it retries; its own number where it is no retry.
    """

    number: int
    state: State
    original: int


@dataclass(frozen=True)
class TrialSlots:
    """The trials of a study.

    Attributes:
        entries: all trials.
        budget: number of slots.
    """

    entries: Sequence[TrialEntry]
    budget: int

    @cached_property
    def slots(self) -> list[list[TrialEntry]]:
        """For each slot its trial, and its retry if there is one."""
        by_original: dict[int, list[TrialEntry]] = {}
        for entry in sorted(self.entries, key=lambda one: one.number):
            by_original.setdefault(entry.original, []).append(entry)
        return [by_original[original][:2] for original in sorted(by_original)][: self.budget]

    @property
    def ready(self) -> list[int]:
        """Numbers of the trials that can start, retries first."""
        waiting = [slot[-1] for slot in self.slots if slot[-1].state == "waiting"]
        return [one.number for one in sorted(waiting, key=lambda one: (one.original == one.number, one.number))]

    @property
    def to_retry(self) -> list[int]:
        """Numbers of the killed trials without a retry."""
        return [slot[0].number for slot in self.slots if len(slot) == 1 and slot[0].state == "killed"]

    @property
    def unfilled(self) -> int:
        """Number of slots without a trial."""
        return self.budget - len(self.slots)

    @property
    def running(self) -> list[int]:
        """Numbers of the running trials."""
        return [slot[-1].number for slot in self.slots if slot[-1].state == "running"]

    @property
    def finished(self) -> dict[int, State]:
        """Number of the last trial of each slot that has ended for good, to its state."""
        final = ("complete", "pruned", "failed")
        return {
            slot[-1].number: slot[-1].state
            for slot in self.slots
            if slot[-1].state in final or (slot[-1].state == "killed" and len(slot) == 2)
        }

    @property
    def all_finished(self) -> bool:
        """Whether every slot has ended for good."""
        return len(self.finished) == self.budget

    def slot_of(self, number: int) -> int:
        """Index of the slot of a trial, from 0."""
        return next(i for i, slot in enumerate(self.slots) if any(one.number == number for one in slot))
