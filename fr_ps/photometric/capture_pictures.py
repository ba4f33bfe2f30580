"""The pictures of one session as light: decoded one at a time, checked against each other, large ones averaged."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fr_ps.errors import InputError
from fr_ps.photometric.images import DecodedImage, SaturationSearch, read_image
from fr_ps.photometric.linear_light import CameraResponse, linear_luminance
from fr_ps.photometric.masks import check_mask, read_mask
from fr_ps.progress import OnProgress, no_progress

MAX_VALUES = 100_000_000
"""Pixels of all pictures of a session in memory: 0.7 GB with their saturation."""
_MAX_SHARE_ABOVE_WHITE = 0.01
_MIN_LIT_SHARE = 1e-3
_STRIPE_PIXELS = 1_000_000
"""Pixels of a picture that are converted at once, so that only its decoded values take memory."""


class CapturePictures(NamedTuple):
    """The pictures of a session.

    Attributes:
        images, saturated, mask, saturation_level, white_level, reduction, encoded: see `captures.Capture`.
        size: height and width of the stored pictures.
    """

    images: np.ndarray
    saturated: np.ndarray
    mask: np.ndarray | None
    saturation_level: int | None
    white_level: int | None
    size: tuple[int, int]
    reduction: int
    encoded: bool


def read_pictures(
    paths: Sequence[Path],
    intensities: np.ndarray,
    *,
    response: CameraResponse,
    white_level: float | None,
    ambient: Path | None,
    mask_file: Path | None,
    use_alpha: bool,
    advance: OnProgress = no_progress,
) -> CapturePictures:
    """The light in the pictures of one session, which are decoded one at a time.

    Pictures of more than `MAX_VALUES` pixels together are averaged over squares of pixels. Pixels outside the mask count
    neither in these means nor in the search for the white level, and are not saturated.

    Args:
        paths: of k pictures.
        intensities: (k,) of the lights, or (k, 3) by colour channel; only the latter are divided out here.
        response: of the camera.
        white_level: as for `read_image`.
        ambient: a picture without the lights, which is subtracted; None: none.
        mask_file: of the mask; None: none.
        use_alpha: whether pixels that are transparent in a picture are outside the mask.
        advance: called once per picture.

    Raises:
        InputError: a picture that is unreadable or black, pictures of different sizes, depths or units, an empty mask, or a
            white level below the values.
    """
    picture = read_image(paths[0], white_level)
    height, width = size = picture.values.shape[:2]
    first = picture._replace(values=picture.values[:1].copy(), opaque=None)  # of its scale only
    reduction = max(1, math.ceil(math.sqrt(len(paths) * height * width / MAX_VALUES)))
    images = np.empty((len(paths), height // reduction, width // reduction), dtype=np.float32)
    search, brightest, whites, encoded = SaturationSearch(), [], [], False
    ambient_light = None
    if ambient is not None:
        ambient_light = response.to_light(_read_comparable(ambient, white_level, size, first, paths[0]))
    file_mask = mask = read_mask(mask_file, size) if mask_file else None
    relative = intensities / intensities.mean()
    for place, path in enumerate(paths):
        if place:
            picture = _read_comparable(path, white_level, size, first, paths[0])
        by_channel = relative[place] if relative.ndim == 2 else None
        if by_channel is not None and picture.values.ndim == 2:
            by_channel = _same_channels(by_channel, path)
        inside = _combine(file_mask, picture.opaque if use_alpha else None)
        peaks = np.empty(images.shape[1:], dtype=picture.values.dtype)
        for stored, reduced in _stripes(size, reduction):
            stripe, stripe_inside = picture.rows(stored), None if inside is None else inside[stored]
            light = linear_luminance(stripe, response, None if ambient_light is None else ambient_light[stored], by_channel)
            images[place, reduced] = block_means(light, reduction, stripe_inside)
            peak = stripe.brightest if stripe_inside is None else np.where(stripe_inside, stripe.brightest, 0)
            peaks[reduced] = block_maxima(peak, reduction)
            search.add(stripe, stripe_inside)
        mask = _combine(mask, inside)
        encoded |= picture.encoded
        brightest.append(peaks)
        whites.append(picture.white)
        del picture, stripe, light  # before the next one is decoded
        advance(1)
    if mask is not None:
        check_mask(mask, str(mask_file or f"{paths[0]}: the alpha channel"))
        mask = mask if reduction == 1 else block_means(mask.astype(np.float32), reduction) >= 0.5
    _check_white_level(search, first, paths[0].parent)
    _check_light(images, mask, response.black_level, ambient, paths[0].parent)
    level = None if white_level else search.level()
    saturated = np.empty(images.shape, dtype=bool)
    for place, white in enumerate(whites):
        np.greater_equal(brightest[place], white if level is None else level, out=saturated[place])
    saturation_level = None if level is None else first.stored(level)
    file_white = None if first.is_float else round(first.stored(first.white))
    return CapturePictures(images, saturated, mask, saturation_level, file_white, size, reduction, encoded)


def _combine(one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    return one if other is None else other if one is None else one & other


def _stripes(size: tuple[int, int], reduction: int) -> Iterator[tuple[slice, slice]]:
    """The rows of each stripe of a picture of `size`, and those of its squares of `reduction` pixels.

    The last stripe has the rows of incomplete squares too, for the search for the white level.
    """
    height, width = size
    count = max(1, _STRIPE_PIXELS // (reduction * width))
    last = max(height // reduction - 1, 0) // count * count
    for top in range(0, last + 1, count):
        end = height if top == last else (top + count) * reduction
        yield slice(top * reduction, end), slice(top, min(top + count, height // reduction))


def _check_white_level(search: SaturationSearch, first: DecodedImage, folder: Path) -> None:
    """Reject a white level that the values exceed: a camera stores nothing above it, but for single pixels."""
    share, largest = search.above_white()
    if share > _MAX_SHARE_ABOVE_WHITE:
        level, top = first.stored(first.white), first.stored(largest)
        raise InputError(
            f"{folder}: {share:.0%} of the pixels are above the white level of {level}, up to {top}; set --white-level to the "
            "stored value at which the camera saturates"
        )


def _check_light(images: np.ndarray, mask: np.ndarray | None, black_level: int, ambient: Path | None, folder: Path) -> None:
    """Reject pictures (k, H, W) that are black inside the mask, but for single pixels."""
    lit = sum(np.count_nonzero(image if mask is None else image[mask]) for image in images)
    if lit > _MIN_LIT_SHARE * len(images) * (images[0].size if mask is None else np.count_nonzero(mask)):
        return
    where = f"{folder}: the pictures are black" + (" inside the mask" if mask is not None else "")
    subtracted = [f"--black-level {black_level}"] if black_level else []
    subtracted += [f"--ambient {ambient.name}"] if ambient else []
    if subtracted:
        raise InputError(f"{where} after subtracting {' and '.join(subtracted)}; correct the setting")
    raise InputError(f"{where}; capture or copy them again" + (", or correct the mask" if mask is not None else ""))


def _read_comparable(
    path: Path, white_level: float | None, size: tuple[int, int], first: DecodedImage, first_path: Path
) -> DecodedImage:
    """The picture at `path`, which must have the `size`, the depth and the unit of the `first` one, at `first_path`."""
    picture = read_image(path, white_level)
    found, name = picture.values.shape[:2], first_path.name
    if found != size:
        raise InputError(
            f"{path}: {size_text(found)}, but {name} is {size_text(size)}; all images of a session must have one size"
        )
    if first.is_float != picture.is_float:
        one, two = (("floats" if image.is_float else "whole numbers") for image in (first, picture))
        raise InputError(f"{path}: stores {two}, but {name} {one}; all images of a session must have one unit")
    if first.values.dtype != picture.values.dtype:
        bits, first_bits = (8 * image.values.itemsize for image in (picture, first))
        raise InputError(f"{path}: stores {bits} bits, but {name} {first_bits}; all images of a session must have one depth")
    if first.white != picture.white:
        levels = f"{picture.stored(picture.white)}, but that of {name} is {first.stored(first.white)}"
        raise InputError(f"{path}: its white level is {levels}; set --white-level for all")
    return picture


def _same_channels(intensity: np.ndarray, path: Path) -> np.ndarray:
    """The intensity (3,) of a light as (1,) for a grey picture, if it is the same in all channels."""
    if np.ptp(intensity) > 1e-6 * intensity.max():
        raise InputError(
            f"{path}: a grey image, but its light has different intensities in red, green and blue; state one intensity"
        )
    return intensity[:1]


def block_means(plane: np.ndarray, side: int, inside: np.ndarray | None = None) -> np.ndarray:
    """The means of the squares of `side` x `side` pixels of `plane` (H, W); incomplete squares are left out.

    Args:
        plane: any values.
        side: of a square; 1 returns `plane`.
        inside: (H, W) bool: the pixels that count; a square without any is 0. None: all.
    """
    if side == 1:
        return plane
    if inside is None:
        return _blocks(plane, side).mean(axis=(1, 3))
    total = _blocks(np.where(inside, plane, 0), side).sum(axis=(1, 3))
    return total / np.maximum(_blocks(inside, side).sum(axis=(1, 3)), 1)


def block_maxima(plane: np.ndarray, side: int) -> np.ndarray:
    """As `block_means`, the largest value."""
    return plane if side == 1 else _blocks(plane, side).max(axis=(1, 3))


def _blocks(plane: np.ndarray, side: int) -> np.ndarray:
    height, width = (length // side for length in plane.shape)
    return plane[: height * side, : width * side].reshape(height, side, width, side)


def size_text(shape: tuple[int, ...]) -> str:
    """The height and width `shape` as text, width first."""
    height, width = shape
    return f"{width} x {height}"
