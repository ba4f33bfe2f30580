"""DiLiGenT and data sets in its form: `filenames.txt`, `light_directions.txt`, `light_intensities.txt` and `mask.png`.

Shi et al., "A benchmark dataset and evaluation for non-Lambertian and uncalibrated photometric stereo", PAMI 2019. A line of
each text file belongs to one image: its name, x y z (x right, y up, z toward the camera), and the red, green and blue
intensity of the light. One intensity a line is that of all channels; without the file, all are equal.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fr_ps.config import LightAxes
from fr_ps.errors import InputError
from fr_ps.photometric.layouts.files import StatedLights, match_names
from fr_ps.photometric.layouts.folders import find_name, list_files
from fr_ps.photometric.layouts.text_lines import base_name, read_lines
from fr_ps.photometric.lights import MIN_LIGHTS, check_intensities, parse_intensity, parse_vector

NAMES_FILE, DIRECTIONS_FILE, INTENSITIES_FILE = "filenames.txt", "light_directions.txt", "light_intensities.txt"
COMPANIONS: tuple[str, ...] = (NAMES_FILE, INTENSITIES_FILE)


def find_lights_file(names: Sequence[str]) -> str | None:
    return find_name(DIRECTIONS_FILE, names)


def read_lights_file(path: Path, names: Sequence[str], light_axes: LightAxes) -> StatedLights:
    beside = list_files(path.parent)
    names_file, intensities_file = (path.with_name(find_name(name, beside) or name) for name in COMPANIONS)
    listed = [base_name(line, f"{names_file}: line {number}") for number, line in read_lines(names_file)]
    lines = read_lines(path)
    _check_count(path, len(lines), names_file, len(listed))
    if len(listed) < MIN_LIGHTS:
        raise InputError(f"{names_file}: {len(listed)} images; photometric stereo needs at least three")
    if repeated := next((name for name in listed if listed.count(name) > 1), None):
        raise InputError(f"{names_file}: {repeated} is listed twice; remove one of the lines, and its light")
    lights = np.array([parse_vector(line.split(), f"{path}: line {number}") for number, line in lines])
    intensities = np.ones(len(listed))
    if intensities_file.exists():
        intensities = _read_intensities(intensities_file)
        _check_count(intensities_file, len(intensities), names_file, len(listed))
    return StatedLights(match_names(listed, names), lights, intensities)


def _read_intensities(path: Path) -> np.ndarray:
    """(k, 3), or (k,) if each line has one number."""
    rows: list[list[float]] = []
    lines = read_lines(path)
    for number, line in lines:
        cells = line.split()
        if len(cells) not in (1, 3) or (rows and len(cells) != len(rows[0])):
            raise InputError(f"{path}: line {number}: {len(cells)} numbers; expected red, green and blue, or one, in every line")
        rows.append([parse_intensity(cell, f"{path}: line {number}: an intensity") for cell in cells])
    intensities = np.array(rows).reshape(len(rows), -1)
    check_intensities(intensities, [f"{path}: line {number}: the intensity" for number, _ in lines])
    return intensities[:, 0] if intensities.shape[1] == 1 else intensities


def _check_count(path: Path, count: int, names_file: Path, images: int) -> None:
    if count != images:
        raise InputError(f"{path}: {count} lines, but {names_file.name} lists {images} images; expected as many")
