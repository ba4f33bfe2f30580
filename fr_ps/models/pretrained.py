"""Loads pretrained weights: published ones from a file, and trained branches for fusion."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from torch import Tensor

from fr_ps.config import JOINT, BranchName
from fr_ps.data.labels import Classes
from fr_ps.data.layout import CHANNELS
from fr_ps.errors import InputError, one_line
from fr_ps.files import check_regular_file
from fr_ps.models.arcface_weights import IGNORED_TENSORS_NOTE, is_published_iresnet, rename_published_iresnet
from fr_ps.models.branch import Branch
from fr_ps.models.folder import ModelInfo, load_model, read_info
from fr_ps.models.fusion import ClassHead, ProbabilityFusionHead
from fr_ps.models.network import FaceNetwork

_BRANCHES = tuple(f"branches.{name}." for name in (*CHANNELS, JOINT))
_WRAPPERS = ("module.", "_orig_mod.", "model.", "network.", *_BRANCHES, "backbone.", "trunk.")
"""Prefixes of names from wrappers of the network: DDP, torch.compile, a lightning module, ours."""
_NESTED_KEYS = ("state_dict", "model_state_dict", "model", "network", "backbone")
_MAX_NESTING = 10
"""Most dictionaries nested around the state_dict of a checkpoint."""
_REMEDY = "save its state_dict with safetensors.torch.save_file"


def load_weights(branch: Branch, path: Path) -> str:
    """Copy the matching tensors of the .safetensors, .pth or .pt file at `path` into `branch`; the others keep their values.

    Names are matched without the prefixes of wrappers, so the file may be a backbone, a branch, a whole network, or a trainer's
    checkpoint. Convolutions for RGB are summed over the input channels for a map of one channel, which gives the same output
    as three equal channels. Published IResNet weights are renamed first (`fr_ps.models.arcface_weights`). A .pth is loaded with
    `weights_only`, which runs no code.

    Returns:
        One line for the user: how many tensors matched, are missing in the file, unexpected in it, or of another shape.

    Raises:
        InputError: no such file, not readable as tensors, of several other modalities, a published IResNet of other units, or
            nothing in it fits.
    """
    state, content = branch.state_dict(), _select_branch(_read_tensors(path), branch.modality, path)
    published = is_published_iresnet(content)
    if published:
        content = rename_published_iresnet(content, branch.backbone, path)
    ours = {_canonical_name(name): tensor for name, tensor in state.items() if _is_weight(name)}
    theirs = {_canonical_name(name): tensor for name, tensor in content.items() if _is_weight(name)}
    matched: list[str] = []
    wrong: list[str] = []
    with torch.no_grad():
        for name in ours.keys() & theirs.keys():
            value = _sum_rgb(theirs[name], ours[name])
            fits = value.shape == ours[name].shape
            (matched if fits else wrong).append(name)
            if fits:
                ours[name].copy_(value)
    if not matched:
        first = ", ".join([*content][:2])
        raise InputError(f"{path}: no tensor fits the branch (it holds {first}, ...); expected weights of model.backbone")
    groups = {
        "missing in the file": [name for name in state if _is_weight(name) and _canonical_name(name) not in theirs],
        "unexpected in it": [name for name in content if _is_weight(name) and _canonical_name(name) not in ours],
        "of another shape": [name for name in state if _canonical_name(name) in wrong],
    }
    backbone = {_canonical_name(name) for name in branch.backbone.state_dict() if _is_weight(name)}
    found = f"{len(matched)} of {len(ours)} tensors matched, {len(backbone & set(matched))} of {len(backbone)} of the backbone"
    line = f"weights: {path}: {found}; " + ", ".join(map(_summarise, groups, groups.values()))
    return f"{line}; {IGNORED_TENSORS_NOTE}" if published else line


def _select_branch(content: dict[str, Tensor], modality: str, path: Path) -> dict[str, Tensor]:
    """The tensors of the branch of `modality`, or of the only branch, if `content` is one of our networks; else all tensors."""
    present = [other for other in (*CHANNELS, JOINT) if any(name.startswith(f"branches.{other}.") for name in content)]
    if not present:
        return content
    if modality not in present and len(present) > 1:
        raise InputError(f"{path}: holds branches of {', '.join(present)} and none of {modality}; expected weights of one branch")
    chosen = modality if modality in present else present[0]
    return {name: tensor for name, tensor in content.items() if name.startswith(f"branches.{chosen}.")}


def _summarise(what: str, names: Sequence[str]) -> str:
    examples = names[:2]
    more = ", ..." if len(names) > len(examples) else ""
    return f"{len(names)} {what}" + (f" ({', '.join(examples)}{more})" if names else "")


def _is_weight(name: str) -> bool:
    """False for `num_batches_tracked` of batch norm, which has no effect."""
    return not name.endswith("num_batches_tracked")


def _canonical_name(name: str) -> str:
    """`name` without wrapper prefixes, and with dots for underscores: timm's feature networks have `stages_0` for `stages.0`."""
    while wrapper := next((wrapper for wrapper in _WRAPPERS if name.startswith(wrapper)), ""):
        name = name.removeprefix(wrapper)
    return name.replace("_", ".")


def _sum_rgb(value: Tensor, ours: Tensor) -> Tensor:
    grey = value.ndim == ours.ndim == 4 and value.shape[1] == 3 and ours.shape[1] == 1
    return value.sum(dim=1, keepdim=True) if grey else value


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Name to tensor, from `path`."""
    try:
        check_regular_file(path)
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; model.weights names a .safetensors or .pth") from None
    except InputError:
        raise
    except Exception as error:  # torch.load raises many types for a corrupt file
        cause = f"{type(error).__name__}: {one_line(error, 100)}"
        raise InputError(f"{path}: not a file of tensors only ({cause}); {_REMEDY}") from None
    for _ in range(_MAX_NESTING):  # a dictionary may contain itself
        if not isinstance(content, dict) or (inner := _nested_state_dict(content)) is None:
            break
        content = inner
    named = content.items() if isinstance(content, dict) else ()
    tensors = {name: value for name, value in named if isinstance(name, str) and isinstance(value, Tensor)}
    if not tensors:
        raise InputError(f"{path}: holds no tensors by name; {_REMEDY}")
    return tensors


def _nested_state_dict(content: dict[str, Any]) -> dict[str, Any] | None:
    """The state_dict in a trainer's checkpoint."""
    return next((content[key] for key in _NESTED_KEYS if isinstance(content.get(key), dict)), None)


def read_branch_info(folder: Path, name: BranchName, joint: Sequence[str], classes: Classes, size: int) -> ModelInfo:
    """The description of the model in `folder`, a source of the branch `name` in a network of `classes` and map `size`.

    Args:
        folder: model folder.
        name: of the branch: a modality, or joint.
        joint: the maps of the joint branch.
        classes: attribute to class names to raw values.
        size: side of the maps in pixels.

    Raises:
        InputError: no model, or one with other inputs or classes.
    """
    info = read_info(folder)
    maps = tuple(joint) if name == JOINT else (name,)
    if tuple(info.branches) != (name,) or info.modalities != maps:
        expected = f"{', '.join(maps)} in one branch (fusion.joint only)" if name == JOINT else f"{name} alone"
        raise InputError(f"{folder}: reads {', '.join(info.modalities)}; expected a model of {expected}")
    if info.size != size:
        raise InputError(f"{folder}: was trained on maps of {info.size} px, these have {size}; prepare with --size {info.size}")
    for attribute, groups in classes.items():
        if list(info.classes[attribute]) != list(groups):
            theirs, ours = ", ".join(info.classes[attribute]), ", ".join(groups)
            raise InputError(f"{folder}: its classes of {attribute} are {theirs}; here they are {ours}; set data.classes so")
    return info


def load_branch(network: FaceNetwork, name: str, folder: Path, freeze: bool) -> None:
    """Copy the weights of the model in `folder`, which has this branch only, into the branch `name` of `network`.

    The gain is copied too; with score fusion, which has heads per branch, also the heads. With `freeze`, of all these only the
    gain is trained, which weighs the branches.

    Raises:
        InputError: the weights cannot be read.
    """
    source, _ = load_model(folder, torch.device("cpu"))
    index = list(network.branches).index(name)
    branch = cast(Branch, network.branches[name])
    branch.load_state_dict(source.branches[name].state_dict())
    if freeze:
        branch.freeze()
    with torch.no_grad():
        network.log_gains[name].copy_(source.log_gains[name])
    for task, head in network.heads.items():
        if isinstance(head, ProbabilityFusionHead):
            own = head.linears[index]
            own.load_state_dict(cast(ClassHead, source.heads[task]).linear.state_dict())
            own.requires_grad_(not freeze)
