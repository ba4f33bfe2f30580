"""Shared by all benchmarks: flags, interleaved timing, and the report as a table and as JSON."""

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tabulate import tabulate


@dataclass(frozen=True)
class Measurement:
    """One measured value and its goal.

    Attributes:
        value: measured.
        goal: the value to reach.
        better: `higher` or `lower`: on which side of the goal the value meets it.
        unit: for the table.
    """

    value: float
    goal: float
    better: str
    unit: str

    @property
    def met(self) -> bool:
        """Whether the value reaches the goal."""
        return self.value >= self.goal if self.better == "higher" else self.value <= self.goal


def argument_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the flags that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of torch and BLAS")
    return parser


def limit_threads(threads: int) -> None:
    """Set the CPU threads of BLAS and torch, before they are imported."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)


def interleave(functions: Mapping[str, Callable[[], float | None]], turns: int) -> dict[str, list[float]]:
    """Seconds of each function in each turn, after one turn to warm up.

    The functions alternate, in reverse order in every second turn, because the speed of the machine drifts. A function that
    returns a number is timed by that number, else by the duration of the call.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(turns + 1):
        for name in list(functions)[:: 1 if turn % 2 else -1]:
            started = time.perf_counter()
            reported = functions[name]()
            if turn:
                seconds[name].append(time.perf_counter() - started if reported is None else reported)
    return seconds


def report(numbers: dict[str, Measurement], rows: list[list[object]], headers: list[str], path: Path | None) -> None:
    """Print the table of `rows`, then each number with its goal; write the numbers to `path` if given."""
    print(tabulate(rows, headers=headers, floatfmt=".3f"))
    print()
    results = []
    for name, number in numbers.items():
        results.append([name, number.value, number.goal, number.unit, "met" if number.met else "MISSED"])
    if results:
        print(tabulate(results, headers=["number", "value", "goal", "unit", ""], floatfmt=".3f"))
    if path:
        path.write_text(json.dumps({name: asdict(number) for name, number in numbers.items()}, indent=1) + "\n")


class NoCheckpoints:
    """A checkpoint manager that saves nothing."""

    def save_if_due(self) -> None:
        """Do nothing."""

    def latest_checkpoint(self) -> str:
        """No checkpoint."""
        return "none"


def synthetic_experiment(seed: int, options: argparse.Namespace) -> Any:
    """The config of experiments/synthetic_albedo.yaml with this seed, and with the epochs and threads of `options`."""
    from fr_ps.arguments import training_config
    from fr_ps.cli import parse_command_line

    file = Path(__file__).parents[1] / "experiments" / "synthetic_albedo.yaml"
    base = training_config(parse_command_line(["train", "--config", str(file)])["train"])
    return replace(
        base,
        data=replace(base.data, split_seed=seed),
        train=replace(base.train, seed=seed, epochs=options.epochs, threads=options.threads),
    )


def make_trainer(config: Any, images: int) -> Any:
    """A trainer of `config` on the first `images` of its training part, on the CPU; it writes no checkpoint and has no run.

    In one of several processes that torchrun started, it trains together with the others.
    """
    import torch

    from fr_ps.distributed import world_size
    from fr_ps.models.sync_norm import synchronise_batch_norms
    from fr_ps.training.batch_loader import BatchLoader
    from fr_ps.training.setup import build_setup
    from fr_ps.training.train import build_train_state
    from fr_ps.training.trainer import Trainer

    torch.manual_seed(0)
    setup, _ = build_setup(config, {}, torch.device("cpu"), lambda line: None)
    loader = BatchLoader(setup.dataset, setup.split.train[:images], config.batch, config.augment, 0, torch.device("cpu"))
    network = setup.info.build_network()
    if world_size() > 1 and config.train.sync_batch_norm:
        synchronise_batch_norms(network, torch.device("cpu"))
    state = build_train_state(setup, loader, network)
    unused: Any = None
    return Trainer(setup, loader, state, NoCheckpoints(), unused, lambda line: None)  # type: ignore[arg-type]
