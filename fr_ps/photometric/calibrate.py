"""What the pictures themselves tell of the lights: their relative intensities, and light that is always there.

Where every light reaches, a Lambertian pixel's k pictures lie in the space of the lights' three directions. Intensities and
ambient light that take them out of it can be seen, with four lights and more.
"""

import numpy as np

from fr_ps.errors import InputError

_MIN_LIT_RATIO = 0.3
_MIN_PIXELS = 200
_ITERATIONS = 5
_RESIDUAL_FLOOR = 0.03
_MIN_RIDGE = 1e-6
_RIDGE_PER_RESIDUAL = 160.0
"""Pull toward 1 per squared residual that neighbours share: 1 / 0.08^2, the spread of lights that are meant to be equal. As
if a face were one observation: where its skin is not matte, it is so all over."""
_NEIGHBORHOOD = 64
_MIN_OBSERVABLE = 0.05


def calibrate_images(
    images: np.ndarray,
    saturated: np.ndarray,
    lights: np.ndarray,
    nominal_intensities: np.ndarray,
    *,
    intensities_too: bool,
    ambient_too: bool,
) -> tuple[np.ndarray, np.ndarray, float]:
    """The pictures as lights of equal intensity and nothing else would make them.

    Args:
        images: (k, H, W) as recorded.
        saturated: (k, H, W) in [0, 1].
        lights: (k, 3) unit vectors.
        stated: (k,) intensities of the lights as the capture has them.
        intensities_too: whether to estimate them further.
        ambient_too: whether to estimate ambient light and to subtract it.

    Returns:
        The pictures (k, H, W) float32; the intensities (k,) of mean 1 and the ambient light that were taken out.

    Raises:
        InputError: as the two estimates below.
    """
    intensities, ambient = nominal_intensities / nominal_intensities.mean(), 0.0
    if intensities_too:
        found = estimate_intensities(images / intensities[:, None, None], saturated, lights, ambient_too)
        intensities = intensities * found / np.mean(intensities * found)
    if ambient_too:
        ambient = estimate_ambient(images, saturated, lights, intensities)
    if ambient == 0 and np.ptp(intensities) == 0:
        return images, intensities, ambient
    return np.maximum((images - ambient) / intensities[:, None, None], 0).astype(np.float32), intensities, ambient


def estimate_intensities(images: np.ndarray, saturated: np.ndarray, lights: np.ndarray, with_ambient: bool) -> np.ndarray:
    """(k,) intensities of the lights, of mean 1, that bring the pixels nearest to the space of the directions.

    For u = 1 / intensities, sum_p w_p |P diag(I_p) u|^2 is least, P the projector on what the directions do not span; a
    quadratic form in u. A pull toward 1 decides what the lights' places leave open; it grows with the residual that is left,
    as a surface that is not matte bends the estimate too. Robust by weights that fall with the residual.

    Args:
        images: (k, H, W), linear in the light received.
        saturated: (k, H, W) in [0, 1].
        lights: (k, 3) unit vectors.
        ambient: whether light that is always there is to be expected: differences to the mean pixel are free of it.

    Raises:
        InputError: fewer than four lights, or too few pixels that all lights reach.
    """
    pixels = _lit_pixels(images, saturated, "intensities")
    pixels = pixels - pixels.mean(axis=1, keepdims=True) if with_ambient else pixels
    pixels = pixels / np.sqrt(np.mean(np.sum(pixels**2, axis=0)))
    projector, ones = _projector(lights), np.ones(len(lights))
    weights, pull = np.ones(pixels.shape[1]), _MIN_RIDGE
    for _ in range(_ITERATIONS):
        form = projector * ((pixels * weights / weights.sum()) @ pixels.T)
        inverse = np.linalg.solve(form + pull * np.eye(len(lights)), pull * ones)
        inverse = np.maximum(inverse / inverse.mean(), 0.05)
        misfit = projector @ (inverse[:, None] * pixels)
        weights = 1 / np.maximum(np.sqrt(np.sum(misfit**2, axis=0)), _RESIDUAL_FLOOR)
        pull = _RIDGE_PER_RESIDUAL * _correlated_residual(misfit) + _MIN_RIDGE
    return len(lights) / inverse / np.sum(1 / inverse)


def estimate_ambient(images: np.ndarray, saturated: np.ndarray, lights: np.ndarray, intensities: np.ndarray) -> float:
    """The light that every pixel of every picture holds besides the lights', 0 or more, in the pictures' unit.

    Raises:
        InputError: fewer than four lights, too few pixels that all lights reach, or lights placed so that the same
            amount in every picture looks like a surface (the usual rectangle of four is such).
    """
    projector = _projector(lights)
    seen = projector @ (1 / intensities)
    if np.linalg.norm(seen) < _MIN_OBSERVABLE * np.linalg.norm(1 / intensities):
        raise InputError(
            "ambient light cannot be told from these lights' directions, as it looks like a surface; "
            "set --estimate-ambient false, or capture a picture without lights and subtract it"
        )
    pixels = _lit_pixels(images, saturated, "ambient light")
    error = seen @ (projector @ (pixels / intensities[:, None])) / np.sum(seen**2)
    return float(max(np.median(error), 0))


def _correlated_residual(residual: np.ndarray) -> float:
    """The squared length of the misfit (k, n) that pixels have in common with their neighbours, so without the noise of each."""
    runs = residual[:, : residual.shape[1] // _NEIGHBORHOOD * _NEIGHBORHOOD].reshape(len(residual), -1, _NEIGHBORHOOD)
    return float(np.median(np.sum(runs.mean(axis=2) ** 2, axis=0)))


def _lit_pixels(images: np.ndarray, saturated: np.ndarray, what: str) -> np.ndarray:
    """(k, n) float64: the pixels that every light reaches and none saturates."""
    if len(images) < 4:
        raise InputError(f"{what} cannot be estimated from {len(images)} lights; it needs four or more")
    brightest = images.max(axis=0)
    lit = (images.min(axis=0) > _MIN_LIT_RATIO * brightest) & (brightest > 0.05) & (saturated.max(axis=0) == 0)
    if lit.sum() < _MIN_PIXELS:
        raise InputError(f"{what} cannot be estimated: only {lit.sum()} pixels are lit by every light; it needs {_MIN_PIXELS}")
    return images[:, lit].astype(np.float64)


def _projector(lights: np.ndarray) -> np.ndarray:
    """(k, k): onto what the lights' directions do not span."""
    return np.eye(len(lights)) - lights @ np.linalg.pinv(lights)
