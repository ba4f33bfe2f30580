"""What every decoder returns, and the checks and errors that they share."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from fr_ps.errors import InputError, one_line

MAX_PIXELS = 64_000_000
"""Limit for one picture, checked by its header: a small file that decompresses to more is rejected before decoding."""


class Samples(NamedTuple):
    """The pixels of a file.

    Attributes:
        values: (H, W) or (H, W, 3), upright: uint8 or uint16; float32, finite and at least 0, from a file of floats.
        white: the largest possible decoded value. Of floats: 1.
        largest: the largest possible stored value, less `black`. Of floats: 1.
        opaque: (H, W) bool, by the alpha channel; None: all.
        stated_white: the stored value at which the camera saturates, if the file states one.
        black: the stored value without light, which is subtracted from `values`.
        encoded: whether values are sRGB- or gamma-encoded, by the format or a tag of the file.
    """

    values: np.ndarray
    white: int
    largest: int
    opaque: np.ndarray | None = None
    stated_white: int | None = None
    black: int = 0
    encoded: bool = False


def check_pixels(path: Path, width: int, height: int) -> int:
    """The number of pixels of the picture at `path`.

    Raises:
        InputError: more than `MAX_PIXELS`.
    """
    if width * height > MAX_PIXELS:
        raise too_large(path, f"{width} x {height}")
    return width * height


def light_samples(path: Path, values: np.ndarray, opaque: np.ndarray | None = None) -> Samples:
    """The samples of a file of floats: negative values, which noise and filters leave, become 0.

    Raises:
        InputError: NaN or infinity, also in float32.
    """
    with np.errstate(over="ignore"):
        values = values.astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        bad = np.argwhere(~np.isfinite(values))[0]
        raise InputError(f"{path}: NaN or infinity, first in row {bad[0]}, column {bad[1]}; replace such values, e.g. by 0")
    return Samples(np.maximum(values, 0), 1, 1, opaque)


def too_large(path: Path, size: str = "too many") -> InputError:
    return InputError(f"{path}: {size} pixels; expected at most {MAX_PIXELS // 1_000_000} million; scale the picture down")


def unreadable(path: Path, reason: BaseException | str) -> InputError:
    text = reason if isinstance(reason, str) else one_line(reason)
    return InputError(f"{path}: not a readable image ({text}); capture or copy it again")


def missing_package(path: Path, what: str, extra: str) -> InputError:
    return InputError(f"{path}: {what} needs a further package: pip install 'fr-ps[{extra}]'")
