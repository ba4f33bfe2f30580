"""What the figures of a study are drawn from: its finished trials as arrays, and the curves of all that reported any."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from fr_ps.search.outcome.figures.setting import Setting, setting_of


@dataclass(frozen=True)
class Objective:
    """What a study makes large or small.

    Attributes:
        name: of the metric.
        maximize: whether more of it is better.
    """

    name: str
    maximize: bool

    @property
    def better(self) -> str:
        """Which way is better, in a word."""
        return "higher" if self.maximize else "lower"

    def best(self, values: np.ndarray) -> int:
        """Which of `values` is best; the first of equals."""
        return int(np.argmax(values) if self.maximize else np.argmin(values))


@dataclass(frozen=True)
class Curve:
    """What one trial reported while it trained.

    Attributes:
        number: of the trial.
        steps: (s,) when, ascending.
        values: (s,) what.
        pruned: whether it was stopped for it.
    """

    number: int
    steps: np.ndarray
    values: np.ndarray
    pruned: bool


@dataclass(frozen=True)
class Finished:
    """The n trials of a study that ended with finite values of its k objectives.

    Attributes:
        numbers: (n,) of the trials.
        values: (n, k) of the objectives.
        settings: by name.
        curves: of these trials and of the pruned ones, where they reported anything finite.
    """

    numbers: np.ndarray
    values: np.ndarray
    settings: tuple[Setting, ...]
    curves: tuple[Curve, ...]


def finished(trials: Sequence[FrozenTrial]) -> Finished:
    """The finished trials among `trials`; failed, running and waiting ones are left out."""
    ended = [trial for trial in trials if trial.state == TrialState.COMPLETE and np.isfinite(trial.values).all()]
    names = sorted({name for trial in ended for name in trial.params})
    shown = {trial.number for trial in ended} | {trial.number for trial in trials if trial.state == TrialState.PRUNED}
    curves = [_curve(trial) for trial in trials if trial.number in shown]
    return Finished(
        np.array([trial.number for trial in ended], dtype=int),
        np.array([trial.values for trial in ended], dtype=float).reshape(len(ended), len(ended[0].values) if ended else 0),
        tuple(setting_of(name, ended) for name in names),
        tuple(curve for curve in curves if len(curve.steps)),
    )


def objectives_of(study: optuna.Study, names: Sequence[str]) -> list[Objective]:
    """The objectives of `study`, called `names`."""
    maximized = optuna.study.StudyDirection.MAXIMIZE
    return [Objective(name, direction == maximized) for name, direction in zip(names, study.directions, strict=True)]


def best_so_far(values: np.ndarray, objective: Objective) -> np.ndarray:
    """(n,) the best of the values up to and with each."""
    return np.maximum.accumulate(values) if objective.maximize else np.minimum.accumulate(values)


def value_axis(finished_trials: Finished, column: int, objective: Objective) -> Setting:
    """The values of an objective as if they were a setting, for the first axis of the parallel coordinates."""
    values = finished_trials.values[:, column]
    return Setting(objective.name, values, float(values.min()), float(values.max()))


def grouped(curves: Sequence[Curve], best: int | None) -> dict[str, list[Curve]]:
    """The curves by what became of the trial, those to be drawn last last; no empty group.

    Args:
        curves: of a study.
        best: number of the best trial, which has a group of its own; None: there is none.
    """
    groups = {
        "finished": [curve for curve in curves if not curve.pruned and curve.number != best],
        "pruned": [curve for curve in curves if curve.pruned],
        f"best: trial {best}": [curve for curve in curves if curve.number == best],
    }
    return {name: members for name, members in groups.items() if members}


def pareto_front(values: np.ndarray, objectives: Sequence[Objective]) -> np.ndarray:
    """(n,) whether no other trial is at least as good in all objectives and better in one.

    Args:
        values: (n, k).
        objectives: the k.
    """
    losses = values * [-1 if objective.maximize else 1 for objective in objectives]
    return np.array([not ((losses <= own).all(axis=1) & (losses < own).any(axis=1)).any() for own in losses], dtype=bool)


def _curve(trial: FrozenTrial) -> Curve:
    reported = [(step, value) for step, value in sorted(trial.intermediate_values.items()) if math.isfinite(value)]
    steps, values = np.array(reported, dtype=float).reshape(-1, 2).T
    return Curve(trial.number, steps, values, trial.state == TrialState.PRUNED)
