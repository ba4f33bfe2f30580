"""Settings of the network."""

from dataclasses import dataclass

from fr_ps.config.checks import require, require_types
from fr_ps.config.names import BACKBONES, PEELING_ORDER, TIMM, Adversaries, Attribute


@dataclass(frozen=True)
class ModelConfig:
    """The network.

    Args:
        backbone: what turns maps into the shared feature map: miresnet{18,34,50,101,152}, irse{50,101,152},
            convnextv2_{atto,femto,pico,nano,tiny,small,base,large,huge}, or timm:NAME for any network of timm that yields
            a feature map; fr-ps models shows their size.
        channels: of the shared feature map, and so of the identity embedding.
        weights: file of trained weights to start from, .safetensors or a .pth of tensors only, of the backbone or of the
            whole network; what of it matched is printed. Empty: random weights.
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

    def __post_init__(self) -> None:
        require_types(self, "model.")
        known = self.backbone in BACKBONES or (self.backbone.startswith(TIMM) and len(self.backbone) > len(TIMM))
        expected = f"one of {', '.join(BACKBONES)}, or {TIMM}NAME for a network of timm (as {TIMM}resnet18)"
        require(known, "model.backbone", self.backbone, expected)
        require(self.channels >= 8, "model.channels", self.channels, "8 or more")
        good = sorted(self.order) == sorted(PEELING_ORDER)
        require(good, "model.order", list(self.order), f"each of {', '.join(PEELING_ORDER)} once")
        require(1 <= self.reduction <= self.channels, "model.reduction", self.reduction, "1 to model.channels")
        narrow = self.attribute_channels
        require(0 <= narrow <= self.channels, "model.attribute_channels", narrow, "0 to model.channels")
