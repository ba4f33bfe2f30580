"""Reading the capture of one session: its pictures as light, their lights, mask and landmarks."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from fr_ps.config import CaptureLayout, LightAxes, MaskSource
from fr_ps.errors import InputError
from fr_ps.photometric.images import DecodedImage, SaturationSearch, is_image_name, read_image
from fr_ps.photometric.layouts import find_lights, read_lights_file
from fr_ps.photometric.layouts.files import StatedLights
from fr_ps.photometric.layouts.folders import list_files, list_names
from fr_ps.photometric.lights import check_lights
from fr_ps.photometric.linear_light import CameraResponse, linear_luminance
from fr_ps.photometric.masks import check_mask, find_mask, is_mask_name, read_mask
from fr_ps.photometric.photoface import ATTRIBUTES_FILE, LANDMARKS, LANDMARKS_FILE, read_attributes, read_landmarks

MAX_VALUES = 100_000_000
"""Pixels of all pictures of a session in memory: 0.7 GB with their saturation."""
_MAX_SHARE_ABOVE_WHITE = 0.01
_STRIPE_PIXELS = 1_000_000
"""Pixels of a picture that are converted at once, so that only its decoded values take memory."""


@dataclass(frozen=True)
class Capture:
    """One session in memory: pictures of one face or object, each under one known light.

    Attributes:
        images: (k, H, W) float32, linear in the light received, as recorded: in [0, 1], 1 being the white level; at least 0 for
            files of floats without a white level.
        lights: (k, 3) float64 unit vectors toward the lights.
        saturated: (k, H, W) bool: True where the pixel is at the camera's limit; all False if not given.
        intensities: (k,) float64 > 0, of the lights relative to each other; ones if not given.
        landmarks: (11, 2) float64 in the order of `photoface.LANDMARKS`, or None: x right and y down in pixels from the
            picture's top left corner, so that the centre of the first pixel is (0.5, 0.5).
        mask: (H, W) bool: the pixels that show the face or object; None: all.
        saturation_level: the stored value, below the largest that the files can store, at which the camera saturates; None
            if the data shows no such value.
        white_level: the stored value at which the camera saturates: as set, as found, or the largest of the files.
        reduction: side of the squares of stored pixels whose mean is a pixel here. Landmarks are in pixels of `images`.
        layout: of the files.
        paired_by_order: whether the images were paired with the lights by the order of their names alone.
        encoded: whether a picture is JPEG, or is tagged as sRGB or gamma.
    """

    images: np.ndarray
    lights: np.ndarray
    saturated: np.ndarray = None  # type: ignore[assignment]  # never None once it is made
    intensities: np.ndarray = None  # type: ignore[assignment]
    landmarks: np.ndarray | None = None
    mask: np.ndarray | None = None
    saturation_level: int | None = None
    reduction: int = 1
    layout: CaptureLayout = "plain"
    paired_by_order: bool = False
    encoded: bool = False
    white_level: int | None = None

    def __post_init__(self) -> None:
        if self.saturated is None:
            object.__setattr__(self, "saturated", np.zeros(self.images.shape, dtype=bool))
        if self.intensities is None:
            object.__setattr__(self, "intensities", np.ones(len(self.images)))


@dataclass(frozen=True)
class ReadingSettings:
    """How captures are read; the fields are those of `PrepareConfig`."""

    max_condition: float = 10.0
    light_axes: LightAxes = "xy"
    layout: CaptureLayout | Literal["auto"] = "auto"
    mask: MaskSource = "file"
    white_level: int | float | None = None
    black_level: int = 0
    response: str = "linear"
    ambient: str | None = None


def read_capture(folder: Path, settings: ReadingSettings = ReadingSettings(), root: Path | None = None) -> Capture:
    """The pictures, lights, mask and landmarks of one session folder.

    Pictures of more than `MAX_VALUES` pixels together are averaged over squares of pixels as they are read.

    Args:
        folder: of the session.
        settings: how to read it.
        root: of all captures, up to which folders are searched for the file of lights; None: only `folder`.

    Raises:
        InputError: a file is missing, unreadable or invalid, fewer than three images, images of different sizes, landmarks
            outside the picture, an empty mask, or lights that `check_lights` rejects.
    """
    names = [name for name in list_files(folder) if name != settings.ambient]
    lights_file = find_lights(folder, root, None if settings.layout == "auto" else settings.layout)
    stated = read_lights_file(lights_file, names, settings.light_axes)
    check_lights(stated.lights, settings.max_condition, lights_file.path)
    pictures = _read_pictures(folder, stated, settings)
    mask_file = next((name for name in names if is_mask_name(name) and is_image_name(name)), None)
    mask = None
    if settings.mask == "file":
        mask = _combine(read_mask(folder / mask_file, pictures.size) if mask_file else None, pictures.opaque)
        mask = None if mask is None else check_mask(mask, str(folder / (mask_file or f"{stated.images[0]}: the alpha channel")))
    landmarks = None
    if LANDMARKS_FILE in names:
        landmarks = _read_valid_landmarks(folder / LANDMARKS_FILE, *pictures.size) / pictures.reduction
    if settings.mask == "auto":
        mask = find_mask(pictures.images, str(folder))
    elif mask is not None and pictures.reduction > 1:
        mask = block_means(mask.astype(np.float32), pictures.reduction) >= 0.5
    return Capture(
        pictures.images,
        stated.lights,
        pictures.saturated,
        np.ones(len(stated.lights)) if stated.intensities.ndim == 2 else stated.intensities,
        landmarks,
        mask,
        pictures.saturation_level,
        pictures.reduction,
        lights_file.layout,
        stated.paired_by_order,
        pictures.encoded,
        pictures.saturation_level or pictures.white_level,
    )


def _combine(one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    return one if other is None else other if one is None else one & other


class _Pictures(NamedTuple):
    """The pictures of a session: see `Capture`. `size` is that of the stored pictures; `opaque` (H, W) has their size."""

    images: np.ndarray
    saturated: np.ndarray
    saturation_level: int | None
    white_level: int | None
    size: tuple[int, int]
    reduction: int
    opaque: np.ndarray | None
    encoded: bool


def _read_pictures(folder: Path, stated: StatedLights, settings: ReadingSettings) -> _Pictures:
    """The light in the named pictures, which are decoded one at a time."""
    paths = [folder / name for name in stated.images]
    picture = read_image(paths[0], settings.white_level)
    height, width = size = picture.values.shape[:2]
    first = picture._replace(values=picture.values[:1].copy(), opaque=None)  # of its scale only
    reduction = max(1, math.ceil(math.sqrt(len(paths) * height * width / MAX_VALUES)))
    images = np.empty((len(paths), height // reduction, width // reduction), dtype=np.float32)
    search, opaque, brightest, whites, encoded = SaturationSearch(), None, [], [], False
    response = CameraResponse(settings.black_level, settings.response)
    ambient = None
    if settings.ambient:
        unlit = _read_sized(folder / settings.ambient, size, paths[0], settings)
        _check_scale(first, unlit, paths[0], folder / settings.ambient)
        ambient = response.to_light(unlit)
    relative = stated.intensities / stated.intensities.mean()
    for place, path in enumerate(paths):
        if place:
            picture = _read_sized(path, size, paths[0], settings)
            _check_scale(first, picture, paths[0], path)
        by_channel = relative[place] if relative.ndim == 2 else None
        if by_channel is not None and picture.values.ndim == 2:
            by_channel = _same_channels(by_channel, path)
        peaks = np.empty(images.shape[1:], dtype=picture.values.dtype)
        for stored, reduced in _stripes(size, reduction):
            stripe = picture.rows(stored)
            light = linear_luminance(stripe, response, None if ambient is None else ambient[stored], by_channel)
            images[place, reduced] = block_means(light, reduction)
            peaks[reduced] = block_maxima(stripe.brightest, reduction)
            search.add(stripe)
        opaque = _combine(opaque, picture.opaque)
        encoded |= picture.encoded
        brightest.append(peaks)
        whites.append(picture.white)
        del picture, stripe, light  # before the next one is decoded
    _check_white_level(search, first, folder)
    level = None if settings.white_level else search.level()
    saturated = np.empty(images.shape, dtype=bool)
    for place, white in enumerate(whites):
        np.greater_equal(brightest[place], white if level is None else level, out=saturated[place])
    stored_level = None if level is None else first.stored(level)
    white_level = None if first.is_float else round(first.stored(first.white))
    return _Pictures(images, saturated, stored_level, white_level, size, reduction, opaque, encoded)


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


def _check_scale(first: DecodedImage, other: DecodedImage, first_path: Path, path: Path) -> None:
    """Reject pictures of one session whose light has different units."""
    if first.is_float != other.is_float:
        one, two = (("floats" if picture.is_float else "whole numbers") for picture in (first, other))
        raise InputError(f"{path}: stores {two}, but {first_path.name} {one}; all images of a session must have one unit")
    if first.values.dtype == other.values.dtype and first.white != other.white:
        levels = f"{other.stored(other.white)}, but that of {first_path.name} is {first.stored(first.white)}"
        raise InputError(f"{path}: its white level is {levels}; set --white-level for all")


def _read_sized(path: Path, size: tuple[int, int], first: Path, settings: ReadingSettings) -> DecodedImage:
    """The picture at `path`, which must have the `size` of the `first` one."""
    picture = read_image(path, settings.white_level)
    found = picture.values.shape[:2]
    if found != size:
        raise InputError(
            f"{path}: {_size_text(found)}, but {first.name} is {_size_text(size)}; all images of a session must have one size"
        )
    return picture


def _same_channels(intensity: np.ndarray, path: Path) -> np.ndarray:
    """The intensity (3,) of a light as (1,) for a grey picture, if it is the same in all channels."""
    if np.ptp(intensity) > 1e-6 * intensity.max():
        raise InputError(
            f"{path}: a grey image, but its light has different intensities in red, green and blue; state one intensity"
        )
    return intensity[:1]


def block_means(plane: np.ndarray, side: int) -> np.ndarray:
    """The means of the squares of `side` x `side` pixels of `plane` (H, W); incomplete squares are left out."""
    return plane if side == 1 else _blocks(plane, side).mean(axis=(1, 3))


def block_maxima(plane: np.ndarray, side: int) -> np.ndarray:
    """As `block_means`, the largest value."""
    return plane if side == 1 else _blocks(plane, side).max(axis=(1, 3))


def _blocks(plane: np.ndarray, side: int) -> np.ndarray:
    height, width = (length // side for length in plane.shape)
    return plane[: height * side, : width * side].reshape(height, side, width, side)


def read_capture_attributes(folder: Path) -> dict[str, str] | None:
    """The attributes of a session in its `metadataII.txt`, by column name; None if it has no such file.

    Raises:
        InputError: the folder or the file is unreadable, or the file is malformed.
    """
    return read_attributes(folder / ATTRIBUTES_FILE) if ATTRIBUTES_FILE in list_names(folder) else None


def _read_valid_landmarks(path: Path, height: int, width: int) -> np.ndarray:
    points = read_landmarks(path)
    for name, (x, y) in zip(LANDMARKS, points):
        if not (0 <= x <= width and 0 <= y <= height):
            where = f"{name} at x {x:g}, y {y:g} is outside the picture of {_size_text((height, width))}"
            raise InputError(f"{path}: landmark {where}; correct it, or remove the file to continue without landmarks")
    return points


def _size_text(shape: tuple[int, ...]) -> str:
    height, width = shape
    return f"{width} x {height}"
