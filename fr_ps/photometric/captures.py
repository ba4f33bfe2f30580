"""Reading the capture of one session: its pictures as light, their lights, mask and landmarks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from fr_ps.config import CaptureLayout, LightAxes, MaskSource
from fr_ps.errors import InputError
from fr_ps.photometric.capture_pictures import read_pictures, size_text
from fr_ps.photometric.failed_lights import find_failed_lights
from fr_ps.photometric.layouts import find_lights, read_lights_file
from fr_ps.photometric.layouts.files import match_names
from fr_ps.photometric.layouts.folders import list_files, list_names
from fr_ps.photometric.lights import check_lights
from fr_ps.photometric.linear_light import CameraResponse
from fr_ps.photometric.masks import find_mask, find_mask_file, is_mask_name
from fr_ps.photometric.photoface import ATTRIBUTES_FILE, LANDMARKS, LANDMARKS_FILE, read_attributes, read_landmarks
from fr_ps.progress import OnProgress, no_progress

_NO_AMBIENT = "--ambient needs an image taken without the lights"


@dataclass(frozen=True)
class Capture:
    """One session in memory: pictures of one face or object, each under one known light.

    Attributes:
        images: (k, H, W) float32, linear in the light received, as recorded: in [0, 1], 1 being the white level; at least 0 for
            files of floats without a white level.
        lights: (k, 3) float64 unit vectors toward the lights.
        saturated: (k, H, W) bool: True where the pixel is inside the mask and at the camera's limit; all False if not given.
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
        stored_size: height and width of the stored pictures, in pixels before the reduction.
        failed: names of the image files of lights that failed; neither they nor their lights are in the arrays.
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
    stored_size: tuple[int, int] = None  # type: ignore[assignment]  # never None once it is made
    failed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.saturated is None:
            object.__setattr__(self, "saturated", np.zeros(self.images.shape, dtype=bool))
        if self.intensities is None:
            object.__setattr__(self, "intensities", np.ones(len(self.images)))
        if self.stored_size is None:
            height, width = self.images.shape[1:]
            object.__setattr__(self, "stored_size", (height * self.reduction, width * self.reduction))


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


def read_capture(
    folder: Path, settings: ReadingSettings = ReadingSettings(), root: Path | None = None, advance: OnProgress = no_progress
) -> Capture:
    """The pictures, lights, mask and landmarks of one session folder.

    Pictures of more than `capture_pictures.MAX_VALUES` pixels together are averaged over squares of pixels as they are read.
    Pictures of lights that failed are left out; see `find_failed_lights`.

    Args:
        folder: of the session.
        settings: how to read it.
        root: of all captures, up to which folders are searched for the file of lights; None: only `folder`.
        advance: called with the share of the pictures that were read since the previous call.

    Raises:
        InputError: a file is missing, unreadable or invalid, fewer than three images, images that are black or of different
            sizes or depths, two masks or an empty one, landmarks outside the picture, or lights that `check_lights` rejects,
            before or after the failed ones are left out.
    """
    files = list_files(folder)
    ambient = _find_ambient(folder, files, settings.ambient) if settings.ambient else None
    names = [name for name in files if name != ambient]
    lights_file = find_lights(folder, root, None if settings.layout == "auto" else settings.layout)
    stated = read_lights_file(lights_file, names, settings.light_axes)
    check_lights(stated.lights, settings.max_condition, lights_file.path)
    missing = {Path(image).stem.casefold() for image in stated.images if image not in names}
    if ambient and Path(ambient).stem.casefold() in missing:
        raise InputError(f"{folder / ambient}: has a light in {lights_file.path.name}; {_NO_AMBIENT}")
    mask_file = find_mask_file(folder, names) if settings.mask == "file" else None
    pictures = read_pictures(
        [folder / name for name in stated.images],
        stated.intensities,
        response=CameraResponse(settings.black_level, settings.response),
        white_level=settings.white_level,
        ambient=folder / ambient if ambient else None,
        mask_file=folder / mask_file if mask_file else None,
        use_alpha=settings.mask == "file",
        advance=lambda count: advance(count / len(stated.images)),
    )
    landmarks = None
    if LANDMARKS_FILE in names:
        landmarks = _read_valid_landmarks(folder / LANDMARKS_FILE, *pictures.size) / pictures.reduction
    capture = Capture(
        pictures.images,
        stated.lights,
        pictures.saturated,
        np.ones(len(stated.lights)) if stated.intensities.ndim == 2 else stated.intensities,
        landmarks,
        find_mask(pictures.images, str(folder)) if settings.mask == "auto" else pictures.mask,
        pictures.saturation_level,
        pictures.reduction,
        lights_file.layout,
        stated.paired_by_order,
        pictures.encoded,
        pictures.saturation_level or pictures.white_level,
        pictures.size,
    )
    return _leave_out_failed_lights(capture, stated.images, settings.max_condition, lights_file.path)


def _leave_out_failed_lights(capture: Capture, names: Sequence[str], max_condition: float, lights_file: Path) -> Capture:
    failed = find_failed_lights(capture.images, capture.intensities, capture.lights, capture.mask)
    if not failed.any():
        return capture
    failed_names = tuple(name for name, one in zip(names, failed) if one)
    check_lights(capture.lights[~failed], max_condition, f"{lights_file}, without the failed light of {', '.join(failed_names)}")
    return replace(
        capture,
        images=capture.images[~failed],
        lights=capture.lights[~failed],
        saturated=capture.saturated[~failed],
        intensities=capture.intensities[~failed],
        failed=failed_names,
    )


def _find_ambient(folder: Path, files: Sequence[str], ambient: str) -> str:
    """The name of the image that `--ambient` names, perhaps in another case, among the `files` in the folder.

    Raises:
        InputError: it is missing, or is the mask.
    """
    (name,) = match_names([ambient], files)
    if name not in files:
        raise InputError(f"{folder}: has no image {ambient}, which --ambient names; add it, or leave --ambient out")
    if is_mask_name(name):
        raise InputError(f"{folder / name}: is the mask; {_NO_AMBIENT}")
    return name


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
            where = f"{name} at x {x:g}, y {y:g} is outside the picture of {size_text((height, width))}"
            raise InputError(f"{path}: landmark {where}; correct it, or remove the file to continue without landmarks")
    return points
