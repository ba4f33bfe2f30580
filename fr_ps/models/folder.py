"""A model on disk: a folder that says all that is needed to use it, and runs no code when it is loaded."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from fr_ps.config import DataConfig, Fusion, FusionConfig, ModelConfig
from fr_ps.data.labels import ATTRIBUTES, Classes
from fr_ps.errors import InputError, one_line
from fr_ps.files import new_folder, open_regular, sync_file, write_atomic, write_json
from fr_ps.models import build_network
from fr_ps.models.network import FaceNetwork

WEIGHTS_FILE = "model.safetensors"
INFO_FILE = "model.json"
FORMAT = 3
"""1 had networks of one modality only, and named their tensors otherwise; 2 had no checksum and no preparation."""
_OLDEST = 2


@dataclass(frozen=True)
class ModelInfo:
    """What a model is, beside its weights.

    Attributes:
        branches: modality to the architecture of the branch that reads it.
        fusion: how several become one.
        size: side of the maps it was trained on, in pixels.
        classes: attribute to class names to raw values.
        trained: the attributes that training had two classes of; what it says of others means nothing.
        provenance: run, data digest, git commit, versions.
        preparation: the settings of `prepare` that made the maps it was trained on, so that captures can be read as these
            were; empty where they are not known.
    """

    branches: dict[str, ModelConfig]
    fusion: Fusion
    size: int
    classes: Classes
    trained: tuple[str, ...]
    provenance: dict[str, str]
    preparation: dict[str, Any] = field(default_factory=dict)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The maps that it reads."""
        return tuple(self.branches)

    @property
    def backbones(self) -> str:
        """The name of its backbone, or those of each modality where they differ."""
        names = [config.backbone for config in self.branches.values()]
        return names[0] if len(set(names)) == 1 else ", ".join(names)

    def class_counts(self) -> dict[str, int]:
        """Attribute to its number of classes."""
        return {attribute: len(groups) for attribute, groups in self.classes.items()}


def save_model(folder: Path, network: FaceNetwork, info: ModelInfo, also: Callable[[Path], None] | None = None) -> None:
    """Write the model to `folder`, which appears, or replaces what stood there, only when all of it is on disk.

    `also` may write further files to the folder that it is given before that.
    """
    save_weights(folder, network.state_dict(), info, also)


def save_weights(
    folder: Path, weights: Mapping[str, Tensor], info: ModelInfo, also: Callable[[Path], None] | None = None
) -> None:
    """`save_model` of a network whose state is `weights`."""
    with new_folder(folder) as temporary:
        write_tensors(temporary / WEIGHTS_FILE, weights)
        digest = weights_digest(temporary)
        write_json(temporary / INFO_FILE, {"format": FORMAT, "weights": digest, **asdict(info)})
        if also:
            also(temporary)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, synced. Not atomic: for files inside `new_folder`.

    Raises:
        OSError: the disk is full, or another fault of it.
    """
    try:
        safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:
        if found := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from None
        raise
    path.chmod(0o644)  # safetensors makes it for its owner's eyes only
    with path.open("rb+") as file:
        sync_file(file)


def copy_model(source: Path, target: Path) -> None:
    """Make `target` the same model as the folder `source`; files are shared (hard links) where the disk can."""
    with new_folder(target) as temporary:
        for file in source.iterdir():
            try:
                os.link(file, temporary / file.name)
            except OSError:
                write_atomic(temporary / file.name, lambda copy, file=file: copy.write(file.read_bytes()))  # type: ignore[misc]


def weights_digest(folder: Path) -> str:
    """SHA-256 of the weights in the model folder, in hexadecimal: what tells one model from another.

    Raises:
        InputError: there are none.
    """
    try:
        with open_regular(folder / WEIGHTS_FILE) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        raise InputError(f"{folder / WEIGHTS_FILE}: no such file; the model folder is not whole") from None


def load_model(folder: Path, device: torch.device) -> tuple[FaceNetwork, ModelInfo]:
    """The network in `folder`, in evaluation mode on `device`, and what it is.

    Raises:
        InputError: no model there, a newer format, or weights that do not fit, or are not those that were saved.
    """
    raw, info = _read_info(folder)
    if raw["format"] > _OLDEST and weights_digest(folder) != raw["weights"]:
        raise InputError(
            f"{folder / WEIGHTS_FILE}: was changed after it was saved (its SHA-256 is not the one in {INFO_FILE}); copy it again"
        )
    try:
        network = build_network(info.branches, info.fusion, info.class_counts())
    except InputError as error:
        raise InputError(f"{folder / INFO_FILE}: {error}") from None
    try:
        network.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS_FILE))
    except FileNotFoundError:
        raise InputError(f"{folder / WEIGHTS_FILE}: no such file; the model folder is not whole") from None
    except (SafetensorError, RuntimeError) as error:
        text = one_line(error, 200)
        raise InputError(f"{folder / WEIGHTS_FILE}: not the weights of this model ({text})") from None
    return network.to(device).eval(), info


def read_info(folder: Path) -> ModelInfo:
    """What `model.json` in `folder` says.

    Raises:
        InputError: it is missing, no JSON, of a newer format, or lacks something.
    """
    return _read_info(folder)[1]


def _read_info(folder: Path) -> tuple[dict[str, Any], ModelInfo]:
    path = folder / INFO_FILE
    try:
        raw: dict[str, Any] = json.loads(path.read_text())
        if raw["format"] > FORMAT:
            raise InputError(f"format {raw['format']} is newer than this version of fr-ps reads ({FORMAT}); update fr-ps")
        if raw["format"] < _OLDEST:
            raise InputError(f"format {raw['format']} is one that this version of fr-ps does not read any more; train it again")
        if raw["format"] == _OLDEST:
            raw |= {"preparation": {}, "weights": ""}
        if not isinstance(raw["weights"], str) or not isinstance(raw["preparation"], dict):
            raise InputError("weights must be a SHA-256 and preparation a mapping; copy the model again")
        values = {one.name: raw[one.name] for one in fields(ModelInfo)}
        # The settings of data and fusion say which modalities and fusions there are.
        modalities = DataConfig(modalities=tuple(raw["branches"])).modalities
        branches = {modality: _architecture(raw["branches"][modality]) for modality in modalities}
        fusion = FusionConfig(name=raw["fusion"]).name
        info = ModelInfo(**values | {"branches": branches, "fusion": fusion, "trained": tuple(raw["trained"])})
        if set(info.classes) != set(ATTRIBUTES) or min(info.class_counts().values()) < 2:
            raise InputError(f"classes must have two or more of each of {', '.join(ATTRIBUTES)}")
        return raw, info
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give a model folder, as runs/ID/checkpoints/best") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a model description ({error!r})") from None


def _architecture(raw: dict[str, Any]) -> ModelConfig:
    settings: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
    return ModelConfig(**settings)
