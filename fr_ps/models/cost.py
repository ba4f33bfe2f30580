"""What each backbone costs: parameters, multiply-adds, feature map, and the seconds of a training step."""

import time
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fr_ps.config import ModelConfig
from fr_ps.data.labels import ATTRIBUTES
from fr_ps.errors import InputError
from fr_ps.models import build_network
from fr_ps.models.branch import Branch
from fr_ps.models.network import FaceNetwork

MODALITY_OF_CHANNELS = {1: "albedo", 3: "normal"}
"""Number of input channels to a modality that has them."""
MAX_TIMED_PARAMETERS = 250
"""Millions of parameters of the largest network whose step is timed: with gradients, larger ones need gigabytes."""
_TIMED_BATCH = 2


@dataclass(frozen=True)
class Cost:
    """Of one backbone.

    Attributes:
        backbone: millions of its parameters.
        network: of the whole network's, adversaries included.
        multiply_adds: billions, for the answer to one map.
        shape: of the shared feature map: channels, height, width.
    """

    backbone: float
    network: float
    multiply_adds: float
    shape: tuple[int, ...]


def cost(name: str, inputs: int, size: int) -> Cost:
    """What the default network with the backbone `name` costs on maps of `inputs` x `size` x `size`.

    Counted on the meta device, which has shapes and no memory: the largest network costs nothing.

    Raises:
        InputError: no such network of timm, or one that takes no maps of that size.
    """
    with torch.device("meta"):
        network = _build(name, inputs).eval()
        maps = {MODALITY_OF_CHANNELS[inputs]: torch.empty(1, inputs, size, size)}
    try:
        shape = _only_branch(network).shared_map(maps[MODALITY_OF_CHANNELS[inputs]]).shape[1:]
        with FlopCounterMode(display=False) as counter:
            network(maps)
    except (RuntimeError, AssertionError) as error:
        text = " ".join(str(error).split())[:200].rstrip(".")
        raise InputError(f"{name} takes no maps of {size} px ({text}); try another --size") from None
    # The counter takes a multiply-add for two operations.
    return Cost(_millions(_only_branch(network).backbone), _millions(network), counter.get_total_flops() / 2 / 1e9, tuple(shape))


def step_seconds(name: str, inputs: int, size: int, device: torch.device) -> float:
    """The seconds that forward and backward of a batch of two take, after one that warms up.

    Raises:
        RuntimeError: a gradient that is not finite.
    """
    network = _build(name, inputs).to(device)
    maps = {MODALITY_OF_CHANNELS[inputs]: torch.rand(_TIMED_BATCH, inputs, size, size, device=device)}
    seconds = 0.0
    for _ in range(2):
        network.zero_grad()
        started = time.perf_counter()
        outputs: dict[str, Tensor] = network(maps)
        torch.stack([output.square().mean() for output in outputs.values()]).sum().backward()
        finite = all(parameter.grad is None or bool(parameter.grad.isfinite().all()) for parameter in network.parameters())
        seconds = time.perf_counter() - started  # after a reading of the gradients, for which a GPU has to be done
        if not finite:
            raise RuntimeError(f"{name}: a gradient is not finite")
    return seconds


def cost_row(name: str, inputs: int, size: int, step_device: torch.device | None) -> dict[str, str | float | None]:
    """Columns to values of one backbone; where `smoke` names a device, one up to SMOKE_LIMIT also does a training step."""
    found = cost(name, inputs, size)
    columns: dict[str, str | float | None] = {
        "name": name,
        "backbone (M)": found.backbone,
        "network (M)": found.network,
        "multiply-adds (G)": found.multiply_adds,
        "map": " x ".join(map(str, found.shape)),
    }
    if step_device:
        columns["step (s)"] = None if found.network > MAX_TIMED_PARAMETERS else step_seconds(name, inputs, size, step_device)
    return columns


def _build(name: str, inputs: int) -> FaceNetwork:
    return build_network({MODALITY_OF_CHANNELS[inputs]: ModelConfig(backbone=name)}, "concat", dict.fromkeys(ATTRIBUTES, 2))


def _only_branch(network: FaceNetwork) -> Branch:
    (branch,) = network.branches.values()
    return cast(Branch, branch)


def _millions(module: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6
