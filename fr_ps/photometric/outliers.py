"""Eight lights or more: weights of the observations of each pixel, by how well a Lambertian surface explains them.

A highlight is brighter than the surface's shading and a shadow is darker, so the observations in between are to be fitted.
That range differs from pixel to pixel. Several bands of the sorted observations are fitted, and each band is weighted by how
well its fit explains all observations of the pixel.
"""

import math

import numpy as np
from scipy.special import softmax

from fr_ps.photometric.solve import weighted_least_squares

_BANDS = ((0.0, 0.4), (0.2, 0.6), (0.4, 0.8), (0.6, 1.0), (0.0, 1.0))
"""Lower and upper quantile of the sorted observations, without those in deep shadow."""
_OUTSIDE_WEIGHT = 1e-4
"""Weight of the observations outside a band: keeps rank 3 if the band's lights are in one plane."""
_FULL_WEIGHT_RATIO, _MIN_WEIGHT = 0.35, 0.04
_DEEP_SHADOW = 0.1
_MIN_REFERENCE_RATIO = 0.02
_MIN_PEAK_WEIGHT = 0.2
_EPSILON = 1e-6

# The mixture in `_likelihood`: probabilities, then widths relative to the prediction or to the pixel's reference brightness.
_P_HIGHLIGHT = 0.5
_P_SHADOW = 0.1
_P_NEITHER = 3e-4
_SIGMAS = ((0.1, 0.015), (0.01, 0.005))
"""Relative to the prediction, and to the pixel's reference: of a surface that is not quite Lambertian, and of one that is."""
_P_LAMBERTIAN = 0.5
_MIN_LAMBERTIAN_LIGHTS = 8
"""A band of so few observations is fitted exactly whatever they are, so an exact fit counts more with more lights."""
_HIGHLIGHT_LOG_RANGE = math.log(250)
_SHADOW_THRESHOLD = 0.5

_EM_ITERATIONS = 10
_MIN_PRIOR = 0.001
_BLOCK_PIXELS = 4096
"""Pixels that are processed at once, so that intermediate arrays stay in the processor's cache."""


def many_light_weights(images: np.ndarray, trust: np.ndarray, lights: np.ndarray) -> np.ndarray:
    """The weight of each observation: the mean over candidate weights, each weighted by its posterior probability in the pixel.

    A candidate keeps a band of the pixel's sorted observations (position thresholding: Shi et al., "Bi-polynomial modeling
    of low-frequency reflectances", PAMI 2014), or weights each observation by its brightness. Its weighted fit gives the
    likelihood of all observations under a mixture of shading, highlights and shadows (a mixture of inliers and outliers
    instead of a count of inliers: Torr and Zisserman, "MLESAC", CVIU 2000). The prior probability of a candidate is its mean
    posterior in this session (expectation maximisation of mixing proportions: Dempster et al., JRSS B 1977), so that dim
    observations gain weight on a glossy object. The combination is our own.

    Args:
        images: (k, H, W), linear in the light received.
        trust: (k, H, W) in (0, 1]: a factor for each observation, low where it is saturated.
        lights: (k, 3) of rank 3.

    Returns:
        (k, H, W) float32 in (0, 1]: the largest of a pixel that is lit is 1, before `trust`.
    """
    shape = images.shape
    pixels, factors = images.reshape(len(images), -1), trust.reshape(len(images), -1)
    blocks = [slice(start, start + _BLOCK_PIXELS) for start in range(0, pixels.shape[1], _BLOCK_PIXELS)]
    scores = np.concatenate([_log_likelihoods(pixels[:, block], factors[:, block], lights) for block in blocks], axis=1)
    posterior = _posterior(scores, lit=pixels.max(axis=0) > _EPSILON)
    weights = np.empty(pixels.shape, dtype=np.float32)
    for block in blocks:
        candidates, _ = _candidate_weights(pixels[:, block])
        mean = sum(p * candidate for p, candidate in zip(posterior[:, block].astype(np.float32), candidates))
        # The fit depends on ratios only. If all candidates fit equally well, all observations count and confidence is high.
        weights[:, block] = factors[:, block] * (mean / np.maximum(mean.max(axis=0), _MIN_PEAK_WEIGHT))
    return weights.reshape(shape)


def _candidate_weights(pixels: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Weights (k, n) of each candidate for the pixels (k, n), and the reference brightness (n,) of each pixel.

    The reference is the median, because shadows or highlights in up to half of the observations hardly change it.
    """
    count = len(pixels)
    order = np.argsort(pixels.T, axis=1, kind="stable")
    ordered = np.take_along_axis(pixels.T, order, axis=1)
    rank = np.empty(order.shape, dtype=np.float32)
    np.put_along_axis(rank, order, np.arange(count, dtype=np.float32)[None], axis=1)
    median, brightest = (ordered[:, (count - 1) // 2] + ordered[:, count // 2]) / 2, np.maximum(ordered[:, -1], _EPSILON)
    reference = np.maximum(median, _MIN_REFERENCE_RATIO * brightest)
    dark = np.sum(ordered < _DEEP_SHADOW * reference[:, None], axis=1, dtype=np.float32)
    # The quantile of an observation among those outside deep shadow. Observations in deep shadow rank lowest.
    quantile = (rank.T - dark) / np.maximum(count - dark, 1) + _EPSILON
    candidates = [
        np.where((quantile >= low) & (quantile < high), np.float32(1), np.float32(_OUTSIDE_WEIGHT)) for low, high in _BANDS
    ]
    bright = np.minimum(pixels / (_FULL_WEIGHT_RATIO * brightest), 1)
    return [*candidates, bright * np.sqrt(bright) + _MIN_WEIGHT], reference


def _log_likelihoods(pixels: np.ndarray, factors: np.ndarray, lights: np.ndarray) -> np.ndarray:
    """(candidates, n): log-likelihood of the pixels (k, n) under the fit of each candidate."""
    candidates, reference = _candidate_weights(pixels)
    scores = []
    for candidate in candidates:
        scaled, _ = weighted_least_squares(pixels, lights, candidate * factors)
        scores.append(np.sum(factors * np.log(_likelihood(pixels, lights, scaled, reference)), axis=0))
    return np.array(scores)


def _likelihood(pixels: np.ndarray, lights: np.ndarray, scaled: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(k, n): density of each observation, given a surface of albedo-scaled normals `scaled` (3, n).

    Shading is normal around the prediction. Its deviation is proportional to the prediction, for a surface that is not quite
    Lambertian, or ten times smaller: a fit that explains many observations exactly is better than one that explains more of them
    roughly, as broad highlights allow. An attached shadow is a prediction of 0. A highlight is log-uniform above the prediction,
    a cast shadow uniform below half of it.
    """
    predicted = np.maximum(lights.astype(np.float32) @ scaled, 0)
    residual = pixels - predicted
    lambertian = _P_LAMBERTIAN * max(1 - _MIN_LAMBERTIAN_LIGHTS / len(pixels), 0)
    shaded = np.zeros_like(predicted)
    for (relative, absolute), probability in zip(_SIGMAS, (1 - lambertian, lambertian)):
        spread = relative * predicted + absolute * reference
        scale = probability * (1 - _P_HIGHLIGHT - _P_SHADOW) / math.sqrt(2 * math.pi)
        shaded += np.exp(-0.5 * (residual / spread) ** 2) * (scale / spread)
    noise = _SIGMAS[0][1] * reference
    level = np.maximum(predicted, noise)
    outlier = np.where(
        pixels > predicted,
        _P_HIGHLIGHT / _HIGHLIGHT_LOG_RANGE / np.maximum(pixels, noise),
        np.where(pixels < _SHADOW_THRESHOLD * predicted, _P_SHADOW / _SHADOW_THRESHOLD, _P_NEITHER) / level,
    )
    return shaded + outlier


def _posterior(scores: np.ndarray, lit: np.ndarray) -> np.ndarray:
    """(candidates, n): posterior probability of each candidate; the prior is estimated over the `lit` (n,) pixels."""
    prior = np.full(len(scores), 1 / len(scores))
    for _ in range(_EM_ITERATIONS if lit.any() else 0):
        prior = softmax(scores[:, lit] + np.log(prior)[:, None], axis=0).mean(axis=1) + _MIN_PRIOR
    return softmax(scores + np.log(prior)[:, None], axis=0)
