"""The improved ResNets of face recognition: "miresnet", and with squeeze-and-excitation "irse".

Pre-activation BN, PReLU, and a stem of stride 1: the IR units of Deng et al., "ArcFace", CVPR 2019, also used by MagFace. The
units of miresnet50, 101 and 152 are bottlenecks as in He et al., CVPR 2016. Squeeze-and-excitation (Hu et al., CVPR 2018) is at
the end of a unit, as in ArcFace's SE-LResNet-IR. The numbers of units of irse are those of face.evoLVe's IR_SE_50, 101 and 152;
all three have two convolutions per unit.
"""

from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512)
_SQUEEZE = 16


class _Unit(nn.Module):
    """`body` plus the input, projected where its shape differs."""

    def __init__(self, body: nn.Sequential, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = body
        same = stride == 1 and inputs == outputs
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:  # (B, inputs, h, w) -> (B, outputs, h / stride, w / stride)
        return self.body(x) + self.shortcut(x)


class BasicBlock(_Unit):
    """BN, 3 x 3 conv, BN, PReLU, strided 3 x 3 conv, BN: `width` channels out."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        body = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.PReLU(width),
            nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        super().__init__(body, inputs, width, stride)


class SqueezeBlock(BasicBlock):
    """A BasicBlock with squeeze-and-excitation (reduction 16)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__(inputs, width, stride)
        from timm.layers import SEModule

        self.body.append(SEModule(width, rd_channels=width // _SQUEEZE))


class Bottleneck(_Unit):
    """BN, then 1 x 1, strided 3 x 3 and 1 x 1 conv, each with BN, PReLU after the first two: 4 `width` channels out."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        outputs = self.expansion * width
        body = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.PReLU(width),
            nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.PReLU(width),
            nn.Conv2d(width, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        super().__init__(body, inputs, outputs, stride)


Block = type[BasicBlock] | type[Bottleneck]
IRESNETS: dict[str, tuple[Block, tuple[int, ...]]] = {
    "miresnet18": (BasicBlock, (2, 2, 2, 2)),
    "miresnet34": (BasicBlock, (3, 4, 6, 3)),
    "miresnet50": (Bottleneck, (3, 4, 6, 3)),
    "miresnet101": (Bottleneck, (3, 4, 23, 3)),
    "miresnet152": (Bottleneck, (3, 8, 36, 3)),
    "irse50": (SqueezeBlock, (3, 4, 14, 3)),
    "irse101": (SqueezeBlock, (3, 13, 30, 3)),
    "irse152": (SqueezeBlock, (3, 8, 36, 3)),
}
"""Name to the type of unit and its number in each of the four stages."""


class IResNet(nn.Module):
    """(B, inputs, H, W) -> (B, out_channels, H / 16, W / 16): 7 x 7 for 112 x 112 pixels.

    Args:
        block: (channels in, width, stride) -> a unit with `block.expansion` x width channels out.
        units: in each of the four stages.
        inputs: channels of the map.
    """

    def __init__(self, block: Block, units: tuple[int, ...], inputs: int) -> None:
        super().__init__()
        self.out_channels = block.expansion * WIDTHS[-1]
        self.stem = nn.Sequential(
            nn.Conv2d(inputs, WIDTHS[0], 3, padding=1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.PReLU(WIDTHS[0])
        )
        blocks: list[nn.Module] = []
        channels = WIDTHS[0]
        for count, width in zip(units, WIDTHS):
            for index in range(count):
                blocks.append(block(channels, width, stride=2 if index == 0 else 1))
                channels = block.expansion * width
        self.blocks = nn.Sequential(*blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.stem(x))
