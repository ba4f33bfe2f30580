"""Reading one picture: its decoded values, its white level, and which of its pixels are opaque."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, NamedTuple

import numpy as np

from fr_ps.errors import InputError
from fr_ps.files import open_regular
from fr_ps.photometric.decoders import exr, pillow, raw, tiff
from fr_ps.photometric.decoders.samples import Samples, unreadable

IMAGE_ENDINGS = (*pillow.ENDINGS, *exr.ENDINGS, *raw.ENDINGS)
_LUMINANCE = (0.299, 0.587, 0.114)

_MIN_SATURATED_SHARE = 0.002
_SATURATION_PEAK_RATIO = 10
_SATURATION_WINDOW = 0.05


class DecodedImage(NamedTuple):
    """One picture.

    Attributes:
        values: (H, W) or (H, W, 3) uint8 or uint16, or float32 of at least 0: the decoded values.
        white: the decoded value from which a channel is saturated; infinity: none, of a file of floats without a white level.
        scale: decoded over stored values: above 1 for a PGM or PPM with a maximum below 255 or 65535, else 1.
        opaque: (H, W) bool, by its alpha channel; None: all.
        black: the stored value that the decoder has subtracted.
        encoded: whether values are sRGB- or gamma-encoded, by the format or a tag of the file.
    """

    values: np.ndarray
    white: float
    scale: float = 1
    opaque: np.ndarray | None = None
    black: int = 0
    encoded: bool = False

    @property
    def is_float(self) -> bool:
        """Whether the file stores floats."""
        return self.values.dtype.kind == "f"

    @property
    def unit(self) -> float:
        """The decoded value that is light 1: the white level, or 1 without one."""
        return self.white if math.isfinite(self.white) else 1

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
        """(H, W) float32, 1 being the white level, above which values are clipped; of a colour by ITU-R 601."""
        light = self.values.astype(np.float32) if self.values.ndim == 2 else weigh_channels(self.values)
        light /= self.unit
        return np.minimum(light, self.white / self.unit, out=light)

    def rows(self, rows: slice) -> "DecodedImage":
        """Part of the picture."""
        return self._replace(values=self.values[rows], opaque=None if self.opaque is None else self.opaque[rows])

    def stored(self, value: float) -> int:
        """A decoded value as the file stores it."""
        return round(value / self.scale) + self.black


def weigh_channels(channels: np.ndarray) -> np.ndarray:
    """(H, W) float32: the luminance of (H, W, 3) channels, by ITU-R 601."""
    luminance = np.zeros(channels.shape[:2], dtype=np.float32)
    for channel, weight in enumerate(_LUMINANCE):
        luminance += np.float32(weight) * channels[..., channel]
    return luminance


def is_image_name(name: str) -> bool:
    """Whether the ending of the name of a file is that of an image format."""
    return not name.startswith(".") and name.lower().endswith(IMAGE_ENDINGS)


def read_image(path: Path, white_level: float | None = None) -> DecodedImage:
    """The picture at `path`: grey or RGB of 8 to 16 bits or of floats, or a camera's raw file; upright by its orientation tag.

    Args:
        path: of a regular file.
        white_level: stored value at which the camera saturates; None: that which the file states, else the largest value of
            its depth; for floats none.

    Raises:
        InputError: the file is missing, not regular, truncated, of an unknown format, of another depth, or larger than
            `MAX_PIXELS`; or the white level exceeds its depth; or a package is missing that reads the format.
    """
    with _open_picture(path) as file:
        samples = _decode(file, path)
    if samples.values.dtype.kind == "f":
        return DecodedImage(samples.values, white_level or math.inf, opaque=samples.opaque)
    if white_level is not None and not 1 <= white_level - samples.black <= samples.largest:
        stored = f"the white level is {white_level}, but its largest possible value is {samples.largest + samples.black}"
        if white_level - samples.black < 1:
            stored = f"the white level is {white_level}, but it stores whole numbers from {samples.black}"
        raise InputError(f"{path}: {stored}; set --white-level to a value that the pictures can store")
    level = white_level - samples.black if white_level else samples.stated_white or samples.largest
    # The order of Pillow's own arithmetic: another order rounds some values differently.
    white = round(level / samples.largest * samples.white)
    scale = samples.white / samples.largest
    return DecodedImage(samples.values, white, scale, samples.opaque, samples.black, samples.encoded)


def count_pixels(path: Path) -> int:
    """The number of pixels of the picture at `path`, by its header.

    Raises:
        InputError: the file is missing, not regular, not a picture, or larger than `MAX_PIXELS`.
    """
    with _open_picture(path) as file:
        if (decoder := _special_decoder(file, path)) is not None:
            return decoder.count_pixels(file, path)
        try:
            return pillow.count_pixels(file, path)
        except pillow.UnsupportedPixels as error:
            if _is_tiff(file):
                return tiff.count_pixels(file, path)
            raise unreadable(path, str(error)) from None


@contextmanager
def _open_picture(path: Path) -> Iterator[BinaryIO]:
    try:
        with open_regular(path) as file:
            yield file
    except FileNotFoundError:
        raise InputError(f"{path}: no such image; add it, or remove its light from the list") from None
    except OSError as error:
        raise unreadable(path, error) from None


def _decode(file: BinaryIO, path: Path) -> Samples:
    if (decoder := _special_decoder(file, path)) is not None:
        return decoder.decode(file, path)
    try:
        return pillow.decode(file, path)
    except pillow.UnsupportedPixels as error:
        if _is_tiff(file):
            return tiff.decode(file, path)
        if str(error) == pillow.UNKNOWN_FORMAT:
            raise unreadable(path, str(error)) from None
        raise InputError(
            f"{path}: {error} is not supported; save it as grey or RGB PNG, TIFF, BMP or PGM of 8 or 16 bits"
        ) from None


def _special_decoder(file: BinaryIO, path: Path) -> ModuleType | None:
    """The decoder of an EXR file, by its first bytes or ending, or of a raw file, by its ending: many are TIFF files."""
    if path.name.lower().endswith(raw.ENDINGS):
        return raw
    return exr if path.name.lower().endswith(exr.ENDINGS) or _starts_with(file, exr.MAGIC) else None


def _is_tiff(file: BinaryIO) -> bool:
    return any(_starts_with(file, magic) for magic in tiff.MAGIC)


def _starts_with(file: BinaryIO, magic: bytes) -> bool:
    file.seek(0)
    start = file.read(len(magic))
    file.seek(0)
    return start == magic


class SaturationSearch:
    """The search for the camera's white level in the pictures of a session, one after the other.

    It is below that of the files if far more pixels have exactly the largest value than each of the values just below it, as
    with a 12-bit sensor in 16-bit files. Constant, dark and unsaturated pictures have no such peak.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(1 << 16, dtype=np.int64)
        self._end = 0  # of the values that occur
        self._scales: set[float] = set()
        self._lowest_white: float = 1 << 16

    def add(self, picture: DecodedImage, inside: np.ndarray | None = None) -> None:
        """Count the values of one more picture in the pixels `inside` (H, W) the mask; None: in all.

        Floats have no largest value and are not counted.
        """
        if picture.is_float:
            return
        values = picture.brightest.ravel() if inside is None else picture.brightest[inside]
        counts = np.bincount(values)
        self._counts[: len(counts)] += counts
        self._end = max(self._end, len(counts))
        self._scales.add(picture.scale)
        self._lowest_white = min(self._lowest_white, picture.white)

    def above_white(self) -> tuple[float, int]:
        """The share of the pixels above the lowest white level of the pictures, and the largest decoded value of all pixels."""
        (present,) = self._counts[: self._end].nonzero()
        if not len(present):
            return 0.0, 0
        above = self._counts[int(self._lowest_white) + 1 : self._end].sum()
        return float(above / self._counts[: self._end].sum()), int(present[-1])

    def level(self) -> int | None:
        """The largest decoded value of all pictures.

        None without a peak, if it is the files' own white level, or if the pictures' scales differ.
        """
        (present,) = self._counts[: self._end].nonzero()
        if not len(present):
            return None
        top, total = int(present[-1]), int(self._counts[: self._end].sum())
        if len(self._scales) > 1 or top >= self._lowest_white:
            return None
        lowest = top - max(8 * next(iter(self._scales)), int(_SATURATION_WINDOW * top))
        below = self._counts[present[(present >= lowest) & (present < top)]]
        peak = int(self._counts[top])
        if not len(below) or not _MIN_SATURATED_SHARE * total <= peak <= total / 2:
            return None
        return top if peak >= _SATURATION_PEAK_RATIO * below.mean() else None
