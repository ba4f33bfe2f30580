"""Which parameters the optimizer has, and with which decay and rate."""

from typing import Any

import pytest
import torch
from torch import nn

from fr_ps.config import LossConfig, ModelConfig, OptimConfig
from fr_ps.losses import MultiTaskLoss, build_losses
from fr_ps.models import build_backbone, build_network
from fr_ps.models.network import FaceNetwork
from fr_ps.training.optim import build_optimizer, no_decay

CLASSES = {"gender": 2, "spectacles": 2, "facial_hair": 2, "pose": 2, "emotion": 2}


def parts(backbone: str, weighting: str) -> tuple[FaceNetwork, MultiTaskLoss]:
    config = ModelConfig(backbone=backbone, channels=16, reduction=8)  # type: ignore[arg-type]
    losses = build_losses(LossConfig(weighting=weighting), 16, torch.full((4,), 2), {"gender": torch.tensor([3, 5])})  # type: ignore[arg-type]
    return build_network({"albedo": config}, "concat", CLASSES), losses


@pytest.mark.parametrize("name", ["adamw", "sgd"])
@pytest.mark.parametrize("backbone", ["miresnet18", "convnextv2_atto"])
@pytest.mark.parametrize("weighting", ["fixed", "uncertainty"])
def test_every_parameter_is_in_it_once_and_only_what_is_named_undecayed_has_no_decay(
    name: str, backbone: str, weighting: str
) -> None:
    network, losses = parts(backbone, weighting)
    config = OptimConfig(name=name, weight_decay=0.07)  # type: ignore[arg-type]
    optimizer = build_optimizer(config, [network, losses.identity], losses.weighting)
    held = [(parameter, group) for group in optimizer.param_groups for parameter in group["params"]]
    wanted = [*network.parameters(), *losses.parameters()]
    assert len(held) == len(wanted)
    assert {id(parameter) for parameter, _ in held} == {id(parameter) for parameter in wanted}
    names = no_decay(network)
    spared = {id(parameter) for parameter_name, parameter in network.named_parameters() if parameter_name in names}
    spared |= {id(parameter) for parameter in losses.weighting.parameters()}  # the log-variances
    for parameter, group in held:
        assert group["weight_decay"] == (0 if id(parameter) in spared else 0.07)
    decayed = {id(parameter) for parameter, group in held if group["weight_decay"]}
    assert id(losses.identity.weight) in decayed  # a direction a person


@pytest.mark.parametrize(
    ("backbone", "spared", "decayed"),
    [
        (
            "convnextv2_atto",
            [
                "branches.albedo.backbone.trunk.stem.1.weight",  # LayerNorm
                "branches.albedo.backbone.trunk.stages.1.blocks.1.norm.weight",
                "branches.albedo.backbone.trunk.stages.1.blocks.1.mlp.grn.weight",  # global response norm
                "branches.albedo.backbone.trunk.stages.1.blocks.1.mlp.grn.bias",
                "branches.albedo.backbone.trunk.stages.1.blocks.1.mlp.fc1.bias",
            ],
            [
                "branches.albedo.backbone.trunk.stem.0.weight",
                "branches.albedo.backbone.trunk.stages.1.blocks.1.conv_dw.weight",
                "branches.albedo.backbone.trunk.stages.1.blocks.1.mlp.fc1.weight",
            ],
        ),
        (
            "miresnet18",
            [
                "branches.albedo.backbone.stem.1.weight",  # BN
                "branches.albedo.backbone.stem.2.weight",  # slopes of PReLU
                "branches.albedo.backbone.blocks.0.body.0.bias",
                "branches.albedo.backbone.blocks.0.body.3.weight",
            ],
            ["branches.albedo.backbone.stem.0.weight", "branches.albedo.backbone.blocks.2.shortcut.0.weight"],
        ),
        (
            "irse50",
            ["branches.albedo.backbone.blocks.0.body.6.fc1.bias", "branches.albedo.backbone.stem.2.weight"],
            ["branches.albedo.backbone.blocks.0.body.6.fc1.weight", "branches.albedo.backbone.blocks.0.body.4.weight"],
        ),
    ],
    ids=["convnextv2_atto", "miresnet18", "irse50"],
)
def test_norms_biases_slopes_and_gains_do_not_decay_and_weights_do(backbone: str, spared: list[str], decayed: list[str]) -> None:
    fsm = "branches.albedo.separate.gender."
    spared = [*spared, "log_gains.albedo", "heads.pose.linear.bias", "branches.albedo.embeddings.pose.norm.weight"]
    spared += [fsm + "channel.0.bias", fsm + "channel.3.weight", fsm + "spatial.1.weight", fsm + "spatial.1.bias"]
    decayed = [*decayed, "heads.pose.linear.weight", fsm + "channel.0.weight", fsm + "channel.2.weight", fsm + "spatial.0.weight"]
    network, _ = parts(backbone, "fixed")
    names = no_decay(network)
    owners = {name: network.get_submodule(name.rpartition(".")[0]) for name, _ in network.named_parameters()}
    assert set(spared + decayed) <= set(owners)
    assert set(spared) <= names
    assert not set(decayed) & names
    weights = {name for name, owner in owners.items() if type(owner) in (nn.Conv2d, nn.Linear) and name.endswith(".weight")}
    assert set(owners) - names == weights


@pytest.mark.parametrize(
    ("name", "parameter", "shape"),
    [
        ("nf_resnet26", "stem_conv.gain", (64, 1, 1, 1)),
        ("fastvit_t8", "stages_0.blocks.0.token_mixer.layer_scale.gamma", (48, 1, 1)),
        ("xcit_nano_12_p16_224", "model.blocks.0.attn.temperature", (4, 1, 1)),
        ("resmlp_12_224", "model.blocks.0.norm1.beta", (1, 1, 384)),
        ("coatnet_0_224", "stages_2.blocks.0.attn.rel_pos.relative_position_bias_table", (729, 12)),
        ("vit_tiny_patch16_224", "model.pos_embed", (1, 197, 192)),
    ],
)
def test_scales_and_biases_of_several_dimensions_in_networks_of_timm_do_not_decay(
    name: str, parameter: str, shape: tuple[int, ...]
) -> None:
    with torch.device("meta"):
        backbone = build_backbone(f"timm:{name}", 1)
    names = no_decay(backbone)
    assert backbone.get_parameter(f"trunk.{parameter}").shape == shape
    assert f"trunk.{parameter}" in names
    decayed = [name for name, _ in backbone.named_parameters() if name not in names]
    assert decayed
    assert all(name.endswith(".weight") for name in decayed)


def test_a_layer_norm_over_a_map_does_not_decay_and_a_linear_layer_to_one_number_does() -> None:
    module = nn.Sequential(nn.LayerNorm((4, 3, 3)), nn.Linear(4, 1))
    assert no_decay(module) == {"0.weight", "0.bias", "1.bias"}


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
    backbone = network.get_submodule("branches.albedo.backbone").requires_grad_(False)
    optimizer = build_optimizer(OptimConfig(), [network, losses.identity], losses.weighting)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert not held & {id(parameter) for parameter in backbone.parameters()}
    assert id(network.log_gains["albedo"]) in held


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.full((2, 2), 2.0))
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
    assert module.matrix.flatten().tolist() == pytest.approx([matrix] * 4, rel=1e-5)
    assert module.gain.item() == pytest.approx(gain, rel=1e-5)
