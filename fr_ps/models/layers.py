"""What stands on the separated feature maps of one modality."""

from torch import Tensor, nn


class Embedding(nn.Module):
    """(B, C, h, w) -> (B, width): BN, then the mean over the picture.

    Args:
        channels: C.
        narrow: channels that a learnt reduction (FC, BN, PReLU) leaves of them; 0: they stay as they are.
    """

    def __init__(self, channels: int, reduced: int = 0) -> None:
        super().__init__()
        self.width = reduced or channels
        self.norm = nn.BatchNorm2d(channels)
        self.reduce = reduction_layer(channels, reduced) if reduced else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.reduce(self.norm(x).mean(dim=(2, 3)))


class Discriminator(nn.Module):
    """(B, C, h, w) -> (B, classes) logits of an attribute, which are to be useless."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.embedding = Embedding(channels)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.embedding(x))


def reduction_layer(channels: int, reduced: int) -> nn.Sequential:
    """(B, channels) -> (B, narrow): FC, BN, PReLU."""
    return nn.Sequential(nn.Linear(channels, reduced, bias=False), nn.BatchNorm1d(reduced), nn.PReLU(reduced))
