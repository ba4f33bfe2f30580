"""The registry of backbones: every name builds, and the small ones learn."""

from typing import Any

import pytest
import timm
import torch
from torch.nn import functional

from fr_ps.config import BACKBONES as NAMES
from fr_ps.config import ModelConfig
from fr_ps.models import BACKBONES, build_backbone, build_branch, build_network
from fr_ps.models.branch import check_input_size
from tests.models.small import by_name

CLASSES = {"gender": 2, "spectacles": 2, "facial_hair": 2, "pose": 2, "emotion": 3}


def test_the_registry_has_the_names_that_the_settings_list() -> None:
    assert tuple(BACKBONES) == NAMES


def test_convnext_v2_has_all_sizes_of_timm() -> None:
    assert {name for name in NAMES if name.startswith("convnext")} == set(timm.list_models("convnextv2_*"))


SIDES = {"miresnet": {112: 7, 128: 8, 224: 14, 256: 16}, "convnextv2": {112: 3, 128: 4, 224: 7, 256: 8}}
SIDES |= {"irse": SIDES["miresnet"], "resnet10": SIDES["miresnet"]}
OF_TIMM = {"timm:resnet10t": (4, 4, 7, 8), "timm:vit_tiny_patch16_224": (7, 8, 14, 16), "timm:test_efficientnet": (4, 4, 7, 8)}
OF_TIMM |= {"timm:sequencer2d_s": (8, 9, 16, 18)}  # channels last


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_ends_in_the_same_channels_at_every_size(name: str) -> None:
    """On the meta device, where the largest network takes no memory; with normals, the test of `fr-ps models`."""
    sides = next(sides for family, sides in SIDES.items() if name.startswith(family))
    with torch.device("meta"):
        network = build_network({"albedo": ModelConfig(backbone=name)}, "concat", CLASSES)
        for size, side in sides.items():
            outputs = network({"albedo": torch.empty(2, 1, size, size)})
            assert outputs.shared["albedo"].shape == (2, 512, side, side)
    assert outputs.embedding.shape == (2, 512)


@pytest.mark.parametrize(("name", "width"), [("resnet10_16", 16), ("resnet10_32", 32), ("resnet10_64", 64)])
def test_a_small_resnet_computes_what_its_blocks_do_one_after_the_other(name: str, width: int) -> None:
    """Against the formula of He et al. with the network's own weights."""
    backbone = build_backbone(name, 3).eval()
    assert backbone.out_channels == 8 * width
    x = torch.randn(2, 3, 56, 56)
    for key, tensor in backbone.state_dict().items():
        if "bn" in key or "downsample.1" in key:
            tensor.copy_(torch.rand(tensor.shape) + 0.5)
    state = {key.removeprefix("trunk."): tensor for key, tensor in backbone.state_dict().items()}

    def conv(x: torch.Tensor, key: str, stride: int) -> torch.Tensor:
        weight = state[f"{key}.weight"]
        return functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def norm(x: torch.Tensor, key: str) -> torch.Tensor:
        return functional.batch_norm(x, *(state[f"{key}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")))

    expected = norm(conv(x, "conv1", 2), "bn1").relu()
    for stage in range(4):
        block, stride = f"layer{stage + 1}.0", 2 if stage else 1
        residual = norm(conv(expected, f"{block}.conv1", stride), f"{block}.bn1").relu()
        residual = norm(conv(residual, f"{block}.conv2", 1), f"{block}.bn2")
        shortcut = norm(conv(expected, f"{block}.downsample.0", stride), f"{block}.downsample.1") if stage else expected
        expected = (residual + shortcut).relu()
    assert expected.shape == (2, 8 * width, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(backbone(x), expected)
    assert sum(parameter.numel() for parameter in backbone.parameters()) == sum(
        tensor.numel() for key, tensor in state.items() if "running" not in key and "tracked" not in key
    )


@pytest.mark.parametrize("name", OF_TIMM)
def test_every_other_timm_network_ends_in_the_same_channels(name: str) -> None:
    branch = build_branch(ModelConfig(backbone=name, channels=32, reduction=8), "normal", CLASSES).eval()
    for size, side in zip((112, 128, 224, 256), OF_TIMM[name]):
        with torch.no_grad():
            assert branch.shared_map(torch.rand(1, 3, size, size)).shape == (1, 32, side, side)


def test_a_channels_last_map_is_permuted_and_not_reshaped() -> None:
    backbone = build_backbone("timm:sequencer2d_s", 1).eval()
    x = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        (raw,) = backbone.trunk(x)  # type: ignore[operator]
        turned = backbone(x)
    assert raw.shape[-1] == backbone.out_channels
    assert torch.equal(turned[0, 5], raw[0, :, :, 5])


@pytest.mark.parametrize("name", ["resnet19", "not_at_all"])
def test_a_name_unknown_to_timm_is_rejected_when_the_network_is_built(rejected: Any, name: str) -> None:
    with rejected("model.backbone", f"timm:{name}"):
        build_network({"albedo": ModelConfig(backbone=f"timm:{name}")}, "concat", CLASSES)


def test_the_error_for_a_misspelt_name_suggests_the_right_one(rejected: Any) -> None:
    with rejected("resnet18"):
        build_backbone("timm:rsnet18", 1)


@pytest.mark.parametrize(("name", "size"), [("convnextv2_atto", 16), ("timm:mixer_s32_224", 112)])
def test_maps_too_small_for_a_backbone_are_rejected_before_the_training(rejected: Any, name: str, size: int) -> None:
    branch = build_branch(ModelConfig(backbone=name, channels=8, reduction=8), "albedo", CLASSES)
    with rejected("model.backbone", f"{size} px"):
        check_input_size(branch, size)
    assert branch.training


@pytest.mark.parametrize(("width", "expected"), [(0, 32), (24, 24)])
def test_a_flattened_network_reads_maps_of_its_own_size_only(rejected: Any, width: int, expected: int) -> None:
    config = ModelConfig(backbone="miresnet18", channels=32, reduction=8, embedding="flatten", identity_channels=width)
    network = build_network(dict.fromkeys(("albedo", "depth"), config), "concat", CLASSES, size=48)
    branch = network.branches["albedo"]
    assert branch.embeddings["identity"].linear.in_features == 32 * 3 * 3  # type: ignore[index,union-attr]
    assert network.training
    assert all(module.training for module in network.modules())
    maps = {modality: torch.rand(2, 1, 48, 48) for modality in ("albedo", "depth")}
    assert network.eval()(maps).embedding.shape == (2, 2 * expected)
    with rejected("model.embedding", "4 x 4", "expected 3 x 3"):
        network({modality: torch.rand(2, 1, 64, 64) for modality in ("albedo", "depth")})


def test_a_flattened_network_for_maps_that_are_too_small_is_rejected(rejected: Any) -> None:
    with rejected("model.backbone", "16 px"):
        build_network({"albedo": ModelConfig(channels=8, reduction=8, embedding="flatten")}, "concat", CLASSES, size=16)


def test_an_input_size_resamples_the_maps_before_the_backbone(rejected: Any) -> None:
    config = ModelConfig(backbone="miresnet18", channels=32, reduction=8, embedding="flatten", input_size=32)
    network = build_network({"depth": config}, "concat", CLASSES, size=64).eval()
    branch = network.branches["depth"]
    maps = torch.randn(2, 1, 64, 64)
    small = functional.avg_pool2d(maps, 2) / 2
    with torch.no_grad():
        torch.testing.assert_close(network({"depth": maps}).embedding, network({"depth": small}).embedding)
    check_input_size(branch, 64)  # type: ignore[arg-type]
    with rejected("model.input_size is 32", "at most 24"):
        check_input_size(branch, 24)  # type: ignore[arg-type]


def test_checking_a_map_size_does_not_change_the_network() -> None:
    branch = build_branch(ModelConfig(channels=8, reduction=8), "normal", CLASSES)
    before = {name: tensor.clone() for name, tensor in branch.state_dict().items()}
    check_input_size(branch, 32)
    assert branch.training
    assert all(torch.equal(before[name], tensor) for name, tensor in branch.state_dict().items())


@pytest.mark.parametrize(("backbone", "size"), [("miresnet18", 32), ("convnextv2_atto", 64)])
@pytest.mark.parametrize(("modality", "channels"), [("albedo", 1), ("normal", 3), ("depth", 1)])
def test_a_network_has_outputs_for_every_task_and_modality(backbone: str, size: int, modality: str, channels: int) -> None:
    config = ModelConfig(backbone=backbone, channels=32, reduction=8)
    network = build_network({modality: config}, "concat", CLASSES).eval()
    with torch.no_grad():
        outputs = network({modality: torch.rand(2, channels, size, size)})
    assert {task: tuple(output.shape) for task, output in by_name(outputs).items()} == {
        "identity": (2, 32),
        **{task: (2, count) for task, count in CLASSES.items()},
    }


@pytest.mark.parametrize(
    ("backbone", "size"), [("miresnet18", 32), ("convnextv2_atto", 64), ("resnet10_16", 32), ("timm:test_vit", 64)]
)
def test_steps_on_one_batch_lower_its_loss(backbone: str, size: int) -> None:
    torch.manual_seed(0)
    config = ModelConfig(backbone=backbone, channels=32, reduction=8)
    network = build_network({"albedo": config}, "concat", CLASSES)
    network.reversal_alpha = 0.0
    maps, target = {"albedo": torch.rand(8, 1, size, size) + 0.1}, torch.tensor([0, 1] * 4)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        outputs = network(maps)
        loss = sum(functional.cross_entropy(outputs.logits[task], target) for task in CLASSES)
        assert isinstance(loss, torch.Tensor)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
