"""The final runs of a study: the best settings and the base settings, each trained with several seeds and tested."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import optuna

from fr_ps.config import Config, to_dict
from fr_ps.errors import InputError
from fr_ps.evaluation.metrics import lower_is_better
from fr_ps.progress import progress
from fr_ps.search.results import best_config, best_trial
from fr_ps.search.spec import StudySpec
from fr_ps.search.storage import with_database_retries
from fr_ps.search.worker_pool import run_workers
from fr_ps.tracking.journal import JOURNAL_FILE, read_events
from fr_ps.tracking.listing import last_status
from fr_ps.tracking.run import new_run_id
from fr_ps.tracking.run_folder import BEST_CHECKPOINT, RUN_INFO_FILE, ParentRun

_FINAL_RUNS = "fr_ps.final"
"""Attribute of the study in the database: name of a final run to its id, by which a restarted search finds the run."""


@dataclass(frozen=True)
class FinalRuns:
    """The final runs of a study.

    Attributes:
        trial: number of the trial with the best settings.
        best: run folder for each seed, best settings.
        base: run folder for each seed, settings of the base.
    """

    trial: int
    best: tuple[Path, ...]
    base: tuple[Path, ...]


def train_final_runs(
    spec: StudySpec, study: optuna.Study, parent: ParentRun, runs: Path, logs: Path, workers: int, threads: int
) -> FinalRuns:
    """Train the final runs that are not finished yet.

    Args:
        spec: of the study.
        study: with a complete trial.
        parent: the study's run in MLflow.
        runs: folder of the runs.
        logs: folder of the workers' logs.
        workers: number of processes.
        threads: of each process; 0: PyTorch's default.

    Raises:
        InputError: a final run failed.
        KeyboardInterrupt, SystemExit: on a signal; the next start of the search resumes the final runs.
    """
    best = best_trial(study)
    assert best is not None
    seeds = range(spec.config.after.seeds)
    best_configs = {f"trial-{best.number:03d}-seed-{seed}": _with_seed(best_config(spec, best), seed) for seed in seeds}
    base_configs = {f"base-seed-{seed}": _with_seed(spec.base, seed) for seed in seeds}
    configs = best_configs | base_configs
    folders = _run_folders(study, list(configs), runs)
    unfinished = [name for name in configs if not _is_finished(folders[name])]
    jobs = {
        logs / f"{name}.log": {
            "final_config": to_dict(configs[name]),
            "name": f"{study.study_name}-{name}",
            "run": folders[name].name,
            "parent": asdict(parent),
            "threads": threads,
        }
        for name in unfinished
    }
    with progress("final runs", len(unfinished), "trainings") as advance:
        finished = set[str]()

        def poll_finished() -> int:
            for name in unfinished:
                if name not in finished and _is_finished(folders[name]):
                    finished.add(name)
                    advance(1)
            return len(finished)

        run_workers(jobs, poll_finished, limit=workers)
    for name in unfinished:
        if name not in finished:
            raise InputError(f"training {name} did not finish; see {logs / name}.log, and start the search again")
    return FinalRuns(best.number, tuple(folders[name] for name in best_configs), tuple(folders[name] for name in base_configs))


def _with_seed(config: Config, seed: int) -> Config:
    return replace(config, train=replace(config.train, seed=seed))


def _run_folders(study: optuna.Study, names: list[str], runs: Path) -> dict[str, Path]:
    """The run folder of each final run. A run whose folder is missing gets a new id."""
    ids = dict(study.user_attrs.get(_FINAL_RUNS, {}))
    for name in names:
        if name not in ids or not (runs / ids[name] / RUN_INFO_FILE).is_file():
            ids[name] = new_run_id()
    with_database_retries(lambda: study.set_user_attr(_FINAL_RUNS, ids))
    return {name: runs / ids[name] for name in names}


def _is_finished(folder: Path) -> bool:
    return (folder / JOURNAL_FILE).is_file() and last_status(folder) == "FINISHED" and (folder / BEST_CHECKPOINT).is_dir()


def validation_score(folder: Path, metric: str) -> float:
    """The best value of a validation metric in a run, negated where lower is better; 0 without such a metric."""
    events = (event.data["values"] for _, event in read_events(folder / JOURNAL_FILE) if event.kind == "metrics")
    values = [values[metric] for values in events if metric in values]
    return -min(values, default=0.0) if lower_is_better(metric) else max(values, default=0.0)
