"""Photoface: `LightSource.m` and the images `im0`, `im1`, .. (.bmp, .png, .tif, .tiff, .pgm)."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fr_ps.config import LightAxes
from fr_ps.errors import InputError
from fr_ps.photometric.layouts.files import StatedLights
from fr_ps.photometric.layouts.folders import find_name
from fr_ps.photometric.photoface import LIGHT_SOURCE_FILE, read_light_source

_IMAGE = re.compile(r"im(0|[1-9]\d*)\.(bmp|png|tiff?|pgm)", re.ASCII | re.IGNORECASE)

COMPANIONS: tuple[str, ...] = ()


def find_lights_file(names: Sequence[str]) -> str | None:
    return find_name(LIGHT_SOURCE_FILE, names)


def read_lights_file(path: Path, names: Sequence[str], light_axes: LightAxes) -> StatedLights:
    lights = read_light_source(path, light_axes)
    return StatedLights(_numbered_images(path, names, len(lights)), lights, np.ones(len(lights)))


def _numbered_images(path: Path, names: Sequence[str], lights: int) -> list[str]:
    """The file names of `im0`, `im1`, .. in order, one for each light."""
    by_number: dict[int, str] = {}
    for name in names:
        match = _IMAGE.fullmatch(name)
        if match:
            other = by_number.setdefault(int(match[1]), name)
            if other != name:
                raise InputError(f"{path.parent}: both {other} and {name} are image {match[1]}; remove one of them")
    if sorted(by_number) != list(range(lights)):
        found = ", ".join(by_number[number] for number in sorted(by_number)) or "none"
        expected = f"{LIGHT_SOURCE_FILE} has {lights} lights; expected im0 to im{lights - 1} (.bmp, .png, .tif or .pgm)"
        raise InputError(f"{path.parent}: images are {found}, but {expected}")
    return [by_number[number] for number in range(lights)]
