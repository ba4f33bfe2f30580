"""Taking the next trial of a study, so that each is taken once, and the trial of a dead worker is found."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from fr_ps.search.study.ledger import Entry, Ledger, State
from fr_ps.search.study.storage import Storage, patiently

OUTCOME, REASON = "outcome", "reason"
"""Attributes of a trial: how it ended, as its worker knew, and why."""
_STATES: dict[TrialState, State] = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
}
_again = RetryHeartbeatStaleTrialCallback(max_retry=1, inherit_intermediate_values=True)


def read_ledger(study: optuna.Study, budget: int) -> Ledger:
    """The study's trials as they are now."""
    return Ledger([entry_of(trial) for trial in study.get_trials(deepcopy=False)], budget)


def entry_of(trial: FrozenTrial) -> Entry:
    """A trial for the ledger. One that failed without its worker's word was killed."""
    state = _STATES.get(trial.state)
    if state is None:
        state = "failed" if trial.user_attrs.get(OUTCOME) == "failed" else "killed"
    first = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return Entry(trial.number, state, trial.number if first is None else first)


def claim(storage: Storage, study: optuna.Study, budget: int, new: bool = True) -> tuple[int | None, Ledger]:
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
    with storage.alone():
        fail_stale_trials(study)
        ledger = read_ledger(study, budget)
        trials = study.get_trials(deepcopy=False)
        for number in ledger.to_retry:
            _again(study, trials[number])
        if ledger.to_retry:
            ledger = read_ledger(study, budget)
        if new and not ledger.claimable and ledger.missing > 0:
            study.add_trial(_nobody_began())
            ledger = read_ledger(study, budget)
        for number in ledger.claimable:
            begun = bool(study.get_trials(deepcopy=False)[number].user_attrs)
            if (new or begun) and _take(storage, study, number):
                return number, ledger
    return None, ledger


def put_back(storage: Storage, study: optuna.Study, number: int) -> None:
    """Let a running trial wait, for whoever takes it next to go on with; nothing where it has ended."""
    with suppress(UpdateFinishedTrialError):
        patiently(lambda: storage.rdb.set_trial_state_values(storage.id_of(study, number), TrialState.WAITING))


def tell(storage: Storage, study: optuna.Study, trial: optuna.Trial, values: list[float] | None, state: TrialState) -> bool:
    """End a running trial; False where it was taken for dead in the meantime, and what it came to does not count."""

    def told() -> bool:
        with storage.alone():
            if storage.rdb.get_trial(storage.id_of(study, trial.number)).state != TrialState.RUNNING:
                return False
            try:
                study.tell(trial, values, state)
            except UpdateFinishedTrialError:
                return False
            return True

    return patiently(told)


@contextmanager
def alive(storage: Storage, study: optuna.Study, number: int) -> Iterator[None]:
    """In the block a thread gives signs of life of a trial."""
    over = threading.Event()
    trial_id = patiently(lambda: storage.id_of(study, number))

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


def _take(storage: Storage, study: optuna.Study, number: int) -> bool:
    """Whether the waiting trial could be had."""
    trial_id = storage.id_of(study, number)
    # The sign of life first: Optuna does not look at a running trial without one, and so would never miss a worker that
    # was killed right here.
    storage.rdb.record_heartbeat(trial_id)
    try:
        return storage.rdb.set_trial_state_values(trial_id, TrialState.RUNNING)
    except UpdateFinishedTrialError:
        return False


def _nobody_began() -> FrozenTrial:
    return create_trial(state=TrialState.WAITING)
