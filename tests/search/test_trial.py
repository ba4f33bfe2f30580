"""One trial: how each end of its training shows in the study and in the run."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from fr_ps.config import Config, SearchConfig
from fr_ps.config.search import PrunerConfig, StudyConfig
from fr_ps.errors import DatabaseUnreachableError, DiskFullError, InputError, OutOfMemoryError
from fr_ps.evaluation.metrics import Metrics
from fr_ps.search.samplers import build_pruner
from fr_ps.search.spec import build_study_spec
from fr_ps.search.storage import Storage, open_study
from fr_ps.search.trial import TrialResult, WorkerContext, run_trial, trial_run_id
from fr_ps.search.trial_queue import Acquisition, acquire, read_slots, release
from fr_ps.search.worker import _run_next_trial, total_epochs
from fr_ps.tracking.journal import JOURNAL_FILE, read_events
from fr_ps.tracking.listing import last_status
from fr_ps.tracking.run import Run
from fr_ps.tracking.run_folder import ParentRun
from fr_ps.training.divergence import DivergedError
from tests.tracking import servers

OBJECTIVE = "val/identity/auc"


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkerContext:
    """A study with one running trial; MLflow is unreachable."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", servers.refusing())
    monkeypatch.setattr("fr_ps.search.trial._DELIVERY_TIMEOUT", 0.0)
    config = SearchConfig(
        space={"optim.lr": [0.1]},
        study=StudyConfig(name="s", storage=f"sqlite:///{tmp_path}/studies.db"),
        pruner=PrunerConfig(name="median", startup=1, epochs=1),
    )
    spec = build_study_spec(config, Config())
    storage = Storage(config.study.storage, 60)
    open_study(storage, "s", ["maximize"])
    study = optuna.load_study(study_name="s", storage=storage.rdb, pruner=build_pruner(config.pruner, 1, spec.max_epochs))
    return WorkerContext(spec, storage, study, ParentRun("p", "0"), tmp_path / "runs", lambda _line: None)


def ended_by(
    error: BaseException | type[BaseException], epochs: int, context: WorkerContext, patch: pytest.MonkeyPatch
) -> tuple[TrialResult, str, TrialState, str]:
    """Run the next trial, whose training raises `error` after so many epochs; result, status of the run, state, reason."""

    def fit(_config: Config, _run: Any, _echo: Any, on_epoch: Any) -> None:
        for epoch in range(1, epochs + 1):
            on_epoch(epoch, Metrics({OBJECTIVE: 0.5}))
        raise error

    patch.setattr("fr_ps.search.trial.fit", fit)
    number, slots, _ = acquire(context.storage, context.study, 9)
    assert number is not None
    result = run_trial(context, number, slots.slot_of(number))
    assert result is not None
    trial = context.study.get_trials()[number]
    return result, last_status(context.runs / trial_run_id(trial)), trial.state, trial.user_attrs["reason"]


def run_until_stopped(context: WorkerContext) -> tuple[int, int]:
    """Run the next trial, whose training raises KeyboardInterrupt, and release it; its number and slot."""
    number, slots, _ = acquire(context.storage, context.study, 9)
    assert number is not None
    with pytest.raises(KeyboardInterrupt):
        run_trial(context, number, slots.slot_of(number))
    release(context.storage, context.study, number)
    return number, slots.slot_of(number)


@pytest.mark.parametrize(
    ("error", "epochs", "kind", "status", "reason"),
    [
        (DivergedError("no finite loss"), 1, "pruned", "KILLED", "diverged: no finite loss"),
        (InputError("model.x is 1; expected 2"), 0, "pruned", "KILLED", "infeasible settings: model.x is 1; expected 2"),
        (MemoryError("too large"), 1, "pruned", "KILLED", "infeasible settings: too large"),
        (OutOfMemoryError("too little memory"), 1, "pruned", "KILLED", "infeasible settings: too little memory"),
        (InputError("unusable"), 1, "failed", "FAILED", "InputError: unusable"),
        (ValueError("later"), 1, "failed", "FAILED", "ValueError: later"),
        (KeyError("x"), 0, "failed", "FAILED", "KeyError: 'x'"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_of_the_training_ends_the_trial(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch, error: Exception, epochs: int, kind: str, status: str, reason: str
) -> None:
    states = {"pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
    result, run_status, state, stored = ended_by(error, epochs, context, monkeypatch)
    assert (result.outcome, result.epochs, run_status, state, stored) == (kind, epochs, status, states[kind], reason)
    assert result.reason == reason


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, SystemExit, DiskFullError("full; free space"), DatabaseUnreachableError("down; start it")]
)
def test_an_error_outside_the_training_leaves_the_trial_running(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch, error: BaseException | type[BaseException]
) -> None:
    with pytest.raises(error if isinstance(error, type) else type(error)):
        ended_by(error, 1, context, monkeypatch)
    (trial,) = context.study.get_trials()
    assert (trial.state, trial.intermediate_values) == (TrialState.RUNNING, {1: 0.5})
    folder = context.runs / trial_run_id(trial)
    assert last_status(folder) == ("FAILED" if isinstance(error, InputError) else "KILLED")
    states = [
        event.data["fr_ps.trial_state"] for _, event in read_events(folder / JOURNAL_FILE) if "fr_ps.trial_state" in event.data
    ]
    assert states[-1] == "stopped"


def test_the_run_of_a_trial_whose_lease_expired_is_not_marked_as_running(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(*_: Any, on_epoch: Any) -> None:
        (trial,) = context.study.get_trials()
        context.storage.rdb.set_trial_state_values(trial._trial_id, TrialState.FAIL)  # as another worker does after the lease
        on_epoch(1, Metrics({OBJECTIVE: 0.5}))

    monkeypatch.setattr("fr_ps.search.trial.fit", fit)
    number, slots, _ = acquire(context.storage, context.study, 9)
    assert number is not None
    assert run_trial(context, number, slots.slot_of(number)) is None
    (trial,) = context.study.get_trials()
    journal = context.runs / trial_run_id(trial) / JOURNAL_FILE
    states = [event.data["fr_ps.trial_state"] for _, event in read_events(journal) if "fr_ps.trial_state" in event.data]
    assert states == ["running", "stopped"]


def test_a_resumed_trial_whose_settings_another_one_has_completed_copies_its_values(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(_config: Config, run: Run, _echo: Any, on_epoch: Any) -> None:
        for epoch in (1, 2):
            run.log_metrics({"train/lr": 0.001, f"best/{OBJECTIVE}": 0.5}, epoch)
            on_epoch(epoch, Metrics({OBJECTIVE: 0.5}))
        raise KeyboardInterrupt

    monkeypatch.setattr("fr_ps.search.trial.fit", fit)
    study = context.study
    number, slot = run_until_stopped(context)
    (stopped,) = study.get_trials()
    study.add_trial(optuna.create_trial(params=stopped.params, distributions=stopped.distributions, value=0.75))
    assert acquire(context.storage, study, 9).number == number
    result = run_trial(context, number, slot)
    assert result == TrialResult("complete", (0.75,), "same settings as trial 1; values copied", epochs=2)
    assert total_epochs(study) == 2
    history = Run(context.runs / trial_run_id(study.get_trials()[number])).metric_history[f"best/{OBJECTIVE}"]
    assert history[max(history)] == 0.75  # MLflow's tables show the last point


def test_with_several_objectives_a_resumed_trial_continues_its_epochs(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in its first epoch after the resume is no sign of infeasible settings: they trained before."""
    objectives: Any = {OBJECTIVE: "maximize", "cost/parameters": "minimize"}
    spec = replace(context.spec, config=replace(context.spec.config, objectives=objectives))
    open_study(context.storage, "two", list(objectives.values()))
    study = optuna.load_study(study_name="two", storage=context.storage.rdb)
    context = replace(context, spec=spec, study=study)

    def fit(_config: Config, run: Run, _echo: Any, on_epoch: Any) -> None:
        if run.metric_history:
            raise ValueError("after the resume")
        for epoch in (1, 2):
            run.log_metrics({"train/lr": 0.001}, epoch)
            on_epoch(epoch, Metrics({OBJECTIVE: 0.5}))
        raise KeyboardInterrupt

    monkeypatch.setattr("fr_ps.search.trial.fit", fit)
    number, slot = run_until_stopped(context)
    assert total_epochs(study) == 2  # for the budget, although Optuna stores no values of an epoch of such a study
    assert acquire(context.storage, study, 9).number == number
    assert run_trial(context, number, slot) == TrialResult("failed", None, "ValueError: after the resume", 2)


def test_a_retry_that_starts_over_is_not_pruned_by_the_values_of_the_killed_trial(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, calls = context.study, []

    def fit(_config: Config, run: Run, _echo: Any, on_epoch: Any) -> None:
        calls.append(run.id)
        for epoch in ((1, 2), (1,), (2,))[len(calls) - 1]:
            run.log_metrics({"train/lr": 0.001}, epoch)
            on_epoch(epoch, Metrics({OBJECTIVE: 0.3}))
        raise ValueError("the end") if len(calls) == 3 else KeyboardInterrupt

    monkeypatch.setattr("fr_ps.search.trial.fit", fit)
    number, slot = run_until_stopped(context)
    better = dict.fromkeys((1, 2, 3), 0.8)
    (stopped,) = study.get_trials()
    study.add_trial(optuna.create_trial(params={}, distributions={}, value=0.8, intermediate_values=better))
    shutil.rmtree(context.runs / trial_run_id(stopped))  # as on another machine
    assert acquire(context.storage, study, 9).number == number
    with pytest.raises(KeyboardInterrupt):  # there it is stopped once more, and resumes
        run_trial(context, number, slot)
    release(context.storage, study, number)
    assert acquire(context.storage, study, 9).number == number
    assert run_trial(context, number, slot) == TrialResult("failed", None, "ValueError: the end", 2)
    assert calls[0] != calls[1] == calls[2]
    assert total_epochs(study) == 2 + 3  # of the second run, and of the trial that was added


def test_a_resumed_trial_is_pruned_at_an_epoch_that_it_reported_before(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was killed after its report of epoch 3, before the pruner decided."""
    study, calls = context.study, []
    study.add_trial(optuna.create_trial(value=0.8, intermediate_values=dict.fromkeys((1, 2, 3), 0.8)))

    def fit(_config: Config, run: Run, _echo: Any, on_epoch: Any) -> None:
        calls.append(run.id)
        for epoch in (1, 2, 3) if len(calls) == 1 else (3,):
            run.log_metrics({"train/lr": 0.001}, epoch)
            on_epoch(epoch, Metrics({OBJECTIVE: 0.3}))

    def should_prune(trial: optuna.Trial) -> bool:
        if 3 in trial.study.trials[trial.number].intermediate_values:
            raise KeyboardInterrupt
        return False

    monkeypatch.setattr("fr_ps.search.trial.fit", fit)
    number, slots, _ = acquire(context.storage, study, 9)
    assert number is not None
    with monkeypatch.context() as patch:
        patch.setattr(optuna.Trial, "should_prune", should_prune)
        with pytest.raises(KeyboardInterrupt):
            run_trial(context, number, slots.slot_of(number))
    release(context.storage, study, number)
    assert acquire(context.storage, study, 9).number == number
    result = run_trial(context, number, slots.slot_of(number))
    assert result is not None
    assert (result.outcome, result.reason, calls[0] == calls[1]) == ("pruned", "by median after epoch 3", True)


def test_the_pruner_ends_a_trial(context: WorkerContext, monkeypatch: pytest.MonkeyPatch) -> None:
    distributions: Any = {"optim.lr": optuna.distributions.CategoricalDistribution([0.1])}
    better = optuna.create_trial(
        value=0.9, params={"optim.lr": 0.1}, distributions=distributions, intermediate_values={1: 0.9, 2: 0.9, 3: 0.9}
    )
    context.study.add_trial(better)
    monkeypatch.setattr("fr_ps.search.trial._find_duplicate", lambda *_: None)
    result, status, state, reason = ended_by(RuntimeError("not pruned"), 9, context, monkeypatch)
    assert (result.outcome, status, state) == ("pruned", "KILLED", TrialState.PRUNED)
    assert reason == f"by median after epoch {result.epochs}"
    assert 1 <= result.epochs < 9


def test_the_run_id_of_a_trial_is_empty_where_it_is_unsafe_in_a_path() -> None:
    for value in ("../x", "a/b", "", 3, None):
        assert trial_run_id(optuna.create_trial(value=0.1, user_attrs={"run": value})) == ""
    assert trial_run_id(optuna.create_trial(value=0.1, user_attrs={"run": "r1"})) == "r1"


@pytest.mark.parametrize("missed", [[], [0]])
def test_a_worker_waits_for_a_trial_that_another_one_acquired_first(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch, missed: list[int]
) -> None:
    """Only one that another worker runs can need a retry here; without such a trial the worker ends."""

    def acquire_none(storage: Storage, study: optuna.Study, max_trials: int, start_new: bool) -> Acquisition:
        return Acquisition(None, read_slots(study, max_trials), missed)

    monkeypatch.setattr("fr_ps.search.worker.acquire", acquire_none)
    assert _run_next_trial(context, start_new=False) == ("others running" if missed else "none left")
