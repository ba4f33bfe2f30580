"""Reading raw captures: `{id}/{session}/` with its pictures and `lights.csv` (image, azimuth_deg, elevation_deg)."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fr_ps.errors import InputError
from fr_ps.files import check_name, read_csv_rows

LIGHTS_FILE = "lights.csv"
LIGHTS_COLUMNS = ("image", "azimuth_deg", "elevation_deg")
_DEPTH_16 = ("I", "I;16", "I;16B", "I;16L")


@dataclass(frozen=True)
class Capture:
    """One session: pictures of one face, each under one known light.

    Attributes:
        images: (k, H, W) float32 in [0, 1], linear in the light received.
        lights: (k, 3) float64 unit vectors toward the lights.
    """

    images: np.ndarray
    lights: np.ndarray


@dataclass(frozen=True)
class Source:
    """Where one session's capture lies."""

    id: str
    session: str
    folder: Path


def list_sources(captures: Path) -> list[Source]:
    """Every `{id}/{session}` folder under `captures`, sorted by name; hidden ones are passed over.

    Raises:
        InputError: the folder is missing, or there is no session in it.
    """
    if not captures.is_dir():
        raise InputError(f"{captures}: no such captures folder; give the folder that holds {{id}}/{{session}}/{LIGHTS_FILE}")
    found = [Source(person.name, session.name, session) for person in _subfolders(captures) for session in _subfolders(person)]
    if not found:
        raise InputError(f"{captures}: no session in it; expected {{id}}/{{session}}/{LIGHTS_FILE} and its images")
    return found


def read_capture(folder: Path, max_condition: float) -> Capture:
    """The pictures and lights of one session folder.

    Raises:
        InputError: `lights.csv` or an image is missing or unreadable, fewer than three images, sizes that differ, or
            lights that `check_lights` refuses.
    """
    names, lights = read_lights(folder / LIGHTS_FILE)
    check_lights(lights, max_condition, folder / LIGHTS_FILE)
    images = [read_image(folder / name) for name in names]
    for name, image in zip(names, images):
        if image.shape != images[0].shape:
            sizes = f"{_size(image)}, but {names[0]} is {_size(images[0])}"
            raise InputError(f"{folder / name}: {sizes}; all images of a session must have one size")
    return Capture(np.stack(images), lights)


def read_lights(path: Path) -> tuple[list[str], np.ndarray]:
    """The image names and the (k, 3) unit vectors toward the lights that `lights.csv` lists.

    A light of azimuth A and elevation E stands in the direction (-sin A cos E, sin E, cos A cos E): a positive azimuth
    lights the left half of the picture (the convention of the Extended Yale Face Database B).
    """
    columns, rows = read_csv_rows(path)
    if tuple(columns) != LIGHTS_COLUMNS:
        raise InputError(f"{path}: columns are {','.join(columns)}; expected {','.join(LIGHTS_COLUMNS)}")
    if len(rows) < 3:
        raise InputError(f"{path}: {len(rows)} images; photometric stereo needs at least three")
    names, angles = [], []
    for number, row in rows:
        where = f"{path}: row {number}"
        if row["image"] in names:
            raise InputError(f"{where}: image {row['image']} is listed twice; remove one of the rows")
        names.append(check_name(row["image"], where))
        angles.append([_degrees(row[column], where, column) for column in LIGHTS_COLUMNS[1:]])
    azimuth, elevation = np.radians(np.array(angles)).T
    directions = (-np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation))
    return names, np.stack(directions, axis=1)


def check_lights(lights: np.ndarray, max_condition: float, where: Path) -> None:
    """Refuse (k, 3) light directions from which normals cannot be told, or only with a large error.

    The error of the pictures reaches the normals multiplied by up to the condition number of `lights`.

    Raises:
        InputError: rank below 3, or a condition number above `max_condition`.
    """
    singular = np.linalg.svd(lights, compute_uv=False)
    if singular[2] < 1e-6 * singular[0]:
        raise InputError(f"{where}: the light directions lie in one plane (rank below 3); use lights that do not")
    condition = singular[0] / singular[2]
    if condition > max_condition:
        remedy = "spread the lights, or raise --max-condition if the error is acceptable"
        raise InputError(f"{where}: condition number of the lights is {condition:.1f}, above {max_condition:g}; {remedy}")


def read_image(path: Path) -> np.ndarray:
    """The picture as (H, W) float32 in [0, 1]; 8 or 16 bit; colour is reduced to luminance (ITU-R 601).

    Raises:
        InputError: missing, truncated, or of no known format.
    """
    try:
        with Image.open(path) as image:
            if image.mode in _DEPTH_16:
                return np.asarray(image, dtype=np.float32) / 65535
            if image.mode == "F":
                raise InputError(f"{path}: floating-point pictures have no stated white; store 8 or 16 bits")
            return np.asarray(image.convert("L"), dtype=np.float32) / 255
    except FileNotFoundError:
        raise InputError(f"{path}: no such image, though {LIGHTS_FILE} lists it; add it or remove its row") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not a readable image ({' '.join(str(error).split())}); capture or copy it again") from None


def _degrees(text: str, where: str, column: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}: {column} is {text!r}; expected degrees")
    return value


def _subfolders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]} x {image.shape[0]}"
