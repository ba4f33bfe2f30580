"""Everything that is shown of one session: its maps, the recorded pictures, and what the maps leave unexplained of them."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fr_ps.config import PrepareConfig
from fr_ps.data.labels import ATTRIBUTES, MISSING, Labels
from fr_ps.data.layout import QUALITY, map_file, read_map, session_folder
from fr_ps.data.preparation import find_preparation, read_prepared_capture, read_record
from fr_ps.errors import InputError
from fr_ps.npy import read_array
from fr_ps.photometric.captures import Capture
from fr_ps.photometric.frame import Frame
from fr_ps.photometric.relight import calibrated_pictures, residual_image
from fr_ps.photometric.sources import CaptureSource, list_sources
from fr_ps.tables import SessionKey, suggest_session

CONFIDENCE_FILE = "confidence.npy"
QUALITY_MEANINGS = {
    "residual": "relative error of the least-squares fit: wrong lights, motion, shadows, highlights",
    "imbalance": "the same for the mean of the pixels: a light that differs in intensity; 1 if a light failed",
    "shadowed": "share of observations in shadow",
    "integrability": "degrees between the normals and those of the depth map",
    "saturated": "share of observations at the camera's limit",
}
"""Measure of `session_quality` to its meaning. Lower is better in every measure."""


@dataclass(frozen=True)
class Recorded:
    """The pictures of a session in the square of its maps.

    Attributes:
        pictures: (k, H, W) float32 under lights of equal intensity, without ambient light.
        lights: (k, 3) unit vectors in the axes of the maps.
        residual: (H, W) float32, root mean square over the lights of the recorded minus the rendered picture.
    """

    pictures: np.ndarray
    lights: np.ndarray
    residual: np.ndarray


@dataclass(frozen=True)
class SessionView:
    """One session.

    Attributes:
        name: `id/session`.
        albedo: (H, W).
        normal: (H, W, 3) unit vectors.
        depth: (H, W) in pixels.
        confidence: (H, W); ones for a data set without it.
        mask: (H, W) bool, somewhere true: the confidence is above 0.
        recorded: None without captures.
        no_recorded: why `recorded` is None; else empty.
        facts: name to text: the labels, and how the maps were prepared.
        quality: measure, value, median and 95th percentile of the data set, meaning; of each quality column.
    """

    name: str
    albedo: np.ndarray
    normal: np.ndarray
    depth: np.ndarray
    confidence: np.ndarray
    mask: np.ndarray
    recorded: Recorded | None
    no_recorded: str
    facts: dict[str, str]
    quality: list[tuple[str, float | None, float, float, str]]


def find_session(labels: Labels, name: str, where: str) -> int:
    """The row of the session `name`, written `id/session`.

    Raises:
        InputError: the table has no such session; suggests one.
    """
    names = labels.session_names()
    if name in names:
        return names.index(name)
    parts = name.split("/")
    if len(parts) != 2 or not all(parts):
        raise InputError(f"session {name!r}: expected ID/SESSION, as {names[0]}")
    hint = suggest_session((parts[0], parts[1]), labels.row_keys())
    if not hint and (near := difflib.get_close_matches(name, names, 3)):
        hint = f"did you mean {' or '.join(near)}?"
    raise InputError(f"{where}: no session {name}; {hint or f'its sessions are written as {names[0]}'}")


def view_session(root: Path, labels: Labels, row: int, captures: Path | None = None) -> SessionView:
    """Read one session of the prepared data set at `root`.

    Args:
        root: of the data set.
        labels: its table.
        row: of the session.
        captures: folder of the captures from which the data set was prepared; None: `recorded` is None.

    Raises:
        InputError: a map is missing, unusable or of another size; `captures` without this session, or with a capture that
            cannot be read or has other lights than the maps.
    """
    key = labels.row_keys()[row]
    albedo, normal, depth, confidence = _read_maps(root, *key)
    mask = confidence > 0
    if not mask.any():
        raise InputError(f"{session_folder(root, *key) / CONFIDENCE_FILE}: 0 everywhere; prepare the session again")
    preparation = find_preparation(root, *key)
    recorded, no_recorded = None, "no captures were named (--captures)"
    if captures is not None and not preparation:
        no_recorded = "this data set has no record of its preparation that this version of fr-ps reads; prepare it again"
    elif captures is not None:
        recorded, no_recorded = _read_recorded(_find_capture(captures, key), root, key, preparation, albedo, normal), ""
    return SessionView(
        "/".join(key),
        albedo,
        normal,
        depth,
        confidence,
        mask,
        recorded,
        no_recorded,
        _labels_of(labels, row)
        | _describe_preparation(preparation, albedo.shape)
        | _describe_failed_lights(root, key, preparation),
        _quality_of(labels, row),
    )


def compare_with_capture(capture: Capture, details: dict[str, Any], albedo: np.ndarray, normal: np.ndarray) -> Recorded:
    """The pictures of `capture`, and what its maps leave unexplained of them.

    Args:
        capture: as recorded.
        details: of the preparation of its maps, from `capture_to_maps`.
        albedo: (H, W).
        normal: (H, W, 3) unit vectors.
    """
    frame = Frame(**details["frame"]).scaled(1 / capture.reduction)
    pictures, lights = calibrated_pictures(capture, frame, np.array(details["intensities"]), details["ambient"])
    return Recorded(pictures, lights, residual_image(pictures, lights, albedo, normal, frame.stretch))


def quality_spread(labels: Labels) -> dict[str, tuple[float, float]]:
    """Measure to its median and 95th percentile, of each quality column of the table that has a number."""
    spread = {}
    for name in [name for name in labels.columns if name.startswith(QUALITY)]:
        values = pd.to_numeric(pd.Series(labels.columns[name]), errors="coerce")
        if values.notna().any():
            spread[name.removeprefix(QUALITY)] = float(values.median()), float(values.quantile(0.95))
    return spread


def _read_maps(root: Path, subject: str, session: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Albedo, normals (H, W, 3), depth and confidence of one session."""
    folder = session_folder(root, subject, session)
    maps = {}
    for modality in ("albedo", "normal", "depth"):
        path = map_file(root, subject, session, modality)
        if path is None:
            raise InputError(f"{folder}: no {modality} map; prepare the session again")
        maps[modality] = read_map(path, modality)
    albedo, normal, depth = maps["albedo"][0], np.ascontiguousarray(maps["normal"].transpose(1, 2, 0)), maps["depth"][0]
    has_confidence = (folder / CONFIDENCE_FILE).exists()
    confidence = read_array(folder / CONFIDENCE_FILE) if has_confidence else np.ones_like(albedo)
    sizes = {"normal": normal.shape[:2], "depth": depth.shape, "confidence": confidence.shape}
    for name, size in sizes.items():
        if size != albedo.shape:
            sides = f"{' x '.join(map(str, size))}, but its albedo is {' x '.join(map(str, albedo.shape))}"
            raise InputError(f"{folder}: {name} is {sides}; prepare the session again")
    return albedo, normal, depth, confidence


def _find_capture(captures: Path, key: SessionKey) -> CaptureSource:
    sources = {(source.id, source.session): source for source in list_sources(captures, {})}
    if key not in sources:
        remedy = suggest_session(key, sources) or "name the folder from which the data set was prepared"
        raise InputError(f"--captures {captures}: no capture of {'/'.join(key)}; {remedy}")
    return sources[key]


def _read_recorded(
    source: CaptureSource, root: Path, key: SessionKey, preparation: dict[str, Any], albedo: np.ndarray, normal: np.ndarray
) -> Recorded:
    details = read_record(session_folder(root, *key))["done"]
    settings = {name: value for name, value in preparation.items() if name not in ("format", "prior", "align")}
    settings["layout"] = details.get("layout", "auto")  # version 0.1 did not record it
    capture = read_prepared_capture(source.folder, PrepareConfig(captures="", out="", **settings), source.root)
    lights = len(details["intensities"])
    if lights != len(capture.images):
        counts = f"{len(capture.images)} lights, but the maps were made with {lights}"
        raise InputError(f"{source.folder}: {counts}; name the captures from which {root} was prepared")
    return compare_with_capture(capture, details, albedo, normal)


def _labels_of(labels: Labels, row: int) -> dict[str, str]:
    names = {}
    for column, attribute in enumerate(ATTRIBUTES):
        code = labels.codes[row, column]
        if code != MISSING:
            names[attribute] = labels.class_names(attribute)[code]
    return {"labels": ", ".join(f"{attribute} {name}" for attribute, name in names.items())} if names else {}


def _describe_preparation(preparation: dict[str, Any], shape: tuple[int, ...]) -> dict[str, str]:
    size = f"{shape[1]} x {shape[0]} pixels"
    shown = ("solver", "integration", "align", "fit")
    text = ", ".join([size, *(f"{name} {preparation[name]}" for name in shown if name in preparation)])
    return {"maps": text}


def _describe_failed_lights(root: Path, key: SessionKey, preparation: dict[str, Any]) -> dict[str, str]:
    failed = read_record(session_folder(root, *key))["done"].get("failed") if preparation else None
    return {"failed lights": f"{', '.join(failed)} (almost black), not used"} if failed else {}


def _quality_of(labels: Labels, row: int) -> list[tuple[str, float | None, float, float, str]]:
    rows = []
    for measure, spread in quality_spread(labels).items():
        value = float(pd.to_numeric(labels.columns[QUALITY + measure][row], errors="coerce"))
        rows.append((measure, None if np.isnan(value) else value, *spread, QUALITY_MEANINGS.get(measure, "")))
    return rows
