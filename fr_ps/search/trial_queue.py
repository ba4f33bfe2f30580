"""The queue of a study's trials in its database: acquire, heartbeat, finish, release. Each trial runs in one worker at a time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from fr_ps.search.slots import State, TrialEntry, TrialSlots
from fr_ps.search.storage import Storage, with_database_retries

OUTCOME, REASON, EPOCHS = "outcome", "reason", "epochs"
"""Attributes of a trial in the database: how it ended, why, and the number of trained epochs."""
RUN, MLFLOW_RUN, HOST = "run", "mlflow_run", "host"
"""Attributes of a trial in the database: ids of its run, and the machine with the run's folder."""
_STATE_NAMES: dict[TrialState, State] = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
}
_add_retry = RetryHeartbeatStaleTrialCallback(max_retry=1, inherit_intermediate_values=True)
"""Adds the retry of a killed trial, with its settings and attributes. `RUN` is one of them, so the retry finds the run."""


def read_slots(study: optuna.Study, max_trials: int) -> TrialSlots:
    """The slots of the study as they are in the database now."""
    return TrialSlots([trial_entry(trial) for trial in study.get_trials(deepcopy=False)], max_trials)


def trial_entry(trial: FrozenTrial) -> TrialEntry:
    """The entry of a trial. A trial in Optuna's state FAIL without the outcome `failed` was killed."""
    state = _STATE_NAMES.get(trial.state)
    if state is None:
        state = "failed" if trial.user_attrs.get(OUTCOME) == "failed" else "killed"
    original = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return TrialEntry(trial.number, state, trial.number if original is None else original)


class Acquisition(NamedTuple):
    """What `acquire` did.

    Attributes:
        number: of the trial that it set to running; None where there is none.
        slots: as read after `acquire` had added retries and a new trial, and before it set the trial to running.
        missed: numbers of the trials that another worker set to running first.
    """

    number: int | None
    slots: TrialSlots
    missed: list[int]


def acquire(storage: Storage, study: optuna.Study, max_trials: int, start_new: bool = True) -> Acquisition:
    """Set the next trial to running.

    First, running trials without a recent heartbeat become killed (Optuna's state FAIL). Each of them gets a retry, unless it is
    a retry itself.

    Args:
        storage: of the study.
        study: in that storage.
        max_trials: number of slots, each of which is a trial and its retry.
        start_new: whether trials that never ran may start.
    """
    with storage.lock():
        fail_stale_trials(study)
        slots = read_slots(study, max_trials)
        trials = study.get_trials(deepcopy=False)
        for number in slots.to_retry:
            _add_retry(study, trials[number])
        if slots.to_retry:
            slots = read_slots(study, max_trials)
        if start_new and not slots.waiting and slots.unfilled > 0:
            study.add_trial(create_trial(state=TrialState.WAITING))
            slots = read_slots(study, max_trials)
        # `RUN` is stored when the run of a trial is opened: a trial that has it was started before.
        trials = study.get_trials(deepcopy=False)
        startable = [number for number in slots.waiting if start_new or RUN in trials[number].user_attrs]
        missed: list[int] = []
        for number in startable:
            if _set_running(storage, study, number):
                return Acquisition(number, slots, missed)
            missed.append(number)
    return Acquisition(None, slots, missed)


def release(storage: Storage, study: optuna.Study, number: int) -> None:
    """Set a running trial to waiting: the next worker that acquires it resumes it. A trial that has ended stays as it is."""
    with suppress(UpdateFinishedTrialError):
        with_database_retries(lambda: storage.rdb.set_trial_state_values(storage.trial_id(study, number), TrialState.WAITING))


def finish_trial(
    storage: Storage, study: optuna.Study, trial: optuna.Trial, values: list[float] | None, state: TrialState
) -> bool:
    """End a running trial; False if it no longer runs: its lease expired, and a worker has set it to killed (see `acquire`)."""
    was_sent = False

    def stored_state() -> TrialState:
        return storage.rdb.get_trial(storage.trial_id(study, trial.number)).state

    def finish() -> bool:
        nonlocal was_sent
        with storage.lock():
            was_sent_before = was_sent
            if stored_state() == TrialState.RUNNING:
                was_sent = True
                try:
                    study.tell(trial, values, state)
                    return True
                except (UpdateFinishedTrialError, ValueError):  # both are raised for a trial that has ended
                    if stored_state() == TrialState.RUNNING:
                        raise
            return was_sent_before and stored_state() == state  # the database stored an earlier attempt, whose reply was lost

    return with_database_retries(finish)


@contextmanager
def heartbeat(storage: Storage, study: optuna.Study, number: int) -> Iterator[None]:
    """In the block, a thread records heartbeats of a trial."""
    stopped = threading.Event()
    trial_id = with_database_retries(lambda: storage.trial_id(study, number))

    def beat() -> None:
        while not stopped.wait(storage.heartbeat):
            with suppress(StorageInternalError, SQLAlchemyError):  # the next one may succeed
                storage.rdb.record_heartbeat(trial_id)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(1.0)


def _set_running(storage: Storage, study: optuna.Study, number: int) -> bool:
    """Set a waiting trial to running; False where another worker was faster."""
    trial_id = storage.trial_id(study, number)
    # A heartbeat is recorded first: Optuna does not expire a running trial that has none. If this worker were killed before its
    # first heartbeat, the trial would stay running forever.
    storage.rdb.record_heartbeat(trial_id)
    try:
        return storage.rdb.set_trial_state_values(trial_id, TrialState.RUNNING)
    except UpdateFinishedTrialError:
        return False
