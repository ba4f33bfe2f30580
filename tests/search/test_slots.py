"""Slots under workers that act on outdated reads and die at any moment."""

import itertools
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fr_ps.search.slots import State, TrialEntry, TrialSlots

WORKERS = st.integers(0, 3)
ENDED = ("complete", "pruned", "failed")


@dataclass
class Worker:
    """One worker: its last read of the trials, and the trial that it runs.

    Attributes:
        seen: the trials at its last read; None before the first.
        trial: that it runs.
    """

    seen: TrialSlots | None = None
    trial: int | None = None


@dataclass
class Database:
    """Trials by number, with the two atomic operations of a database: assign a number, acquire a trial.

    Attributes:
        entries: all trials.
        started: numbers of the trials that a worker acquired, in order.
    """

    entries: list[TrialEntry] = field(default_factory=list)
    started: list[int] = field(default_factory=list)

    def add(self, original: int | None = None) -> None:
        number = len(self.entries)
        self.entries.append(TrialEntry(number, "waiting", number if original is None else original))

    def mark(self, number: int, state: State) -> None:
        self.entries[number] = replace(self.entries[number], state=state)

    def acquire(self, number: int) -> bool:
        if self.entries[number].state != "waiting":
            return False
        self.mark(number, "running")
        self.started.append(number)
        return True

    def started_of(self, original: int) -> set[int]:
        return {number for number in self.started if self.entries[number].original == original}

    def states_of(self, original: int) -> list[State]:
        return [entry.state for entry in self.entries if entry.original == original]


class Study(RuleBasedStateMachine):
    """Workers that follow the slots, with arbitrary interleaving of their steps."""

    @initialize(max_trials=st.integers(1, 5))
    def begin(self, max_trials: int) -> None:
        self.max_trials = max_trials
        self.database = Database()
        self.workers = [Worker() for _ in range(4)]
        self.killed: set[int] = set()

    def slots(self) -> TrialSlots:
        return TrialSlots(list(self.database.entries), self.max_trials)

    @property
    def originals(self) -> list[int]:
        """The trials of the study's slots that are no retries."""
        return [entry.number for entry in self.database.entries if entry.original == entry.number][: self.max_trials]

    @rule(which=WORKERS)
    def read(self, which: int) -> None:
        if self.workers[which].trial is None:
            self.workers[which].seen = self.slots()

    @rule(which=WORKERS)
    def add_trials(self, which: int) -> None:
        """Add retries of killed trials, or a new trial, by an outdated read."""
        if seen := self.workers[which].seen:
            for number in seen.to_retry:
                self.database.add(original=seen.entries[number].original)
            if not seen.to_retry and not seen.waiting and seen.unfilled > 0:
                self.database.add()
            self.workers[which].seen = None

    @rule(which=WORKERS)
    def acquire(self, which: int) -> None:
        if seen := self.workers[which].seen:
            self.workers[which].trial = next((number for number in seen.waiting if self.database.acquire(number)), None)
            self.workers[which].seen = None

    @rule(which=WORKERS, state=st.sampled_from(ENDED))
    def end(self, which: int, state: State) -> None:
        worker = self.workers[which]
        if worker.trial is not None and self.database.entries[worker.trial].state == "running":
            self.database.mark(worker.trial, state)
        worker.trial = None

    @rule(which=WORKERS)
    def release(self, which: int) -> None:
        worker = self.workers[which]
        if worker.trial is not None and self.database.entries[worker.trial].state == "running":
            self.database.mark(worker.trial, "waiting")
        worker.trial = None

    @rule(which=WORKERS, worker_lives=st.booleans())
    def expire_lease(self, which: int, worker_lives: bool) -> None:
        """The worker was killed, or is suspended and ends its trial later."""
        number = self.workers[which].trial
        if not worker_lives:
            self.workers[which] = Worker()
        if number is not None and self.database.entries[number].state == "running":
            self.database.mark(number, "killed")

    @precondition(lambda self: self.slots().all_finished)
    @rule(more=st.integers(1, 2))
    def raise_budget(self, more: int) -> None:
        self.max_trials += more
        assert self.slots().unfilled <= more
        assert not self.slots().all_finished

    @invariant()
    def no_trial_beyond_the_budget_starts(self) -> None:
        assert {self.database.entries[number].original for number in self.database.started} <= set(self.originals)
        slots = self.slots()
        assert [slot[0].number for slot in slots.slots] == self.originals
        assert slots.unfilled == self.max_trials - len(self.originals)

    @invariant()
    def ready_trials_wait_in_a_slot_and_retries_come_first(self) -> None:
        slots = self.slots()
        entries = [self.database.entries[number] for number in slots.waiting]
        assert all(entry.state == "waiting" and entry.original in self.originals for entry in entries)
        is_retry = [entry.original != entry.number for entry in entries]
        assert is_retry == sorted(is_retry, reverse=True)
        for retries, group in itertools.groupby(entries, key=lambda entry: entry.original != entry.number):
            numbers = [entry.number for entry in group]
            assert numbers == sorted(numbers), retries

    @invariant()
    def each_slot_ends_once_and_is_retried_once_if_its_worker_died(self) -> None:
        for original in self.originals:
            states = self.database.states_of(original)
            assert sum(state in ENDED for state in states) <= 1
            assert len(self.database.started_of(original)) <= 1 + (states[0] == "killed")
            assert self.database.started_of(original) <= {original, *self.retries_of(original)[:1]}
        slots = self.slots()
        waiting = [original for original in self.originals if self.database.states_of(original) == ["killed"]]
        assert slots.to_retry == waiting

    @invariant()
    def finished_slots_ended_or_were_killed_twice(self) -> None:
        expected = {}
        for original in self.originals:
            last = (self.retries_of(original)[:1] or [original])[0]
            state = self.database.entries[last].state
            if state in ENDED or (state == "killed" and last != original):
                expected[last] = state
        slots = self.slots()
        assert slots.finished == expected
        assert slots.all_finished == (len(expected) == self.max_trials)
        assert set(slots.running) == {entry.number for entry in self.database.entries if entry.state == "running"}
        for index, original in enumerate(self.originals):
            assert {slots.slot_of(number) for number in [original, *self.retries_of(original)[:1]]} == {index}

    def retries_of(self, original: int) -> list[int]:
        return [entry.number for entry in self.database.entries if entry.original == original != entry.number]

    def teardown(self) -> None:
        """Whatever has happened, one living worker finishes every slot."""
        if not hasattr(self, "database"):
            return
        for entry in self.database.entries:
            if entry.state == "running":
                self.database.mark(entry.number, "killed")
        for _ in range(6 * self.max_trials + 6):
            slots = self.slots()
            if slots.all_finished:
                break
            self.workers = [Worker(seen=slots)]
            if slots.waiting:
                self.acquire(0)
                self.end(0, "complete")
            else:
                self.add_trials(0)
        slots = self.slots()
        assert slots.all_finished
        assert len(slots.finished) == len(self.originals) == self.max_trials
        assert (slots.waiting, slots.to_retry, slots.unfilled, slots.running) == ([], [], 0, [])
        self.no_trial_beyond_the_budget_starts()
        self.each_slot_ends_once_and_is_retried_once_if_its_worker_died()
        for original in self.originals:
            states = self.database.states_of(original)
            ended = sum(state in ENDED for state in states)
            assert ended == 1 or (ended, len(self.database.started_of(original))) == (0, 2)


TestStudy = Study.TestCase
TestStudy.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


def slots_of(*entries: tuple[int, State, int], max_trials: int = 3) -> TrialSlots:
    return TrialSlots([TrialEntry(*entry) for entry in entries], max_trials)


def test_a_new_study_has_unfilled_slots_only() -> None:
    slots = slots_of()
    assert (slots.unfilled, slots.waiting, slots.to_retry, slots.finished, slots.all_finished) == (3, [], [], {}, False)


def test_of_two_surplus_trials_the_earlier_one_counts() -> None:
    slots = slots_of((0, "complete", 0), (1, "complete", 1), (2, "waiting", 2), (3, "waiting", 3))
    assert (slots.waiting, slots.unfilled) == ([2], 0)
    assert slots_of((0, "complete", 0), (1, "complete", 1), (2, "complete", 2), (3, "waiting", 3)).all_finished


def test_of_two_retries_the_earlier_one_counts() -> None:
    slots = slots_of((0, "killed", 0), (1, "running", 1), (2, "waiting", 0), (3, "waiting", 0), (4, "waiting", 4))
    assert slots.waiting == [2, 4]
    slots = slots_of((0, "killed", 0), (1, "pruned", 1), (2, "killed", 0), (3, "waiting", 0), (4, "failed", 4))
    assert (slots.waiting, slots.to_retry, slots.all_finished) == ([], [], True)
    assert slots.finished == {2: "killed", 1: "pruned", 4: "failed"}


def test_a_retry_starts_before_earlier_waiting_trials() -> None:
    slots = slots_of((0, "waiting", 0), (1, "killed", 1), (2, "waiting", 2), (3, "waiting", 1))
    assert slots.waiting == [3, 0, 2]
    assert [slots.slot_of(number) for number in (0, 1, 2, 3)] == [0, 1, 2, 1]


def test_a_failed_trial_is_not_retried() -> None:
    slots = slots_of((0, "failed", 0), max_trials=1)
    assert (slots.to_retry, slots.finished, slots.all_finished) == ([], {0: "failed"}, True)


def test_a_surplus_trial_has_no_slot() -> None:
    with pytest.raises(StopIteration):
        slots_of((0, "running", 0), (1, "waiting", 1), max_trials=1).slot_of(1)


@given(st.permutations([(0, "killed", 0), (1, "complete", 1), (2, "waiting", 0), (3, "waiting", 3), (4, "waiting", 4)]))
def test_the_order_of_the_trials_does_not_matter(entries: list[tuple[int, State, int]]) -> None:
    slots, expected = slots_of(*entries), slots_of(*sorted(entries))
    assert slots.slots == expected.slots
    assert (slots.waiting, slots.unfilled, slots.finished) == ([2, 3], 0, {1: "complete"})
