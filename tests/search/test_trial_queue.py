"""Trials of one study, claimed by processes that end them, put them back, or are killed."""

import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from fr_ps.config import Config, SearchConfig
from fr_ps.config.search import StudyConfig
from fr_ps.search.slots import TrialEntry
from fr_ps.search.spec import build_study_spec
from fr_ps.search.storage import HEARTBEAT_GRACE, Storage, open_study
from fr_ps.search.trial import TrialResult, WorkerContext, run_trial
from fr_ps.search.trial_queue import OUTCOME, acquire, finish_trial, heartbeat, read_slots, release, trial_entry
from fr_ps.tracking.run_folder import ParentRun
from tests.search.conftest import four_at_once

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
BEAT = 1


class Place:
    """A worker's place: the study of a file, opened by itself.

    Args:
        file: of SQLite.
        budget: of the study.
    """

    def __init__(self, file: Path, budget: int) -> None:
        self.file, self.budget = file, budget
        self.storage = Storage(f"sqlite:///{file}", BEAT)
        self.study, _ = open_study(self.storage, "s", ["maximize"])

    def claim(self, new: bool = True) -> int | None:
        return acquire(self.storage, self.study, self.budget, new)[0]

    def trial(self, number: int) -> optuna.Trial:
        return optuna.Trial(self.study, self.storage.trial_id(self.study, number))

    def tell(self, number: int, value: float | None = None, state: TrialState = TrialState.COMPLETE) -> bool:
        return finish_trial(self.storage, self.study, self.trial(number), None if value is None else [value], state)

    def put_back(self, number: int) -> None:
        release(self.storage, self.study, number)

    def there(self, number: int) -> FrozenTrial:
        return self.study.get_trials()[number]

    @property
    def states(self) -> list[str]:
        return [trial.state.name for trial in self.study.get_trials(deepcopy=False)]

    def make_old(self) -> None:
        """As if no worker had given a sign of life for an hour."""
        connection = sqlite3.connect(self.file)
        connection.execute("UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, '-1 hour')")
        connection.commit()
        connection.close()


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an empty study, whose tables take a while to make."""
    file = tmp_path_factory.mktemp("empty") / "studies.db"
    Place(file, budget=3).storage.rdb.engine.dispose()
    return file


@pytest.fixture
def one(empty: Path, tmp_path: Path) -> Place:
    return Place(Path(shutil.copy(empty, tmp_path)), budget=3)


@pytest.fixture
def other(one: Place) -> Place:
    return Place(one.file, budget=3)


WORK = """
import sys
import optuna
from optuna.trial import TrialState
from fr_ps.search.trial_queue import claim, tell
from fr_ps.search.storage import Storage, open_study
storage = Storage(sys.argv[1], 60)
study, _ = open_study(storage, "s", ["maximize"])
print("ready", flush=True)
sys.stdin.readline()
while True:
    number, ledger = claim(storage, study, 12)
    if number is None:
        break
    trial = optuna.Trial(study, storage.id_of(study, number))
    assert tell(storage, study, trial, [trial.suggest_float("x", 0, 1)], TrialState.COMPLETE)
    print(number, flush=True)
"""


def test_processes_that_claim_at_once_have_each_number_once_and_as_many_as_the_budget_has(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    said = [[int(word) for word in text.split()] for text in four_at_once(WORK, url)]
    assert sorted(number for numbers in said for number in numbers) == list(range(12))
    assert sum(bool(numbers) for numbers in said) > 1  # else they did not compete
    trials = optuna.load_study(study_name="s", storage=url).trials
    assert [(trial.number, trial.state) for trial in trials] == [(number, TrialState.COMPLETE) for number in range(12)]


KILLED = """
import os, signal, sys
import optuna
from fr_ps.search.trial_queue import claim
from fr_ps.search.storage import Storage, open_study
storage = Storage(sys.argv[1], 1)
study, _ = open_study(storage, "s", ["maximize"])
first, _ = claim(storage, study, 3)
trial = optuna.Trial(study, storage.id_of(study, first))
trial.suggest_float("x", 0, 1)
trial.suggest_categorical("y", ["a", "b"])
trial.set_user_attr("run", "r1")
trial.report(0.5, 1)
second, _ = claim(storage, study, 3)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_trials_of_a_killed_worker_are_tried_again_once_with_their_params_and_one_that_gives_signs_of_life_is_not(
    one: Place, other: Place
) -> None:
    """By the clock: one trial was begun, one was only claimed when the worker was killed; a third one is alive."""
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", KILLED, f"sqlite:///{one.file}"], check=False)
    assert done.returncode == -signal.SIGKILL
    assert one.states == ["RUNNING"] * 2
    assert one.claim() == 2
    claimed, again = time.monotonic(), list[int]()
    with heartbeat(one.storage, one.study, 2):
        while len(again) < 2:
            assert time.monotonic() - claimed < 60
            number = other.claim()
            again += [] if number is None else [number]
            assert not again or time.monotonic() - begun > HEARTBEAT_GRACE * BEAT
            time.sleep(0.25)
        time.sleep(max(0.0, claimed + (HEARTBEAT_GRACE + 2) * BEAT - time.monotonic()))
        assert other.claim() is None
    assert again == [3, 4]
    assert one.states == ["FAIL", "FAIL", "RUNNING", "RUNNING", "RUNNING"]
    dead, retry = one.there(0), one.there(3)
    assert retry.params == dead.params
    assert set(dead.params) == {"x", "y"}
    assert (retry.user_attrs, retry.intermediate_values) == ({"run": "r1"}, {1: 0.5})
    trial = other.trial(3)
    assert trial.suggest_float("x", 0, 1) == dead.params["x"]
    assert trial.suggest_categorical("y", ["a", "b"]) == dead.params["y"]
    assert one.there(4).params == {}
    entries = read_slots(one.study, 3).entries
    assert [(entry.state, entry.original) for entry in entries] == [
        *[("killed", 0), ("killed", 1), ("running", 2), ("running", 0), ("running", 1)]
    ]

    one.make_old()  # all die, the third one for the first time
    assert one.claim() == 5
    assert one.claim() is None
    assert one.states == ["FAIL"] * 5 + ["RUNNING"]
    assert one.tell(5, 0.5)
    ledger = read_slots(one.study, 3)
    assert ledger.all_finished
    assert ledger.finished == {3: "killed", 4: "killed", 5: "complete"}
    one.make_old()
    assert one.claim() is None
    assert len(one.states) == 6


def test_a_trial_is_put_back_and_claimed_again_by_its_number_with_its_params(one: Place, other: Place) -> None:
    assert one.claim() == 0
    trial = one.trial(0)
    params = {"x": trial.suggest_float("x", 0, 1), "y": trial.suggest_int("y", 1, 9)}
    trial.report(0.25, 1)
    one.put_back(0)
    assert one.there(0).state == TrialState.WAITING
    assert other.claim() == 0
    again = other.trial(0)
    assert {"x": again.suggest_float("x", 0, 1), "y": again.suggest_int("y", 1, 9)} == params
    assert other.there(0).intermediate_values == {1: 0.25}
    assert other.tell(0, 0.5)
    assert (one.there(0).state, one.there(0).params, one.there(0).value) == (TrialState.COMPLETE, params, 0.5)
    assert one.claim() == 1


def test_a_trial_that_was_put_back_long_ago_is_not_taken_for_dead_when_it_is_claimed(one: Place, other: Place) -> None:
    assert one.claim() == 0
    one.put_back(0)
    one.make_old()
    assert one.claim() == 0
    assert other.claim() == 1
    assert one.states == ["RUNNING", "RUNNING"]


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL], ids=lambda state: state.name)
def test_what_has_ended_is_neither_put_back_nor_ended_again(one: Place, state: TrialState) -> None:
    assert one.claim() == 0
    assert one.tell(0, 0.5 if state == TrialState.COMPLETE else None, state)
    before = one.there(0)
    one.put_back(0)
    assert not one.tell(0, 0.75)
    assert one.there(0) == before
    assert before.state == state


def test_what_was_taken_for_dead_does_not_count_when_it_ends_after_all(one: Place, other: Place) -> None:
    assert one.claim() == 0
    trial = one.trial(0)
    trial.suggest_float("x", 0, 1)
    one.make_old()
    assert other.claim() == 1
    before = [other.there(number) for number in (0, 1)]
    assert [found.state for found in before] == [TrialState.FAIL, TrialState.RUNNING]
    assert not finish_trial(one.storage, one.study, trial, [0.75], TrialState.COMPLETE)
    one.put_back(0)
    assert [other.there(number) for number in (0, 1)] == before
    assert one.there(1).params == before[0].params
    assert other.tell(1, 0.5)
    assert [entry.state for entry in read_slots(one.study, 3).entries] == ["killed", "complete"]


def test_a_worker_that_was_killed_before_it_made_the_retry_leaves_it_to_the_next_one(one: Place) -> None:
    """Marked as failed, and nothing else: Optuna's own callback would be called by the one that is dead."""
    assert one.claim() == 0
    one.storage.rdb.set_trial_state_values(one.storage.trial_id(one.study, 0), TrialState.FAIL)
    assert one.claim() == 1
    assert [trial_entry(trial) for trial in one.study.get_trials()] == [TrialEntry(0, "killed", 0), TrialEntry(1, "running", 0)]
    assert one.claim() == 2


def test_what_others_made_beyond_the_budget_is_never_begun(one: Place) -> None:
    for _ in range(5):
        one.study.add_trial(create_trial(state=TrialState.WAITING))
    assert [one.claim() for _ in range(5)] == [0, 1, 2, None, None]
    for number in range(3):
        one.tell(number, 0.5)
    assert read_slots(one.study, 3).all_finished
    assert one.claim() is None
    assert one.states == ["COMPLETE"] * 3 + ["WAITING"] * 2


def test_a_larger_budget_goes_on_where_a_smaller_one_ended(one: Place) -> None:
    for number in range(3):
        assert one.claim() == number
        one.tell(number, 0.5)
    assert one.claim() is None
    one.budget = 4
    assert [one.claim(), one.claim()] == [3, None]


def test_where_nothing_new_may_be_begun_what_was_begun_is(one: Place, other: Place) -> None:
    assert one.claim(new=False) is None
    assert one.states == []
    assert [one.claim(), one.claim()] == [0, 1]
    one.trial(1).set_user_attr("run", "r1")
    one.put_back(0)
    one.put_back(1)
    assert other.claim(new=False) == 1
    assert other.claim(new=False) is None
    one.make_old()
    assert other.claim(new=False) == 2
    assert other.there(2).user_attrs == {"run": "r1"}
    assert other.claim() == 0
    assert other.claim() == 3


@pytest.mark.parametrize(
    ("state", "attributes", "expected"),
    [
        (TrialState.WAITING, {}, "waiting"),
        (TrialState.RUNNING, {}, "running"),
        (TrialState.COMPLETE, {OUTCOME: "complete"}, "complete"),
        (TrialState.PRUNED, {OUTCOME: "pruned"}, "pruned"),
        (TrialState.FAIL, {OUTCOME: "failed"}, "failed"),
        (TrialState.FAIL, {}, "killed"),
        (TrialState.FAIL, {OUTCOME: "complete"}, "killed"),  # before it could tell
    ],
)
def test_a_trial_that_failed_by_its_workers_word_is_told_apart_from_one_whose_worker_died(
    state: TrialState, attributes: dict[str, Any], expected: str
) -> None:
    trial = create_trial(state=state, value=0.5 if state == TrialState.COMPLETE else None, user_attrs=attributes)
    trial.number = 7
    assert trial_entry(trial) == TrialEntry(7, expected, 7)  # type: ignore[arg-type]
    trial.system_attrs = {"failed_trial": 2, "retry_history": [2]}
    assert trial_entry(trial) == TrialEntry(7, expected, 2)  # type: ignore[arg-type]


def test_a_worker_whose_trial_was_taken_for_dead_lives_on_to_do_the_next(
    one: Place, other: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after the machine was asleep: the trial comes to its end, and the study knows it no more."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody there, which a run is not held up by
    space = {"optim.lr": [0.1, 0.2]}
    search = build_study_spec(SearchConfig(space=space, study=StudyConfig(name="s", storage=f"sqlite:///{one.file}")), Config())
    lines: list[str] = []

    def trained(*_: Any) -> tuple[TrialResult, None]:
        one.make_old()
        assert other.claim() == 1
        return TrialResult("complete", (0.75,), epochs=1), None

    monkeypatch.setattr("fr_ps.search.trial._train_trial", trained)
    assert one.claim() == 0
    bench = WorkerContext(search, one.storage, one.study, ParentRun("", ""), tmp_path / "runs", lines.append)
    assert run_trial(bench, 0, 0).kind == "complete"
    assert any("taken for dead" in line for line in lines)
    assert [(trial.state.name, trial.values) for trial in one.study.get_trials()] == [("FAIL", None), ("RUNNING", None)]
