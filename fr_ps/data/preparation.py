"""From one capture to its maps, and the record of the settings that made the maps of a data set."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fr_ps.config import PrepareConfig
from fr_ps.data.layout import session_folder
from fr_ps.data.mean_face import MeanFace, load_mean_face
from fr_ps.errors import InputError
from fr_ps.json_files import NonNegativeInt, read_json
from fr_ps.photometric.acquisition import Acquisition, AcquisitionRange, describe_acquisition, summarize_acquisitions
from fr_ps.photometric.align import align_capture, landmark_error
from fr_ps.photometric.captures import Capture, ReadingSettings, read_capture
from fr_ps.photometric.frame import Box
from fr_ps.photometric.maps import SurfaceMaps, compute_maps
from fr_ps.photometric.quality import MEASURES
from fr_ps.photometric.robust import MIN_MANY_LIGHTS
from fr_ps.progress import OnProgress, no_progress
from fr_ps.tables import SessionKey

RECORD_FILE = "prepared.json"
FORMAT = 5
"""Format of the maps. Increased whenever the same pictures and settings would give other maps."""
_MANY_LIGHTS_FORMAT = 2
"""The same for sessions that `many_light_weights` solves. The others keep their maps when only its weights change."""
_MAX_RECORDS = 1000
"""Sessions whose records a summary reads, in about a second."""
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
    "mask",
    "black_level",
    "response",
    "ambient",
)
AlignedBy = Literal["landmarks", "boxes", "mask", "none"]
"""What determined the frame of a session; see `align_capture`."""
_DEFAULTS = {field.name: field.default for field in fields(PrepareConfig) if field.name in _SETTINGS}
"""Values of the settings that the record of an earlier version lacks: those with which that version worked."""


def capture_to_maps(
    folder: Path,
    config: PrepareConfig,
    box: Box | None,
    mean_face: MeanFace | None,
    root: Path | None = None,
    advance: OnProgress = no_progress,
) -> tuple[SurfaceMaps, dict[str, Any]]:
    """The maps of the capture in `folder`, and the details of their preparation, ready for JSON.

    Args:
        folder: of the session.
        config: the settings.
        box: of the face, in pixels of the stored pictures.
        mean_face: the prior; None without one.
        root: of all captures, up to which folders are searched for the file of lights; None: only `folder`.
        advance: see `read_capture`.

    Raises:
        InputError: unusable pictures, lights or landmarks, or maps that are not finite.
    """
    return solve_capture(read_prepared_capture(folder, config, root, advance), folder, config, box, mean_face)


def solve_capture(
    capture: Capture, folder: Path, config: PrepareConfig, box: Box | None, mean_face: MeanFace | None
) -> tuple[SurfaceMaps, dict[str, Any]]:
    """`capture_to_maps` of a capture that `read_prepared_capture` has read; `folder` is for error messages.

    Raises:
        InputError: unusable landmarks or mask, or maps that are not finite.
    """
    frame, aligned_by = align_capture(capture, folder, config.align, box, size=config.size, fit=config.fit)
    try:
        maps = compute_maps(
            capture,
            frame,
            solver=config.solver,
            integration=config.integration,
            prior=mean_face.normals if mean_face else None,
            calibrate_intensities=config.estimate_intensities,
            calibrate_ambient=config.estimate_ambient,
        )
    except InputError as error:
        if not capture.failed:
            raise
        raise InputError(f"without the failed light of {', '.join(capture.failed)} (almost black image): {error}") from None
    if capture.failed:
        maps = replace(maps, quality=maps.quality | {"imbalance": 1.0})
    _check_finite(maps, folder)
    stored_frame = dict(vars(frame.scaled(capture.reduction)))
    details = {"layout": capture.layout, "aligned_by": aligned_by, "frame": stored_frame} | maps.notes | {"quality": maps.quality}
    if capture.failed:
        details["failed"] = [*capture.failed]
    acquisition = describe_acquisition(capture)
    details["acquisition"] = vars(acquisition) | {"direction": [*acquisition.direction]}  # JSON has no tuples
    if len(capture.lights) >= MIN_MANY_LIGHTS:
        details["many_lights_format"] = _MANY_LIGHTS_FORMAT
    if capture.paired_by_order:
        details["paired_by_order"] = True
    if capture.saturation_level is not None:
        details["pile_up"] = capture.saturation_level
    if capture.encoded:
        details["encoded"] = True
    if aligned_by == "landmarks" and capture.landmarks is not None:
        details["landmark_error"] = landmark_error(capture.landmarks, frame)
    return maps, details


def read_prepared_capture(
    folder: Path, config: PrepareConfig, root: Path | None = None, advance: OnProgress = no_progress
) -> Capture:
    """The capture in `folder` with the settings of `config`; for `root` and `advance` see `read_capture`.

    Raises:
        InputError: as `read_capture`.
    """
    settings = ReadingSettings(**{field.name: getattr(config, field.name) for field in fields(ReadingSettings)})
    return read_capture(folder, settings, root, advance)


def _check_finite(maps: SurfaceMaps, folder: Path) -> None:
    """Reject maps or quality with NaN or infinity.

    Raises:
        InputError: names the first one.
    """
    found: dict[str, Any] = {name: getattr(maps, name) for name in ("albedo", "normal", "depth", "confidence")} | maps.quality
    for name, values in found.items():
        if not np.isfinite(values).all():
            raise InputError(f"{folder}: {name} contains NaN or infinity; check the lights' directions and intensities")


@dataclass(frozen=True)
class _PreparationInputs:
    format: NonNegativeInt
    settings: dict[str, str | int | float | bool | list[float] | None]


@dataclass(frozen=True)
class _PicturesRecord:
    """See `fr_ps.data.stored_pictures`."""

    lights: list[tuple[float, float, float]]
    scale: float


@dataclass(frozen=True)
class _PreparationDetails:
    aligned_by: AlignedBy
    convexity: tuple[tuple[float, float], tuple[float, float]]
    twist_agreement: float
    quality: dict[str, float]
    intensities: list[float]
    acquisition: Acquisition | None = None
    pictures: _PicturesRecord | None = None


@dataclass(frozen=True)
class _PreparationRecord:
    """The part of a `prepared.json` that is read again."""

    done: _PreparationDetails
    made_from: _PreparationInputs
    sizes: list[NonNegativeInt]


def read_record(folder: Path) -> dict[str, Any]:
    """The `prepared.json` of the session's `folder`: `done`, `made_from` and `sizes`.

    Raises:
        InputError: it is missing or damaged.
    """
    path = folder / RECORD_FILE
    record = read_json(path, dict[str, Any], "prepare the session again", refine=lambda _: _PreparationRecord)
    record["made_from"]["settings"] = _DEFAULTS | record["made_from"]["settings"]
    if missing := set(MEASURES) - set(record["done"]["quality"]):
        raise InputError(f"{path}: done.quality.{min(missing)} is missing; prepare the session again")
    return record


def is_outdated(details: dict[str, Any]) -> bool:
    """Whether this version weights the observations of a session in another way than the version that wrote `details`."""
    return len(details["intensities"]) >= MIN_MANY_LIGHTS and details.get("many_lights_format") != _MANY_LIGHTS_FORMAT


def preparation_settings(config: PrepareConfig, mean_face: MeanFace | None) -> dict[str, Any]:
    """The settings that determine the maps; the prior by its digest."""
    return {key: getattr(config, key) for key in _SETTINGS} | {"prior": mean_face.digest if mean_face else None}


def find_preparation(root: Path, subject: str, session: str) -> dict[str, Any]:
    """The format and settings that made the maps of a session; they are the same for all sessions of the data set at `root`.

    Empty if there is no record of them: `prepare` did not write the data set, or another version of it did.
    """
    try:
        record = read_record(session_folder(root, subject, session))["made_from"]
        settings = record["settings"]
        if record["format"] != FORMAT:
            return {}
        # With `auto`, a session is cropped to its box if it has one. New captures have none, so "boxes" marks the maps as
        # not reproducible.
        align = {"align": "boxes"} if settings["box"] else {}
        return {"format": FORMAT} | {key: settings[key] for key in (*_SETTINGS, "prior")} | align
    except (InputError, KeyError):
        return {}


def find_acquisitions(root: Path, keys: Sequence[SessionKey]) -> AcquisitionRange | None:
    """The range of lights and bit depths of the captures from which the sessions `keys` of the data set at `root` were made.

    Reads the records of `_MAX_RECORDS` sessions, spread over the list, if there are more.

    Returns:
        None if a session has no record of them: another version of `prepare` wrote it, or another program.
    """
    found = []
    for key in keys[:: max(1, -(-len(keys) // _MAX_RECORDS))]:
        try:
            one = recorded_acquisition(read_record(session_folder(root, *key))["done"])
        except InputError:
            return None
        if one is None:
            return None
        found.append(one)
    return summarize_acquisitions(found) if found else None


def recorded_acquisition(details: dict[str, Any]) -> Acquisition | None:
    """How the capture with these `details` of its preparation was taken; None if they lack it, as those of version 0.1."""
    stored = details.get("acquisition")
    return Acquisition(**{one.name: stored[one.name] for one in fields(Acquisition) if one.name in stored}) if stored else None


def reproduce_preparation(settings: dict[str, Any], mean_face_file: str | None) -> tuple[PrepareConfig, MeanFace | None]:
    """The configuration and mean face that reproduce maps of `settings`, which `find_preparation` returned.

    Args:
        settings: of the maps; those of models of earlier versions lack `format`.
        mean_face_file: the mean face, if the maps were made with one.

    Raises:
        InputError: the settings are unknown, require a box per session, or are not supported by this version; the mean face
            is missing or another one.
    """
    if not settings:
        raise InputError(
            "the model has no record of how its maps were prepared; prepare the captures likewise, and give the maps"
        )
    if settings.get("align") == "boxes":
        raise InputError("the model's maps were cropped to boxes; prepare the captures with --boxes, and give the maps")
    expected = settings.get("prior")
    if mean_face_file and not expected:
        raise InputError(f"--prior {mean_face_file}: the model's maps were made without a mean face; remove the option")
    if expected and not mean_face_file:
        raise InputError(f"--prior: the model's maps were made with a mean face ({expected}); name the file that prepare used")
    try:
        known = {key: value for key, value in settings.items() if key not in ("format", "prior")}
        config = PrepareConfig(captures="", out="", prior=mean_face_file, **known)
    except (TypeError, InputError) as error:
        raise InputError(
            f"the model's maps were made with settings that this version does not support ({error}); update fr-ps"
        ) from None
    mean_face = load_mean_face(config)
    if (mean_face.digest if mean_face else None) != expected:
        raise InputError(f"{mean_face_file}: not the mean face that the model's maps were made with ({expected}); name that one")
    return config, mean_face


def format_warning(settings: dict[str, Any]) -> str | None:
    """A warning if this version solves captures with another format than the model's maps have; else None.

    Args:
        settings: from `find_preparation`; without `format` for a model of an earlier version.
    """
    known = settings.get("format")
    if known == FORMAT:
        return None
    made_by = f"prepare format {known}" if isinstance(known, int) else "an unknown prepare format"
    return (
        f"warning: the model was trained on maps of {made_by}, but captures are solved with format {FORMAT}: maps may differ, "
        "which affects predictions and thresholds; prepare its data again and train again"
    )
