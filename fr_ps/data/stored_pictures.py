"""The pictures that `prepare` stores with the maps of a session, and the maps that they give without one of the lights."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from fr_ps.config import Integration, Solver
from fr_ps.data.layout import session_folder
from fr_ps.data.preparation import RECORD_FILE, read_record
from fr_ps.errors import InputError
from fr_ps.npy import read_array
from fr_ps.photometric.frame import Frame
from fr_ps.photometric.integrate import integrate_normals
from fr_ps.photometric.maps import SurfaceMaps, solve_surface
from fr_ps.photometric.robust import MIN_MANY_LIGHTS
from fr_ps.tables import SessionKey

PICTURES = "pictures"
"""Name of the file without its suffix, and key in the record of the preparation."""
_MIN_LIGHTS = 4
"""So that at least three remain when one is left out."""
_MAX_SCALE_RATIO = 100.0
"""Largest scale of the stored pictures, as a multiple of the 99th percentile of their pixels."""


@dataclass(frozen=True)
class StoredPictures:
    """The pictures of one session in the square of its maps.

    Attributes:
        pictures: (k, H, W) float32, under lights of equal intensity.
        lights: (k, 3) vectors toward the lights, in the axes of the square.
        mask: (H, W) bool: pixels whose confidence is above 0.
        stretch: (3,), see `split_albedo`.
        solver: of the session's maps.
        integration: of the session's maps.
        max_condition: largest condition number of lights that the preparation accepts.
    """

    pictures: np.ndarray
    lights: np.ndarray
    mask: np.ndarray
    stretch: np.ndarray
    solver: Solver
    integration: Integration
    max_condition: float

    @property
    def removable(self) -> list[int]:
        """Indices of the lights that can be left out: the others have a condition number of at most `max_condition`."""
        lights = self.lights / self.stretch
        return [one for one in range(len(lights)) if np.linalg.cond(np.delete(lights, one, axis=0)) <= self.max_condition]


def pictures_to_store(maps: SurfaceMaps) -> tuple[np.ndarray, dict[str, Any]] | None:
    """The pictures (k, H, W) as float16, and for the record the lights, and the factor that restores the scale.

    Returns:
        None with fewer than four lights, or with `MIN_MANY_LIGHTS` or more, of which one hardly matters.
    """
    if maps.pictures is None or maps.lights is None or not _MIN_LIGHTS <= len(maps.lights) < MIN_MANY_LIGHTS:
        return None
    # Single hot pixels of float images do not set the scale, as float16 has a limited range.
    scale = max(min(float(maps.pictures.max()), _MAX_SCALE_RATIO * float(np.quantile(maps.pictures, 0.99))), 1e-6)
    stored = np.minimum(maps.pictures / scale, np.finfo(np.float16).max).astype(np.float16)
    return stored, {"lights": maps.lights.tolist(), "scale": scale}


def pictures_file(root: Path, key: SessionKey) -> Path:
    """The file of the pictures of a session of the prepared data set at `root`; not all sessions have one."""
    return session_folder(root, *key) / f"{PICTURES}.npy"


def read_stored_pictures(root: Path, key: SessionKey) -> StoredPictures | None:
    """The pictures of a session of the prepared data set at `root`; None if it has none.

    Raises:
        InputError: a file is damaged, or the files do not fit together.
    """
    path = pictures_file(root, key)
    if not path.exists():
        return None
    folder = path.parent
    record = read_record(folder)
    details, settings = record["done"], record["made_from"]["settings"]
    pictures, confidence = read_array(path), read_array(folder / "confidence.npy")
    try:
        lights, scale = np.array(details[PICTURES]["lights"], dtype=np.float64), float(details[PICTURES]["scale"])
        stretch = np.array([*Frame(**details["frame"]).stretch, 1.0])
        max_condition = float(settings["max_condition"])
        known = settings["solver"] in get_args(Solver) and settings["integration"] in get_args(Integration)
    except (ArithmeticError, KeyError, TypeError, ValueError):
        known = False
    if not known or not lights.any(axis=1).all():
        raise InputError(f"{folder / RECORD_FILE}: does not describe {path.name}; prepare the session again")
    if confidence.dtype.kind != "f" or pictures.shape != (len(lights), *confidence.shape) or pictures.dtype != np.float16:
        shape = " x ".join(map(str, pictures.shape))
        raise InputError(f"{path}: {pictures.dtype} of shape {shape} does not fit the other files; prepare the session again")
    pixels, mask = pictures.astype(np.float32) * scale, confidence > 0
    if scale <= 0 or not np.isfinite(pixels).all() or not pixels.any() or not mask.any():
        raise InputError(f"{path}: contains no usable pictures; prepare the session again")
    return StoredPictures(
        pixels.astype(np.float32), lights, mask, stretch, settings["solver"], settings["integration"], max_condition
    )


def maps_without_light(stored: StoredPictures, left_out: int, modalities: Sequence[str]) -> dict[str, np.ndarray]:
    """Modality to its map (C, H, W) float32, solved from all pictures but that of the light with the index `left_out`.

    The solver is that of the session's maps, without the prior of `integrable`. No pixel counts as saturated.
    """
    used = np.arange(len(stored.lights)) != left_out
    pictures = stored.pictures[used]
    surface = solve_surface(pictures, np.zeros_like(pictures), stored.lights[used], stored.mask, stored.stretch, stored.solver)
    maps = {"albedo": surface.albedo[None], "normal": surface.normals}
    if "depth" in modalities:
        maps["depth"] = integrate_normals(surface.normals, stored.mask, stored.integration)[None]
    return {modality: maps[modality].astype(np.float32) for modality in modalities}
