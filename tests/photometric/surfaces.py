"""Lambertian surfaces with known normals and depth, in float64: the ground truth of these tests."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.ndimage import gaussian_filter

from fr_ps.photometric.solve import split_albedo

Angles = Sequence[tuple[float, float]]
Height = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Depth toward the camera as a function of x (right) and y (up)."""

FOUR: Angles = ((30, 35), (-30, 35), (30, -20), (-30, -20))
THREE: Angles = ((0, 40), (35, -20), (-35, -20))
SEVEN: Angles = (*FOUR, (0, 0), (40, 0), (-10, 40))


def directions(angles: Angles) -> np.ndarray:
    """(k, 3) toward the lights, written down from data/README.md: (-sin A cos E, sin E, cos A cos E)."""
    return np.array(
        [
            (
                -np.sin(np.radians(a)) * np.cos(np.radians(e)),
                np.sin(np.radians(e)),
                np.cos(np.radians(a)) * np.cos(np.radians(e)),
            )
            for a, e in angles
        ]
    )


def grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """x to the right and y up of every pixel's centre, in pixels from the picture's middle."""
    y, x = np.mgrid[:height, :width]
    return x - (width - 1) / 2, (height - 1) / 2 - y


def normals(height: Height, x: np.ndarray, y: np.ndarray, step: float = 1e-4) -> np.ndarray:
    """(..., 3) unit normals of the surface z = height(x, y), by central differences."""
    right = (height(x + step, y) - height(x - step, y)) / (2 * step)
    up = (height(x, y + step) - height(x, y - step)) / (2 * step)
    vectors = np.stack([-right, -up, np.ones_like(right)], axis=-1)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def render(normal: np.ndarray, angles: Angles, albedo: float | np.ndarray = 1.0) -> np.ndarray:
    """(k, H, W) irradiance of (H, W, 3) normals."""
    return albedo * np.maximum(0, np.einsum("hwc,kc->khw", normal, directions(angles)))


def sphere(size: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Normals (H, W, 3), depth (H, W) of zero mean, and the radius, of a sphere's cap that reaches 30 degrees in the corners."""
    x, y = grid(size, size)
    radius = float(np.hypot(x, y).max() / np.sin(np.radians(30)))
    z = np.sqrt(radius**2 - x**2 - y**2)
    return np.stack([x, y, z], axis=-1) / radius, z - z.mean(), radius


def ball_on_a_table(size: int = 72) -> tuple[np.ndarray, np.ndarray]:
    """Normals (H, W, 3) and depth (H, W) of half a ball on a plane, on which it casts a shadow."""
    x, y = grid(size, size)
    depth = gaussian_filter(np.sqrt(np.maximum((0.4 * size) ** 2 - x**2 - y**2, 0)), 1)
    down, right = np.gradient(depth)
    normal = np.stack([-right, down, np.ones_like(depth)], axis=-1)
    return normal / np.linalg.norm(normal, axis=-1, keepdims=True), depth


def to_8_bit(images: np.ndarray) -> np.ndarray:
    return np.rint(255 * images).astype(np.uint8)


def degrees(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angle between vectors along the last axis."""
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), np.sum(a * b, axis=-1)))


def normals_from_differences(depth: np.ndarray) -> np.ndarray:
    """(H - 2, W - 2, 3) unit normals from the differences between the pixels of a depth map."""
    d = depth.astype(np.float64)
    vectors = np.stack(
        [(d[1:-1, :-2] - d[1:-1, 2:]) / 2, (d[2:, 1:-1] - d[:-2, 1:-1]) / 2, np.ones((d.shape[0] - 2, d.shape[1] - 2))], axis=-1
    )
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def normal_error(scaled: np.ndarray, normal: np.ndarray) -> float:
    """Mean angle in degrees between the normals of (3, H, W) and the true ones (H, W, 3)."""
    return float(degrees(split_albedo(scaled)[1].transpose(1, 2, 0), normal).mean())


def unsaturated(images: np.ndarray) -> np.ndarray:
    """The saturation of `images` without a saturated pixel."""
    return np.zeros(images.shape, dtype=np.float32)


def hill(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A smooth `Height`."""
    return 2.5 * np.sin(x / 8) * np.cos(y / 10) + 0.15 * x - 0.1 * y
