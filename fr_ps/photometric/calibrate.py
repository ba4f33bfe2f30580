"""Estimates, from the pictures, of the lights' relative intensities and of ambient light.

At a pixel that every light reaches, the k values of a Lambertian surface lie in the span of the three columns of light
directions. Unequal intensities and ambient light move them out of that span, which is observable with four lights or more.
"""

import numpy as np

from fr_ps.errors import InputError
from fr_ps.photometric.solve import residual_projector

_MIN_LIT_RATIO = 0.3
_MIN_PIXELS = 200
_ITERATIONS = 5
_RESIDUAL_FLOOR = 0.03
_MIN_RIDGE = 1e-6
_RIDGE_PER_RESIDUAL = 160.0
"""Ridge toward 1, per squared residual that neighbouring pixels share: about 1 / 0.08^2, as lights of nominally equal intensity
have a standard deviation of 0.08. The whole face counts as one observation, because specular skin is specular everywhere."""
_NEIGHBORHOOD = 64
_MIN_OBSERVABLE = 0.05


def calibrate_images(
    images: np.ndarray,
    saturated: np.ndarray,
    lights: np.ndarray,
    nominal_intensities: np.ndarray,
    *,
    calibrate_intensities: bool,
    calibrate_ambient: bool,
) -> tuple[np.ndarray, np.ndarray, float]:
    """The pictures, corrected to lights of equal intensity without ambient light.

    Args:
        images: (k, H, W) as recorded.
        saturated: (k, H, W) in [0, 1].
        lights: (k, 3) unit vectors.
        nominal_intensities: (k,) intensities of the lights that the capture states.
        calibrate_intensities: whether to estimate the intensities, starting from the nominal ones.
        calibrate_ambient: whether to estimate and subtract ambient light.

    Returns:
        The pictures (k, H, W) float32; the intensities (k,) of mean 1 and the ambient light that were removed.

    Raises:
        InputError: see `estimate_intensities` and `estimate_ambient`.
    """
    intensities, ambient = nominal_intensities / nominal_intensities.mean(), 0.0
    if calibrate_intensities:
        found = estimate_intensities(images / intensities[:, None, None], saturated, lights, calibrate_ambient)
        intensities = intensities * found / np.mean(intensities * found)
    if calibrate_ambient:
        ambient = estimate_ambient(images, saturated, lights, intensities)
    if ambient == 0 and np.ptp(intensities) == 0:
        return images, intensities, ambient
    return np.maximum((images - ambient) / intensities[:, None, None], 0).astype(np.float32), intensities, ambient


def estimate_intensities(images: np.ndarray, saturated: np.ndarray, lights: np.ndarray, with_ambient: bool) -> np.ndarray:
    """(k,) intensities of the lights, of mean 1, that bring the pixels nearest to the span of the light directions.

    Minimises sum_p w_p |P diag(I_p) u|^2, a quadratic form in u = 1 / intensities; P projects on the complement of the
    directions' span. A ridge toward 1 decides what the light directions leave undetermined. It grows with the remaining
    residual, because a surface that is not matte biases the estimate. The weights w fall with the residual, for robustness.

    Args:
        images: (k, H, W), linear in the light received.
        saturated: (k, H, W) in [0, 1].
        lights: (k, 3) unit vectors.
        with_ambient: whether the pictures contain ambient light. The estimate then uses differences to the mean pixel, in
            which ambient light cancels.

    Raises:
        InputError: fewer than four lights, or too few pixels that all lights reach.
    """
    pixels = _lit_pixels(images, saturated, "intensities")
    pixels = pixels - pixels.mean(axis=1, keepdims=True) if with_ambient else pixels
    pixels = pixels / np.sqrt(np.mean(np.sum(pixels**2, axis=0)))
    projector = residual_projector(lights)
    weights, ridge = np.ones(pixels.shape[1]), _MIN_RIDGE
    for _ in range(_ITERATIONS):
        form = projector * ((pixels * weights / weights.sum()) @ pixels.T)
        inverse = np.linalg.solve(form + ridge * np.eye(len(lights)), np.full(len(lights), ridge))
        inverse = np.maximum(inverse / inverse.mean(), 0.05)
        misfit = projector @ (inverse[:, None] * pixels)
        weights = 1 / np.maximum(np.sqrt(np.sum(misfit**2, axis=0)), _RESIDUAL_FLOOR)
        ridge = _RIDGE_PER_RESIDUAL * _correlated_residual(misfit) + _MIN_RIDGE
    return len(lights) / inverse / np.sum(1 / inverse)


def estimate_ambient(images: np.ndarray, saturated: np.ndarray, lights: np.ndarray, intensities: np.ndarray) -> float:
    """The ambient light that every pixel of every picture contains, 0 or more, in the unit of the pictures.

    Raises:
        InputError: fewer than four lights, too few pixels that all lights reach, or light directions with which ambient
            light is indistinguishable from a surface (as with four lights in a rectangle).
    """
    projector = residual_projector(lights)
    ambient_residual = projector @ (1 / intensities)
    if np.linalg.norm(ambient_residual) < _MIN_OBSERVABLE * np.linalg.norm(1 / intensities):
        raise InputError(
            "with these light directions, ambient light is indistinguishable from a surface and cannot be estimated; "
            "set --estimate-ambient false, or capture a picture without lights and subtract it"
        )
    pixels = _lit_pixels(images, saturated, "ambient light")
    ambient = ambient_residual @ (projector @ (pixels / intensities[:, None])) / np.sum(ambient_residual**2)
    return float(max(np.median(ambient), 0))


def _correlated_residual(residual: np.ndarray) -> float:
    """The squared length of the residual (k, n) that neighbouring pixels share, which excludes the noise of single pixels."""
    runs = residual[:, : residual.shape[1] // _NEIGHBORHOOD * _NEIGHBORHOOD].reshape(len(residual), -1, _NEIGHBORHOOD)
    return float(np.median(np.sum(runs.mean(axis=2) ** 2, axis=0)))


def _lit_pixels(images: np.ndarray, saturated: np.ndarray, what: str) -> np.ndarray:
    """(k, n) float64: the pixels that every light reaches and none saturates."""
    if len(images) < 4:
        raise InputError(f"{what} cannot be estimated from {len(images)} lights; use four lights or more")
    brightest = images.max(axis=0)
    lit = (images.min(axis=0) > _MIN_LIT_RATIO * brightest) & (brightest > 0.05) & (saturated.max(axis=0) == 0)
    if lit.sum() < _MIN_PIXELS:
        raise InputError(f"{what} cannot be estimated: every light reaches only {lit.sum()} pixels; {_MIN_PIXELS} are required")
    return images[:, lit].astype(np.float64)
