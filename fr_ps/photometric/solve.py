"""From pictures under known lights to albedo-scaled normals."""

import numpy as np


def least_squares(images: np.ndarray, lights: np.ndarray) -> np.ndarray:
    """Albedo-scaled normals g that minimise sum_k (I_k - l_k . g)^2 in every pixel.

    Woodham, "Photometric method for determining surface orientation from multiple images", Optical Engineering 1980.
    Exact for a Lambertian surface where every light reaches; a shadow or a highlight bends the normal there.

    Args:
        images: (k, H, W), linear in the light received.
        lights: (k, 3) unit vectors toward the lights, of rank 3.

    Returns:
        (3, H, W) float32: albedo times unit normal.
    """
    inverse = np.linalg.pinv(lights).astype(np.float32)
    return (inverse @ images.reshape(len(images), -1)).reshape(3, *images.shape[1:])


def split(scaled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Albedo (H, W) and unit normals (3, H, W) of albedo-scaled normals (3, H, W).

    A pixel that no light reached has albedo 0 and, as its normal is unknown, the normal of the picture plane (0, 0, 1).
    """
    albedo = np.sqrt(np.einsum("chw,chw->hw", scaled, scaled))
    dark = albedo < 1e-6
    normals = scaled / np.where(dark, 1, albedo)
    normals[:, dark] = np.array([[0], [0], [1]], dtype=normals.dtype)
    return np.where(dark, 0, albedo), normals
