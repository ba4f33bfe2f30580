"""Settings of the network: of the branch of one modality, and of the fusion of several."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from fr_ps.config.checks import check_range, check_setting, check_types
from fr_ps.config.names import BACKBONES, PEELING_ORDER, TIMM_PREFIX, Adversaries, Attribute, Fusion, Modality


@dataclass(frozen=True)
class ModelConfig:
    """The network; of several modalities, each one's branch.

    Args:
        backbone: what turns maps into the shared feature map: miresnet{18,34,50,101,152}, irse{50,101,152},
            convnextv2_{atto,femto,pico,nano,tiny,small,base,large,huge}, or timm:NAME for any network of timm that yields
            a feature map; fr-ps models shows their size.
        channels: of the shared feature map, and so of the identity embedding.
        weights: file of trained weights to start from, .safetensors or a .pth of tensors only, of the backbone or of a
            whole branch; published ArcFace and MagFace weights of iresnets fit too. What of it matched is printed. Empty:
            random weights.
        fsm: whether feature separation modules split the map among the tasks; without them every head reads the shared
            map, and there are no adversaries, as there is no rest to cleanse.
        order: in which the attributes are split off.
        reduction: by how much the feature separation modules narrow their bottleneck (16 in the original, where five
            of them hold 17 M parameters); 14 x channels -> channels x 14 / reduction -> channels.
        adversaries: what the discriminators behind the gradient reversal read: rest, that of their own attribute's split;
            identity, all of them the last rest, so that identity forgets all five; off, there are none.
        attribute_channels: of each attribute's embedding, by a learnt reduction; 0: as many as the map.
    """

    backbone: str = "convnextv2_atto"
    channels: int = 512
    weights: str = ""
    fsm: bool = True
    order: tuple[Attribute, ...] = PEELING_ORDER
    reduction: int = 16
    adversaries: Adversaries = "rest"
    attribute_channels: int = 0

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    """For `json_files`: a setting of a newer version may mean another network, and is not ignored."""

    def __post_init__(self) -> None:
        check_types(self, "model.")
        known = self.backbone in BACKBONES or (self.backbone.startswith(TIMM_PREFIX) and len(self.backbone) > len(TIMM_PREFIX))
        expected = f"one of {', '.join(BACKBONES)}, or {TIMM_PREFIX}NAME for a network of timm (as {TIMM_PREFIX}resnet18)"
        check_setting(known, "model.backbone", self.backbone, expected)
        check_range(self, "model.", 8, 8192, "channels")
        good = sorted(self.order) == sorted(PEELING_ORDER)
        check_setting(good, "model.order", list(self.order), f"each of {', '.join(PEELING_ORDER)} once")
        check_setting(1 <= self.reduction <= self.channels, "model.reduction", self.reduction, "1 to model.channels")
        narrow = self.attribute_channels
        check_setting(0 <= narrow <= self.channels, "model.attribute_channels", narrow, "0 to model.channels")


@dataclass(frozen=True)
class FusionConfig:
    """How the modalities become one answer, where data.modalities names two or three.

    Args:
        name: concat puts their embeddings side by side; fc brings that back to model.channels by FC, BN, PReLU; gated
            takes their mean by gated attention; score takes the mean of their scores (the baseline: nothing is shared).
        branches: modality to the trained run (or model) of that modality alone whose network its branch starts from, as
            {albedo: RUN, normal: RUN}; modalities that are not named start from model.*.
        frozen: whether branches from runs stay as they are; else they are trained further.
        dropout: probability that a training session lacks a modality, one always being left, so that the network learns
            to answer with fewer.
    """

    name: Fusion = "concat"
    branches: dict[Modality, str] = field(default_factory=dict)
    frozen: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_types(self, "fusion.")
        check_setting(0 <= self.dropout < 1, "fusion.dropout", self.dropout, "a probability, below 1")
        need = "false, as fusion.branches names no trained run"
        check_setting(not self.frozen or bool(self.branches), "fusion.frozen", self.frozen, need)
