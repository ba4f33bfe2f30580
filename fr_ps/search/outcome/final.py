"""After the trials: the best settings and those of the base, trained with several seeds each and tested."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import optuna

from fr_ps.config import Config, to_dict
from fr_ps.errors import InputError
from fr_ps.evaluation.differences import lower_is_better
from fr_ps.progress import progress
from fr_ps.search.outcome.results import best_config, best_trial
from fr_ps.search.study.settled import Search
from fr_ps.search.study.storage import patiently
from fr_ps.search.trials.crew import work
from fr_ps.tracking.card import CARD_FILE, Parent
from fr_ps.tracking.journal import JOURNAL_FILE
from fr_ps.tracking.layout import BEST
from fr_ps.tracking.listing import last_status
from fr_ps.tracking.run import Run, new_id

_ATTRIBUTE = "fr_ps.final"
"""Of the study: name of such a training to our id of its run, so that none is done twice."""


@dataclass(frozen=True)
class Finals:
    """Trainings with several seeds.

    Attributes:
        trial: number of the trial whose settings are the best.
        best: of each seed, the folder of the run with its settings.
        base: of each seed, the folder of the run with the settings of the base.
    """

    trial: int
    best: tuple[Path, ...]
    base: tuple[Path, ...]


def train_finals(
    search: Search, study: optuna.Study, parent: Parent, runs: Path, log: Path, workers: int, threads: int
) -> Finals:
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
    seeds = range(search.config.after.seeds)
    configs = {f"trial-{best.number:03d}-seed-{seed}": _seeded(best_config(search, best), seed) for seed in seeds}
    configs |= {f"base-seed-{seed}": _seeded(search.base, seed) for seed in seeds}
    folders = _folders(study, configs, runs)
    left = [name for name, folder in folders.items() if not _is_done(folder)]
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
            work(orders, lambda: 0, lambda _line: None)
            for name in now:
                if not _is_done(folders[name]):
                    raise InputError(f"training {name} did not finish; see {log / name}.log, and start the search again")
            advance(len(now))
    names = list(folders)
    return Finals(
        best.number,
        tuple(folders[name] for name in names if not name.startswith("base")),
        tuple(folders[name] for name in names if name.startswith("base")),
    )


def _seeded(config: Config, seed: int) -> Config:
    return replace(config, train=replace(config.train, seed=seed))


def _folders(study: optuna.Study, configs: Mapping[str, Config], runs: Path) -> dict[str, Path]:
    """The run's folder of each training; runs that are not here any more get new ones."""
    known = dict(study.user_attrs.get(_ATTRIBUTE, {}))
    for name in configs:
        if not (runs / known.get(name, "nowhere") / CARD_FILE).is_file():
            known[name] = new_id()
    patiently(lambda: study.set_user_attr(_ATTRIBUTE, known))
    return {name: runs / known[name] for name in configs}


def _is_done(folder: Path) -> bool:
    return (folder / JOURNAL_FILE).is_file() and last_status(folder) == "FINISHED" and (folder / BEST).is_dir()


def validation_of(folder: Path, metric: str) -> float:
    """The best value that a training of a run had of a validation metric; of costs, 0."""
    points = Run(folder).curves.get(metric, {})
    best = min if lower_is_better(metric) else max
    return best(points.values(), default=0.0) * (-1 if lower_is_better(metric) else 1)
