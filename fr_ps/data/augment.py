"""Random augmentation of training batches that keeps albedo, normals and depth consistent with each other.

`draw_augmentation` draws the few random numbers of a whole batch on the CPU. `apply_augmentation` uses them on the device of the
maps; each of several processes uses those of its own sessions. So the augmentation of a session depends neither on the device nor
on the number of processes.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from fr_ps.config import AugmentConfig
from fr_ps.device import to_device

MapBatch = dict[str, Tensor]
"""Modality to (B, C, H, W)."""

_NOISE_AREA, _NOISE_ASPECT = (0.1, 0.25), 2.0
_ERASED_AREA, _ERASED_ASPECT = (0.02, 0.33), 3.0
_NOISE_TABLE_LENGTH = 1 << 22


def augment(batch: Mapping[str, Tensor], config: AugmentConfig, generator: torch.Generator) -> MapBatch:
    """An augmented copy of `batch`: one similarity transform per session for all its maps, then noise on a patch, then erasing.

    Deterministic given `generator`, which it advances.
    """
    first = next(iter(batch.values()))
    return apply_augmentation(batch, draw_augmentation(len(first), len(batch), config, generator))


@dataclass(frozen=True)
class Augmentation:
    """The random numbers that augment B sessions with M modalities: drawn on the CPU, moved by `to`.

    Attributes:
        similarity: the transforms.
        noise_rectangle: (B, 4): for each session, the rectangle in which its maps get noise (`_draw_rectangles`); None: no noise.
        noise_strength: (B, M) standard deviation of the noise as a share of the map's root mean square.
        noise_start: (B, M) in [0, 1]: where the noise of a map starts in the fixed noise table (`_noise_table`); 0 is its
            beginning, 1 the last possible start.
        erased_rectangle: (B, 4): for each session, the rectangle in which its maps are erased, of size 0 for a session without
            one; None: no session has one.
    """

    similarity: "Similarity"
    noise_rectangle: Tensor | None
    noise_strength: Tensor
    noise_start: Tensor
    erased_rectangle: Tensor | None

    def part(self, rows: slice) -> "Augmentation":
        """The random numbers of some of the sessions."""
        return self._map(lambda numbers: numbers[rows])

    def to(self, device: torch.device) -> "Augmentation":
        """The same numbers on a device; `noise_start` stays on the CPU, where it is read."""
        return replace(self._map(lambda numbers: to_device(numbers, device)), noise_start=self.noise_start)

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Augmentation":
        similarity = self.similarity
        return Augmentation(
            Similarity(*map(function, (similarity.flip, similarity.angle, similarity.side, similarity.centre))),
            None if self.noise_rectangle is None else function(self.noise_rectangle),
            function(self.noise_strength),
            function(self.noise_start),
            None if self.erased_rectangle is None else function(self.erased_rectangle),
        )


def draw_augmentation(count: int, num_modalities: int, config: AugmentConfig, generator: torch.Generator) -> Augmentation:
    """The random numbers of a batch of `count` sessions; `generator` is one of the CPU and is advanced."""
    similarity = sample_similarity(count, config, generator)
    noise_rectangle = erased_rectangle = None
    noise_strength = noise_start = torch.zeros(count, num_modalities)
    if config.noise:
        noise_rectangle = _draw_rectangles(count, _NOISE_AREA, _NOISE_ASPECT, generator)
        noise_strength = config.noise * torch.rand(count, num_modalities, generator=generator)
        noise_start = torch.rand(count, num_modalities, generator=generator)
    if config.erase:
        erased_rectangle = _draw_rectangles(count, _ERASED_AREA, _ERASED_ASPECT, generator)
        erased_rectangle *= (torch.rand(count, generator=generator) < config.erase)[:, None]
    return Augmentation(similarity, noise_rectangle, noise_strength, noise_start, erased_rectangle)


def apply_augmentation(batch: Mapping[str, Tensor], drawn: Augmentation) -> MapBatch:
    """An augmented copy of `batch`, on its device.

    `batch` has as many modalities as the draw; the i-th one uses column i of `noise_strength` and `noise_start`.

    Resampling returns new tensors, which noise and erasing modify in place. On a CPU, allocating further tensors for noise and
    erasing took a quarter of the time of the augmentation.
    """
    first = next(iter(batch.values()))
    drawn = drawn.to(first.device)
    grid = drawn.similarity.grid(first)
    warped = {modality: _warp(maps, modality, drawn.similarity, grid) for modality, maps in batch.items()}
    if drawn.noise_rectangle is not None:
        patch = _inside(drawn.noise_rectangle, first.shape[-2:])
        for index, (modality, maps) in enumerate(warped.items()):
            _add_noise_(maps, modality, patch, _noise(maps, drawn.noise_start[:, index]), drawn.noise_strength[:, index])
    if drawn.erased_rectangle is not None:
        patch = _inside(drawn.erased_rectangle, first.shape[-2:])
        for modality, maps in warped.items():
            _erase_(maps, modality, patch)
    return warped


@dataclass(frozen=True)
class Similarity:
    """One similarity transform per session: `centre` moves to the middle; the content is mirrored, rotated and magnified.

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

    def grid(self, maps: Tensor) -> Tensor:
        """(B, H, W, 2) original coordinates of the pixels of the augmented (B, C, H, W) `maps`, for `grid_sample`.

        The values of `affine_grid`, as a sum of two small arrays instead of products of matrices, which is faster on a CPU.
        """
        # original = x_column * x + y_column * y + offset, with the three columns of the matrix, (B, 2, 1) each.
        x_column, y_column, offset = self.matrix().to(maps)[:, :, :, None].unbind(dim=2)
        by_column = x_column * _pixel_centres(maps.shape[3], maps)  # (B, 2, W)
        by_row = y_column * _pixel_centres(maps.shape[2], maps) + offset  # (B, 2, H)
        return by_row.transpose(1, 2)[:, :, None] + by_column.transpose(1, 2)[:, None]  # (B, H, 1, 2) + (B, 1, W, 2)

    def matrix(self) -> Tensor:
        """(B, 2, 3) from augmented to original coordinates, x right and y down in [-1, 1].

        It is the inverse of the transform in the class docstring: original = flip(turn(side * augmented)) + centre, where `turn`
        is clockwise by `angle`.
        """
        cos, sin = torch.cos(self.angle) * self.side, torch.sin(self.angle) * self.side
        # With y down, this is the matrix of a clockwise turn.
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
    # Scale and shift draw random numbers only if they are on. So a training without them has the random numbers of older
    # versions, which lack these settings.
    if config.scale:
        side = side * torch.exp((2 * uniform(count) - 1) * math.log1p(config.scale))
    if config.shift:
        centre = centre + 2 * config.shift * (2 * uniform(count, 2) - 1)
    return Similarity(flip, angle, side, centre)


def apply_similarity(maps: Tensor, modality: str, similarity: Similarity) -> Tensor:
    """The maps (B, C, H, W) after `similarity`, as in `_warp`."""
    return _warp(maps, modality, similarity, similarity.grid(maps))


def unit_normals(normals: Tensor) -> Tensor:
    """(B, 3, H, W) vectors divided by their lengths; zero vectors stay zero.

    torch's `normalize` over the channels is slow on a CPU, since it reduces a dimension that is not contiguous.
    """
    return normals / _lengths(normals)


def _lengths(normals: Tensor) -> Tensor:
    """(B, 1, H, W) lengths of (B, 3, H, W) vectors, at least 1e-12."""
    x, y, z = normals.split(1, dim=1)
    return (x * x + y * y + z * z).sqrt().clamp_min(1e-12)


def _warp(maps: Tensor, modality: str, similarity: Similarity, grid: Tensor) -> Tensor:
    """The maps (B, C, H, W) after `similarity`; `grid` is `similarity.grid(maps)`.

    Normals rotate with the picture, a flip negates n_x, and resampled normals are normalised. Depth is scaled like the picture,
    then its mean is subtracted. Pixels from outside the picture repeat its border.
    """
    warped = functional.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False)
    if modality == "normal":
        rotated = _transform_normals(warped, similarity)
        return rotated.div_(_lengths(rotated))
    if modality == "depth":
        warped = warped / similarity.side.to(maps)[:, None, None, None]
        return warped - warped.mean(dim=(2, 3), keepdim=True)
    return warped


def _transform_normals(normals: Tensor, similarity: Similarity) -> Tensor:
    flip, angle = similarity.flip.to(normals)[:, None, None], similarity.angle.to(normals)[:, None, None]
    x, y, z = normals.unbind(dim=1)
    x = x * flip
    # Image y points down, n_y up; a counter-clockwise rotation of the image by `angle` rotates (n_x, n_y) by `angle`.
    return torch.stack([torch.cos(angle) * x - torch.sin(angle) * y, torch.sin(angle) * x + torch.cos(angle) * y, z], dim=1)


def _pixel_centres(length: int, like: Tensor) -> Tensor:
    """(length,) coordinates of the pixel centres of a side, in [-1, 1]."""
    return (2 * torch.arange(length, device=like.device, dtype=like.dtype) + 1) / length - 1


def _draw_rectangles(count: int, area_range: tuple[float, float], max_aspect: float, generator: torch.Generator) -> Tensor:
    """(count, 4) random rectangles: top, left, height and width as shares of the picture's sides.

    Args:
        count: number of rectangles.
        area_range: smallest and largest area as a share of the picture's.
        max_aspect: largest ratio of the longer to the shorter side.
        generator: draws area, aspect (log-uniform) and position.
    """
    low, high = area_range
    area = low + (high - low) * torch.rand(count, generator=generator)
    aspect = torch.exp((2 * torch.rand(count, generator=generator) - 1) * math.log(max_aspect))
    tall, wide = (area * aspect).sqrt(), (area / aspect).sqrt()
    top = torch.rand(count, generator=generator) * (1 - tall)
    left = torch.rand(count, generator=generator) * (1 - wide)
    return torch.stack([top, left, tall, wide], dim=1)


def _inside(rectangles: Tensor, size: torch.Size) -> Tensor:
    """(B, 1, H, W) bool: whether the centre of a pixel is inside the (B, 4) rectangle."""
    height, width = size
    top, left, tall, wide = rectangles[:, :, None].unbind(dim=1)
    y = (torch.arange(height, device=rectangles.device) + 0.5) / height
    x = (torch.arange(width, device=rectangles.device) + 0.5) / width
    inside_y, inside_x = (y >= top) & (y < top + tall), (x >= left) & (x < left + wide)
    return inside_y[:, None, :, None] & inside_x[:, None, None, :]


def _noise(maps: Tensor, start: Tensor) -> Tensor:
    """Standard normal noise of the shape of `maps`, from the fixed noise table (`_noise_table`).

    `start` (B,) in [0, 1] is where the noise of a map starts: 0 is the beginning of the table, 1 the last possible start.

    Noise from a table needs only a copy, which is cheaper than new random numbers, and is the same on all devices: Salimans et
    al., "Evolution Strategies as a Scalable Alternative to Reinforcement Learning", 2017, arXiv:1703.03864, section 2.
    """
    length = maps[0].numel()
    table = _noise_table(max(_NOISE_TABLE_LENGTH, 2 * length), maps.device).to(maps.dtype)
    first_entries = (start.double() * (len(table) - length)).long().tolist()
    return torch.stack([table[first : first + length] for first in first_entries]).view(maps.shape)


@cache
def _noise_table(length: int, device: torch.device) -> Tensor:
    return torch.randn(length, generator=torch.Generator().manual_seed(0)).to(device)


def _add_noise_(maps: Tensor, modality: str, patch: Tensor, noise: Tensor, strength: Tensor) -> None:
    """Add to `maps`, inside `patch`, noise whose standard deviation is (B,) `strength` times the root mean square of the map."""
    root_mean_square = torch.linalg.vector_norm(maps, dim=(1, 2, 3)) / math.sqrt(maps[0].numel())
    maps.addcmul_(noise, patch * (root_mean_square * strength.to(maps))[:, None, None, None])
    if modality == "normal":
        maps.div_(_lengths(maps))
    elif modality == "albedo":
        maps.clamp_min_(0)


def _erase_(maps: Tensor, modality: str, patch: Tensor) -> None:
    """Give `maps` the value of a featureless surface inside `patch`: mean albedo, normals toward the camera, depth 0.

    Zhong et al., "Random Erasing Data Augmentation", AAAI 2020.
    """
    value = maps.mean(dim=(1, 2, 3), keepdim=True) if modality == "albedo" else maps.new_zeros(1, maps.shape[1], 1, 1)
    if modality == "normal":
        value[:, 2] = 1
    torch.where(patch, value, maps, out=maps)
