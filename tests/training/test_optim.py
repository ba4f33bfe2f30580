"""The optimizer's parameter groups; the moving average of the weights, which is validated, saved and tested."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fr_ps.config import LossConfig, ModelConfig, OptimConfig
from fr_ps.evaluation import evaluate_model
from fr_ps.losses import MultiTaskLoss, build_losses
from fr_ps.models import build_backbone, build_network
from fr_ps.models.folder import load_model
from fr_ps.models.network import FaceNetwork
from fr_ps.tracking.run import Run
from fr_ps.training import finalize
from fr_ps.training import train as train_module
from fr_ps.training import trainer as trainer_module
from fr_ps.training.optim import ModelEma, build_optimizer, no_decay
from tests.training.runs import small_config

CLASSES = {"gender": 2, "spectacles": 2, "facial_hair": 2, "pose": 2, "emotion": 2}


def parts(backbone: str, weighting: str) -> tuple[FaceNetwork, MultiTaskLoss]:
    config = ModelConfig(backbone=backbone, channels=16, reduction=8)  # type: ignore[arg-type]
    counts = {"gender": torch.tensor([3, 5])}
    losses = build_losses(LossConfig(weighting=weighting), 16, torch.full((4,), 2), counts, counts)  # type: ignore[arg-type]
    return build_network({"albedo": config}, "concat", CLASSES), losses


@pytest.mark.parametrize("name", ["adamw", "sgd"])
@pytest.mark.parametrize("backbone", ["miresnet18", "convnextv2_atto"])
@pytest.mark.parametrize("weighting", ["fixed", "uncertainty"])
def test_every_parameter_is_in_one_group_and_only_the_no_decay_names_have_no_decay(
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
    optimizer = build_optimizer(OptimConfig(), [network, losses.identity], losses.weighting, weighting_lr_scale=20)
    learnt = {id(parameter) for parameter in losses.weighting.parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert group["lr_scale"] == (20 if id(parameter) in learnt else 1)


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
def test_the_first_step_equals_the_one_computed_by_hand(config: OptimConfig, matrix: float, gain: float) -> None:
    module = Plain()
    empty: Any = nn.Identity()
    optimizer = build_optimizer(config, [module], empty)
    (3 * module.matrix.sum() + 3 * module.gain).backward()
    optimizer.step()
    assert module.matrix.flatten().tolist() == pytest.approx([matrix] * 4, rel=1e-5)
    assert module.gain.item() == pytest.approx(gain, rel=1e-5)


class Network(nn.Module):
    """A weight and a BN, which has averages and an integer count of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 3, dtype=torch.float64)
        self.norm = nn.BatchNorm1d(3, dtype=torch.float64)

    def move(self, rng: np.random.Generator) -> None:
        """As a step would: other weights, other statistics, a batch more."""
        with torch.no_grad():
            for tensor in self.state_dict().values():
                if tensor.is_floating_point():
                    tensor.copy_(torch.from_numpy(rng.normal(size=tuple(tensor.shape))))
        self.norm.num_batches_tracked += 1


def state(network: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_ema_is_the_recurrence_with_a_decay_that_grows_to_its_setting(decay: float) -> None:
    rng = np.random.default_rng(0)
    network: Any = Network()
    average = ModelEma(network, decay)
    expected = state(network)
    for step in range(200):
        network.move(rng)
        average.update(step)
        d = min(decay, 1 - 1 / np.cbrt(float(step + 1)) ** 2)
        for name, value in state(network).items():
            expected[name] = value if value.dtype.kind == "i" else d * expected[name] + (1 - d) * value
        got = state(average.network)
        assert got.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(got[name], value, rtol=1e-10, atol=1e-12, err_msg=f"{name} after step {step}")
    assert average.network.norm.num_batches_tracked == 200  # type: ignore[union-attr]
    assert average.network.norm.num_batches_tracked.dtype == torch.int64  # type: ignore[union-attr]
    assert (got["norm.running_mean"] != state(network)["norm.running_mean"]).all()


def test_ema_leaves_the_trained_network_unchanged_and_in_training_mode() -> None:
    network: Any = Network()
    before = state(network)
    average = ModelEma(network, 0.9)
    for step in range(3):
        average.update(step)
    assert all((before[name] == value).all() for name, value in state(network).items())
    assert network.training
    assert not average.network.training
    ours = {tensor.data_ptr() for tensor in network.state_dict().values()}
    assert not ours & {tensor.data_ptr() for tensor in average.network.state_dict().values()}


def test_without_a_decay_the_average_is_the_trained_network() -> None:
    network: Any = Network()
    average = ModelEma(network, 0)
    average.update(0)
    assert average.network is network


def test_the_state_of_the_average_is_its_weights_and_its_step() -> None:
    """So that a training can be resumed from a checkpoint of them."""
    rng = np.random.default_rng(1)
    network: Any = Network()
    through, first = ModelEma(network, 0.9), ModelEma(network, 0.9)
    for step in range(5):
        network.move(rng)
        through.update(step)
        first.update(step)
    resumed = ModelEma(network, 0.9)
    resumed.network.load_state_dict(first.network.state_dict())
    for step in range(5, 10):
        network.move(rng)
        through.update(step)
        resumed.update(step)
    wanted = state(through.network)
    assert all((wanted[name] == value).all() for name, value in state(resumed.network).items())


class Recorded(ModelEma):
    """An average that remembers the averaged weights after each step."""

    def __init__(self, trained: Any, decay: float) -> None:
        super().__init__(trained, decay)
        self.states: list[dict[str, Tensor]] = []

    def update(self, step: int) -> None:
        super().update(step)
        self.states.append(copied(self.network))


def copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_averaged_network_is_validated_saved_and_tested(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Recorded] = []
    scored: list[dict[str, Tensor]] = []
    predict, predict_with_subsets = trainer_module.predict, finalize.predict_with_subsets

    def average_of(trained: Any, decay: float) -> Recorded:
        made.append(Recorded(trained, decay))
        return made[-1]

    def remember(network: Any, *args: Any, **kwargs: Any) -> Any:
        scored.append(copied(network))
        return predict(network, *args, **kwargs)

    def remember_test(network: Any, *args: Any, **kwargs: Any) -> Any:
        scored.append(copied(network))
        return predict_with_subsets(network, *args, **kwargs)

    monkeypatch.setattr(train_module, "ModelEma", average_of)
    monkeypatch.setattr(trainer_module, "predict", remember)
    for module in (finalize, evaluate_model):
        monkeypatch.setattr(module, "predict_with_subsets", remember_test)
    config = small_config(prepared, epochs=3, ema=0.9)
    config = replace(config, batch=replace(config.batch, people=2))
    result = train_module.train(config, Run(tmp_path), echo=lambda line: None)
    (average,) = made
    assert len(average.states) == 6  # eight sessions, four a batch, three epochs
    ends = average.states[1::2]
    best = ends[result.best_epoch - 1]
    # Each epoch's validation, the thresholds of the best, and its test.
    assert len(scored) == 5
    assert all(same(got, wanted) for got, wanted in zip(scored, [*ends, best, best]))
    for name, wanted in (("last", ends[-1]), ("best", best)):
        saved, _ = load_model(tmp_path / "checkpoints" / name, torch.device("cpu"))
        assert same(copied(saved), wanted)
    assert not same(copied(average.source), ends[-1])
