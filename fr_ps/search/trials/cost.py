"""What a network costs to answer, as an objective beside what it is worth."""

import time
from collections.abc import Callable

import torch

from fr_ps.models.network import FaceNetwork

_WARMUP_RUNS, _TIMED = 3, 15


def parameters_millions(network: FaceNetwork) -> float:
    """Millions of the parameters that an answer needs: all but those of the adversaries."""
    return sum(one.numel() for name, one in network.named_parameters() if ".adversaries." not in name) / 1e6


@torch.inference_mode()
def latency_ms(network: FaceNetwork, size: int) -> float:
    """Milliseconds that `network` takes to answer about one session, the median of some; left in the mode that it was in."""
    first = next(network.parameters())
    channels = {"normal": 3}
    maps = {name: torch.zeros(1, channels.get(name, 1), size, size, device=first.device) for name in network.modalities}
    was_training = network.training
    network.eval()
    seconds = []
    for _ in range(_WARMUP_RUNS + _TIMED):
        begun = time.perf_counter()
        network.decode(network.encode(maps))["identity"].sum().item()  # which waits for a GPU
        seconds.append(time.perf_counter() - begun)
    network.train(was_training)
    return 1000 * sorted(seconds[_WARMUP_RUNS:])[_TIMED // 2]


COSTS: dict[str, Callable[[FaceNetwork, int], float]] = {
    "cost/parameters": lambda network, _: parameters_millions(network),
    "cost/latency": latency_ms,
}
"""Objective to what measures it on a network of maps of some size."""
