"""The part of the pictures that shows the object: from a mask file, an alpha channel, or the brightness."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from fr_ps.errors import InputError
from fr_ps.photometric.images import is_image_name, read_image

_MASK_STEM = "mask"
_BINS = 256
_MIN_SHARE = 1e-3
"""Smallest share of the picture that a mask may have."""
_MIN_SEPARATION = 0.75
"""Of object and background: variance between the two over that of all pixels. An even spread of values has 0.75, noise less."""
_MIN_BRIGHTNESS_RATIO = 2.0
"""Of object over background."""


def is_mask_name(name: str) -> bool:
    """Whether a file of a capture is its mask: `mask.png`, or another image format."""
    return Path(name).stem.casefold() == _MASK_STEM


def find_mask_file(folder: Path, names: Sequence[str]) -> str | None:
    """The mask among the `names` in `folder`; None if it has none.

    Raises:
        InputError: it has two.
    """
    found = [name for name in names if is_mask_name(name) and is_image_name(name)]
    if len(found) > 1:
        raise InputError(f"{folder}: both {found[0]} and {found[1]} are masks; remove one")
    return found[0] if found else None


def read_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    """The mask at `path` as (H, W) bool: True where the value is above half of the largest, and alpha is not transparent.

    With an alpha channel and one colour everywhere, alpha alone is the mask.

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
    opaque = np.ones(size, dtype=bool) if picture.opaque is None else picture.opaque
    if not opaque.all() and np.ptp(picture.brightest) == 0:
        return check_mask(opaque, str(path))
    # Half of its own largest value, as masks of 0 and 1 occur.
    return check_mask((2 * picture.brightest.astype(np.float64) > picture.brightest.max()) & opaque, str(path))


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
    if not _are_separate(brightest[bright], brightest[~bright]):
        raise _no_object(where)
    components, _ = ndimage.label(ndimage.binary_opening(bright, iterations=1))
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    mask = ndimage.binary_fill_holes(components == max(sizes.argmax(), 1))
    if mask.mean() < _MIN_SHARE:
        raise _no_object(where)
    return mask


def _no_object(where: str) -> InputError:
    return InputError(f"{where}: no bright object in front of a dark background; add a mask.png, or use --mask none")


def _are_separate(bright: np.ndarray, dark: np.ndarray) -> bool:
    """Whether the square roots of the brightness of two sets of pixels are those of an object and its background."""
    if not bright.size or not dark.size or bright.mean() < np.sqrt(_MIN_BRIGHTNESS_RATIO) * dark.mean():
        return False
    share = bright.size / (bright.size + dark.size)
    between = share * (1 - share) * (bright.mean() - dark.mean()) ** 2
    within = share * bright.var() + (1 - share) * dark.var()
    return bool(between >= _MIN_SEPARATION * (between + within))


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
