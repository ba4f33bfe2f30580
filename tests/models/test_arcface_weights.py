"""Published IResNet weights in our backbones: the same feature map as an IResNet that is written here from its description."""

import re
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from fr_ps.config import ModelConfig
from fr_ps.models import build_branch
from fr_ps.models.branch import Branch
from fr_ps.models.pretrained import load_weights

UNITS = {"iresnet18": (2, 2, 2, 2), "iresnet34": (3, 4, 6, 3), "iresnet50": (3, 4, 14, 3), "iresnet100": (3, 13, 30, 3)}


class Unit(nn.Module):
    def __init__(self, inputs: int, width: int, first: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.prelu = nn.PReLU(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=1 + first, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        if first:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, width, 1, stride=2, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.downsample(x) if hasattr(self, "downsample") else x
        return self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x)))))) + shortcut


class Published(nn.Module):
    """The names and the order of insightface's IResNet, with other numbers in every tensor, norms' statistics included."""

    def __init__(self, name: str) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.conv1, self.bn1, self.prelu = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)
        inputs = 64
        for stage, (count, width) in enumerate(zip(UNITS[name], (64, 128, 256, 512)), start=1):
            units = [Unit(width if index else inputs, width, first=index == 0) for index in range(count)]
            self.add_module(f"layer{stage}", nn.Sequential(*units))
            inputs = width
        self.bn2 = nn.BatchNorm2d(512)
        self.fc = nn.Linear(512 * 7 * 7, 8)
        self.features = nn.BatchNorm1d(8)
        with torch.no_grad():
            for module in self.modules():
                for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                    if isinstance(module, nn.BatchNorm2d | nn.PReLU) and tensor.is_floating_point():
                        tensor.copy_(0.5 + torch.rand_like(tensor))

    def feature_map(self, x: Tensor) -> Tensor:
        x = self.prelu(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return x


def branch(backbone: str, modality: str = "normal") -> Branch:
    torch.manual_seed(1)
    classes = {"gender": 2, "spectacles": 2, "facial_hair": 2, "pose": 2, "emotion": 3}
    return build_branch(ModelConfig(backbone=backbone, channels=16, reduction=8), modality, classes).eval()


def magface(state: dict[str, Tensor], prefix: str) -> dict[str, Any]:
    """A checkpoint as MagFace's trainer writes it, with the identity directions and the optimizer's state."""
    wrapped = {prefix + name: tensor for name, tensor in state.items()} | {"module.fc.weight": torch.zeros(512, 3)}
    return {
        "epoch": 25,
        "arch": "iresnet",
        "state_dict": wrapped,
        "best_prec1": 0.0,
        "optimizer": {"state": {}, "param_groups": []},
    }


@pytest.mark.parametrize("form", ["insightface", "safetensors", "features.module.", "module.features."])
@pytest.mark.parametrize(("theirs", "ours"), [("iresnet18", "miresnet18"), ("iresnet34", "miresnet34")])
def test_the_feature_map_is_the_published_networks(tmp_path: Path, theirs: str, ours: str, form: str) -> None:
    published = Published(theirs).eval()
    state = published.state_dict()
    file = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pth")
    if form == "safetensors":
        safetensors.torch.save_file(state, file)
    else:
        torch.save(state if form == "insightface" else magface(state, form), file)
    loaded = branch(ours)
    line = load_weights(loaded, file)
    x = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        assert torch.equal(loaded.backbone(x), published.feature_map(x))
    count = sum("num_batches" not in name for name in loaded.backbone.state_dict())
    assert f"{count} of {count} of the backbone" in line
    assert re.search(r"; \d+ missing in the file .*, \d+ unexpected in it .*, 0 of another shape; ", line)
    assert line.endswith("its bn2, fc and features are left out, as the branch makes an embedding for each task")


def test_a_map_of_one_channel_is_read_as_three_equal_ones(tmp_path: Path) -> None:
    published = Published("iresnet18").eval()
    torch.save(published.state_dict(), tmp_path / "weights.pth")
    loaded = branch("miresnet18", "albedo")
    load_weights(loaded, tmp_path / "weights.pth")
    x = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded.backbone(x), published.feature_map(x.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("theirs", "ours"), [("iresnet50", "irse50"), ("iresnet100", "irse101")])
def test_with_squeeze_and_excitation_only_its_weights_are_missing(tmp_path: Path, theirs: str, ours: str) -> None:
    published = Published(theirs).eval()
    torch.save(published.state_dict(), tmp_path / "weights.pth")
    loaded = branch(ours)
    line = load_weights(loaded, tmp_path / "weights.pth")
    names = [name for name in loaded.backbone.state_dict() if "num_batches" not in name]
    assert f"{sum('.body.6.' not in name for name in names)} of {len(names)} of the backbone" in line
    for unit in loaded.backbone.blocks:  # type: ignore[union-attr, operator]
        unit.body[-1] = nn.Identity()  # type: ignore[union-attr, operator, index, assignment]
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded.backbone(x), published.feature_map(x))


@pytest.mark.parametrize(
    ("theirs", "ours", "remedy"),
    [
        ("iresnet34", "miresnet18", "3-4-6-3 units.*expected model.backbone miresnet34"),
        ("iresnet34", "miresnet50", "expected model.backbone miresnet34"),
        ("iresnet50", "miresnet50", "3-4-14-3 units.*expected model.backbone irse50"),
        ("iresnet18", "convnextv2_atto", "expected model.backbone miresnet18"),
    ],
)
def test_other_units_are_rejected_with_the_backbone_that_fits(
    tmp_path: Path, rejected: Any, theirs: str, ours: str, remedy: str
) -> None:
    """Else a unit of one stage would pass for one of another wherever a shape happens to fit."""
    torch.save(Published(theirs).state_dict(), tmp_path / "weights.pth")
    with rejected("weights.pth", *remedy.split(".*")):
        load_weights(branch(ours), tmp_path / "weights.pth")


def test_a_resnet_of_torchvision_is_not_an_arcface_network() -> None:
    from torchvision.models import resnet18

    from fr_ps.models.arcface_weights import is_published_iresnet

    assert not is_published_iresnet(resnet18().state_dict())
    assert is_published_iresnet(Published("iresnet18").state_dict())
