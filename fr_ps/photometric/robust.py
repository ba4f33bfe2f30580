"""Normals despite shadows and highlights, with as few as four lights.

`observation_weights` weights each observation in each pixel; `solve.weighted_least_squares` with these weights is the solver
`robust`. `solve_integrable` also uses neighbouring pixels.
"""

from typing import NamedTuple

import numpy as np

from fr_ps.photometric.integrate import normals_from_depth, poisson
from fr_ps.photometric.outliers import many_light_weights
from fr_ps.photometric.solve import leave_one_out_residuals, weighted_least_squares

MIN_MANY_LIGHTS = 8
"""With this number of lights or more, a pixel has enough observations to select which ones to fit."""
_SATURATED_WEIGHT = 0.05
_MAX_WEIGHT = 1.04
_HIGHLIGHT_CANDIDATE_RATIO = 0.8
_ALL_LIT_RATIO = 0.7
_EPSILON = 1e-6
_MIN_SECOND_RATIO = 1e-3
_SAMPLES = 50
"""Approximate number of rows and columns that percentiles are computed from."""


class _WeightRule(NamedTuple):
    """Parameters of the weights with few lights.

    Attributes:
        full_weight_ratio: an observation has full weight from this share of the pixel's brightest observation on.
        max_excess: for that share, the brightest observation counts as at most this multiple of the second brightest, because
            it may be a highlight.
        min_weight: weight of a black observation. Not 0: with two shadows among four lights, the other two lights alone do
            not determine a normal.
        reference_second: whether the next two are relative to the second brightest observation, instead of the brightest.
        highlight_penalty: how strongly the weight falls where an observation exceeds the prediction from the other lights.
        lit_power: exponent of the pixel's darkest observation, which multiplies that penalty: an excess in a shadowed pixel is
            no highlight.
    """

    full_weight_ratio: float
    max_excess: float
    min_weight: float
    reference_second: bool
    highlight_penalty: float
    lit_power: float


_MATTE = _WeightRule(
    full_weight_ratio=0.35, max_excess=4, min_weight=0.04, reference_second=False, highlight_penalty=10, lit_power=2
)
_GLOSSY = _WeightRule(
    full_weight_ratio=0.2, max_excess=1, min_weight=0.12, reference_second=True, highlight_penalty=30, lit_power=1
)
_GLOSSINESS_RATIOS = (2.5, 3.5)
"""Glossiness is 0 at the first and 1 at the second of these ratios. 155 of the 158 sessions of Yale B have at most 2.5."""

_ITERATIONS = 3
_CG_ITERATIONS = 6
_PRIOR_WEIGHT = 0.5
_PRIOR_WEIGHT_PER_CONCENTRATION = 0.0015
_CAUCHY_SCALE = 0.3
_ALBEDO_FLOOR = 0.02
_MIN_CONFIDENCE = 0.05


def observation_weights(images: np.ndarray, saturated: np.ndarray, lights: np.ndarray) -> np.ndarray:
    """The weight of each observation in each pixel: low where it is not Lambertian, and where it is saturated.

    With `MIN_MANY_LIGHTS` lights or more: `outliers.many_light_weights`. With fewer:

    - A shadow is an observation that is dark relative to the brighter ones. With four lights it is ambiguous with a surface
      that faces away from the light, but such an observation is dark too and constrains the normal little.
    - A highlight is an observation that is brighter than the other lights predict (the residual over 1 - leverage, which is
      the difference to the fit without it), in a pixel that all lights reach.
    - On a glossy object the dim observations are the surface's shading and the brightest one is the highlight, so two rules
      are blended by the session's glossiness.

    Args:
        images: (k, H, W), linear in the light received.
        saturated: (k, H, W) in [0, 1]: share of the pixel that is saturated.
        lights: (k, 3) unit vectors.

    Returns:
        (k, H, W) float32 in (0, 1.04].
    """
    trust = saturated * (_SATURATED_WEIGHT - 1)
    trust += 1
    if len(lights) >= MIN_MANY_LIGHTS:
        return many_light_weights(images, trust, lights)
    first, second = _two_brightest(images)
    glossy = glossiness(first, second)
    weights = _few_light_weights(images, lights, first, second, _MATTE if glossy < 1 else _GLOSSY)
    if 0 < glossy < 1:
        weights += glossy * (_few_light_weights(images, lights, first, second, _GLOSSY) - weights)
    weights *= trust
    return weights


def glossiness(first: np.ndarray, second: np.ndarray) -> float:
    """0 (matte) to 1 (glossy): how far the brightest observations of a session exceed the second brightest.

    The 99th percentile over pixels of the brightest observation, over the 90th percentile of the second brightest. The
    percentiles are robust to pixels with shadows (dark second brightest) and sensitive to highlights (bright brightest).

    Args:
        first: (H, W), the brightest observation of each pixel, above 0.
        second: (H, W), the second brightest, above 0.
    """
    step = max(1, min(first.shape) // _SAMPLES)
    first, second = first[::step, ::step], second[::step, ::step]
    lit = first > _MIN_SECOND_RATIO * first.max()
    ratio = np.quantile(first[lit], 0.99) / np.quantile(second[lit], 0.9)
    low, high = _GLOSSINESS_RATIOS
    return float(np.clip(np.log(ratio / low) / np.log(high / low), 0, 1))


def _two_brightest(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) each: the brightest and the second brightest observation, both clipped to be positive."""
    first, second = np.maximum(images[0], images[1]), np.minimum(images[0], images[1])
    for image in images[2:]:
        second = np.maximum(second, np.minimum(first, image))
        first = np.maximum(first, image)
    first = np.maximum(first, _EPSILON)
    return first, np.maximum(second, _MIN_SECOND_RATIO * first)


def _few_light_weights(
    images: np.ndarray, lights: np.ndarray, first: np.ndarray, second: np.ndarray, rule: _WeightRule
) -> np.ndarray:
    # In place: allocating arrays of this size takes longer than the arithmetic.
    bright = images / (rule.full_weight_ratio * np.minimum(first, rule.max_excess * second))
    np.minimum(bright, 1, out=bright)
    weights = np.sqrt(bright)
    weights *= bright
    weights *= _MAX_WEIGHT - rule.min_weight
    weights += rule.min_weight
    reference = second if rule.reference_second else first
    lit = np.clip(images.min(axis=0) / (_ALL_LIT_RATIO * reference), 0, 1) ** rule.lit_power
    divisor = np.maximum(leave_one_out_residuals(images, lights), 0)
    divisor *= rule.highlight_penalty * lit / reference
    divisor *= images >= _HIGHLIGHT_CANDIDATE_RATIO * first
    divisor += 1
    weights /= divisor
    return weights.astype(np.float32, copy=False)


def confidence(variance: np.ndarray, lights: np.ndarray) -> np.ndarray:
    """(H, W) in (0, 1]: the variance of a normal with all weights 1, over `variance` (H, W), that with the given weights."""
    return np.clip(np.trace(np.linalg.inv(lights.T @ lights)) / variance, 0, 1)


def solve_integrable(
    images: np.ndarray,
    lights: np.ndarray,
    weights: np.ndarray,
    mask: np.ndarray,
    prior: np.ndarray | None = None,
) -> np.ndarray:
    """Albedo-scaled normals (3, H, W) with a prior toward integrability, so that neighbouring pixels constrain each other.

    Each iteration integrates the normals, weighted by their confidence, and solves every pixel again with a prior at the
    normal of that surface. Observations that disagree with the fit lose weight (Cauchy weights). Integrability as a
    constraint is Frankot and Chellappa's (PAMI 1988); as a prior in the per-pixel fit it is our own.

    Args:
        images: (k, H, W), linear in the light received.
        lights: (k, 3) unit vectors.
        weights: (k, H, W), `observation_weights`.
        mask: (H, W) bool: pixels inside the picture.
        prior: (3, H, W) mean of many faces' unit normals in the same frame, shorter than 1 where they differ: a second, weak
            prior, weighted by the concentration of their von Mises-Fisher distribution (Banerjee et al., "Clustering on the
            unit hypersphere using von Mises-Fisher distributions", JMLR 2005, eq. 4.4).
    """
    scaled, variance = weighted_least_squares(images, lights, weights)
    trusted = weights
    if prior is not None:
        length = np.clip(np.linalg.norm(prior, axis=0), 1e-6, 1 - 1e-6)
        concentration = length * (3 - length**2) / (1 - length**2)
        face_normals = prior / length
        face_weight = np.minimum(_PRIOR_WEIGHT_PER_CONCENTRATION * concentration, _PRIOR_WEIGHT)
    for _ in range(_ITERATIONS):
        surface = _integrable_normals(scaled * mask, np.maximum(confidence(variance, lights), _MIN_CONFIDENCE) * mask)
        prior_mean, prior_weight = _PRIOR_WEIGHT * _project_on_normals(scaled, surface), np.full(mask.shape, _PRIOR_WEIGHT)
        if prior is not None:
            prior_mean, prior_weight = (
                prior_mean + face_weight * _project_on_normals(scaled, face_normals),
                prior_weight + face_weight,
            )
        scaled, _ = weighted_least_squares(images, lights, trusted, prior_weight, prior_mean / prior_weight)
        albedo = np.sqrt(np.einsum("chw,chw->hw", scaled, scaled))
        error = (images - np.tensordot(lights, scaled, axes=1)) / (albedo + _ALBEDO_FLOOR * np.mean(albedo * mask) + 1e-6)
        trusted = weights / (1 + (error / _CAUCHY_SCALE) ** 2)
        variance = weighted_least_squares(images, lights, trusted)[1]
    return scaled


def _integrable_normals(scaled: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    length = np.maximum(np.sqrt(np.einsum("chw,chw->hw", scaled, scaled)), 1e-6)
    return normals_from_depth(poisson(scaled / length, confidence.astype(np.float32), _CG_ITERATIONS))


def _project_on_normals(scaled: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """`normals` scaled by the projection of `scaled` on them, at least 0.3 times its length."""
    length = np.sqrt(np.einsum("chw,chw->hw", scaled, scaled))
    return np.maximum(np.einsum("chw,chw->hw", scaled, normals), 0.3 * length) * normals
