"""One trial of a study: a training with sampled settings, in a run of its own."""

import socket
import traceback
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import optuna
import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from fr_ps.config import flatten, with_settings
from fr_ps.errors import DatabaseUnreachableError, DiskFullError, InputError, OutOfMemoryError, one_line
from fr_ps.evaluation.metrics import Metrics
from fr_ps.files import check_path_component
from fr_ps.markdown import markdown_lines
from fr_ps.models.cost import COSTS
from fr_ps.progress import Echo
from fr_ps.search.samplers import build_sampler
from fr_ps.search.space import Value, params_to_settings
from fr_ps.search.spec import StudySpec
from fr_ps.search.storage import Storage, with_database_retries
from fr_ps.search.trial_queue import EPOCHS, HOST, MLFLOW_RUN, OUTCOME, REASON, RUN, finish_trial, heartbeat
from fr_ps.tracking.lifecycle import resume_run, start_run
from fr_ps.tracking.run import EndRunAsKilled, Run, new_run_id
from fr_ps.tracking.run_folder import RUN_INFO_FILE, ParentRun
from fr_ps.tracking.run_lock import is_locked
from fr_ps.training.divergence import DivergedError
from fr_ps.training.train import FitResult, fit

TRIAL_TAG = "fr_ps.trial"
_EPOCH_METRIC = "train/lr"
"""A metric that every epoch of a training logs, unlike the losses: an epoch in which all steps were skipped logs no loss."""
_DELIVERY_TIMEOUT = 3.0
"""At its end, a trial waits for the delivery of its events. The wait ends after this many seconds without an acknowledgement.

Undelivered events are sent later. When all trials have ended, the leader sends those of the trials on its machine. For trials on
another machine, the user runs `fr-ps sync` there.
"""
_FINAL_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclass(frozen=True)
class TrialResult:
    """Result of a trial.

    Attributes:
        outcome: complete; pruned: ended by the pruner, diverged, or with infeasible settings; failed: any other error.
        values: of the objectives, where it is complete.
        reason: why it ended early; or, if its values were copied, the trial that they are from.
        epochs: number of trained epochs.
    """

    outcome: Literal["complete", "pruned", "failed"]
    values: tuple[float, ...] | None = None
    reason: str = ""
    epochs: int = 0


class _Pruned(Exception):
    """The pruner ends the training."""


class _TrialFailed(Exception):
    """Raised inside the block of a trial's run, to give the run the status FAILED."""


@dataclass(frozen=True)
class WorkerContext:
    """Everything that a worker needs to run trials.

    Attributes:
        spec: of the study.
        storage: of the study.
        study: with the pruner of the spec.
        parent: the study's run in MLflow.
        runs: folder of the runs.
        echo: called with lines for the log.
    """

    spec: StudySpec
    storage: Storage
    study: optuna.Study
    parent: ParentRun
    runs: Path
    echo: Echo = print


def run_trial(context: WorkerContext, number: int, slot: int) -> TrialResult | None:
    """Run the acquired trial `number` to its end.

    A trial that was started before resumes from its last checkpoint if its run folder is on this machine and not locked by
    another process; if not, it starts over in a new run.

    Args:
        context: of the worker.
        number: of the trial.
        slot: index of its slot; with a grid, also of its combination.

    Returns:
        The result; None if it was discarded because the lease of the trial expired.

    Raises:
        KeyboardInterrupt, SystemExit: on a signal, after a checkpoint.
        DiskFullError: the disk is full.
        DatabaseUnreachableError: the database was unreachable for ten minutes. The trial stays running until its lease expires.
    """
    storage, study = context.storage, context.study
    with heartbeat(storage, study, number), suppress(UpdateFinishedTrialError):
        trial, params = with_database_retries(lambda: _sample_params(context, number, slot))
        run, result = _train_in_run(context, trial, params)
        attributes: dict[str, str | int] = {OUTCOME: result.outcome, REASON: result.reason, EPOCHS: result.epochs}
        # `MLFLOW_RUN` is stored only now, since `run.mlflow_id` is None until the delivery thread has created the run in MLflow.
        if run.mlflow_id:
            attributes[MLFLOW_RUN] = run.mlflow_id
        with_database_retries(lambda: _set_attributes(trial, attributes))
        if finish_trial(storage, study, trial, list(result.values) if result.values else None, _FINAL_STATES[result.outcome]):
            return result
    # Reached by `UpdateFinishedTrialError`, or where `finish_trial` returns False: the lease expired, for example while the
    # machine was suspended. The trial gets a retry, unless it is one.
    context.echo(f"trial {number}: lease expired, result discarded; a trial whose lease expired is retried once")
    return None


def trial_run_id(trial: optuna.Trial | FrozenTrial) -> str:
    """Id of a trial's run, which is the name of its folder; empty without a run.

    Also empty if the id is unsafe as a path: anyone with access to the database can change it.
    """
    run_id = trial.user_attrs.get(RUN, "")
    try:
        return check_path_component(run_id, RUN) if isinstance(run_id, str) else ""
    except InputError:
        return ""


def _sample_params(context: WorkerContext, number: int, slot: int) -> tuple[optuna.Trial, dict[str, Value]]:
    """The trial and its sampled settings. A trial that ran before keeps its settings."""
    spec, storage, study = context.spec, context.storage, context.study
    trial_id = storage.trial_id(study, number)
    if spec.grid:  # as `study.enqueue_trial` does: `suggest` returns these values
        storage.rdb.set_trial_system_attr(trial_id, "fixed_params", spec.grid[slot])
    study.sampler = build_sampler(spec.config.sampler, spec.space, spec.config.study.seed, number)
    trial = optuna.Trial(study, trial_id)  # reads the fixed params and prepares the sampler, which are set above
    return trial, spec.space.suggest(trial)  # Optuna returns the stored value of a param that the trial already has


def _train_in_run(context: WorkerContext, trial: optuna.Trial, params: dict[str, Value]) -> tuple[Run, TrialResult]:
    """Train in a run of the trial; returns the run, already closed with the status of the outcome, and the result."""
    # The block raises EndRunAsKilled or _TrialFailed to end the run as KILLED or FAILED; `suppress` then drops the exception.
    with suppress(EndRunAsKilled, _TrialFailed), _open_run(context, trial) as run:
        run.set_tags({TRIAL_TAG: str(trial.number), "fr_ps.study": context.study.study_name, f"{TRIAL_TAG}_state": "running"})
        try:
            result = _train_or_copy(context, trial, params, run)
        except (KeyboardInterrupt, SystemExit, DiskFullError, DatabaseUnreachableError, UpdateFinishedTrialError):
            run.set_tags({f"{TRIAL_TAG}_state": "stopped"})
            raise
        note = markdown_lines([f"trial {trial.number}: {result.outcome}. {result.reason}"])
        tags = {f"{TRIAL_TAG}_state": result.outcome, f"{TRIAL_TAG}_reason": result.reason}
        # `fr_ps.kind` is set after the training, because `fit` sets it to `train`.
        run.set_tags(tags | {"fr_ps.kind": "trial", "mlflow.note.content": note})
        if result.values:
            # The study's run and other trainings use the names `best/...` too, so one column of MLflow's table sorts all runs.
            best = {f"best/{name}": value for name, value in zip(context.spec.objectives, result.values)}
            run.log_final_metrics(best, result.epochs)
        if result.outcome == "pruned":
            raise EndRunAsKilled
        if result.outcome == "failed":
            raise _TrialFailed
    return run, result


def _open_run(context: WorkerContext, trial: optuna.Trial) -> AbstractContextManager[Run]:
    """The trial's earlier run, where its folder is on this machine and no process holds its lock; otherwise a new run."""
    system_metrics = context.spec.base.train.system_metrics
    earlier = trial_run_id(trial)
    folder = context.runs / earlier
    if earlier and (folder / RUN_INFO_FILE).is_file() and not is_locked(folder):
        return resume_run(
            folder, context.echo, timeout=_DELIVERY_TIMEOUT, system_metrics=system_metrics, interrupt_ends_wait=False
        )
    run_id = new_run_id()
    attributes: dict[str, str | int] = {RUN: run_id, HOST: socket.gethostname()}
    if earlier:  # the epochs of the earlier run, which a retry inherits, are not those of the new run
        attributes[EPOCHS] = 0
    with_database_retries(lambda: _set_attributes(trial, attributes))
    name = f"{context.study.study_name}-{trial.number:03d}"
    return start_run(
        name,
        context.runs,
        context.echo,
        parent=context.parent,
        timeout=_DELIVERY_TIMEOUT,
        run_id=run_id,
        system_metrics=system_metrics,
        interrupt_ends_wait=False,
    )


def _set_attributes(trial: optuna.Trial, attributes: Mapping[str, str | int]) -> None:
    for name, value in attributes.items():
        trial.set_user_attr(name, value)


def _train_or_copy(context: WorkerContext, trial: optuna.Trial, params: dict[str, Value], run: Run) -> TrialResult:
    """Train with the sampled settings, or copy the values of a complete trial with the same settings."""
    spec = context.spec
    try:
        config = with_settings(spec.base, params_to_settings(params))
    except InputError as error:
        return TrialResult("pruned", reason=f"infeasible settings: {error}")
    callback = _EpochReporter(context, trial, run)  # its `epoch` counts the epochs trained before a resume too
    if duplicate := with_database_retries(lambda: _find_duplicate(context.study, trial.number, params)):
        run.log_params(flatten(config))
        reason = f"same settings as trial {duplicate.number}; values copied"
        return TrialResult("complete", tuple(duplicate.values or ()), reason, epochs=callback.epoch)
    try:
        named = replace(config, name=f"{context.study.study_name}-{trial.number:03d}")
        result = fit(named, run, context.echo, on_epoch=callback)
        return TrialResult("complete", _objective_values(spec, result), epochs=result.state.epoch)
    except _Pruned:
        reason = f"by {spec.config.pruner.name} after epoch {callback.epoch}"
        return TrialResult("pruned", reason=reason, epochs=callback.epoch)
    except (DiskFullError, DatabaseUnreachableError, UpdateFinishedTrialError):
        raise
    except DivergedError as error:
        return TrialResult("pruned", reason=f"diverged: {error}", epochs=callback.epoch)
    except Exception as error:  # an error of one training does not end the study
        context.echo(f"trial {trial.number}: {type(error).__name__}: {one_line(error)}")
        if _is_infeasible(error, callback.epoch):
            return TrialResult("pruned", reason=f"infeasible settings: {one_line(error)}", epochs=callback.epoch)
        traceback.print_exception(error)
        return TrialResult("failed", reason=f"{type(error).__name__}: {one_line(error)}", epochs=callback.epoch)


class _EpochReporter:
    """Reports each epoch's validation to the study, and prunes.

    Attributes:
        reported_metric: name of the objective whose values the pruner compares. None if the study has several objectives, or only
            a cost: then no trial is pruned.
        epoch: last trained epoch, counting those trained before a resume; 0 if there is none.
    """

    def __init__(self, context: WorkerContext, trial: optuna.Trial, run: Run) -> None:
        self.trial = trial
        objectives = context.spec.objectives
        self.reported_metric = objectives[0] if len(objectives) == 1 and objectives[0] not in COSTS else None
        stored = with_database_retries(
            lambda: context.storage.rdb.get_trial(context.storage.trial_id(context.study, trial.number))
        )
        self.epoch = max(run.metric_history.get(_EPOCH_METRIC, {}), default=0)
        self.epochs_reported_before = set(stored.intermediate_values)
        # `_open_run` sets the attribute if the trial starts over: the reported values are then also those of its earlier run.
        self.has_epochs_attribute = EPOCHS in stored.user_attrs

    def __call__(self, epoch: int, validation: Metrics) -> None:
        self.epoch = max(self.epoch, epoch)
        value = validation.values.get(self.reported_metric) if self.reported_metric else None
        if value is None or self.has_epochs_attribute:
            # Here `worker.total_epochs` cannot count the reported values: nothing is reported, or the trial started over.
            with_database_retries(lambda: self.trial.set_user_attr(EPOCHS, self.epoch))
        if value is None or (self.has_epochs_attribute and epoch in self.epochs_reported_before):
            return
        if epoch not in self.epochs_reported_before:
            with_database_retries(lambda: self.trial.report(value, epoch))
        if with_database_retries(self.trial.should_prune):
            raise _Pruned


def _find_duplicate(study: optuna.Study, number: int, params: dict[str, Value]) -> FrozenTrial | None:
    """A complete trial with the same settings."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return next((trial for trial in complete if trial.params == params and trial.number != number), None)


def _objective_values(spec: StudySpec, result: FitResult) -> tuple[float, ...]:
    """The objectives at the best epoch."""
    metrics = result.state.best_metrics.values
    network, size = result.state.ema.network, result.setup.info.size
    values = [COSTS[name](network, size) if name in COSTS else metrics[name] for name in spec.objectives]
    return tuple(float(cast(float, value)) for value in values)  # defined, since `check_data_and_objectives` has checked it


def _is_infeasible(error: Exception, trained_epochs: int) -> bool:
    """Whether the error counts as caused by the settings.

    Exhausted memory counts in any epoch; an InputError, RuntimeError or ValueError counts in the first epoch only.
    """
    if isinstance(error, (MemoryError, OutOfMemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error):
        return True
    return trained_epochs == 0 and isinstance(error, (InputError, RuntimeError, ValueError))
