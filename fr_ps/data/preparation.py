"""How one capture becomes maps, and how those of a data set were made."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fr_ps.config import PrepareConfig
from fr_ps.data.layout import session_folder
from fr_ps.data.mean_face import read_mean_face
from fr_ps.errors import InputError
from fr_ps.json_files import NonNegativeInt, read_json
from fr_ps.photometric.align import align_capture, landmark_error
from fr_ps.photometric.captures import read_capture
from fr_ps.photometric.frame import Box
from fr_ps.photometric.maps import SurfaceMaps, compute_maps
from fr_ps.photometric.quality import MEASURES

RECORD_FILE = "prepared.json"
FORMAT = 4
"""Raised with every change of what is made of the same pictures and settings."""
_SETTINGS = (
    "size",
    "align",
    "fit",
    "solver",
    "integration",
    "estimate_intensities",
    "estimate_ambient",
    "light_axes",
    "white_level",
    "max_condition",
)


@dataclass(frozen=True)
class MeanFace:
    """The mean face that the solver `integrable` leans on, and the digest of its content."""

    normals: np.ndarray
    digest: str


def load_mean_face(config: PrepareConfig) -> MeanFace | None:
    """That of the settings; None where they name none.

    Raises:
        InputError: it is missing, or no mean face of this size.
    """
    if not config.prior:
        return None
    normals = read_mean_face(Path(config.prior), config.size)
    return MeanFace(normals, hashlib.sha256(normals.tobytes()).hexdigest()[:16])


def capture_to_maps(
    folder: Path, config: PrepareConfig, box: Box | None, mean_face: MeanFace | None
) -> tuple[SurfaceMaps, dict[str, Any]]:
    """The maps of the capture in `folder`, and what was done to it, as JSON holds it.

    Raises:
        InputError: pictures, lights or landmarks that cannot be used, or from which maps are not finite.
    """
    capture = read_capture(folder, config.max_condition, config.light_axes, config.white_level)
    to, aligned_by = align_capture(capture, folder, config.align, box, size=config.size, fit=config.fit)
    maps = compute_maps(
        capture,
        to,
        solver=config.solver,
        integration=config.integration,
        prior=mean_face.normals if mean_face else None,
        intensities_too=config.estimate_intensities,
        ambient_too=config.estimate_ambient,
    )
    _check_finite(maps, folder)
    done = {"aligned_by": aligned_by, "frame": asdict(to)} | maps.notes | {"quality": maps.quality}
    if capture.saturation_level is not None:
        done["pile_up"] = capture.saturation_level
    if aligned_by == "landmarks" and capture.landmarks is not None:
        done["landmark_error"] = landmark_error(capture.landmarks, to)
    return maps, done


def _check_finite(maps: SurfaceMaps, folder: Path) -> None:
    """Refuse maps or quality with NaN or infinity.

    Raises:
        InputError: names the first of them.
    """
    found: dict[str, Any] = {name: getattr(maps, name) for name in ("albedo", "normal", "depth", "confidence")} | maps.quality
    for name, values in found.items():
        if not np.isfinite(values).all():
            raise InputError(f"{folder}: {name} comes out as NaN or infinity; check the lights' directions and intensities")


@dataclass(frozen=True)
class _PreparationInputs:
    format: NonNegativeInt
    settings: dict[str, str | int | float | bool | list[float] | None]


@dataclass(frozen=True)
class _PreparationDetails:
    aligned_by: Literal["landmarks", "boxes", "none"]
    convexity: tuple[tuple[float, float], tuple[float, float]]
    twist_agreement: float
    quality: dict[str, float]


@dataclass(frozen=True)
class _PreparationRecord:
    """The part of a `prepared.json` that is used again."""

    done: _PreparationDetails
    made_from: _PreparationInputs
    sizes: list[NonNegativeInt]


def read_record(folder: Path) -> dict[str, Any]:
    """The `prepared.json` of the session's `folder`: `done`, `made_from` and `sizes`.

    Raises:
        InputError: it is missing, or damaged.
    """
    path = folder / RECORD_FILE
    record = read_json(path, dict[str, Any], "prepare the session again", refine=lambda _: _PreparationRecord)
    if missing := set(MEASURES) - set(record["done"]["quality"]):
        raise InputError(f"{path}: done.quality.{min(missing)}: is missing; prepare the session again")
    return record


def preparation_settings(config: PrepareConfig, mean_face: MeanFace | None) -> dict[str, Any]:
    """The settings that decide the maps, the prior by its digest."""
    return {key: getattr(config, key) for key in _SETTINGS} | {"prior": mean_face.digest if mean_face else None}


def find_preparation(root: Path, subject: str, session: str) -> dict[str, Any]:
    """The format and settings that made the maps of a session of the data set at `root`, which are those of all its sessions.

    Empty where nothing says so, as in data sets that were not made by `prepare`, or by another version of it.
    """
    try:
        record = read_record(session_folder(root, subject, session))["made_from"]
        settings = record["settings"]
        # Which box a session was cropped to stands in a table that others are not in.
        boxed = {"align": "boxes"} if settings["box"] else {}
        known = {key: settings[key] for key in (*_SETTINGS, "prior")} | boxed
        return {"format": FORMAT} | known if record["format"] == FORMAT else {}
    except (InputError, KeyError):
        return {}


def reproduce_preparation(settings: dict[str, Any], mean_face_file: str | None) -> tuple[PrepareConfig, MeanFace | None]:
    """What makes maps as `settings`, those that `prepared_with` found, made them.

    Args:
        settings: of the maps that are to be made again; models of earlier versions lack their `format`.
        prior_file: the mean face, if they had one.

    Raises:
        InputError: they are not known, or need a box of each session, or this version does not know them; a mean face that is
            missing or another one.
    """
    if not settings:
        raise InputError("how the model's maps were made is not known; prepare the captures as these were, and give the maps")
    if settings.get("align") == "boxes":
        raise InputError("the model's maps were cropped to boxes; prepare the captures with --boxes, and give the maps")
    wanted = settings.get("prior")
    if mean_face_file and not wanted:
        raise InputError(f"--prior {mean_face_file}: the model's maps were made without a mean face; leave it away")
    if wanted and not mean_face_file:
        raise InputError(f"--prior: the model's maps were made with a mean face ({wanted}); name its file, as prepare had it")
    try:
        known = {key: value for key, value in settings.items() if key not in ("format", "prior")}
        config = PrepareConfig(captures="", out="", prior=mean_face_file, **known)
    except (TypeError, InputError) as error:
        raise InputError(
            f"the model's maps were made with settings that this version does not take ({error}); update fr-ps"
        ) from None
    prior = load_mean_face(config)
    if (prior.digest if prior else None) != wanted:
        raise InputError(f"{mean_face_file}: not the mean face that the model's maps were made with ({wanted}); name that one")
    return config, prior


def format_warning(settings: dict[str, Any]) -> str | None:
    """The warning about captures that become other maps than the model's own, though by the same settings; None if they do not.

    Args:
        settings: those that `prepared_with` found; without `format` where the model is of an earlier version.
    """
    known = settings.get("format")
    if known == FORMAT:
        return None
    made_by = f"prepare format {known}" if isinstance(known, int) else "an unknown prepare format"
    return (
        f"warning: the model was trained on maps of {made_by}; captures are solved by format {FORMAT}: the maps may differ, and "
        "the model's answers and thresholds with them; prepare its data again and train again"
    )
