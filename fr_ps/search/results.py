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
    sign = _sign(study)
    return max(study.best_trials, key=lambda trial: (sign * trial.values[0], -trial.number), default=None)


def _sign(study: optuna.Study) -> int:
    """1 where a larger value of the first objective is better, else -1."""
    return 1 if study.directions[0] == optuna.study.StudyDirection.MAXIMIZE else -1


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
    started = [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]
    names = [dimension.name for dimension in spec.space.dimensions]
    trials = _best_first(study, started)[:limit] if limit else started
    rows: list[list[Cell]] = [
        [
            trial.number,
            trial_entry(trial).state,
            *(trial.values or [None] * len(spec.objectives)),
            *(trial.params.get(name) for name in names),
            trial.user_attrs.get(EPOCHS),
            *([] if limit else [trial.user_attrs.get(REASON, "")]),
            trial.user_attrs.get(MLFLOW_RUN) or trial.user_attrs.get(RUN),
        ]
        for trial in trials
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
