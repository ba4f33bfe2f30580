"""ConvNeXt V2 from timm, as a feature map. Woo et al., "ConvNeXt V2", CVPR 2023."""

from typing import Any, cast

from torch import Tensor, nn


class ConvNeXt(nn.Module):
    """(B, inputs, H, W) -> (B, out_channels, H / 32, W / 32): 3 x 3 for 112 x 112 pixels."""

    def __init__(self, name: str, inputs: int) -> None:
        super().__init__()
        import timm

        trunk: Any = timm.create_model(name, pretrained=False, in_chans=inputs, num_classes=0, global_pool="")
        trunk.head = nn.Identity()  # its norm would be a parameter that nothing trains
        self.trunk = trunk
        self.out_channels: int = trunk.num_features

    def forward(self, x: Tensor) -> Tensor:
        return cast(Any, self.trunk).forward_features(x)
