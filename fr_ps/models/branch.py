"""A branch, for one modality or several: a backbone, feature separation (attribute by attribute), and an embedding per task."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from fr_ps.config import Adversaries, AlbedoNormalization
from fr_ps.data.layout import CHANNELS
from fr_ps.errors import InputError, one_line
from fr_ps.models.layers import Discriminator, FeatureSeparation, MeanEmbedding, normalise_maps, resample_maps, reverse_gradient

IDENTITY = "identity"


class Features(NamedTuple):
    """The features of a batch, from one branch.

    Attributes:
        shared: (B, channels, h, w), the input of all that follows.
        embeddings: task to (B, width of the task).
        adversarial: attribute to the (B, classes) logits of its discriminator; empty in evaluation.
    """

    shared: Tensor
    embeddings: dict[str, Tensor]
    adversarial: dict[str, Tensor]


class Branch(nn.Module):
    """Computes an embedding for identity and for every attribute from the maps of one modality, or of several as channels.

    The attributes' separation modules form a chain. Each splits the feature map that it gets into two. One goes to its
    attribute's embedding; the other, the rest, goes to the next module. The last rest goes to the identity embedding. Behind a
    gradient reversal, an adversarial discriminator of each attribute reads the rest of its own module or the last rest
    (`adversary_input`). Without separation all embeddings share one input, and there are no discriminators: one feature map
    cannot both carry an attribute for one task and lack it for another.

    Args:
        modality: of the maps; `joint` for several.
        backbone: (B, C_in, H, W) -> (B, out_channels, h, w).
        channels: of the shared feature map.
        classes: attribute to its number of classes.
        order: of the attributes in the separation.
        fsm: whether there is feature separation.
        reduction: ratio of the pooled values to the bottleneck in each separation module (`FeatureSeparation`).
        adversary_input: feature map that the discriminator of an attribute reads. rest: what the separation of this attribute
            leaves; identity: what the last separation leaves; off: there are no discriminators.
        attribute_channels: width of each attribute's embedding, from a linear layer; 0: no such layer, the width is `channels`,
            that of the shared feature map.
        identity_embedding: (B, channels, h, w) -> (B, width), a module with the attribute `width`; None: the mean.
        albedo: normalisation of the albedo: mean or log.
        input_size: side to which the maps are resampled; 0: as they are.
        joint: modalities that `stack` concatenates as input channels, in this order; empty for a branch of one modality.
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
        adversary_input: Adversaries,
        attribute_channels: int,
        identity_embedding: nn.Module | None = None,
        albedo: AlbedoNormalization = "mean",
        input_size: int = 0,
        joint: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.modality = modality
        self.order = tuple(order)
        self.adversary_input = adversary_input
        self.albedo_normalization = albedo
        self.input_size = input_size
        self.joint_modalities = tuple(joint)
        self.in_channels = sum(CHANNELS[name] for name in self.joint_modalities or (modality,))
        self.frozen = False
        self.backbone = backbone
        width = cast(int, backbone.out_channels)
        self.project = nn.Identity() if width == channels else nn.Conv2d(width, channels, 1)
        self.separate = nn.ModuleDict({task: FeatureSeparation(channels, reduction) for task in order if fsm})
        self.embeddings = nn.ModuleDict({task: MeanEmbedding(channels, attribute_channels) for task in order})
        self.embeddings[IDENTITY] = identity_embedding or MeanEmbedding(channels)
        adversarial = order if fsm and adversary_input != "off" else ()
        self.adversaries = nn.ModuleDict({task: Discriminator(channels, classes[task]) for task in adversarial})

    @property
    def embedding_widths(self) -> dict[str, int]:
        """Task to the channels of its embedding."""
        return {task: cast(MeanEmbedding, embedding).width for task, embedding in self.embeddings.items()}

    @property
    def adversarial_attributes(self) -> tuple[str, ...]:
        """The attributes with a discriminator that is trained."""
        return () if self.frozen else tuple(self.adversaries)

    def freeze(self) -> None:
        """Stop training: neither the parameters nor the running statistics of batch norm change."""
        self.frozen = True
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Branch":
        return super().train(mode and not self.frozen)

    def forward(self, maps: Tensor, reversal: float) -> Features:
        """The features of (B, C_in, H, W) maps. `reversal` is alpha of the gradient reversal.

        If the branch reads several modalities, `maps` is the output of `stack`.

        Raises:
            InputError: one session in training mode, for which batch norm is undefined.
        """
        shared = self.shared_map(maps)
        if self.training and len(shared) == 1:
            raise InputError(
                "batch norm needs two sessions or more in each process's part of a training batch; raise batch.people or "
                "batch.sessions, or start fewer processes"
            )
        parts, rests = self.separate_features(shared)
        last_rest = rests[self.order[-1]]
        parts[IDENTITY] = last_rest
        embeddings = {task: embedding(parts[task]) for task, embedding in self.embeddings.items()}
        adversarial = {}
        if self.training:
            for task, discriminator in self.adversaries.items():
                features = last_rest if self.adversary_input == "identity" else rests[task]
                adversarial[task] = discriminator(reverse_gradient(features, reversal))
        return Features(shared, embeddings, adversarial)

    def shared_map(self, maps: Tensor) -> Tensor:
        """(B, channels, h, w), the feature map from which all embeddings are made."""
        normalised = maps if self.joint_modalities else self._normalise(maps, self.modality)  # `stack` has normalised its output
        return self.project(self.backbone(normalised))

    def stack(self, maps: Mapping[str, Tensor], present: Tensor | None = None) -> Tensor:
        """(B, C_in, H, W), the input of a branch of several modalities: their normalised maps, 0 where one is missing.

        Args:
            maps: modality to (B, C, H, W); modalities may be absent.
            present: (B, modalities) which maps of a session are used; None: all in `maps`.
        """
        parts = {modality: self._normalise(maps[modality], modality) for modality in self.joint_modalities if modality in maps}
        template = next(iter(parts.values()))
        for index, modality in enumerate(self.joint_modalities):
            if modality not in parts:
                parts[modality] = template.new_zeros(len(template), CHANNELS[modality], *template.shape[2:])
            elif present is not None:
                parts[modality] = parts[modality].where(present[:, index, None, None, None], 0)
        return torch.cat([parts[modality] for modality in self.joint_modalities], dim=1)

    def _normalise(self, maps: Tensor, modality: str) -> Tensor:
        """The maps of one modality as the backbone reads them."""
        if self.input_size:
            maps = resample_maps(maps, modality, self.input_size)
        return normalise_maps(maps, modality, self.albedo_normalization)

    def separate_features(self, shared: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Attribute to the input of its embedding, and attribute to the rest after it; each has the shape of `shared`."""
        parts, rests, rest = {}, {}, shared
        for task in self.order:
            parts[task] = rest
            if task in self.separate:
                parts[task], rest = self.separate[task](rest)
            rests[task] = rest
        return parts, rests


def check_input_size(branch: Branch, size: int) -> None:
    """Reject maps of `size` x `size` pixels that are too small for `branch`.

    Raises:
        InputError: the backbone yields no feature map, or the maps are smaller than `branch.input_size`.
    """
    if branch.input_size > size:
        raise InputError(f"model.input_size is {branch.input_size}; expected at most {size}, the side of the maps in pixels")
    feature_map_size(branch.backbone, branch.in_channels, branch.input_size or size)


def feature_map_size(backbone: nn.Module, inputs: int, size: int) -> tuple[int, int]:
    """(h, w) of the feature map of `backbone` for maps of `inputs` x `size` x `size`; the backbone does not change.

    Raises:
        InputError: the backbone yields no feature map.
    """
    device = next(backbone.parameters()).device
    modes = {module: module.training for module in backbone.modules()}
    try:
        with torch.no_grad():
            shape = backbone.eval()(torch.zeros(1, inputs, size, size, device=device)).shape
        if 0 in shape:
            raise ValueError(f"its feature map would be {shape[2]} x {shape[3]}")
        return shape[2], shape[3]
    except (RuntimeError, AssertionError, ValueError) as error:
        text = one_line(error, 200).rstrip(".")
        raise InputError(
            f"model.backbone has no feature map for {size} px ({text}); choose another model.backbone, a larger "
            "model.input_size if it is set, or larger maps"
        ) from None
    finally:
        for module, mode in modes.items():
            module.training = mode
