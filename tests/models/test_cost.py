"""What each backbone costs, counted by hand where that is easy."""

from typing import Any, cast

import pytest
import torch

from fr_ps.config import ModelConfig
from fr_ps.models import build_network
from fr_ps.models.branch import Branch
from fr_ps.models.cost import cost, cost_row, step_seconds

CLASSES = ("gender", "spectacles", "facial_hair", "pose", "emotion")
CPU = torch.device("cpu")


def test_parameters_are_those_of_the_network_that_is_trained() -> None:
    found = cost("miresnet18", 1, 112)
    network = build_network({"albedo": ModelConfig(backbone="miresnet18")}, "concat", dict.fromkeys(CLASSES, 2))
    backbone = cast(Branch, network.branches["albedo"]).backbone
    assert found.network * 1e6 == pytest.approx(sum(parameter.numel() for parameter in network.parameters()))
    assert found.backbone * 1e6 == pytest.approx(sum(parameter.numel() for parameter in backbone.parameters()))


def test_multiply_adds_are_those_counted_by_hand() -> None:
    """Of a convolution: pixels out x channels out x channels in x its area."""
    backbone, channels, side = 112**2 * 64 * 1 * 9, 64, 112
    for width in (64, 128, 256, 512):
        half = side // 2
        backbone += side**2 * width * channels * 9 + half**2 * width * width * 9 + half**2 * width * channels
        backbone += 2 * half**2 * width * width * 9
        side, channels = half, width
    separation = 7168 * 448 + 448 * 512 + 7**2 * 2 * 49
    heads = 5 * 512 * 2
    assert cost("miresnet18", 1, 112).multiply_adds * 1e9 == pytest.approx(backbone + 5 * separation + heads, rel=1e-9)


def test_larger_maps_cost_more_and_leave_a_larger_map() -> None:
    small, large = cost("irse50", 1, 112), cost("irse50", 3, 224)
    assert small.shape == (512, 7, 7)
    assert large.shape == (512, 14, 14)
    assert large.multiply_adds > 3.9 * small.multiply_adds
    assert (large.backbone - small.backbone) * 1e6 == pytest.approx(2 * 9 * 64)


def test_the_largest_network_is_counted_without_memory() -> None:
    found = cost("convnextv2_huge", 1, 112)
    assert found.backbone > 650
    assert found.shape == (512, 3, 3)


@pytest.mark.parametrize("name", ["miresnet18", "irse50", "convnextv2_atto", "timm:test_vit"])
def test_a_training_step_can_be_timed(name: str) -> None:
    assert 0 < step_seconds(name, 1, 32, CPU) < 60


def test_a_row_has_the_step_only_where_asked_and_none_for_the_largest() -> None:
    assert "step (s)" not in cost_row("convnextv2_atto", 1, 64, None)
    assert cost_row("convnextv2_huge", 1, 64, CPU)["step (s)"] is None


@pytest.mark.parametrize(("name", "size"), [("convnextv2_atto", 16), ("timm:mixer_s32_224", 112)])
def test_maps_too_small_for_the_network_are_rejected(rejected: Any, name: str, size: int) -> None:
    with rejected(name, f"{size} px"):
        cost(name, 1, size)
