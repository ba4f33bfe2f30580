"""Checkpoints of trials that nobody needs any more: those of some twenty trials fill a disk."""

import shutil
from pathlib import Path

import optuna
from optuna.trial import TrialState

from fr_ps.search.trial import trial_run_id
from fr_ps.search.trial_queue import OUTCOME
from fr_ps.tracking.layout import CHECKPOINTS_FOLDER, LAST_CHECKPOINT, RESUME_CHECKPOINTS

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def prune_checkpoints(study: optuna.Study, runs: Path) -> None:
    """Remove the checkpoints of trials that have ended and whose runs are here; of the best ones, `checkpoints/best` stays.

    Those that wait, run, or whose worker died keep theirs, to be gone on with. What cannot be removed stays.
    """
    trials = study.get_trials(deepcopy=False)
    complete = any(trial.state == TrialState.COMPLETE for trial in trials)
    best = {trial_run_id(trial) for trial in study.best_trials} if complete else set()
    needed = {trial_run_id(trial) for trial in trials if trial.state in (TrialState.RUNNING, TrialState.WAITING)}
    for trial in trials:
        run = trial_run_id(trial)
        if trial.state not in _FINISHED or OUTCOME not in trial.user_attrs or not run or run in needed:
            continue
        for place in (RESUME_CHECKPOINTS, LAST_CHECKPOINT) if run in best else (CHECKPOINTS_FOLDER,):
            shutil.rmtree(runs / run / place, ignore_errors=True)
