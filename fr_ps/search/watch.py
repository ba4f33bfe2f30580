"""How far a study is: told to the user and to its run while others work on it."""

from datetime import datetime

import optuna
from optuna.trial import FrozenTrial, TrialState

from fr_ps.progress import Advance, say
from fr_ps.search.outcome.results import best_trial
from fr_ps.search.study.claim import REASON, read_ledger
from fr_ps.search.study.settled import Search
from fr_ps.search.trials.trial import EPOCHS
from fr_ps.tracking.run import Run


class Watch:
    """Follows a study.

    Args:
        search: what is searched.
        study: of it.
        run: of the study; None where another process writes it.
    """

    def __init__(self, search: Search, study: optuna.Study, run: Run | None) -> None:
        self.search, self.study, self.run = search, study, run
        self.told = set(read_ledger(study, search.trials).ended)

    @property
    def ended(self) -> int:
        """Trials that have ended for good, as far as it has looked."""
        return len(self.told)

    def look(self, advance: Advance) -> int:
        """Tell what has ended since the last look; returns how many have in all."""
        over = read_ledger(self.study, self.search.trials).ended
        trials = self.study.get_trials(deepcopy=False)
        for number in sorted(set(over) - self.told):
            self.told.add(number)
            best = best_trial(self.study)
            say(self._line(trials[number], over[number], best is not None and best.number == number))
            advance(1)
        if self.run:
            self._tell_best(self.run, [trials[number] for number in over])
        return len(self.told)

    def _tell_best(self, run: Run, ended: list[FrozenTrial]) -> None:
        """The best value so far of each objective, a point a trial in the order in which they ended."""
        names, larger = self.search.objectives, [way == "maximize" for way in self.search.config.objectives.values()]
        best: list[float] = []
        for step, trial in enumerate(sorted(ended, key=_end_of), start=1):
            if trial.state == TrialState.COMPLETE:
                pairs = zip(larger, best or trial.values, trial.values)
                best = [max(old, new) if more else min(old, new) for more, old, new in pairs]
            if best:
                run.metrics({f"best/{name}": value for name, value in zip(names, best)}, step)

    def _line(self, trial: FrozenTrial, state: str, is_best: bool) -> str:
        values = " ".join(f"{value:.4f}" for value in trial.values or ())
        chosen = ", ".join(f"{name} {_short(value)}" for name, value in trial.params.items())
        reason = trial.user_attrs.get(REASON, "")
        epochs = trial.user_attrs.get(EPOCHS, 0)
        mark = "  best" if is_best else ""
        return (
            f"trial {trial.number:3d}  {state:8s}  {values:8s}{mark}  {epochs} epochs  {chosen}{'  ' + reason if reason else ''}"
        )


def _end_of(trial: FrozenTrial) -> tuple[datetime, int]:
    return trial.datetime_complete or datetime.max, trial.number


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
