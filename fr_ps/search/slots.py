"""The trials of a study as slots: which trial starts next, and which is retried. A pure function of the trials.

A slot is a trial and its one retry. Only the first `max_trials` slots count, in the order of their trials' numbers. A trial
outside them never starts; if two workers add a trial at the same time, the surplus one is outside. Every worker computes the
same slots from the same trials. Hence the number of trials is exact, and each trial is retried once at most, no matter when
processes are killed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

State = Literal["waiting", "running", "complete", "pruned", "failed", "killed"]
"""State of a trial. killed: the worker died, so a retry may succeed. It is not MLflow's status KILLED, which the runs of pruned
trials have. failed: the training raised an error that a retry would not change."""


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
    """The trials of a study, grouped into slots: a slot is a trial and its retry, if it has one.

    Attributes:
        entries: all trials.
        max_trials: number of slots.
    """

    entries: Sequence[TrialEntry]
    max_trials: int

    @cached_property
    def slots(self) -> list[list[TrialEntry]]:
        """For each slot its trial, and its retry if there is one."""
        by_original: dict[int, list[TrialEntry]] = {}
        for entry in sorted(self.entries, key=lambda one: one.number):
            by_original.setdefault(entry.original, []).append(entry)
        return [by_original[original][:2] for original in sorted(by_original)][: self.max_trials]

    @property
    def waiting(self) -> list[int]:
        """Numbers of the trials that can start, retries first."""
        waiting = [slot[-1] for slot in self.slots if slot[-1].state == "waiting"]
        return [one.number for one in sorted(waiting, key=lambda one: (one.original == one.number, one.number))]

    @property
    def to_retry(self) -> list[int]:
        """Numbers of the killed trials that have no retry and are not retries themselves."""
        return [slot[0].number for slot in self.slots if len(slot) == 1 and slot[0].state == "killed"]

    @property
    def unfilled(self) -> int:
        """Number of slots without a trial."""
        return self.max_trials - len(self.slots)

    @property
    def running(self) -> list[int]:
        """Numbers of the running trials."""
        return [slot[-1].number for slot in self.slots if slot[-1].state == "running"]

    @property
    def finished(self) -> dict[int, State]:
        """Mapping from number to state of the last trial of each finished slot (complete, pruned, failed, or killed twice)."""
        final = ("complete", "pruned", "failed")
        return {
            slot[-1].number: slot[-1].state
            for slot in self.slots
            if slot[-1].state in final or (slot[-1].state == "killed" and len(slot) == 2)
        }

    @property
    def all_finished(self) -> bool:
        """Whether every slot is finished."""
        return len(self.finished) == self.max_trials

    def slot_of(self, number: int) -> int:
        """Index of the slot of a trial, from 0."""
        return next(i for i, slot in enumerate(self.slots) if any(one.number == number for one in slot))
