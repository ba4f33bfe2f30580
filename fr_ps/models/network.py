"""The network of one modality: backbone, feature separation in the peeling order, heads."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from fr_ps.config import Adversaries
from fr_ps.data.layout import CHANNELS
from fr_ps.errors import InputError
from fr_ps.models.fsm import FeatureSeparation
from fr_ps.models.grl import reverse_gradient
from fr_ps.models.heads import ClassHead, IdentityHead
from fr_ps.models.normalise import normalise

ADVERSARIAL = "adversarial_"
"""Before an attribute's name: the output of its discriminator."""
SHARED = "shared_"
"""Before a modality's name: the map of it from which all heads read."""


class FaceNetwork(nn.Module):
    """Maps of one modality to an identity embedding and the logits of every attribute.

    Each attribute's module splits the rest of the one before into what its head reads and a new rest; the last rest is
    the identity's. Behind a gradient reversal, an adversarial discriminator of each attribute looks for it in the rest of
    its split, or in the last rest. Without separation all heads read the shared map, and there are no discriminators:
    a map that is to carry an attribute for one head cannot be asked to forget it for another.

    Args:
        modality: the map that it reads.
        backbone: (B, C_in, H, W) -> (B, out_channels, h, w).
        channels: of the shared map that everything after the backbone works on.
        classes: attribute to its number of classes.
        order: of the attributes, in which they are split off.
        fsm: whether they are.
        reduction: of the feature separation modules.
        adversaries: what the discriminators read.
        reversal: alpha of the gradient reversal; may be set anew before any step.
        attribute_channels: of each attribute's embedding; 0: as the map.
    """

    def __init__(
        self,
        modality: str,
        backbone: nn.Module,
        *,
        channels: int,
        classes: Mapping[str, int],
        order: Sequence[str],
        fsm: bool,
        reduction: int,
        adversaries: Adversaries,
        reversal: float,
        attribute_channels: int,
    ) -> None:
        super().__init__()
        self.modality = modality
        self.order = tuple(order)
        self.adversary_reads = adversaries
        self.reversal = reversal
        self.backbone = backbone
        width = cast(int, backbone.out_channels)
        self.project = nn.Identity() if width == channels else nn.Conv2d(width, channels, 1)
        self.separate = nn.ModuleDict({task: FeatureSeparation(channels, reduction) for task in order if fsm})
        self.heads = nn.ModuleDict({task: ClassHead(channels, classes[task], attribute_channels) for task in order})
        judged = order if fsm and adversaries != "off" else ()
        self.adversaries = nn.ModuleDict({task: ClassHead(channels, classes[task]) for task in judged})
        self.identity = IdentityHead(channels)

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Task to output: `identity` (B, channels), each attribute (B, classes).

        In training also `adversarial_...` of each attribute that has a discriminator, and the shared map, `shared_...`.

        Raises:
            InputError: a training batch of one.
        """
        shared = self.shared_map(maps)  # (B, channels, h, w)
        if self.training and len(shared) == 1:
            raise InputError("a training batch of one has no variance for its norms; raise batch.people or batch.sessions")
        parts, rests = self.split(shared)
        last = rests[self.order[-1]]
        outputs = {}
        for task in self.order:
            outputs[task] = self.heads[task](parts[task])
            if self.training and task in self.adversaries:
                read = last if self.adversary_reads == "identity" else rests[task]
                outputs[ADVERSARIAL + task] = self.adversaries[task](reverse_gradient(read, self.reversal))
        outputs["identity"] = self.identity(last)
        if self.training:
            outputs[SHARED + self.modality] = shared
        return outputs

    def shared_map(self, maps: Mapping[str, Tensor]) -> Tensor:
        """(B, channels, h, w), from which every head reads."""
        return self.project(self.backbone(normalise(maps[self.modality], self.modality)))

    def split(self, shared: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Attribute to what its head reads, and attribute to what is left after it; each of the shape of `shared`."""
        parts, rests, rest = {}, {}, shared
        for task in self.order:
            parts[task], rest = self.separate[task](rest) if task in self.separate else (rest, rest)
            rests[task] = rest
        return parts, rests


def require_size(network: FaceNetwork, size: int) -> None:
    """Refuse maps of `size` x `size` pixels that the backbone of `network` cannot take, before a training begins.

    Raises:
        InputError: they leave no feature map.
    """
    parameter = next(network.parameters())
    was_training = network.training
    try:
        with torch.no_grad():
            maps = torch.zeros(1, CHANNELS[network.modality], size, size, device=parameter.device)
            shape = network.eval().backbone(maps).shape
        if 0 in shape:
            raise ValueError(f"its feature map would be {shape[2]} x {shape[3]}")
    except (RuntimeError, AssertionError, ValueError) as error:
        text = " ".join(str(error).split())[:200].rstrip(".")
        raise InputError(f"model.backbone takes no maps of {size} px ({text}); prepare larger ones, or take another") from None
    finally:
        network.train(was_training)
