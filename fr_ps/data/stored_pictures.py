"""The pictures that `prepare` stores with the maps of a session, and the maps that they give without one of the lights."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
"""Three lights or more remain."""


@dataclass(frozen=True)
class StoredPictures:
    """The pictures of one session in the square of its maps.

    Attributes:
        pictures: (k, H, W) float32, under lights of equal intensity.
        lights: (k, 3) vectors toward the lights, in the axes of the square.
        mask: (H, W) bool: pixels inside the picture and the mask.
        stretch: (3,), see `split_albedo`.
        solver: of the session's maps.
        integration: of the session's maps.
    """

    pictures: np.ndarray
    lights: np.ndarray
    mask: np.ndarray
    stretch: np.ndarray
    solver: Solver
    integration: Integration


def pictures_to_store(maps: SurfaceMaps) -> tuple[np.ndarray, dict[str, Any]] | None:
    """The pictures (k, H, W) as float16 of at most 1, and for the record their lights and the factor to their unit.

    Returns:
        None with fewer than four lights, and with so many that one of them hardly matters.
    """
    if maps.pictures is None or maps.lights is None or not _MIN_LIGHTS <= len(maps.lights) < MIN_MANY_LIGHTS:
        return None
    scale = max(float(maps.pictures.max()), 1e-6)
    return (maps.pictures / scale).astype(np.float16), {"lights": maps.lights.tolist(), "scale": scale}


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
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{folder / RECORD_FILE}: does not describe {path.name}; prepare the session again") from None
    if pictures.shape != (len(lights), *confidence.shape) or lights.shape[1:] != (3,) or pictures.dtype != np.float16:
        shape = " x ".join(map(str, pictures.shape))
        raise InputError(f"{path}: shape is {shape}, which does not fit the other files; prepare the session again")
    if not np.isfinite(pictures).all():
        raise InputError(f"{path}: contains NaN or infinity; prepare the session again")
    pixels = pictures.astype(np.float32) * np.float32(scale)
    return StoredPictures(pixels, lights, confidence > 0, stretch, settings["solver"], settings["integration"])


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
