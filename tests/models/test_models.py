"""The registry of backbones: every name builds, and the small ones learn."""

from typing import get_args

import pytest
import torch
from torch.nn import functional

from fr_ps.config import Backbone, ModelConfig
from fr_ps.models import BACKBONES, build_network

CLASSES = {"gender": 2, "spectacles": 2, "facial_hair": 2, "pose": 2, "emotion": 3}


def test_the_registry_has_the_names_that_the_settings_list() -> None:
    assert set(BACKBONES) == set(get_args(Backbone))


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_builds_and_says_how_many_channels_it_gives(name: str) -> None:
    with torch.device("meta"):
        for channels in (1, 3):
            network = BACKBONES[name](channels).eval()
            y = network(torch.empty(1, channels, 64, 64, device="meta"))
            assert y.shape[:2] == (1, network.out_channels)
            assert y.shape[2] in (2, 4)


@pytest.mark.parametrize(("backbone", "size"), [("miresnet18", 32), ("convnextv2_atto", 64)])
@pytest.mark.parametrize(("modality", "channels"), [("albedo", 1), ("normal", 3), ("depth", 1)])
def test_a_network_answers_every_task_for_every_modality(backbone: str, size: int, modality: str, channels: int) -> None:
    config = ModelConfig(backbone=backbone, channels=32, reduction=8)  # type: ignore[arg-type]
    network = build_network(config, [modality], CLASSES).eval()
    with torch.no_grad():
        outputs = network({modality: torch.rand(2, channels, size, size)})
    assert {task: tuple(output.shape) for task, output in outputs.items()} == {
        "identity": (2, 32),
        **{task: (2, count) for task, count in CLASSES.items()},
    }


@pytest.mark.parametrize(("backbone", "size"), [("miresnet18", 32), ("convnextv2_atto", 64)])
def test_steps_on_one_batch_lower_its_loss(backbone: str, size: int) -> None:
    torch.manual_seed(0)
    config = ModelConfig(backbone=backbone, channels=32, reduction=8)  # type: ignore[arg-type]
    network = build_network(config, ["albedo"], CLASSES, reversal=0.0)
    maps, target = {"albedo": torch.rand(8, 1, size, size) + 0.1}, torch.tensor([0, 1] * 4)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        outputs = network(maps)
        loss = sum(functional.cross_entropy(outputs[task], target) for task in CLASSES)
        assert isinstance(loss, torch.Tensor)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
