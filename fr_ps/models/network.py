"""The network of one modality: backbone, feature separation in the peeling order, heads."""

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from fr_ps.models.fsm import FeatureSeparation
from fr_ps.models.grl import reverse_gradient
from fr_ps.models.heads import ClassHead, IdentityHead
from fr_ps.models.normalise import normalise

PEELING_ORDER = ("spectacles", "facial_hair", "emotion", "pose", "gender")


class FaceNetwork(nn.Module):
    """Maps of one modality to an identity embedding and the logits of every attribute.

    Each attribute's module splits the rest of the one before into what its head reads and a new rest. Each rest also
    goes, through gradient reversal, to an adversarial discriminator of the attribute that was taken out of it. The last
    rest is the identity's.

    Args:
        modality: the map that it reads.
        backbone: (B, C_in, H, W) -> (B, out_channels, h, w).
        channels: of the shared map that everything after the backbone works on.
        classes: attribute to its number of classes.
        reduction: of the feature separation modules.
        reversal: alpha of the gradient reversal.
    """

    def __init__(
        self, modality: str, backbone: nn.Module, *, channels: int, classes: Mapping[str, int], reduction: int, reversal: float
    ) -> None:
        super().__init__()
        self.modality = modality
        self.reversal = reversal
        self.backbone = backbone
        width = cast(int, backbone.out_channels)
        self.project = nn.Identity() if width == channels else nn.Conv2d(width, channels, 1)
        self.separate = nn.ModuleDict({task: FeatureSeparation(channels, reduction) for task in PEELING_ORDER})
        self.heads = nn.ModuleDict({task: ClassHead(channels, classes[task]) for task in PEELING_ORDER})
        self.adversaries = nn.ModuleDict({task: ClassHead(channels, classes[task]) for task in PEELING_ORDER})
        self.identity = IdentityHead(channels)

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Task to output: `identity` (B, channels), each attribute (B, classes); in training also `adversarial_...`."""
        rest = self.project(self.backbone(normalise(maps[self.modality], self.modality)))  # (B, channels, h, w)
        outputs = {}
        for task in PEELING_ORDER:
            mine, rest = self.separate[task](rest)
            outputs[task] = self.heads[task](mine)
            if self.training:
                outputs[f"adversarial_{task}"] = self.adversaries[task](reverse_gradient(rest, self.reversal))
        outputs["identity"] = self.identity(rest)
        return outputs
