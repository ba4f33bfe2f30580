"""A model on disk: a folder with everything that its use needs; loading it runs no code."""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from fr_ps.config import JOINT, DataConfig, Fusion, ModelConfig
from fr_ps.data.labels import ATTRIBUTES, Classes
from fr_ps.errors import InputError, one_line
from fr_ps.files import atomic_folder, open_regular, sync_file, write_atomic, write_json
from fr_ps.json_files import NonNegativeInt, PositiveInt, read_json
from fr_ps.models import build_network
from fr_ps.models.network import FaceNetwork
from fr_ps.photometric.acquisition import AcquisitionRange

WEIGHTS_FILE = "model.safetensors"
INFO_FILE = "model.json"
FORMAT = 3
"""Format 1: single-modality networks with other tensor names; format 2: without checksum and `preparation`."""
_OLDEST_FORMAT = 2


@dataclass(frozen=True)
class ModelInfo:
    """The description of a model: everything but its weights.

    Attributes:
        branches: modality to the architecture of the branch that reads it; `joint` to that of the branch that reads several.
        fusion: of several modalities.
        size: side of the training maps in pixels.
        classes: attribute to class names to raw values.
        trained: the attributes with two classes or more in training; predictions of others are meaningless.
        provenance: run, data digest, git commit, versions.
        preparation: the settings of `prepare` for the training maps, which captures need too; empty if unknown.
        joint: the maps that the joint branch reads; empty without one.
        acquisition: lights and bit depth of the training captures; None if unknown.
    """

    branches: dict[str, ModelConfig]
    fusion: Fusion
    size: PositiveInt
    classes: Classes
    trained: tuple[str, ...]
    provenance: dict[str, str]
    preparation: dict[str, Any] = field(default_factory=dict)
    joint: tuple[str, ...] = ()
    acquisition: AcquisitionRange | None = None

    @property
    def modalities(self) -> tuple[str, ...]:
        """The maps that the model reads."""
        return self.joint or tuple(self.branches)

    @property
    def backbones(self) -> str:
        """The name of the backbone, or one per branch if they differ."""
        names = [config.backbone for config in self.branches.values()]
        return names[0] if len(set(names)) == 1 else ", ".join(names)

    def num_classes(self) -> dict[str, int]:
        """Attribute to its number of classes."""
        return {attribute: len(groups) for attribute, groups in self.classes.items()}

    def build_network(self) -> FaceNetwork:
        """The network with new random weights.

        Raises:
            InputError: as `fr_ps.models.build_network`.
        """
        return build_network(self.branches, self.fusion, self.num_classes(), self.size, self.joint)


@dataclass(frozen=True)
class _ModelFile(ModelInfo):
    """The content of `model.json`, whose format 2 lacks `weights` and `preparation`.

    Attributes:
        format: of the file.
        weights: SHA-256 of the weights.
    """

    format: NonNegativeInt = 0
    weights: str = ""


def write_model(folder: Path, weights: Mapping[str, Tensor], info: ModelInfo) -> None:
    """Write the files of a model into an existing folder, synced. Not atomic: for folders inside `atomic_folder`."""
    write_tensors(folder / WEIGHTS_FILE, weights)
    write_json(folder / INFO_FILE, {"format": FORMAT, "weights": weights_digest(folder), **asdict(info)})


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, synced. Not atomic: for files inside `atomic_folder`.

    Raises:
        OSError: the disk is full or fails.
    """
    try:
        safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:
        if found := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from None
        raise
    path.chmod(0o644)  # safetensors makes it readable for its owner only
    with path.open("rb+") as file:
        sync_file(file)


def copy_model(source: Path, target: Path) -> None:
    """Copy the model folder `source` to `target`, with hard links where the file system supports them."""
    with atomic_folder(target) as temporary:
        for file in source.iterdir():
            try:
                os.link(file, temporary / file.name)
            except OSError:
                write_atomic(temporary / file.name, lambda copy, file=file: copy.write(file.read_bytes()))  # type: ignore[misc]


def weights_digest(folder: Path) -> str:
    """SHA-256 of the weights in the model folder, in hexadecimal; it identifies a model.

    Raises:
        InputError: the folder has no weights.
    """
    path = folder / WEIGHTS_FILE
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; the model folder is incomplete") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); copy the model folder again") from None


def check_no_external_links(folder: Path) -> None:
    """Reject a model folder with a link to a file outside, which would be read and copied to the registry.

    Raises:
        InputError: there is such a link.
    """
    root = folder.resolve()
    for path in root.rglob("*"):
        if not path.is_symlink():
            continue
        try:
            inside = path.resolve().is_relative_to(root)
        except (OSError, RuntimeError):  # a link to itself
            inside = False
        if not inside:
            raise InputError(
                f"{folder / path.relative_to(root)}: links to a file outside the model folder; replace the link by a copy"
            )


def load_model(folder: Path, device: torch.device) -> tuple[FaceNetwork, ModelInfo]:
    """The network in `folder`, in evaluation mode on `device`, and its description.

    Raises:
        InputError: no model, a newer format, or weights that do not fit, were changed after saving, or are not finite.
    """
    stored = _read_info(folder)
    info = _to_model_info(stored)
    if weights_digest(folder) != stored.weights and stored.format > _OLDEST_FORMAT:
        raise InputError(
            f"{folder / WEIGHTS_FILE}: was changed after it was saved (its SHA-256 is not the one in {INFO_FILE}); copy it again"
        )
    try:
        network = info.build_network()
    except InputError as error:
        raise InputError(f"{folder / INFO_FILE}: {error}") from None
    try:
        network.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS_FILE))
    except (OSError, SafetensorError, RuntimeError) as error:
        text = one_line(error, 200)
        raise InputError(f"{folder / WEIGHTS_FILE}: not the weights of this model ({text})") from None
    if bad := [name for name, tensor in network.state_dict().items() if not bool(tensor.isfinite().all())]:
        raise InputError(
            f"{folder / WEIGHTS_FILE}: {bad[0]} holds NaN or infinity ({len(bad)} such tensors); use another checkpoint, or "
            "train again with a lower optim.lr"
        )
    return network.to(device).eval(), info


def read_info(folder: Path) -> ModelInfo:
    """The description in `model.json`.

    Raises:
        InputError: the file is missing, not JSON, incomplete, or has a newer format.
    """
    return _to_model_info(_read_info(folder))


def _read_info(folder: Path) -> _ModelFile:
    path = folder / INFO_FILE
    info = read_json(
        path,
        _ModelFile,
        "give a model folder, as runs/ID/checkpoints/best, or copy it again",
        formats=range(_OLDEST_FORMAT, FORMAT + 1),
    )
    check_no_external_links(folder)
    try:
        if info.format > _OLDEST_FORMAT and not re.fullmatch("[0-9a-f]{64}", info.weights):
            raise InputError("weights must be a SHA-256; copy the model again")
        if set(info.classes) != set(ATTRIBUTES) or min(info.num_classes().values()) < 2:
            raise InputError(f"classes must have two or more of each of {', '.join(ATTRIBUTES)}")
        if unknown := sorted(set(info.trained) - set(ATTRIBUTES)):
            raise InputError(f"trained has {unknown[0][:40]!r}; expected some of {', '.join(ATTRIBUTES)}")
        single = tuple(name for name in info.branches if name != JOINT)
        if (JOINT in info.branches) != bool(info.joint) or (info.joint and not set(single) <= set(info.joint)):
            raise InputError(f"joint is {list(info.joint)} with branches {', '.join(info.branches)}; copy the model again")
        # Their order is that of the settings of data.
        modalities = DataConfig(modalities=info.joint or single).modalities  # type: ignore[arg-type]
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    names = [name for name in (*modalities, JOINT) if name in info.branches]
    return replace(info, branches={name: info.branches[name] for name in names}, joint=modalities if info.joint else ())


def _to_model_info(info: _ModelFile) -> ModelInfo:
    return ModelInfo(**{one.name: getattr(info, one.name) for one in fields(ModelInfo)})
