"""A model on disk: what is saved is what is loaded, what is broken is refused, and nothing in it is run."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fr_ps.config import ModelConfig
from fr_ps.data.labels import DEFAULT_CLASSES
from fr_ps.errors import InputError
from fr_ps.models import build_network
from fr_ps.models.folder import INFO_FILE, WEIGHTS_FILE, ModelInfo, copy_model, load_model, read_info, save_model
from fr_ps.models.network import FaceNetwork

CPU = torch.device("cpu")
MAPS = {"albedo": torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(3))}


def info(channels: int = 16) -> ModelInfo:
    return ModelInfo(
        model=ModelConfig(backbone="miresnet18", channels=channels, reduction=8),
        modalities=("albedo",),
        size=32,
        classes={**DEFAULT_CLASSES, "emotion": {"neutral": ["blankstare"], "good": ["positive"], "bad": ["negative"]}},
        trained=("gender", "pose"),
        provenance={"run": "ünknown", "git_commit": "abc"},
    )


def network(seed: int = 0, of: ModelInfo | None = None) -> FaceNetwork:
    """With batch statistics that are no longer those of the start."""
    of = of or info()
    torch.manual_seed(seed)
    made = build_network(of.model, of.modalities, of.class_counts())
    with torch.no_grad():
        made({"albedo": torch.rand(4, 1, 32, 32)})
    return made.eval()


def answers(of: FaceNetwork) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return of(MAPS)


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


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_model(folder, CPU)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    return str(caught.value)


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    raw = json.loads((folder / INFO_FILE).read_text())
    edit(raw)
    (folder / INFO_FILE).write_text(json.dumps(raw))


def test_a_loaded_model_answers_bit_by_bit_like_the_saved_one(saved: Path) -> None:
    loaded, read = load_model(saved, CPU)
    assert read == info()
    assert not loaded.training
    before, after = answers(network()), answers(loaded)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_folder_from_before_there_were_these_settings_loads_with_their_defaults(folder: Path) -> None:
    later = ("weights", "fsm", "order", "adversaries", "attribute_channels")
    change(folder, lambda raw: [raw["model"].pop(key) for key in later])
    loaded, read = load_model(folder, CPU)
    assert read == info()
    before, after = answers(network()), answers(loaded)
    assert all(torch.equal(before[name], after[name]) for name in before)


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
    of = replace(info(), model=replace(info().model, **settings))
    save_model(tmp_path / "model", network(of=of), of)
    loaded, read = load_model(tmp_path / "model", CPU)
    assert read == of
    before, after = answers(network(of=of)), answers(loaded)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_loading_does_not_depend_on_the_random_state(saved: Path) -> None:
    torch.manual_seed(1)
    first = answers(load_model(saved, CPU)[0])
    torch.manual_seed(2)
    assert all(torch.equal(first[name], value) for name, value in answers(load_model(saved, CPU)[0]).items())


def test_saving_again_replaces_the_model_whole(folder: Path) -> None:
    (folder / "leftover.txt").write_text("of the old model")
    save_model(folder, network(seed=7), info(), also=lambda temporary: (temporary / "split.csv").write_text("x"))
    assert {file.name for file in folder.iterdir()} == {WEIGHTS_FILE, INFO_FILE, "split.csv"}
    expected = answers(network(seed=7))
    assert all(torch.equal(expected[name], value) for name, value in answers(load_model(folder, CPU)[0]).items())
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_save_that_fails_leaves_the_model_before_it_whole(folder: Path) -> None:
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    def full_disk(temporary: Path) -> None:
        (temporary / "half").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="the disk is full"):
        save_model(folder, network(seed=7), info(), also=full_disk)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_first_save_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def interrupted(_temporary: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_model(tmp_path / "model", network(), info(), also=interrupted)
    assert list(tmp_path.iterdir()) == []


def test_a_copy_is_the_same_model_and_stays_so_when_the_first_is_saved_again(folder: Path) -> None:
    copy = folder.parent / "copy"
    copy_model(folder, copy)
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == {
        file.name: file.read_bytes() for file in folder.iterdir()
    }
    save_model(folder, network(seed=7), info())
    assert all(torch.equal(answers(network())[name], value) for name, value in answers(load_model(copy, CPU)[0]).items())


@pytest.mark.parametrize("keep", [0, 5, 100, 20_000, -1])
def test_truncated_weights_are_refused(folder: Path, keep: int) -> None:
    content = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(content[:keep])
    assert str(folder / WEIGHTS_FILE) in refusal(folder)


@pytest.mark.parametrize("name", [WEIGHTS_FILE, INFO_FILE])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert f"{folder / name}: no such file" in refusal(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "none") in refusal(tmp_path / "none")


def test_a_newer_format_is_refused_with_what_to_do(folder: Path) -> None:
    change(folder, lambda raw: raw.update(format=2))
    message = refusal(folder)
    assert str(folder / INFO_FILE) in message
    assert "update fr-ps" in message


@pytest.mark.parametrize("model", [{"channels": 32}, {"reduction": 16}, {"backbone": "miresnet34"}], ids=str)
def test_weights_of_another_architecture_are_refused(folder: Path, model: dict[str, Any]) -> None:
    change(folder, lambda raw: raw["model"].update(model))
    message = refusal(folder)
    assert str(folder / WEIGHTS_FILE) in message
    assert "not the weights of this model" in message


@pytest.mark.parametrize(
    "edit",
    [
        lambda raw: raw["model"].update(backbone="irse49"),
        lambda raw: raw["model"].update(backbone=50),
        lambda raw: raw["model"].update(backbone="timm:nothing_like_it"),
        lambda raw: raw["model"].update(order=["gender"]),
        lambda raw: raw["model"].update(order=5),
        lambda raw: raw["model"].update(fsm="no"),
        lambda raw: raw["model"].update(depth=3),
        lambda raw: raw["model"].update(channels="many"),
        lambda raw: raw["model"].update(channels=0),
        lambda raw: raw.update(modalities=["infrared"]),
        lambda raw: raw.update(modalities=["albedo", "depth"]),
        lambda raw: raw.update(modalities=[]),
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
        "two modalities",
        "no modality",
        "no classes",
        "classes are a list",
        "an attribute is missing",
        "classes are missing",
        "no format",
        "format is text",
    ],
)
def test_a_description_that_makes_no_model_is_refused(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    change(folder, edit)
    assert str(folder) in refusal(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"3", b"\xff\xfe\x00"], ids=repr)
def test_a_description_that_is_no_json_object_is_refused(folder: Path, content: bytes) -> None:
    (folder / INFO_FILE).write_bytes(content)
    assert str(folder / INFO_FILE) in refusal(folder)


class _Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_pickle_offered_as_weights_is_refused_and_not_run(folder: Path, tmp_path: Path, form: str) -> None:
    trace = tmp_path / "it ran"
    with (folder / WEIGHTS_FILE).open("wb") as file:
        if form == "pickle":
            pickle.dump(_Bomb(trace), file)
        else:
            torch.save({"weight": _Bomb(trace)}, file)
    assert str(folder / WEIGHTS_FILE) in refusal(folder)
    assert not trace.exists()
    if form == "pickle":
        pickle.loads((folder / WEIGHTS_FILE).read_bytes())
        assert trace.exists()  # the bomb is one


def test_class_counts_and_info_come_from_the_description(saved: Path) -> None:
    assert read_info(saved).class_counts() == {"gender": 2, "spectacles": 2, "facial_hair": 2, "pose": 2, "emotion": 3}
