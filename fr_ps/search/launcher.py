"""Runs a search: opens the study and its MLflow run, supervises the workers, reports results, trains the final runs."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna

from fr_ps.errors import InputError
from fr_ps.json_files import parse_json
from fr_ps.progress import echo, no_progress, progress
from fr_ps.search.checks import check_data_and_objectives, require_effect
from fr_ps.search.progress_monitor import ProgressMonitor
from fr_ps.search.reporting import finish_search
from fr_ps.search.running_search import RunningSearch
from fr_ps.search.samplers import build_pruner
from fr_ps.search.spec import StudySpec, require_same_definition
from fr_ps.search.storage import Storage, open_study, with_database_retries
from fr_ps.search.worker_pool import run_workers
from fr_ps.tracking.lifecycle import create_parent_run, refresh_parent, restore_run_folder, resume_run
from fr_ps.tracking.run import Run
from fr_ps.tracking.run_folder import RUNS_FOLDER, ParentRun, RunInfo
from fr_ps.tracking.run_lock import is_locked

_DEFINITION, _STUDY_RUN, _DATA = "fr_ps.definition", "fr_ps.parent", "fr_ps.data_digest"
"""Attributes of the study in the database: its definition, its run, the digest of its data."""
_METADATA_TIMEOUT = 60.0
"""Seconds to wait for these attributes, which the process that creates the study writes."""


@dataclass(frozen=True)
class _StoredRun:
    """The study's run as stored in the database. The field names are the stored keys.

    Attributes:
        card: content of `run.json`, the file that describes the run.
        parent: ids of the run in MLflow, where the trials' runs are its children.
        folder: run folder.
    """

    card: RunInfo
    parent: ParentRun
    folder: str


@dataclass(frozen=True)
class _StudyMetadata:
    """The user attributes of a study, parsed. The database uses the keys `_DEFINITION`, `_DATA` and `_STUDY_RUN`."""

    definition: dict[str, dict[str, Any]]
    digest: str
    run: _StoredRun


def run_study(spec: StudySpec, workers: int, runs: Path = RUNS_FOLDER) -> str:
    """Run trials until the budget is used up, train the final runs and report; returns the MLflow id of the study's run.

    One process leads the study: it writes the study's run and trains the final runs. Further processes only add workers.

    Raises:
        InputError: before any training: unusable settings, data, database or MLflow, or a study with another definition. Later:
            a worker rejects its input or crashes repeatedly, the database stays unreachable, or no trial is complete.
        KeyboardInterrupt, SystemExit: on a signal; the same command resumes the study.
    """
    build_pruner(spec.config.pruner, len(spec.objectives), spec.max_epochs)  # raises before anything is created
    data_digest = check_data_and_objectives(spec)
    search = _open_or_create_search(spec, data_digest, workers, runs)
    with _leader_run(search) as run:
        if run is None:
            echo(f"this study is led from {search.run_info.host}; this process only adds workers")
        _supervise_workers(search, run)
        if run is not None:
            finish_search(search, run)
    if run is None and search.all_finished:
        # The leader may have been killed: this process logs and reports in its place.
        with _leader_run(search) as run:
            if run is not None:
                _log_progress(search, run)  # what the leader did not
                finish_search(search, run)
    return search.study_run.mlflow_id


def _open_or_create_search(spec: StudySpec, digest: str, workers: int, runs: Path) -> RunningSearch:
    """Open the study and its run, or create both. A study whose creator ended before it stored the run's id gets a new run."""
    config = spec.config
    storage = Storage(config.study.storage, config.study.heartbeat)
    study, created = open_study(storage, config.study.name, list(config.objectives.values()))
    stored = None if created else _wait_for_metadata(study)
    if stored:
        require_same_definition(config.study.name, stored.definition, spec.definition())
        if stored.digest not in (digest, digest.partition("-")[0]):  # an earlier version stored the part before "-" only
            raise InputError(
                f"study {config.study.name!r} has other data or another split file (digest {stored.digest}, here {digest}); "
                "use the same data, or set another study.name"
            )
        try:
            require_effect(spec.space, spec.base)
        except InputError as error:  # allowed by an earlier version: warn only, so that the study can resume
            echo(f"note: this study resumes, but a new study with the same space would be rejected: {error}")
        run_info, folder = stored.run.card, Path(stored.run.folder)
        return RunningSearch(spec, study, run_info, refresh_parent(stored.run.parent, folder), folder, workers, runs)
    try:
        require_effect(spec.space, spec.base)
        run_info, parent = create_parent_run(f"search {config.study.name}", runs)
    except InputError:
        if created:  # deleted, because the next start would wait for attributes that no process writes
            optuna.delete_study(study_name=config.study.name, storage=storage.rdb)
        raise
    folder = (runs / run_info.id).absolute()
    study.set_metric_names(spec.objectives)
    study.set_user_attr(_DATA, digest)
    study.set_user_attr(_DEFINITION, spec.definition())
    # Last, because `_wait_for_metadata` waits for this attribute.
    study.set_user_attr(_STUDY_RUN, {"card": asdict(run_info), "parent": asdict(parent), "folder": str(folder)})
    return RunningSearch(spec, study, run_info, parent, folder, workers, runs)


def _wait_for_metadata(study: optuna.Study) -> _StudyMetadata | None:
    """The attributes of an existing study; None where the process that created it ended before it wrote them.

    Raises:
        InputError: another program created the study, or changed its attributes.
    """
    deadline = time.monotonic() + _METADATA_TIMEOUT
    while time.monotonic() < deadline:
        attributes = study.user_attrs
        if _STUDY_RUN in attributes:
            metadata = {"definition": attributes.get(_DEFINITION), "digest": attributes.get(_DATA), "run": attributes[_STUDY_RUN]}
            where = f"attributes of the study {study.study_name!r}"
            return parse_json(json.dumps(metadata), _StudyMetadata, where, "set another study.name")
        if study.get_trials(deepcopy=False):
            raise InputError(f"study {study.study_name!r} was created by another program; set another study.name")
        time.sleep(1.0)
    return None


@contextmanager
def _leader_run(search: RunningSearch) -> Iterator[Run | None]:
    """The study's run, open for writing; None if this process cannot lead.

    Only the machine that created the study can lead it, and there one process at a time.
    """
    if search.run_info.host != socket.gethostname():
        yield None
        return
    folder = restore_run_folder(search.run_info, search.folder.parent)
    if is_locked(folder):
        yield None
        return
    with resume_run(folder) as run:
        yield run


def _supervise_workers(search: RunningSearch, run: Run | None) -> None:
    """Run trials in worker processes until none is left.

    Args:
        search: of this process.
        run: the study's run; None where another process leads.
    """
    spec = search.spec
    monitor = _log_progress(search, run)
    if search.all_finished:
        return
    logs = run.folder if run is not None else search.runs / f"{search.run_info.id}-helpers"
    job = spec.as_json() | {"parent": asdict(search.study_run), "threads": search.threads, "began": time.time()}
    with progress("search", spec.max_trials, "trials") as advance:
        advance(monitor.finished)
        jobs = {logs / f"worker-{index}.log": job for index in range(search.workers)}
        run_workers(jobs, lambda: with_database_retries(lambda: monitor.poll(advance)))


def _log_progress(search: RunningSearch, run: Run | None) -> ProgressMonitor:
    """Print how many trials have ended, and log the search's params and the best values so far to `run` if this process leads.

    Returns:
        the monitor that has logged these values, to log further ones.
    """
    if run is not None:
        _log_params(search, run)
    monitor = ProgressMonitor(search.spec, search.study, run)
    ended = f"{monitor.finished} of {search.spec.max_trials} trials have ended"
    echo(f"study {search.study.study_name}: {ended}; {search.workers} workers")
    with_database_retries(lambda: monitor.poll(no_progress))  # adds the best/... metrics that an earlier leader did not log
    return monitor


def _log_params(search: RunningSearch, run: Run) -> None:
    spec, config = search.spec, search.spec.config
    goal = ", ".join(f"{direction} {name}" for name, direction in config.objectives.items())
    settings = {"objectives": goal, "sampler": config.sampler.name, "pruner": config.pruner.name}
    settings |= {"seed": str(config.study.seed), "trials": str(spec.max_trials)}
    run.log_params({f"search/{name}": value for name, value in settings.items()})
    run.log_params({f"space/{dimension.name}": dimension.text for dimension in spec.space.dimensions})
    run.set_tags({"fr_ps.kind": "search", "fr_ps.study": config.study.name})
