"""What a step of the optimizer costs with each weighting of the losses, relative to fixed weights.

The default network (separation, five attributes, their adversaries) and batch on random maps of 112 px. In every turn
each weighting does one step, in an order that is another each turn, as the machine's speed drifts; the cost is the median
over the turns of a step's time over that of the same turn's with fixed weights. All share one network and one optimizer,
so that memory is the same for all.

    python benchmarks/weighting_cost.py
"""

import random
import statistics
import time
from collections.abc import Callable

from common import Measurement, argument_parser, limit_threads, report

GOALS = {"convnextv2_atto": 1.8, "miresnet18": 1.5}
"""Backbone to the cost that the gradient-based weightings may have."""
CHEAP = {"uncertainty": 1.05, "dwa": 1.05}
"""The others to theirs."""


def main() -> None:
    parser = argument_parser(__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--backbones", nargs="+", choices=GOALS, default=list(GOALS))
    options = parser.parse_args()
    limit_threads(options.threads)
    numbers: dict[str, Measurement] = {}
    rows: list[list[object]] = []
    for backbone in options.backbones:
        seconds = measure(backbone, options.turns, options.threads)
        for weighting, its in seconds.items():
            cost = statistics.median(weighed / fixed for weighed, fixed in zip(its, seconds["fixed"]))
            rows.append([backbone, weighting, 1000 * statistics.median(its), cost])
            if weighting != "fixed":
                goal = CHEAP.get(weighting, GOALS[backbone])
                numbers[f"{backbone}_{weighting}"] = Measurement(cost, goal, "lower", "of a step with fixed")
    report(numbers, rows, ["backbone", "weighting", "ms a step", "cost (median of turns)"], options.json)


def measure(backbone: str, turns: int, threads: int) -> dict[str, list[float]]:
    """Weighting to its seconds a step, one a turn."""
    import torch

    torch.set_num_threads(threads)
    steps = build_steps(backbone)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    order = random.Random(0)
    for turn in range(turns + 1):
        for name in order.sample(list(steps), len(steps)):
            taken = time_step(steps[name])
            if turn:  # the first warms up
                seconds[name].append(taken)
    return seconds


def time_step(step: Callable[[], None]) -> float:
    """Seconds that it takes."""
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def build_steps(backbone: str) -> dict[str, Callable[[], None]]:
    """Weighting to a step of the optimizer with it."""
    import torch
    from torch import nn

    from fr_ps.config import PEELING_ORDER, BatchConfig, LossConfig, ModelConfig, OptimConfig
    from fr_ps.losses import WEIGHTINGS, MultiTaskLoss, build_losses
    from fr_ps.models import build_network
    from fr_ps.training.optim import build_optimizer

    torch.manual_seed(0)
    batch = BatchConfig()
    images = batch.people * batch.sessions
    maps = {"albedo": torch.rand(images, 1, 112, 112)}
    targets = {"identity": torch.arange(images) // batch.sessions} | {task: torch.arange(images) % 2 for task in PEELING_ORDER}
    network = build_network({"albedo": ModelConfig(backbone=backbone)}, "concat", dict.fromkeys(PEELING_ORDER, 2), 0.1).train()
    losses = {
        name: build_losses(
            LossConfig(weighting=name),  # type: ignore[arg-type]
            network.channels,
            torch.full((batch.people,), batch.sessions),
            dict.fromkeys(PEELING_ORDER, torch.tensor([images // 2, images // 2])),
            network.adversarial_tasks,
        )
        for name in WEIGHTINGS
    }
    identities = [of_one.identity for of_one in losses.values()]
    weightings = nn.ModuleList([of_one.weighting for of_one in losses.values()])
    optimizer = build_optimizer(OptimConfig(), [network, *identities], weightings)

    def step(of_one: MultiTaskLoss) -> None:
        total, _ = of_one(network(maps), targets)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()

    return {name: lambda of_one=of_one: step(of_one) for name, of_one in losses.items()}  # type: ignore[misc]


if __name__ == "__main__":
    main()
