"""Taking the next trial of a study, so that each is taken once, and the trial of a dead worker is found."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from fr_ps.search.slots import State, TrialEntry, TrialSlots
from fr_ps.search.storage import Storage, retry

OUTCOME, REASON = "outcome", "reason"
"""Attributes of a trial: how it ended, as its worker knew, and why."""
_STATES: dict[TrialState, State] = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
}
_retry_stale_trial = RetryHeartbeatStaleTrialCallback(max_retry=1, inherit_intermediate_values=True)


def read_slots(study: optuna.Study, budget: int) -> TrialSlots:
    """The study's trials as they are now."""
    return TrialSlots([trial_entry(trial) for trial in study.get_trials(deepcopy=False)], budget)


def trial_entry(trial: FrozenTrial) -> TrialEntry:
    """A trial for the ledger. One that failed without its worker's word was killed."""
    state = _STATES.get(trial.state)
    if state is None:
        state = "failed" if trial.user_attrs.get(OUTCOME) == "failed" else "killed"
    first = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return TrialEntry(trial.number, state, trial.number if first is None else first)


def acquire(storage: Storage, study: optuna.Study, budget: int, start_new: bool = True) -> tuple[int | None, TrialSlots]:
    """Take the next trial.

    Trials whose worker gave no sign of life are marked failed first, and those that are to be tried again are made.

    Args:
        storage: of the study.
        study: that is searched.
        budget: how many places it has.
        new: whether trials that nobody began yet may be begun.

    Returns:
        The number of the trial, which is running from now on, or None where there is none to take; and the ledger.
    """
    with storage.lock():
        fail_stale_trials(study)
        ledger = read_slots(study, budget)
        trials = study.get_trials(deepcopy=False)
        for number in ledger.to_retry:
            _retry_stale_trial(study, trials[number])
        if ledger.to_retry:
            ledger = read_slots(study, budget)
        if start_new and not ledger.ready and ledger.unfilled > 0:
            study.add_trial(_waiting_trial())
            ledger = read_slots(study, budget)
        for number in ledger.ready:
            begun = bool(study.get_trials(deepcopy=False)[number].user_attrs)
            if (start_new or begun) and _set_running(storage, study, number):
                return number, ledger
    return None, ledger


def release(storage: Storage, study: optuna.Study, number: int) -> None:
    """Let a running trial wait, for whoever takes it next to go on with; nothing where it has ended."""
    with suppress(UpdateFinishedTrialError):
        retry(lambda: storage.rdb.set_trial_state_values(storage.trial_id(study, number), TrialState.WAITING))


def finish_trial(
    storage: Storage, study: optuna.Study, trial: optuna.Trial, values: list[float] | None, state: TrialState
) -> bool:
    """End a running trial; False where it was taken for dead in the meantime, and what it came to does not count."""

    def told() -> bool:
        with storage.lock():
            if storage.rdb.get_trial(storage.trial_id(study, trial.number)).state != TrialState.RUNNING:
                return False
            try:
                study.tell(trial, values, state)
            except UpdateFinishedTrialError:
                return False
            return True

    return retry(told)


@contextmanager
def heartbeat(storage: Storage, study: optuna.Study, number: int) -> Iterator[None]:
    """In the block a thread gives signs of life of a trial."""
    over = threading.Event()
    trial_id = retry(lambda: storage.trial_id(study, number))

    def beat() -> None:
        while not over.wait(storage.heartbeat):
            with suppress(StorageInternalError, SQLAlchemyError):  # the next one may come through
                storage.rdb.record_heartbeat(trial_id)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(1.0)


def _set_running(storage: Storage, study: optuna.Study, number: int) -> bool:
    """Whether the waiting trial could be had."""
    trial_id = storage.trial_id(study, number)
    # The sign of life first: Optuna does not look at a running trial without one, and so would never miss a worker that
    # was killed right here.
    storage.rdb.record_heartbeat(trial_id)
    try:
        return storage.rdb.set_trial_state_values(trial_id, TrialState.RUNNING)
    except UpdateFinishedTrialError:
        return False


def _waiting_trial() -> FrozenTrial:
    return create_trial(state=TrialState.WAITING)
