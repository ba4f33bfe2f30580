"""Lights that failed: pictures that are almost black although the other pictures predict light in them."""

import numpy as np

from fr_ps.photometric.solve import leave_one_out_residuals

_MAX_SHARE = 0.1
"""A light failed if its picture has less than this share of the predicted light. In the 158 sessions of Yale B, two have 0.01 and
0.03, and all others have 0.49 or more."""
_MAX_BRIGHTNESS = 0.1
"""A picture of a failed light is also dark: its bright pixels are less than this share as bright as those of the median picture.
On a shiny plane, a picture without the highlight has little of the predicted light, but is as dark as most others."""
_BRIGHT_QUANTILE = 0.99
"""Quantile of a picture's pixels that is taken as its brightness."""
_MAX_PIXELS = 5_000


def find_failed_lights(
    images: np.ndarray, intensities: np.ndarray, lights: np.ndarray, mask: np.ndarray | None = None
) -> np.ndarray:
    """(k,) bool: True for each light that failed, e.g. a flash that did not fire.

    Each picture is predicted from the others: the least-squares surface of the others is rendered under its light. Among the dark
    pictures, the one with the smallest share of its predicted light has failed if that share is below a tenth. It is removed, and
    the search repeats with the rest. It stops at three pictures, which cannot predict each other: of two failed lights among
    four, at most one is found.

    Args:
        images: (k, H, W), linear in the light received.
        intensities: (k,) of the lights, relative to each other.
        lights: (k, 3) unit vectors.
        mask: (H, W) bool: the pixels to use; None: all.
    """
    places = np.arange(images[0].size) if mask is None else np.flatnonzero(mask)
    if len(places) > _MAX_PIXELS:
        places = np.random.default_rng(0).choice(places, _MAX_PIXELS)
    pixels = images.reshape(len(images), -1)[:, places] / intensities[:, None]
    brightness = np.quantile(pixels, _BRIGHT_QUANTILE, axis=1)
    failed = np.zeros(len(images), dtype=bool)
    while (~failed).sum() > 3:
        used = np.flatnonzero(~failed)
        dark = brightness[used] < _MAX_BRIGHTNESS * np.median(brightness[used])
        shares = np.where(dark, _shares_of_predicted_light(pixels[used], lights[used]), np.inf)
        if shares.min() >= _MAX_SHARE:
            break
        failed[used[shares.argmin()]] = True
    return failed


def _shares_of_predicted_light(pixels: np.ndarray, lights: np.ndarray) -> np.ndarray:
    """(k,): the sum of each picture over that of its prediction from the others; infinity where the others predict no light,
    and 1 where they allow no prediction.
    """
    predicted = np.maximum(pixels - leave_one_out_residuals(pixels, lights), 0).sum(axis=1)
    return np.divide(pixels.sum(axis=1), predicted, out=np.full(len(pixels), np.inf), where=predicted > 0)
