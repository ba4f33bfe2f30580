"""What a network costs: parameters, multiply-adds, feature map, seconds of a training step, latency of a prediction."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch.utils.flop_counter import FlopCounterMode

from fr_ps.config import ModelConfig
from fr_ps.data.labels import ATTRIBUTES
from fr_ps.data.layout import CHANNELS
from fr_ps.errors import InputError, one_line
from fr_ps.models import build_network
from fr_ps.models.branch import Branch
from fr_ps.models.network import FaceNetwork, NetworkOutput

MODALITY_OF_CHANNELS = {1: "albedo", 3: "normal"}
"""Number of input channels to a modality with as many."""
MAX_TIMED_PARAMETERS = 250
"""Millions of parameters of the largest network with a timed step; larger ones need gigabytes for their gradients."""
_TIMED_BATCH = 2
_WARMUP_RUNS, _TIMED_RUNS = 3, 15


@dataclass(frozen=True)
class Cost:
    """The cost of the default network with a backbone.

    Attributes:
        backbone: millions of parameters of the backbone.
        network: millions of parameters of the whole network, adversaries included.
        multiply_adds: billions, for one session.
        shape: of the shared feature map: channels, height, width.
    """

    backbone: float
    network: float
    multiply_adds: float
    shape: tuple[int, ...]


def cost(name: str, inputs: int, size: int) -> Cost:
    """The cost of the default network with the backbone `name` on maps of `inputs` x `size` x `size`.

    Counted on the meta device, which allocates no memory.

    Raises:
        InputError: no such network of timm, or maps of this size are too small for it.
    """
    with torch.device("meta"):
        network = _build(name, inputs).eval()
        maps = {MODALITY_OF_CHANNELS[inputs]: torch.empty(1, inputs, size, size)}
    try:
        shape = _only_branch(network).shared_map(maps[MODALITY_OF_CHANNELS[inputs]]).shape[1:]
        with FlopCounterMode(display=False) as counter:
            network(maps)
    except (RuntimeError, AssertionError) as error:
        text = one_line(error, 200).rstrip(".")
        raise InputError(f"{name}: maps of {size} px are too small ({text}); try another --size") from None
    # The counter counts a multiply-add as two operations.
    return Cost(_millions(_only_branch(network).backbone), _millions(network), counter.get_total_flops() / 2 / 1e9, tuple(shape))


def step_seconds(name: str, inputs: int, size: int, device: torch.device) -> float:
    """Seconds of a forward and backward pass of a batch of two, after a warm-up pass.

    Raises:
        RuntimeError: a gradient that is not finite.
    """
    network = _build(name, inputs).to(device)
    maps = {MODALITY_OF_CHANNELS[inputs]: torch.rand(_TIMED_BATCH, inputs, size, size, device=device)}
    seconds = 0.0
    for _ in range(2):
        network.zero_grad()
        started = time.perf_counter()
        outputs: NetworkOutput = network(maps)
        tensors = [outputs.embedding, *outputs.logits.values(), *outputs.shared.values(), *outputs.adversarial.values()]
        torch.stack([tensor.square().mean() for tensor in tensors]).sum().backward()
        finite = all(parameter.grad is None or bool(parameter.grad.isfinite().all()) for parameter in network.parameters())
        seconds = time.perf_counter() - started  # reading the gradients synchronised a GPU
        if not finite:
            raise RuntimeError(f"{name}: a gradient is not finite")
    return seconds


def cost_row(name: str, inputs: int, size: int, step_device: torch.device | None) -> dict[str, str | float | None]:
    """Table columns of one backbone; with `step_device`, also the seconds of a training step, up to MAX_TIMED_PARAMETERS."""
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


def parameters_millions(network: FaceNetwork) -> float:
    """Millions of parameters that a prediction needs: all but those of the adversaries."""
    return sum(parameter.numel() for name, parameter in network.named_parameters() if ".adversaries." not in name) / 1e6


@torch.inference_mode()
def latency_ms(network: FaceNetwork, size: int) -> float:
    """Median milliseconds of a prediction for one session; the network keeps its mode."""
    first = next(network.parameters())
    maps = {name: torch.zeros(1, CHANNELS[name], size, size, device=first.device) for name in network.modalities}
    was_training = network.training
    network.eval()
    seconds = []
    for _ in range(_WARMUP_RUNS + _TIMED_RUNS):
        started = time.perf_counter()
        network.decode(network.encode(maps), maps).embedding.sum().item()  # waits for a GPU
        seconds.append(time.perf_counter() - started)
    network.train(was_training)
    return 1000 * sorted(seconds[_WARMUP_RUNS:])[_TIMED_RUNS // 2]


COSTS: dict[str, Callable[[FaceNetwork, int], float]] = {
    "cost/parameters": lambda network, _: parameters_millions(network),
    "cost/latency": latency_ms,
}
"""Name of a cost objective of a study to the function that computes it from a network and the size of its maps in pixels."""


def _build(name: str, inputs: int) -> FaceNetwork:
    return build_network({MODALITY_OF_CHANNELS[inputs]: ModelConfig(backbone=name)}, "concat", dict.fromkeys(ATTRIBUTES, 2))


def _only_branch(network: FaceNetwork) -> Branch:
    (branch,) = network.branches.values()
    return cast(Branch, branch)


def _millions(module: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6
