"""Reading `lights.csv` (image, azimuth_deg, elevation_deg and perhaps intensity), and what makes lights usable."""

import math
import re
from pathlib import Path

import numpy as np

from fr_ps.errors import InputError
from fr_ps.files import check_path_component
from fr_ps.tables import read_csv_rows

LIGHTS_FILE = "lights.csv"
LIGHTS_COLUMNS = ("image", "azimuth_deg", "elevation_deg")
INTENSITY_COLUMN = "intensity"
MIN_LIGHTS = 3
MAX_DEGREES = 360.0
INTENSITY_RANGE = (1e-6, 1e6)
MAX_INTENSITY_RATIO = 1e4
"""Of the strongest light over the weakest: beyond, a picture of 16 bits has no value left that is not rounded away."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def read_lights(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The image names, the (k, 3) unit vectors toward the lights and their (k,) intensities that `lights.csv` lists.

    A light of azimuth A and elevation E stands in the direction (-sin A cos E, sin E, cos A cos E): a positive azimuth
    lights the left half of the picture (the convention of the Extended Yale Face Database B). Intensities are relative to
    each other; 1 where the file states none.

    Raises:
        InputError: a missing or unknown column, fewer than three rows, an image that stands twice, a cell that is no
            number or out of bounds, or intensities that differ by more than `MOST_RATIO`; names the row.
    """
    columns, rows = read_csv_rows(path)
    if {*columns} - {INTENSITY_COLUMN} != {*LIGHTS_COLUMNS}:
        expected = f"{','.join(LIGHTS_COLUMNS)} and, if wanted, {INTENSITY_COLUMN}"
        raise InputError(f"{path}: columns are {','.join(columns)}; expected {expected}")
    if len(rows) < MIN_LIGHTS:
        raise InputError(f"{path}: {len(rows)} images; photometric stereo needs at least three")
    names, angles, intensities = [], [], []
    for number, row in rows:
        where = f"{path}: row {number}"
        if row["image"] in names:
            raise InputError(f"{where}: image {row['image']} is listed twice; remove one of the rows")
        names.append(check_path_component(row["image"], where))
        angles.append([parse_degrees(row[column], f"{where}: {column}") for column in LIGHTS_COLUMNS[1:]])
        intensities.append(_parse_intensity(row.get(INTENSITY_COLUMN, "1"), f"{where}: {INTENSITY_COLUMN}"))
    weakest, strongest = min(intensities), max(intensities)
    if strongest > MAX_INTENSITY_RATIO * weakest:
        number = rows[intensities.index(weakest)][0]
        apart = f"is {weakest:g}, and the strongest light's {strongest:g} is more than {MAX_INTENSITY_RATIO:g} times that"
        raise InputError(f"{path}: row {number}: {INTENSITY_COLUMN} {apart}; correct it, or remove the light and its image")
    azimuth, elevation = np.radians(np.array(angles)).T
    directions = (-np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation))
    return names, np.stack(directions, axis=1), np.array(intensities)


def check_lights(lights: np.ndarray, max_condition: float, where: Path) -> None:
    """Refuse (k, 3) light directions from which normals cannot be told, or only with a large error.

    The error of the pictures reaches the normals multiplied by up to the condition number of `lights`.

    Raises:
        InputError: a light at or behind the picture plane (z <= 0), rank below 3, or a condition number above
            `max_condition`.
    """
    for number, light in enumerate(lights, start=1):
        if light[2] <= 1e-9:
            place = f"light {number} of {len(lights)} is at or behind the picture plane (z = {light[2]:.3g})"
            raise InputError(f"{where}: {place}; correct its angles, or remove it and its image")
    singular = np.linalg.svd(lights, compute_uv=False)
    if singular[2] < 1e-6 * singular[0]:
        raise InputError(f"{where}: the light directions lie in one plane (rank below 3); use lights that do not")
    condition = singular[0] / singular[2]
    if condition > max_condition:
        remedy = "spread the lights, or raise --max-condition if the error is acceptable"
        raise InputError(f"{where}: condition number of the lights is {condition:.1f}, above {max_condition:g}; {remedy}")


def parse_degrees(text: str, where: str) -> float:
    """The angle that `text` writes.

    Raises:
        InputError: no number, or beyond a full turn; names `where` it stands.
    """
    degrees = parse_number(text, where, "degrees")
    if abs(degrees) > MAX_DEGREES:
        raise InputError(f"{where} is {text}; expected degrees from -{MAX_DEGREES:g} to {MAX_DEGREES:g}")
    return degrees


def _parse_intensity(text: str, where: str) -> float:
    smallest, largest = INTENSITY_RANGE
    expected = f"a number above 0, from {smallest:g} to {largest:g}"
    intensity = parse_number(text, where, expected)
    if not smallest <= intensity <= largest:
        raise InputError(f"{where} is {text}; expected {expected}")
    return intensity


def parse_number(text: str, where: str, expected: str) -> float:
    """The finite number that `text` writes in decimal.

    Raises:
        InputError: anything else; names `where` it stands and what was `expected`.
    """
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise InputError(f"{where} is {text!r}; expected {expected}")
    return float(text)
