"""One trial of a study: a training that is a run of ours, and what it came to."""

import socket
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import optuna
import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from fr_ps.config import flatten, with_settings
from fr_ps.errors import DiskFullError, InputError, one_line
from fr_ps.evaluation.metrics import Metrics
from fr_ps.files import check_path_component
from fr_ps.markdown import markdown_lines
from fr_ps.search.samplers import build_sampler
from fr_ps.search.space import Value, params_to_settings
from fr_ps.search.spec import StudySpec
from fr_ps.search.storage import Storage, retry
from fr_ps.search.trial_queue import OUTCOME, REASON, finish_trial, heartbeat
from fr_ps.search.trials.cost import COSTS
from fr_ps.tracking.lifecycle import resume_run, start_run
from fr_ps.tracking.run import Run, RunStopped, new_run_id
from fr_ps.tracking.run_folder import RUN_INFO_FILE, ParentRun
from fr_ps.tracking.run_lock import is_locked
from fr_ps.training.guard import DivergedError
from fr_ps.training.train import FitResult, fit

RUN, MLFLOW_RUN, HOST, EPOCHS = "run", "mlflow_run", "host", "epochs"
"""Attributes of a trial: ids of its run, the machine that has its folder, and how many epochs it had."""
TRIAL_TAG = "fr_ps.trial"
_DELIVERY_TIMEOUT = 3.0
"""Seconds for the last words of a trial to reach MLflow; what is left then, the end of the search delivers."""
_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
Say = Callable[[str], None]


@dataclass(frozen=True)
class TrialResult:
    """What a trial came to.

    Attributes:
        kind: how it ended.
        values: of the objectives, if it is complete.
        reason: why it ended before its end, or where its values are from.
        epochs: that were trained.
    """

    kind: Literal["complete", "pruned", "failed"]
    values: tuple[float, ...] | None = None
    reason: str = ""
    epochs: int = 0


class _Pruned(Exception):
    """The pruner has seen enough."""


class _PrunedRun(RunStopped):
    """Ends the run of a trial that was pruned."""


class _FailedRun(Exception):
    """Ends the run of a trial that failed."""


@dataclass(frozen=True)
class WorkerContext:
    """What a worker does its trials with.

    Attributes:
        search: what is searched.
        storage: of the study.
        study: with the pruner of the search.
        parent: the run of the study in MLflow.
        runs: folder of the runs.
        say: called with lines for the log.
    """

    spec: StudySpec
    storage: Storage
    study: optuna.Study
    parent: ParentRun
    runs: Path
    say: Say = print


def run_trial(context: WorkerContext, number: int, slot: int) -> TrialResult:
    """Do the running trial `number` of the study, the `rank`th place of it, to its end.

    One that was begun before goes on from its last checkpoint, where its run's folder is here.

    Raises:
        KeyboardInterrupt, SystemExit: a signal came; a checkpoint is written.
        NoRoom: the disk is full.
        InputError: the database does not answer any more.
    """
    storage, study = context.storage, context.study
    with heartbeat(storage, study, number):
        outcome = TrialResult("failed", reason="was taken for dead")
        try:
            trial, params = retry(lambda: _sample_params(context, number, slot))
            outcome, run_ids = _train_in_run(context, trial, params)
            told: dict[str, str | int] = {OUTCOME: outcome.kind, REASON: outcome.reason, EPOCHS: outcome.epochs, **run_ids}
            retry(lambda: _set_attributes(trial, told))
            counts = finish_trial(storage, study, trial, list(outcome.values) if outcome.values else None, _STATES[outcome.kind])
        except UpdateFinishedTrialError:
            counts = False
    if not counts:  # as after the machine was asleep
        context.say(
            f"trial {number}: was taken for dead by another worker, which tries it again; what came of it here does not count"
        )
    return outcome


def _set_attributes(trial: optuna.Trial, attributes: Mapping[str, str | int]) -> None:
    for name, value in attributes.items():
        trial.set_user_attr(name, value)


def _sample_params(context: WorkerContext, number: int, slot: int) -> tuple[optuna.Trial, dict[str, Value]]:
    """The trial with its settings; those that it has already, it keeps."""
    search, storage, study = context.spec, context.storage, context.study
    trial_id = storage.trial_id(study, number)
    if search.grid:
        storage.rdb.set_trial_system_attr(trial_id, "fixed_params", search.grid[slot])
    study.sampler = build_sampler(search.config.sampler, search.space, search.config.study.seed, number)
    trial = optuna.Trial(study, trial_id)
    return trial, search.space.suggest(trial)


def _train_in_run(context: WorkerContext, trial: optuna.Trial, params: dict[str, Value]) -> tuple[TrialResult, dict[str, str]]:
    """What the trial came to, and the ids of its run, which has ended when this returns."""
    outcome = TrialResult("failed")
    try:
        with _open_run(context, trial) as run:
            run.set_tags({TRIAL_TAG: str(trial.number), "fr_ps.study": context.study.study_name, f"{TRIAL_TAG}_state": "running"})
            try:
                outcome, error = _train_trial(context, trial, params, run)
            except (KeyboardInterrupt, SystemExit):
                run.set_tags({f"{TRIAL_TAG}_state": "stopped"})
                raise
            how = {f"{TRIAL_TAG}_state": outcome.kind, f"{TRIAL_TAG}_reason": outcome.reason, "fr_ps.kind": "trial"}
            note = markdown_lines([f"trial {trial.number}: {outcome.kind}. {outcome.reason}"])
            run.set_tags(how | {"mlflow.note.content": note})
            if outcome.values:
                run.log_metrics(
                    dict(zip((f"objective/{name}" for name in context.spec.objectives), outcome.values)), outcome.epochs
                )
            if outcome.kind == "pruned":
                raise _PrunedRun
            if outcome.kind == "failed":
                raise _FailedRun(outcome.reason) from error
    except (_PrunedRun, _FailedRun):
        pass
    # MLflow may have heard of a short trial only at its end.
    return outcome, {RUN: run.id} | ({MLFLOW_RUN: run.mlflow_id} if run.mlflow_id else {})


def trial_run_id(trial: optuna.Trial | FrozenTrial) -> str:
    """The id of a trial's run, which names its folder; empty where it has none that is safe in a path, as who knows who
    writes to the database."""
    found = trial.user_attrs.get(RUN, "")
    try:
        return check_path_component(found, RUN) if isinstance(found, str) else ""
    except InputError:
        return ""


def _open_run(context: WorkerContext, trial: optuna.Trial) -> AbstractContextManager[Run]:
    """The trial's run: the one that it was begun with, if its folder is here and nobody has it; else a new one."""
    sampled = context.spec.base.train.system_metrics
    before = trial_run_id(trial)
    folder = context.runs / before
    if before and (folder / RUN_INFO_FILE).is_file() and not is_locked(folder):
        return resume_run(folder, context.say, _DELIVERY_TIMEOUT, sampled)
    run_id = new_run_id()
    retry(lambda: trial.set_user_attr(RUN, run_id))
    retry(lambda: trial.set_user_attr(HOST, socket.gethostname()))
    name = f"{context.study.study_name}-{trial.number:03d}"
    return start_run(name, context.runs, context.say, context.parent, _DELIVERY_TIMEOUT, run_id, sampled)


def _train_trial(
    context: WorkerContext, trial: optuna.Trial, params: dict[str, Value], run: Run
) -> tuple[TrialResult, BaseException | None]:
    """Train, unless a finished trial had the same settings; what it came to, and the error behind it, if there was one."""
    if twin := retry(lambda: _find_duplicate(context.study, trial.number, params)):
        run.log_params(flatten(with_settings(context.spec.base, params_to_settings(params))))
        reason = f"the same settings as trial {twin.number}, whose values these are"
        return TrialResult("complete", tuple(twin.values or ()), reason, int(twin.user_attrs.get(EPOCHS, 0))), None
    judge = _PruningCallback(context, trial)
    try:
        config = with_settings(context.spec.base, params_to_settings(params))
    except InputError as error:
        return TrialResult("pruned", reason=f"cannot be built: {error}"), error
    try:
        fitted = fit(replace(config, name=f"{context.study.study_name}-{trial.number:03d}"), run, context.say, judge)
        return TrialResult("complete", _objective_values(context.spec, fitted), epochs=fitted.state.epoch), None
    except _Pruned:
        return TrialResult(
            "pruned", reason=f"by {context.spec.config.pruner.name} after epoch {judge.epoch}", epochs=judge.epoch
        ), None
    except (DiskFullError, UpdateFinishedTrialError):
        raise
    except DivergedError as error:
        return TrialResult("pruned", reason=f"came to nothing: {error}", epochs=judge.epoch), error
    except Exception as error:  # whatever a training does, the study goes on
        context.say(f"trial {trial.number}: {type(error).__name__}: {one_line(error)}")
        if _is_infeasible(error, judge.epoch):
            return TrialResult("pruned", reason=f"cannot be built: {one_line(error)}", epochs=judge.epoch), error
        traceback.print_exception(error)
        return TrialResult("failed", reason=f"{type(error).__name__}: {one_line(error)}", epochs=judge.epoch), error


class _PruningCallback:
    """Reports each epoch to the study, and prunes.

    Attributes:
        epoch: the last one that was trained; 0 for none.
    """

    def __init__(self, context: WorkerContext, trial: optuna.Trial) -> None:
        self.trial = trial
        (self.objective,) = context.spec.objectives if len(context.spec.objectives) == 1 else ("",)
        there = retry(lambda: context.storage.rdb.get_trial(context.storage.trial_id(context.study, trial.number)))
        self.reported_epochs = set(there.intermediate_values)
        self.epoch = max(self.reported_epochs, default=0)

    def __call__(self, epoch: int, validation: Metrics) -> None:
        self.epoch = max(self.epoch, epoch)
        value = validation.values.get(self.objective)
        if value is None:  # several objectives, which Optuna does not prune by, or a cost
            return
        if epoch not in self.reported_epochs:
            retry(lambda: self.trial.report(value, epoch))
        if retry(self.trial.should_prune):
            raise _Pruned


def _find_duplicate(study: optuna.Study, number: int, params: dict[str, Value]) -> FrozenTrial | None:
    """A finished trial with the same settings."""
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return next((one for one in finished if one.params == params and one.number != number), None)


def _objective_values(spec: StudySpec, result: FitResult) -> tuple[float, ...]:
    """Of the objectives, at the best epoch."""
    found = result.state.best_metrics.values
    network, size = result.state.ema.network, result.setup.info.size
    values = [COSTS[name](network, size) if name in COSTS else found[name] for name in spec.objectives]
    return tuple(float(value) for value in values if value is not None)


def _is_infeasible(error: Exception, epoch: int) -> bool:
    """Whether the settings are to blame: there is not enough memory for them, or they fit together in no network."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error):
        return True
    return epoch == 0 and isinstance(error, (InputError, RuntimeError, ValueError))
