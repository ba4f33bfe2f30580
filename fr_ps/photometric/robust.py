"""Normals despite shadows and highlights, with as few as four lights.

The weight of each observation in each pixel; `solve.weighted` with these weights is the solver `robust`. Then `integrable`,
which also uses neighbouring pixels.
"""

from typing import NamedTuple

import numpy as np

from fr_ps.photometric.integrate import normals_from_depth, poisson
from fr_ps.photometric.outliers import many_light_weights
from fr_ps.photometric.solve import weighted_least_squares

MIN_MANY_LIGHTS = 8
"""From this number of lights on, a pixel has enough observations to choose the ones to fit."""
_SATURATED_WEIGHT = 0.05
_MAX_WEIGHT = 1.04
_HIGHLIGHT_CANDIDATE_RATIO = 0.8
_ALL_LIT_RATIO = 0.7
_EPSILON = 1e-6
_MIN_SECOND_RATIO = 1e-3
_SAMPLES = 50
"""Rows and columns, about, that percentiles are taken from."""


class _WeightRule(NamedTuple):
    """How few lights are weighted.

    Attributes:
        excess: an observation has full weight above `dark` times the brightest one, but at most `excess` times the second
            brightest: the brightest may be a highlight.
        dark: see `excess`.
        least: weight of a black observation. Not 0: two shadows among four lights leave the others too few to determine a
            normal.
        by_second: whether excess and darkness are measured against the second brightest, not the brightest.
        highlight: how strongly the weight falls with the excess over what the other lights predict.
        lit_power: of the darkest over that reference: where a light is missing, no excess is a highlight.
    """

    excess: float
    dark: float
    min_weight: float
    by_second: bool
    highlight: float
    lit_power: float


_MATTE = _WeightRule(excess=4, dark=0.35, min_weight=0.04, by_second=False, highlight=10, lit_power=2)
_GLOSSY = _WeightRule(excess=1, dark=0.2, min_weight=0.12, by_second=True, highlight=30, lit_power=1)
_GLOSSINESS_RATIOS = (2.5, 3.5)
"""Glossiness is 0 at the first of these ratios and 1 at the second. 155 of the 158 sessions of Yale B have at most 2.5."""

_ITERATIONS = 3
_CG_ITERATIONS = 6
_PRIOR_WEIGHT = 0.5
_PRIOR_WEIGHT_PER_CONCENTRATION = 0.0015
_CAUCHY_SCALE = 0.3
_ALBEDO_FLOOR = 0.02
_MIN_CONFIDENCE = 0.05


def observation_weights(images: np.ndarray, saturated: np.ndarray, lights: np.ndarray) -> np.ndarray:
    """The weight of each observation in each pixel: low where it is not Lambertian, and where it is saturated.

    From `MANY_LIGHTS` lights on: `outliers.many_light_weights`. With fewer: a shadow is an observation that is dark beside
    the brighter ones. With four lights a shadow looks like a surface that faces away, but the latter is dark as well, and
    then constrains the normal little. A highlight is an observation that is brighter than the other lights predict (the
    residual over 1 - leverage, which is the difference to the fit without it), where no light is missing. On a glossy object
    dim observations are the surface's shading and the brightest one is the highlight, so two rules are blended by the
    session's glossiness.

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
    """0 (matte) to 1 (glossy): by how much the brightest observations of a session exceed what two lights reach.

    The 99th percentile over pixels of the brightest observation, over the 90th percentile of the second brightest. A shadow
    makes single pixels' second brightest dark, a highlight single pixels' brightest one bright.

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
    """(H, W) each: the brightest and the second brightest observation, above 0 also where it is dark."""
    first, second = np.maximum(images[0], images[1]), np.minimum(images[0], images[1])
    for image in images[2:]:
        second = np.maximum(second, np.minimum(first, image))
        first = np.maximum(first, image)
    first = np.maximum(first, _EPSILON)
    return first, np.maximum(second, _MIN_SECOND_RATIO * first)


def _few_light_weights(
    images: np.ndarray, lights: np.ndarray, first: np.ndarray, second: np.ndarray, rule: _WeightRule
) -> np.ndarray:
    # In place, as new arrays of this size cost more than the arithmetic.
    bright = images / (rule.dark * np.minimum(first, rule.excess * second))
    np.minimum(bright, 1, out=bright)
    weights = np.sqrt(bright)
    weights *= bright
    weights *= _MAX_WEIGHT - rule.min_weight
    weights += rule.min_weight
    reference = second if rule.by_second else first
    lit = np.clip(images.min(axis=0) / (_ALL_LIT_RATIO * reference), 0, 1) ** rule.lit_power
    divisor = np.maximum(_leave_one_out_residuals(images, lights), 0)
    divisor *= rule.highlight * lit / reference
    divisor *= images >= _HIGHLIGHT_CANDIDATE_RATIO * first
    divisor += 1
    weights /= divisor
    return weights.astype(np.float32, copy=False)


def confidence(variance: np.ndarray, lights: np.ndarray) -> np.ndarray:
    """(H, W) in (0, 1]: the variance of a normal with all pictures in full over that with their weights (H, W)."""
    return np.clip(np.trace(np.linalg.inv(lights.T @ lights)) / variance, 0, 1)


def solve_integrable(
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
    scaled, variance = weighted_least_squares(images, lights, weights)
    trusted = weights
    if prior is not None:
        length = np.clip(np.linalg.norm(prior, axis=0), 1e-6, 1 - 1e-6)
        concentration = length * (3 - length**2) / (1 - length**2)
        mean, pull = prior / length, np.minimum(_PRIOR_WEIGHT_PER_CONCENTRATION * concentration, _PRIOR_WEIGHT)
    for _ in range(_ITERATIONS):
        surface = _integrable_normals(scaled * mask, np.maximum(confidence(variance, lights), _MIN_CONFIDENCE) * mask)
        toward, strength = _PRIOR_WEIGHT * _project_on_normals(scaled, surface), np.full(mask.shape, _PRIOR_WEIGHT)
        if prior is not None:
            toward, strength = toward + pull * _project_on_normals(scaled, mean), strength + pull
        scaled, _ = weighted_least_squares(images, lights, trusted, strength, toward / strength)
        albedo = np.sqrt(np.einsum("chw,chw->hw", scaled, scaled))
        error = (images - np.tensordot(lights, scaled, axes=1)) / (albedo + _ALBEDO_FLOOR * np.mean(albedo * mask) + 1e-6)
        trusted = weights / (1 + (error / _CAUCHY_SCALE) ** 2)
        variance = weighted_least_squares(images, lights, trusted)[1]
    return scaled


def _integrable_normals(scaled: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    length = np.maximum(np.sqrt(np.einsum("chw,chw->hw", scaled, scaled)), 1e-6)
    return normals_from_depth(poisson(scaled / length, confidence.astype(np.float32), _CG_ITERATIONS))


def _project_on_normals(scaled: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Normals scaled by the albedo that they leave: its projection, or part of it where they point elsewhere."""
    length = np.sqrt(np.einsum("chw,chw->hw", scaled, scaled))
    return np.maximum(np.einsum("chw,chw->hw", scaled, normals), 0.3 * length) * normals


def _leave_one_out_residuals(images: np.ndarray, lights: np.ndarray) -> np.ndarray:
    """(k, H, W): each picture minus what the others predict for it; 0 where they cannot (three lights)."""
    projector = np.eye(len(lights)) - lights @ np.linalg.pinv(lights)
    free = np.diag(projector)
    projector = np.where(free[:, None] > 1e-6, projector / np.maximum(free, 1e-6)[:, None], 0).astype(np.float32)
    return np.tensordot(projector, images, axes=1)
