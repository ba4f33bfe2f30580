"""Bringing a picture's maps to a square of the wanted size, and what that does to normals."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

Fit = Literal["crop", "pad", "stretch"]


@dataclass(frozen=True)
class Frame:
    """The part (left, top, right, bottom) of the source picture, and the (width, height) in pixels that it becomes."""

    box: tuple[float, float, float, float]
    width: int
    height: int

    @property
    def stretch(self) -> tuple[float, float]:
        """(s_x, s_y): the scale of each axis over the geometric mean of both; (1, 1) where the aspect is kept."""
        left, top, right, bottom = self.box
        x, y = self.width / (right - left), self.height / (bottom - top)
        mean = (x * y) ** 0.5
        return x / mean, y / mean


def frame(height: int, width: int, size: int, fit: Fit) -> Frame:
    """Where a picture of `height` x `width` goes in a square of `size` pixels.

    `crop` takes the central square, `pad` the whole picture with its aspect kept, `stretch` the whole picture without.
    """
    if fit == "crop":
        side = min(height, width)
        left, top = (width - side) / 2, (height - side) / 2
        return Frame((left, top, left + side, top + side), size, size)
    if fit == "pad":
        scale = size / max(height, width)
        return Frame((0, 0, width, height), max(1, round(width * scale)), max(1, round(height * scale)))
    return Frame((0, 0, width, height), size, size)


def resample(channels: np.ndarray, to: Frame) -> np.ndarray:
    """The (C, H, W) `channels` inside the frame's box as (C, height, width), averaged over the pixels that merge."""
    planes = [
        np.asarray(Image.fromarray(plane).resize((to.width, to.height), Image.Resampling.BILINEAR, box=to.box))
        for plane in np.ascontiguousarray(channels, dtype=np.float32)
    ]
    return np.stack(planes)


def stretch_normals(normals: np.ndarray, to: Frame) -> np.ndarray:
    """Unit normals (3, H, W) of the surface once its x and y axes are scaled as the frame does.

    Scaling x by s_x and y by s_y maps a normal to normalise(n_x / s_x, n_y / s_y, n_z). The scale common to both axes
    multiplies depth as well and leaves normals alone, so only the departure from it enters.
    """
    x, y = to.stretch
    if (x, y) == (1.0, 1.0):
        return normals
    bent = normals / np.array([x, y, 1], dtype=normals.dtype)[:, None, None]
    return bent / np.linalg.norm(bent, axis=0)


def pad_square(plane: np.ndarray, size: int, mode: Literal["constant", "edge"]) -> np.ndarray:
    """The (H, W) `plane` in the middle of a square of `size`, the rest zero or the nearest pixel's value."""
    height, width = plane.shape
    top, left = (size - height) // 2, (size - width) // 2
    margins = ((top, size - height - top), (left, size - width - left))
    return plane if not any(map(any, margins)) else np.pad(plane, margins, mode=mode)
