"""PNG, BMP, PGM, PPM, JPEG, and TIFF of 8 or 16 bits, through Pillow."""

import struct
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from fr_ps.errors import InputError
from fr_ps.photometric.decoders.samples import Samples, check_pixels, too_large, unreadable

ENDINGS = (".png", ".tif", ".tiff", ".bmp", ".pgm", ".ppm", ".jpg", ".jpeg")
_FORMATS = ("PNG", "TIFF", "BMP", "PPM", "JPEG")
# TIFF tags.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANAR, _LARGEST_SAMPLE = 258, 262, 284, 341
_SWAPPED_BYTE_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError, MemoryError, struct.error)
"""Exceptions of Pillow for damaged files, beside its own error for too many pixels."""
_WARNING_FILTER_LOCK = threading.Lock()
_ENCODED_GAMMA = 0.9
"""A gAMA chunk below it marks encoded values; that of linear values is 1."""


UNKNOWN_FORMAT = "unknown format"


class UnsupportedPixels(Exception):
    """A file that Pillow cannot decode to its stored values; the message describes the storage."""


def count_pixels(file: BinaryIO, path: Path) -> int:
    """The number of pixels, by the header.

    Raises:
        InputError: not a picture, or larger than `MAX_PIXELS`.
        UnsupportedPixels: a format that Pillow does not know.
    """
    with _open_image(file, path) as image:
        return image.width * image.height


def decode(file: BinaryIO, path: Path) -> Samples:
    """The picture in `file`, which is at `path`: grey or RGB of 8 or 16 bits.

    Raises:
        InputError: it is damaged, of another format, or larger than `MAX_PIXELS`.
        UnsupportedPixels: it has another depth or number of channels.
    """
    with _open_image(file, path) as image:
        samples = _decode(image, file, path)
        info = image.info
        encoded = image.format == "JPEG" or "srgb" in info or float(info.get("gamma") or 1) < _ENCODED_GAMMA
        return samples._replace(stated_white=_stated_white(image, file, samples.largest), encoded=encoded)


@contextmanager
def _open_image(file: BinaryIO, path: Path) -> Iterator[ImageFile.ImageFile]:
    """The picture in `file`, not decoded yet. Errors of the block become `InputError` too."""
    try:
        image = _open_header(file)
        check_pixels(path, image.width, image.height)
        yield image
    except Image.DecompressionBombError:
        raise too_large(path) from None
    except UnidentifiedImageError:  # Pillow's message has the number of the open file, which differs from run to run
        raise UnsupportedPixels(UNKNOWN_FORMAT) from None
    except _UNREADABLE as error:
        raise unreadable(path, error) from None


def _open_header(file: BinaryIO) -> ImageFile.ImageFile:
    """The header of a picture, without Pillow's warning about many pixels: `MAX_PIXELS` is the limit here.

    Takes an open file instead of a path: given a path, Pillow maps a grey TIFF into memory and corrupts it if a tag
    rotates it.
    """
    # Warning filters belong to the process, and several threads read pictures.
    with _WARNING_FILTER_LOCK, warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
        return Image.open(file)


def _decode(image: ImageFile.ImageFile, file: BinaryIO, path: Path) -> Samples:
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
    if image.mode == "1":  # a mask
        return Samples(np.asarray(_apply_orientation(image)).astype(np.uint8), 1, 1)
    if image.mode == "L":
        return _gray_samples(image, 255, max_value)
    if (image.mode.startswith("I;16") and bits != 12 and zero_is_black) or (image.mode == "I" and image.format == "PPM"):
        return _gray_samples(image, 65535, max_value)
    if rawmode.startswith("LA;16"):
        raise InputError(
            f"{path}: 16-bit grey with an alpha channel is not supported; save it as 16-bit RGBA, or as grey without alpha"
        )
    if image.has_transparency_data and bits in (8, 16):
        values = _decode_16_bit(image, file, rawmode) if ";16" in rawmode else _decode_rgba(image)
        return _alpha_samples(values, gray=image.mode == "LA")
    if image.mode == "RGB" and ";16" in rawmode and tags.get(_PLANAR, 1) == 1:
        return Samples(_decode_16_bit(image, file, rawmode), 65535, 65535)
    if image.mode in ("RGB", "P") and bits == 8 and ";16" not in rawmode and not deep_ppm:
        return Samples(np.asarray(_apply_orientation(image).convert("RGB")), 255, max_value or 255)
    raise UnsupportedPixels(f"{image.format} stored as {rawmode}{f' up to {max_value}' if deep_ppm else ''}")


def _stated_white(image: ImageFile.ImageFile, file: BinaryIO, largest: int) -> int | None:
    """The largest stored value of a sensor with fewer bits than the file, if the file states it.

    By the specification, PNG's sBIT chunk counts the upper bits of each value that are the sensor's. TIFF's
    SMaxSampleValue counts only if it is the largest value of a whole number of bits: programs also store the picture's own
    maximum there.
    """
    if image.format == "PNG":
        bits, depth = _significant_bits(file), largest.bit_length()
        return ((1 << bits) - 1) << (depth - bits) if 0 < bits < depth else None
    stated = getattr(image, "tag_v2", {}).get(_LARGEST_SAMPLE)
    return white_of_bits(stated[0] if isinstance(stated, tuple) else stated, largest)


def white_of_bits(stated: object, largest: int) -> int | None:
    """`stated`, if it is the largest value of a whole number of bits, 8 or more, and less than `largest`; else None."""
    if not isinstance(stated, (int, float)) or not 255 <= stated < largest or stated != int(stated):
        return None
    return None if int(stated) & (int(stated) + 1) else int(stated)


def _significant_bits(file: BinaryIO) -> int:
    """The bits of a colour channel by the sBIT chunk of a PNG; 0 without one. It is before the palette and the pixels."""
    file.seek(8)
    while len(head := file.read(8)) == 8 and head[4:] not in (b"PLTE", b"IDAT"):
        length = int.from_bytes(head[:4], "big")
        if head[4:] == b"sBIT" and 1 <= length <= 4:
            bits = file.read(length)
            return max(bits[:3] if length >= 3 else bits[:1])  # without that of the alpha channel
        file.seek(length + 4, 1)
    return 0


def _gray_samples(image: ImageFile.ImageFile, white: int, max_value: int | None) -> Samples:
    """A grey picture with the decoded white level `white`: Pillow scales a PGM whose stored maximum `max_value` is smaller."""
    samples = np.asarray(_apply_orientation(image)).astype(np.uint8 if white == 255 else np.uint16, copy=False)
    return Samples(samples, white, max_value or white)


def _decode_rgba(image: ImageFile.ImageFile) -> np.ndarray:
    return np.asarray(_apply_orientation(image).convert("RGBA"))


def _alpha_samples(values: np.ndarray, gray: bool) -> Samples:
    """The colours, of a grey file one, and the opaque pixels, those of half the largest alpha or more, of (H, W, 4) values."""
    white = int(np.iinfo(values.dtype).max)
    colors, opaque = values[..., :3], values[..., 3] > white // 2
    return Samples(colors[..., 0] if gray else colors, white, white, opaque)


def _apply_orientation(image: ImageFile.ImageFile) -> Image.Image:
    """The decoded picture, upright by its orientation tag. For TIFF, Pillow itself does so and removes the tag."""
    ImageOps.exif_transpose(image, in_place=True)
    return image


def _decode_16_bit(image: ImageFile.ImageFile, file: BinaryIO, rawmode: str) -> np.ndarray:
    """(H, W, 3) uint16 of a 16-bit RGB picture, (H, W, 4) of one with alpha.

    Pillow has no mode for it and keeps the upper byte of each value; decoded with swapped bytes, the lower one.
    """
    values = np.asarray(_apply_orientation(image)).astype(np.uint16)
    values <<= 8
    file.seek(0)
    other = _open_header(file)
    swapped = rawmode[:-1] + _SWAPPED_BYTE_ORDER[rawmode[-1]]
    other.tile = [
        tile._replace(args=(swapped, *tile.args[1:]) if isinstance(tile.args, tuple) else swapped) for tile in other.tile
    ]
    values |= np.asarray(_apply_orientation(other))
    return values
