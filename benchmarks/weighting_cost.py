"""Cost of an optimizer step with each loss weighting, relative to fixed weights.

The default network (separation, five attributes, their adversaries) and batch on random maps of 112 px. In every turn each
weighting runs one step. The cost is the median over the turns of the ratio of its time to that of fixed weights in the same
turn. All weightings share one network and one optimizer, and therefore the same memory.

    python benchmarks/weighting_cost.py
"""

import statistics
from collections.abc import Callable
from functools import partial

from common import Measurement, argument_parser, interleave, limit_threads, report

GOALS = {"convnextv2_atto": 1.8, "miresnet18": 1.5}
"""Highest cost of the gradient-based weightings, by backbone."""
CHEAP = {"uncertainty": 1.05, "dwa": 1.05}
"""Highest cost of the other weightings."""


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
        for weighting, times in seconds.items():
            cost = statistics.median(weighted / fixed for weighted, fixed in zip(times, seconds["fixed"]))
            rows.append([backbone, weighting, 1000 * statistics.median(times), cost])
            if weighting != "fixed":
                goal = CHEAP.get(weighting, GOALS[backbone])
                numbers[f"{backbone}_{weighting}"] = Measurement(cost, goal, "lower", "of a step with fixed")
    report(numbers, rows, ["backbone", "weighting", "ms per step", "cost (median of turns)"], options.json)


def measure(backbone: str, turns: int, threads: int) -> dict[str, list[float]]:
    """Seconds of a step with each weighting, in each turn."""
    import torch

    torch.set_num_threads(threads)
    return interleave(build_steps(backbone), turns)


def build_steps(backbone: str) -> dict[str, Callable[[], None]]:
    """An optimizer step with each weighting."""
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
    network = build_network({"albedo": ModelConfig(backbone=backbone)}, "concat", dict.fromkeys(PEELING_ORDER, 2)).train()
    network.reversal_alpha = 0.1
    losses = {
        name: build_losses(
            LossConfig(weighting=name),  # type: ignore[arg-type]
            network.embedding_size,
            torch.full((batch.people,), batch.sessions),
            dict.fromkeys(PEELING_ORDER, torch.tensor([images // 2, images // 2])),
            network.adversarial_attributes,
        )
        for name in WEIGHTINGS
    }
    identities = [loss.identity for loss in losses.values()]
    weightings = nn.ModuleList([loss.weighting for loss in losses.values()])
    optimizer = build_optimizer(OptimConfig(), [network, *identities], weightings)

    def step(loss: MultiTaskLoss) -> None:
        total = loss(network(maps), targets).total
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()

    return {name: partial(step, loss) for name, loss in losses.items()}


if __name__ == "__main__":
    main()
