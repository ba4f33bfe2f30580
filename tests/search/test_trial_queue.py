"""The queue of trials: acquired by processes that finish them, release them, or are killed."""

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
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState, create_trial

from fr_ps.config import Config, SearchConfig
from fr_ps.config.search import StudyConfig
from fr_ps.search import trial_queue
from fr_ps.search.slots import TrialEntry
from fr_ps.search.spec import build_study_spec
from fr_ps.search.storage import HEARTBEAT_GRACE, Storage, open_study
from fr_ps.search.trial import TrialResult, WorkerContext, run_trial
from fr_ps.search.trial_queue import OUTCOME, acquire, finish_trial, heartbeat, read_slots, release, trial_entry
from fr_ps.tracking.run_folder import ParentRun
from tests.search.conftest import four_at_once

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
BEAT = 1


class QueueUser:
    """A worker's view of the queue: the study of a file, with a database connection of its own.

    Args:
        file: of SQLite.
        max_trials: number of slots.
    """

    def __init__(self, file: Path, max_trials: int) -> None:
        self.file, self.max_trials = file, max_trials
        self.storage = Storage(f"sqlite:///{file}", BEAT)
        self.study, _ = open_study(self.storage, "s", ["maximize"])

    def acquire(self, new: bool = True) -> int | None:
        return acquire(self.storage, self.study, self.max_trials, new).number

    def trial(self, number: int) -> optuna.Trial:
        return optuna.Trial(self.study, self.storage.trial_id(self.study, number))

    def finish(self, number: int, value: float | None = None, state: TrialState = TrialState.COMPLETE) -> bool:
        return finish_trial(self.storage, self.study, self.trial(number), None if value is None else [value], state)

    def release(self, number: int) -> None:
        release(self.storage, self.study, number)

    def stored(self, number: int) -> FrozenTrial:
        return self.study.get_trials()[number]

    @property
    def states(self) -> list[str]:
        return [trial.state.name for trial in self.study.get_trials(deepcopy=False)]

    def expire(self) -> None:
        """Date all heartbeats back by an hour."""
        connection = sqlite3.connect(self.file)
        connection.execute("UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, '-1 hour')")
        connection.commit()
        connection.close()


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an empty study, made once as its tables take a second."""
    file = tmp_path_factory.mktemp("empty") / "studies.db"
    QueueUser(file, max_trials=3).storage.rdb.engine.dispose()
    return file


@pytest.fixture
def one(empty: Path, tmp_path: Path) -> QueueUser:
    return QueueUser(Path(shutil.copy(empty, tmp_path)), max_trials=3)


@pytest.fixture
def other(one: QueueUser) -> QueueUser:
    return QueueUser(one.file, max_trials=3)


WORK = """
import sys
import optuna
from optuna.trial import TrialState
from fr_ps.search.trial_queue import acquire, finish_trial
from fr_ps.search.storage import Storage, open_study
storage = Storage(sys.argv[1], 60)
study, _ = open_study(storage, "s", ["maximize"])
print("ready", flush=True)
sys.stdin.readline()
while True:
    number = acquire(storage, study, 12).number
    if number is None:
        break
    trial = optuna.Trial(study, storage.trial_id(study, number))
    assert finish_trial(storage, study, trial, [trial.suggest_float("x", 0, 1)], TrialState.COMPLETE)
    print(number, flush=True)
"""


@pytest.mark.slow
def test_processes_that_acquire_at_once_get_each_trial_once_up_to_the_budget(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    acquired = [[int(word) for word in text.split()] for text in four_at_once(WORK, url)]
    assert sorted(number for numbers in acquired for number in numbers) == list(range(12))
    assert sum(bool(numbers) for numbers in acquired) > 1  # otherwise they did not compete
    trials = optuna.load_study(study_name="s", storage=url).trials
    assert [(trial.number, trial.state) for trial in trials] == [(number, TrialState.COMPLETE) for number in range(12)]


KILLED = """
import os, signal, sys
import optuna
from fr_ps.search.trial_queue import acquire
from fr_ps.search.storage import Storage, open_study
storage = Storage(sys.argv[1], 1)
study, _ = open_study(storage, "s", ["maximize"])
first = acquire(storage, study, 3).number
trial = optuna.Trial(study, storage.trial_id(study, first))
trial.suggest_float("x", 0, 1)
trial.suggest_categorical("y", ["a", "b"])
trial.set_user_attr("run", "r1")
trial.report(0.5, 1)
second = acquire(storage, study, 3).number
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_trials_of_a_killed_worker_are_retried_once_with_their_params_and_one_with_heartbeats_is_not(
    one: QueueUser, other: QueueUser
) -> None:
    """By the clock. Of the killed worker one trial has params, one is only acquired; a third trial has heartbeats."""
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", KILLED, f"sqlite:///{one.file}"], check=False)
    assert done.returncode == -signal.SIGKILL
    assert one.states == ["RUNNING"] * 2
    assert one.acquire() == 2
    acquired, retries = time.monotonic(), list[int]()
    with heartbeat(one.storage, one.study, 2):
        while len(retries) < 2:
            assert time.monotonic() - acquired < 60
            number = other.acquire()
            retries += [] if number is None else [number]
            assert not retries or time.monotonic() - started > HEARTBEAT_GRACE * BEAT
            time.sleep(0.25)
        time.sleep(max(0.0, acquired + (HEARTBEAT_GRACE + 2) * BEAT - time.monotonic()))
        assert other.acquire() is None
    assert retries == [3, 4]
    assert one.states == ["FAIL", "FAIL", "RUNNING", "RUNNING", "RUNNING"]
    dead, retry = one.stored(0), one.stored(3)
    assert retry.params == dead.params
    assert set(dead.params) == {"x", "y"}
    assert (retry.user_attrs, retry.intermediate_values) == ({"run": "r1"}, {1: 0.5})
    trial = other.trial(3)
    assert trial.suggest_float("x", 0, 1) == dead.params["x"]
    assert trial.suggest_categorical("y", ["a", "b"]) == dead.params["y"]
    assert one.stored(4).params == {}
    entries = read_slots(one.study, 3).entries
    assert [(entry.state, entry.original) for entry in entries] == [
        *[("killed", 0), ("killed", 1), ("running", 2), ("running", 0), ("running", 1)]
    ]

    one.expire()  # all leases expire, that of the third trial for the first time
    assert one.acquire() == 5
    assert one.acquire() is None
    assert one.states == ["FAIL"] * 5 + ["RUNNING"]
    assert one.finish(5, 0.5)
    slots = read_slots(one.study, 3)
    assert slots.all_finished
    assert slots.finished == {3: "killed", 4: "killed", 5: "complete"}
    one.expire()
    assert one.acquire() is None
    assert len(one.states) == 6


def test_a_released_trial_is_acquired_again_with_its_number_and_params(one: QueueUser, other: QueueUser) -> None:
    assert one.acquire() == 0
    trial = one.trial(0)
    params = {"x": trial.suggest_float("x", 0, 1), "y": trial.suggest_int("y", 1, 9)}
    trial.report(0.25, 1)
    one.release(0)
    assert one.stored(0).state == TrialState.WAITING
    assert other.acquire() == 0
    again = other.trial(0)
    assert {"x": again.suggest_float("x", 0, 1), "y": again.suggest_int("y", 1, 9)} == params
    assert other.stored(0).intermediate_values == {1: 0.25}
    assert other.finish(0, 0.5)
    assert (one.stored(0).state, one.stored(0).params, one.stored(0).value) == (TrialState.COMPLETE, params, 0.5)
    assert one.acquire() == 1


def test_a_trial_that_was_released_long_ago_has_a_fresh_lease_when_it_is_acquired(one: QueueUser, other: QueueUser) -> None:
    assert one.acquire() == 0
    one.release(0)
    one.expire()
    assert one.acquire() == 0
    assert other.acquire() == 1
    assert one.states == ["RUNNING", "RUNNING"]


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL], ids=lambda state: state.name)
def test_an_ended_trial_is_neither_released_nor_ended_again(one: QueueUser, state: TrialState) -> None:
    assert one.acquire() == 0
    assert one.finish(0, 0.5 if state == TrialState.COMPLETE else None, state)
    before = one.stored(0)
    one.release(0)
    assert not one.finish(0, 0.75)
    assert one.stored(0) == before
    assert before.state == state


def test_a_trial_with_an_expired_lease_does_not_count_when_it_ends(one: QueueUser, other: QueueUser) -> None:
    assert one.acquire() == 0
    trial = one.trial(0)
    trial.suggest_float("x", 0, 1)
    one.expire()
    assert other.acquire() == 1
    before = [other.stored(number) for number in (0, 1)]
    assert [found.state for found in before] == [TrialState.FAIL, TrialState.RUNNING]
    assert not finish_trial(one.storage, one.study, trial, [0.75], TrialState.COMPLETE)
    one.release(0)
    assert [other.stored(number) for number in (0, 1)] == before
    assert one.stored(1).params == before[0].params
    assert other.finish(1, 0.5)
    assert [entry.state for entry in read_slots(one.study, 3).entries] == ["killed", "complete"]


def test_a_result_counts_once_if_the_connection_breaks_after_the_database_stored_it(
    one: QueueUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert one.acquire() == 0
    tell, calls = one.study.tell, []

    def tell_and_lose_the_reply(*arguments: Any) -> None:
        calls.append(arguments)
        tell(*arguments)
        raise StorageInternalError("server closed the connection unexpectedly")

    monkeypatch.setattr(one.study, "tell", tell_and_lose_the_reply)
    assert one.finish(0, 0.75)
    assert len(calls) == 1
    assert one.stored(0).value == 0.75


def test_a_result_counts_if_the_database_stores_it_while_the_worker_tries_again(
    one: QueueUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second attempt finds the trial running, and the first one is stored before the second one is."""
    assert one.acquire() == 0
    tell, calls = one.study.tell, []

    def lose_the_connection_then_tell_twice(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 1:
            raise StorageInternalError("server closed the connection unexpectedly")
        tell(*arguments)
        raise UpdateFinishedTrialError("Trial#0 has already finished and can not be updated.")

    monkeypatch.setattr(one.study, "tell", lose_the_connection_then_tell_twice)
    assert one.finish(0, 0.75)
    assert len(calls) == 2
    assert one.stored(0).value == 0.75


def test_a_lease_that_expires_just_before_the_result_is_stored_discards_the_result(
    one: QueueUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert one.acquire() == 0
    tell = one.study.tell

    def expire_then_tell(*arguments: Any) -> None:
        one.storage.rdb.set_trial_state_values(one.storage.trial_id(one.study, 0), TrialState.FAIL)
        tell(*arguments)  # raises ValueError: Cannot tell a FAIL trial.

    monkeypatch.setattr(one.study, "tell", expire_then_tell)
    assert not one.finish(0, 0.75)
    monkeypatch.setattr(one.study, "tell", tell)
    assert one.acquire() == 1
    with pytest.raises(ValueError, match="values"):  # another ValueError is none of these
        finish_trial(one.storage, one.study, one.trial(1), [0.5, 0.5], TrialState.COMPLETE)


def test_a_retry_that_a_killed_worker_did_not_add_is_added_by_the_next_one(one: QueueUser) -> None:
    """The trial is marked as failed only: Optuna's own callback runs in the process that marks it."""
    assert one.acquire() == 0
    one.storage.rdb.set_trial_state_values(one.storage.trial_id(one.study, 0), TrialState.FAIL)
    assert one.acquire() == 1
    assert [trial_entry(trial) for trial in one.study.get_trials()] == [TrialEntry(0, "killed", 0), TrialEntry(1, "running", 0)]
    assert one.acquire() == 2


def test_trials_beyond_the_budget_never_start(one: QueueUser) -> None:
    for _ in range(5):
        one.study.add_trial(create_trial(state=TrialState.WAITING))
    assert [one.acquire() for _ in range(5)] == [0, 1, 2, None, None]
    for number in range(3):
        one.finish(number, 0.5)
    assert read_slots(one.study, 3).all_finished
    assert one.acquire() is None
    assert one.states == ["COMPLETE"] * 3 + ["WAITING"] * 2


def test_a_larger_budget_continues_after_a_smaller_one(one: QueueUser) -> None:
    for number in range(3):
        assert one.acquire() == number
        one.finish(number, 0.5)
    assert one.acquire() is None
    one.max_trials = 4
    assert [one.acquire(), one.acquire()] == [3, None]


def test_without_new_trials_only_started_ones_are_acquired(one: QueueUser, other: QueueUser) -> None:
    assert one.acquire(new=False) is None
    assert one.states == []
    assert [one.acquire(), one.acquire()] == [0, 1]
    one.trial(1).set_user_attr("run", "r1")
    one.release(0)
    one.release(1)
    assert other.acquire(new=False) == 1
    assert other.acquire(new=False) is None
    one.expire()
    assert other.acquire(new=False) == 2
    assert other.stored(2).user_attrs == {"run": "r1"}
    assert other.acquire() == 0
    assert other.acquire() == 3


@pytest.mark.parametrize("new", [True, False])
def test_a_trial_that_another_worker_sets_to_running_first_is_missed(
    one: QueueUser, other: QueueUser, monkeypatch: pytest.MonkeyPatch, new: bool
) -> None:
    """Both workers read the slots before either acquires, as with PostgreSQL, whose database `Storage.lock` does not lock."""
    assert [one.acquire(), one.acquire()] == [0, 1]
    one.trial(1).set_user_attr("run", "r1")
    one.release(0)
    one.release(1)

    def set_running_second(storage: Storage, study: optuna.Study, number: int) -> bool:
        assert set_running(other.storage, other.study, number)
        return set_running(storage, study, number)

    set_running = trial_queue._set_running
    monkeypatch.setattr(trial_queue, "_set_running", set_running_second)
    number, slots, missed = acquire(one.storage, one.study, 2, new)
    assert (number, slots.running, missed) == (None, [], [0, 1] if new else [1])


@pytest.mark.parametrize(
    ("state", "attributes", "expected"),
    [
        (TrialState.WAITING, {}, "waiting"),
        (TrialState.RUNNING, {}, "running"),
        (TrialState.COMPLETE, {OUTCOME: "complete"}, "complete"),
        (TrialState.PRUNED, {OUTCOME: "pruned"}, "pruned"),
        (TrialState.FAIL, {OUTCOME: "failed"}, "failed"),
        (TrialState.FAIL, {}, "killed"),
        (TrialState.FAIL, {OUTCOME: "complete"}, "killed"),  # killed before it could finish the trial
    ],
)
def test_a_failed_trial_and_a_killed_one_have_different_states(
    state: TrialState, attributes: dict[str, Any], expected: str
) -> None:
    trial = create_trial(state=state, value=0.5 if state == TrialState.COMPLETE else None, user_attrs=attributes)
    trial.number = 7
    assert trial_entry(trial) == TrialEntry(7, expected, 7)  # type: ignore[arg-type]
    trial.system_attrs = {"failed_trial": 2, "retry_history": [2]}
    assert trial_entry(trial) == TrialEntry(7, expected, 2)  # type: ignore[arg-type]


def test_a_worker_whose_lease_expired_discards_the_result_and_continues(
    one: QueueUser, other: QueueUser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after the machine was asleep."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # unreachable, which does not block a run
    space = {"optim.lr": [0.1, 0.2]}
    spec = build_study_spec(SearchConfig(space=space, study=StudyConfig(name="s", storage=f"sqlite:///{one.file}")), Config())
    lines: list[str] = []

    def train_trial(*_: Any) -> TrialResult:
        one.expire()
        assert other.acquire() == 1
        return TrialResult("complete", (0.75,), epochs=1)

    monkeypatch.setattr("fr_ps.search.trial._DELIVERY_TIMEOUT", 0.0)
    monkeypatch.setattr("fr_ps.search.trial._train_or_copy", train_trial)
    assert one.acquire() == 0
    context = WorkerContext(spec, one.storage, one.study, ParentRun("", ""), tmp_path / "runs", lines.append)
    assert run_trial(context, 0, 0) is None
    assert any("lease expired, result discarded" in line for line in lines)
    assert [(trial.state.name, trial.values) for trial in one.study.get_trials()] == [("FAIL", None), ("RUNNING", None)]
