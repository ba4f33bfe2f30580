"""Our own layout: `lights.csv` names each image and its light."""

from collections.abc import Sequence
from pathlib import Path

from fr_ps.config import LightAxes
from fr_ps.files import check_regular_file
from fr_ps.photometric.layouts.files import StatedLights, match_names
from fr_ps.photometric.layouts.folders import find_name
from fr_ps.photometric.lights import LIGHTS_FILE, read_lights

COMPANIONS: tuple[str, ...] = ()


def find_lights_file(names: Sequence[str]) -> str | None:
    return find_name(LIGHTS_FILE, names)


def read_lights_file(path: Path, names: Sequence[str], light_axes: LightAxes) -> StatedLights:
    check_regular_file(path)
    images, lights, intensities = read_lights(path)
    return StatedLights(match_names(images, names), lights, intensities)
