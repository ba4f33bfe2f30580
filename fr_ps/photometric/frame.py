"""The square that a picture is resampled to, the resampling, and the matching change of directions."""

import math
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from fr_ps.config import Fit

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels from the picture's top left corner."""


@dataclass(frozen=True)
class Frame:
    """A rectangle of the source picture, possibly rotated, that becomes a square of `size` x `size` pixels.

    Attributes:
        x, y: centre of the rectangle, right and down in pixels from the picture's top left corner.
        width, height: of the rectangle, in pixels of the picture.
        angle: counter-clockwise rotation of the content, picture to square, in radians.
        size: side of the square.
    """

    x: float
    y: float
    width: float
    height: float
    angle: float
    size: int

    @property
    def stretch(self) -> tuple[float, float]:
        """(s_x, s_y): the scale of each axis over the geometric mean of both; (1, 1) where the aspect ratio is kept."""
        ratio = math.sqrt(self.width / self.height)
        return 1 / ratio, ratio

    def scaled(self, factor: float) -> "Frame":
        """The same frame in a picture that is `factor` times as large."""
        return replace(self, x=factor * self.x, y=factor * self.y, width=factor * self.width, height=factor * self.height)

    def to_source(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 2) of the square (right, down from its corner) as points of the picture."""
        return points @ self._matrix[:, :2].T + self._matrix[:, 2]

    @property
    def _matrix(self) -> np.ndarray:
        """(2, 3) from square to picture coordinates. y points down here, so a counter-clockwise angle is negative."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        scale = np.diag([self.width / self.size, self.height / self.size])
        linear = np.array([[cos, -sin], [sin, cos]]) @ scale
        middle = np.array([self.x, self.y]) - linear @ np.full(2, self.size / 2)
        return np.column_stack([linear, middle])


def fit_frame(box: Box, size: int, fit: Fit) -> Frame:
    """The frame that maps `box` to a square of `size`.

    `crop` uses the central square of the box, `pad` the square around it, `stretch` the box itself.
    """
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    if fit != "stretch":
        width = height = min(width, height) if fit == "crop" else max(width, height)
    return Frame((left + right) / 2, (top + bottom) / 2, width, height, 0.0, size)


def warp(planes: np.ndarray, frame: Frame) -> np.ndarray:
    """The (C, H, W) `planes` resampled to the frame as (C, size, size) float32, with area averaging; 0 outside the picture.

    With least squares, averaging the pictures equals averaging the albedo-scaled normals.
    """
    box = (frame.x - frame.width / 2, frame.y - frame.height / 2, frame.x + frame.width / 2, frame.y + frame.height / 2)
    whole = min(box[:2]) >= 0 and box[2] <= planes.shape[2] and box[3] <= planes.shape[1]
    if frame.angle == 0 and whole:
        bilinear, size = Image.Resampling.BILINEAR, (frame.size, frame.size)
        return np.stack([np.asarray(_float_image(plane).resize(size, bilinear, box=box)) for plane in planes])
    return np.stack([_warp_affine(plane, frame) for plane in planes])


def _float_image(plane: np.ndarray) -> Image.Image:
    """Of one plane at a time: all planes of a session in float32 may take a gigabyte."""
    return Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32))


def warp_inside(planes: np.ndarray, mask: np.ndarray, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """The `planes` (C, H, W) in the frame, each pixel the mean of its part inside the mask (H, W), and 0 without such a part.

    Also returns (S, S) bool: the pixels of which at least half is inside.
    """
    coverage = warp(mask[None], frame)[0]
    inside = coverage >= 0.5
    warped = np.concatenate([warp((plane * mask)[None], frame) for plane in planes])
    return warped * (inside / np.maximum(coverage, 0.5)), inside


def _warp_affine(plane: np.ndarray, frame: Frame) -> np.ndarray:
    """The (H, W) `plane` in a frame that is rotated or extends beyond the picture, which `Image.resize` does not support."""
    shrink = max(1, int(min(frame.width, frame.height) / frame.size))
    oversampling = 2 if max(frame.width, frame.height) / shrink > 1.001 * frame.size else 1
    coefficients = frame._matrix / shrink
    coefficients[:, :2] /= oversampling
    image = _float_image(plane)
    image = image.reduce(shrink) if shrink > 1 else image
    side = (oversampling * frame.size, oversampling * frame.size)
    image = image.transform(side, Image.Transform.AFFINE, tuple(coefficients.ravel()), resample=Image.Resampling.BILINEAR)
    return np.asarray(image.reduce(oversampling) if oversampling > 1 else image)


def inside_mask(frame: Frame, height: int, width: int) -> np.ndarray:
    """(size, size) bool: the pixels whose four corners all lie in a picture of `height` x `width`."""
    slack = 1e-6 * max(width, height)

    def in_picture(points: np.ndarray) -> np.ndarray:
        x, y = np.moveaxis(frame.to_source(points), -1, 0)
        return (x >= -slack) & (x <= width + slack) & (y >= -slack) & (y <= height + slack)

    if in_picture(np.array([(0, 0), (0, frame.size), (frame.size, 0), (frame.size, frame.size)])).all():
        return np.ones((frame.size, frame.size), dtype=bool)
    corner = in_picture(np.stack(np.meshgrid(np.arange(frame.size + 1), np.arange(frame.size + 1)), axis=-1))
    return corner[1:, 1:] & corner[1:, :-1] & corner[:-1, 1:] & corner[:-1, :-1]


def rotate_in_plane(vectors: np.ndarray, angle: float) -> np.ndarray:
    """Vectors (k, 3), x right and y up, rotated counter-clockwise about the viewing axis."""
    cos, sin = math.cos(angle), math.sin(angle)
    return vectors @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
