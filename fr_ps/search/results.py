"""What came out of a study: a table, the best settings as a file that `train` accepts, pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState

from fr_ps.config import Config, to_dict, with_absolute_paths, with_settings
from fr_ps.files import write_text
from fr_ps.redaction import redact_tree
from fr_ps.report.table import Cell, Table
from fr_ps.search.plots import write_plots
from fr_ps.search.space import params_to_settings
from fr_ps.search.spec import StudySpec
from fr_ps.search.trial import EPOCHS, MLFLOW_RUN, RUN
from fr_ps.search.trial_queue import REASON, trial_entry
from fr_ps.tables import format_csv

BEST_FILE, TRIALS_FILE, STUDY_FILE = "best.yaml", "trials.csv", "study.yaml"
_TOP = 10


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The best trial; of several objectives, of those that no other is better than in all, the best by the first one."""
    found = study.best_trials if study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) else []
    larger = study.directions[0] == optuna.study.StudyDirection.MAXIMIZE
    return max(found, key=lambda one: (one.values[0] if larger else -one.values[0], -one.number), default=None)


def best_config(spec: StudySpec, trial: FrozenTrial) -> Config:
    """The settings of the base with what a trial chose."""
    return with_settings(spec.base, params_to_settings(trial.params))


def trial_table(spec: StudySpec, study: optuna.Study, limit: int = 0) -> Table:
    """A row a trial that was begun: how it ended, its values, what it chose, its run.

    Args:
        search: what was searched.
        study: of it.
        most: trials of the table, the best ones first; 0: all, in the order of their numbers.
    """
    begun = trials = [one for one in study.get_trials(deepcopy=False) if one.state != TrialState.WAITING]
    names = [dimension.name for dimension in spec.space.dimensions]
    if limit:
        trials = _best_first(study, trials)[:limit]
    rows: list[list[Cell]] = [
        [
            one.number,
            trial_entry(one).state,
            *_values(one, len(spec.objectives)),
            *(one.params.get(name) for name in names),
            one.user_attrs.get(EPOCHS),
            *([] if limit else [one.user_attrs.get(REASON, "")]),
            one.user_attrs.get(MLFLOW_RUN) or one.user_attrs.get(RUN),
        ]
        for one in trials
    ]
    header = ["trial", "state", *spec.objectives, *names, "epochs", *([] if limit else ["reason"]), "run"]
    note = f"the best {limit} of {len(begun)}" if limit and len(rows) < len(begun) else ""
    return Table("trials", "Trials", header, rows, note)


def top_trials(spec: StudySpec, study: optuna.Study) -> Table:
    """The best trials, for the terminal."""
    return trial_table(spec, study, _TOP)


def write_results(spec: StudySpec, study: optuna.Study, folder: Path) -> list[str]:
    """Write the study file, the trials, the best settings and the pictures into `folder`; returns what could not be drawn."""
    write_text(folder / STUDY_FILE, yaml.safe_dump(redact_tree(_study_settings(spec)), sort_keys=False))
    table = trial_table(spec, study)
    write_text(
        folder / TRIALS_FILE, format_csv(list(table.header), [["" if x is None else x for x in row] for row in table.rows])
    )
    best = best_trial(study)
    if best:
        settings = to_dict(with_absolute_paths(best_config(spec, best)))
        write_text(folder / BEST_FILE, yaml.safe_dump(redact_tree(settings), sort_keys=False))
    return write_plots(study, spec.objectives, folder)


def _best_first(study: optuna.Study, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Finished before pruned before others; finished ones by the first objective, with the Pareto front first."""
    order = {"complete": 0, "pruned": 1}
    front = {one.number for one in study.best_trials} if any(one.state == TrialState.COMPLETE for one in trials) else set()
    sign = -1 if study.directions[0] == optuna.study.StudyDirection.MAXIMIZE else 1

    def key(one: FrozenTrial) -> tuple[int, bool, float, int]:
        return (order.get(trial_entry(one).state, 2), one.number not in front, sign * (one.values or [0.0])[0], one.number)

    return sorted(trials, key=key)


def _values(trial: FrozenTrial, count: int) -> list[Cell]:
    return [float(value) for value in trial.values] if trial.values and len(trial.values) == count else [None] * count


def _study_settings(spec: StudySpec) -> Mapping[str, Any]:
    """What makes the same search again, without the address of the database, which may hold a password."""
    settings = {key: value for key, value in asdict(spec.config).items() if key != "base"}
    settings["study"].pop("storage")
    return settings | to_dict(spec.base)
