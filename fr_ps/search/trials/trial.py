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
from fr_ps.errors import InputError, NoRoom, one_line
from fr_ps.evaluation.numbers.metrics import Metrics
from fr_ps.files import check_name
from fr_ps.markdown import markdown_lines
from fr_ps.search.study.claim import OUTCOME, REASON, alive, tell
from fr_ps.search.study.samplers import build_sampler
from fr_ps.search.study.settled import Search
from fr_ps.search.study.space import Value, settings_of
from fr_ps.search.study.storage import Storage, patiently
from fr_ps.search.trials.cost import COSTS
from fr_ps.tracking.card import CARD_FILE, Parent
from fr_ps.tracking.lifecycle import new_run, resumed_run
from fr_ps.tracking.owner import is_owned
from fr_ps.tracking.run import Run, StoppedEarly, new_id
from fr_ps.training.guard import BadNumbers
from fr_ps.training.train import Fitted, fit

RUN, MLFLOW_RUN, HOST, EPOCHS = "run", "mlflow_run", "host", "epochs"
"""Attributes of a trial: ids of its run, the machine that has its folder, and how many epochs it had."""
TAG = "fr_ps.trial"
_WAIT = 3.0
"""Seconds for the last words of a trial to reach MLflow; what is left then, the end of the search delivers."""
_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
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


class _Over(StoppedEarly):
    """Ends the run of a trial that was pruned."""


class _Failed(Exception):
    """Ends the run of a trial that failed."""


@dataclass(frozen=True)
class Bench:
    """What a worker does its trials with.

    Attributes:
        search: what is searched.
        storage: of the study.
        study: with the pruner of the search.
        parent: the run of the study in MLflow.
        runs: folder of the runs.
        say: called with lines for the log.
    """

    search: Search
    storage: Storage
    study: optuna.Study
    parent: Parent
    runs: Path
    say: Say = print


def do_trial(bench: Bench, number: int, rank: int) -> Outcome:
    """Do the running trial `number` of the study, the `rank`th place of it, to its end.

    One that was begun before goes on from its last checkpoint, where its run's folder is here.

    Raises:
        KeyboardInterrupt, SystemExit: a signal came; a checkpoint is written.
        NoRoom: the disk is full.
        InputError: the database does not answer any more.
    """
    storage, study = bench.storage, bench.study
    with alive(storage, study, number):
        outcome = Outcome("failed", reason="was taken for dead")
        try:
            trial, params = patiently(lambda: _begin(bench, number, rank))
            outcome, run_ids = _in_its_run(bench, trial, params)
            told: dict[str, str | int] = {OUTCOME: outcome.kind, REASON: outcome.reason, EPOCHS: outcome.epochs, **run_ids}
            patiently(lambda: _note(trial, told))
            counts = tell(storage, study, trial, list(outcome.values) if outcome.values else None, _STATES[outcome.kind])
        except UpdateFinishedTrialError:
            counts = False
    if not counts:  # as after the machine was asleep
        bench.say(
            f"trial {number}: was taken for dead by another worker, which tries it again; what came of it here does not count"
        )
    return outcome


def _note(trial: optuna.Trial, attributes: Mapping[str, str | int]) -> None:
    for name, value in attributes.items():
        trial.set_user_attr(name, value)


def _begin(bench: Bench, number: int, rank: int) -> tuple[optuna.Trial, dict[str, Value]]:
    """The trial with its settings; those that it has already, it keeps."""
    search, storage, study = bench.search, bench.storage, bench.study
    trial_id = storage.id_of(study, number)
    if search.grid:
        storage.rdb.set_trial_system_attr(trial_id, "fixed_params", search.grid[rank])
    study.sampler = build_sampler(search.config.sampler, search.space, search.config.study.seed, number)
    trial = optuna.Trial(study, trial_id)
    return trial, search.space.suggest(trial)


def _in_its_run(bench: Bench, trial: optuna.Trial, params: dict[str, Value]) -> tuple[Outcome, dict[str, str]]:
    """What the trial came to, and the ids of its run, which has ended when this returns."""
    outcome = Outcome("failed")
    try:
        with _run_of(bench, trial) as run:
            run.tags({TAG: str(trial.number), "fr_ps.study": bench.study.study_name, f"{TAG}_state": "running"})
            try:
                outcome, error = _train(bench, trial, params, run)
            except (KeyboardInterrupt, SystemExit):
                run.tags({f"{TAG}_state": "stopped"})
                raise
            how = {f"{TAG}_state": outcome.kind, f"{TAG}_reason": outcome.reason, "fr_ps.kind": "trial"}
            note = markdown_lines([f"trial {trial.number}: {outcome.kind}. {outcome.reason}"])
            run.tags(how | {"mlflow.note.content": note})
            if outcome.values:
                run.metrics(dict(zip((f"objective/{name}" for name in bench.search.objectives), outcome.values)), outcome.epochs)
            if outcome.kind == "pruned":
                raise _Over
            if outcome.kind == "failed":
                raise _Failed(outcome.reason) from error
    except (_Over, _Failed):
        pass
    # MLflow may have heard of a short trial only at its end.
    return outcome, {RUN: run.id} | ({MLFLOW_RUN: run.mlflow_id} if run.mlflow_id else {})


def run_id_of(trial: optuna.Trial | FrozenTrial) -> str:
    """The id of a trial's run, which names its folder; empty where it has none that is safe in a path, as who knows who
    writes to the database."""
    found = trial.user_attrs.get(RUN, "")
    try:
        return check_name(found, RUN) if isinstance(found, str) else ""
    except InputError:
        return ""


def _run_of(bench: Bench, trial: optuna.Trial) -> AbstractContextManager[Run]:
    """The trial's run: the one that it was begun with, if its folder is here and nobody has it; else a new one."""
    sampled = bench.search.base.train.system_metrics
    before = run_id_of(trial)
    folder = bench.runs / before
    if before and (folder / CARD_FILE).is_file() and not is_owned(folder):
        return resumed_run(folder, bench.say, _WAIT, sampled)
    run_id = new_id()
    patiently(lambda: trial.set_user_attr(RUN, run_id))
    patiently(lambda: trial.set_user_attr(HOST, socket.gethostname()))
    name = f"{bench.study.study_name}-{trial.number:03d}"
    return new_run(name, bench.runs, bench.say, bench.parent, _WAIT, run_id, sampled)


def _train(bench: Bench, trial: optuna.Trial, params: dict[str, Value], run: Run) -> tuple[Outcome, BaseException | None]:
    """Train, unless a finished trial had the same settings; what it came to, and the error behind it, if there was one."""
    if twin := patiently(lambda: _twin(bench.study, trial.number, params)):
        run.params(flatten(with_settings(bench.search.base, settings_of(params))))
        reason = f"the same settings as trial {twin.number}, whose values these are"
        return Outcome("complete", tuple(twin.values or ()), reason, int(twin.user_attrs.get(EPOCHS, 0))), None
    judge = _Judge(bench, trial)
    try:
        config = with_settings(bench.search.base, settings_of(params))
    except InputError as error:
        return Outcome("pruned", reason=f"cannot be built: {error}"), error
    try:
        fitted = fit(replace(config, name=f"{bench.study.study_name}-{trial.number:03d}"), run, bench.say, judge)
        return Outcome("complete", _values(bench.search, fitted), epochs=fitted.learner.epoch), None
    except _Pruned:
        return Outcome(
            "pruned", reason=f"by {bench.search.config.pruner.name} after epoch {judge.epoch}", epochs=judge.epoch
        ), None
    except (NoRoom, UpdateFinishedTrialError):
        raise
    except BadNumbers as error:
        return Outcome("pruned", reason=f"came to nothing: {error}", epochs=judge.epoch), error
    except Exception as error:  # whatever a training does, the study goes on
        bench.say(f"trial {trial.number}: {type(error).__name__}: {one_line(error)}")
        if _cannot_be_built(error, judge.epoch):
            return Outcome("pruned", reason=f"cannot be built: {one_line(error)}", epochs=judge.epoch), error
        traceback.print_exception(error)
        return Outcome("failed", reason=f"{type(error).__name__}: {one_line(error)}", epochs=judge.epoch), error


class _Judge:
    """Reports each epoch to the study, and prunes.

    Attributes:
        epoch: the last one that was trained; 0 for none.
    """

    def __init__(self, bench: Bench, trial: optuna.Trial) -> None:
        self.trial = trial
        (self.objective,) = bench.search.objectives if len(bench.search.objectives) == 1 else ("",)
        there = patiently(lambda: bench.storage.rdb.get_trial(bench.storage.id_of(bench.study, trial.number)))
        self.reported = set(there.intermediate_values)
        self.epoch = max(self.reported, default=0)

    def __call__(self, epoch: int, validation: Metrics) -> None:
        self.epoch = max(self.epoch, epoch)
        value = validation.values.get(self.objective)
        if value is None:  # several objectives, which Optuna does not prune by, or a cost
            return
        if epoch not in self.reported:
            patiently(lambda: self.trial.report(value, epoch))
        if patiently(self.trial.should_prune):
            raise _Pruned


def _twin(study: optuna.Study, number: int, params: dict[str, Value]) -> FrozenTrial | None:
    """A finished trial with the same settings."""
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return next((one for one in finished if one.params == params and one.number != number), None)


def _values(search: Search, fitted: Fitted) -> tuple[float, ...]:
    """Of the objectives, at the best epoch."""
    found = fitted.learner.validation.values
    network, size = fitted.learner.average.network, fitted.plan.info.size
    values = [COSTS[name](network, size) if name in COSTS else found[name] for name in search.objectives]
    return tuple(float(value) for value in values if value is not None)


def _cannot_be_built(error: Exception, epoch: int) -> bool:
    """Whether the settings are to blame: there is not enough memory for them, or they fit together in no network."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error):
        return True
    return epoch == 0 and isinstance(error, (InputError, RuntimeError, ValueError))
