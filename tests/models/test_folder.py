"""A model on disk: what is saved is what is loaded, damaged files are rejected, and nothing in it is run."""

import json
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fr_ps.config import Fusion, Modality, ModelConfig
from fr_ps.data.labels import DEFAULT_CLASSES
from fr_ps.errors import InputError
from fr_ps.models.folder import INFO_FILE, WEIGHTS_FILE, ModelInfo, copy_model, load_model, read_info, weights_digest
from fr_ps.models.fusion import FUSIONS
from fr_ps.models.network import FaceNetwork
from tests.foreign import Bomb
from tests.models.small import by_name, make_maps, save_model

CPU = torch.device("cpu")
MODEL = ModelConfig(backbone="timm:test_resnet", channels=16, reduction=8)


def info(modalities: Sequence[Modality] = ("albedo",), fusion: Fusion = "concat", model: ModelConfig = MODEL) -> ModelInfo:
    return ModelInfo(
        branches=dict.fromkeys(modalities, model),
        fusion=fusion,
        size=32,
        classes={**DEFAULT_CLASSES, "emotion": {"neutral": ["blankstare"], "good": ["positive"], "bad": ["negative"]}},
        trained=("gender", "pose"),
        provenance={"run": "ünknown", "git_commit": "abc"},
    )


def network(seed: int = 0, of: ModelInfo | None = None) -> FaceNetwork:
    """With batch statistics that are no longer those of the start."""
    of = of or info()
    torch.manual_seed(seed)
    made = of.build_network()
    with torch.no_grad():
        made(make_maps(of.modalities))
    return made.eval()


def answers(of: FaceNetwork) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return by_name(of({modality: array.flip(3) for modality, array in make_maps(of.modalities).items()}))


def same_answers(a: FaceNetwork, b: FaceNetwork) -> bool:
    """Bit by bit."""
    first, second = answers(a), answers(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


ARCHITECTURES = [
    {"embedding": "flatten", "identity_channels": 24},
    {"albedo": "log", "input_size": 24},
    {"flip_average": True},
    {"linear": 0.7},
    {"linear": 0.7, "linear_attributes": 0.4, "registration": True},
]


@pytest.mark.parametrize("settings", ARCHITECTURES, ids=str)
def test_every_architecture_answers_the_same_after_it_was_saved(tmp_path: Path, settings: dict[str, Any]) -> None:
    of = info(("albedo", "normal"), "score", replace(MODEL, **settings))
    made = network(of=of)
    save_model(tmp_path / "model", made, of)
    loaded, read = load_model(tmp_path / "model", CPU)
    assert read == of
    assert same_answers(made, loaded)


@pytest.mark.parametrize("names", [("joint",), ("depth", "albedo", "joint")], ids="+".join)
def test_a_joint_branch_is_loaded_with_the_maps_that_it_reads(tmp_path: Path, names: tuple[str, ...]) -> None:
    of = replace(info(), branches=dict.fromkeys(names, MODEL), joint=("depth", "albedo"))
    made = network(of=of)
    save_model(tmp_path / "model", made, of)
    loaded, read = load_model(tmp_path / "model", CPU)
    assert read == of
    assert list(read.branches) == list(names)
    assert read.modalities == loaded.modalities == ("depth", "albedo")
    assert same_answers(made, loaded)


@pytest.mark.parametrize(
    "values",
    [
        {"joint": []},
        {"joint": ["albedo"]},
        {"joint": ["albedo", "infrared"]},
        {"branches": dict.fromkeys(["albedo", "normal"], vars(MODEL))},
    ],
    ids=["none", "not all maps", "an unknown map", "no joint branch"],
)
def test_a_joint_branch_that_contradicts_its_maps_is_rejected(tmp_path: Path, values: dict[str, Any]) -> None:
    of = replace(info(), branches=dict.fromkeys(("albedo", "normal", "joint"), MODEL), joint=("albedo", "normal"))
    save_model(tmp_path, network(of=of), of)
    content = json.loads((tmp_path / INFO_FILE).read_text()) | values
    (tmp_path / INFO_FILE).write_text(json.dumps(content))
    assert INFO_FILE in error_message(tmp_path)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "saved"
    save_model(folder, network(), info())
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    copy = tmp_path / "model"
    copy.mkdir()
    for file in saved.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def error_message(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_model(folder, CPU)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    return str(caught.value)


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    raw = json.loads((folder / INFO_FILE).read_text())
    edit(raw)
    (folder / INFO_FILE).write_text(json.dumps(raw))


def test_a_loaded_model_predicts_like_the_saved_one_to_the_bit(saved: Path) -> None:
    loaded, read = load_model(saved, CPU)
    assert read == info()
    assert not loaded.training
    assert same_answers(network(), loaded)
    assert not same_answers(network(seed=7), loaded)


MODALITIES: list[tuple[Modality, ...]] = [("albedo", "normal"), ("normal", "albedo"), ("depth", "albedo", "normal")]


@pytest.mark.parametrize("modalities", MODALITIES, ids="+".join)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_loaded_fused_model_predicts_like_the_saved_one_in_the_order_of_its_modalities(
    tmp_path: Path, fusion: Fusion, modalities: Sequence[Modality]
) -> None:
    of = info(modalities, fusion)
    save_model(tmp_path / "model", network(of=of), of)
    loaded, read = load_model(tmp_path / "model", CPU)
    assert read == of
    assert read.modalities == loaded.modalities == tuple(modalities)
    assert same_answers(network(of=of), loaded)


def test_branches_of_different_settings_are_stored_with_their_own(tmp_path: Path) -> None:
    other = replace(MODEL, backbone="convnextv2_atto", attribute_channels=8, order=MODEL.order[::-1])
    of = replace(info(), branches={"albedo": MODEL, "depth": other}, fusion="gated")
    save_model(tmp_path / "model", network(of=of), of)
    loaded, read = load_model(tmp_path / "model", CPU)
    assert read == of
    assert read.backbones == "timm:test_resnet, convnextv2_atto"
    assert info(("albedo", "depth")).backbones == "timm:test_resnet"
    assert same_answers(network(of=of), loaded)


def test_a_frozen_branch_is_stored_as_any_other(tmp_path: Path) -> None:
    of = info(("albedo", "depth"))
    made = network(of=of)
    made.branches["albedo"].freeze()  # type: ignore[operator]
    save_model(tmp_path / "model", made, of)
    assert same_answers(network(of=of), load_model(tmp_path / "model", CPU)[0])


def test_a_folder_without_newer_settings_loads_with_their_defaults(folder: Path) -> None:
    later = ("weights", "fsm", "order", "adversaries", "attribute_channels")
    change(folder, lambda raw: [raw["branches"]["albedo"].pop(key) for key in later])
    loaded, read = load_model(folder, CPU)
    assert read == info()
    assert same_answers(network(), loaded)


@pytest.mark.parametrize(
    "settings",
    [
        {"fsm": False},
        {"order": ("gender", "pose", "emotion", "facial_hair", "spectacles"), "adversaries": "identity"},
        {"adversaries": "off", "attribute_channels": 8},
        {"backbone": "timm:resnet10t"},
    ],
    ids=str,
)
def test_every_setting_of_the_network_is_stored_with_it(tmp_path: Path, settings: dict[str, Any]) -> None:
    of = info(model=replace(MODEL, **settings))
    save_model(tmp_path / "model", network(of=of), of)
    loaded, read = load_model(tmp_path / "model", CPU)
    assert read == of
    assert same_answers(network(of=of), loaded)


def test_loading_does_not_depend_on_the_random_state(saved: Path) -> None:
    torch.manual_seed(1)
    first = load_model(saved, CPU)[0]
    torch.manual_seed(2)
    assert same_answers(first, load_model(saved, CPU)[0])


def test_a_copy_is_the_same_model_and_independent_of_the_first(folder: Path) -> None:
    copy = folder.parent / "copy"
    copy_model(folder, copy)
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == {
        file.name: file.read_bytes() for file in folder.iterdir()
    }
    save_model(folder, network(seed=7), info())
    assert same_answers(network(), load_model(copy, CPU)[0])


@pytest.mark.parametrize("keep", [0, 5, 100, 20_000, -1])
def test_truncated_weights_are_rejected(folder: Path, keep: int) -> None:
    content = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(content[:keep])
    assert str(folder / WEIGHTS_FILE) in error_message(folder)


@pytest.mark.parametrize("name", [WEIGHTS_FILE, INFO_FILE])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert f"{folder / name}: no such file" in error_message(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "none") in error_message(tmp_path / "none")


def test_a_newer_format_is_rejected_with_the_remedy(folder: Path) -> None:
    change(folder, lambda raw: raw.update(format=4))
    message = error_message(folder)
    assert str(folder / INFO_FILE) in message
    assert "format 4" in message
    assert "update fr-ps" in message


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda raw: raw.update(size="32"), "size: expected a valid integer, found '32'"),
        (lambda raw: raw.update(size=True), "size: expected a valid integer, found true"),
        (lambda raw: raw.update(trained="gender"), "trained: expected"),
        (lambda raw: raw.update(trained=["gender", "height"]), "trained has 'height'"),
        (lambda raw: raw.update(provenance=[]), "provenance: expected an object, found a list"),
        (lambda raw: raw["classes"].update(gender="ab"), "classes.gender: expected"),
        (lambda raw: raw["classes"]["gender"].update(male="male"), "classes.gender.male: expected"),
        (lambda raw: raw["branches"]["albedo"].update(channels=16.0), "branches.albedo.channels: expected a valid integer"),
        (lambda raw: raw["branches"]["albedo"].update(unheard_of=1), "branches.albedo.unheard_of: Unexpected keyword argument"),
        (lambda raw: raw.update(fusion="sum"), "fusion: expected 'concat'"),
        (lambda raw: raw.update(weights="abc"), "weights must be a SHA-256"),
        (lambda raw: raw.update(format=2**70), "does not fit 64 bits"),
    ],
)
def test_a_value_of_another_type_is_rejected_with_its_key(folder: Path, edit: Callable[[Any], None], words: str) -> None:
    change(folder, edit)
    message = error_message(folder)
    assert str(folder / INFO_FILE) in message
    assert words in message


def test_a_link_to_a_file_outside_the_model_folder_is_rejected(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("")
    for target in (tmp_path / "secret", "../secret", "link"):
        (folder / "link").symlink_to(target)
        assert f"{folder}/link: links to a file outside the model folder" in error_message(folder)
        (folder / "link").unlink()
    (folder / "copy.safetensors").symlink_to(WEIGHTS_FILE)
    (tmp_path / "elsewhere").symlink_to(folder)
    assert read_info(tmp_path / "elsewhere") == read_info(folder)


@pytest.mark.parametrize(
    "header",
    [
        (2**62).to_bytes(8, "little") + b"{}",
        (9_000_005).to_bytes(8, "little") + b'{"a":' + b"[" * 9_000_000,
        (92).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[1099511627776,1048576],"data_offsets":[0,%d]}}' % 2**62,
    ],
    ids=["long", "deep", "large"],
)
def test_a_forged_header_of_weights_is_rejected_at_once(folder: Path, header: bytes) -> None:
    (folder / WEIGHTS_FILE).write_bytes(header)
    change(folder, lambda raw: raw.update(weights=weights_digest(folder)))
    began = time.monotonic()
    assert "not the weights of this model" in error_message(folder)
    assert time.monotonic() - began < 5


def test_weights_that_were_tampered_with_are_rejected(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS_FILE).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS_FILE).write_bytes(bytes(content))
    message = error_message(folder)
    assert str(folder / WEIGHTS_FILE) in message
    assert "was changed after it was saved" in message


def test_the_format_without_a_checksum_is_read(folder: Path) -> None:
    def age(raw: dict[str, Any]) -> None:
        raw["format"] = 2
        del raw["weights"], raw["preparation"]

    change(folder, age)
    loaded, read = load_model(folder, CPU)
    assert read == info()
    assert same_answers(network(), loaded)


def test_the_format_of_single_modality_networks_is_rejected_with_the_remedy(folder: Path) -> None:
    """As such a folder was: its description had other keys as well."""

    def age(raw: dict[str, Any]) -> None:
        raw |= {"format": 1, "model": raw.pop("branches")["albedo"], "modalities": ["albedo"]}
        del raw["fusion"]

    change(folder, age)
    message = error_message(folder)
    assert str(folder / INFO_FILE) in message
    assert "format 1" in message
    assert "create the file again" in message


@pytest.mark.parametrize("model", [{"channels": 32}, {"reduction": 16}, {"backbone": "miresnet34"}], ids=str)
def test_weights_of_another_architecture_are_rejected(folder: Path, model: dict[str, Any]) -> None:
    change(folder, lambda raw: raw["branches"]["albedo"].update(model))
    message = error_message(folder)
    assert str(folder / WEIGHTS_FILE) in message
    assert "not the weights of this model" in message


@pytest.mark.parametrize(
    "edit",
    [
        lambda raw: raw["branches"].update(depth=raw["branches"]["albedo"]),
        lambda raw: raw["branches"].update(depth=raw["branches"].pop("albedo")),
        lambda raw: raw["branches"].update(normal=raw["branches"].pop("albedo")),
    ],
    ids=["one modality more", "another of as many channels", "another of more channels"],
)
def test_weights_of_other_modalities_are_rejected(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    change(folder, edit)
    message = error_message(folder)
    assert str(folder / WEIGHTS_FILE) in message
    assert "not the weights of this model" in message


def test_weights_of_another_fusion_are_rejected(tmp_path: Path) -> None:
    of = info(("albedo", "depth"))
    save_model(tmp_path / "model", network(of=of), of)
    change(tmp_path / "model", lambda raw: raw.update(fusion="gated"))
    assert "not the weights of this model" in error_message(tmp_path / "model")


@pytest.mark.parametrize(
    "edit",
    [
        lambda raw: raw["branches"]["albedo"].update(backbone="irse49"),
        lambda raw: raw["branches"]["albedo"].update(backbone=50),
        lambda raw: raw["branches"]["albedo"].update(backbone="timm:nothing_like_it"),
        lambda raw: raw["branches"]["albedo"].update(order=["gender"]),
        lambda raw: raw["branches"]["albedo"].update(order=5),
        lambda raw: raw["branches"]["albedo"].update(fsm="no"),
        lambda raw: raw["branches"]["albedo"].update(depth=3),
        lambda raw: raw["branches"]["albedo"].update(channels="many"),
        lambda raw: raw["branches"]["albedo"].update(channels=0),
        lambda raw: raw["branches"].update(infrared=raw["branches"].pop("albedo")),
        lambda raw: raw["branches"].update(infrared=raw["branches"]["albedo"]),
        lambda raw: raw["branches"].update(depth={"backbone": "irse49"}),
        lambda raw: raw["branches"].update(depth=None),
        lambda raw: raw.update(branches={}),
        lambda raw: raw.update(branches=["albedo"]),
        lambda raw: raw.update(branches=5),
        lambda raw: raw.pop("branches"),
        lambda raw: raw.update(fusion="sum"),
        lambda raw: raw.update(fusion=["concat"]),
        lambda raw: raw.update(fusion=None),
        lambda raw: raw.pop("fusion"),
        lambda raw: raw.update(classes={}),
        lambda raw: raw.update(classes=["gender"]),
        lambda raw: raw["classes"].pop("pose"),
        lambda raw: raw.pop("classes"),
        lambda raw: raw.pop("format"),
        lambda raw: raw.update(format="one"),
    ],
    ids=[
        "unknown backbone",
        "backbone is a number",
        "backbone that timm does not have",
        "an order without all",
        "an order that is none",
        "fsm is text",
        "unknown key",
        "channels are text",
        "no channels",
        "unknown modality",
        "an unknown modality beside a known one",
        "a second branch of an unknown backbone",
        "a second branch that is none",
        "no modality",
        "branches are a list",
        "branches are a number",
        "branches are missing",
        "unknown fusion",
        "fusion is a list",
        "fusion is null",
        "fusion is missing",
        "no classes",
        "classes are a list",
        "an attribute is missing",
        "classes are missing",
        "no format",
        "format is text",
    ],
)
def test_a_description_of_an_impossible_model_is_rejected(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    change(folder, edit)
    assert str(folder) in error_message(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"3", b"\xff\xfe\x00"], ids=repr)
def test_a_description_that_is_no_json_object_is_rejected(folder: Path, content: bytes) -> None:
    (folder / INFO_FILE).write_bytes(content)
    assert str(folder / INFO_FILE) in error_message(folder)


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_pickle_offered_as_weights_is_rejected_and_not_run(folder: Path, tmp_path: Path, form: str) -> None:
    trace = tmp_path / "it ran"
    with (folder / WEIGHTS_FILE).open("wb") as file:
        if form == "pickle":
            pickle.dump(Bomb(trace), file)
        else:
            torch.save({"weight": Bomb(trace)}, file)
    assert str(folder / WEIGHTS_FILE) in error_message(folder)
    assert not trace.exists()
    if form == "pickle":
        pickle.loads((folder / WEIGHTS_FILE).read_bytes())
        assert trace.exists()  # the bomb is one


def test_num_classes_and_info_come_from_the_description(saved: Path) -> None:
    assert read_info(saved).num_classes() == {"gender": 2, "spectacles": 2, "facial_hair": 2, "pose": 2, "emotion": 3}
