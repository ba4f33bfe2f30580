"""Centres that are sharded over the processes: the norm of their gradients, and their state, which is whole in a checkpoint."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fr_ps.distributed import gather_parts, is_main_process, scatter_parts, sum_over_processes_
from fr_ps.losses.multitask import MultiTaskLoss

Sections = dict[str, dict[str, Tensor]]
"""Section of a training's state, `losses` or `optimizer`, to the names in it and their tensors."""


def sharded_parameters(losses: MultiTaskLoss) -> list[nn.Parameter]:
    """The centres of all identity losses if they are sharded, else none."""
    return [loss.weight for loss in losses.identity_losses] if losses.sharded else []


def total_grad_norm(replicated: Sequence[Tensor], sharded: Sequence[Tensor]) -> Tensor:
    """Norm of the gradients of the `replicated` parameters, whole in each process, and of all parts of the `sharded` ones.

    Equal in all processes.
    """
    norm = _grad_norm(replicated)
    if sharded:
        norm = (norm.square() + sum_over_processes_(_grad_norm(sharded).square())).sqrt()
    return norm


def _grad_norm(parameters: Sequence[Tensor]) -> Tensor:
    return nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])


def gather_centres(losses: MultiTaskLoss, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> Sections:
    """Take this process's parts of the sharded tensors out of `state` and gather them. All processes call it at the same step.

    Returns:
        in the main process the whole tensors, on the CPU; in every other process its own parts.
    """
    gathered: Sections = {"losses": {}, "optimizer": {}}
    for section, name in _sharded_names(losses, optimizer, state):
        gathered[section][name] = gather_parts(state[section].pop(name), losses.identity.num_subjects)
    return gathered


def take_centres(losses: MultiTaskLoss, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> Sections:
    """Take the whole tensors out of the `state` of a checkpoint, for `scatter_centres`; their shapes remain (device `meta`)."""
    taken: Sections = {"losses": {}, "optimizer": {}}
    for section, name in _sharded_names(losses, optimizer, state):
        taken[section][name] = state[section][name]
        state[section][name] = taken[section][name].to("meta")
    return taken


def scatter_centres(losses: MultiTaskLoss, optimizer: torch.optim.Optimizer, state: dict[str, Any], taken: Sections) -> None:
    """Give each process its parts of what `take_centres` took out of `state` on the main process.

    All processes call it. Tensors of another number of subjects stay on the device `meta`, and `load_state_dict`
    rejects them by their shapes.
    """
    for section, name in _sharded_names(losses, optimizer, state):
        whole = taken[section].pop(name) if is_main_process() else state[section][name]
        if len(whole) == losses.identity.num_subjects:
            state[section][name] = scatter_parts(whole)


def _sharded_names(
    losses: MultiTaskLoss, optimizer: torch.optim.Optimizer, state: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, str]]:
    """Section and name of the sharded tensors in `state`, in the same order in all processes."""
    sharded = set(sharded_parameters(losses))
    names = {name for name, parameter in losses.named_parameters() if parameter in sharded}
    optimized = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    indices = {str(index) for index, parameter in enumerate(optimized) if parameter in sharded}
    found = [("losses", name) for name in sorted(names & state.get("losses", {}).keys())]
    for path, value in sorted(state["optimizer"].items()):
        if path.split(".")[0] in indices and isinstance(value, Tensor) and value.dim():
            found.append(("optimizer", path))
    return found
