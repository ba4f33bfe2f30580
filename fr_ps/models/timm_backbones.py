"""Backbones from timm: ConvNeXt V2, small ResNets, and any network with a feature map, named `timm:NAME`."""

from difflib import get_close_matches
from typing import Any, cast

from torch import Tensor, nn

from fr_ps.config.names import TIMM_PREFIX
from fr_ps.errors import InputError, one_line


class ConvNeXt(nn.Module):
    """ConvNeXt V2: (B, inputs, H, W) -> (B, out_channels, H / 32, W / 32), 3 x 3 for 112 x 112 pixels.

    Woo et al., "ConvNeXt V2", CVPR 2023.
    """

    def __init__(self, name: str, inputs: int) -> None:
        super().__init__()
        import timm

        trunk: Any = timm.create_model(name, pretrained=False, in_chans=inputs, num_classes=0, global_pool="")
        trunk.head = nn.Identity()  # its norm would be an untrained parameter
        self.trunk = trunk
        self.out_channels: int = trunk.num_features

    def forward(self, x: Tensor) -> Tensor:
        return cast(Any, self.trunk).forward_features(x)


class ResNet10(nn.Module):
    """A small ResNet for small data sets: (B, inputs, H, W) -> (B, 8 x width, H / 16, W / 16), 4 x 4 for 56 x 56 pixels.

    He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, with one basic block in each of four stages of 1, 2, 4
    and 8 times `width` channels, after one 3 x 3 convolution of stride 2 without pooling.
    """

    def __init__(self, width: int, inputs: int) -> None:
        super().__init__()
        from timm.models import resnet

        residual_network: Any = resnet.ResNet
        widths = (width, 2 * width, 4 * width, 8 * width)
        # A plain stem of timm always has 64 channels, a "deep" one twice `stem_width`; its convolutions are replaced below.
        trunk = residual_network(
            resnet.BasicBlock,
            (1, 1, 1, 1),
            channels=widths,
            in_chans=inputs,
            stem_type="deep",
            stem_width=width // 2,
            num_classes=0,
        )
        stem = nn.Conv2d(inputs, width, 3, stride=2, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        trunk.conv1, trunk.maxpool = stem, nn.Identity()
        self.trunk = trunk
        self.out_channels = widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        return cast(Any, self.trunk).forward_features(x)


class TimmBackbone(nn.Module):
    """(B, inputs, H, W) -> (B, out_channels, h, w): the last feature map of timm's `name`.

    Raises:
        InputError: timm has no such network, or no feature map of it.
    """

    def __init__(self, name: str, inputs: int) -> None:
        super().__init__()
        import timm

        if not timm.is_model(name):
            near = ", ".join(get_close_matches(name, timm.list_models(), 5)) or "see timm.list_models()"
            raise InputError(f"model.backbone is {TIMM_PREFIX + name!r}; expected a network of timm: {near}")
        self.trunk = _create(name, inputs)
        self.out_channels: int = self.trunk.feature_info.channels()[-1]
        self._channels_last = str(getattr(self.trunk, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(self, x: Tensor) -> Tensor:
        (y,) = self.trunk(x)
        return y.permute(0, 3, 1, 2) if self._channels_last else y


def _create(name: str, inputs: int) -> Any:
    import timm

    settings: dict[str, Any] = {"pretrained": False, "in_chans": inputs, "features_only": True, "out_indices": (-1,)}
    try:
        try:
            return timm.create_model(name, dynamic_img_size=True, **settings)  # transformers, which else accept one size
        except TypeError:
            return timm.create_model(name, **settings)
    except (RuntimeError, AttributeError, TypeError, ValueError, AssertionError) as error:
        expected = f"expected a network that yields a feature map ({one_line(error, 200)})"
        raise InputError(f"model.backbone is {TIMM_PREFIX + name!r}; {expected}") from None
