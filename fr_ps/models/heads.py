"""What stands on the separated feature maps."""

import torch
from torch import Tensor, nn


class Embedding(nn.Module):
    """(B, C, h, w) -> (B, C): BN, then the mean over the picture."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x).mean(dim=(2, 3))


class ClassHead(nn.Module):
    """(B, C, h, w) -> (B, classes) logits; serves every attribute and every adversarial discriminator.

    Args:
        channels: C.
        classes: to tell apart.
        narrow: channels that a learnt reduction (FC, BN, PReLU) leaves of the embedding; 0: it stays as it is.
    """

    def __init__(self, channels: int, classes: int, narrow: int = 0) -> None:
        super().__init__()
        self.embedding = Embedding(channels)
        self.reduce = (
            nn.Sequential(nn.Linear(channels, narrow, bias=False), nn.BatchNorm1d(narrow), nn.PReLU(narrow))
            if narrow
            else nn.Identity()
        )
        self.linear = nn.Linear(narrow or channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.reduce(self.embedding(x)))


class IdentityHead(nn.Module):
    """(B, C, h, w) -> (B, C) embedding whose direction says who, and whose norm (MagFace) how well that can be seen.

    After BN and averaging the norms start at 5 to 8, below MagFace's l_a = 10, where they are clamped and get no gradient:
    a learnt gain brings them to some 20 to 30 from the start.
    """

    START = 4.0

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.embedding = Embedding(channels)
        self.log_gain = nn.Parameter(torch.tensor(self.START).log())

    def forward(self, x: Tensor) -> Tensor:
        return self.embedding(x) * self.log_gain.exp()
