"""Networks: backbones, feature separation, heads."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import nn

from fr_ps.config import BACKBONES as BACKBONE_NAMES
from fr_ps.config import JOINT, Fusion, ModelConfig
from fr_ps.config.names import TIMM_PREFIX
from fr_ps.data.layout import CHANNELS
from fr_ps.models.branch import Branch, feature_map_size
from fr_ps.models.iresnet import IRESNETS, IResNet
from fr_ps.models.layers import FlattenedEmbedding
from fr_ps.models.network import FaceNetwork
from fr_ps.models.timm_backbones import ConvNeXt, ResNet10, TimmBackbone

BACKBONES: dict[str, Callable[[int], nn.Module]] = {
    **{name: partial(IResNet, block, units) for name, (block, units) in IRESNETS.items()},
    **{name: partial(ConvNeXt, name) for name in BACKBONE_NAMES if name.startswith("convnextv2_")},
    **{name: partial(ResNet10, int(name.removeprefix("resnet10_"))) for name in BACKBONE_NAMES if name.startswith("resnet10_")},
}
"""Backbone name to a function from the number of input channels to a module with `out_channels`."""


def build_backbone(name: str, inputs: int) -> nn.Module:
    """The backbone `name` for maps of `inputs` channels, with new random weights; a module with `out_channels`.

    Raises:
        InputError: timm has no feature map for `timm:NAME`.
    """
    return TimmBackbone(name.removeprefix(TIMM_PREFIX), inputs) if name.startswith(TIMM_PREFIX) else BACKBONES[name](inputs)


def build_network(
    branch_configs: Mapping[str, ModelConfig],
    fusion: Fusion,
    classes: Mapping[str, int],
    size: int = 112,
    joint: Sequence[str] = (),
) -> FaceNetwork:
    """A network with new random weights.

    Args:
        branch_configs: modality, or `joint`, to the settings of its branch; those of the first one also set the width of the
            fused embedding, whether outputs are averaged over mirror images, and the linear embedding and classifiers.
        fusion: of several branches; a single branch ignores it.
        classes: attribute to its number of classes.
        size: side of the maps in pixels, which a flattened embedding depends on.
        joint: the modalities that the branch `joint` reads.

    Raises:
        InputError: timm has no feature map for `timm:NAME`, or the backbone of a flattened embedding yields none
            for maps of this size.
    """
    branches = {name: build_branch(config, name, classes, size, joint) for name, config in branch_configs.items()}
    first = next(iter(branch_configs.values()))
    return FaceNetwork(
        branches,
        fusion if len(branches) > 1 else "concat",
        channels=first.channels,
        classes=classes,
        flip_average=first.flip_average,
        linear_share=first.linear,
        attribute_share=first.linear_attributes,
        registration=first.registration,
    )


def build_branch(
    config: ModelConfig, name: str, classes: Mapping[str, int], size: int = 112, joint: Sequence[str] = ()
) -> Branch:
    """The branch of `config` for the maps of the modality `name`, or for all of `joint`, with new random weights.

    Arguments are those of `build_network`.

    Raises:
        InputError: timm has no feature map for `timm:NAME`, or the backbone of a flattened embedding yields none
            for maps of this size.
    """
    modalities = joint if name == JOINT else (name,)
    inputs = sum(CHANNELS[modality] for modality in modalities)
    backbone = build_backbone(config.backbone, inputs)
    flattened = None
    if config.embedding == "flatten":
        map_shape = feature_map_size(backbone, inputs, config.input_size or size)
        flattened = FlattenedEmbedding(config.channels, map_shape, config.identity_channels or config.channels, config.dropout)
    return Branch(
        name,
        backbone,
        channels=config.channels,
        classes=classes,
        order=config.order,
        fsm=config.fsm,
        reduction=config.reduction,
        adversary_input=config.adversaries,
        attribute_channels=config.attribute_channels,
        identity_embedding=flattened,
        albedo=config.albedo,
        input_size=config.input_size,
        joint=modalities if name == JOINT else (),
    )
