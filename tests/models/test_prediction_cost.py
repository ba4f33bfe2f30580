"""What an answer costs: parameters counted layer by layer, and time."""

import time

import pytest
import torch
from torch import Tensor, nn

from fr_ps.config.search import COST_OBJECTIVES
from fr_ps.models.cost import COSTS, latency_ms, parameters_millions
from fr_ps.models.network import FaceNetwork
from tests.models.small import CHANNELS, CLASSES, make_network

INPUTS = {"albedo": 1, "normal": 3, "depth": 1}
SIZE = 32


def modes(network: FaceNetwork) -> dict[str, bool]:
    return {name: module.training for name, module in network.named_modules()}


def branch_by_hand(modality: str, fsm: bool = True, reduction: int = 8) -> int:
    """Backbone (8 x 8 convolution, norm), projection, five separations (two 1 x 1 convolutions and a norm; a 7 x 7 one and a
    norm), a norm before each of six embeddings."""
    backbone = INPUTS[modality] * 16 * 64 + 16 + 2 * 16
    project = 16 * CHANNELS + CHANNELS
    narrow = 14 * CHANNELS // reduction
    channel = (14 * CHANNELS * narrow + narrow) + (narrow * CHANNELS + CHANNELS) + 2 * CHANNELS
    spatial = 2 * 49 + 2
    return backbone + project + (5 * (channel + spatial) if fsm else 0) + 6 * 2 * CHANNELS


def heads_by_hand(width: int) -> int:
    return sum(width * classes + classes for classes in CLASSES.values())


def adversaries_by_hand() -> int:
    return sum(2 * CHANNELS + CHANNELS * classes + classes for classes in CLASSES.values())


@pytest.mark.parametrize("modality", INPUTS)
@pytest.mark.parametrize("settings", [{}, {"fsm": False}, {"reduction": 4}, {"adversary_input": "off"}], ids=str)
def test_parameters_are_the_millions_that_a_prediction_needs(modality: str, settings: dict) -> None:
    by_hand = {name: value for name, value in settings.items() if name != "adversary_input"}
    expected = branch_by_hand(modality, **by_hand) + heads_by_hand(CHANNELS) + 1  # a gain
    network = make_network([modality], **settings)
    assert parameters_millions(network) == pytest.approx(expected / 1e6, rel=1e-12)
    more = adversaries_by_hand() if not settings.keys() & {"fsm", "adversary_input"} else 0
    assert sum(one.numel() for one in network.parameters()) == expected + more


def test_parameters_count_all_modalities() -> None:
    network = make_network(["albedo", "normal"], "fc")
    side_by_side = 2 * CHANNELS
    identity = side_by_side * CHANNELS + 2 * CHANNELS + CHANNELS  # FC, BN, PReLU
    found = 1e6 * parameters_millions(network)
    least = branch_by_hand("albedo") + branch_by_hand("normal") + identity + 2
    assert least + heads_by_hand(CHANNELS) <= found < sum(one.numel() for one in network.parameters())
    assert found == sum(one.numel() for one in make_network(["albedo", "normal"], "fc", adversary_input="off").parameters())


@pytest.mark.parametrize("modalities", [["albedo"], ["normal"], ["depth"], ["albedo", "normal", "depth"]], ids=len)
@pytest.mark.parametrize("fusion", ["concat", "fc", "gated", "score"])
def test_latency_is_some_milliseconds(modalities: list[str], fusion: str) -> None:
    assert 0 < latency_ms(make_network(modalities, fusion), SIZE) < 1000


@pytest.mark.parametrize("training", [True, False])
def test_measuring_keeps_mode_weights_and_statistics_of_the_network(training: bool) -> None:
    network = make_network(["albedo", "normal"]).train(training)
    network.branches["normal"].freeze()  # type: ignore[operator]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    mode = modes(network)
    latency_ms(network, SIZE)
    parameters_millions(network)
    assert modes(network) == mode
    assert set(mode.values()) == ({True, False} if training else {False})
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(one.grad is None for one in network.parameters())


class Slow(nn.Module):
    """Waits, every fourth time for long, and remembers what it was called with."""

    def __init__(self, inner: nn.Module, seconds: float) -> None:
        super().__init__()
        self.inner, self.seconds = inner, seconds
        self.shapes: list[tuple[int, ...]] = []
        self.modes: set[tuple[bool, bool]] = set()

    def forward(self, x: Tensor) -> Tensor:
        self.shapes.append(tuple(x.shape))
        self.modes.add((self.training, torch.is_grad_enabled()))
        time.sleep(self.seconds * (100 if len(self.shapes) % 4 == 1 else 1))
        return self.inner(x)


def test_latency_is_the_median_milliseconds_of_one_session_in_evaluation() -> None:
    network = make_network(["normal"]).train()
    slow = Slow(network.branches["normal"].backbone, 0.005)  # type: ignore[arg-type]
    network.branches["normal"].backbone = slow
    assert 5 <= latency_ms(network, 48) < 120  # the mean is at least 129
    assert set(slow.shapes) == {(1, 3, 48, 48)}
    assert slow.modes == {(False, False)}


def test_every_cost_that_a_study_may_name_is_measured() -> None:
    assert set(COSTS) == set(COST_OBJECTIVES)
    network = make_network()
    assert COSTS["cost/parameters"](network, SIZE) == parameters_millions(network)
    assert COSTS["cost/latency"](network, SIZE) > 0
