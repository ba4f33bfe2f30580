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
        rows, more = measure_workers(Path(name), options.trials)
        numbers |= more
        quality: list[list[object]] = []
        if options.seeds:
            quality, more = measure_quality(Path(name), options.seeds)
            numbers |= more
        print(tabulate(overhead, headers=["driver", "seconds per trial", "beyond the training"], floatfmt=".3f"))
        print()
        print(tabulate(rows, headers=["workers", "trials per hour", "only training, per hour"], floatfmt=".2f"))
        print()
        headers = ["seed", "random, half", "random, all", "TPE and pruning, half", "all", "epochs of TPE / random's"]
        report(numbers, quality, headers if quality else [], options.json)


def make_search(folder: Path, name: str, **other: Any) -> Any:
    """A search over tiny trainings."""
    from dataclasses import fields

    from fr_ps.arguments import training_config
    from fr_ps.cli import parse_command_line
    from fr_ps.config import SearchConfig
    from fr_ps.search.spec import build_study_spec

    file = study_file(folder, name, **other)
    found = parse_command_line(["search", "--config", str(file)])["search"]
    return build_study_spec(SearchConfig(**{one.name: found[one.name] for one in fields(SearchConfig)}), training_config(found))


def study_file(folder: Path, name: str, **other: Any) -> Path:
    settings = {
        "study": {"name": name, "storage": f"sqlite:///{folder}/{name}.db"},
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
    ways: dict[str, Callable[[Path, str, int], None]] = {
        "training only": run_trainings_only,
        "Optuna alone": run_plain_optuna,
        "fr-ps search": run_fr_ps_search,
        "Optuna, MLflowCallback of optuna-integration": run_mlflow_callback,
        "Optuna in mlflow's MlflowStorage": run_mlflow_storage,
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(turns + 1):
        for way, run in ways.items():
            begun = time.perf_counter()
            with silence():
                run(folder, f"turn{turn}", trials if turn else 1)
            if turn:  # turn 0 is the warm-up: it also creates the faces and the databases
                seconds[way].append((time.perf_counter() - begun) / trials)
                print(f"turn {turn}: {way}: {seconds[way][-1]:.3f} s per trial", file=sys.stderr)
    medians = {way: statistics.median(values) for way, values in seconds.items()}
    beyond = {way: statistics.median(a - b for a, b in zip(seconds[way], seconds["training only"])) for way in ways}
    rows: list[list[object]] = [[way, medians[way], beyond[way] if way != "training only" else None] for way in ways]
    return rows, {"overhead": Measurement(beyond["fr-ps search"], 0.5, "lower", "s per trial")}


def run_training(config: Any, folder: Path, on_epoch: Any = None) -> float:
    """A training without tracking; returns its best validation value."""
    from fr_ps.tracking.run import Run
    from fr_ps.training.train import fit

    folder.mkdir(parents=True)
    fitted = fit(config, Run(folder), lambda _line: None, on_epoch=on_epoch)
    return float(fitted.state.best_metrics.values[config.train.select] or 0.0)


def run_trainings_only(folder: Path, name: str, trials: int) -> None:
    config = make_search(folder, f"bare-{name}").base
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

    base = make_search(folder, name).base
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(
        storage=storage, study_name=name, sampler=sampler, pruner=optuna.pruners.NopPruner(), direction="maximize"
    )
    study.optimize(objective(base, folder / name), n_trials=trials, callbacks=[callback] if callback else None)


def run_fr_ps_search(folder: Path, name: str, trials: int) -> None:
    from fr_ps.search.storage import Storage, open_study
    from fr_ps.search.worker import run_worker
    from fr_ps.tracking.lifecycle import start_parent_run
    from fr_ps.tracking.run_folder import ParentRun

    found = make_search(folder, f"ours-{name}", budget={"trials": trials})
    study = found.config.study
    open_study(Storage(study.storage, study.heartbeat), study.name, ["maximize"])
    _, parent = start_parent_run(study.name, folder / "runs")
    assert isinstance(parent, ParentRun)
    run_worker(found, parent, time.time(), folder / "runs")


def measure_workers(folder: Path, trials: int) -> tuple[list[list[object]], dict[str, Measurement]]:
    """Trials per hour with one worker and with two, of one thread each; and of processes that only train."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    trained: dict[int, list[float]] = {1: [], 2: []}
    for turn, workers in enumerate((1, 2, 2, 1)):
        name = f"workers-{workers}-{turn}"
        file = study_file(folder, name, budget={"trials": 2 * trials}, train={"epochs": 6})
        run_search(file, workers)
        begun, ended = study_interval(f"sqlite:///{folder}/{name}.db", name)
        rates[workers].append(2 * trials / (ended - begun) * 3600)
        trained[workers].append(trainings_an_hour(folder / f"only-{turn}", workers, trials))
        print(
            f"{workers} workers: {rates[workers][-1]:.1f} trials per hour; only training {trained[workers][-1]:.1f}",
            file=sys.stderr,
        )
    gain, machine = (statistics.mean(rate[2]) / statistics.mean(rate[1]) for rate in (rates, trained))
    rows: list[list[object]] = [
        [workers, statistics.mean(rates[workers]), statistics.mean(trained[workers])] for workers in (1, 2)
    ]
    rows.append(["two over one", gain, machine])
    return rows, {
        "two_workers": Measurement(gain, 1.8, "higher", "times the trials of one"),
        "two_workers_of_machine": Measurement(gain / machine, 0.95, "higher", "of the speed-up of two processes that only train"),
    }


def trainings_an_hour(folder: Path, processes: int, trainings: int) -> float:
    """Trainings per hour of processes that only train, from the start of the first training to the end of the last."""
    started = []
    for number in range(processes):
        own = folder / str(number)
        own.mkdir(parents=True)
        command = [sys.executable, str(Path(__file__).resolve()), "--only-train", str(2 * trainings // processes)]
        started.append(subprocess.Popen(command, cwd=own, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True))
    spans = [[float(text) for text in process.communicate()[0].splitlines()[-1].split()] for process in started]
    return 2 * trainings / (max(end for _, end in spans) - min(begin for begin, _ in spans)) * 3600


def only_train(folder: Path, trainings: int) -> None:
    """Run `trainings` trainings with the settings of the second table; prints the times of start and end."""
    import torch

    torch.set_num_threads(1)
    config = make_search(folder, "only", train={"epochs": 6}).base
    with silence():
        run_training(config, folder / "first")  # warm-up: imports, caches
    begun = time.time()
    for index in range(trainings):
        with silence():
            run_training(config, folder / str(index))
    print(begun, time.time())


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
    common = {"space": space, "train": {"epochs": epochs}, "synthetic": FACES | {"people": 30}, "budget": {"trials": trials}}
    rows, shares = [], []
    for seed in range(seeds):
        curves = {}
        for sampler, pruner in (
            ("random", {"name": "none"}),
            ("tpe", {"name": "successive_halving", "epochs": 2, "reduction": 2}),
        ):
            name = f"{sampler}-{seed}"
            more = {"budget": {"trials": 4 * trials, "epochs": trials * epochs}} if sampler == "tpe" else {}
            chosen = {"sampler": {"name": sampler, "startup": 6}, "pruner": pruner}
            file = study_file(folder, name, **(common | chosen | more))
            settings = yaml.safe_load(file.read_text())
            settings["study"]["seed"] = seed
            file.write_text(yaml.safe_dump(settings))
            run_search(file, 2)
            curves[sampler] = best_by_epochs(f"sqlite:///{folder}/{name}.db", name)
        whole = trials * epochs
        target = best_at(curves["random"], whole)
        needed = next((spent for spent, value in curves["tpe"] if value >= target), None)
        shares.append(needed / whole if needed else float("inf"))
        values = [best_at(curves[sampler], share) for sampler in ("random", "tpe") for share in (whole / 2, whole)]
        rows.append([seed, *values, shares[-1]])
        print(json.dumps(dict(zip(("seed", "random half", "random", "tpe half", "tpe", "share"), rows[-1]))), file=sys.stderr)
    return rows, {
        "tpe_epochs": Measurement(statistics.median(shares), 0.5, "lower", "of random search's epochs, median of seeds")
    }


def best_by_epochs(storage: str, name: str) -> list[tuple[int, float]]:
    """Total epochs and best value so far after each trial, in the order of completion."""
    import optuna

    trials = [trial for trial in optuna.load_study(study_name=name, storage=storage).trials if trial.datetime_complete]
    spent, best, found = 0, 0.0, []
    for trial in sorted(trials, key=lambda trial: trial.datetime_complete):
        spent += int(trial.user_attrs["epochs"])
        best = max(best, *(trial.values if trial.state.name == "COMPLETE" else [0.0]), 0.0)
        found.append((spent, best))
    return found


def best_at(curve: list[tuple[int, float]], epochs: float) -> float:
    return max((value for spent, value in curve if spent <= epochs), default=0.0)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


if __name__ == "__main__":
    main()
