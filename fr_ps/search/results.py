"""Results of a study: tables, the best settings as a file that `train` accepts, plots."""

from collections import Counter
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
from fr_ps.search.slots import State
from fr_ps.search.space import params_to_settings
from fr_ps.search.spec import StudySpec
from fr_ps.search.trial_queue import EPOCHS, MLFLOW_RUN, REASON, RUN, trial_entry
from fr_ps.tables import format_csv

BEST_FILE, TRIALS_FILE, STUDY_FILE = "best.yaml", "trials.csv", "study.yaml"
_TOP = 10


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The best complete trial. With several objectives: the best one of the Pareto front by the first objective."""
    found = study.best_trials if study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) else []
    larger = study.directions[0] == optuna.study.StudyDirection.MAXIMIZE
    return max(found, key=lambda one: (one.values[0] if larger else -one.values[0], -one.number), default=None)


def best_config(spec: StudySpec, trial: FrozenTrial) -> Config:
    """The settings of the base with those of a trial."""
    return with_settings(spec.base, params_to_settings(trial.params))


def trial_table(spec: StudySpec, study: optuna.Study, limit: int = 0) -> Table:
    """A row for each trial that has started: state, values, settings, epochs, run.

    Args:
        spec: of the study.
        study: in the database.
        limit: length of the table, best trials first; 0: all trials by number.
    """
    started = trials = [one for one in study.get_trials(deepcopy=False) if one.state != TrialState.WAITING]
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
    note = f"the best {limit} of {len(started)}" if limit and len(rows) < len(started) else ""
    return Table("trials", "Trials", header, rows, note)


def top_trials(spec: StudySpec, study: optuna.Study) -> Table:
    """The best trials, for the terminal and the page."""
    return trial_table(spec, study, _TOP)


def state_table(study: optuna.Study) -> Table:
    """Number of trials in each state."""
    counts = Counter(trial_entry(trial).state for trial in study.get_trials(deepcopy=False))
    states: list[State] = ["complete", "pruned", "failed", "killed", "running", "waiting"]
    return Table("states", "Trials by state", ["all", *states], [[counts.total(), *(counts[state] for state in states)]])


def write_results(spec: StudySpec, study: optuna.Study, folder: Path) -> list[str]:
    """Write study file, trials, best settings and plots to `folder`.

    Returns:
        a line for each plot that cannot be drawn, with the reason.

    Raises:
        InputError: the disk is full, or the folder is not writable.
    """
    write_text(folder / STUDY_FILE, yaml.safe_dump(redact_tree(_study_settings(spec)), sort_keys=False))
    table = trial_table(spec, study)
    write_text(folder / TRIALS_FILE, format_csv(table.header, table.rows))
    best = best_trial(study)
    if best:
        settings = to_dict(with_absolute_paths(best_config(spec, best)))
        write_text(folder / BEST_FILE, yaml.safe_dump(redact_tree(settings), sort_keys=False))
    return write_plots(study, spec.objectives, folder, [state_table(study), top_trials(spec, study)])


def _best_first(study: optuna.Study, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Complete trials before pruned ones before others; complete ones by the first objective, the Pareto front first."""
    order = {"complete": 0, "pruned": 1}
    front = {one.number for one in study.best_trials} if any(one.state == TrialState.COMPLETE for one in trials) else set()
    sign = -1 if study.directions[0] == optuna.study.StudyDirection.MAXIMIZE else 1

    def key(one: FrozenTrial) -> tuple[int, bool, float, int]:
        return (order.get(trial_entry(one).state, 2), one.number not in front, sign * (one.values or [0.0])[0], one.number)

    return sorted(trials, key=key)


def _values(trial: FrozenTrial, count: int) -> list[Cell]:
    return [float(value) for value in trial.values] if trial.values and len(trial.values) == count else [None] * count


def _study_settings(spec: StudySpec) -> Mapping[str, Any]:
    """Settings that repeat the search, without the address of the database, which may hold a password."""
    settings = {key: value for key, value in asdict(spec.config).items() if key != "base"}
    settings["study"].pop("storage")
    return settings | to_dict(spec.base)
