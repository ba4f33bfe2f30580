"""The loop: one epoch, from batch to step."""

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fr_ps.losses.multitask import MultiTaskLoss
from fr_ps.models.network import FaceNetwork
from fr_ps.progress import Advance
from fr_ps.training.feed import Feed


def train_epoch(
    network: FaceNetwork,
    losses: MultiTaskLoss,
    optimizer: torch.optim.Optimizer,
    feed: Feed,
    *,
    epoch: int,
    rate: Callable[[int], float],
    reversal: Callable[[int], float],
    clip: float,
    accumulate: int,
    stepped: Callable[[int], None],
    advance: Advance,
) -> dict[str, float]:
    """Train for one epoch.

    Args:
        network: maps to outputs.
        losses: outputs and targets to total and parts.
        optimizer: of the parameters of both.
        feed: the batches.
        epoch: from 0.
        rate: step of the optimizer, counted from the start of the training, to learning rate.
        reversal: such a step to alpha of the gradient reversal.
        clip: largest norm of a step's gradient; 0 for no limit.
        accumulate: batches a step; the gradient is that of their mean loss. The last step of an epoch may have fewer.
        stepped: called with each step once the weights have moved.
        advance: called once a batch.

    Returns:
        The epoch's `train/...` metrics: mean losses, weights at its end, learning rate, norms, images per second.
    """
    network.train()
    losses.train()
    sums = Means()
    images = 0
    order = feed.order(epoch)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    started = time.perf_counter()
    lr = 0.0
    for number, start in enumerate(range(0, len(order), accumulate)):
        step = epoch * math.ceil(len(order) / accumulate) + number
        lr = rate(step)
        network.reversal = reversal(step)
        for group in optimizer.param_groups:
            group["lr"] = lr * group["factor"]
        batches = range(start, min(start + accumulate, len(order)))
        for index in batches:
            maps, targets, present = feed.batch(order[index], epoch, index)
            outputs = network(maps, present)
            total, parts = losses(outputs, targets)
            if index == start:  # not before the forward pass, which would have to get that memory from the system again
                optimizer.zero_grad(set_to_none=True)
            (total / len(batches)).backward()
            sums.add({"loss/total": total.detach()} | {f"loss/{task}": part for task, part in parts.items()})
            sums.add(losses.observe(outputs))
            images += len(order[index])
            advance(1)
        if clip:
            nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        stepped(step)
    means = sums.read()
    weights = {f"weight/{task}": float(weight) for task, weight in losses.weighting.weights().items()}
    losses.weighting.end_epoch({task: means[f"loss/{task}"] for task in losses.weighting.weights() if f"loss/{task}" in means})
    speed = {"lr": lr, "images_per_second": images / (time.perf_counter() - started)}
    return {f"train/{name}": value for name, value in (means | weights | speed).items()}


class Means:
    """Means of scalars over batches, left on the device until they are read: reading one waits for the batch."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        """Add a batch's scalars; a name may be missing in some batches."""
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
            self.counts[name] = self.counts.get(name, 0) + 1

    def read(self) -> dict[str, float]:
        """Name to mean over the batches that had it."""
        return {name: float(total) / self.counts[name] for name, total in self.sums.items()}
