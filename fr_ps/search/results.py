"""Results of a study: tables, and the best settings as a file that `train` accepts."""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState

from fr_ps.config import Config, to_dict, with_absolute_paths, with_settings
from fr_ps.config.dependencies import get_setting
from fr_ps.files import write_text
from fr_ps.redaction import redact_tree
from fr_ps.report.table import Cell, Table, table_text
from fr_ps.search.slots import State
from fr_ps.search.space import Dimension, decode_choice, params_to_settings, value_text
from fr_ps.search.spec import StudySpec
from fr_ps.search.trial_queue import EPOCHS, MLFLOW_RUN, REASON, RUN, trial_entry
from fr_ps.tables import format_csv

BEST_FILE, TRIALS_FILE, STUDY_FILE = "best.yaml", "trials.csv", "study.yaml"
_TOP = 5
WIDTH = 100
"""Columns of the terminal that tables and lines of a search fit in."""


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The best complete trial. With several objectives: the best one of the Pareto front by the first objective."""
    sign = _sign(study)
    return max(study.best_trials, key=lambda trial: (sign * trial.values[0], -trial.number), default=None)


def _sign(study: optuna.Study) -> int:
    """1 where a larger value of the first objective is better, else -1."""
    return 1 if study.directions[0] == optuna.study.StudyDirection.MAXIMIZE else -1


def best_config(spec: StudySpec, trial: FrozenTrial) -> Config:
    """The settings of the base with those of a trial."""
    return with_settings(spec.base, params_to_settings(trial.params))


def trial_table(spec: StudySpec, study: optuna.Study) -> Table:
    """A row for each trial that has started, by number: state, values, settings, epochs, reason, run."""
    names = [dimension.name for dimension in spec.space.dimensions]
    rows: list[list[Cell]] = [
        [
            trial.number,
            trial_entry(trial).state,
            *(trial.values or [None] * len(spec.objectives)),
            *(trial.params.get(name) for name in names),
            trial.user_attrs.get(EPOCHS),
            trial.user_attrs.get(REASON, ""),
            trial.user_attrs.get(MLFLOW_RUN) or trial.user_attrs.get(RUN),
        ]
        for trial in study.get_trials(deepcopy=False)
        if trial.state != TrialState.WAITING
    ]
    return Table("trials", "Trials", ["trial", "state", *spec.objectives, *names, "epochs", "reason", "run"], rows)


def settings_table(spec: StudySpec, trials: Sequence[FrozenTrial], shares: Mapping[str, float]) -> Table:
    """A row for each objective and each searched setting: its value in each of the trials and in the base, and its importance.

    Args:
        spec: of the study.
        trials: the columns.
        shares: setting to importance for the first objective; see `plots.importances`.
    """
    objectives: list[list[Cell]] = [
        [name, *(f"{trial.values[index]:.4f}" if trial.values else "-" for trial in trials), "", ""]
        for index, name in enumerate(spec.objectives)
    ]
    rows: list[list[Cell]] = [
        [
            dimension.name,
            *(value_text(trial.params.get(dimension.name)) for trial in trials),
            value_text(_base_value(spec, dimension)),
            f"{shares[dimension.name]:.2f}" if dimension.name in shares else "-",
        ]
        for dimension in sorted(spec.space.dimensions, key=lambda one: -shares.get(one.name, 0.0))
    ]
    header = ["setting", *(f"trial {trial.number}" for trial in trials), "base", "importance"]
    note = (
        f"Importance: share of the variance of {spec.objectives[0]} that a setting explains alone; a dash for a setting that "
        "some complete trials lack."
    )
    return Table("settings", "", header, objectives + rows, note)


def _base_value(spec: StudySpec, dimension: Dimension) -> Any:
    """The value of a setting in the base; None where it has no effect there."""

    def value(name: str) -> Any:
        found = get_setting(spec.base, name)
        return list(found) if isinstance(found, tuple) else found

    used = all(value(parent) in map(decode_choice, values) for parent, values in dimension.when.items())
    return value(dimension.name) if used else None


def fitted_settings_table(spec: StudySpec, study: optuna.Study, shares: Mapping[str, float]) -> Table:
    """`settings_table` of the best complete trials, as many as fit in a terminal; with none, of no trial."""
    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE]
    best = best_first(study, complete)[:_TOP]
    tables = [settings_table(spec, best[:count], shares) for count in range(len(best) + 1)]
    fitting = [table for table in tables if max(map(len, table_text(replace(table, note="")).splitlines())) <= WIDTH]
    table = fitting[-1] if fitting else tables[0]
    shown = len(table.header) - 3
    title = f"The best {shown} of {len(complete)} complete trials" if shown < len(complete) else "Complete trials, best first"
    return replace(table, title=title, note=textwrap.fill(table.note, WIDTH))


def duration_text(seconds: float) -> str:
    """A duration in its largest sensible unit: `9 s`, `2 min 5 s`, `3 h 20 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {left} s" if minutes else f"{left} s"
    return f"{minutes // 60} h {minutes % 60} min"


def state_counts(study: optuna.Study) -> dict[State, int]:
    """Number of trials in each state."""
    counts = Counter(trial_entry(trial).state for trial in study.get_trials(deepcopy=False))
    states: list[State] = ["complete", "pruned", "failed", "killed", "running", "waiting"]
    return {state: counts[state] for state in states}


def trials_line(study: optuna.Study) -> str:
    """Number of trials by state, and the time of a complete one."""
    counts = ", ".join(f"{count} {state}" for state, count in state_counts(study).items() if count)
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    seconds = [trial.duration.total_seconds() for trial in trials if trial.duration]
    time = f"; {duration_text(median(seconds))} a complete trial (median)" if seconds else ""
    return f"trials: {counts or 'none'}{time}"


def write_results(spec: StudySpec, study: optuna.Study, folder: Path) -> None:
    """Write study file, trials and best settings to `folder`.

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


def best_first(study: optuna.Study, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Complete trials, then pruned ones, then others. Complete ones: the Pareto front first, each part by the first objective."""
    ranks = {"complete": 0, "pruned": 1}
    front = {trial.number for trial in study.best_trials}
    sign = _sign(study)

    def key(trial: FrozenTrial) -> tuple[int, bool, float, int]:
        rank = ranks.get(trial_entry(trial).state, 2)
        return rank, trial.number not in front, -sign * (trial.values or [0.0])[0], trial.number

    return sorted(trials, key=key)


def _study_settings(spec: StudySpec) -> Mapping[str, Any]:
    """Settings that repeat the search, without the address of the database, which may hold a password."""
    settings = {key: value for key, value in asdict(spec.config).items() if key != "base"}
    settings["study"].pop("storage")
    return settings | to_dict(spec.base)
