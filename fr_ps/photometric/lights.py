"""Reading `lights.csv`, and the checks of light directions and intensities."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fr_ps.errors import InputError
from fr_ps.files import check_path_component
from fr_ps.tables import NUMBER, read_csv_rows

LIGHTS_FILE = "lights.csv"
ANGLE_COLUMNS, VECTOR_COLUMNS = ("azimuth_deg", "elevation_deg"), ("x", "y", "z")
LIGHTS_COLUMNS = ("image", *ANGLE_COLUMNS)
INTENSITY_COLUMN = "intensity"
COLOR_INTENSITY_COLUMNS = ("intensity_r", "intensity_g", "intensity_b")
MIN_LIGHTS = 3
MAX_DEGREES = 360.0
INTENSITY_RANGE = (1e-6, 1e6)
MAX_INTENSITY_RATIO = 1e4
"""Limit of the strongest over the weakest light: beyond it, 16 bits do not resolve the weakest one."""


def read_lights(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The image names, (k, 3) unit vectors toward the lights and intensities of a `lights.csv`.

    A row has an image and its light: azimuth_deg and elevation_deg, which `light_directions` converts, or x, y and z of a
    vector of any length; and optionally an intensity, or one for each of red, green and blue, relative to the others.

    Returns:
        The names; the directions; (k,) intensities, 1 without the column, or (k, 3).

    Raises:
        InputError: a missing or unknown column, fewer than three rows, a duplicate image, a cell that is not a number or
            out of bounds, or intensities that differ by more than `MAX_INTENSITY_RATIO`; names the row.
    """
    columns, rows = read_csv_rows(path)
    direction, intensity = _light_columns(path, columns)
    if len(rows) < MIN_LIGHTS:
        raise InputError(f"{path}: {len(rows)} images; photometric stereo needs at least three")
    names: list[str] = []
    cells: list[Sequence[float]] = []
    intensities = []
    for number, row in rows:
        where = f"{path}: row {number}"
        if row["image"] in names:
            raise InputError(f"{where}: image {row['image']} is listed twice; remove one of the rows")
        names.append(check_path_component(row["image"], where))
        if direction == ANGLE_COLUMNS:
            cells.append([parse_degrees(row[column], f"{where}: {column}") for column in direction])
        else:
            cells.append(parse_vector([row[column] for column in direction], where).tolist())
        intensities.append([parse_intensity(row[column], f"{where}: {column}") for column in intensity] or [1.0])
    found = np.array(intensities)
    check_intensities(found, [f"{path}: row {number}: {intensity[0] if intensity else ''}" for number, _ in rows])
    lights = light_directions(cells) if direction == ANGLE_COLUMNS else np.array(cells)
    return names, lights, found if len(intensity) == 3 else found[:, 0]


def _light_columns(path: Path, columns: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns of the direction and of the intensity among those of a `lights.csv`."""
    for direction in (ANGLE_COLUMNS, VECTOR_COLUMNS):
        for intensity in ((), (INTENSITY_COLUMN,), COLOR_INTENSITY_COLUMNS):
            if {*columns} == {"image", *direction, *intensity}:
                return direction, intensity
    expected = f"image, {','.join(ANGLE_COLUMNS)} or {','.join(VECTOR_COLUMNS)}"
    optional = f"{INTENSITY_COLUMN} or {','.join(COLOR_INTENSITY_COLUMNS)}"
    raise InputError(f"{path}: columns are {','.join(columns)}; expected {expected} and, optionally, {optional}")


def check_intensities(intensities: np.ndarray, places: Sequence[str]) -> None:
    """Reject (k, c) intensities that differ by more than `MAX_INTENSITY_RATIO` within a channel.

    Args:
        intensities: of the lights, in one or three channels.
        places: where each is stated, which begins the message.

    Raises:
        InputError: they do; names the weakest one.
    """
    weakest, strongest = intensities.min(axis=0), intensities.max(axis=0)
    for channel in np.flatnonzero(strongest > MAX_INTENSITY_RATIO * weakest):
        place = places[int(intensities[:, channel].argmin())]
        apart = f"is {weakest[channel]:g}, and the strongest light's {strongest[channel]:g} is more than"
        raise InputError(f"{place} {apart} {MAX_INTENSITY_RATIO:g} times that; correct it, or remove the light and its image")


def light_directions(angles: Sequence[Sequence[float]]) -> np.ndarray:
    """(k, 3) float64 unit vectors (-sin A cos E, sin E, cos A cos E) for azimuths A and elevations E in degrees.

    A positive azimuth lights the left half of the picture, as in the Extended Yale Face Database B.
    """
    azimuth, elevation = np.radians(np.array(angles, dtype=np.float64)).T
    return np.column_stack([-np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])


def check_lights(lights: np.ndarray, max_condition: float, where: Path | str) -> None:
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


def parse_vector(cells: Sequence[str], where: str) -> np.ndarray:
    """(3,) unit vector of the cells x, y, z, whose length is free.

    Raises:
        InputError: not three numbers, or a vector of length 0; the message begins with `where`.
    """
    if len(cells) != 3:
        raise InputError(f"{where}: {len(cells)} numbers; expected x y z of the direction toward the light")
    vector = [parse_number(cell, f"{where}: {axis}", "a number") for axis, cell in zip("xyz", cells)]
    length = math.hypot(*vector)
    if not 1e-6 < length < math.inf:
        raise InputError(f"{where}: the direction {' '.join(cells)} has length {length:g}; expected a vector toward the light")
    return np.array(vector) / length


def parse_intensity(text: str, where: str) -> float:
    """`text` as the intensity of a light.

    Raises:
        InputError: not a number, or outside `INTENSITY_RANGE`; the message begins with `where`.
    """
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
