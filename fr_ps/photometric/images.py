"""Reading one picture: how much light each pixel received, and where the camera could record no more."""

import struct
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, ImageFile, ImageOps

from fr_ps.errors import InputError, one_line
from fr_ps.files import open_regular

MAX_PIXELS = 64_000_000
"""Of one picture. The header has their number, so that a small file that unfolds to more is refused before it is decoded."""
_FORMATS = ("PNG", "TIFF", "BMP", "PPM", "JPEG")
_LUMINANCE = (0.299, 0.587, 0.114)
# TIFF tags.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANAR = 258, 262, 284
_OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError, MemoryError, struct.error)
"""What Pillow raises for damaged files, beside its own error for too many pixels."""
_WARNING_FILTER_LOCK = threading.Lock()

_MIN_SATURATED_SHARE = 0.002
_SATURATION_PEAK_RATIO = 10
_SATURATION_WINDOW = 0.05


class DecodedImage(NamedTuple):
    """One picture.

    Attributes:
        luminance: (H, W) float32 in [0, 1], 1 being the white level.
        brightest: (H, W) uint8 or uint16: the decoded value of the pixel's brightest channel.
        white: the decoded value from which a channel is saturated, so that the light was at least this.
        scale: the decoded over the stored values: above 1 for a PGM or PPM whose largest value is below 255 or 65535, else 1.
    """

    luminance: np.ndarray
    brightest: np.ndarray
    white: int
    scale: float = 1

    @property
    def saturated(self) -> np.ndarray:
        """(H, W) bool: a channel of the pixel is at the white level."""
        return self.brightest >= self.white


class _Samples(NamedTuple):
    """Decoded values (H, W) or (H, W, 3) uint8 or uint16, the largest that they can be, and the largest stored value."""

    values: np.ndarray
    white: int
    largest: int


def read_image(path: Path, white_level: int | None = None) -> DecodedImage:
    """The picture at `path`: grey or RGB of 8 or 16 bits, upright by its orientation tag.

    Colour is reduced to luminance (ITU-R 601).

    Args:
        path: of a regular file.
        white_level: stored value at which the camera saturates; None: the largest value of the file's depth.

    Raises:
        InputError: missing, no regular file, truncated, of no known format, with transparency, of another depth, of more
            than `MAX_PIXELS`, or a white level that its depth does not hold.
    """
    with _open_image(path) as (image, file):
        samples = _decode(image, file, path)
    if white_level is not None and white_level > samples.largest:
        stored = f"the white level is {white_level}, but its largest value is {samples.largest}"
        raise InputError(f"{path}: {stored}; set --white-level to what the pictures' values reach")
    # In the order of Pillow's own arithmetic, as another one rounds some values differently.
    white = round((white_level or samples.largest) / samples.largest * samples.white)
    values, scale = samples.values, samples.white / samples.largest
    if values.ndim == 2:
        return DecodedImage(_to_unit_range(values, white), values, white, scale)
    luminance = np.zeros(values.shape[:2], dtype=np.float32)
    for channel, weight in enumerate(_LUMINANCE):
        luminance += np.float32(weight) * values[..., channel]
    return DecodedImage(_to_unit_range(luminance, white), values.max(axis=2), white, scale)


def count_pixels(path: Path) -> int:
    """The number of pixels of the picture at `path`, by its header.

    Raises:
        InputError: missing, no regular file, no picture, or more than `MAX_PIXELS`.
    """
    with _open_image(path) as (image, _):
        return image.width * image.height


def find_saturation_level(images: Sequence[DecodedImage]) -> int | None:
    """The largest decoded value of one session's pictures, if it is the camera's white level below that of the files.

    So it is where far more pixels are at exactly this value than at each of those that occur just below it: a sensor of 12
    bits in files of 16. A picture of constant values, of few dark ones, or one that is not saturated has no such pile.

    Returns:
        None where there is no pile, where the largest value is the white level that is known already, or where the pictures'
        scales differ.
    """
    scales = {picture.scale for picture in images}
    top = max(int(picture.brightest.max()) for picture in images)
    if len(scales) > 1 or top >= min(picture.white for picture in images):
        return None
    lowest = top - max(8 * scales.pop(), int(_SATURATION_WINDOW * top))
    near = np.concatenate([picture.brightest[picture.brightest >= lowest] for picture in images])
    _, counts = np.unique(near, return_counts=True)
    total = sum(picture.brightest.size for picture in images)
    piled, below = int(counts[-1]), counts[:-1]
    if not len(below) or not _MIN_SATURATED_SHARE * total <= piled <= total / 2:
        return None
    return top if piled >= _SATURATION_PEAK_RATIO * below.mean() else None


def _to_unit_range(values: np.ndarray, white: int) -> np.ndarray:
    """(H, W) float32 in [0, 1]; what is above the white level counts as white."""
    luminance = values.astype(np.float32)
    luminance /= white
    return np.minimum(luminance, 1, out=luminance)


@contextmanager
def _open_image(path: Path) -> Iterator[tuple[ImageFile.ImageFile, IO[bytes]]]:
    """The picture at `path`, not decoded yet, and its open file. What goes wrong in the block is an `InputError` too."""
    try:
        with open_regular(path) as file:
            image = _open_header(file)
            if image.width * image.height > MAX_PIXELS:
                raise _too_large(path, f"{image.width} x {image.height}")
            yield image, file
    except FileNotFoundError:
        raise InputError(f"{path}: no such image; add it, or remove its light from the list") from None
    except Image.DecompressionBombError:
        raise _too_large(path) from None
    except _UNREADABLE as error:
        raise InputError(f"{path}: not a readable image ({one_line(error)}); capture or copy it again") from None


def _open_header(file: IO[bytes]) -> ImageFile.ImageFile:
    """The header of a picture, without Pillow's warning about many pixels: the limit is ours.

    By its name, Pillow maps a grey TIFF into memory, and scrambles it where a tag turns it; so it gets the open file.
    """
    # Filters of warnings belong to the process, and pictures are read by several threads.
    with _WARNING_FILTER_LOCK, warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
        return Image.open(file)


def _too_large(path: Path, size: str = "too many") -> InputError:
    return InputError(f"{path}: {size} pixels; expected at most {MAX_PIXELS // 1_000_000} million in a picture, scale it down")


def _decode(image: ImageFile.ImageFile, file: IO[bytes], path: Path) -> _Samples:
    """The decoded values of the opened `image` in `file`."""
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
    stated = int(more[0]) if codec in ("ppm", "ppm_plain") else None
    deep_ppm = stated is not None and stated > 255
    # Pillow turns a TIFF of 8 bits whose 0 is white, but not one of 16.
    positive = tags.get(_PHOTOMETRIC, 1) == 1
    if image.mode == "L":
        return _gray_samples(image, 255, stated)
    if (image.mode.startswith("I;16") and bits != 12 and positive) or (image.mode == "I" and image.format == "PPM"):
        return _gray_samples(image, 65535, stated)
    if image.mode == "RGB" and ";16" in rawmode and tags.get(_PLANAR, 1) == 1:
        return _Samples(_decode_rgb16(image, file, rawmode), 65535, 65535)
    if image.mode in ("RGB", "P") and bits == 8 and ";16" not in rawmode and not deep_ppm:
        return _Samples(np.asarray(_apply_orientation(image).convert("RGB")), 255, stated or 255)
    stored = f"{image.format} stored as {rawmode}{f' up to {stated}' if deep_ppm else ''}"
    raise InputError(f"{path}: {stored} is not read; save it as grey or RGB PNG, TIFF, BMP or PGM of 8 or 16 bits")


def _gray_samples(image: ImageFile.ImageFile, white: int, max_value: int | None) -> _Samples:
    """A grey picture whose white is `white` once it is decoded: Pillow scales a PGM, whose `stated` largest value may be less."""
    samples = np.asarray(_apply_orientation(image)).astype(np.uint8 if white == 255 else np.uint16, copy=False)
    return _Samples(samples, white, max_value or white)


def _apply_orientation(image: ImageFile.ImageFile) -> Image.Image:
    """The decoded picture, turned as its orientation tag says. Pillow does so by itself for TIFF, and removes the tag then."""
    ImageOps.exif_transpose(image, in_place=True)
    return image


def _decode_rgb16(image: ImageFile.ImageFile, file: IO[bytes], rawmode: str) -> np.ndarray:
    """(H, W, 3) uint16 of a 16-bit RGB picture.

    Pillow has no mode for it and keeps each value's upper byte. If it takes the bytes in the other order, it keeps the
    lower one.
    """
    upper = np.asarray(_apply_orientation(image)).astype(np.uint16)
    file.seek(0)
    other = _open_header(file)
    swapped = rawmode[:-1] + _OTHER_BYTE[rawmode[-1]]
    other.tile = [
        tile._replace(args=(swapped, *tile.args[1:]) if isinstance(tile.args, tuple) else swapped) for tile in other.tile
    ]
    return (upper << 8) | np.asarray(_apply_orientation(other))
