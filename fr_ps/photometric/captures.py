"""Reading raw captures: `{id}/{session}/` with pictures and their lights, in the plain layout or in that of Photoface.

The plain layout has `lights.csv`, which names the pictures. Photoface has `LightSource.m`, `im0.bmp`, `im1.bmp`, .. (or .png,
.tif, .tiff, .pgm) and optionally `metadataII.txt` with attributes. Both may have `metadata.txt` with landmarks.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fr_ps.config import LightAxes
from fr_ps.errors import InputError
from fr_ps.files import check_path_component, check_regular_file
from fr_ps.photometric.images import DecodedImage, find_saturation_level, read_image
from fr_ps.photometric.lights import LIGHTS_FILE, check_lights, read_lights
from fr_ps.photometric.photoface import (
    ATTRIBUTES_FILE,
    LANDMARKS,
    LANDMARKS_FILE,
    LIGHT_SOURCE_FILE,
    read_attributes,
    read_landmarks,
    read_light_source,
)
from fr_ps.tables import to_nfc

_PHOTOFACE_IMAGE = re.compile(r"im(0|[1-9]\d*)\.(bmp|png|tiff?|pgm)", re.ASCII | re.IGNORECASE)
_LAYOUT = f"{LIGHTS_FILE} (or Photoface's {LIGHT_SOURCE_FILE}) and its images"


@dataclass(frozen=True)
class Capture:
    """One session: pictures of one face, each under one known light.

    Attributes:
        images: (k, H, W) float32 in [0, 1], linear in the light received, as recorded.
        lights: (k, 3) float64 unit vectors toward the lights.
        saturated: (k, H, W) bool: True where the pixel is at the camera's limit; all False if not given.
        intensities: (k,) float64 > 0, of the lights relative to each other; ones if not given.
        landmarks: (11, 2) float64 in the order of `photoface.LANDMARKS`, or None: x right and y down in pixels from the
            picture's top left corner, so that the centre of the first pixel is (0.5, 0.5).
        saturation_level: the stored value, below the largest that the files can store, at which the camera saturates; None
            if the data shows no such value.
    """

    images: np.ndarray
    lights: np.ndarray
    saturated: np.ndarray = None  # type: ignore[assignment]  # never None once it is made
    intensities: np.ndarray = None  # type: ignore[assignment]
    landmarks: np.ndarray | None = None
    saturation_level: int | None = None

    def __post_init__(self) -> None:
        if self.saturated is None:
            object.__setattr__(self, "saturated", np.zeros(self.images.shape, dtype=bool))
        if self.intensities is None:
            object.__setattr__(self, "intensities", np.ones(len(self.images)))


@dataclass(frozen=True)
class CaptureSource:
    """The folder of one session's capture. `id` and `session` are the folder names in Unicode's composed form, as in tables."""

    id: str
    session: str
    folder: Path


def list_sources(captures: Path, unusable: dict[tuple[str, str], str] | None = None) -> list[CaptureSource]:
    """Every `{id}/{session}` folder under `captures`, sorted by name; hidden folders are skipped.

    Args:
        captures: the root.
        unusable: receives the reason why a folder is unusable, by (id, session); the session is empty for the folder of a
            subject. None: the first unusable folder raises.

    Raises:
        InputError: the root is missing or unreadable, or contains no session. Without `unusable` also: a folder is
            unreadable, its name is not allowed in a table, or two folders of one parent differ only by case, surrounding
            white space or Unicode form.
    """

    def usable_subfolders(folder: Path, subject: str = "") -> list[Path]:
        names, wrong = _subfolders(folder)
        for name, reason in wrong.items():
            if unusable is None:
                raise InputError(reason)
            unusable[(to_nfc(subject), to_nfc(name)) if subject else (to_nfc(name), "")] = reason
        return [folder / name for name in names]

    found = []
    for subject in usable_subfolders(captures):
        try:
            sessions = usable_subfolders(subject, subject.name)
            found += [CaptureSource(to_nfc(subject.name), to_nfc(session.name), session) for session in sessions]
        except InputError as error:
            if unusable is None:
                raise
            unusable[to_nfc(subject.name), ""] = str(error)
    if not found:
        raise InputError(f"{captures}: contains no session; expected {{id}}/{{session}}/ with {_LAYOUT}")
    return found


def read_capture(folder: Path, max_condition: float, light_axes: LightAxes = "xy", white_level: int | None = None) -> Capture:
    """The pictures, lights and landmarks of one session folder.

    Args:
        folder: of the session.
        max_condition: largest condition number of the lights.
        light_axes: axes of the angles in `LightSource.m`; see `read_light_source`.
        white_level: stored value at which the camera saturates. None: the largest value of the files' depth, or the
            saturation level that `find_saturation_level` detects.

    Raises:
        InputError: a file is missing, unreadable or invalid, fewer than three images, images of different sizes, landmarks
            outside the picture, or lights that `check_lights` rejects.
    """
    files = list_names(folder)
    if LIGHTS_FILE in files:
        lights_file = folder / LIGHTS_FILE
        check_regular_file(lights_file)
        names, lights, intensities = read_lights(lights_file)
        on_disk = {to_nfc(name): name for name in files}
        names = [on_disk.get(name, name) for name in names]
    elif LIGHT_SOURCE_FILE in files:
        lights_file = folder / LIGHT_SOURCE_FILE
        lights = read_light_source(lights_file, light_axes)
        names, intensities = _photoface_images(folder, files, len(lights)), np.ones(len(lights))
    else:
        raise InputError(f"{folder}: no {LIGHTS_FILE} and no {LIGHT_SOURCE_FILE}; expected {_LAYOUT}")
    check_lights(lights, max_condition, lights_file)
    images, pictures = _read_images(folder, names, white_level)
    level = None if white_level else find_saturation_level(pictures)
    saturated = np.stack([picture.saturated if level is None else picture.brightest >= level for picture in pictures])
    saturation_level = None if level is None else round(level / pictures[0].scale)  # from the decoded to the stored value
    _, height, width = images.shape
    landmarks = _read_valid_landmarks(folder / LANDMARKS_FILE, height, width) if LANDMARKS_FILE in files else None
    return Capture(images, lights, saturated, intensities, landmarks, saturation_level)


def _read_images(folder: Path, names: list[str], white_level: int | None) -> tuple[np.ndarray, list[DecodedImage]]:
    """Luminance (k, H, W) float32 of the named pictures, and the pictures, which share its memory; decoded one at a time."""
    images = np.empty(0)
    pictures = []
    for place, name in enumerate(names):
        picture = read_image(folder / name, white_level)
        luminance = picture.luminance
        if not place:
            images = np.empty((len(names), *luminance.shape), dtype=np.float32)
        if luminance.shape != images.shape[1:]:
            sizes = f"{_size_text(luminance.shape)}, but {names[0]} is {_size_text(images.shape[1:])}"
            raise InputError(f"{folder / name}: {sizes}; all images of a session must have one size")
        images[place] = luminance
        pictures.append(picture._replace(luminance=images[place]))
    return images, pictures


def read_capture_attributes(folder: Path) -> dict[str, str] | None:
    """The attributes of a session in its `metadataII.txt`, by column name; None if it has no such file.

    Raises:
        InputError: the folder or the file is unreadable, or the file is malformed.
    """
    return read_attributes(folder / ATTRIBUTES_FILE) if ATTRIBUTES_FILE in list_names(folder) else None


def _photoface_images(folder: Path, files: list[str], lights: int) -> list[str]:
    """The file names of `im0`, `im1`, .. in order, one for each light."""
    by_number: dict[int, str] = {}
    for name in files:
        match = _PHOTOFACE_IMAGE.fullmatch(name)
        if match:
            other = by_number.setdefault(int(match[1]), name)
            if other != name:
                raise InputError(f"{folder}: both {other} and {name} are image {match[1]}; remove one of them")
    if sorted(by_number) != list(range(lights)):
        found = ", ".join(by_number[number] for number in sorted(by_number)) or "none"
        expected = f"{LIGHT_SOURCE_FILE} has {lights} lights; expected im0 to im{lights - 1} (.bmp, .png, .tif or .pgm)"
        raise InputError(f"{folder}: images are {found}, but {expected}")
    return [by_number[number] for number in range(lights)]


def _read_valid_landmarks(path: Path, height: int, width: int) -> np.ndarray:
    points = read_landmarks(path)
    for name, (x, y) in zip(LANDMARKS, points):
        if not (0 <= x <= width and 0 <= y <= height):
            where = f"{name} at x {x:g}, y {y:g} is outside the picture of {_size_text((height, width))}"
            raise InputError(f"{path}: landmark {where}; correct it, or remove the file to continue without landmarks")
    return points


def _subfolders(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The names of the usable visible folders in `folder`, sorted; and the unusable ones with the reason."""
    names = [name for name in list_names(folder, only_folders=True) if not name.startswith(".")]
    wrong: dict[str, str] = {}
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(to_nfc(name.strip().casefold()), name)
        if other != name:
            differ = "differ only in case, white space or Unicode form"
            wrong[other] = wrong[name] = f"{folder}: {other!r} and {name!r} {differ}; rename or remove one of them"
        elif name != name.strip():
            wrong[name] = f"{folder}: {name!r} begins or ends with white space, which tables do not preserve; rename it"
        else:
            try:
                check_path_component(name, str(folder))
            except InputError as error:
                wrong[name] = str(error)
    return [name for name in names if name not in wrong], wrong


def list_names(folder: Path, only_folders: bool = False) -> list[str]:
    """The names in a folder, sorted.

    Raises:
        InputError: it is missing or unreadable.
    """
    try:
        return sorted(child.name for child in folder.iterdir() if not only_folders or child.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder}: no such folder; name a folder of {{id}}/{{session}}/ with {_LAYOUT}") from None
    except OSError as error:
        raise InputError(f"{folder}: unreadable folder ({error.strerror}); make it readable or move it away") from None


def _size_text(shape: tuple[int, ...]) -> str:
    height, width = shape
    return f"{width} x {height}"
