"""The branch of a trained network, into a network that fuses it with others."""

from pathlib import Path
from typing import cast

import torch

from fr_ps.config import Modality
from fr_ps.data.labels import Classes
from fr_ps.errors import InputError
from fr_ps.models.branch import Branch
from fr_ps.models.folder import ModelInfo, load_model, read_info
from fr_ps.models.fusion import ClassHead, ProbabilityFusionHead
from fr_ps.models.network import FaceNetwork


def read_branch_info(folder: Path, modality: Modality, classes: Classes, size: int) -> ModelInfo:
    """What the model in `folder` is, whose branch is to read `modality` in a network of these `classes` and map `size`.

    Raises:
        InputError: no model there, or one that reads something else, or tells other classes apart.
    """
    info = read_info(folder)
    if info.modalities != (modality,):
        raise InputError(f"{folder}: reads {', '.join(info.modalities)}; expected a model of {modality} alone")
    if info.size != size:
        raise InputError(f"{folder}: was trained on maps of {info.size} px, these have {size}; prepare with --size {info.size}")
    for attribute, groups in classes.items():
        if list(info.classes[attribute]) != list(groups):
            theirs, ours = ", ".join(info.classes[attribute]), ", ".join(groups)
            raise InputError(f"{folder}: its classes of {attribute} are {theirs}; here they are {ours}; set data.classes so")
    return info


def load_branch(network: FaceNetwork, modality: str, folder: Path, freeze: bool) -> None:
    """Give the branch of `modality` in `network` the weights of the model in `folder`, a model of that modality alone.

    Its gain comes too, and where every modality keeps heads of its own (score), its heads. Where they are to be `frozen`,
    only the gain stays free, by which modalities are weighed against each other.

    Raises:
        InputError: the weights cannot be read.
    """
    source, _ = load_model(folder, torch.device("cpu"))
    index = network.modalities.index(modality)
    branch = cast(Branch, network.branches[modality])
    branch.load_state_dict(source.branches[modality].state_dict())
    if freeze:
        branch.freeze()
    with torch.no_grad():
        network.log_gains[modality].copy_(source.log_gains[modality])
    for task, head in network.heads.items():
        if isinstance(head, ProbabilityFusionHead):
            own = head.linears[index]
            own.load_state_dict(cast(ClassHead, source.heads[task]).linear.state_dict())
            own.requires_grad_(not freeze)
