"""From normals to depth."""

from functools import lru_cache

import numpy as np
import scipy.fft
from scipy.ndimage import distance_transform_edt
from scipy.sparse.linalg import LinearOperator, cg

from fr_ps.config import Integration

MAX_SLOPE = 10.0
"""Limit of slopes (84 degrees): in shadows, least squares can return normals that face sideways or away."""
_TOLERANCE = 1e-5


def integrate_normals(normals: np.ndarray, mask: np.ndarray, method: Integration) -> np.ndarray:
    """Depth of the surface with these normals.

    Args:
        normals: (3, H, W) unit vectors, x right, y up, z toward the camera.
        mask: (H, W) bool: the pixels with valid normals. Other pixels get the depth of the nearest valid one.
        method: `poisson`, or `frankot_chellappa`, which needs a full rectangle and uses the normals outside the mask too.

    Returns:
        (H, W) float32 in pixels of this grid, zero mean, growing toward the camera.
    """
    if method == "frankot_chellappa":
        depth = frankot_chellappa(normals)
    else:
        depth = poisson(normals, None if mask.all() else mask.astype(np.float32))
    if mask.any() and not mask.all():
        row, column = distance_transform_edt(~mask, return_distances=False, return_indices=True)
        depth = depth[row, column]
    return (depth - depth.mean()).astype(np.float32)


def poisson(normals: np.ndarray, weights: np.ndarray | None = None, iterations: int = 500) -> np.ndarray:
    """Depth whose differences between neighbouring pixels fit the slopes of `normals` with least squared error.

    The normal equations are a Poisson equation with free (Neumann) borders, which the cosine transform diagonalises:
    Simchony, Chellappa, Shao, "Direct analytical methods for solving Poisson equations in computer vision problems",
    PAMI 1990. With weights they are not diagonal, and the transform preconditions conjugate gradients.

    Args:
        normals: (3, H, W) unit vectors, x right, y up, z toward the camera.
        weights: (H, W), at least 0: weight of the slopes at a pixel; a difference has the smaller weight of its two
            pixels. None: all equal. Depth is undefined where all weights are 0.
        iterations: most iterations of the conjugate gradients.

    Returns:
        (H, W) float32 depth in pixels, zero mean, growing toward the camera.
    """
    across, down = slopes(normals)
    unweighted = _solve_poisson(_divergence(across, down))
    if weights is None:
        return unweighted
    weigh_across = np.minimum(weights[:, 1:], weights[:, :-1])
    weigh_down = np.minimum(weights[1:], weights[:-1])
    shape = unweighted.shape

    def laplacian(depth: np.ndarray) -> np.ndarray:
        depth = depth.reshape(shape)
        differences = weigh_across * np.diff(depth, axis=1), weigh_down * np.diff(depth, axis=0)
        return -_divergence(*differences).ravel()

    def precondition(residual: np.ndarray) -> np.ndarray:
        return -_solve_poisson(residual.reshape(shape)).ravel()

    size = unweighted.size
    rhs = -_divergence(weigh_across * across, weigh_down * down).ravel()
    depth, _ = cg(
        LinearOperator((size, size), laplacian, dtype=np.float32),
        rhs,
        x0=unweighted.ravel(),
        rtol=_TOLERANCE,
        maxiter=iterations,
        M=LinearOperator((size, size), precondition, dtype=np.float32),
    )
    return (depth - depth.mean()).reshape(shape).astype(np.float32)


def frankot_chellappa(normals: np.ndarray) -> np.ndarray:
    """Depth by projection of the slopes on integrable slopes in the Fourier basis.

    Frankot, Chellappa, "A method for enforcing integrability in shape from shading algorithms", PAMI 1988. The basis is
    periodic and a face is not, so the surface is first mirrored at its right and lower border.

    Args:
        normals: (3, H, W) unit vectors, x right, y up, z toward the camera.

    Returns:
        (H, W) float32 depth in pixels, zero mean, growing toward the camera.
    """
    per_column, per_row = _pixel_slopes(normals)
    height, width = per_row.shape
    per_column = np.block([[per_column, -per_column[:, ::-1]], [per_column[::-1], -per_column[::-1, ::-1]]])
    per_row = np.block([[per_row, per_row[:, ::-1]], [-per_row[::-1], -per_row[::-1, ::-1]]])
    u = 2j * np.pi * scipy.fft.rfftfreq(2 * width)[None, :]
    v = 2j * np.pi * scipy.fft.fftfreq(2 * height)[:, None]
    norm = np.abs(u) ** 2 + np.abs(v) ** 2
    norm[0, 0] = 1
    # The highest frequency has no real derivative: either sign of i would break the symmetry.
    u[0, -1], v[height, 0] = 0, 0
    spectrum = (np.conj(u) * scipy.fft.rfft2(per_column) + np.conj(v) * scipy.fft.rfft2(per_row)) / norm
    spectrum[0, 0] = 0
    depth = scipy.fft.irfft2(spectrum, s=(2 * height, 2 * width))[:height, :width]
    return (depth - depth.mean()).astype(np.float32)


def slopes(normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Differences of depth by (3, H, W) normals: (H, W - 1) to the next column, (H - 1, W) to the next row."""
    per_column, per_row = _pixel_slopes(normals)
    return (per_column[:, 1:] + per_column[:, :-1]) / 2, (per_row[1:] + per_row[:-1]) / 2


def normals_from_depth(depth: np.ndarray) -> np.ndarray:
    """(3, H, W) float32 unit normals of a depth (H, W) in pixels, by central differences."""
    per_row, per_column = np.gradient(depth)
    vectors = np.stack([-per_column, per_row, np.ones_like(depth)])
    return (vectors / np.sqrt(np.einsum("chw,chw->hw", vectors, vectors))).astype(np.float32)


def _pixel_slopes(normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Change of depth per column and per row; rows go down while y goes up."""
    x, y, z = normals
    z = np.maximum(z, 1e-6)
    return np.clip(-x / z, -MAX_SLOPE, MAX_SLOPE), np.clip(y / z, -MAX_SLOPE, MAX_SLOPE)


def _divergence(across: np.ndarray, down: np.ndarray) -> np.ndarray:
    divergence = np.zeros((across.shape[0], down.shape[1]), dtype=across.dtype)
    divergence[:, :-1] += across
    divergence[:, 1:] -= across
    divergence[:-1] += down
    divergence[1:] -= down
    return divergence


def _solve_poisson(divergence: np.ndarray) -> np.ndarray:
    """The depth, of zero mean, whose differences between neighbours have this divergence."""
    spectrum = scipy.fft.dctn(divergence, type=2)
    spectrum /= _laplacian_eigenvalues(*divergence.shape)
    spectrum[0, 0] = 0
    return scipy.fft.idctn(spectrum, type=2)


@lru_cache(maxsize=8)
def _laplacian_eigenvalues(height: int, width: int) -> np.ndarray:
    """Eigenvalues of the Laplacian with free borders; that of the constant is 1 instead of 0, to divide by it."""
    rows = 2 * np.cos(np.pi * np.arange(height) / height) - 2
    columns = 2 * np.cos(np.pi * np.arange(width) / width) - 2
    values = rows[:, None] + columns[None, :]
    values[0, 0] = 1
    return values.astype(np.float32)
