"""After the trials: the best settings and those of the base, trained with several seeds each and tested."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import optuna

from fr_ps.config import Config, to_dict
from fr_ps.errors import InputError
from fr_ps.evaluation.differences import lower_is_better
from fr_ps.progress import progress
from fr_ps.search.results import best_config, best_trial
from fr_ps.search.spec import StudySpec
from fr_ps.search.storage import retry
from fr_ps.search.worker_pool import run_workers
from fr_ps.tracking.journal import JOURNAL_FILE
from fr_ps.tracking.layout import BEST_CHECKPOINT
from fr_ps.tracking.listing import last_status
from fr_ps.tracking.run import Run, new_run_id
from fr_ps.tracking.run_folder import RUN_INFO_FILE, ParentRun

_ATTRIBUTE = "fr_ps.final"
"""Of the study: name of such a training to our id of its run, so that none is done twice."""


@dataclass(frozen=True)
class FinalRuns:
    """Trainings with several seeds.

    Attributes:
        trial: number of the trial whose settings are the best.
        best: of each seed, the folder of the run with its settings.
        base: of each seed, the folder of the run with the settings of the base.
    """

    trial: int
    best: tuple[Path, ...]
    base: tuple[Path, ...]


def train_final_runs(
    spec: StudySpec, study: optuna.Study, parent: ParentRun, runs: Path, log: Path, workers: int, threads: int
) -> FinalRuns:
    """Train what is not trained yet, as many at once as there are workers.

    Args:
        search: that is over.
        study: of it, with a finished trial.
        parent: run of the study.
        runs: folder of the runs.
        log: folder of the workers' logs.
        workers: how many trainings at once.
        threads: of each; 0: as many as torch takes.

    Raises:
        InputError: one of them failed.
        KeyboardInterrupt, SystemExit: a signal came; when the search is started again it goes on with them.
    """
    best = best_trial(study)
    assert best is not None
    seeds = range(spec.config.after.seeds)
    configs = {f"trial-{best.number:03d}-seed-{seed}": _with_seed(best_config(spec, best), seed) for seed in seeds}
    configs |= {f"base-seed-{seed}": _with_seed(spec.base, seed) for seed in seeds}
    folders = _run_folders(study, configs, runs)
    left = [name for name, folder in folders.items() if not _is_finished(folder)]
    with progress("train with seeds", len(left), "trainings") as advance:
        while left:
            now, left = left[:workers], left[workers:]
            orders = {
                log / f"{name}.log": {
                    "train": to_dict(configs[name]),
                    "name": f"{study.study_name}-{name}",
                    "run": folders[name].name,
                    "parent": asdict(parent),
                    "threads": threads,
                }
                for name in now
            }
            run_workers(orders, lambda: 0, lambda _line: None)
            for name in now:
                if not _is_finished(folders[name]):
                    raise InputError(f"training {name} did not finish; see {log / name}.log, and start the search again")
            advance(len(now))
    names = list(folders)
    return FinalRuns(
        best.number,
        tuple(folders[name] for name in names if not name.startswith("base")),
        tuple(folders[name] for name in names if name.startswith("base")),
    )


def _with_seed(config: Config, seed: int) -> Config:
    return replace(config, train=replace(config.train, seed=seed))


def _run_folders(study: optuna.Study, configs: Mapping[str, Config], runs: Path) -> dict[str, Path]:
    """The run's folder of each training; runs that are not here any more get new ones."""
    known = dict(study.user_attrs.get(_ATTRIBUTE, {}))
    for name in configs:
        if not (runs / known.get(name, "nowhere") / RUN_INFO_FILE).is_file():
            known[name] = new_run_id()
    retry(lambda: study.set_user_attr(_ATTRIBUTE, known))
    return {name: runs / known[name] for name in configs}


def _is_finished(folder: Path) -> bool:
    return (folder / JOURNAL_FILE).is_file() and last_status(folder) == "FINISHED" and (folder / BEST_CHECKPOINT).is_dir()


def best_validation(folder: Path, metric: str) -> float:
    """The best value that a training of a run had of a validation metric; of costs, 0."""
    points = Run(folder).metric_history.get(metric, {})
    best = min if lower_is_better(metric) else max
    return best(points.values(), default=0.0) * (-1 if lower_is_better(metric) else 1)
