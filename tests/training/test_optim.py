"""Which parameters the optimizer has, and with which decay and rate."""

from typing import Any

import pytest
import torch
from torch import nn

from fr_ps.config import LossConfig, ModelConfig, OptimConfig
from fr_ps.losses import MultiTaskLoss, build_losses
from fr_ps.models import build_network
from fr_ps.models.network import FaceNetwork
from fr_ps.training.optim import build_optimizer

CLASSES = {"gender": 2, "spectacles": 2, "facial_hair": 2, "pose": 2, "emotion": 2}


def parts(backbone: str, weighting: str) -> tuple[FaceNetwork, MultiTaskLoss]:
    config = ModelConfig(backbone=backbone, channels=16, reduction=8)  # type: ignore[arg-type]
    losses = build_losses(LossConfig(weighting=weighting), 16, torch.full((4,), 2), {"gender": torch.tensor([3, 5])})  # type: ignore[arg-type]
    return build_network(config, ["albedo"], CLASSES), losses


@pytest.mark.parametrize("name", ["adamw", "sgd"])
@pytest.mark.parametrize("backbone", ["miresnet18", "convnextv2_atto"])
@pytest.mark.parametrize("weighting", ["fixed", "uncertainty"])
def test_every_parameter_is_in_it_once_and_only_those_of_two_dimensions_and_more_decay(
    name: str, backbone: str, weighting: str
) -> None:
    network, losses = parts(backbone, weighting)
    config = OptimConfig(name=name, weight_decay=0.07)  # type: ignore[arg-type]
    optimizer = build_optimizer(config, [network, losses.identity], losses.weighting)
    held = [(parameter, group) for group in optimizer.param_groups for parameter in group["params"]]
    wanted = [*network.parameters(), *losses.parameters()]
    assert len(held) == len(wanted)
    assert {id(parameter) for parameter, _ in held} == {id(parameter) for parameter in wanted}
    for parameter, group in held:
        assert group["weight_decay"] == (0.07 if parameter.ndim >= 2 else 0)
    assert {parameter.ndim for parameter in wanted} >= {0, 1, 2, 4}


def test_only_the_learnt_loss_weights_have_another_rate() -> None:
    network, losses = parts("miresnet18", "uncertainty")
    config = OptimConfig(weighting_factor=20)
    optimizer = build_optimizer(config, [network, losses.identity], losses.weighting)
    learnt = {id(parameter) for parameter in losses.weighting.parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert group["factor"] == (20 if id(parameter) in learnt else 1)


def test_frozen_parameters_are_left_out() -> None:
    network, losses = parts("miresnet18", "uncertainty")
    network.backbone.requires_grad_(False)
    optimizer = build_optimizer(OptimConfig(), [network, losses.identity], losses.weighting)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert not held & {id(parameter) for parameter in network.backbone.parameters()}
    assert id(network.identity.log_gain) in held


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor([[2.0]]))
        self.gain = nn.Parameter(torch.tensor(2.0))


@pytest.mark.parametrize(
    ("config", "matrix", "gain"),
    [
        # AdamW: p (1 - lr decay) - lr sign(g) at the first step. SGD with Nesterov: p - lr (1 + momentum) (g + decay p).
        (OptimConfig(name="adamw", lr=0.1, weight_decay=0.5), 2 * (1 - 0.05) - 0.1, 2 - 0.1),
        (OptimConfig(name="sgd", lr=0.1, weight_decay=0.5, momentum=0.9), 2 - 0.1 * 1.9 * 4, 2 - 0.1 * 1.9 * 3),
        (OptimConfig(name="sgd", lr=0.1, weight_decay=0.0, momentum=0.0), 2 - 0.1 * 3, 2 - 0.1 * 3),
    ],
    ids=["adamw", "sgd", "sgd without momentum"],
)
def test_a_first_step_is_the_one_computed_by_hand(config: OptimConfig, matrix: float, gain: float) -> None:
    module = Plain()
    empty: Any = nn.Identity()
    optimizer = build_optimizer(config, [module], empty)
    (3 * module.matrix.sum() + 3 * module.gain).backward()
    optimizer.step()
    assert module.matrix.item() == pytest.approx(matrix, rel=1e-5)
    assert module.gain.item() == pytest.approx(gain, rel=1e-5)
