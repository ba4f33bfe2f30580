"""Slots under workers that act on outdated reads and die at any moment."""

import itertools
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fr_ps.search.slots import State, TrialEntry, TrialSlots

WORKERS = st.integers(0, 3)
OVER = ("complete", "pruned", "failed")


@dataclass
class Worker:
    """One worker: its last read of the trials, and the trial that it runs.

    Attributes:
        seen: the trials as it read them; None before it reads.
        trial: that it does.
    """

    seen: TrialSlots | None = None
    trial: int | None = None


@dataclass
class Database:
    """Trials by number, with the two atomic operations of a database: assign a number, acquire a trial.

    Attributes:
        entries: all of them.
        begun: numbers of those that a worker ever had, in order.
    """

    entries: list[TrialEntry] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)

    def add(self, first: int | None = None) -> None:
        number = len(self.entries)
        self.entries.append(TrialEntry(number, "waiting", number if first is None else first))

    def mark(self, number: int, state: State) -> None:
        self.entries[number] = replace(self.entries[number], state=state)

    def take(self, number: int) -> bool:
        if self.entries[number].state != "waiting":
            return False
        self.mark(number, "running")
        self.begun.append(number)
        return True

    def begun_of(self, first: int) -> set[int]:
        return {number for number in self.begun if self.entries[number].original == first}

    def states_of(self, first: int) -> list[State]:
        return [entry.state for entry in self.entries if entry.original == first]


class Study(RuleBasedStateMachine):
    """Workers that follow the slots, with arbitrary interleaving of their steps."""

    @initialize(budget=st.integers(1, 5))
    def begin(self, budget: int) -> None:
        self.budget = budget
        self.database = Database()
        self.workers = [Worker() for _ in range(4)]
        self.killed: set[int] = set()

    def ledger(self) -> TrialSlots:
        return TrialSlots(list(self.database.entries), self.budget)

    @property
    def firsts(self) -> list[int]:
        """The trials of the study's slots that are no retries."""
        return [entry.number for entry in self.database.entries if entry.original == entry.number][: self.budget]

    @rule(which=WORKERS)
    def read(self, which: int) -> None:
        if self.workers[which].trial is None:
            self.workers[which].seen = self.ledger()

    @rule(which=WORKERS)
    def make(self, which: int) -> None:
        """Add retries of killed trials, or a new trial, by an outdated read."""
        if seen := self.workers[which].seen:
            for number in seen.to_retry:
                self.database.add(first=seen.entries[number].original)
            if not seen.to_retry and not seen.ready and seen.unfilled > 0:
                self.database.add()
            self.workers[which].seen = None

    @rule(which=WORKERS)
    def take(self, which: int) -> None:
        if seen := self.workers[which].seen:
            self.workers[which].trial = next((number for number in seen.ready if self.database.take(number)), None)
            self.workers[which].seen = None

    @rule(which=WORKERS, state=st.sampled_from(OVER))
    def end(self, which: int, state: State) -> None:
        worker = self.workers[which]
        if worker.trial is not None and self.database.entries[worker.trial].state == "running":
            self.database.mark(worker.trial, state)
        worker.trial = None

    @rule(which=WORKERS)
    def put_back(self, which: int) -> None:
        worker = self.workers[which]
        if worker.trial is not None and self.database.entries[worker.trial].state == "running":
            self.database.mark(worker.trial, "waiting")
        worker.trial = None

    @rule(which=WORKERS, seen_as_dead=st.booleans())
    def die(self, which: int, seen_as_dead: bool) -> None:
        """The lease expires: by kill -9, or while the worker lives and ends its trial later."""
        number = self.workers[which].trial
        if not seen_as_dead:
            self.workers[which] = Worker()
        if number is not None and self.database.entries[number].state == "running":
            self.database.mark(number, "killed")

    @precondition(lambda self: self.ledger().all_finished)
    @rule(more=st.integers(1, 2))
    def raise_budget(self, more: int) -> None:
        self.budget += more
        assert self.ledger().unfilled <= more
        assert not self.ledger().all_finished

    @invariant()
    def no_trial_beyond_the_budget_is_begun(self) -> None:
        assert {self.database.entries[number].original for number in self.database.begun} <= set(self.firsts)
        ledger = self.ledger()
        assert [place[0].number for place in ledger.slots] == self.firsts
        assert ledger.unfilled == self.budget - len(self.firsts)

    @invariant()
    def what_may_be_begun_waits_in_a_place_and_retries_come_first(self) -> None:
        ledger = self.ledger()
        entries = [self.database.entries[number] for number in ledger.ready]
        assert all(entry.state == "waiting" and entry.original in self.firsts for entry in entries)
        again = [entry.original != entry.number for entry in entries]
        assert again == sorted(again, reverse=True)
        for retries, its in itertools.groupby(entries, key=lambda entry: entry.original != entry.number):
            numbers = [entry.number for entry in its]
            assert numbers == sorted(numbers), retries

    @invariant()
    def each_place_is_ended_once_and_tried_again_once_if_its_worker_died(self) -> None:
        for first in self.firsts:
            states = self.database.states_of(first)
            assert sum(state in OVER for state in states) <= 1
            assert len(self.database.begun_of(first)) <= 1 + (states[0] == "killed")
            assert self.database.begun_of(first) <= {first, *self.retries_of(first)[:1]}
        ledger = self.ledger()
        waiting = [first for first in self.firsts if self.database.states_of(first) == ["killed"]]
        assert ledger.to_retry == waiting

    @invariant()
    def what_has_ended_is_what_ended_by_itself_or_died_twice(self) -> None:
        expected = {}
        for first in self.firsts:
            last = (self.retries_of(first)[:1] or [first])[0]
            state = self.database.entries[last].state
            if state in OVER or (state == "killed" and last != first):
                expected[last] = state
        ledger = self.ledger()
        assert ledger.finished == expected
        assert ledger.all_finished == (len(expected) == self.budget)
        assert set(ledger.running) == {entry.number for entry in self.database.entries if entry.state == "running"}
        for place, first in enumerate(self.firsts):
            assert {ledger.slot_of(number) for number in [first, *self.retries_of(first)[:1]]} == {place}

    def retries_of(self, first: int) -> list[int]:
        return [entry.number for entry in self.database.entries if entry.original == first != entry.number]

    def teardown(self) -> None:
        """Whatever has happened, one living worker finishes all slots of the budget."""
        if not hasattr(self, "database"):
            return
        for entry in self.database.entries:
            if entry.state == "running":
                self.database.mark(entry.number, "killed")
        for _ in range(6 * self.budget + 6):
            ledger = self.ledger()
            if ledger.all_finished:
                break
            self.workers = [Worker(seen=ledger)]
            if ledger.ready:
                self.take(0)
                self.end(0, "complete")
            else:
                self.make(0)
        ledger = self.ledger()
        assert ledger.all_finished
        assert len(ledger.finished) == len(self.firsts) == self.budget
        assert (ledger.ready, ledger.to_retry, ledger.unfilled, ledger.running) == ([], [], 0, [])
        self.no_trial_beyond_the_budget_is_begun()
        self.each_place_is_ended_once_and_tried_again_once_if_its_worker_died()
        for first in self.firsts:
            states = self.database.states_of(first)
            ended = sum(state in OVER for state in states)
            assert ended == 1 or (ended, len(self.database.begun_of(first))) == (0, 2)


TestStudy = Study.TestCase
TestStudy.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


def of(*entries: tuple[int, State, int], budget: int = 3) -> TrialSlots:
    return TrialSlots([TrialEntry(*entry) for entry in entries], budget)


def test_a_new_study_has_unfilled_slots_only() -> None:
    ledger = of()
    assert (ledger.unfilled, ledger.ready, ledger.to_retry, ledger.finished, ledger.all_finished) == (3, [], [], {}, False)


def test_of_two_surplus_trials_the_earlier_one_counts() -> None:
    ledger = of((0, "complete", 0), (1, "complete", 1), (2, "waiting", 2), (3, "waiting", 3))
    assert (ledger.ready, ledger.unfilled) == ([2], 0)
    assert of((0, "complete", 0), (1, "complete", 1), (2, "complete", 2), (3, "waiting", 3)).all_finished


def test_of_two_retries_the_earlier_one_counts() -> None:
    ledger = of((0, "killed", 0), (1, "running", 1), (2, "waiting", 0), (3, "waiting", 0), (4, "waiting", 4))
    assert ledger.ready == [2, 4]
    ledger = of((0, "killed", 0), (1, "pruned", 1), (2, "killed", 0), (3, "waiting", 0), (4, "failed", 4))
    assert (ledger.ready, ledger.to_retry, ledger.all_finished) == ([], [], True)
    assert ledger.finished == {2: "killed", 1: "pruned", 4: "failed"}


def test_a_retry_starts_before_earlier_waiting_trials() -> None:
    ledger = of((0, "waiting", 0), (1, "killed", 1), (2, "waiting", 2), (3, "waiting", 1))
    assert ledger.ready == [3, 0, 2]
    assert [ledger.slot_of(number) for number in (0, 1, 2, 3)] == [0, 1, 2, 1]


def test_a_failed_trial_is_not_retried() -> None:
    ledger = of((0, "failed", 0), budget=1)
    assert (ledger.to_retry, ledger.finished, ledger.all_finished) == ([], {0: "failed"}, True)


def test_a_surplus_trial_has_no_slot() -> None:
    with pytest.raises(StopIteration):
        of((0, "running", 0), (1, "waiting", 1), budget=1).slot_of(1)


@given(st.permutations([(0, "killed", 0), (1, "complete", 1), (2, "waiting", 0), (3, "waiting", 3), (4, "waiting", 4)]))
def test_the_order_of_the_trials_does_not_matter(entries: list[tuple[int, State, int]]) -> None:
    ledger, expected = of(*entries), of(*sorted(entries))
    assert ledger.slots == expected.slots
    assert (ledger.ready, ledger.unfilled, ledger.finished) == ([2, 3], 0, {1: "complete"})
