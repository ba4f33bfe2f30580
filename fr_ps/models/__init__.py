"""Networks: backbones, feature separation, heads."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import get_args

from torch import nn

from fr_ps.config import Backbone, ModelConfig
from fr_ps.data.layout import CHANNELS
from fr_ps.models.convnext import ConvNeXt
from fr_ps.models.iresnet import LAYERS, IResNet
from fr_ps.models.network import FaceNetwork

BACKBONES: dict[str, Callable[[int], nn.Module]] = {
    **{name: partial(IResNet, layers) for name, layers in LAYERS.items()},
    **{name: partial(ConvNeXt, name) for name in get_args(Backbone) if name.startswith("convnextv2_")},
}
"""Name to a function from the number of input channels to a module with `out_channels`."""


def build_network(
    config: ModelConfig, modalities: Sequence[str], classes: Mapping[str, int], reversal: float = 1.0
) -> FaceNetwork:
    """The network of `config` with new random weights.

    Args:
        config: of the model.
        modalities: that it reads; one.
        classes: attribute to its number of classes.
        reversal: alpha of the gradient reversal in training.
    """
    (modality,) = modalities
    backbone = BACKBONES[config.backbone](CHANNELS[modality])
    return FaceNetwork(
        modality, backbone, channels=config.channels, classes=classes, reduction=config.reduction, reversal=reversal
    )
