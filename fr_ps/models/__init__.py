"""Networks: backbones, feature separation, heads."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import nn

from fr_ps.config import BACKBONES as NAMES
from fr_ps.config import TIMM, ModelConfig
from fr_ps.data.layout import CHANNELS
from fr_ps.models.convnext import ConvNeXt
from fr_ps.models.iresnet import IRESNETS, IResNet
from fr_ps.models.network import FaceNetwork
from fr_ps.models.timm_map import TimmMap

BACKBONES: dict[str, Callable[[int], nn.Module]] = {
    **{name: partial(IResNet, block, units) for name, (block, units) in IRESNETS.items()},
    **{name: partial(ConvNeXt, name) for name in NAMES if name.startswith("convnextv2_")},
}
"""Name to a function from the number of input channels to a module with `out_channels`."""


def build_backbone(name: str, inputs: int) -> nn.Module:
    """The backbone `name` for maps of `inputs` channels, with new random weights; a module with `out_channels`.

    Raises:
        InputError: `timm:NAME`, and timm has no such feature map.
    """
    return TimmMap(name.removeprefix(TIMM), inputs) if name.startswith(TIMM) else BACKBONES[name](inputs)


def build_network(
    config: ModelConfig, modalities: Sequence[str], classes: Mapping[str, int], reversal: float = 1.0
) -> FaceNetwork:
    """The network of `config` with new random weights.

    Args:
        config: of the model.
        modalities: that it reads; one.
        classes: attribute to its number of classes.
        reversal: alpha of the gradient reversal in training.

    Raises:
        InputError: `timm:NAME`, and timm has no such feature map.
    """
    (modality,) = modalities
    return FaceNetwork(
        modality,
        build_backbone(config.backbone, CHANNELS[modality]),
        channels=config.channels,
        classes=classes,
        order=config.order,
        fsm=config.fsm,
        reduction=config.reduction,
        adversaries=config.adversaries,
        reversal=reversal,
        attribute_channels=config.attribute_channels,
    )
