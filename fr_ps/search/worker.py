"""A worker: a process that does trials of a study, one after the other, until there is none to do.

It is told what to do on its standard input, as JSON, so that a database's password stands in no list of processes.
"""

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch

from fr_ps.config import SearchConfig, from_dict
from fr_ps.errors import DiskFullError
from fr_ps.json_files import NonNegativeInt, parse_json
from fr_ps.process import run_main
from fr_ps.progress import echo
from fr_ps.search.samplers import build_pruner
from fr_ps.search.slots import TrialSlots
from fr_ps.search.spec import StudySpec, spec_from_json
from fr_ps.search.storage import Storage, retry
from fr_ps.search.trial import EPOCHS, WorkerContext, run_trial
from fr_ps.search.trial_queue import acquire, release
from fr_ps.search.trials.tidy import prune_checkpoints
from fr_ps.tracking.layout import RUNS_FOLDER
from fr_ps.tracking.lifecycle import resume_run, start_run
from fr_ps.tracking.run_folder import RUN_INFO_FILE, ParentRun
from fr_ps.training.train import train

_POLL_SECONDS = 1.0
"""Seconds between two looks at trials that others do, and that may have to be tried again."""


def run_trials(spec: StudySpec, parent: ParentRun, started_at: float, runs: Path = RUNS_FOLDER) -> None:
    """Do trials until none is left, or the budget is used up.

    Args:
        search: what is searched.
        parent: the run of the study in MLflow.
        began: seconds since 1970 at which the search was started.
        runs: folder of the runs.

    Raises:
        InputError: the database does not answer, or the disk is full.
    """
    config = spec.config
    storage = Storage(config.study.storage, config.study.heartbeat)
    pruner = build_pruner(config.pruner, len(spec.objectives), spec.epochs)
    study = optuna.load_study(study_name=config.study.name, storage=storage.rdb, pruner=pruner)
    bench = WorkerContext(spec, storage, study, parent, runs, echo)
    gc.freeze()  # what is here by now stays: a collection after each trial need not look at it
    while True:
        new = not retry(lambda: budget_exhausted(spec, study, started_at))
        with _acquired_trial(bench, new) as (number, ledger):
            if number is not None:
                outcome = run_trial(bench, number, ledger.slot_of(number))
                echo(f"trial {number}: {outcome.kind} {outcome.values or ''} {outcome.reason}")
                retry(lambda: prune_checkpoints(study, runs))
                gc.collect()  # a training's tensors hang in cycles that Python takes for small
                continue
        if not ledger.running and not (new and ledger.ready):
            return
        time.sleep(_POLL_SECONDS)


@contextmanager
def _acquired_trial(context: WorkerContext, start_new: bool) -> Iterator[tuple[int | None, TrialSlots]]:
    """The next trial to do, if there is one; a signal or a full disk puts it back, to be gone on with."""
    taken: list[int] = []

    def take() -> tuple[int | None, TrialSlots]:
        number, ledger = acquire(context.storage, context.study, context.spec.trials, start_new)
        taken.extend([] if number is None else [number])
        return number, ledger

    try:
        yield retry(take)
    except (KeyboardInterrupt, SystemExit, DiskFullError):
        for number in taken:
            release(context.storage, context.study, number)
        raise


def budget_exhausted(spec: StudySpec, study: optuna.Study, started_at: float) -> bool:
    """Whether the hours or epochs of the budget are."""
    budget = spec.config.budget
    if budget.hours and time.time() - started_at > 3600 * budget.hours:
        return True
    return bool(budget.epochs) and total_epochs(study) >= budget.epochs


def total_epochs(study: optuna.Study) -> int:
    """Of all trials together, those that run and those that died included."""
    trials = study.get_trials(deepcopy=False)
    # One that is tried again has the epochs of the one that died.
    again = {number for trial in trials for number in trial.system_attrs.get("retry_history", ())}
    return sum(
        int(trial.user_attrs.get(EPOCHS, 0)) or max(trial.intermediate_values, default=0)
        for trial in trials
        if trial.number not in again
    )


def train_final(settings: Mapping[str, Any], name: str, run_id: str, parent: ParentRun, runs: Path = RUNS_FOLDER) -> None:
    """Train with the settings `tree` and test, as a part of the study; gone on with where it was begun before."""
    folder = runs / run_id
    begun = (folder / RUN_INFO_FILE).is_file()
    config = from_dict(settings)
    sampled = config.train.system_metrics
    with (
        resume_run(folder, system_metrics=sampled)
        if begun
        else start_run(name, runs, parent=parent, run_id=run_id, system_metrics=sampled)
    ) as run:
        train(config, run, echo)


@dataclass(frozen=True)
class _TrainJob:
    """What a worker is told that trains once."""

    parent: ParentRun
    threads: NonNegativeInt
    train: dict[str, Any]
    name: str
    run: str


@dataclass(frozen=True)
class _TrialsJob:
    """What a worker is told that does trials."""

    parent: ParentRun
    threads: NonNegativeInt
    search: SearchConfig
    base: dict[str, Any]
    began: float


def read_job(line: str) -> dict[str, Any]:
    """What a worker is told by the JSON in `line`.

    Raises:
        InputError: it is none.
    """
    where, remedy = "the order of a worker on standard input", "start the search again with this version of fr-ps"
    return parse_json(line, dict[str, Any], where, remedy, refine=lambda order: _TrainJob if "train" in order else _TrialsJob)


def main() -> int:
    """Do what standard input says; returns the exit code."""
    # Whatever the launcher was started from: a shell's background ignores SIGINT, and this process hears it from the launcher.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return run_main(_run_job)


def _run_job() -> None:
    order = read_job(sys.stdin.readline())
    threading.Thread(target=_stop_with_launcher, daemon=True).start()
    parent = ParentRun(**order["parent"])
    if order["threads"]:
        torch.set_num_threads(order["threads"])
    if "train" in order:
        train_final(order["train"], order["name"], order["run"], parent)
    else:
        run_trials(spec_from_json(order), parent, order["began"])


def _stop_with_launcher() -> None:
    """Stop like by SIGTERM when standard input ends: whoever started this process is gone, however it went."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    raise SystemExit(main())
