"""TIFF that Pillow does not decode: floats, packed bits, and colour in separate planes; the extra `fr-ps[tiff]`."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from fr_ps.errors import InputError
from fr_ps.photometric.decoders.pillow import white_of_bits
from fr_ps.photometric.decoders.samples import Samples, check_pixels, light_samples, missing_package, unreadable

if TYPE_CHECKING:
    from tifffile import TiffPage

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""Of both byte orders; those with + are BigTIFF."""
_UNSIGNED, _FLOAT = 1, 3
_ZERO_IS_BLACK, _RGB = 1, 2
_ALPHA = (1, 2)
_ORIENTATION, _LARGEST_SAMPLE = 274, 341


def count_pixels(file: BinaryIO, path: Path) -> int:
    """The number of pixels, by the header.

    Raises:
        InputError: not a TIFF file, larger than `MAX_PIXELS`, or the package is missing.
    """
    with _reject_damage(path):
        page = _first_page(file, path)
        return page.imagewidth * page.imagelength


def decode(file: BinaryIO, path: Path) -> Samples:
    """The first page of the TIFF `file` at `path`: grey or RGB, of floats or of 8 to 16 bits.

    Raises:
        InputError: it is damaged, of another kind, or has NaN or infinity; or the package is missing.
    """
    with _reject_damage(path):
        return _decode_page(_first_page(file, path), path)


@contextmanager
def _reject_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except ImportError:
        raise missing_package(path, "TIFF of this kind (floats, packed bits, separate planes)", "tiff") from None
    except Exception as error:  # tifffile and its codecs raise many kinds for damaged files, whose tags have any type
        raise unreadable(path, error) from None


def _first_page(file: BinaryIO, path: Path) -> "TiffPage":
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # its warnings would stand beside the error
    file.seek(0)
    page = tifffile.TiffFile(file, name=path.name).pages.first
    check_pixels(path, page.imagewidth, page.imagelength)
    if page.imagewidth * page.imagelength == 0 or page.imagedepth != 1:
        raise unreadable(path, "no pixels, or a volume")
    return page


def _decode_page(page: "TiffPage", path: Path) -> Samples:
    bits, kind = page.bitspersample, page.sampleformat
    whole = kind == _UNSIGNED and 8 <= bits <= 16
    if not (whole or kind == _FLOAT) or page.photometric not in (_ZERO_IS_BLACK, _RGB) or not _has_known_channels(page):
        raise InputError(f"{path}: {_describe(page)} is not supported; save it as grey or RGB of 8 to 16 bits or of floats")
    values = page.asarray()
    values = values if page.planarconfig == 1 or values.ndim == 2 else np.moveaxis(values, 0, -1)
    values, opaque = _split_alpha(_upright(values, page), (1 << bits) // 2 if whole else 0.5)
    if not whole:
        return light_samples(path, values, opaque)
    largest = (1 << bits) - 1
    tag = page.tags.get(_LARGEST_SAMPLE)
    stated = tag.value[0] if tag and isinstance(tag.value, tuple) else tag and tag.value
    return Samples(values, largest, largest, opaque, white_of_bits(stated, largest))


def _has_known_channels(page: "TiffPage") -> bool:
    colors = 3 if page.photometric == _RGB else 1
    more = page.samplesperpixel - colors
    return more == 0 or (more == 1 and page.extrasamples[:1] in [(kind,) for kind in _ALPHA])


def _split_alpha(values: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray | None]:
    """The colours (H, W) or (H, W, 3), and the opaque pixels of values with 1 to 4 channels."""
    if values.ndim == 2:
        return values, None
    channels = values.shape[2]
    colors = values[..., :3] if channels >= 3 else values[..., 0]
    return colors, values[..., -1] > threshold if channels in (2, 4) else None


def _upright(values: np.ndarray, page: "TiffPage") -> np.ndarray:
    """The picture, upright by its orientation tag: 2 to 4 are reflections in place, 5 to 8 also exchange rows and columns."""
    tag = page.tags.get(_ORIENTATION)
    orientation = tag.value if tag else 1
    values = values.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else values
    values = values[::-1] if orientation in (3, 4, 7, 8) else values
    return np.ascontiguousarray(values[:, ::-1] if orientation in (2, 3, 6, 7) else values)


def _describe(page: "TiffPage") -> str:
    kind = {1: "unsigned", 2: "signed", 3: "float", 5: "complex", 6: "complex"}.get(page.sampleformat, "unknown")
    compression = getattr(page.compression, "name", page.compression)
    photometric = getattr(page.photometric, "name", page.photometric)
    channels = f"{page.samplesperpixel} channels of {page.bitspersample}-bit {kind} samples"
    return f"TIFF of {channels} ({photometric}, compression {compression})"
