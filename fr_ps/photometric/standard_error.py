"""How far the noise of the pictures turns each normal, estimated from the residual of the fit."""

import numpy as np

from fr_ps.photometric.solve import symmetric_cofactors, weighted_normal_matrix

_MIN_LIGHTS = 5
"""Four lights leave one number a pixel; a variance that is estimated from one has a relative standard deviation of 1.4."""
_MAX_ERROR = 90.0
_MIN_ALBEDO = 1e-6
_MIN_FREEDOM = 1e-12
"""Below it, rounding errors determine the degrees of freedom, and all observations but three were left out."""
_BLOCK_PIXELS = 4096


def normal_standard_error(images: np.ndarray, lights: np.ndarray, weights: np.ndarray, scaled: np.ndarray) -> np.ndarray | None:
    """Standard error of the unit normal of each pixel: root mean square of its angle to the expected one, in degrees.

    With W = diag(w), A = L^T W L and H = L A^-1 L^T W, the residual is r = (1 - H) e for the noise e. Noise of equal variance s^2
    in all observations has |W r|^2 = s^2 tr((1 - H)^T W^2 (1 - H)) on average, which estimates s^2; with all weights 1 the
    divisor is k - 3. Squared weights keep outliers, which are no noise, out of the estimate. The covariance of the scaled normal
    is s^2 A^-1 L^T W^2 L A^-1. That of the unit normal is, to first order, its part across the normal over the squared albedo
    (Ray, Birk, Kelley, "Error analysis of surface normals determined by radiometry", PAMI 1983).

    It is the error by noise alone: what bends the fit without a residual (wrong light directions, a highlight in every
    picture) is not in it, and the weights count as known.

    Args:
        images: (k, H, W).
        lights: (k, 3), of rank 3.
        weights: (k, H, W) in (0, 2), of the fit.
        scaled: (3, H, W), the fitted albedo-scaled normals.

    Returns:
        (H, W) float32 in degrees, at most 90; NaN where the albedo is 0. None with fewer than five lights.
    """
    if len(lights) < _MIN_LIGHTS:
        return None
    pixels, factors, normals = (planes.reshape(len(planes), -1) for planes in (images, weights, scaled))
    blocks = [slice(start, start + _BLOCK_PIXELS) for start in range(0, pixels.shape[1], _BLOCK_PIXELS)]
    found = [_block_error(pixels[:, block], lights, factors[:, block], normals[:, block]) for block in blocks]
    return np.concatenate(found).reshape(images.shape[1:])


def _block_error(images: np.ndarray, lights: np.ndarray, weights: np.ndarray, scaled: np.ndarray) -> np.ndarray:
    # All float64: einsum is several times slower with mixed types.
    w, scaled = weights.astype(np.float64), scaled.astype(np.float64)
    (xx, xy, xz, yy, yz, zz), determinant = symmetric_cofactors(weighted_normal_matrix(lights, w))
    inverse = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    inverse /= determinant
    squared_weights = w * w
    products = np.einsum("ki,kj->ijk", lights, lights)
    squared, cubed = products @ squared_weights, products @ (squared_weights * w)
    product = np.einsum("ijn,jkn->ikn", inverse, squared)
    freedom = squared_weights.sum(axis=0) - 2 * _trace(inverse, cubed) + _trace(product, product)
    noise = np.sum((w * (images - lights @ scaled)) ** 2, axis=0) / np.maximum(freedom, _MIN_FREEDOM)
    length = np.linalg.norm(scaled, axis=0)
    dark = length < _MIN_ALBEDO
    normal = scaled / np.where(dark, 1, length)
    # The covariance product @ inverse, its trace without the part along the normal.
    along = np.einsum("in,in->n", normal, _apply(product, _apply(inverse, normal)))
    across = _trace(product, inverse) - along
    degrees = np.degrees(np.sqrt(noise * np.maximum(across, 0))) / np.where(dark, 1, length)
    return np.where(dark, np.nan, np.minimum(degrees, _MAX_ERROR)).astype(np.float32)


def _trace(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(n,): traces of the products of matrices (3, 3, n)."""
    return np.einsum("ijn,jin->n", one, other)


def _apply(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """(3, n): matrices (3, 3, n) times vectors (3, n)."""
    return np.einsum("ijn,jn->in", matrices, vectors)
