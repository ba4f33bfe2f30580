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
from fr_ps.errors import NoRoom
from fr_ps.json_files import Count, parse_json
from fr_ps.process import exit_code
from fr_ps.progress import say
from fr_ps.search.study.claim import claim, put_back
from fr_ps.search.study.ledger import Ledger
from fr_ps.search.study.samplers import build_pruner
from fr_ps.search.study.settled import Search, search_from_json
from fr_ps.search.study.storage import Storage, patiently
from fr_ps.search.trials.tidy import drop_checkpoints
from fr_ps.search.trials.trial import EPOCHS, Bench, do_trial
from fr_ps.tracking.card import CARD_FILE, Parent
from fr_ps.tracking.layout import RUNS_FOLDER
from fr_ps.tracking.lifecycle import new_run, resumed_run
from fr_ps.training.train import train

_LOOK = 1.0
"""Seconds between two looks at trials that others do, and that may have to be tried again."""


def do_trials(search: Search, parent: Parent, began: float, runs: Path = RUNS_FOLDER) -> None:
    """Do trials until none is left, or the budget is used up.

    Args:
        search: what is searched.
        parent: the run of the study in MLflow.
        began: seconds since 1970 at which the search was started.
        runs: folder of the runs.

    Raises:
        InputError: the database does not answer, or the disk is full.
    """
    config = search.config
    storage = Storage(config.study.storage, config.study.heartbeat)
    pruner = build_pruner(config.pruner, len(search.objectives), search.epochs)
    study = optuna.load_study(study_name=config.study.name, storage=storage.rdb, pruner=pruner)
    bench = Bench(search, storage, study, parent, runs, say)
    gc.freeze()  # what is here by now stays: a collection after each trial need not look at it
    while True:
        new = not patiently(lambda: used_up(search, study, began))
        with _next(bench, new) as (number, ledger):
            if number is not None:
                outcome = do_trial(bench, number, ledger.rank(number))
                say(f"trial {number}: {outcome.kind} {outcome.values or ''} {outcome.reason}")
                patiently(lambda: drop_checkpoints(study, runs))
                gc.collect()  # a training's tensors hang in cycles that Python takes for small
                continue
        if not ledger.running and not (new and ledger.claimable):
            return
        time.sleep(_LOOK)


@contextmanager
def _next(bench: Bench, new: bool) -> Iterator[tuple[int | None, Ledger]]:
    """The next trial to do, if there is one; a signal or a full disk puts it back, to be gone on with."""
    taken: list[int] = []

    def take() -> tuple[int | None, Ledger]:
        number, ledger = claim(bench.storage, bench.study, bench.search.trials, new)
        taken.extend([] if number is None else [number])
        return number, ledger

    try:
        yield patiently(take)
    except (KeyboardInterrupt, SystemExit, NoRoom):
        for number in taken:
            put_back(bench.storage, bench.study, number)
        raise


def used_up(search: Search, study: optuna.Study, began: float) -> bool:
    """Whether the hours or epochs of the budget are."""
    budget = search.config.budget
    if budget.hours and time.time() - began > 3600 * budget.hours:
        return True
    return bool(budget.epochs) and epochs_done(study) >= budget.epochs


def epochs_done(study: optuna.Study) -> int:
    """Of all trials together, those that run and those that died included."""
    trials = study.get_trials(deepcopy=False)
    # One that is tried again has the epochs of the one that died.
    again = {number for trial in trials for number in trial.system_attrs.get("retry_history", ())}
    return sum(
        int(trial.user_attrs.get(EPOCHS, 0)) or max(trial.intermediate_values, default=0)
        for trial in trials
        if trial.number not in again
    )


def train_whole(tree: Mapping[str, Any], name: str, run_id: str, parent: Parent, runs: Path = RUNS_FOLDER) -> None:
    """Train with the settings `tree` and test, as a part of the study; gone on with where it was begun before."""
    folder = runs / run_id
    begun = (folder / CARD_FILE).is_file()
    config = from_dict(tree)
    sampled = config.train.system_metrics
    with (
        resumed_run(folder, system_metrics=sampled)
        if begun
        else new_run(name, runs, parent=parent, run_id=run_id, system_metrics=sampled)
    ) as run:
        train(config, run, say)


@dataclass(frozen=True)
class _Training:
    """What a worker is told that trains once."""

    parent: Parent
    threads: Count
    train: dict[str, Any]
    name: str
    run: str


@dataclass(frozen=True)
class _Searching:
    """What a worker is told that does trials."""

    parent: Parent
    threads: Count
    search: SearchConfig
    base: dict[str, Any]
    began: float


def read_order(line: str) -> dict[str, Any]:
    """What a worker is told by the JSON in `line`.

    Raises:
        InputError: it is none.
    """
    where, remedy = "the order of a worker on standard input", "start the search again with this version of fr-ps"
    return parse_json(line, dict[str, Any], where, remedy, also=lambda order: _Training if "train" in order else _Searching)


def main() -> int:
    """Do what standard input says; returns the exit code."""
    # Whatever the launcher was started from: a shell's background ignores SIGINT, and this process hears it from the launcher.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return exit_code(_do_order)


def _do_order() -> None:
    order = read_order(sys.stdin.readline())
    threading.Thread(target=_end_with_the_launcher, daemon=True).start()
    parent = Parent(**order["parent"])
    if order["threads"]:
        torch.set_num_threads(order["threads"])
    if "train" in order:
        train_whole(order["train"], order["name"], order["run"], parent)
    else:
        do_trials(search_from_json(order), parent, order["began"])


def _end_with_the_launcher() -> None:
    """Stop like by SIGTERM when standard input ends: whoever started this process is gone, however it went."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    raise SystemExit(main())
