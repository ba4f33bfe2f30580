"""The part of the pictures that shows the object: from a mask file, an alpha channel, or the brightness."""

from pathlib import Path

import numpy as np
from scipy import ndimage

from fr_ps.errors import InputError
from fr_ps.photometric.images import read_image

_MASK_STEM = "mask"
_BINS = 256
_MIN_SHARE = 1e-3
"""Smallest share of the picture that a mask may have."""


def is_mask_name(name: str) -> bool:
    """Whether a file of a capture is its mask: `mask.png`, or another image format."""
    return Path(name).stem.casefold() == _MASK_STEM


def read_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    """The mask at `path` as (H, W) bool: True where the value is above half of the largest, and alpha is not transparent.

    Args:
        path: of the mask.
        size: height and width of the pictures.

    Raises:
        InputError: no readable picture, another size, or an empty mask.
    """
    picture = read_image(path)
    if picture.values.shape[:2] != size:
        height, width = picture.values.shape[:2]
        raise InputError(f"{path}: {width} x {height}, but the images are {size[1]} x {size[0]}; a mask must have their size")
    # Half of its own largest value, as masks of 0 and 1 occur.
    mask = 2 * picture.brightest.astype(np.float64) > picture.brightest.max()
    return check_mask(mask if picture.opaque is None else mask & picture.opaque, str(path))


def check_mask(mask: np.ndarray, where: str) -> np.ndarray:
    """`mask`, if it has a thousandth of the pixels or more.

    Raises:
        InputError: it has fewer; the message begins with `where`.
    """
    if mask.mean() < _MIN_SHARE:
        raise InputError(f"{where}: the mask is empty ({mask.sum()} pixels); correct or remove it")
    return mask


def find_mask(images: np.ndarray, where: str) -> np.ndarray:
    """(H, W) bool: the largest bright object in front of a dark background, without holes.

    The threshold is Otsu's ("A threshold selection method from gray-level histograms", IEEE Trans. SMC 1979) for the square
    root of the brightest of the images in each pixel.

    Args:
        images: (k, H, W), from 0.
        where: the beginning of an error message.

    Raises:
        InputError: no object.
    """
    brightest = np.sqrt(images.max(axis=0))
    bright = brightest > _otsu_threshold(brightest)
    components, _ = ndimage.label(ndimage.binary_opening(bright, iterations=1))
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    mask = ndimage.binary_fill_holes(components == max(sizes.argmax(), 1))
    if mask.mean() < _MIN_SHARE:
        raise InputError(f"{where}: no bright object in front of a dark background; add a mask.png, or use --mask none")
    return mask


def _otsu_threshold(values: np.ndarray) -> float:
    """The threshold that maximises the variance between the two classes of values below and above it; of equal values,
    their own.
    """
    if np.ptp(values) == 0:
        return float(values.max())
    counts, edges = np.histogram(values, bins=_BINS)
    centers = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = counts.sum() - below
    mean_below = np.cumsum(counts * centers)[:-1] / np.maximum(below, 1)
    mean_above = (np.sum(counts * centers) - np.cumsum(counts * centers)[:-1]) / np.maximum(above, 1)
    return float(edges[1:-1][np.argmax(below * above * (mean_below - mean_above) ** 2)])
