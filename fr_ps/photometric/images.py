"""Reading one picture: its decoded values, its white level, and which of its pixels are opaque."""

import struct
import sys
import threading
import warnings
from collections.abc import Iterator
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
IMAGE_ENDINGS = (".png", ".tif", ".tiff", ".bmp", ".pgm", ".ppm", ".jpg", ".jpeg")
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
        values: (H, W) or (H, W, 3) uint8 or uint16: the decoded values.
        white: the decoded value from which a channel is saturated.
        scale: decoded over stored values: above 1 for a PGM or PPM with a maximum below 255 or 65535, else 1.
        opaque: (H, W) bool, by its alpha channel; None: all.
    """

    values: np.ndarray
    white: int
    scale: float = 1
    opaque: np.ndarray | None = None

    @property
    def brightest(self) -> np.ndarray:
        """(H, W): the decoded value of the pixel's brightest channel."""
        return self.values if self.values.ndim == 2 else self.values.max(axis=2)

    @property
    def saturated(self) -> np.ndarray:
        """(H, W) bool: a channel of the pixel is at the white level."""
        return self.brightest >= self.white

    @property
    def luminance(self) -> np.ndarray:
        """(H, W) float32 in [0, 1], 1 being the white level; of a colour by ITU-R 601."""
        if self.values.ndim == 2:
            return _to_unit_range(self.values, self.white)
        return _to_unit_range(weigh_channels(self.values), self.white)


def weigh_channels(channels: np.ndarray) -> np.ndarray:
    """(H, W) float32: the luminance of (H, W, 3) channels, by ITU-R 601."""
    luminance = np.zeros(channels.shape[:2], dtype=np.float32)
    for channel, weight in enumerate(_LUMINANCE):
        luminance += np.float32(weight) * channels[..., channel]
    return luminance


class _Samples(NamedTuple):
    """Decoded values (H, W) or (H, W, 3) uint8 or uint16, the largest possible decoded and the largest possible stored value.

    `opaque` is (H, W) bool by the alpha channel, or None.
    """

    values: np.ndarray
    white: int
    largest: int
    opaque: np.ndarray | None = None


def is_image_name(name: str) -> bool:
    """Whether the ending of the name of a file is that of an image format."""
    return not name.startswith(".") and name.lower().endswith(IMAGE_ENDINGS)


def read_image(path: Path, white_level: int | None = None) -> DecodedImage:
    """The picture at `path`: grey or RGB of 8 or 16 bits, upright by its orientation tag.

    Args:
        path: of a regular file.
        white_level: stored value at which the camera saturates; None: the largest value of the file's depth.

    Raises:
        InputError: the file is missing, not regular, truncated, of an unknown format, of another depth, or larger than
            `MAX_PIXELS`; or the white level exceeds its depth.
    """
    with _open_image(path) as (image, file):
        samples = _decode(image, file, path)
    if white_level is not None and white_level > samples.largest:
        stored = f"the white level is {white_level}, but its largest possible value is {samples.largest}"
        raise InputError(f"{path}: {stored}; set --white-level to a value that the pictures can store")
    # The order of Pillow's own arithmetic: another order rounds some values differently.
    white = round((white_level or samples.largest) / samples.largest * samples.white)
    return DecodedImage(samples.values, white, samples.white / samples.largest, samples.opaque)


def count_pixels(path: Path) -> int:
    """The number of pixels of the picture at `path`, by its header.

    Raises:
        InputError: the file is missing, not regular, not a picture, or larger than `MAX_PIXELS`.
    """
    with _open_image(path) as (image, _):
        return image.width * image.height


class SaturationSearch:
    """The search for the camera's white level in the pictures of a session, one after the other.

    It is below that of the files if far more pixels have exactly the largest value than each of the values just below it, as
    with a 12-bit sensor in 16-bit files. Constant, dark and unsaturated pictures have no such peak.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(1 << 16, dtype=np.int64)
        self._scales: set[float] = set()
        self._lowest_white = 1 << 16

    def add(self, picture: DecodedImage) -> None:
        """Count the values of one more picture."""
        self._counts += np.bincount(picture.brightest.ravel(), minlength=1 << 16)
        self._scales.add(picture.scale)
        self._lowest_white = min(self._lowest_white, picture.white)

    def level(self) -> int | None:
        """The largest decoded value of all pictures.

        None without a peak, if it is the files' own white level, or if the pictures' scales differ.
        """
        (present,) = self._counts.nonzero()
        top, total = int(present[-1]), int(self._counts.sum())
        if len(self._scales) > 1 or top >= self._lowest_white:
            return None
        lowest = top - max(8 * next(iter(self._scales)), int(_SATURATION_WINDOW * top))
        below = self._counts[present[(present >= lowest) & (present < top)]]
        peak = int(self._counts[top])
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
    if rawmode.startswith("LA;16"):
        raise InputError(f"{path}: 16-bit grey with an alpha channel is not supported; save the alpha channel as mask.png")
    if image.has_transparency_data and bits in (8, 16):
        return _alpha_samples(_decode_16_bit(image, file, rawmode) if ";16" in rawmode else _decode_rgba(image))
    if image.mode == "RGB" and ";16" in rawmode and tags.get(_PLANAR, 1) == 1:
        return _Samples(_decode_16_bit(image, file, rawmode), 65535, 65535)
    if image.mode in ("RGB", "P") and bits == 8 and ";16" not in rawmode and not deep_ppm:
        return _Samples(np.asarray(_apply_orientation(image).convert("RGB")), 255, max_value or 255)
    stored = f"{image.format} stored as {rawmode}{f' up to {max_value}' if deep_ppm else ''}"
    raise InputError(f"{path}: {stored} is not supported; save it as grey or RGB PNG, TIFF, BMP or PGM of 8 or 16 bits")


def _gray_samples(image: ImageFile.ImageFile, white: int, max_value: int | None) -> _Samples:
    """A grey picture with the decoded white level `white`: Pillow scales a PGM whose stored maximum `max_value` is smaller."""
    samples = np.asarray(_apply_orientation(image)).astype(np.uint8 if white == 255 else np.uint16, copy=False)
    return _Samples(samples, white, max_value or white)


def _decode_rgba(image: ImageFile.ImageFile) -> np.ndarray:
    return np.asarray(_apply_orientation(image).convert("RGBA"))


def _alpha_samples(values: np.ndarray) -> _Samples:
    """The colours and the opaque pixels, those of half the largest alpha or more, of (H, W, 4) values."""
    white = int(np.iinfo(values.dtype).max)
    colors, opaque = values[..., :3], values[..., 3] > white // 2
    gray = bool((colors == colors[..., :1]).all())
    return _Samples(colors[..., 0] if gray else colors, white, white, opaque)


def _apply_orientation(image: ImageFile.ImageFile) -> Image.Image:
    """The decoded picture, upright by its orientation tag. For TIFF, Pillow itself does so and removes the tag."""
    ImageOps.exif_transpose(image, in_place=True)
    return image


def _decode_16_bit(image: ImageFile.ImageFile, file: IO[bytes], rawmode: str) -> np.ndarray:
    """(H, W, 3) uint16 of a 16-bit RGB picture, (H, W, 4) of one with alpha.

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
