"""The improved ResNets of face recognition ("miresnet"): pre-activation BN, PReLU, and a stem that keeps the size.

Duta et al., "Improved Residual Networks for Image and Video Recognition", ICPR 2020, in the form of ArcFace and MagFace.
"""

from torch import Tensor, nn

LAYERS = {"miresnet18": (2, 2, 2, 2), "miresnet34": (3, 4, 6, 3)}
WIDTHS = (64, 128, 256, 512)


class BasicBlock(nn.Module):
    """BN, 3 x 3 conv, BN, PReLU, strided 3 x 3 conv, BN, plus the input, projected where its shape differs."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:  # (B, inputs, h, w) -> (B, outputs, h / stride, w / stride)
        return self.body(x) + self.shortcut(x)


class IResNet(nn.Module):
    """(B, inputs, H, W) -> (B, 512, H / 16, W / 16): 7 x 7 for 112 x 112 pixels."""

    out_channels = WIDTHS[-1]

    def __init__(self, layers: tuple[int, ...], inputs: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(inputs, WIDTHS[0], 3, padding=1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.PReLU(WIDTHS[0])
        )
        blocks: list[nn.Module] = []
        width = WIDTHS[0]
        for count, outputs in zip(layers, WIDTHS):
            for index in range(count):
                blocks.append(BasicBlock(width, outputs, stride=2 if index == 0 else 1))
                width = outputs
        self.blocks = nn.Sequential(*blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.stem(x))
