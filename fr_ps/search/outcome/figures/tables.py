"""Tables of the page on a study."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from fr_ps.report.table import Cell, Table
from fr_ps.search.outcome.figures.finished import Finished, Objective

_STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "running": TrialState.RUNNING,
    "waiting": TrialState.WAITING,
}


def state_table(trials: Sequence[FrozenTrial]) -> Table:
    """How many trials are in which state."""
    counts = Counter(trial.state for trial in trials)
    return Table("states", "Trials", ["all", *_STATES], [[len(trials), *(counts[state] for state in _STATES.values())]])


def best_table(trials: Sequence[FrozenTrial], known: Finished, goals: Sequence[Objective]) -> list[Table]:
    """A column an objective: the trial that is best in it, its values and its settings."""
    if not len(known.numbers):
        return []
    rows = [goal.best(known.values[:, column]) for column, goal in enumerate(goals)]
    numbered = {trial.number: trial for trial in trials}
    best = [numbered[int(known.numbers[row])] for row in rows]
    names = sorted({name for trial in best for name in trial.params})
    header = ["", *(f"best {goal.name}: trial {trial.number}" for goal, trial in zip(goals, best))]
    values: list[list[Cell]] = [
        [goal.name, *(f"{known.values[row, column]:.6g}" for row in rows)] for column, goal in enumerate(goals)
    ]
    settings: list[list[Cell]] = [
        [name, *(_text(trial.params[name]) if name in trial.params else None for trial in best)] for name in names
    ]
    return [Table("best", "Best", header, [*values, *settings])]


def front_table(known: Finished, front: np.ndarray, goals: Sequence[Objective]) -> Table:
    """The trials of the Pareto front, best in the first objective first."""
    rows = sorted(front.nonzero()[0], key=lambda row: known.values[row, 0], reverse=goals[0].maximize)
    header = ["trial", *(goal.name for goal in goals), *(setting.name for setting in known.settings)]
    cells: list[list[Cell]] = [
        [
            int(known.numbers[row]),
            *(f"{value:.6g}" for value in known.values[row]),
            *(setting.text(setting.places[row]) for setting in known.settings),
        ]
        for row in rows
    ]
    return Table("front", "Trials of the front", header, cells)


def label_table(known: Finished) -> list[Table]:
    """What the shortened choices of the figures stand for."""
    rows = [
        [setting.name, label, whole]
        for setting in known.settings
        for label, whole in zip(setting.labels, setting.choices)
        if label != whole
    ]
    return [Table("labels", "Shortened in the figures", ["setting", "figures", "whole"], rows)] if rows else []


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
