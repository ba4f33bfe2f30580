"""Branches of trained networks of one modality each, in a network that fuses them."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from fr_ps.config import Fusion, Modality, ModelConfig
from fr_ps.data.labels import ATTRIBUTES, DEFAULT_CLASSES
from fr_ps.errors import InputError
from fr_ps.models.branch import Branch
from fr_ps.models.folder import WEIGHTS_FILE, ModelInfo, load_model
from fr_ps.models.fusion import FUSIONS, ProbabilityFusionHead
from fr_ps.models.network import FaceNetwork
from fr_ps.models.pretrained import load_branch, read_branch_info
from tests.conftest import AssertRejected
from tests.models.small import by_name, make_maps, save_model

MODALITIES: tuple[Modality, ...] = ("albedo", "normal")
MODELS = {
    "albedo": ModelConfig(channels=16, reduction=8),
    "normal": ModelConfig(channels=24, reduction=8, backbone="timm:test_efficientnet", attribute_channels=8, adversaries="off"),
}
"""That differ in all but the order of the attributes."""
CPU = torch.device("cpu")
Folders = dict[str, Path]


def info(*modalities: Modality, fusion: Fusion = "concat") -> ModelInfo:
    models = {modality: MODELS[modality] for modality in modalities}
    return ModelInfo(models, fusion, 32, DEFAULT_CLASSES, ATTRIBUTES, {"run": "r1"})


def network(of: ModelInfo, seed: int) -> FaceNetwork:
    """With statistics and gains that are no longer those of the start."""
    torch.manual_seed(seed)
    made = of.build_network()
    with torch.no_grad():
        made(make_maps(of.modalities))
        for place, gain in enumerate(made.log_gains.values()):
            gain.copy_(torch.tensor(2.0 + seed + place).log())
    return made.eval()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    folder = tmp_path_factory.mktemp("models")
    for seed, modality in enumerate(MODALITIES, start=1):
        save_model(folder / modality, network(info(modality), seed), info(modality))
    return {modality: folder / modality for modality in MODALITIES}


def adopted(folders: Mapping[str, Path], fusion: Fusion, frozen: bool = False) -> FaceNetwork:
    made = network(info(*MODALITIES, fusion=fusion), seed=9)
    for modality, folder in folders.items():
        load_branch(made, modality, folder, frozen)
    return made


def answers(of: FaceNetwork, modalities: Sequence[str] = MODALITIES) -> dict[str, Tensor]:
    """To the same maps, whichever of them it reads."""
    with torch.no_grad():
        maps = {modality: array.flip(3) for modality, array in make_maps(MODALITIES).items() if modality in modalities}
        return by_name(of(maps))


def alone(folders: Mapping[str, Path]) -> list[dict[str, Tensor]]:
    """What each trained network answers by itself."""
    return [answers(load_model(folder, CPU)[0]) for folder in folders.values()]


def cosines(embeddings: Tensor) -> np.ndarray:
    """(n, n) float64."""
    x = embeddings.double().numpy()
    norms = np.sqrt((x**2).sum(axis=1))
    return x @ x.T / np.outer(norms, norms)


@pytest.mark.parametrize("frozen", [False, True])
def test_an_untrained_score_fusion_predicts_mean_cosines_and_mean_probabilities(folders: Folders, frozen: bool) -> None:
    fused, singles = answers(adopted(folders, "score", frozen)), alone(folders)
    expected = np.mean([cosines(single["identity"]) for single in singles], axis=0)
    np.testing.assert_allclose(cosines(fused["identity"]), expected, atol=1e-5)
    assert np.ptp(expected) > 0.1
    for task in ATTRIBUTES:
        mean = np.mean([single[task].double().softmax(dim=1).numpy() for single in singles], axis=0)
        np.testing.assert_allclose(fused[task].double().softmax(dim=1).numpy(), mean, atol=1e-5)


def test_with_one_map_missing_the_prediction_is_that_of_the_other_branch(folders: Folders) -> None:
    fewer, (_, single) = answers(adopted(folders, "score"), ("normal",)), alone(folders)
    np.testing.assert_allclose(cosines(fewer["identity"]), cosines(single["identity"]), atol=1e-5)
    for task in ATTRIBUTES:
        torch.testing.assert_close(fewer[task].softmax(dim=1), single[task].softmax(dim=1), rtol=1e-4, atol=1e-5)


def test_an_untrained_concatenation_joins_the_identity_embeddings(folders: Folders) -> None:
    """With their gains, so that none drowns the other."""
    expected = torch.cat([single["identity"] for single in alone(folders)], dim=1)
    torch.testing.assert_close(answers(adopted(folders, "concat"))["identity"], expected)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_all_weights_and_the_gain_of_a_branch_are_loaded_and_the_other_branch_is_unchanged(
    folders: Folders, fusion: Fusion
) -> None:
    made, before = adopted({"normal": folders["normal"]}, fusion), network(info(*MODALITIES, fusion=fusion), seed=9)
    theirs = load_model(folders["normal"], CPU)[0].state_dict()
    state, old = made.state_dict(), before.state_dict()
    for name, tensor in state.items():
        own = name.startswith("heads.") and ".linears.1." in name
        if name.startswith("branches.normal.") or name == "log_gains.normal":
            assert torch.equal(tensor, theirs[name]), name
        elif not own:
            assert torch.equal(tensor, old[name]), name
    if fusion == "score":
        assert torch.equal(state["heads.pose.linears.1.weight"], theirs["heads.pose.linear.weight"])


@pytest.mark.parametrize("fusion", FUSIONS)
def test_with_frozen_branches_only_gains_and_fusion_are_trainable(folders: Folders, fusion: Fusion) -> None:
    made = adopted(folders, fusion, frozen=True)
    free = {name.split(".")[0] for name, parameter in made.named_parameters() if parameter.requires_grad}
    common = {"concat": {"heads"}, "fc": {"heads", "identity"}, "gated": {"heads", "identity"}, "score": set()}
    assert free == {"log_gains"} | common[fusion]
    made.train()
    assert not any(module.training for branch in made.branches.values() for module in branch.modules())


def test_without_frozen_branches_everything_is_trainable(folders: Folders) -> None:
    assert all(parameter.requires_grad for parameter in adopted(folders, "score").parameters())
    assert not cast(Branch, adopted(folders, "score").branches["albedo"]).frozen


def test_with_one_of_two_branches_frozen_the_heads_of_the_other_are_trainable(folders: Folders) -> None:
    made = adopted({"albedo": folders["albedo"]}, "score", frozen=True)
    for head in made.heads.values():
        free = [linear.weight.requires_grad for linear in cast(ProbabilityFusionHead, head).linears]
        assert free == [False, True]


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_fusion_setting_of_a_network_of_one_modality_is_ignored(folders: Folders, tmp_path: Path, fusion: Fusion) -> None:
    """It has nothing to fuse; all of them are the same network, whose heads a fusion of scores can take."""
    of = info("albedo", fusion=fusion)
    save_model(tmp_path / "albedo", network(of, seed=1), of)
    theirs = answers(load_model(folders["albedo"], CPU)[0])
    assert all(torch.equal(theirs[task], output) for task, output in answers(load_model(tmp_path / "albedo", CPU)[0]).items())
    sources = (tmp_path / "albedo", folders["albedo"])
    first, second = (answers(adopted(folders | {"albedo": source}, "score")) for source in sources)
    assert all(torch.equal(first[task], second[task]) for task in first)


def test_a_trained_branch_is_described_by_its_model_folder(folders: Folders) -> None:
    assert read_branch_info(folders["normal"], "normal", (), DEFAULT_CLASSES, 32) == info("normal")


RENAMED = {**DEFAULT_CLASSES, "emotion": {"neutral": ["blankstare"], "good": ["positive"], "bad": ["negative"]}}


@pytest.mark.parametrize(
    ("modality", "settings", "words"),
    [
        ("normal", {}, ("reads albedo", "a model of normal alone")),
        ("albedo", {"size": 48}, ("32 px", "have 48", "--size 32")),
        ("albedo", {"classes": RENAMED}, ("classes of emotion", "neutral, good, bad", "data.classes")),
    ],
    ids=["other modality", "other size", "other classes"],
)
def test_a_model_with_other_modalities_or_classes_is_rejected_with_its_folder(
    folders: Folders, rejected: AssertRejected, modality: Modality, settings: dict[str, Any], words: tuple[str, ...]
) -> None:
    with rejected(folders["albedo"], *words):
        read_branch_info(folders["albedo"], modality, (), **({"classes": DEFAULT_CLASSES, "size": 32} | settings))


def test_classes_of_the_same_names_in_another_order_are_other_classes(folders: Folders, rejected: AssertRejected) -> None:
    turned = {**DEFAULT_CLASSES, "pose": dict(reversed(DEFAULT_CLASSES["pose"].items()))}
    with rejected("classes of pose"):
        read_branch_info(folders["albedo"], "albedo", (), turned, 32)


def test_a_model_of_two_modalities_is_rejected(tmp_path: Path, rejected: AssertRejected) -> None:
    of = info(*MODALITIES)
    save_model(tmp_path / "both", network(of, seed=0), of)
    with rejected(tmp_path / "both", "reads albedo, normal", "a model of albedo alone"):
        read_branch_info(tmp_path / "both", "albedo", (), DEFAULT_CLASSES, 32)


def test_a_folder_without_a_model_or_with_broken_weights_is_rejected(folders: Folders, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none"):
        read_branch_info(tmp_path / "none", "albedo", (), DEFAULT_CLASSES, 32)
    shutil.copytree(folders["albedo"], tmp_path / "broken")
    (tmp_path / "broken" / WEIGHTS_FILE).write_bytes(b"short")
    with pytest.raises(InputError, match=r"broken.*was changed after it was saved"):
        adopted({"albedo": tmp_path / "broken"}, "concat")
