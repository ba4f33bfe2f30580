"""The layouts in which captures are stored, and the search for the file of lights of a session."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fr_ps.config import CaptureLayout, LightAxes
from fr_ps.errors import InputError
from fr_ps.photometric.layouts import diligent, lp, photoface, plain
from fr_ps.photometric.layouts.files import Layout, StatedLights
from fr_ps.photometric.layouts.folders import find_name, list_files
from fr_ps.photometric.masks import is_mask_name

LAYOUTS: dict[CaptureLayout, Layout] = {"plain": plain, "photoface": photoface, "diligent": diligent, "lp": lp}
"""In the order in which they are looked for."""
EXPECTED_LIGHTS = "lights.csv, Photoface's LightSource.m, DiLiGenT's light_directions.txt and filenames.txt, or a dome's .lp file"


class LightsFile(NamedTuple):
    """The file of lights of a session, and its layout."""

    layout: CaptureLayout
    path: Path


def find_lights(folder: Path, root: Path | None = None, layout: CaptureLayout | None = None) -> LightsFile:
    """The file of lights of the session in `folder`: in it, else in the nearest folder above it, up to `root`.

    A `lights.csv` has priority over the file of another layout in the same folder.

    Args:
        folder: of the session.
        root: of all captures; None: only `folder`.
        layout: the only layout to look for; None: all.

    Raises:
        InputError: a folder is unreadable, there is no such file, or a folder has those of two layouts other than `lights.csv`.
    """
    layouts = {layout: LAYOUTS[layout]} if layout else LAYOUTS
    for place in _folders_up_to(folder, root):
        names = list_files(place)
        found = [LightsFile(name, place / file) for name, one in layouts.items() if (file := one.find_lights_file(names))]
        if len(found) > 1 and found[0].layout != "plain":
            both = f"{found[0].path.name} ({found[0].layout}) and {found[1].path.name} ({found[1].layout})"
            raise InputError(f"{place}: both {both} state lights; name the layout by --layout, or remove one of them")
        if found:
            return found[0]
    above = " and no folder above it has one" if root and root != folder else ""
    expected = f"expected that of --layout {layout}" if layout else f"expected {EXPECTED_LIGHTS}"
    raise InputError(f"{folder}: no file of lights{above}; {expected}")


def read_lights_file(lights_file: LightsFile, names: Sequence[str], light_axes: LightAxes) -> StatedLights:
    """The lights of a session whose folder has the files `names`, and its images.

    Raises:
        InputError: the file is invalid or does not fit the images, names the mask, or assigns two lights to one image.
    """
    stated = LAYOUTS[lights_file.layout].read_lights_file(lights_file.path, names, light_axes)
    for image in stated.images:
        if is_mask_name(image):
            raise InputError(f"{lights_file.path}: lists {image}, which is the mask; remove it, and its light")
        if stated.images.count(image) > 1:
            raise InputError(f"{lights_file.path}: {image} is the image of two lights; remove one of them")
    return stated


def shared_files(folder: Path, root: Path, layout: CaptureLayout | None = None) -> list[Path]:
    """The files above the session in `folder` that state its lights; none if they are in `folder`, or missing.

    Args:
        folder, root, layout: see `find_lights`.

    Raises:
        InputError: as `find_lights`, but for a missing file.
    """
    for place in _folders_up_to(folder, root):
        if not any(one.find_lights_file(list_files(place)) for name, one in LAYOUTS.items() if layout in (None, name)):
            continue
        found = find_lights(place, layout=layout)
        beside = [find_name(name, list_files(place)) for name in LAYOUTS[found.layout].COMPANIONS]
        return [] if place == folder else [found.path, *(place / name for name in beside if name)]
    return []


def _folders_up_to(folder: Path, root: Path | None) -> Iterator[Path]:
    yield folder
    if root is not None and folder != root and folder.is_relative_to(root):
        yield from _folders_up_to(folder.parent, root)
