"""Camera raw files, by LibRaw through rawpy; the extra `fr-ps[raw]`."""

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from fr_ps.errors import InputError
from fr_ps.photometric.decoders.samples import Samples, check_pixels, missing_package, unreadable

if TYPE_CHECKING:
    from rawpy import RawPy

ENDINGS = (".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".raf", ".rw2", ".orf", ".pef", ".srw")
_UINT16 = 65535


def count_pixels(file: BinaryIO, path: Path) -> int:
    """The number of pixels, by the header.

    Raises:
        InputError: not a raw file, larger than `MAX_PIXELS`, or the package is missing.
    """
    with _open_raw(file, path) as raw:
        return raw.sizes.width * raw.sizes.height


def decode(file: BinaryIO, path: Path) -> Samples:
    """The raw `file` at `path` as (H, W, 3) linear values in the sensor's own colours, less the black level.

    The colours between the sensor's are interpolated linearly, so that every value is a fixed mean of its neighbours. There
    is no white balance, which would clip a channel or differ between pictures; no conversion of colours; no brightening.
    White and black level are those of the file.

    Raises:
        InputError: it is damaged or not a raw file, or the package is missing.
    """
    with _open_raw(file, path) as raw:
        import rawpy

        try:
            black, white = round(float(np.mean(raw.black_level_per_channel))), int(raw.white_level)
            if not 0 <= black < white <= _UINT16:
                raise unreadable(path, f"black level {black}, white level {white}")
            values = raw.postprocess(
                demosaic_algorithm=rawpy.DemosaicAlgorithm.LINEAR,
                output_color=rawpy.ColorSpace.raw,
                output_bps=16,
                gamma=(1, 1),
                no_auto_bright=True,
                no_auto_scale=True,
                adjust_maximum_thr=0,
            )
        except rawpy.LibRawError as error:
            raise unreadable(path, _reason(error)) from None
    if values.ndim == 3 and values.shape[2] not in (1, 3):
        raise InputError(f"{path}: a sensor of {values.shape[2]} colours is not supported; convert it to a 16-bit TIFF")
    values = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    return Samples(values, white - black, white - black, black=black)


def _open_raw(file: BinaryIO, path: Path) -> "RawPy":
    try:
        import rawpy
    except ImportError:
        raise missing_package(path, "a camera's raw file", "raw") from None
    try:
        raw = rawpy.imread(file)
        check_pixels(path, raw.sizes.width, raw.sizes.height)
    except rawpy.LibRawError as error:
        raise unreadable(path, _reason(error)) from None
    return raw


def _reason(error: Exception) -> str:
    """LibRaw's message, which rawpy passes on as bytes."""
    reason = error.args[0] if error.args else ""
    return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
