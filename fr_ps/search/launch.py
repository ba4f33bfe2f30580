"""A search from start to end: the study and its parent run, workers, results, and what comes after."""

import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna

from fr_ps.data.builtin import data_root
from fr_ps.device import pick_device
from fr_ps.errors import InputError
from fr_ps.evaluation.numbers.findings import Table
from fr_ps.evaluation.report import table_text
from fr_ps.files import write_text
from fr_ps.json_files import parse_json
from fr_ps.markdown import markdown_lines
from fr_ps.progress import progress, say, silent
from fr_ps.search.outcome.final import Finals, train_finals, validation_of
from fr_ps.search.outcome.gain import measure_gain
from fr_ps.search.outcome.results import BEST_FILE, TRIALS_FILE, best_trial, shown_table, write_results
from fr_ps.search.study.claim import read_ledger
from fr_ps.search.study.effect import require_effect
from fr_ps.search.study.preflight import check_data
from fr_ps.search.study.samplers import build_pruner
from fr_ps.search.study.settled import Search, config_metric, require_same
from fr_ps.search.study.storage import Storage, open_study, patiently
from fr_ps.search.trials.crew import work
from fr_ps.search.trials.trial import TAG, run_id_of
from fr_ps.search.watch import Watch
from fr_ps.serving.registry import register
from fr_ps.tables import csv_text
from fr_ps.tracking.card import Card, Parent, read_card
from fr_ps.tracking.layout import RUNS_FOLDER
from fr_ps.tracking.lifecycle import resumed_run
from fr_ps.tracking.listing import mark_interrupted
from fr_ps.tracking.owner import is_owned
from fr_ps.tracking.parent import begin_parent, parent_folder, present_parent
from fr_ps.tracking.run import Run
from fr_ps.tracking.sync import sync, unsynced

_DEFINITION, _PARENT, _DATA = "fr_ps.definition", "fr_ps.parent", "fr_ps.data_digest"
"""Of the study: what makes its trials comparable, its run in MLflow, the digest of its data."""
_PATIENCE = 60.0
"""Seconds for whoever makes a study to say what it is."""


@dataclass(frozen=True)
class Launch:
    """A search that is being done.

    Attributes:
        search: what is searched.
        storage: of the study.
        study: that is searched.
        card: of its run, as it was begun.
        parent: its run in MLflow.
        folder: of that run, on the machine where it was begun.
        workers: processes here.
        threads: of each; 0: as many as torch takes.
        runs: folder of the runs.
    """

    search: Search
    storage: Storage
    study: optuna.Study
    card: Card
    parent: Parent
    folder: Path
    workers: int
    threads: int
    runs: Path


@dataclass(frozen=True)
class _Begun:
    """The run of a study, on the machine where it was begun."""

    card: Card
    parent: Parent
    folder: str


@dataclass(frozen=True)
class _Said:
    """What a study says of itself."""

    definition: dict[str, dict[str, Any]]
    data: str
    parent: _Begun


def run_study(search: Search, workers: int, runs: Path = RUNS_FOLDER) -> str:
    """Search until the budget is used up; returns the id of the study's run.

    Raises:
        InputError: settings, data, database or MLflow cannot be used, or a study of that name is another one; before anything
            is trained.
        KeyboardInterrupt, SystemExit: a signal came; started again, the search goes on where it was.
    """
    build_pruner(search.config.pruner, len(search.objectives), search.epochs)
    digest = check_data(search)
    launch = _launched(search, digest, workers, runs)
    here = launch.card.host == socket.gethostname()
    if not (here and _led(launch)):
        say(f"the study's own run is written by the search that has it, on {launch.card.host}; this one helps with the trials")
        _work(launch, None, runs / f"{launch.card.id}-helpers")
        if here and _is_over(launch):
            _led(launch)  # where that one has ended in the meantime
    return launch.parent.mlflow_id


def _launched(search: Search, digest: str, workers: int, runs: Path) -> Launch:
    """Make the study and its run, or find them."""
    config = search.config
    storage = Storage(config.study.storage, config.study.heartbeat)
    study, made = open_study(storage, config.study.name, list(config.objectives.values()))
    there = None if made else _said(study)
    if there:
        require_same(config.study.name, there.definition, search.definition())
        if there.data != digest:
            raise InputError(
                f"study {config.study.name!r} is of other data (digest {there.data}, here {digest}); "
                "take these, or another study.name"
            )
        _note_settings_without_effect(search)
        card, folder = there.parent.card, Path(there.parent.folder)
        parent = present_parent(there.parent.parent, folder)
    else:
        try:
            require_effect(search.space, search.base)
            card, parent = begin_parent(config.study.name, runs)
        except InputError:
            if made:  # else the next start would wait for what it is
                optuna.delete_study(study_name=config.study.name, storage=storage.rdb)
            raise
        folder = (runs / card.id).absolute()
        study.set_metric_names(search.objectives)
        study.set_user_attr(_DATA, digest)
        study.set_user_attr(_DEFINITION, search.definition())
        study.set_user_attr(_PARENT, {"card": asdict(card), "parent": asdict(parent), "folder": str(folder)})
    threads = search.base.train.threads or (max(1, (os.cpu_count() or 1) // workers) if workers > 1 else 0)
    return Launch(search, storage, study, card, parent, folder, workers, threads, runs)


def _note_settings_without_effect(search: Search) -> None:
    """Print a line where the space of a study that goes on has a setting without effect: its other trials count as they are."""
    try:
        require_effect(search.space, search.base)
    except InputError as error:
        say(f"note: {error}, in another study")


def _said(study: optuna.Study) -> _Said | None:
    """What the study says of itself; None where whoever made it died before saying so.

    Raises:
        InputError: the study is another program's, or its attributes were changed.
    """
    begun = time.monotonic()
    while time.monotonic() - begun < _PATIENCE:
        attributes = study.user_attrs
        if _PARENT in attributes:
            found = {"definition": attributes.get(_DEFINITION), "data": attributes.get(_DATA), "parent": attributes[_PARENT]}
            where = f"attributes of the study {study.study_name!r}"
            return parse_json(json.dumps(found), _Said, where, "take another study.name")
        if study.get_trials(deepcopy=False):
            raise InputError(f"study {study.study_name!r} was not made by fr-ps search; take another study.name")
        time.sleep(1.0)
    return None


def _led(launch: Launch) -> bool:
    """Search as the one who writes the study's own run; False where another process does."""
    folder = parent_folder(launch.card, launch.folder.parent)
    if is_owned(folder):
        return False
    with resumed_run(folder) as run:
        _describe(launch, run)
        _work(launch, run, folder)
        _deliver_trials(launch)
        _conclude(launch, run)
    return True


def _describe(launch: Launch, run: Run) -> None:
    search, config = launch.search, launch.search.config
    settings = {"sampler": config.sampler.name, "pruner": config.pruner.name, "seed": config.study.seed, "trials": search.trials}
    run.params({f"search/{name}": str(value) for name, value in settings.items()})
    run.params({f"space/{name}": str(what) for name, what in search.space.as_json().items()})
    run.params({"search/objectives": ", ".join(f"{direction} {name}" for name, direction in config.objectives.items())})
    run.tags({"fr_ps.kind": "search", "fr_ps.study": config.study.name})


def _work(launch: Launch, run: Run | None, logs: Path) -> None:
    """Let workers do trials until none is left."""
    search = launch.search
    order = search.as_json() | {"parent": asdict(launch.parent), "threads": launch.threads, "began": time.time()}
    watch = Watch(search, launch.study, run)
    begun = watch.ended
    say(f"study {launch.study.study_name}: {begun} of {search.trials} trials have ended; {launch.workers} workers")
    patiently(lambda: watch.look(silent))  # who takes the run over from another tells what had ended before
    if _is_over(launch):
        return
    with progress("search", search.trials, "trials") as advance:
        advance(begun)
        orders = {logs / f"worker-{index}.log": order for index in range(launch.workers)}
        work(orders, lambda: patiently(lambda: watch.look(advance)), say)


def _is_over(launch: Launch) -> bool:
    return read_ledger(launch.study, launch.search.trials).is_over


def _deliver_trials(launch: Launch) -> None:
    """Tell MLflow what it does not know yet of the trials whose runs are here, those of dead workers among them."""
    folders = [launch.runs / (run_id_of(trial) or "nowhere") for trial in launch.study.get_trials(deepcopy=False)]
    here = [folder for folder in dict.fromkeys(folders) if folder.is_dir() and not is_owned(folder)]
    for folder in here:
        with suppress(InputError):  # a damaged one is told of by fr-ps runs
            mark_interrupted(folder)
    pending = [folder for folder in unsynced(launch.runs) if folder in here]
    for one in sync(pending, silent):
        if one.why:
            say(f"tracking: {one.left} events of {one.id} are not in MLflow yet ({one.why}); later: fr-ps sync")
            return


def _conclude(launch: Launch, run: Run) -> None:
    """Tell what came out, and do what comes after."""
    search, study = launch.search, launch.study
    report = run.folder / "report"
    missing = write_results(search, study, report)
    run.artifact(report, "report")
    say("\n" + table_text(shown_table(search, study)))
    for line in missing:
        say(f"not drawn: {line}")
    best = best_trial(study)
    if best is None:
        raise InputError(f"no trial of study {study.study_name!r} was finished; their reasons are in {report / TRIALS_FILE}")
    note = [f"best: trial {best.number}, {_of(search, best.values)}"]
    say(f"\n{note[0]}\nits settings: {report / BEST_FILE}\npages: {report / 'search.html'}")
    run.tags({f"{TAG}.best": str(best.number)})
    if search.config.after.seeds:
        note += _after(launch, run, report)
    run.tags({"mlflow.note.content": markdown_lines(note)})


def _after(launch: Launch, run: Run, report: Path) -> list[str]:
    """Train the best and the base with seeds, and tell by how much the best is better; returns lines about that."""
    search, after = launch.search, launch.search.config.after
    say(f"\ntraining the best settings and those of the base, {after.seeds} seeds each")
    finals = train_finals(search, launch.study, launch.parent, launch.runs, run.folder, launch.workers, launch.threads)
    lines = []
    if search.base.data.test_people or search.base.data.folds or search.base.data.split:
        lines.append(_gain(search, finals, run, report))
    else:
        lines.append("nobody is tested (data.test_people is 0): how much better than the base the best is cannot be told")
    if after.register:
        lines.append(_register(search, finals, after.register))
    say("\n".join(lines))
    return lines


def _gain(search: Search, finals: Finals, run: Run, report: Path) -> str:
    config = search.base
    with progress("score on test", len(finals.best) + len(finals.base), "models") as advance:
        root = data_root(config.data.root, config.synthetic)
        device, batch = pick_device(config.device), config.train.scoring_batch
        gain = measure_gain(finals, config_metric(search.config), root, device, batch, advance)
    table = gain.table()
    _write_table(table, report)
    run.metrics({f"gain/{one.name}": one.value for one in gain.found}, 0)
    run.artifact(report, "report")
    say("\n" + table_text(table) + "\n")
    return gain.verdict()


def _write_table(table: Table, folder: Path) -> None:
    rows = [["" if cell is None else cell for cell in row] for row in table.rows]
    write_text(folder / f"{table.name}.csv", csv_text(list(table.header), rows))


def _register(search: Search, finals: Finals, name: str) -> str:
    """Register the best seed by validation."""
    metric = config_metric(search.config)
    chosen = max(finals.best, key=lambda folder: validation_of(folder, metric))
    if not read_card(chosen).mlflow_id:
        return f"not registered: MLflow does not know run {chosen.name} yet; fr-ps sync, and start the search again"
    tags = {"fr_ps.study": search.config.study.name, TAG: str(finals.trial)}
    return f"registered as {register(chosen.name, name, tags, runs=chosen.parent).uri}: run {chosen.name}"


def _of(search: Search, values: list[float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in zip(search.objectives, values))
