"""A worker process of a search: runs trials until none is left, or trains one of the final runs.

It reads its job as JSON from standard input: a command line would show the database's password in the list of processes.
"""

import gc
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import optuna
import torch

from fr_ps.config import from_dict
from fr_ps.errors import DiskFullError
from fr_ps.process import run_main
from fr_ps.progress import echo
from fr_ps.search.samplers import build_pruner
from fr_ps.search.spec import StudySpec, spec_from_json
from fr_ps.search.storage import Storage, with_database_retries
from fr_ps.search.trial import WorkerContext, run_trial, trial_run_id
from fr_ps.search.trial_queue import EPOCHS, Acquisition, acquire, release, trial_entry
from fr_ps.tracking.lifecycle import resume_run, start_run
from fr_ps.tracking.run_folder import (
    CHECKPOINTS_FOLDER,
    LAST_CHECKPOINT,
    RESUME_CHECKPOINTS,
    RUN_INFO_FILE,
    RUNS_FOLDER,
    ParentRun,
)
from fr_ps.training.train import train

_POLL_SECONDS = 1.0
"""Seconds between two polls for trials of other workers that need a retry."""


def main() -> int:
    """Do the job on standard input; returns the exit code."""
    # A shell starts background jobs with SIGINT ignored. This line matters only for a worker that was started by hand in this
    # way; `run_workers` starts workers with the default action.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return run_main(_run_job)


def _run_job() -> None:
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_stop_with_launcher, daemon=True).start()
    parent = ParentRun(**job["parent"])
    if job["threads"]:
        torch.set_num_threads(job["threads"])
    if "final_config" in job:
        train_final(job["final_config"], job["name"], job["run"], parent)
    else:
        run_worker(spec_from_json(job), parent, job["began"])


def run_worker(spec: StudySpec, parent: ParentRun, started_at: float, runs: Path = RUNS_FOLDER) -> None:
    """Run trials until none is left.

    Once the hours or epochs of the budget are used up, no new trial starts; those that were started before are still resumed.

    Args:
        spec: of the study.
        parent: the study's run in MLflow.
        started_at: start of this search in seconds since 1970; earlier searches of the same study do not count.
        runs: folder of the runs.

    Raises:
        InputError: the database is unreachable, or the disk is full.
        KeyboardInterrupt, SystemExit: on a signal; the running trial has a checkpoint and waits for a worker.
    """
    config = spec.config
    storage = Storage(config.study.storage, config.study.heartbeat)
    pruner = build_pruner(config.pruner, len(spec.objectives), spec.max_epochs)
    study = optuna.load_study(study_name=config.study.name, storage=storage.rdb, pruner=pruner)
    context = WorkerContext(spec, storage, study, parent, runs, echo)
    gc.freeze()  # makes `gc.collect` below faster: it skips the objects that exist now
    while True:
        start_new = not with_database_retries(lambda: hours_or_epochs_exhausted(spec, study, started_at))
        outcome = _run_next_trial(context, start_new)
        if outcome == "none left":
            return
        if outcome == "others running":
            time.sleep(_POLL_SECONDS)  # if the worker of a running trial is killed, the trial needs a retry


def _run_next_trial(context: WorkerContext, start_new: bool) -> Literal["ran", "others running", "none left"]:
    """Acquire a trial and run it. If there is none, return whether other workers still run trials."""
    storage, study = context.storage, context.study
    # A list and not a return value: `with_database_retries` may raise a deferred signal after `acquire` has succeeded, and the
    # number of the trial would be lost.
    acquisitions: list[Acquisition] = []
    try:
        with_database_retries(lambda: acquisitions.append(acquire(storage, study, context.spec.max_trials, start_new)))
        (acquisition,) = acquisitions
        number, slots = acquisition.number, acquisition.slots
        if number is None:
            return "others running" if slots.running or acquisition.missed else "none left"
        result = run_trial(context, number, slots.slot_of(number))
        if result:
            context.echo(f"trial {number}: {result.outcome} {result.values or ''} {result.reason}")
        with_database_retries(lambda: remove_ended_checkpoints(study, context.runs))
        gc.collect()  # reference cycles hold the tensors of the training
        return "ran"
    except (KeyboardInterrupt, SystemExit, DiskFullError):
        for held in acquisitions:
            if held.number is not None:
                release(storage, study, held.number)
        raise


def hours_or_epochs_exhausted(spec: StudySpec, study: optuna.Study, started_at: float) -> bool:
    """Whether the hours or the epochs of the budget are used up."""
    budget = spec.config.budget
    if budget.hours and time.time() - started_at > 3600 * budget.hours:
        return True
    return bool(budget.epochs) and total_epochs(study) >= budget.epochs


def total_epochs(study: optuna.Study) -> int:
    """Trained epochs of all trials together, running and killed ones included.

    Of a trial that was stopped by a signal and starts over in a new run, only the epochs of that run count.
    """
    trials = study.get_trials(deepcopy=False)
    # Killed trials whose run their retry resumes: the retry has their epochs too.
    continued = {
        number
        for trial in trials
        for number in trial.system_attrs.get("retry_history", ())
        if trial_run_id(trial) == trial_run_id(trials[number])
    }
    return sum(
        int(trial.user_attrs.get(EPOCHS, max(trial.intermediate_values, default=0)))  # or the last reported epoch
        for trial in trials
        if trial.number not in continued
    )


def remove_ended_checkpoints(study: optuna.Study, runs: Path) -> None:
    """Remove the checkpoints of ended trials from this machine, except the best ones of the best trials.

    Otherwise the checkpoints of some twenty trials fill a disk. Kept are those of waiting and running trials, which resume from
    them, and those of killed trials that have no retry yet. Files that cannot be removed are ignored.
    """
    trials = study.get_trials(deepcopy=False)
    best = {trial_run_id(trial) for trial in study.best_trials}
    entries = [trial_entry(trial) for trial in trials]
    retried = {entry.original for entry in entries if entry.original != entry.number}
    to_retry = {entry.number for entry in entries if entry.state == "killed" and not {entry.original, entry.number} & retried}
    unfinished = {trial.number for trial in trials if not trial.state.is_finished()}
    needed = {trial_run_id(trials[number]) for number in unfinished | to_retry}
    for run in {trial_run_id(trial) for trial in trials} - needed - {""}:
        for folder in (RESUME_CHECKPOINTS, LAST_CHECKPOINT) if run in best else (CHECKPOINTS_FOLDER,):
            shutil.rmtree(runs / run / folder, ignore_errors=True)


def train_final(settings: Mapping[str, Any], name: str, run_id: str, parent: ParentRun, runs: Path = RUNS_FOLDER) -> None:
    """Train and test with `settings` in a child run of the study; resumes the run where its folder exists."""
    folder = runs / run_id
    config = from_dict(settings)
    system_metrics = config.train.system_metrics
    with (
        resume_run(folder, system_metrics=system_metrics)
        if (folder / RUN_INFO_FILE).is_file()
        else start_run(name, runs, parent=parent, run_id=run_id, system_metrics=system_metrics)
    ) as run:
        train(config, run, echo)


def _stop_with_launcher() -> None:
    """Send SIGTERM to this process when standard input ends: the launcher has exited or was killed."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    raise SystemExit(main())
