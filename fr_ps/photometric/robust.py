"""Normals despite shadows and highlights, with as few as four lights.

What each picture counts in each pixel; `solve.weighted` with that is the solver `robust`. Then what the neighbours say.
"""

import numpy as np

from fr_ps.photometric.integrate import normals_of, poisson
from fr_ps.photometric.solve import weighted

DARK = 0.35
"""A picture counts in full where it is brighter than this share of the pixel's brightest one."""
_LEAST = 0.04
"""What the darkest picture still counts: two shadows among four lights leave the others too few to tell a normal."""
_SATURATED = 0.05
_BRIGHT = 0.8
_ALL_LIT = 0.7
_HIGHLIGHT = 10.0

_ROUNDS = 3
_STEPS = 6
_PULL = 0.5
_PULL_PER_CONCENTRATION = 0.0015
_OUTLIER = 0.3
_DIM = 0.02
_DOUBTFUL = 0.05


def observation_weights(images: np.ndarray, saturated: np.ndarray, lights: np.ndarray) -> np.ndarray:
    """What each picture counts in each pixel, by three signs that it is not Lambertian there.

    Shadow: the picture is dark beside the pixel's brightest one. With four lights a shadow cannot be told from a surface
    that faces away, but the latter is dark as well, and then says little about the normal. Highlight: where no light is
    missing, a picture is brighter than the other lights say (the residual over 1 - leverage, which is the difference to
    the fit without it). Saturation: the share of source pixels at the camera's limit.

    Args:
        images: (k, H, W), linear in the light received.
        saturated: (k, H, W) in [0, 1]: share of the pixel that is saturated.
        lights: (k, 3) unit vectors.

    Returns:
        (k, H, W) float32 in (0, 1.04].
    """
    brightest = np.maximum(images.max(axis=0), 1e-6)
    relative = images / brightest
    bright = np.minimum(relative / DARK, 1)
    weights = bright * np.sqrt(bright) + _LEAST
    lit = np.clip(relative.min(axis=0) / _ALL_LIT, 0, 1) ** 2
    excess = np.maximum(_without_it(relative, lights), 0)
    weights /= np.where(relative >= _BRIGHT, 1 + _HIGHLIGHT * lit * excess, 1)
    return (weights * (1 - (1 - _SATURATED) * saturated)).astype(np.float32)


def confidence(variance: np.ndarray, lights: np.ndarray) -> np.ndarray:
    """(H, W) in (0, 1]: the variance of a normal with all pictures in full over that with their weights (H, W)."""
    return np.clip(np.trace(np.linalg.inv(lights.T @ lights)) / variance, 0, 1)


def integrable(
    images: np.ndarray,
    lights: np.ndarray,
    weights: np.ndarray,
    mask: np.ndarray,
    prior: np.ndarray | None = None,
) -> np.ndarray:
    """Albedo-scaled normals (3, H, W) that also belong to one surface.

    What one pixel's pictures cannot say, its neighbours can: the normals are integrated, each slope counting as far as it
    can be trusted, and every pixel is solved again with a pull toward the normal of that surface. Pictures that then
    disagree with their pixel count less (Cauchy weights). Integrability as a constraint is Frankot and Chellappa's (PAMI
    1988); as a prior in the per-pixel fit it is our own.

    Args:
        images: (k, H, W), linear in the light received.
        lights: (k, 3) unit vectors.
        weights: (k, H, W), `observation_weights`.
        mask: (H, W) bool: pixels that are in the picture.
        prior: (3, H, W) mean of many faces' unit normals in the same frame, shorter than 1 where they differ: a further,
            weak pull, as strong as they agree (the concentration of their von Mises-Fisher distribution; Banerjee et al.,
            "Clustering on the unit hypersphere using von Mises-Fisher distributions", JMLR 2005, eq. 4.4).
    """
    scaled, variance = weighted(images, lights, weights)
    trusted = weights
    if prior is not None:
        length = np.clip(np.linalg.norm(prior, axis=0), 1e-6, 1 - 1e-6)
        concentration = length * (3 - length**2) / (1 - length**2)
        mean, pull = prior / length, np.minimum(_PULL_PER_CONCENTRATION * concentration, _PULL)
    for _ in range(_ROUNDS):
        surface = _surface_normals(scaled * mask, np.maximum(confidence(variance, lights), _DOUBTFUL) * mask)
        toward, strength = _PULL * _along(scaled, surface), np.full(mask.shape, _PULL)
        if prior is not None:
            toward, strength = toward + pull * _along(scaled, mean), strength + pull
        scaled, _ = weighted(images, lights, trusted, strength, toward / strength)
        albedo = np.sqrt(np.einsum("chw,chw->hw", scaled, scaled))
        error = (images - np.tensordot(lights, scaled, axes=1)) / (albedo + _DIM * np.mean(albedo * mask) + 1e-6)
        trusted = weights / (1 + (error / _OUTLIER) ** 2)
        variance = weighted(images, lights, trusted)[1]
    return scaled


def _surface_normals(scaled: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    length = np.maximum(np.sqrt(np.einsum("chw,chw->hw", scaled, scaled)), 1e-6)
    return normals_of(poisson(scaled / length, confidence.astype(np.float32), _STEPS))


def _along(scaled: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Normals scaled by the albedo that they leave: its projection, or part of it where they point elsewhere."""
    length = np.sqrt(np.einsum("chw,chw->hw", scaled, scaled))
    return np.maximum(np.einsum("chw,chw->hw", scaled, normals), 0.3 * length) * normals


def _without_it(images: np.ndarray, lights: np.ndarray) -> np.ndarray:
    """(k, H, W): each picture minus what the others predict for it; 0 where they cannot (three lights)."""
    projector = np.eye(len(lights)) - lights @ np.linalg.pinv(lights)
    free = np.diag(projector)
    projector = np.where(free[:, None] > 1e-6, projector / np.maximum(free, 1e-6)[:, None], 0).astype(np.float32)
    return np.tensordot(projector, images, axes=1)
