"""The loop: one epoch, from batch to step."""

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fr_ps.progress import OnProgress, no_progress
from fr_ps.training.batch_loader import BatchLoader
from fr_ps.training.guard import diagnose_nonfinite, diverged_error
from fr_ps.training.train_state import TrainState


def train_epoch(
    state: TrainState,
    loader: BatchLoader,
    *,
    rate: Callable[[int], float],
    reversal: Callable[[int], float],
    clip: float,
    accumulate: int,
    stepped: Callable[[], None] = lambda: None,
    advance: OnProgress = no_progress,
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
    network, losses, optimizer, guard = state.network, state.losses, state.optimizer, state.guard
    network.train()
    losses.train()
    order = loader.epoch_batches(state.epoch)
    steps = math.ceil(len(order) / accumulate)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    started = time.perf_counter() - state.seconds
    while state.batch < len(order):
        step = state.epoch * steps + state.batch // accumulate
        lr = rate(step)
        network.reversal_alpha = reversal(step)
        for group in optimizer.param_groups:
            group["lr"] = lr * group["factor"]
        guard.snapshot()
        seen: list[dict[str, Tensor]] = []
        batches = range(state.batch, min(state.batch + accumulate, len(order)))
        for index in batches:
            maps, targets, present = loader.load(order[index], state.epoch, index)
            outputs = network(maps, present)
            total, parts = losses(outputs, targets)
            if index == batches.start:  # not before the forward pass, which would have to get that memory from the system again
                optimizer.zero_grad(set_to_none=True)
            (total / len(batches)).backward()
            seen.append({"loss/total": total.detach()} | {f"loss/{task}": part for task, part in parts.items()})
            seen[-1] |= losses.diagnostics(outputs)
            state.images_seen += len(order[index])
            advance(1)
        norm = nn.utils.clip_grad_norm_(parameters, clip) if clip else _grad_norm(parameters)
        if guard.is_finite(torch.stack([one["loss/total"] for one in seen]).sum(), norm):
            optimizer.step()
            state.ema.update(step)
            for one in seen:
                state.meter.update(one)
        elif guard.rollback():
            found = [diagnose_nonfinite(network, losses, *loader.load(order[index], state.epoch, index)) for index in batches]
            what = next((one for one in found if one), "the total loss or its gradient is NaN or infinite")
            sessions = [
                name for index, one in zip(batches, found) if one or not any(found) for name in loader.session_names(order[index])
            ]
            raise diverged_error(guard.consecutive_skipped, what, state.epoch + 1, sessions, good(), lr)
        state.batch = batches.stop
        state.seconds = time.perf_counter() - started
        stepped()
    weights = {f"weight/{task}": float(weight) for task, weight in losses.weighting.weights().items()}
    group = optimizer.param_groups[0]
    last = {"lr": group["lr"] / group["factor"], "bad_steps": float(guard.skipped_in_epoch)}
    speed = {"images_per_second": state.images_seen / state.seconds}
    return {f"train/{name}": value for name, value in (state.meter.compute() | weights | last | speed).items()}


def _grad_norm(parameters: list[nn.Parameter]) -> Tensor:
    return nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
