"""The layouts in which captures are stored, and the search for the file of lights of a session."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fr_ps.config import CaptureLayout
from fr_ps.errors import InputError
from fr_ps.photometric.layouts import diligent, lp, photoface, plain
from fr_ps.photometric.layouts.files import Layout
from fr_ps.photometric.layouts.folders import list_names

LAYOUTS: dict[CaptureLayout, Layout] = {"plain": plain, "photoface": photoface, "diligent": diligent, "lp": lp}
"""In the order in which they are looked for."""
EXPECTED_LIGHTS = "lights.csv, Photoface's LightSource.m, DiLiGenT's light_directions.txt and filenames.txt, or a dome's .lp file"


class LightsFile(NamedTuple):
    """The file of lights of a session, and its layout."""

    layout: CaptureLayout
    path: Path


def find_lights(folder: Path, root: Path | None = None, layout: CaptureLayout | None = None) -> LightsFile:
    """The file of lights of the session in `folder`: in it, else in the nearest folder above it, up to `root`.

    Args:
        folder: of the session.
        root: of all captures; None: only `folder`.
        layout: the only layout to look for; None: all.

    Raises:
        InputError: a folder is unreadable, or there is no such file.
    """
    layouts = {layout: LAYOUTS[layout]} if layout else LAYOUTS
    for place in _folders_up_to(folder, root):
        names = list_names(place)
        for name, one in layouts.items():
            if found := one.find_lights_file(names):
                return LightsFile(name, place / found)
    above = " and no folder above it has one" if root and root != folder else ""
    expected = f"expected that of --layout {layout}" if layout else f"expected {EXPECTED_LIGHTS}"
    raise InputError(f"{folder}: no file of lights{above}; {expected}")


def shared_files(folder: Path, root: Path) -> list[Path]:
    """The files above the session in `folder` that state its lights; none if they are in `folder`, or missing.

    Raises:
        InputError: a folder is unreadable.
    """
    for place in _folders_up_to(folder, root):
        names = list_names(place)
        for layout in LAYOUTS.values():
            if found := layout.find_lights_file(names):
                return [] if place == folder else [place / name for name in (found, *layout.COMPANIONS) if name in names]
    return []


def _folders_up_to(folder: Path, root: Path | None) -> Iterator[Path]:
    yield folder
    if root is not None and folder != root and folder.is_relative_to(root):
        yield from _folders_up_to(folder.parent, root)
