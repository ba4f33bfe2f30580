"""Reading one picture: luminance and saturation of each pixel."""

import struct
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from fr_ps.errors import InputError, one_line
from fr_ps.files import open_regular

MAX_PIXELS = 64_000_000
"""Limit for one picture, checked by its header: a small file that decompresses to more is rejected before decoding."""
_FORMATS = ("PNG", "TIFF", "BMP", "PPM", "JPEG")
_LUMINANCE = (0.299, 0.587, 0.114)
# TIFF tags.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANAR = 258, 262, 284
_SWAPPED_BYTE_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError, MemoryError, struct.error)
"""Exceptions of Pillow for damaged files, beside its own error for too many pixels."""
_WARNING_FILTER_LOCK = threading.Lock()

_MIN_SATURATED_SHARE = 0.002
_SATURATION_PEAK_RATIO = 10
_SATURATION_WINDOW = 0.05


class DecodedImage(NamedTuple):
    """One picture.

    Attributes:
        luminance: (H, W) float32 in [0, 1], 1 being the white level.
        brightest: (H, W) uint8 or uint16: the decoded value of the pixel's brightest channel.
        white: the decoded value from which a channel is saturated.
        scale: decoded over stored values: above 1 for a PGM or PPM with a maximum below 255 or 65535, else 1.
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
    """Decoded values (H, W) or (H, W, 3) uint8 or uint16, the largest possible decoded and the largest possible stored value."""

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
        InputError: the file is missing, not regular, truncated, of an unknown format, with transparency, of another depth,
            or larger than `MAX_PIXELS`; or the white level exceeds its depth.
    """
    with _open_image(path) as (image, file):
        samples = _decode(image, file, path)
    if white_level is not None and white_level > samples.largest:
        stored = f"the white level is {white_level}, but its largest possible value is {samples.largest}"
        raise InputError(f"{path}: {stored}; set --white-level to a value that the pictures can store")
    # The order of Pillow's own arithmetic: another order rounds some values differently.
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
        InputError: the file is missing, not regular, not a picture, or larger than `MAX_PIXELS`.
    """
    with _open_image(path) as (image, _):
        return image.width * image.height


def find_saturation_level(images: Sequence[DecodedImage]) -> int | None:
    """The camera's white level, if the pictures of a session show that it is below that of the files; a decoded value.

    That is the case if far more pixels have exactly the largest value than each of the values just below it, as with a
    12-bit sensor in 16-bit files. Constant, dark and unsaturated pictures have no such peak.

    Returns:
        The largest decoded value; None without a peak, if it is the files' own white level, or if the pictures' scales
        differ.
    """
    scales = {picture.scale for picture in images}
    top = max(int(picture.brightest.max()) for picture in images)
    if len(scales) > 1 or top >= min(picture.white for picture in images):
        return None
    lowest = top - max(8 * scales.pop(), int(_SATURATION_WINDOW * top))
    near = np.concatenate([picture.brightest[picture.brightest >= lowest] for picture in images])
    _, counts = np.unique(near, return_counts=True)
    total = sum(picture.brightest.size for picture in images)
    peak, below = int(counts[-1]), counts[:-1]
    if not len(below) or not _MIN_SATURATED_SHARE * total <= peak <= total / 2:
        return None
    return top if peak >= _SATURATION_PEAK_RATIO * below.mean() else None


def _to_unit_range(values: np.ndarray, white: int) -> np.ndarray:
    """(H, W) float32 in [0, 1]; values above the white level become 1."""
    luminance = values.astype(np.float32)
    luminance /= white
    return np.minimum(luminance, 1, out=luminance)


@contextmanager
def _open_image(path: Path) -> Iterator[tuple[ImageFile.ImageFile, IO[bytes]]]:
    """The picture at `path`, not decoded yet, and its open file. Errors of the block become `InputError` too."""
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
    except UnidentifiedImageError:  # Pillow's message has the number of the open file, which differs from run to run
        raise InputError(f"{path}: not a readable image (unknown format); capture or copy it again") from None
    except _UNREADABLE as error:
        raise InputError(f"{path}: not a readable image ({one_line(error)}); capture or copy it again") from None


def _open_header(file: IO[bytes]) -> ImageFile.ImageFile:
    """The header of a picture, without Pillow's warning about many pixels: `MAX_PIXELS` is the limit here.

    Takes an open file instead of a path: given a path, Pillow maps a grey TIFF into memory and corrupts it if a tag
    rotates it.
    """
    # Warning filters belong to the process, and several threads read pictures.
    with _WARNING_FILTER_LOCK, warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
        return Image.open(file)


def _too_large(path: Path, size: str = "too many") -> InputError:
    return InputError(f"{path}: {size} pixels; expected at most {MAX_PIXELS // 1_000_000} million; scale the picture down")


def _decode(image: ImageFile.ImageFile, file: IO[bytes], path: Path) -> _Samples:
    """The decoded values of the opened `image` in `file`."""
    if image.format not in _FORMATS:
        raise InputError(f"{path}: is {image.format}; expected {', '.join(_FORMATS)} (PPM includes PGM)")
    if image.has_transparency_data:
        raise InputError(f"{path}: has an alpha channel or a transparent colour; save it without transparency")
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS_PER_SAMPLE, (8,))[0]
    if not image.tile:
        raise OSError("a header without pixels")
    # The arguments of a tile are the storage format of a pixel ("RGB;16B") and, for a PGM or PPM, its maximum.
    codec, _, _, arguments = image.tile[0]
    rawmode, *more = arguments if isinstance(arguments, tuple) else (str(arguments),)
    max_value = int(more[0]) if codec in ("ppm", "ppm_plain") else None
    deep_ppm = max_value is not None and max_value > 255
    # Pillow inverts an 8-bit TIFF whose 0 is white, but not a 16-bit one.
    zero_is_black = tags.get(_PHOTOMETRIC, 1) == 1
    if image.mode == "L":
        return _gray_samples(image, 255, max_value)
    if (image.mode.startswith("I;16") and bits != 12 and zero_is_black) or (image.mode == "I" and image.format == "PPM"):
        return _gray_samples(image, 65535, max_value)
    if image.mode == "RGB" and ";16" in rawmode and tags.get(_PLANAR, 1) == 1:
        return _Samples(_decode_rgb16(image, file, rawmode), 65535, 65535)
    if image.mode in ("RGB", "P") and bits == 8 and ";16" not in rawmode and not deep_ppm:
        return _Samples(np.asarray(_apply_orientation(image).convert("RGB")), 255, max_value or 255)
    stored = f"{image.format} stored as {rawmode}{f' up to {max_value}' if deep_ppm else ''}"
    raise InputError(f"{path}: {stored} is not supported; save it as grey or RGB PNG, TIFF, BMP or PGM of 8 or 16 bits")


def _gray_samples(image: ImageFile.ImageFile, white: int, max_value: int | None) -> _Samples:
    """A grey picture with the decoded white level `white`: Pillow scales a PGM whose stored maximum `max_value` is smaller."""
    samples = np.asarray(_apply_orientation(image)).astype(np.uint8 if white == 255 else np.uint16, copy=False)
    return _Samples(samples, white, max_value or white)


def _apply_orientation(image: ImageFile.ImageFile) -> Image.Image:
    """The decoded picture, upright by its orientation tag. For TIFF, Pillow itself does so and removes the tag."""
    ImageOps.exif_transpose(image, in_place=True)
    return image


def _decode_rgb16(image: ImageFile.ImageFile, file: IO[bytes], rawmode: str) -> np.ndarray:
    """(H, W, 3) uint16 of a 16-bit RGB picture.

    Pillow has no mode for it and keeps the upper byte of each value; decoded with swapped bytes, the lower one.
    """
    upper = np.asarray(_apply_orientation(image)).astype(np.uint16)
    file.seek(0)
    other = _open_header(file)
    swapped = rawmode[:-1] + _SWAPPED_BYTE_ORDER[rawmode[-1]]
    other.tile = [
        tile._replace(args=(swapped, *tile.args[1:]) if isinstance(tile.args, tuple) else swapped) for tile in other.tile
    ]
    return (upper << 8) | np.asarray(_apply_orientation(other))
