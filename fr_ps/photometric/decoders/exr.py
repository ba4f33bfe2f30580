"""OpenEXR, by the package of the OpenEXR project; the extra `fr-ps[exr]`."""

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fr_ps.errors import InputError
from fr_ps.photometric.decoders.samples import Samples, check_pixels, light_samples, missing_package, unreadable

ENDINGS = (".exr",)
MAGIC = b"\x76\x2f\x31\x01"
_RGB = ("R", "G", "B")


def count_pixels(file: BinaryIO, path: Path) -> int:
    """The number of pixels, by the header.

    Raises:
        InputError: not an EXR file, larger than `MAX_PIXELS`, or the package is missing.
    """
    return _read_header(file, path)[0]


def decode(file: BinaryIO, path: Path) -> Samples:
    """The first part of the EXR `file` at `path`: channels R, G and B, or one channel of any name; A is the alpha channel.

    Raises:
        InputError: it is damaged, has other channels, whole numbers, or NaN or infinity; or the package is missing.
    """
    _, names = _read_header(file, path)
    import OpenEXR

    file.seek(0)
    try:
        content = OpenEXR.File(file, separate_channels=True)
        if not content.parts:  # the library prints the reason, and drops the part
            raise ValueError("truncated or damaged pixels")
        channels = content.channels()
        planes = {name: channels[name].pixels for name in names}
    except Exception as error:  # the library raises RuntimeError, ValueError and others for damaged files
        raise unreadable(path, error) from None
    if whole := [name for name, plane in planes.items() if plane.dtype.kind != "f"]:
        raise InputError(f"{path}: channel {whole[0]} stores whole numbers; expected half or float")
    if len({plane.shape for plane in planes.values()}) > 1:
        raise InputError(f"{path}: its channels have different sizes; save them without subsampling")
    alpha = planes.pop("A", None)
    values = np.stack([planes[name] for name in _RGB], axis=2) if len(planes) == 3 else planes.popitem()[1]
    return light_samples(path, values, None if alpha is None else alpha > 0.5)


def _read_header(file: BinaryIO, path: Path) -> tuple[int, list[str]]:
    """The number of pixels and the names of the channels of the first part."""
    try:
        import OpenEXR
    except ImportError:
        raise missing_package(path, "OpenEXR", "exr") from None
    try:
        header: dict[str, Any] = OpenEXR.File(file, separate_channels=True, header_only=True).header()
        (left, top), (right, bottom) = (corner.tolist() for corner in header["dataWindow"])
        names = [channel.name for channel in header["channels"]]
    except Exception as error:  # as above
        raise unreadable(path, error) from None
    colors = sorted(set(names) - {"A"})
    if len(colors) != 1 and colors != sorted(_RGB):
        raise InputError(f"{path}: has the channels {', '.join(names) or 'none'}; expected R, G and B, or one")
    return check_pixels(path, right - left + 1, bottom - top + 1), names
