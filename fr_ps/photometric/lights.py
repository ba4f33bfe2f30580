"""Reading `lights.csv` (image, azimuth_deg, elevation_deg and optionally intensity), and the check of light directions."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fr_ps.errors import InputError
from fr_ps.files import check_path_component
from fr_ps.tables import NUMBER, read_csv_rows

LIGHTS_FILE = "lights.csv"
LIGHTS_COLUMNS = ("image", "azimuth_deg", "elevation_deg")
INTENSITY_COLUMN = "intensity"
MIN_LIGHTS = 3
MAX_DEGREES = 360.0
INTENSITY_RANGE = (1e-6, 1e6)
MAX_INTENSITY_RATIO = 1e4
"""Limit of the strongest over the weakest light: beyond it, 16 bits do not resolve the weakest one."""


def read_lights(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The image names, (k, 3) unit vectors toward the lights and (k,) intensities of a `lights.csv`.

    Angles are converted by `light_directions`. Intensities are relative to each other; 1 without the column.

    Raises:
        InputError: a missing or unknown column, fewer than three rows, a duplicate image, a cell that is not a number or
            out of bounds, or intensities that differ by more than `MAX_INTENSITY_RATIO`; names the row.
    """
    columns, rows = read_csv_rows(path)
    if {*columns} - {INTENSITY_COLUMN} != {*LIGHTS_COLUMNS}:
        expected = f"{','.join(LIGHTS_COLUMNS)} and, optionally, {INTENSITY_COLUMN}"
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
    return names, light_directions(angles), np.array(intensities)


def light_directions(angles: Sequence[Sequence[float]]) -> np.ndarray:
    """(k, 3) float64 unit vectors (-sin A cos E, sin E, cos A cos E) for azimuths A and elevations E in degrees.

    A positive azimuth lights the left half of the picture, as in the Extended Yale Face Database B.
    """
    azimuth, elevation = np.radians(np.array(angles, dtype=np.float64)).T
    return np.column_stack([-np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])


def check_lights(lights: np.ndarray, max_condition: float, where: Path) -> None:
    """Reject (k, 3) light directions that determine the normals not at all, or only with a large error.

    The condition number of `lights` bounds the factor from the error of the pictures to that of the normals.

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
        raise InputError(f"{where}: the light directions lie in one plane (rank below 3); add a light outside of it")
    condition = singular[0] / singular[2]
    if condition > max_condition:
        remedy = "spread the lights, or raise --max-condition if the error is acceptable"
        raise InputError(f"{where}: condition number of the lights is {condition:.1f}, above {max_condition:g}; {remedy}")


def parse_degrees(text: str, where: str) -> float:
    """`text` as an angle in degrees.

    Raises:
        InputError: not a number, or beyond a full turn; the message begins with `where`.
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
    """`text` as a finite decimal number.

    Raises:
        InputError: anything else; the message begins with `where` and names what was `expected`.
    """
    if not NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise InputError(f"{where} is {text!r}; expected {expected}")
    return float(text)
