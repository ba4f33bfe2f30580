"""Small networks of one modality or more, whose backbone is a single convolution; and model folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fr_ps.config import JOINT
from fr_ps.config.names import JointBranch
from fr_ps.data.layout import CHANNELS as INPUTS
from fr_ps.files import atomic_folder
from fr_ps.models.branch import Branch
from fr_ps.models.folder import ModelInfo, write_model
from fr_ps.models.network import FaceNetwork, NetworkOutput

ORDER = ("spectacles", "facial_hair", "emotion", "pose", "gender")
CLASSES = {"gender": 2, "spectacles": 2, "facial_hair": 2, "pose": 2, "emotion": 3}
CHANNELS = 32
COUNT = 6
"""Sessions of a batch."""
SETTINGS: dict[str, Any] = {
    "channels": CHANNELS,
    "classes": CLASSES,
    "order": ORDER,
    "fsm": True,
    "reduction": 8,
    "adversary_input": "rest",
    "attribute_channels": 0,
}


class TinyBackbone(nn.Module):
    """(B, inputs, 32, 32) -> (B, 16, 4, 4)."""

    out_channels = 16

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(inputs, 16, 8, stride=8), nn.BatchNorm2d(16), nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def make_branch(modality: str = "albedo", **settings: Any) -> Branch:
    """Twice the same weights for two calls."""
    torch.manual_seed(1)
    return Branch(modality, TinyBackbone(INPUTS[modality]), **(SETTINGS | settings))


def make_network(
    modalities: Sequence[str] = ("albedo",),
    fusion: str = "concat",
    reversal: float = 1.0,
    dtype: torch.dtype = torch.float32,
    flip_average: bool = False,
    joint: JointBranch = "off",
    linear_share: float = 0.0,
    attribute_share: float = 0.0,
    registration: bool = False,
    **settings: Any,
) -> FaceNetwork:
    """Twice the same weights for two calls."""
    torch.manual_seed(1)
    single = () if joint == "only" else modalities
    branches = {modality: Branch(modality, TinyBackbone(INPUTS[modality]), **(SETTINGS | settings)) for modality in single}
    if joint != "off":
        inputs = sum(INPUTS[modality] for modality in modalities)
        branches[JOINT] = Branch(JOINT, TinyBackbone(inputs), joint=modalities, **(SETTINGS | settings))
    if joint == "only":
        fusion = "concat"  # as in build_network: nothing is fused
    whole = {
        "channels": CHANNELS,
        "classes": CLASSES,
        "flip_average": flip_average,
        "linear_share": linear_share,
        "attribute_share": attribute_share,
        "registration": registration,
    }
    network = FaceNetwork(branches, fusion, **whole).to(dtype)  # type: ignore[arg-type]
    network.reversal_alpha = reversal
    return network


def save_model(folder: Path, network: FaceNetwork, info: ModelInfo) -> None:
    """Write a model folder, replacing an existing one."""
    with atomic_folder(folder) as temporary:
        write_model(temporary, network.state_dict(), info)


def by_name(outputs: NetworkOutput) -> dict[str, Tensor]:
    """All tensors of an output but the branches' own: `identity`, each attribute, `adversarial_ATTRIBUTE`, `shared_MODALITY`."""
    named = {"identity": outputs.embedding, **outputs.logits}
    named |= {f"adversarial_{task}": logits for task, logits in outputs.adversarial.items()}
    return named | {f"shared_{modality}": maps for modality, maps in outputs.shared.items()}


def to_output(named: dict[str, Tensor]) -> NetworkOutput:
    """The inverse of `by_name`; the branches' own embeddings are named `branch_NAME`."""
    parts = {
        prefix: {name.removeprefix(prefix): tensor for name, tensor in named.items() if name.startswith(prefix)}
        for prefix in ("adversarial_", "shared_", "branch_")
    }
    logits = {name: tensor for name, tensor in named.items() if name != "identity" and not name.startswith(tuple(parts))}
    return NetworkOutput(named["identity"], logits, *parts.values())


def make_maps(modalities: Sequence[str] = ("albedo",), dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        modality: torch.rand(COUNT, INPUTS[modality], 32, 32, generator=generator).to(dtype) + 0.05 for modality in modalities
    }
