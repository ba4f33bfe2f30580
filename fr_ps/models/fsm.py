"""The feature separation module: splits a feature map into what one task reads and the rest.

It is the attention-based feature decomposition of MTLFace: Huang, Zhang, Shan, "When Age-Invariant Face Recognition Meets
Face Age Synthesis: A Multi-Task Learning Framework", CVPR 2021, arXiv:2103.01520. There it splits age from identity, once;
the original project put five in a row. The two scales are those of Woo et al., "CBAM", ECCV 2018, side by side and over a
pyramid of bins.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

PYRAMID_BINS = (1, 2, 3)
_PYRAMID_SIZE = sum(bins * bins for bins in PYRAMID_BINS)


class FeatureSeparation(nn.Module):
    """x -> (x_task, x_rest) with x_task + x_rest = x, as in MTLFace's code, but for biases in the channel scale.

    x_task = (x * channel + x * spatial) / 2. The channel scale (B, C, 1, 1) comes from average- and max-pooled pyramids
    of 1, 2 and 3 bins a side, summed, through a bottleneck of 14 C / reduction; the spatial scale (B, 1, h, w) from the
    maximum and the mean over channels through a 7 x 7 convolution.

    Args:
        channels: C.
        reduction: of the 14 C pyramid values to the bottleneck.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        narrow = max(1, _PYRAMID_SIZE * channels // reduction)
        self.channel = nn.Sequential(
            nn.Conv2d(_PYRAMID_SIZE * channels, narrow, 1),
            nn.ReLU(),
            nn.Conv2d(narrow, channels, 1),
            nn.BatchNorm2d(channels),
            nn.Sigmoid(),
        )
        self.spatial = nn.Sequential(nn.Conv2d(2, 1, 7, padding=3, bias=False), nn.BatchNorm2d(1), nn.Sigmoid())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (B, C, h, w) -> twice the same shape
        spatial = self.spatial(torch.stack([x.amax(dim=1), x.mean(dim=1)], dim=1))
        task = x * (self.channel(_pyramid_pool(x)) + spatial) / 2
        return task, x - task


def _pyramid_pool(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, 14 C, 1, 1): average plus maximum in each bin."""
    maximum = _adaptive_max_pool if torch.compiler.is_exporting() else functional.adaptive_max_pool2d
    pooled = [(functional.adaptive_avg_pool2d(x, bins) + maximum(x, bins)).flatten(1) for bins in PYRAMID_BINS]
    return torch.cat(pooled, dim=1)[:, :, None, None]


def _adaptive_max_pool(x: Tensor, bins: int) -> Tensor:
    """`adaptive_max_pool2d`, which ONNX has no operator for, from slices."""
    rows, columns = ([(side * i // bins, -(-side * (i + 1) // bins)) for i in range(bins)] for side in x.shape[2:])
    maxima = [x[:, :, top:bottom, left:right].amax(dim=(2, 3)) for top, bottom in rows for left, right in columns]
    return torch.stack(maxima, dim=2).unflatten(2, (bins, bins))
