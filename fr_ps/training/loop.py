"""The loop: one epoch, from batch to step."""

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fr_ps.progress import Advance, silent
from fr_ps.training.feed import Feed
from fr_ps.training.guard import bad_numbers, culprits
from fr_ps.training.learner import Learner


def train_epoch(
    learner: Learner,
    feed: Feed,
    *,
    rate: Callable[[int], float],
    reversal: Callable[[int], float],
    clip: float,
    accumulate: int,
    stepped: Callable[[], None] = lambda: None,
    advance: Advance = silent,
    good: Callable[[], str] = lambda: "none",
) -> dict[str, float]:
    """Train to the end of the present epoch, from where `learner` is in it.

    A step whose loss or gradient is not finite is skipped: nothing moves, and nothing of it is in the means.

    Args:
        learner: what is trained, and how far it is.
        feed: the batches.
        rate: step of the optimizer, counted from the start of the training, to learning rate.
        reversal: such a step to alpha of the gradient reversal.
        clip: largest norm of a step's gradient; 0 for no limit.
        accumulate: batches a step; the gradient is that of their mean loss. The last step of an epoch may have fewer.
        stepped: called after each step, when `learner` is whole.
        advance: called once a batch.
        good: the name of the last good checkpoint, for the user.

    Returns:
        The epoch's `train/...` metrics: mean losses, weights at its end, learning rate, norms, skipped steps, images per
        second.

    Raises:
        InputError: too many bad steps in a row.
    """
    network, losses, optimizer, guard = learner.network, learner.losses, learner.optimizer, learner.guard
    network.train()
    losses.train()
    order = feed.order(learner.epoch)
    steps = math.ceil(len(order) / accumulate)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    started = time.perf_counter() - learner.seconds
    while learner.batch < len(order):
        step = learner.epoch * steps + learner.batch // accumulate
        lr = rate(step)
        network.reversal = reversal(step)
        for group in optimizer.param_groups:
            group["lr"] = lr * group["factor"]
        guard.keep()
        seen: list[dict[str, Tensor]] = []
        batches = range(learner.batch, min(learner.batch + accumulate, len(order)))
        for index in batches:
            maps, targets, present = feed.batch(order[index], learner.epoch, index)
            outputs = network(maps, present)
            total, parts = losses(outputs, targets)
            if index == batches.start:  # not before the forward pass, which would have to get that memory from the system again
                optimizer.zero_grad(set_to_none=True)
            (total / len(batches)).backward()
            seen.append({"loss/total": total.detach()} | {f"loss/{task}": part for task, part in parts.items()})
            seen[-1] |= losses.observe(outputs)
            learner.images += len(order[index])
            advance(1)
        norm = nn.utils.clip_grad_norm_(parameters, clip) if clip else _norm(parameters)
        if guard.is_good(torch.stack([one["loss/total"] for one in seen]).sum(), norm):
            optimizer.step()
            learner.average.update(step)
            for one in seen:
                learner.means.add(one)
        elif guard.undo():
            found = [culprits(network, losses, *feed.batch(order[index], learner.epoch, index)) for index in batches]
            what = next((one for one in found if one), "the total loss or its gradient is NaN or infinite")
            sessions = [name for index, one in zip(batches, found) if one or not any(found) for name in feed.names(order[index])]
            raise bad_numbers(guard.in_row, what, learner.epoch + 1, sessions, good(), lr)
        learner.batch = batches.stop
        learner.seconds = time.perf_counter() - started
        stepped()
    weights = {f"weight/{task}": float(weight) for task, weight in losses.weighting.weights().items()}
    group = optimizer.param_groups[0]
    last = {"lr": group["lr"] / group["factor"], "bad_steps": float(guard.in_epoch)}
    speed = {"images_per_second": learner.images / learner.seconds}
    return {f"train/{name}": value for name, value in (learner.means.read() | weights | last | speed).items()}


def _norm(parameters: list[nn.Parameter]) -> Tensor:
    return nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
