"""Measures of the reliability of a session's pictures. Lower is better in every measure."""

import numpy as np

from fr_ps.photometric.integrate import normals_from_depth
from fr_ps.photometric.solve import residual_projector

MEASURES = ("residual", "imbalance", "shadowed", "integrability", "saturated")
SHADOW = 0.2
"""An observation counts as shadowed if it is darker than this share of the pixel's brightest one."""


def session_quality(
    images: np.ndarray,
    saturated: np.ndarray,
    lights: np.ndarray,
    normals: np.ndarray,
    depth: np.ndarray,
    mask: np.ndarray,
) -> dict[str, float]:
    """The measures of one session, over the pixels of `mask`.

    - residual: root mean square residual of least squares over the root mean square of the pictures. High if light
      directions or intensities are wrong, the face moved, or shadows and highlights are many. 0 with three lights.
    - imbalance: the same for the mean pixel, each pixel weighted by the square of its darkest over its brightest picture.
      The weight excludes shadows and highlights but keeps a light that was weak or blocked. 1 if no pixel has light from
      all lights; 0 with three lights. `solve_capture` replaces it by 1 if a light failed.
    - shadowed: share of observations under `SHADOW`.
    - integrability: mean angle in degrees between the normals and those of the depth. High if no surface has these normals.
    - saturated: share of observations at the camera's limit.

    Args:
        images: (k, H, W) as solved.
        saturated: (k, H, W) in [0, 1].
        lights: (k, 3) unit vectors.
        normals: (3, H, W) unit vectors.
        depth: (H, W) in pixels.
        mask: (H, W) bool, somewhere true.
    """
    pixels = _masked_pixels(images, mask)
    brightest = pixels.max(axis=0)
    lit = (pixels.min(axis=0) / np.maximum(brightest, 1e-6)) ** 2
    dark = pixels < SHADOW * brightest
    cosine = np.einsum("chw,chw->hw", normals, normals_from_depth(depth))[mask]
    return {
        "residual": _relative_residual(pixels, lights),
        "imbalance": _relative_residual(pixels @ lit[:, None], lights),
        "shadowed": float(dark.mean()),
        "integrability": float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean()),
        "saturated": float(_masked_pixels(saturated, mask).mean()),
    }


def convexity(normals: np.ndarray, mask: np.ndarray) -> list[list[float]]:
    """Covariances of n_x (first row) and n_y with x (first column) and y, which range over -1..1 across the square.

    On a face the covariance of n_x with x is positive and the largest; on one that is concave in x it is negative.
    """
    height, width = mask.shape
    x = np.broadcast_to(np.linspace(-1, 1, width), mask.shape)[mask]
    y = np.broadcast_to(np.linspace(1, -1, height)[:, None], mask.shape)[mask]
    places = np.stack([x - x.mean(), y - y.mean()], axis=1)
    return (normals[:2, mask] @ places / len(places)).tolist()


def twist_agreement(normals: np.ndarray, mask: np.ndarray) -> float:
    """Correlation (-1..1, not centred) of the two mixed second derivatives of depth by the normals.

    On a surface they are equal, d(dz/dx)/dy = d(dz/dy)/dx; with one axis mirrored they are opposite, and it is negative.
    """
    x, y, z = normals
    z = np.maximum(z, 0.1)
    of_x = np.gradient(x / z, axis=0)[mask]
    of_y = -np.gradient(y / z, axis=1)[mask]
    power = float(np.sqrt(np.mean(of_x**2) * np.mean(of_y**2)))
    return float(np.mean(of_x * of_y)) / power if power > 0 else 0.0


def _masked_pixels(planes: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(k, n): the pixels of planes (k, H, W) in the mask; without a copy in the usual case of a full mask."""
    return planes.reshape(len(planes), -1) if mask.all() else planes[:, mask]


def _relative_residual(pixels: np.ndarray, lights: np.ndarray) -> float:
    """Root mean square residual of least squares for pixels (k, n), over that of the pixels; 1, the worst, if all are 0."""
    projector = residual_projector(lights).astype(np.float32)
    power = float(np.mean(pixels**2))
    return float(np.sqrt(np.mean((projector @ pixels) ** 2) / power)) if power > 0 else 1.0
