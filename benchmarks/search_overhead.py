"""Overhead of a study per trial, speed-up of a second worker, and benefit of sampler and pruner.

Three tables:

1. Seconds per trial beyond its training: the same tiny trainings alone, with plain Optuna without MLflow, with `fr-ps search`,
   with plain Optuna and the callback of optuna-integration, and with MLflow's own Optuna storage; interleaved in one process,
   each with a new SQLite file.
2. Trials per hour of `fr-ps search` with two workers of one thread each and with one, from the start of the first trial to
   the end of the last. For comparison, two processes that only train, and one.
3. Random search and TPE with pruning, over several seeds: the best validation value after half of the epochs of random search
   and after all of them.

    python benchmarks/search_overhead.py
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from common import Measurement, argument_parser, limit_threads, report
from tabulate import tabulate

FACES = {"people": 20, "sessions": 4, "size": 48}
MODEL = {"channels": 64, "reduction": 16}
BATCH = {"people": 4, "sessions": 2}


def main() -> None:
    parser = argument_parser(__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--trials", type=int, default=8, help="per turn")
    parser.add_argument("--seeds", type=int, default=5, help="of random search and TPE; 0 omits the third table")
    parser.add_argument("--only-train", type=int, help="run this number of trainings in the current folder, and nothing else")
    parser.set_defaults(threads=1)
    options = parser.parse_args()
    limit_threads(options.threads)
    if options.only_train:
        only_train(Path.cwd(), options.only_train)
        return
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        os.environ["FR_PS_CACHE"] = f"{name}/cache"
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{name}/mlflow.db"
        overhead, numbers = measure_overhead(Path(name), options.turns, options.trials)
        workers, more = measure_workers(Path(name), 2 * options.trials)
        numbers |= more
        quality: list[list[object]] = []
        if options.seeds:
            quality, more = measure_quality(Path(name), options.seeds)
            numbers |= more
        print(tabulate(overhead, headers=["driver", "seconds per trial", "beyond the training"], floatfmt=".3f"))
        print()
        print(tabulate(workers, headers=["workers", "trials per hour", "only training, per hour"], floatfmt=".2f"))
        print()
        headers = ["seed", "random, half", "random, all", "TPE and pruning, half", "all", "epochs of TPE / random's"]
        report(numbers, quality, headers if quality else [], options.json)


def make_spec(folder: Path, name: str, **other: Any) -> Any:
    """The specification of a study of tiny trainings."""
    from dataclasses import fields

    from fr_ps.arguments import training_config
    from fr_ps.cli import parse_command_line
    from fr_ps.config import SearchConfig
    from fr_ps.search.spec import build_study_spec

    file = study_file(folder, name, **other)
    arguments = parse_command_line(["search", "--config", str(file)])["search"]
    config = SearchConfig(**{field.name: arguments[field.name] for field in fields(SearchConfig)})
    return build_study_spec(config, training_config(arguments))


def study_file(folder: Path, name: str, seed: int = 0, **other: Any) -> Path:
    """Write a study file with tiny trainings; `other` settings replace whole groups."""
    settings = {
        "study": {"name": name, "storage": f"sqlite:///{folder}/{name}.db", "seed": seed},
        "space": {"optim.lr": {"low": 1e-4, "high": 1e-2, "log": True}, "optim.weight_decay": {"low": 0.01, "high": 0.3}},
        "synthetic": FACES,
        "model": MODEL,
        "batch": BATCH,
        "train": {"epochs": 2},
        "pruner": {"name": "none"},
        "sampler": {"name": "random"},
        "after": {"seeds": 0},
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(settings | other))
    return file


def measure_overhead(folder: Path, turns: int, trials: int) -> tuple[list[list[object]], dict[str, Measurement]]:
    """Seconds per trial of each driver, and beyond the training."""
    warnings.simplefilter("ignore")
    drivers: dict[str, Callable[[Path, str, int], None]] = {
        "training only": run_trainings_only,
        "Optuna alone": run_plain_optuna,
        "fr-ps search": run_fr_ps_search,
        "Optuna, MLflowCallback of optuna-integration": run_mlflow_callback,
        "Optuna in mlflow's MlflowStorage": run_mlflow_storage,
    }
    seconds: dict[str, list[float]] = {driver: [] for driver in drivers}
    for turn in range(turns + 1):
        for driver, run in drivers.items():
            started = time.perf_counter()
            with silence():
                run(folder, f"turn{turn}", trials if turn else 1)
            if turn:  # turn 0 is the warm-up: it also creates the faces and the databases
                seconds[driver].append((time.perf_counter() - started) / trials)
                print(f"turn {turn}: {driver}: {seconds[driver][-1]:.3f} s per trial", file=sys.stderr)
    medians = {driver: statistics.median(values) for driver, values in seconds.items()}
    beyond = {driver: statistics.median(a - b for a, b in zip(seconds[driver], seconds["training only"])) for driver in drivers}
    rows: list[list[object]] = [
        [driver, medians[driver], beyond[driver] if driver != "training only" else None] for driver in drivers
    ]
    return rows, {"overhead": Measurement(beyond["fr-ps search"], 0.5, "lower", "s per trial")}


def run_training(config: Any, folder: Path, on_epoch: Any = None) -> float:
    """A training without tracking; returns its best validation value."""
    from fr_ps.tracking.run import Run
    from fr_ps.training.train import fit

    folder.mkdir(parents=True)
    result = fit(config, Run(folder), lambda _line: None, on_epoch=on_epoch)
    return float(result.state.best_metrics.values[config.train.select] or 0.0)


def run_trainings_only(folder: Path, name: str, trials: int) -> None:
    config = make_spec(folder, f"bare-{name}").base
    for index in range(trials):
        run_training(config, folder / f"bare-{name}-{index}")


def objective(base: Any, folder: Path) -> Callable[[Any], float]:
    """A typical objective function for Optuna."""
    import optuna

    from fr_ps.config import with_settings

    def call(trial: Any) -> float:
        settings = {
            "optim.lr": trial.suggest_float("optim.lr", 1e-4, 1e-2, log=True),
            "optim.weight_decay": trial.suggest_float("optim.weight_decay", 0.01, 0.3),
        }

        def on_epoch(epoch: int, validation: Any) -> None:
            trial.report(validation.values[base.train.select], epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        return run_training(with_settings(base, settings), folder / str(trial.number), on_epoch)

    return call


def run_plain_optuna(folder: Path, name: str, trials: int) -> None:
    optimize(folder, f"plain-{name}", trials, f"sqlite:///{folder}/plain-{name}.db")


def run_mlflow_callback(folder: Path, name: str, trials: int) -> None:
    from optuna_integration import MLflowCallback

    callback = MLflowCallback(os.environ["MLFLOW_TRACKING_URI"], metric_name="val/identity/auc")
    optimize(folder, f"callback-{name}", trials, f"sqlite:///{folder}/callback-{name}.db", callback)


def run_mlflow_storage(folder: Path, name: str, trials: int) -> None:
    import mlflow
    from mlflow.optuna.storage import MlflowStorage

    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    experiment = mlflow.MlflowClient().create_experiment(f"storage-{name}")
    optimize(folder, f"storage-{name}", trials, MlflowStorage(experiment_id=experiment))


def optimize(folder: Path, name: str, trials: int, storage: Any, callback: Any = None) -> None:
    import optuna

    base = make_spec(folder, name).base
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(
        storage=storage, study_name=name, sampler=sampler, pruner=optuna.pruners.NopPruner(), direction="maximize"
    )
    study.optimize(objective(base, folder / name), n_trials=trials, callbacks=[callback] if callback else None)


def run_fr_ps_search(folder: Path, name: str, trials: int) -> None:
    from fr_ps.search.storage import Storage, open_study
    from fr_ps.search.worker import run_worker
    from fr_ps.tracking.lifecycle import create_parent_run

    spec = make_spec(folder, f"fr-ps-{name}", budget={"trials": trials})
    study = spec.config.study
    open_study(Storage(study.storage, study.heartbeat), study.name, ["maximize"])
    _, parent = create_parent_run(study.name, folder / "runs")
    run_worker(spec, parent, time.time(), folder / "runs")


def measure_workers(folder: Path, trials: int) -> tuple[list[list[object]], dict[str, Measurement]]:
    """Trials per hour with one worker and with two, of one thread each; and of processes that only train."""
    trial_rates: dict[int, list[float]] = {1: [], 2: []}
    training_rates: dict[int, list[float]] = {1: [], 2: []}
    for turn, workers in enumerate((1, 2, 2, 1)):
        name = f"workers-{workers}-{turn}"
        file = study_file(folder, name, budget={"trials": trials}, train={"epochs": 6})
        run_search(file, workers)
        started, ended = study_interval(f"sqlite:///{folder}/{name}.db", name)
        trial_rates[workers].append(trials / (ended - started) * 3600)
        training_rates[workers].append(trainings_per_hour(folder / f"only-{turn}", workers, trials))
        print(
            f"{workers} workers: {trial_rates[workers][-1]:.1f} trials per hour; only training {training_rates[workers][-1]:.1f}",
            file=sys.stderr,
        )
    speed_up, machine_speed_up = (
        statistics.mean(rates[2]) / statistics.mean(rates[1]) for rates in (trial_rates, training_rates)
    )
    rows: list[list[object]] = [
        [workers, statistics.mean(trial_rates[workers]), statistics.mean(training_rates[workers])] for workers in (1, 2)
    ]
    rows.append(["two over one", speed_up, machine_speed_up])
    share = speed_up / machine_speed_up
    return rows, {
        "two_workers": Measurement(speed_up, 1.8, "higher", "times the trials of one"),
        "two_workers_of_machine": Measurement(share, 0.95, "higher", "of the speed-up of two processes that only train"),
    }


def trainings_per_hour(folder: Path, processes: int, trainings: int) -> float:
    """Trainings per hour of processes that only train, from the start of the first training to the end of the last."""
    running = []
    for number in range(processes):
        working_folder = folder / str(number)
        working_folder.mkdir(parents=True)
        command = [sys.executable, str(Path(__file__).resolve()), "--only-train", str(trainings // processes)]
        running.append(
            subprocess.Popen(command, cwd=working_folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        )
    intervals = [[float(text) for text in process.communicate()[0].splitlines()[-1].split()] for process in running]
    return trainings / (max(end for _, end in intervals) - min(start for start, _ in intervals)) * 3600


def only_train(folder: Path, trainings: int) -> None:
    """Run `trainings` trainings with the settings of the second table; prints the times of start and end."""
    import torch

    torch.set_num_threads(1)
    config = make_spec(folder, "only", train={"epochs": 6}).base
    with silence():
        run_training(config, folder / "first")  # warm-up: imports, caches
    started = time.time()
    for index in range(trainings):
        with silence():
            run_training(config, folder / str(index))
    print(started, time.time())


def run_search(file: Path, workers: int) -> None:
    command = [sys.executable, "-m", "fr_ps", "search", "--config", str(file), "--workers", str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)


def study_interval(storage: str, name: str) -> tuple[float, float]:
    """Start of the first trial of a study and end of the last one, in seconds since 1970."""
    import optuna

    trials = optuna.load_study(study_name=name, storage=storage).trials
    return (
        min(trial.datetime_start.timestamp() for trial in trials),
        max(trial.datetime_complete.timestamp() for trial in trials),
    )


def measure_quality(folder: Path, seeds: int) -> tuple[list[list[object]], dict[str, Measurement]]:
    """Best values of random search and of TPE with pruning by their number of epochs."""
    epochs, trials = 8, 16
    space = {
        "optim.lr": {"low": 1e-5, "high": 0.1, "log": True},
        "optim.weight_decay": {"low": 0.001, "high": 1.0, "log": True},
        "loss.weighting": ["fixed", "uncertainty"],
        "loss.attribute": {"low": 0.05, "high": 5.0, "log": True},
    }
    total_epochs = trials * epochs
    common = {"space": space, "train": {"epochs": epochs}, "synthetic": FACES | {"people": 30}}
    contestants: dict[str, dict[str, Any]] = {
        "random": {"pruner": {"name": "none"}, "budget": {"trials": trials}},
        "tpe": {
            "pruner": {"name": "successive_halving", "epochs": 2, "reduction": 2},
            "budget": {"trials": 4 * trials, "epochs": total_epochs},
        },
    }
    rows, shares = [], []
    for seed in range(seeds):
        curves = {}
        for sampler, settings in contestants.items():
            name = f"{sampler}-{seed}"
            file = study_file(folder, name, seed, sampler={"name": sampler, "startup": 6}, **common, **settings)
            run_search(file, 2)
            curves[sampler] = best_by_epochs(f"sqlite:///{folder}/{name}.db", name)
        target = best_at(curves["random"], total_epochs)
        needed = next((epoch for epoch, value in curves["tpe"] if value >= target), None)
        shares.append(needed / total_epochs if needed else float("inf"))
        values = [best_at(curves[sampler], at) for sampler in ("random", "tpe") for at in (total_epochs / 2, total_epochs)]
        rows.append([seed, *values, shares[-1]])
        print(json.dumps(dict(zip(("seed", "random half", "random", "tpe half", "tpe", "share"), rows[-1]))), file=sys.stderr)
    return rows, {
        "tpe_epochs": Measurement(statistics.median(shares), 0.5, "lower", "of random search's epochs, median of seeds")
    }


def best_by_epochs(storage: str, name: str) -> list[tuple[int, float]]:
    """Total epochs and best value so far after each trial, in the order of completion."""
    import optuna

    trials = [trial for trial in optuna.load_study(study_name=name, storage=storage).trials if trial.datetime_complete]
    epochs, best, curve = 0, 0.0, []
    for trial in sorted(trials, key=lambda trial: trial.datetime_complete):
        epochs += int(trial.user_attrs["epochs"])
        if trial.state.name == "COMPLETE":
            best = max(best, trial.value)
        curve.append((epochs, best))
    return curve


def best_at(curve: list[tuple[int, float]], epochs: float) -> float:
    """The best value of a curve up to a number of epochs."""
    return max((value for total, value in curve if total <= epochs), default=0.0)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


if __name__ == "__main__":
    main()
