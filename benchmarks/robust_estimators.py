"""Estimators of albedo-scaled normals from many lights that `many_lights.py` compares with `robust`.

Each takes images (k, n), lights (k, 3) and trust (k, n) in (0, 1], which is low where an observation is saturated, and
returns (3, n). `shadows_left_out` gives each of them a weight near 0 for observations in deep shadow.
"""

from collections.abc import Callable
from itertools import combinations

import numpy as np

from fr_ps.photometric.solve import weighted_least_squares

Estimator = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

ITERATIONS = 30
HUBER, CAUCHY = 1.345, 2.385
"""Tuning constants in standard deviations: 95 % efficiency with normal noise."""
TRIPLETS, INLIER, MAX_CONDITION, BLOCK_PIXELS = 200, 0.05, 8.0, 512
"""Of RANSAC: triplets of lights, residual of an inlier relative to the pixel's median, largest condition of a triplet, and
pixels at once."""
RANK_STEPS, RANK_TOLERANCE = 60, 1e-4
FLOOR = 1e-3
"""Least residual relative to the pixel's median: below it all residuals count as equal."""
SHADOW, SHADOW_TRUST = 0.1, 1e-4
"""Deep shadow, relative to the pixel's median as in `robust`, and its trust."""


def least_squares(images: np.ndarray, lights: np.ndarray, trust: np.ndarray) -> np.ndarray:
    """Woodham, Optical Engineering 1980, weighted by trust."""
    return weighted_least_squares(images, lights, trust)[0]


def l1(images: np.ndarray, lights: np.ndarray, trust: np.ndarray) -> np.ndarray:
    """Least absolute residuals. Ikehata et al., "Robust photometric stereo using sparse regression", CVPR 2012."""
    return _reweighted(images, lights, trust, lambda residual, floor: 1 / np.maximum(residual, floor))


def huber(images: np.ndarray, lights: np.ndarray, trust: np.ndarray) -> np.ndarray:
    """Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics 1964; scale by the median."""

    def weights(residual: np.ndarray, floor: np.ndarray) -> np.ndarray:
        return 1 / np.maximum(residual / (HUBER * _scale(residual, floor)), 1)

    return _reweighted(images, lights, trust, weights)


def cauchy(images: np.ndarray, lights: np.ndarray, trust: np.ndarray) -> np.ndarray:
    """Cauchy weights (Holland and Welsch, Communications in Statistics 1977), from the L1 solution; scale by the median."""

    def weights(residual: np.ndarray, floor: np.ndarray) -> np.ndarray:
        return 1 / (1 + (residual / (CAUCHY * _scale(residual, floor))) ** 2)

    return _reweighted(images, lights, trust, weights, start=l1(images, lights, trust))


def ransac(images: np.ndarray, lights: np.ndarray, trust: np.ndarray) -> np.ndarray:
    """The triplet of lights with most inliers, then least squares of these.

    Mukaigawa et al., "Analysis of photometric factors based on photometric linearization", JOSA A 2007. An attached shadow
    that the triplet's normal predicts is an inlier.
    """
    triplets = [list(one) for one in combinations(range(len(lights)), 3)]
    triplets = [one for one in triplets if np.linalg.cond(lights[one]) < MAX_CONDITION]
    chosen = np.random.default_rng(0).permutation(len(triplets))[:TRIPLETS]
    blocks = [slice(start, start + BLOCK_PIXELS) for start in range(0, images.shape[1], BLOCK_PIXELS)]
    found = [_ransac(images[:, block], lights, trust[:, block], [triplets[index] for index in chosen]) for block in blocks]
    return np.concatenate(found, axis=1)


def _ransac(images: np.ndarray, lights: np.ndarray, trust: np.ndarray, triplets: list[list[int]]) -> np.ndarray:
    tolerance = INLIER * _reference(images)
    most, inliers = np.full(images.shape[1], -1.0), np.ones(images.shape, dtype=bool)
    for triplet in triplets:
        shading = (lights @ np.linalg.inv(lights[triplet])).astype(np.float32) @ images[triplet]
        found = np.abs(images - np.maximum(shading, 0)) < tolerance
        count = np.sum(found * trust, axis=0)
        better = count > most
        most = np.where(better, count, most)
        # A shadow counts as explained, but it hardly constrains the normal, so it is no part of the fit.
        inliers = np.where(better, found & (shading > 0), inliers)
    return weighted_least_squares(images, lights, inliers * trust + SHADOW_TRUST)[0]


def low_rank(images: np.ndarray, lights: np.ndarray, trust: np.ndarray) -> np.ndarray:
    """Least squares of the low-rank part of all pixels.

    Wu et al., "Robust photometric stereo via low-rank matrix completion and recovery", ACCV 2010: min |A|_* + lambda |E|_1
    with A + E = D on trusted observations, by the inexact augmented Lagrangian of Lin et al., arXiv 1009.5055.
    """
    images = images.astype(np.float64)
    missing = trust < 0.5
    sparsity = 1 / np.sqrt(max(images.shape))
    norm = np.linalg.norm(images, 2)
    multiplier = images / max(norm, np.abs(images).max() / sparsity)
    penalty, outliers = 1.25 / norm, np.zeros_like(images)
    for _ in range(RANK_STEPS):
        target = images - outliers + multiplier / penalty
        squares, u = np.linalg.eigh(target @ target.T)
        lengths = np.sqrt(np.maximum(squares, 1e-12))
        low = (u * np.maximum(1 - 1 / (penalty * lengths), 0)) @ (u.T @ target)
        rest = images - low + multiplier / penalty
        outliers = np.where(missing, rest, np.sign(rest) * np.maximum(np.abs(rest) - sparsity / penalty, 0))
        gap = images - low - outliers
        multiplier += penalty * gap
        penalty = min(1.5 * penalty, 1e7 / norm)
        if np.linalg.norm(gap) < RANK_TOLERANCE * np.linalg.norm(images):
            break
    return np.linalg.pinv(lights) @ low


def shadows_left_out(estimator: Estimator) -> Estimator:
    """The estimator with observations in deep shadow almost untrusted."""

    def without_shadows(images: np.ndarray, lights: np.ndarray, trust: np.ndarray) -> np.ndarray:
        return estimator(images, lights, trust * np.where(images < SHADOW * _reference(images), SHADOW_TRUST, 1))

    return without_shadows


def _reweighted(
    images: np.ndarray,
    lights: np.ndarray,
    trust: np.ndarray,
    weigh: Callable[[np.ndarray, np.ndarray], np.ndarray],
    start: np.ndarray | None = None,
) -> np.ndarray:
    """Iteratively reweighted least squares with the weights `weigh(absolute residual (k, n), its floor (n,))`."""
    scaled, floor = least_squares(images, lights, trust) if start is None else start, FLOOR * _reference(images)
    for _ in range(ITERATIONS):
        scaled = least_squares(images, lights, trust * weigh(np.abs(images - lights @ scaled), floor))
    return scaled


def _scale(residual: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """(n,): standard deviation of normal noise with the pixel's median absolute residual."""
    return np.maximum(1.4826 * np.median(residual, axis=0), floor)


def _reference(images: np.ndarray) -> np.ndarray:
    """(n,): brightness of the pixel, its median observation as in `robust`."""
    return np.maximum(np.median(images, axis=0), 0.02 * np.maximum(images.max(axis=0), 1e-6))


ESTIMATORS: dict[str, Estimator] = {
    "least squares": least_squares,
    "L1": l1,
    "L1, no shadows": shadows_left_out(l1),
    "Huber": huber,
    "Huber, no shadows": shadows_left_out(huber),
    "Cauchy": cauchy,
    "Cauchy, no shadows": shadows_left_out(cauchy),
    "RANSAC": ransac,
    "RANSAC, no shadows": shadows_left_out(ransac),
    "low rank": low_rank,
    "low rank, no shadows": shadows_left_out(low_rank),
}
