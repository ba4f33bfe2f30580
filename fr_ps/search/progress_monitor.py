"""Progress of a study: lines for the user and metrics of the study's run, while workers run trials."""

import textwrap
from datetime import datetime

import optuna
from optuna.trial import FrozenTrial, TrialState

from fr_ps.progress import OnProgress, echo
from fr_ps.search.results import WIDTH, best_trial, duration_text
from fr_ps.search.space import value_text
from fr_ps.search.spec import StudySpec
from fr_ps.search.trial_queue import EPOCHS, REASON, read_slots
from fr_ps.tracking.run import Run

_INDENT = " " * 11
"""Indent of the line with a trial's settings: they begin below the trial's state in the line above."""


class ProgressMonitor:
    """Reports the trials that have ended since the last poll.

    Args:
        spec: of the study.
        study: in the database.
        run: the study's run; None where another process leads the study.
    """

    def __init__(self, spec: StudySpec, study: optuna.Study, run: Run | None) -> None:
        self.spec, self.study, self.run = spec, study, run
        self.reported = set(read_slots(study, spec.max_trials).finished)

    @property
    def finished(self) -> int:
        """Number of trials that had ended at the last poll."""
        return len(self.reported)

    def poll(self, advance: OnProgress) -> int:
        """Print a line for each trial that has ended since the last poll, and log the best values so far to the study's run.

        Returns:
            number of all ended trials.
        """
        finished = read_slots(self.study, self.spec.max_trials).finished
        trials = self.study.get_trials(deepcopy=False)
        for number in sorted(set(finished) - self.reported):
            best = best_trial(self.study)  # reads the database; if that fails, the next poll reports the trial
            self.reported.add(number)
            echo(self._trial_line(trials[number], finished[number], best is not None and best.number == number))
            advance(1)
        if self.run:
            self._log_best(self.run, [trials[number] for number in finished])
        return len(self.reported)

    def _log_best(self, run: Run, finished: list[FrozenTrial]) -> None:
        """Log the best value so far of each objective; the step counts ended trials."""
        choosers = [max if direction == "maximize" else min for direction in self.spec.config.objectives.values()]
        best: list[float] = []
        for step, trial in enumerate(sorted(finished, key=_completed_at), start=1):
            if trial.state == TrialState.COMPLETE:
                best = [choose(old, new) for choose, old, new in zip(choosers, best or trial.values, trial.values)]
            if best:  # steps that were logged before are dropped by `log_metrics`
                run.log_metrics({f"best/{name}": value for name, value in zip(self.spec.objectives, best)}, step)

    def _trial_line(self, trial: FrozenTrial, state: str, is_best: bool) -> str:
        values = " ".join(f"{value:.4f}" for value in trial.values or ())
        settings = ", ".join(f"{name}\N{NO-BREAK SPACE}{value_text(value)}" for name, value in trial.params.items())
        time = f", {duration_text(trial.duration.total_seconds())}" if trial.duration else ""
        line = f"trial {trial.number:3d}  {state:8s}  {values:6s}  {'best' if is_best else '    '}  "
        line += f"{trial.user_attrs.get(EPOCHS, 0)} epochs{time}  {trial.user_attrs.get(REASON, '')}"
        details = textwrap.fill(settings, WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT, break_on_hyphens=False)
        return f"{line.rstrip()}\n{details}".replace("\N{NO-BREAK SPACE}", " ") if settings else line.rstrip()


def _completed_at(trial: FrozenTrial) -> tuple[datetime, int]:
    return trial.datetime_complete or datetime.max, trial.number
