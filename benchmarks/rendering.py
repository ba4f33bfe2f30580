"""Pictures of a known surface under given lights, for benchmarks and tests with an exact ground truth."""

import numpy as np
from scipy.ndimage import shift

_TOLERANCE = 1e-6
"""How far above a ray, in pixels, a point must be to shade it. Above 0, as rounding errors would shade a plane along the ray."""


def render(
    albedo: np.ndarray,
    normal: np.ndarray,
    depth: np.ndarray,
    lights: np.ndarray,
    *,
    cast_shadows: bool,
    highlights: float = 0.0,
    exponent: float = 25.0,
) -> np.ndarray:
    """The radiance of each pixel toward the camera under each light alone, without noise or saturation.

    albedo * max(0, n . l) + highlights * max(0, n . h)^exponent where the light reaches; h is halfway between the light and
    the camera at (0, 0, 1). Blinn, "Models of light reflection for computer synthesized pictures", SIGGRAPH 1977.

    Args:
        albedo: (H, W).
        normal: (H, W, 3) unit vectors, x right, y up, z toward the camera.
        depth: (H, W) in pixels, growing toward the camera; used for cast shadows only.
        lights: (k, 3) unit vectors toward lights in front of the picture plane.
        cast_shadows: whether the surface occludes lights; a side that faces away from a light is dark in any case.
        highlights: brightness of the mirror direction, independent of the albedo.
        exponent: sharpness of the highlights; 20 to 30 looks like skin.

    Returns:
        (k, H, W) float32.
    """
    images = np.empty((len(lights), *albedo.shape), dtype=np.float32)
    for image, light in zip(images, np.asarray(lights, dtype=np.float64)):
        cosine = normal @ light
        half = light + np.array([0, 0, 1])
        shining = highlights * np.maximum(normal @ (half / np.linalg.norm(half)), 0) ** exponent
        reached = cosine > 0
        if cast_shadows:
            reached &= ~cast_shadow(depth, light)
        image[:] = np.where(reached, albedo * cosine + shining, 0)
    return images


def cast_shadow(depth: np.ndarray, light: np.ndarray) -> np.ndarray:
    """(H, W) bool: True where the surface occludes the light; nothing outside the picture does.

    The ray from every pixel advances toward the light in steps of one column or one row, whichever it crosses faster, and is
    compared with the depth (H, W) there, interpolated between the two nearest pixels.
    """
    x, y, z = (float(component) for component in light)
    fastest = max(abs(x), abs(y))
    shadow = np.zeros(depth.shape, dtype=bool)
    if fastest < _TOLERANCE:
        return shadow
    # Rounded so that a ray along a row stays on it: rounding errors of 1e-16 would leave the picture.
    column, row, rise = round(x / fastest, 9), round(-y / fastest, 9), z / fastest
    height = depth.astype(np.float64)
    outside = 2 * height.min() - height.max() - 1
    steps = max(depth.shape) if rise <= 0 else min(max(depth.shape), int(np.ptp(height) / rise) + 1)
    for step in range(1, steps + 1):
        there = shift(height, (-step * row, -step * column), order=1, mode="constant", cval=outside)
        shadow |= there > height + step * rise + _TOLERANCE
    return shadow


def dome(count: int, widest: float = 50.0) -> np.ndarray:
    """(count, 3) directions spread evenly (golden angle) over the cap of `widest` degrees around the viewing axis."""
    index = np.arange(count) + 0.5
    z = 1 - (1 - np.cos(np.radians(widest))) * index / count
    angle = np.pi * (3 - np.sqrt(5)) * index
    return np.stack([np.sqrt(1 - z**2) * np.cos(angle), np.sqrt(1 - z**2) * np.sin(angle), z], axis=1)
