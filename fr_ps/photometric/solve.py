"""From pictures under known lights to albedo-scaled normals, pixel by pixel: least squares, plain and weighted."""

from collections.abc import Sequence

import numpy as np

_SYMMETRIC_INDICES = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


def least_squares(images: np.ndarray, lights: np.ndarray) -> np.ndarray:
    """Albedo-scaled normals g that minimise sum_k (I_k - l_k . g)^2 in every pixel.

    Woodham, "Photometric method for determining surface orientation from multiple images", Optical Engineering 1980.
    Exact for a Lambertian surface that every light reaches; shadows and highlights bias the normal.

    Args:
        images: (k, H, W), linear in the light received.
        lights: (k, 3) unit vectors toward the lights, of rank 3.

    Returns:
        (3, H, W) float32: albedo times unit normal.
    """
    inverse = np.linalg.pinv(lights).astype(np.float32)
    return (inverse @ images.reshape(len(images), -1)).reshape(3, *images.shape[1:])


def weighted_least_squares(
    images: np.ndarray,
    lights: np.ndarray,
    weights: np.ndarray,
    prior_weight: np.ndarray | None = None,
    prior_mean: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Albedo-scaled normals g that minimise sum_k w_k (I_k - l_k . g)^2 + v |g - m|^2 in every pixel.

    Args:
        images: (k, H, W).
        lights: (k, 3), of rank 3.
        weights: (k, H, W), w, positive for at least three lights of rank 3.
        prior_weight: (H, W), v, at least 0; None: no prior.
        prior_mean: (3, H, W), m.

    Returns:
        g (3, H, W), and the variance of g for unit noise of unit weight (H, W): the trace of the inverse normal matrix.
    """
    shape = images.shape[1:]
    # float32 leaves the determinant of a pixel with two shadows without a correct digit.
    w = weights.reshape(len(images), -1).astype(np.float64)
    xx, xy, xz, yy, yz, zz = weighted_normal_matrix(lights, w)
    rhs = lights.T @ (w * images.reshape(len(images), -1))
    if prior_weight is not None and prior_mean is not None:
        ridge = prior_weight.reshape(-1)
        xx, yy, zz = xx + ridge, yy + ridge, zz + ridge
        rhs += ridge * prior_mean.reshape(3, -1)
    (c_xx, c_xy, c_xz, c_yy, c_yz, c_zz), determinant = symmetric_cofactors((xx, xy, xz, yy, yz, zz))
    scaled = np.stack(
        [
            (c_xx * rhs[0] + c_xy * rhs[1] + c_xz * rhs[2]) / determinant,
            (c_xy * rhs[0] + c_yy * rhs[1] + c_yz * rhs[2]) / determinant,
            (c_xz * rhs[0] + c_yz * rhs[1] + c_zz * rhs[2]) / determinant,
        ]
    )
    variance = (c_xx + c_yy + c_zz) / determinant
    return scaled.astype(np.float32).reshape(3, *shape), variance.reshape(shape)


def weighted_normal_matrix(lights: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(6, n): entries xx, xy, xz, yy, yz, zz of sum_k w_k l_k l_k^T, for lights (k, 3) and weights (k, n)."""
    products = np.array([[light[i] * light[j] for i, j in _SYMMETRIC_INDICES] for light in lights])
    return products.T @ weights


def symmetric_cofactors(matrix: Sequence[np.ndarray] | np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Six cofactors and the determinant, (n,) each, of symmetric 3 x 3 matrices with the six entries xx, xy, xz, yy, yz, zz.

    Their quotient is the inverse: about ten times faster here than a general solver.
    """
    xx, xy, xz, yy, yz, zz = matrix
    c_xx, c_xy, c_xz = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    c_yy, c_yz, c_zz = xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy
    return [c_xx, c_xy, c_xz, c_yy, c_yz, c_zz], xx * c_xx + xy * c_xy + xz * c_xz


def residual_projector(lights: np.ndarray) -> np.ndarray:
    """(k, k) projector on the complement of the span of the light directions: from the pictures to their residuals."""
    return np.eye(len(lights)) - lights @ np.linalg.pinv(lights)


def leave_one_out_residuals(images: np.ndarray, lights: np.ndarray) -> np.ndarray:
    """(k, ...) each picture minus its prediction from the others; 0 where the others allow no prediction, as with three lights.

    The prediction is the least-squares surface of the others under the picture's light, and can be negative.

    Args:
        images: (k, ...).
        lights: (k, 3) of rank 3.
    """
    projector = residual_projector(lights)
    one_minus_leverage = np.diag(projector)[:, None]
    scaled = np.where(one_minus_leverage > 1e-6, projector / np.maximum(one_minus_leverage, 1e-6), 0).astype(np.float32)
    return np.tensordot(scaled, images, axes=1)


def split_albedo(scaled: np.ndarray, stretch: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Albedo (H, W) and unit normals (3, H, W) of albedo-scaled normals (3, H, W).

    If the scaled normals g are those of a surface with axes stretched by (3,) `stretch`, the unit normals are too
    (normalise(S^-1 n) for a normal n), and the albedo is |S g|.

    A pixel that no light reaches has albedo 0 and the normal of the picture plane, (0, 0, 1).
    """
    albedo = np.sqrt(np.einsum("chw,chw->hw", scaled, scaled))
    dark = albedo < 1e-6
    normals = scaled / np.where(dark, 1, albedo)
    normals[:, dark] = np.array([[0], [0], [1]], dtype=normals.dtype)
    if stretch is not None and (stretch != 1).any():
        albedo = albedo * np.sqrt(np.einsum("chw,c->hw", normals**2, stretch**2))
    return np.where(dark, 0, albedo), normals
