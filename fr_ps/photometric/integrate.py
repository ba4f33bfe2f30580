"""From normals to depth."""

from functools import lru_cache

import numpy as np
import scipy.fft

STEEPEST = 10.0
"""Slopes are limited to this (84 degrees): least squares can return normals that face sideways or away in shadows."""


def poisson(normals: np.ndarray) -> np.ndarray:
    """Depth whose differences between neighbouring pixels are nearest, in least squares, to the slopes of `normals`.

    The normal equations are a Poisson equation with free (Neumann) borders, which the cosine transform makes diagonal:
    Simchony, Chellappa, Shao, "Direct analytical methods for solving Poisson equations in computer vision problems",
    PAMI 1990.

    Args:
        normals: (3, H, W) unit vectors, x right, y up, z toward the camera.

    Returns:
        (H, W) float32 depth in pixels, zero mean, growing toward the camera.
    """
    x, y, z = normals
    z = np.maximum(z, 1e-6)
    per_column = np.clip(-x / z, -STEEPEST, STEEPEST)
    per_row = np.clip(y / z, -STEEPEST, STEEPEST)
    divergence = np.zeros_like(z)
    between_columns = (per_column[:, 1:] + per_column[:, :-1]) / 2
    between_rows = (per_row[1:] + per_row[:-1]) / 2
    divergence[:, :-1] += between_columns
    divergence[:, 1:] -= between_columns
    divergence[:-1] += between_rows
    divergence[1:] -= between_rows
    spectrum = scipy.fft.dctn(divergence, type=2)
    spectrum /= _eigenvalues(*z.shape)
    spectrum[0, 0] = 0
    return scipy.fft.idctn(spectrum, type=2).astype(np.float32)


@lru_cache(maxsize=8)
def _eigenvalues(height: int, width: int) -> np.ndarray:
    """Of the Laplacian with free borders; that of the constant, which has no slope, is set to 1 instead of 0."""
    rows = 2 * np.cos(np.pi * np.arange(height) / height) - 2
    columns = 2 * np.cos(np.pi * np.arange(width) / width) - 2
    values = rows[:, None] + columns[None, :]
    values[0, 0] = 1
    return values.astype(np.float32)
