"""Weights from a foreign file: matching tensors are loaded, others are reported, and no code in it runs."""

import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor

from fr_ps.config import BACKBONES, ModelConfig
from fr_ps.models import build_branch, build_network
from fr_ps.models.branch import Branch
from fr_ps.models.network import FaceNetwork
from fr_ps.models.pretrained import _canonical_name, load_weights
from tests.conftest import AssertRejected
from tests.foreign import Bomb

CLASSES = {"gender": 2, "spectacles": 2, "facial_hair": 2, "pose": 2, "emotion": 3}


def branch(seed: int, backbone: str = "convnextv2_atto", modality: str = "albedo", **settings: Any) -> Branch:
    torch.manual_seed(seed)
    config = ModelConfig(backbone=backbone, channels=16, reduction=8, **settings)
    return build_branch(config, modality, CLASSES)


def network(seed: int, *modalities: str) -> FaceNetwork:
    torch.manual_seed(seed)
    return build_network(dict.fromkeys(modalities, ModelConfig(channels=16, reduction=8)), "concat", CLASSES)


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".pt"])
def test_all_weights_of_a_whole_branch_are_loaded(tmp_path: Path, ending: str) -> None:
    theirs, ours = branch(1).state_dict(), branch(2)
    file = tmp_path / f"model{ending}"
    if ending == ".safetensors":
        safetensors.torch.save_file(theirs, file)
    else:
        torch.save(theirs, file)
    assert not same(ours.state_dict(), theirs)
    message = load_weights(ours, file)
    assert same(ours.state_dict(), theirs)
    count = sum(not name.endswith("num_batches_tracked") for name in theirs)
    assert f"{file}: {count} of {count} tensors matched" in message
    assert "0 missing in the file, 0 unexpected in it, 0 of another shape" in message


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_a_fifo_is_rejected_without_blocking(tmp_path: Path, ending: str, rejected: AssertRejected) -> None:
    os.mkfifo(tmp_path / f"weights{ending}")
    with rejected(f"weights{ending}", "not a regular file"):
        load_weights(branch(1), tmp_path / f"weights{ending}")


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "model.", "module.backbone.", "_orig_mod.module.model."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_of_a_backbone_are_loaded_from_any_container(tmp_path: Path, prefix: str, wrapped: bool) -> None:
    theirs, ours = branch(1, "miresnet18").backbone.state_dict(), branch(2, "miresnet18")
    rest = {name: tensor.clone() for name, tensor in ours.state_dict().items() if not name.startswith("backbone.")}
    content: dict[str, Any] = {prefix + name: tensor for name, tensor in theirs.items()}
    torch.save({"epoch": 7, "state_dict": content} if wrapped else content, tmp_path / "backbone.pth")
    message = load_weights(ours, tmp_path / "backbone.pth")
    taken = ours.backbone.state_dict()
    assert all(torch.equal(taken[name], theirs[name]) for name in theirs if "num_batches" not in name)
    assert same({name: tensor for name, tensor in ours.state_dict().items() if not name.startswith("backbone.")}, rest)
    count = sum("num_batches" not in name for name in theirs)
    assert f"{count} of {count} of the backbone" in message
    assert "0 unexpected in it" in message


@pytest.mark.parametrize(
    ("backbone", "name"),
    [("convnextv2_atto", "convnextv2_atto"), ("timm:test_convnext", "test_convnext"), ("timm:test_vit", "test_vit")],
)
def test_weights_of_timm_give_the_outputs_of_timm(tmp_path: Path, backbone: str, name: str) -> None:
    """Also where timm renames them in its feature networks; the classifier is left over."""
    torch.manual_seed(3)
    size = {"dynamic_img_size": True} if "vit" in name else {}
    theirs = timm.create_model(name, in_chans=3, num_classes=10, **size).eval()
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "timm.safetensors")
    ours = branch(4, backbone, "normal").eval()
    message = load_weights(ours, tmp_path / "timm.safetensors")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        (expected,) = theirs.forward_intermediates(x, indices=1, norm=False, intermediates_only=True)
        torch.testing.assert_close(ours.backbone(x), expected)
    assert "head.fc" in message or "head." in message


def test_the_branch_of_a_network_of_this_project_is_loaded(tmp_path: Path) -> None:
    theirs, ours = network(1, "albedo"), branch(2)
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    message = load_weights(ours, tmp_path / "model.safetensors")
    assert same(ours.state_dict(), theirs.branches["albedo"].state_dict())
    assert "0 missing in the file, 0 unexpected in it, 0 of another shape" in message


@pytest.mark.parametrize("modality", ["albedo", "depth"])
def test_the_branch_of_the_same_modality_of_a_fused_network_is_loaded(tmp_path: Path, modality: str) -> None:
    """Both of these read one channel, so that any of them would fit."""
    theirs, ours = network(1, "albedo", "depth"), branch(2, modality=modality)
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    message = load_weights(ours, tmp_path / "model.safetensors")
    assert same(ours.state_dict(), theirs.branches[modality].state_dict())
    assert "0 missing in the file, 0 unexpected in it, 0 of another shape" in message


def test_the_branch_of_a_network_of_another_modality_is_loaded(tmp_path: Path) -> None:
    theirs, ours = network(1, "albedo"), branch(2, modality="depth")
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    load_weights(ours, tmp_path / "model.safetensors")
    assert same(ours.state_dict(), theirs.branches["albedo"].state_dict())


def test_no_branch_of_a_fused_network_of_other_modalities_is_loaded(tmp_path: Path, rejected: Any) -> None:
    safetensors.torch.save_file(network(1, "albedo", "normal").state_dict(), tmp_path / "model.safetensors")
    with rejected("model.safetensors", "albedo, normal and none of depth"):
        load_weights(branch(2, modality="depth"), tmp_path / "model.safetensors")


def test_the_output_for_one_channel_is_that_for_three_equal_channels(tmp_path: Path) -> None:
    colour, grey = branch(1, modality="normal").eval(), branch(2).eval()
    safetensors.torch.save_file(colour.state_dict(), tmp_path / "colour.safetensors")
    assert "0 of another shape" in load_weights(grey, tmp_path / "colour.safetensors")
    x = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(grey.backbone(x), colour.backbone(x.repeat(1, 3, 1, 1)), rtol=1e-4, atol=1e-5)


def test_tensors_that_do_not_match_are_reported_and_not_loaded(tmp_path: Path) -> None:
    theirs = branch(1).state_dict()
    changed = theirs | {"project.weight": torch.zeros(8, 320, 1, 1), "extra.weight": torch.zeros(3)}
    del changed["embeddings.identity.norm.weight"]
    safetensors.torch.save_file(changed, tmp_path / "model.safetensors")
    ours = branch(2)
    with torch.no_grad():
        ours.embeddings["identity"].norm.weight.fill_(7)  # type: ignore[union-attr]
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    message = load_weights(ours, tmp_path / "model.safetensors")
    assert "1 missing in the file (embeddings.identity.norm.weight), 1 unexpected in it (extra.weight), " in message
    assert "1 of another shape (project.weight)" in message
    for name in ("project.weight", "embeddings.identity.norm.weight"):
        assert torch.equal(ours.state_dict()[name], before[name])
    assert torch.equal(ours.state_dict()["project.bias"], theirs["project.bias"])


def test_a_file_without_a_matching_tensor_is_rejected(tmp_path: Path, rejected: Any) -> None:
    safetensors.torch.save_file({"layer.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with rejected("other.safetensors", "layer.weight", "model.backbone"):
        load_weights(branch(0), tmp_path / "other.safetensors")


def test_a_file_with_matching_counters_only_is_rejected(tmp_path: Path, rejected: Any) -> None:
    """Those of norms are scalars, and fit everywhere."""
    theirs = branch(0, "miresnet18").state_dict()
    wrong = {name: tensor if name.endswith("tracked") else tensor[None].clone() for name, tensor in theirs.items()}
    torch.save(wrong, tmp_path / "wrong.pth")
    with rejected("wrong.pth"):
        load_weights(branch(0, "miresnet18"), tmp_path / "wrong.pth")


def test_code_in_a_file_is_rejected_and_not_run(tmp_path: Path, rejected: Any) -> None:
    trace = tmp_path / "it ran"
    torch.save({"state_dict": branch(0).state_dict(), "extra": Bomb(trace)}, tmp_path / "bomb.pth")
    with rejected("bomb.pth", "safetensors"):
        load_weights(branch(0), tmp_path / "bomb.pth")
    assert not trace.exists()


@pytest.mark.parametrize("name", ["none.pth", "none.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, rejected: Any, name: str) -> None:
    with rejected(name, "no such file"):
        load_weights(branch(0), tmp_path / name)


@pytest.mark.parametrize("name", ["broken.pth", "broken.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x80", b"no weights at all" * 10], ids=["empty", "short", "text"])
def test_a_file_without_weights_is_rejected(tmp_path: Path, rejected: Any, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with rejected(name):
        load_weights(branch(0), tmp_path / name)


@pytest.mark.parametrize("content", [torch.zeros(3), {"epoch": 3}, [1, 2]], ids=["tensor", "numbers", "list"])
def test_a_pth_without_names_of_tensors_is_rejected(tmp_path: Path, rejected: Any, content: Any) -> None:
    torch.save(content, tmp_path / "odd.pth")
    with rejected("odd.pth", "safetensors"):
        load_weights(branch(0), tmp_path / "odd.pth")


@pytest.mark.parametrize("name", [*BACKBONES, "timm:vit_tiny_patch16_224", "timm:test_efficientnet"])
def test_no_two_tensors_of_a_network_have_the_same_plain_name(name: str) -> None:
    with torch.device("meta"):
        names = [*branch(0, name).state_dict()]
    assert len({_canonical_name(name) for name in names}) == len(names)


def test_a_pth_that_contains_itself_does_not_recurse_forever(tmp_path: Path, rejected: Any) -> None:
    content: dict[Any, Any] = {1: torch.zeros(2)}
    content["state_dict"] = content
    torch.save(content, tmp_path / "own.pth")
    with rejected(tmp_path / "own.pth", "no tensors by name"):
        load_weights(branch(0), tmp_path / "own.pth")
