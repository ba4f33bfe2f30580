"""`.lp` files of light domes (RTI): the number of images, then a line for each: its file, and x y z toward the light.

x is right, y up, and z toward the camera. Only the name of a file counts, as the path is that of the machine that wrote it. A
session without the listed images may have them in another format (`a.tif` for `a.jpg`). With one `.lp` file for many sessions, it
may have as many images with other names: they are paired with the listed ones by the natural order of both (2 before 10).
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fr_ps.config import LightAxes
from fr_ps.errors import InputError
from fr_ps.photometric.images import is_image_name
from fr_ps.photometric.layouts.files import StatedLights, match_names
from fr_ps.photometric.layouts.folders import list_files, natural_order
from fr_ps.photometric.layouts.text_lines import base_name, read_lines
from fr_ps.photometric.lights import MIN_LIGHTS, parse_vector
from fr_ps.photometric.masks import is_mask_name

COMPANIONS: tuple[str, ...] = ()


def find_lights_file(names: Sequence[str]) -> str | None:
    return next(iter(_lp_files(names)), None)


def _lp_files(names: Sequence[str]) -> list[str]:
    return [name for name in names if name.lower().endswith(".lp") and not name.startswith(".")]


def read_lights_file(path: Path, names: Sequence[str], light_axes: LightAxes) -> StatedLights:
    if others := [name for name in _lp_files(list_files(path.parent)) if name != path.name]:
        raise InputError(f"{path.parent}: both {path.name} and {others[0]} list lights; remove one of them")
    lines = read_lines(path)
    if not lines or not re.fullmatch(r"[0-9]+", lines[0][1]):
        raise InputError(f"{path}: line 1: expected the number of images, then a line for each: file x y z")
    count = int(lines[0][1])
    if count != len(lines) - 1:
        raise InputError(f"{path}: states {count} images, but {len(lines) - 1} lines follow; correct the number or the lines")
    if count < MIN_LIGHTS:
        raise InputError(f"{path}: {count} images; photometric stereo needs at least three")
    listed, lights = [], []
    for number, line in lines[1:]:
        where = f"{path}: line {number}"
        name, *direction = line.rsplit(maxsplit=3)  # names may contain spaces
        lights.append(parse_vector(direction, where))
        listed.append(base_name(name, where))
        if not is_image_name(listed[-1]):
            raise InputError(f"{where}: {name!r} is no image, before the last three cells; expected file x y z")
        if listed.count(listed[-1]) > 1:
            raise InputError(f"{where}: {listed[-1]} is listed twice; remove one of the lines")
    images, by_order = _session_images(path, listed, names)
    return StatedLights(images, np.array(lights), np.ones(count), by_order)


def _session_images(path: Path, listed: list[str], names: Sequence[str]) -> tuple[list[str], bool]:
    """The session's images of the listed ones, and whether they were paired by order alone."""
    matched = match_names(listed, names)
    if set(matched) & set(names):
        return matched, False
    others = [name for name in names if is_image_name(name) and not is_mask_name(name)]
    by_stem = {Path(name).stem.casefold(): name for name in others}
    stems = [Path(name).stem.casefold() for name in listed]
    if set(stems) & set(by_stem):
        return [by_stem.get(stem, name) for stem, name in zip(stems, listed)], False
    if not others:
        return matched, False
    if len(others) != len(listed):
        raise InputError(
            f"{path}: lists {len(listed)} images, the first is {listed[0]}; the session has none of them, but {len(others)} "
            f"others, the first is {others[0]}; rename the images as listed, or correct the list"
        )
    pairs = dict(zip(sorted(listed, key=natural_order), sorted(others, key=natural_order)))
    return [pairs[name] for name in listed], True
