"""Parts of a branch: normalisation of the maps, feature separation, gradient reversal, embeddings and discriminators."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fr_ps.data.augment import unit_normals
from fr_ps.errors import InputError

PYRAMID_BINS = (1, 2, 3)
_PYRAMID_SIZE = sum(bins * bins for bins in PYRAMID_BINS)
_DEPTH_UNIT = 8
_LOG_OFFSET = 0.1
_LOG_LIMIT = 4.0


def normalise_maps(maps: Tensor, modality: str, albedo_normalization: str = "mean") -> Tensor:
    """(B, C, H, W) maps scaled to values of the order of 1; part of the network, so that no caller can omit it.

    Albedo is known only up to the intensity of the lights, so each map is divided by its own mean, and 1 is subtracted. With
    `albedo_normalization` "log", let y = log(map / mean + 0.1). The median of y is subtracted from y; the difference is divided
    by its mean absolute value and clamped to -4 to 4.

    Depth, in pixels, is divided by an eighth of the map's side, which makes it independent of the resolution. Normals stay as
    they are.
    """
    if modality == "albedo" and albedo_normalization == "log":
        return _log_albedo(maps)
    if modality == "albedo":
        return maps / maps.mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6) - 1
    if modality == "depth":
        return maps * (_DEPTH_UNIT / maps.shape[-1])
    return maps


def resample_maps(maps: Tensor, modality: str, side: int) -> Tensor:
    """(B, C, H, W) maps as (B, C, side, side), each pixel the mean over its area; normals have unit length again.

    Depth is in pixels, so it is scaled with the picture.
    """
    resampled = functional.interpolate(maps, (side, side), mode="area")
    if modality == "normal":
        return unit_normals(resampled)
    return resampled * (side / maps.shape[-1]) if modality == "depth" else resampled


def mirror_maps(maps: Tensor, modality: str) -> Tensor:
    """(B, C, H, W) maps of the face mirrored left to right; a mirrored normal has the opposite n_x."""
    mirrored = maps.flip(3)
    return torch.cat([-mirrored[:, :1], mirrored[:, 1:]], dim=1) if modality == "normal" else mirrored


def _log_albedo(maps: Tensor) -> Tensor:
    mean = maps.mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)
    logs = torch.log(maps.clamp_min(0) / mean + _LOG_OFFSET)
    pixels = logs.flatten(1).sort(dim=1).values  # ONNX has no operator for the median
    count = pixels.shape[1]
    median = (pixels[:, (count - 1) // 2] + pixels[:, count // 2]) / 2
    centred = logs - median[:, None, None, None]
    spread = centred.abs().mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-3)  # that of a constant map is rounding error
    return (centred / spread).clamp(-_LOG_LIMIT, _LOG_LIMIT)


class FeatureSeparation(nn.Module):
    """Splits a feature map for one task: x -> (x_task, x_rest) with x_task + x_rest = x.

    x_task = (x * channel + x * spatial) / 2. For the channel scale (B, C, 1, 1), x is pooled by average and by maximum in a
    pyramid of 1 x 1, 2 x 2 and 3 x 3 bins (14 bins a channel). The two results are added; the 14 C sums pass through a bottleneck
    of 14 C / reduction values. For the spatial scale (B, 1, h, w), the maximum and the mean over channels pass through a 7 x 7
    convolution.

    This is the attention-based feature decomposition of MTLFace (Huang, Zhang, Shan, "When Age-Invariant Face Recognition Meets
    Face Age Synthesis: A Multi-Task Learning Framework", CVPR 2021, arXiv:2103.01520), as in its code, except that the layers of
    the channel scale have biases. MTLFace separates age from identity once; the original project chained five modules. The two
    scales are those of Woo et al., "CBAM", ECCV 2018, side by side and over a pyramid of bins.

    Args:
        channels: C.
        reduction: ratio of the 14 C pyramid values to the bottleneck.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        bottleneck = max(1, _PYRAMID_SIZE * channels // reduction)
        self.channel = nn.Sequential(
            nn.Conv2d(_PYRAMID_SIZE * channels, bottleneck, 1),
            nn.ReLU(),
            nn.Conv2d(bottleneck, channels, 1),
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
    # Slices replace adaptive pooling in two cases: ONNX has no operator for its maximum, and on a GPU its gradient is not
    # deterministic.
    deterministic = x.device.type == "cuda" and torch.are_deterministic_algorithms_enabled()
    pool = _pool_slices if torch.compiler.is_exporting() or deterministic else _pool_adaptively
    return torch.cat([pool(x, bins) for bins in PYRAMID_BINS], dim=1)[:, :, None, None]


def _pool_adaptively(x: Tensor, bins: int) -> Tensor:
    """(B, C, h, w) -> (B, C bins^2): average plus maximum in each bin."""
    return (functional.adaptive_avg_pool2d(x, bins) + functional.adaptive_max_pool2d(x, bins)).flatten(1)


def _pool_slices(x: Tensor, bins: int) -> Tensor:
    """The values of `_pool_adaptively`, by a slice for each bin."""
    rows, columns = ([(side * i // bins, -(-side * (i + 1) // bins)) for i in range(bins)] for side in x.shape[2:])
    slices = [x[:, :, top:bottom, left:right] for top, bottom in rows for left, right in columns]
    return torch.stack([one.mean(dim=(2, 3)) + one.amax(dim=(2, 3)) for one in slices], dim=2).flatten(1)


class _GradientReversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: float) -> Tensor:
        ctx.alpha = alpha
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.alpha * gradients[0], None


def reverse_gradient(x: Tensor, alpha: float) -> Tensor:
    """`x` in the forward pass; in the backward pass the gradient times -alpha.

    Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 2016.
    """
    return _GradientReversal.apply(x, alpha)


class MeanEmbedding(nn.Module):
    """(B, C, h, w) -> (B, width): batch norm, then the mean over the map.

    Args:
        channels: C.
        reduced: width after a learnt reduction (FC, BN, PReLU); 0: no reduction.
    """

    def __init__(self, channels: int, reduced: int = 0) -> None:
        super().__init__()
        self.width = reduced or channels
        self.norm = nn.BatchNorm2d(channels)
        self.reduce = reduction_layer(channels, reduced) if reduced else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.reduce(self.norm(x).mean(dim=(2, 3)))


class FlattenedEmbedding(nn.Module):
    """(B, C, h, w) -> (B, width): batch norm, dropout, a linear layer on the flattened map, batch norm.

    The head of Deng et al., "ArcFace", CVPR 2019. Unlike a mean, it distinguishes the positions of the map, so it reads maps of
    one size only. The last batch norm is initialised so that the embeddings have a norm of about `INITIAL_NORM`, as those of
    `MeanEmbedding` have (5 to 8).

    Args:
        channels: C.
        map_shape: (h, w).
        width: of the embedding.
        dropout: probability that a value of the map is dropped in training.
    """

    INITIAL_NORM = 6.5

    def __init__(self, channels: int, map_shape: tuple[int, int], width: int, dropout: float) -> None:
        super().__init__()
        self.width = width
        self.map_shape = map_shape
        self.norm = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(channels * map_shape[0] * map_shape[1], width, bias=False)
        self.scale = nn.BatchNorm1d(width)
        nn.init.constant_(self.scale.weight, self.INITIAL_NORM / width**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """The embedding.

        Raises:
            InputError: a feature map of another size.
        """
        if x.shape[2:] != self.map_shape:
            got, expected = (" x ".join(map(str, size)) for size in (x.shape[2:], self.map_shape))
            raise InputError(
                f"model.embedding is flatten, which reads maps of the training size only: the feature map is {got}, expected "
                f"{expected}; prepare the maps in the size of the training maps, or train with --model.embedding mean"
            )
        return self.scale(self.linear(self.dropout(self.norm(x)).flatten(1)))


class Discriminator(nn.Module):
    """(B, C, h, w) -> (B, classes) logits of an attribute, for adversarial training."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.embedding = MeanEmbedding(channels)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.embedding(x))


def reduction_layer(channels: int, reduced: int) -> nn.Sequential:
    """(B, channels) -> (B, reduced): FC, BN, PReLU."""
    return nn.Sequential(nn.Linear(channels, reduced, bias=False), nn.BatchNorm1d(reduced), nn.PReLU(reduced))
