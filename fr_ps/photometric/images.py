"""Reading one picture: how much light each pixel received, and where the camera could record no more."""

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile

from fr_ps.errors import InputError

_FORMATS = ("PNG", "TIFF", "BMP", "PPM", "JPEG")
_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)
# TIFF tags.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANAR = 258, 262, 284
_OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


class Picture(NamedTuple):
    """One picture.

    Attributes:
        luminance: (H, W) float32 in [0, 1], 1 being the largest value that the file's bit depth holds.
        saturated: (H, W) bool: a channel of the pixel is at that largest value, so that the light was at least this.
    """

    luminance: np.ndarray
    saturated: np.ndarray


def read_image(path: Path) -> Picture:
    """The picture at `path`: grey or RGB of 8 or 16 bits. Colour is reduced to luminance (ITU-R 601).

    Raises:
        InputError: missing, truncated, of no known format, with transparency, or of another depth.
    """
    try:
        with Image.open(path) as image:
            stored, largest = _samples(image, path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such image; add it, or remove its light from the list") from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not a readable image ({' '.join(str(error).split())}); capture or copy it again") from None
    if stored.ndim == 2:
        return Picture(stored / np.float32(largest), stored == largest)
    # Rounding can carry white a little beyond 1.
    luminance = np.minimum(stored @ (_LUMINANCE / np.float32(largest)), 1)
    return Picture(luminance, (stored == largest).any(axis=2))


def _samples(image: ImageFile.ImageFile, path: Path) -> tuple[np.ndarray, int]:
    """The values as stored, (H, W) or (H, W, 3), and the largest value of their depth."""
    if image.format not in _FORMATS:
        raise InputError(f"{path}: is {image.format}; expected {', '.join(_FORMATS)} (PPM includes PGM)")
    if image.has_transparency_data:
        raise InputError(f"{path}: has an alpha channel or a transparent colour, which no light explains; save it without")
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS_PER_SAMPLE, (8,))[0]
    if not image.tile:
        raise OSError("a header without pixels")
    # The arguments of a tile say how the file stores a pixel: "RGB;16B", or of a PGM or PPM also its largest value.
    codec, _, _, arguments = image.tile[0]
    rawmode, *more = arguments if isinstance(arguments, tuple) else (str(arguments),)
    deep_ppm = codec in ("ppm", "ppm_plain") and more[0] > 255
    if image.mode == "L":
        return np.asarray(image), 255
    # Pillow turns a TIFF of 8 bits whose 0 is white, but not one of 16. A deep PGM it scales to 16 bits, in a mode of 32.
    positive = tags.get(_PHOTOMETRIC, 1) == 1
    if (image.mode.startswith("I;16") and bits != 12 and positive) or (image.mode == "I" and image.format == "PPM"):
        return np.asarray(image, dtype=np.float32), 65535
    if image.mode == "RGB" and ";16" in rawmode and tags.get(_PLANAR, 1) == 1:
        return _deep_colour(image, path, rawmode), 65535
    if image.mode in ("RGB", "P") and bits == 8 and ";16" not in rawmode and not deep_ppm:
        return np.asarray(image.convert("RGB"), dtype=np.float32), 255
    stored = f"{image.format} stored as {rawmode}{f' up to {more[0]}' if deep_ppm else ''}"
    raise InputError(f"{path}: {stored} is not read; save it as grey or RGB PNG, TIFF, BMP or PGM of 8 or 16 bits")


def _deep_colour(image: ImageFile.ImageFile, path: Path, rawmode: str) -> np.ndarray:
    """(H, W, 3) float32 of a 16-bit RGB picture.

    Pillow has no mode for it and keeps each value's upper byte. Told that the bytes are the other way round, it keeps the
    lower one.
    """
    swapped = rawmode[:-1] + _OTHER_BYTE[rawmode[-1]]
    with Image.open(path) as other:
        other.tile = [
            tile._replace(args=(swapped, *tile.args[1:]) if isinstance(tile.args, tuple) else swapped) for tile in other.tile
        ]
        lower = np.asarray(other, dtype=np.float32)
    return 256 * np.asarray(image, dtype=np.float32) + lower
