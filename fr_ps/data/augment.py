"""Random augmentation of training batches that keeps albedo, normals and depth consistent with each other."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fr_ps.config import AugmentConfig

MapBatch = dict[str, Tensor]
"""Modality to (B, C, H, W)."""

_NOISE_AREA, _NOISE_ASPECT = (0.1, 0.25), 2.0
_ERASED_AREA, _ERASED_ASPECT = (0.02, 0.33), 3.0


def augment(batch: MapBatch, config: AugmentConfig, generator: torch.Generator) -> MapBatch:
    """An augmented copy of `batch`: one similarity transform per session for all its maps, then noise on a patch, then erasing.

    Deterministic given `generator`, which it advances.
    """
    first = next(iter(batch.values()))
    similarity = sample_similarity(len(first), config, generator)
    moved = {modality: apply_similarity(maps, modality, similarity) for modality, maps in batch.items()}
    size = first.shape[-2:]
    if config.noise:
        patch = _sample_patch(len(first), size, _NOISE_AREA, _NOISE_ASPECT, generator)
        moved = {modality: _add_noise(maps, modality, patch, config.noise, generator) for modality, maps in moved.items()}
    if config.erase:
        patch = _sample_patch(len(first), size, _ERASED_AREA, _ERASED_ASPECT, generator)
        patch *= (torch.rand(len(first), generator=generator) < config.erase)[:, None, None, None]
        moved = {modality: _erase(maps, modality, patch) for modality, maps in moved.items()}
    return moved


@dataclass(frozen=True)
class Similarity:
    """One similarity transform per session. It gives the position in the original map of each pixel of the augmented one.

    Attributes:
        flip: (B,) -1 for a mirrored picture, else 1.
        angle: (B,) counter-clockwise rotation of the content in radians.
        side: (B,) side of the cropped square as a share of the picture's, above 1 if it is larger; the content is magnified by
            1 / side.
        centre: (B, 2) of the cropped square, x right and y down; the picture is [-1, 1].
    """

    flip: Tensor
    angle: Tensor
    side: Tensor
    centre: Tensor

    def matrix(self) -> Tensor:
        """(B, 2, 3) from augmented to original coordinates, x right and y down in [-1, 1], for `affine_grid`."""
        cos, sin = torch.cos(self.angle) * self.side, torch.sin(self.angle) * self.side
        rotation = torch.stack([cos, -sin, sin, cos], dim=1).view(-1, 2, 2)
        mirrored = rotation * torch.stack([self.flip, torch.ones_like(self.flip)], dim=1)[:, :, None]
        return torch.cat([mirrored, self.centre[:, :, None]], dim=2)


def sample_similarity(count: int, config: AugmentConfig, generator: torch.Generator) -> Similarity:
    """Random transforms of `count` sessions within the limits of `config`."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    flip = 1 - 2 * (uniform(count) < config.flip).float()
    angle = (2 * uniform(count) - 1) * math.radians(config.rotation)
    side = config.crop + (1 - config.crop) * uniform(count)
    centre = (2 * uniform(count, 2) - 1) * (1 - side)[:, None]
    # Scale and shift draw random numbers only if they are on: a training without them has the same random numbers as before they
    # existed.
    if config.scale:
        side = side * torch.exp((2 * uniform(count) - 1) * math.log1p(config.scale))
    if config.shift:
        centre = centre + 2 * config.shift * (2 * uniform(count, 2) - 1)
    return Similarity(flip, angle, side, centre)


def apply_similarity(maps: Tensor, modality: str, similarity: Similarity) -> Tensor:
    """The maps (B, C, H, W) after `similarity`.

    Normals rotate with the picture, a flip negates n_x, and resampled normals are normalised. A crop magnifies depth like
    the picture, and depth keeps zero mean. Pixels from outside the picture repeat its border.
    """
    grid = functional.affine_grid(similarity.matrix().to(maps), list(maps.shape), align_corners=False)
    moved = functional.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False)
    if modality == "normal":
        return functional.normalize(_transform_normals(moved, similarity), dim=1)
    if modality == "depth":
        moved = moved / similarity.side.to(maps)[:, None, None, None]
        return moved - moved.mean(dim=(2, 3), keepdim=True)
    return moved


def _transform_normals(normals: Tensor, similarity: Similarity) -> Tensor:
    flip, angle = similarity.flip.to(normals)[:, None, None], similarity.angle.to(normals)[:, None, None]
    x, y, z = normals.unbind(dim=1)
    x = x * flip
    # Image y points down, n_y up; a counter-clockwise rotation of the image by `angle` rotates (n_x, n_y) by `angle`.
    return torch.stack([torch.cos(angle) * x - torch.sin(angle) * y, torch.sin(angle) * x + torch.cos(angle) * y, z], dim=1)


def _sample_patch(
    count: int, size: torch.Size, area_range: tuple[float, float], max_aspect: float, generator: torch.Generator
) -> Tensor:
    """(B, 1, H, W): 1 inside a random rectangle, else 0.

    Args:
        count: B.
        size: (H, W).
        area_range: smallest and largest area as a share of the picture's.
        max_aspect: largest ratio of the longer to the shorter side.
        generator: draws area, aspect (log-uniform) and position.
    """
    height, width = size
    low, high = area_range
    area = low + (high - low) * torch.rand(count, generator=generator)
    aspect = torch.exp((2 * torch.rand(count, generator=generator) - 1) * math.log(max_aspect))
    tall, wide = (area * aspect).sqrt(), (area / aspect).sqrt()
    top = torch.rand(count, generator=generator) * (1 - tall)
    left = torch.rand(count, generator=generator) * (1 - wide)
    y, x = (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
    inside_y = (y >= top[:, None]) & (y < (top + tall)[:, None])
    inside_x = (x >= left[:, None]) & (x < (left + wide)[:, None])
    return (inside_y[:, None, :, None] & inside_x[:, None, None, :]).float()


def _add_noise(maps: Tensor, modality: str, patch: Tensor, max_strength: float, generator: torch.Generator) -> Tensor:
    scale = maps.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    strength = max_strength * torch.rand(len(maps), 1, 1, 1, generator=generator)
    noise = torch.randn(maps.shape, generator=generator)
    noisy = maps + patch.to(maps) * noise.to(maps) * strength.to(maps) * scale
    if modality == "normal":
        return functional.normalize(noisy, dim=1)
    return noisy.clamp_min(0) if modality == "albedo" else noisy


def _erase(maps: Tensor, modality: str, patch: Tensor) -> Tensor:
    """`maps` with the value of a featureless surface inside `patch`: mean albedo, normals toward the camera, depth 0.

    Zhong et al., "Random Erasing Data Augmentation", AAAI 2020.
    """
    value = maps.mean(dim=(1, 2, 3), keepdim=True) if modality == "albedo" else torch.zeros_like(maps)
    if modality == "normal":
        value[:, 2] = 1
    return torch.where(patch.to(maps) > 0, value, maps)
