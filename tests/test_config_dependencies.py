"""The conditions of settings, compared with their effect on three steps of training."""

import json
from functools import cache
from typing import Any

import pytest
import torch

from fr_ps.config import Config, ModelConfig, flatten_dict, from_dict, to_dict, with_settings
from fr_ps.config.dependencies import (
    CONDITIONS,
    check_selected_metric_is_trainable,
    get_setting,
    inactive_settings,
    unmet_condition,
)
from fr_ps.data.labels import ATTRIBUTES
from fr_ps.losses import build_losses
from fr_ps.models import build_network
from fr_ps.training.optim import build_optimizer
from fr_ps.training.schedule import build_schedule, reversal_alpha

SMALL = {"model.backbone": "timm:test_resnet", "model.channels": 16, "model.reduction": 4}
CLASSES = dict.fromkeys(ATTRIBUTES, 2)
COUNTS = {task: torch.tensor([30, 10 + index]) for index, task in enumerate(ATTRIBUTES)}
Steps = list[list[float]]


def trained(config: Config) -> Steps:
    """Losses and sums of all parameters over three steps; computed once for equal settings."""
    return _trained(json.dumps(to_dict(config)))


@cache
def _trained(settings: str) -> Steps:
    config = from_dict(json.loads(settings))
    torch.manual_seed(0)
    modalities = config.data.modalities
    branches = dict.fromkeys(config.branch_names, config.model)
    network = build_network(branches, config.fusion.name, CLASSES, size=32, joint=config.joint)
    losses = build_losses(
        config.loss,
        network.embedding_size,
        torch.tensor([4, 2, 6]),
        COUNTS,
        network.adversarial_attributes,
        network.branch_loss_widths,
    )
    optimizer = build_optimizer(config.optim, [network, losses.identity, losses.branches], losses.weighting)
    rate = build_schedule(config.schedule, lr=config.optim.lr, epochs=8, steps_per_epoch=5)
    torch.manual_seed(1)
    maps = {modality: torch.rand(6, 3 if modality == "normal" else 1, 32, 32) for modality in modalities}
    targets = {"identity": torch.arange(6) % 3} | {task: (torch.arange(6) + index) % 2 for index, task in enumerate(ATTRIBUTES)}
    found: Steps = [[rate(step) for step in range(40)]]
    for step in (3, 19, 34):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * rate(step) * group["lr_scale"]
        network.reversal_alpha = reversal_alpha(step, total_steps=40, alpha=config.loss.reversal, ramp=config.loss.reversal_ramp)
        total, parts, _ = losses(network(maps), targets)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.weighting.end_epoch({task: float(part) * (1 + 0.1 * len(task)) for task, part in parts.items()})
        with torch.no_grad():
            # Without the discriminators: their own parameters may change as long as the network does not.
            learnt = [p.double().abs().sum().item() for name, p in network.named_parameters() if "adversaries" not in name]
        found.append([*learnt, *(value.item() for value in losses.weighting.state_dict().values() if value.numel() == 1)])
    return found


BOTH = {"data.modalities": ("albedo", "normal")}
CASES: list[tuple[str, Any, dict[str, Any], dict[str, Any]]] = [
    # the setting, another value, settings with which it has no effect, and settings with which it has one
    ("loss.adversarial", 0.9, {"loss.weighting": "uncertainty"}, {"loss.weighting": "fixed"}),
    ("loss.adversarial", 0.9, {"loss.weighting": "fixed", "model.adversaries": "off"}, {"loss.weighting": "dwa"}),
    ("loss.adversarial", 0.9, {"loss.weighting": "fixed", "model.fsm": False}, {"loss.weighting": "upgrad"}),
    ("loss.identity", 3.0, {"loss.weighting": "uncertainty"}, {"loss.weighting": "fixed"}),
    ("loss.identity", 3.0, {"loss.weighting": "dwa"}, {"loss.weighting": "mgda"}),
    ("loss.attribute", 3.0, {"loss.weighting": "uncertainty"}, {"loss.weighting": "fixed"}),
    ("loss.attribute", 3.0, {"loss.weighting": "dwa"}, {"loss.weighting": "pcgrad"}),
    ("loss.reversal", 0.9, {"model.adversaries": "off"}, {"loss.weighting": "uncertainty"}),
    ("loss.reversal", 0.9, {"loss.adversarial": 0.0, "loss.weighting": "fixed"}, {"loss.weighting": "fixed"}),
    ("loss.reversal_ramp", True, {"loss.reversal": 0.0}, {"loss.reversal": 0.5}),
    ("loss.reversal_ramp", True, {"model.fsm": False}, {"loss.adversarial": 0.0, "loss.weighting": "uncertainty"}),
    ("loss.dwa_temperature", 0.5, {"loss.weighting": "uncertainty"}, {"loss.weighting": "dwa"}),
    ("loss.branches", True, {}, BOTH),
    ("loss.branches", True, BOTH | {"fusion.joint": "only"}, BOTH | {"fusion.joint": "also"}),
    ("loss.contrastive_temperature", 0.5, {"loss.contrastive": 0.0}, {"loss.contrastive": 1.0}),
    ("loss.cagrad_c", 0.9, {"loss.weighting": "upgrad"}, {"loss.weighting": "cagrad"}),
    ("loss.focal_gamma", 3.0, {"loss.attribute_loss": "cross_entropy"}, {}),
    ("loss.focal_gamma", 3.0, {"loss.focal_gammas": {task: [1.0, 2.0] for task in ATTRIBUTES}}, {}),
    ("loss.focal_gammas", {"gender": [3.0, 0.0]}, {"loss.attribute_loss": "cross_entropy"}, {}),
    ("loss.lower_norm", 20.0, {"loss.identity_loss": "arcface"}, {"loss.allow_unsafe_lambda": True}),
    ("loss.upper_norm", 90.0, {"loss.identity_loss": "cosface"}, {}),
    ("loss.lower_margin", 0.5, {"loss.identity_loss": "adaface"}, {}),
    ("loss.upper_margin", 0.7, {"loss.identity_loss": "arcface"}, {}),
    ("loss.lambda_g", 90.0, {"loss.identity_loss": "arcface"}, {}),
    ("loss.arcface_margin", 0.2, {"loss.identity_loss": "magface"}, {"loss.identity_loss": "arcface"}),
    ("loss.cosface_margin", 0.1, {"loss.identity_loss": "magface"}, {"loss.identity_loss": "cosface"}),
    ("loss.adaface_margin", 0.1, {"loss.identity_loss": "magface"}, {"loss.identity_loss": "adaface"}),
    ("optim.momentum", 0.1, {"optim.name": "adamw"}, {"optim.name": "sgd"}),
    ("schedule.power", 2.0, {"schedule.name": "cosine"}, {"schedule.name": "polynomial"}),
    ("schedule.lowest", 1e-4, {"schedule.name": "polynomial"}, {"schedule.name": "cosine"}),
    ("schedule.restart_epochs", 2.0, {"schedule.name": "constant"}, {"schedule.name": "cosine"}),
    ("schedule.restart_factor", 3, {"schedule.name": "cosine"}, {"schedule.name": "cosine", "schedule.restart_epochs": 1.0}),
    ("fusion.name", "gated", {}, BOTH),
    ("fusion.name", "gated", BOTH | {"fusion.joint": "only"}, BOTH | {"fusion.joint": "also"}),
    ("fusion.joint", "only", {}, BOTH),
    ("fusion.joint", "also", {}, BOTH),
    ("model.reduction", 8, {"model.fsm": False}, {}),
    ("model.adversaries", "identity", {"model.fsm": False}, {}),
    ("model.albedo", "log", {"data.modalities": ("normal", "depth")}, {}),
    ("model.identity_channels", 8, {"model.embedding": "mean"}, {"model.embedding": "flatten"}),
    ("model.dropout", 0.5, {"model.embedding": "mean"}, {"model.embedding": "flatten"}),
]


@pytest.mark.parametrize(("setting", "value", "dead", "live"), CASES, ids=lambda case: str(case) if isinstance(case, str) else "")
def test_a_setting_changes_the_training_only_under_its_conditions(
    setting: str, value: Any, dead: dict[str, Any], live: dict[str, Any]
) -> None:
    base = with_settings(Config(), SMALL)
    without, with_effect = (with_settings(base, settings) for settings in (dead, live))
    assert unmet_condition(without, setting) is not None
    assert unmet_condition(with_effect, setting) is None
    assert trained(without) == trained(with_settings(without, {setting: value}))
    assert trained(with_effect) != trained(with_settings(with_effect, {setting: value}))


def test_every_setting_of_the_table_and_of_its_conditions_exists() -> None:
    known = {path.replace("/", ".") for path in flatten_dict(to_dict(Config()))}
    assert set(CONDITIONS) <= known
    assert {setting for conditions in CONDITIONS.values() for one in conditions for setting in one.settings} <= known


def test_every_weighting_margin_and_schedule_setting_is_in_the_table() -> None:
    """A setting that is named after a choice of another setting has an effect only with that choice."""
    for path in flatten_dict(to_dict(Config())):
        setting = path.replace("/", ".")
        if setting.split(".")[-1].split("_")[0] in ("dwa", "cagrad", "arcface", "cosface", "adaface", "focal", "restart"):
            assert setting in CONDITIONS


def test_the_adversaries_of_trained_branches_depend_on_their_own_settings() -> None:
    branches = {"fusion.branches": {"albedo": "r1", "normal": "r2"}} | BOTH
    config = with_settings(Config(), {"model.adversaries": "off", "loss.weighting": "fixed"} | branches)
    assert unmet_condition(config, "loss.adversarial") is None
    assert unmet_condition(with_settings(config, {"fusion.frozen": True}), "loss.adversarial") is not None
    assert unmet_condition(config, "model.backbone") is not None
    assert unmet_condition(with_settings(config, {"fusion.branches": {"albedo": "r1"}}), "model.backbone") is None


def test_branches_have_an_identity_loss_of_their_own_unless_all_are_frozen() -> None:
    settings = {"fusion.branches": {"albedo": "r1", "normal": "r2"}, "fusion.frozen": True} | BOTH
    assert unmet_condition(with_settings(Config(), settings), "loss.branches") is not None
    for change in ({"fusion.frozen": False}, {"fusion.branches": {"albedo": "r1"}}, {"fusion.joint": "also"}):
        assert unmet_condition(with_settings(Config(), settings | change), "loss.branches") is None


def test_epochs_that_cannot_improve_the_selected_metric_are_rejected(rejected) -> None:
    """A fusion without weights of frozen branches."""
    frozen = {"fusion.branches": {"albedo": "r1", "normal": "r2"}, "fusion.frozen": True, "train.epochs": 30} | BOTH
    for fusion in ("concat", "score"):
        config = with_settings(Config(), frozen | {"fusion.name": fusion})
        with rejected("cannot change val/identity/auc: ", f"fusion.name {fusion}", "train.epochs to 1"):
            check_selected_metric_is_trainable(config)
        for change in ({"fusion.name": "fc"}, {"fusion.frozen": False}, {"train.epochs": 1}, {"train.select": "val/gender/auc"}):
            check_selected_metric_is_trainable(with_settings(config, change))
        check_selected_metric_is_trainable(with_settings(config, {"fusion.branches": {"albedo": "r1"}}))


def test_changed_settings_without_effect_are_found() -> None:
    assert list(inactive_settings(Config())) == []
    given = {"loss.cagrad_c": 0.4, "optim.momentum": 0.8, "loss.scale": 30.0, "data.fold": 0, "batch.attribute": "pose"}
    noted = [(setting, condition.text) for setting, condition in inactive_settings(with_settings(Config(), given))]
    assert noted == [
        ("batch.attribute", "batch.balance is class"),
        ("loss.cagrad_c", "loss.weighting is cagrad"),
        ("optim.momentum", "optim.name is sgd"),
    ]


def test_the_value_of_a_setting_is_found_by_its_name() -> None:
    assert get_setting(Config(model=ModelConfig(channels=64)), "model.channels") == 64
