"""Settings of the network: the branch of a modality, and the fusion of several branches."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from fr_ps.config.checks import check_range, check_setting, check_types
from fr_ps.config.names import (
    BACKBONES,
    PEELING_ORDER,
    TIMM_PREFIX,
    Adversaries,
    AlbedoNormalization,
    Attribute,
    BranchName,
    Fusion,
    IdentityEmbedding,
    JointBranch,
)


@dataclass(frozen=True)
class ModelConfig:
    """The network; with several modalities, the branch of each.

    Args:
        backbone: miresnet{18,34,50,101,152}, irse{50,101,152}, convnextv2_{atto,femto,pico,nano,tiny,small,base,large,huge},
            resnet10_{16,32,64} (small data sets, CPUs), or timm:NAME for any timm network with a feature map; fr-ps models
            lists their sizes.
        channels: channels of the shared feature map, and dimension of the identity embedding.
        weights: file of pretrained weights of the backbone or of a whole branch: .safetensors, or a .pth of tensors only;
            published ArcFace and MagFace weights of iresnets are supported. The matched layers are printed. Empty: random.
        fsm: feature separation modules split the feature map among the tasks; without them, all heads read the shared
            feature map, and there are no adversaries.
        order: order in which the attributes are split off.
        reduction: bottleneck factor of the feature separation modules: 14 x channels -> channels x 14 / reduction ->
            channels. 16 in the original, whose five modules have 17 M parameters.
        adversaries: input of each attribute's discriminator, behind a gradient reversal: rest: the features that remain after
            its attribute is split off; identity: those that remain after the last attribute is split off; off: no discriminators.
        attribute_channels: dimension to which a learned FC layer, with BN and PReLU, reduces each attribute's embedding;
            0: no such layer, the dimension is model.channels.
        embedding: identity embedding of a branch: mean: BN, then the mean over the identity features; flatten: ArcFace's head:
            BN, dropout, a linear layer on all positions of the identity features, BN. The model then reads maps of the training
            maps' size only.
        identity_channels: dimension of the identity embedding of embedding=flatten; 0: model.channels.
        dropout: probability that embedding=flatten drops a feature in training.
        albedo: normalisation of the albedo inside the network: mean: divided by its mean, less 1; log: from
            y = log(albedo + a tenth of the mean albedo) its median is subtracted; the difference is divided by its mean absolute
            value and clamped to -4 to 4.
        input_size: side to which the maps are resampled inside the network, in pixels, at most that of the maps; 0: as they are.
        flip_average: whether embeddings and logits of attributes are averaged over the maps and their mirror images, outside
            training. It doubles the cost of a prediction.
        linear: share of a linear embedding of the maps in the cosine similarity, from 0 to below 1; the rest is that of the
            network's embedding. It is fitted to the training part in closed form, before the first epoch, and is not trained.
        linear_attributes: share of linear classifiers on the linear embedding in the logits of attributes, from 0 to below 1; the
            rest is that of the network. They are fitted with it.
        registration: whether the identity part of the linear embedding reads the maps after an alignment (rotation, scale,
            shift) to the mean face of the training sessions. The alignment is computed from albedo and normals, or from the one
            in data.modalities, and corrected for the bias that shadows cause.
    """

    backbone: str = "convnextv2_atto"
    channels: int = 512
    weights: str = ""
    fsm: bool = True
    order: tuple[Attribute, ...] = PEELING_ORDER
    reduction: int = 16
    adversaries: Adversaries = "rest"
    attribute_channels: int = 0
    embedding: IdentityEmbedding = "mean"
    identity_channels: int = 0
    dropout: float = 0.2
    albedo: AlbedoNormalization = "mean"
    input_size: int = 0
    flip_average: bool = False
    linear: float = 0.0
    linear_attributes: float = 0.0
    registration: bool = False

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    """For pydantic in `json_files`: an unknown setting, from a newer version, may change the network, so it is an error."""

    def __post_init__(self) -> None:
        check_types(self, "model.")
        known = self.backbone in BACKBONES or (self.backbone.startswith(TIMM_PREFIX) and len(self.backbone) > len(TIMM_PREFIX))
        expected = f"one of {', '.join(BACKBONES)}, or {TIMM_PREFIX}NAME for a network of timm (as {TIMM_PREFIX}resnet18)"
        check_setting(known, "model.backbone", self.backbone, expected)
        check_range(self, "model.", 8, 8192, "channels")
        valid = sorted(self.order) == sorted(PEELING_ORDER)
        check_setting(valid, "model.order", list(self.order), f"each of {', '.join(PEELING_ORDER)} once")
        check_setting(1 <= self.reduction <= self.channels, "model.reduction", self.reduction, "1 to model.channels")
        dimension = self.attribute_channels
        check_setting(0 <= dimension <= self.channels, "model.attribute_channels", dimension, "0 to model.channels")
        width = self.identity_channels
        check_setting(width == 0 or 8 <= width <= 8192, "model.identity_channels", width, "0, or 8 to 8192")
        size = self.input_size
        check_setting(size == 0 or 8 <= size <= 4096, "model.input_size", size, "0, or 8 to 4096")
        check_setting(0 <= self.dropout < 1, "model.dropout", self.dropout, "a probability below 1")
        for name in ("linear", "linear_attributes"):
            check_setting(0 <= getattr(self, name) < 1, f"model.{name}", getattr(self, name), "0 or more and below 1")


@dataclass(frozen=True)
class FusionConfig:
    """Fusion of the modalities, if data.modalities names two or three.

    Args:
        name: concat: concatenates the embeddings; fc: concat, then FC, BN and PReLU down to model.channels; gated: gated
            attention over the embeddings; score: late fusion, the mean over the branches of the cosine similarities and of
            the class probabilities; no layer combines the branches.
        joint: early fusion, a branch that reads all maps, stacked as channels: off: none; only: no other branches, so that
            fusion.name has no effect; also: beside the branches of the single maps. A missing map is 0 after normalisation.
        branches: modality to a run or model folder with a model of only this modality, which initialises the branch, as
            {albedo: RUN, normal: RUN}; joint: a run with fusion.joint=only of the same maps. Other branches are new, with the
            settings model.*.
        frozen: freeze the branches that are initialised from runs.
        dropout: probability that a modality is dropped from a training session; one modality always remains.
    """

    name: Fusion = "concat"
    joint: JointBranch = "off"
    branches: dict[BranchName, str] = field(default_factory=dict)
    frozen: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_types(self, "fusion.")
        check_setting(0 <= self.dropout < 1, "fusion.dropout", self.dropout, "a probability below 1")
        possible = not self.frozen or bool(self.branches)
        check_setting(possible, "fusion.frozen", self.frozen, "false, as fusion.branches is empty")
