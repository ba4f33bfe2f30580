"""Checkpoints of trials that nobody needs any more: those of some twenty trials fill a disk."""

import shutil
from pathlib import Path

import optuna
from optuna.trial import TrialState

from fr_ps.search.study.claim import OUTCOME
from fr_ps.search.trials.trial import run_id_of
from fr_ps.tracking.layout import CHECKPOINTS, LAST, RESUME

_ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def drop_checkpoints(study: optuna.Study, runs: Path) -> None:
    """Remove the checkpoints of trials that have ended and whose runs are here; of the best ones, `checkpoints/best` stays.

    Those that wait, run, or whose worker died keep theirs, to be gone on with. What cannot be removed stays.
    """
    trials = study.get_trials(deepcopy=False)
    complete = any(trial.state == TrialState.COMPLETE for trial in trials)
    best = {run_id_of(trial) for trial in study.best_trials} if complete else set()
    needed = {run_id_of(trial) for trial in trials if trial.state in (TrialState.RUNNING, TrialState.WAITING)}
    for trial in trials:
        run = run_id_of(trial)
        if trial.state not in _ENDED or OUTCOME not in trial.user_attrs or not run or run in needed:
            continue
        for place in (RESUME, LAST) if run in best else (CHECKPOINTS,):
            shutil.rmtree(runs / run / place, ignore_errors=True)
