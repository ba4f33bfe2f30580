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

from fr_ps.data.builtin import resolve_root
from fr_ps.device import pick_device
from fr_ps.errors import InputError
from fr_ps.evaluation.report import table_text
from fr_ps.files import write_text
from fr_ps.json_files import parse_json
from fr_ps.markdown import markdown_lines
from fr_ps.progress import echo, no_progress, progress
from fr_ps.report.table import Table
from fr_ps.search.checks import require_effect
from fr_ps.search.final_runs import FinalRuns, best_validation, train_final_runs
from fr_ps.search.improvement import measure_improvement
from fr_ps.search.progress_monitor import ProgressMonitor
from fr_ps.search.results import BEST_FILE, TRIALS_FILE, best_trial, top_trials, write_results
from fr_ps.search.samplers import build_pruner
from fr_ps.search.spec import StudySpec, first_metric, require_same_definition
from fr_ps.search.storage import Storage, open_study, retry
from fr_ps.search.study.preflight import check_data
from fr_ps.search.trial import TRIAL_TAG, trial_run_id
from fr_ps.search.trial_queue import read_slots
from fr_ps.search.worker_pool import run_workers
from fr_ps.serving.registry import register
from fr_ps.tables import format_csv
from fr_ps.tracking.layout import RUNS_FOLDER
from fr_ps.tracking.lifecycle import resume_run
from fr_ps.tracking.listing import mark_interrupted
from fr_ps.tracking.parent import ensure_parent_folder, refresh_parent, start_parent_run
from fr_ps.tracking.run import Run
from fr_ps.tracking.run_folder import ParentRun, RunInfo, read_run_info
from fr_ps.tracking.run_lock import is_locked
from fr_ps.tracking.sync import pending_runs, sync

_DEFINITION, _PARENT, _DATA = "fr_ps.definition", "fr_ps.parent", "fr_ps.data_digest"
"""Of the study: what makes its trials comparable, its run in MLflow, the digest of its data."""
_METADATA_TIMEOUT = 60.0
"""Seconds for whoever makes a study to say what it is."""


@dataclass(frozen=True)
class StudyContext:
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

    spec: StudySpec
    storage: Storage
    study: optuna.Study
    run_info: RunInfo
    parent_run: ParentRun
    folder: Path
    workers: int
    threads: int
    runs: Path


@dataclass(frozen=True)
class _StoredRun:
    """The run of a study, on the machine where it was begun."""

    card: RunInfo
    parent: ParentRun
    folder: str


@dataclass(frozen=True)
class _StudyMetadata:
    """What a study says of itself."""

    definition: dict[str, dict[str, Any]]
    data: str
    parent: _StoredRun


def run_study(spec: StudySpec, workers: int, runs: Path = RUNS_FOLDER) -> str:
    """Search until the budget is used up; returns the id of the study's run.

    Raises:
        InputError: settings, data, database or MLflow cannot be used, or a study of that name is another one; before anything
            is trained.
        KeyboardInterrupt, SystemExit: a signal came; started again, the search goes on where it was.
    """
    build_pruner(spec.config.pruner, len(spec.objectives), spec.epochs)
    digest = check_data(spec)
    launch = _open_or_create_study(spec, digest, workers, runs)
    here = launch.run_info.host == socket.gethostname()
    if not (here and _run_as_leader(launch)):
        echo(
            f"the study's own run is written by the search that has it, on {launch.run_info.host}; this one helps with the trials"
        )
        _run_worker_pool(launch, None, runs / f"{launch.run_info.id}-helpers")
        if here and _is_finished(launch):
            _run_as_leader(launch)  # where that one has ended in the meantime
    return launch.parent_run.mlflow_id


def _open_or_create_study(spec: StudySpec, digest: str, workers: int, runs: Path) -> StudyContext:
    """Make the study and its run, or find them."""
    config = spec.config
    storage = Storage(config.study.storage, config.study.heartbeat)
    study, made = open_study(storage, config.study.name, list(config.objectives.values()))
    there = None if made else _wait_for_metadata(study)
    if there:
        require_same_definition(config.study.name, there.definition, spec.definition())
        if there.data != digest:
            raise InputError(
                f"study {config.study.name!r} is of other data (digest {there.data}, here {digest}); "
                "take these, or another study.name"
            )
        _warn_without_effect(spec)
        card, folder = there.parent.card, Path(there.parent.folder)
        parent = refresh_parent(there.parent.parent, folder)
    else:
        try:
            require_effect(spec.space, spec.base)
            card, parent = start_parent_run(config.study.name, runs)
        except InputError:
            if made:  # else the next start would wait for what it is
                optuna.delete_study(study_name=config.study.name, storage=storage.rdb)
            raise
        folder = (runs / card.id).absolute()
        study.set_metric_names(spec.objectives)
        study.set_user_attr(_DATA, digest)
        study.set_user_attr(_DEFINITION, spec.definition())
        study.set_user_attr(_PARENT, {"card": asdict(card), "parent": asdict(parent), "folder": str(folder)})
    threads = spec.base.train.threads or (max(1, (os.cpu_count() or 1) // workers) if workers > 1 else 0)
    return StudyContext(spec, storage, study, card, parent, folder, workers, threads, runs)


def _warn_without_effect(spec: StudySpec) -> None:
    """Print a line where the space of a study that goes on has a setting without effect: its other trials count as they are."""
    try:
        require_effect(spec.space, spec.base)
    except InputError as error:
        echo(f"note: {error}, in another study")


def _wait_for_metadata(study: optuna.Study) -> _StudyMetadata | None:
    """What the study says of itself; None where whoever made it died before saying so.

    Raises:
        InputError: the study is another program's, or its attributes were changed.
    """
    begun = time.monotonic()
    while time.monotonic() - begun < _METADATA_TIMEOUT:
        attributes = study.user_attrs
        if _PARENT in attributes:
            found = {"definition": attributes.get(_DEFINITION), "data": attributes.get(_DATA), "parent": attributes[_PARENT]}
            where = f"attributes of the study {study.study_name!r}"
            return parse_json(json.dumps(found), _StudyMetadata, where, "take another study.name")
        if study.get_trials(deepcopy=False):
            raise InputError(f"study {study.study_name!r} was not made by fr-ps search; take another study.name")
        time.sleep(1.0)
    return None


def _run_as_leader(context: StudyContext) -> bool:
    """Search as the one who writes the study's own run; False where another process does."""
    folder = ensure_parent_folder(context.run_info, context.folder.parent)
    if is_locked(folder):
        return False
    with resume_run(folder) as run:
        _log_params(context, run)
        _run_worker_pool(context, run, folder)
        _sync_trial_runs(context)
        _report_results(context, run)
    return True


def _log_params(context: StudyContext, run: Run) -> None:
    search, config = context.spec, context.spec.config
    settings = {"sampler": config.sampler.name, "pruner": config.pruner.name, "seed": config.study.seed, "trials": search.trials}
    run.log_params({f"search/{name}": str(value) for name, value in settings.items()})
    run.log_params({f"space/{name}": str(what) for name, what in search.space.as_json().items()})
    run.log_params({"search/objectives": ", ".join(f"{direction} {name}" for name, direction in config.objectives.items())})
    run.set_tags({"fr_ps.kind": "search", "fr_ps.study": config.study.name})


def _run_worker_pool(context: StudyContext, run: Run | None, logs: Path) -> None:
    """Let workers do trials until none is left."""
    search = context.spec
    order = search.as_json() | {"parent": asdict(context.parent_run), "threads": context.threads, "began": time.time()}
    watch = ProgressMonitor(search, context.study, run)
    begun = watch.finished
    echo(f"study {context.study.study_name}: {begun} of {search.trials} trials have ended; {context.workers} workers")
    retry(lambda: watch.poll(no_progress))  # who takes the run over from another tells what had ended before
    if _is_finished(context):
        return
    with progress("search", search.trials, "trials") as advance:
        advance(begun)
        orders = {logs / f"worker-{index}.log": order for index in range(context.workers)}
        run_workers(orders, lambda: retry(lambda: watch.poll(advance)), echo)


def _is_finished(context: StudyContext) -> bool:
    return read_slots(context.study, context.spec.trials).all_finished


def _sync_trial_runs(context: StudyContext) -> None:
    """Tell MLflow what it does not know yet of the trials whose runs are here, those of dead workers among them."""
    folders = [context.runs / (trial_run_id(trial) or "nowhere") for trial in context.study.get_trials(deepcopy=False)]
    here = [folder for folder in dict.fromkeys(folders) if folder.is_dir() and not is_locked(folder)]
    for folder in here:
        with suppress(InputError):  # a damaged one is told of by fr-ps runs
            mark_interrupted(folder)
    pending = [folder for folder in pending_runs(context.runs) if folder in here]
    for one in sync(pending, no_progress):
        if one.reason:
            echo(f"tracking: {one.remaining} events of {one.id} are not in MLflow yet ({one.reason}); later: fr-ps sync")
            return


def _report_results(context: StudyContext, run: Run) -> None:
    """Tell what came out, and do what comes after."""
    search, study = context.spec, context.study
    report = run.folder / "report"
    missing = write_results(search, study, report)
    run.log_artifact(report, "report")
    echo("\n" + table_text(top_trials(search, study)))
    for line in missing:
        echo(f"not drawn: {line}")
    best = best_trial(study)
    if best is None:
        raise InputError(f"no trial of study {study.study_name!r} was finished; their reasons are in {report / TRIALS_FILE}")
    note = [f"best: trial {best.number}, {_format_values(search, best.values)}"]
    echo(f"\n{note[0]}\nits settings: {report / BEST_FILE}\npages: {report / 'search.html'}")
    run.set_tags({f"{TRIAL_TAG}.best": str(best.number)})
    if search.config.after.seeds:
        note += _train_final_runs(context, run, report)
    run.set_tags({"mlflow.note.content": markdown_lines(note)})


def _train_final_runs(context: StudyContext, run: Run, report: Path) -> list[str]:
    """Train the best and the base with seeds, and tell by how much the best is better; returns lines about that."""
    search, after = context.spec, context.spec.config.after
    echo(f"\ntraining the best settings and those of the base, {after.seeds} seeds each")
    finals = train_final_runs(
        search, context.study, context.parent_run, context.runs, run.folder, context.workers, context.threads
    )
    lines = []
    if search.base.data.test_people or search.base.data.folds or search.base.data.split:
        lines.append(_report_improvement(search, finals, run, report))
    else:
        lines.append("nobody is tested (data.test_people is 0): how much better than the base the best is cannot be told")
    if after.register:
        lines.append(_register_best(search, finals, after.register))
    echo("\n".join(lines))
    return lines


def _report_improvement(spec: StudySpec, final_runs: FinalRuns, run: Run, report: Path) -> str:
    config = spec.base
    with progress("score on test", len(final_runs.best) + len(final_runs.base), "models") as advance:
        root = resolve_root(config.data.root, config.synthetic)
        device, batch = pick_device(config.device), config.train.scoring_batch
        gain = measure_improvement(final_runs, first_metric(spec.config), root, device, batch, advance)
    table = gain.table()
    _write_csv(table, report)
    run.log_metrics({f"gain/{one.name}": one.value for one in gain.differences}, 0)
    run.log_artifact(report, "report")
    echo("\n" + table_text(table) + "\n")
    return gain.summary()


def _write_csv(table: Table, folder: Path) -> None:
    rows = [["" if cell is None else cell for cell in row] for row in table.rows]
    write_text(folder / f"{table.name}.csv", format_csv(list(table.header), rows))


def _register_best(spec: StudySpec, final_runs: FinalRuns, name: str) -> str:
    """Register the best seed by validation."""
    metric = first_metric(spec.config)
    chosen = max(final_runs.best, key=lambda folder: best_validation(folder, metric))
    if not read_run_info(chosen).mlflow_id:
        return f"not registered: MLflow does not know run {chosen.name} yet; fr-ps sync, and start the search again"
    tags = {"fr_ps.study": spec.config.study.name, TRIAL_TAG: str(final_runs.trial)}
    return f"registered as {register(chosen.name, name, tags, runs=chosen.parent).uri}: run {chosen.name}"


def _format_values(spec: StudySpec, values: list[float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in zip(spec.objectives, values))
