"""A request as a table, a row a session: its maps, or its pictures with their lights. What a server is asked over HTTP.

A map is an array, or nested lists, or text: a .npy file in base64. Pictures are a list of image files in base64, with
`azimuth_deg` and `elevation_deg` (and perhaps `intensity`) of their lights, and perhaps `landmarks`, a `metadata.txt`'s text.
"""

import base64
import binascii
import io
import math
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fr_ps.data.layout import CHANNELS
from fr_ps.data.preparation import format_warning
from fr_ps.errors import InputError
from fr_ps.models.inference import Predictions
from fr_ps.npy import NpyError, read_npy
from fr_ps.photometric.images import count_pixels
from fr_ps.photometric.lights import LIGHTS_FILE
from fr_ps.photometric.orientation import axes_warning, normal_statistics
from fr_ps.photometric.photoface import LANDMARKS_FILE
from fr_ps.serving.recognizer import Recognizer
from fr_ps.serving.results import prediction_table
from fr_ps.tables import format_csv

MAX_SESSIONS = 256
"""Sessions of one request: more would keep a server busy for longer than a client waits."""
MAX_REQUEST_PIXELS = 100_000_000
"""Of all pictures of one request together: four of 24 million, or 256 sessions of four with 97,000."""
MAX_CONCURRENT_REQUESTS = 2
"""Further ones wait: a picture of a few kB may take a hundred MB while maps are made of it."""
_MAX_IMAGES = 64
_DATA_URL = re.compile(r"\A\s*data:[^,]{0,100};base64,", re.IGNORECASE)
_REQUEST_SLOTS = threading.BoundedSemaphore(MAX_CONCURRENT_REQUESTS)
_SUFFIX_BY_MAGIC = {b"\x89PNG": "png", b"BM": "bmp", b"II*\0": "tif", b"MM\0*": "tif", b"P5": "pgm", b"P2": "pgm", b"P6": "ppm"}


def predict_rows(recognizer: Recognizer, rows: pd.DataFrame) -> pd.DataFrame:
    """A row a session in the same order: `quality`, `embedding`, each attribute and its probability, the `maps` that were read.

    `warning` is the same in every row: about normals whose axes are probably wrong in most of the request's rows, and about
    pictures that become maps by another format of `prepare` than the model's own; else None.

    An attribute that the model was not trained on is empty.

    Raises:
        InputError: no rows or too many, a row without maps or pictures, or with such that cannot be used; names the row.
    """
    if not isinstance(rows, pd.DataFrame):
        raise InputError(f"expected a table, a row a session, with {', '.join(CHANNELS)} or images and their lights")
    if not 1 <= len(rows) <= MAX_SESSIONS:
        raise InputError(f"{len(rows)} sessions; expected 1 to {MAX_SESSIONS} in a request")
    with _REQUEST_SLOTS:
        asked = _parse_rows(recognizer, rows)
        table = prediction_table(recognizer, _predict(recognizer, asked)).astype(object)
    # MLflow drops a column that it does not know, as a modality that is misspelt: what was read is said.
    table["maps"] = ["+".join(maps) for maps in asked]
    axes = axes_warning([normal_statistics(maps["normal"]) for maps in asked if "normal" in maps])
    pictured = "images" in rows and not rows["images"].map(_is_empty).all()
    other_format = format_warning(recognizer.info.preparation) if pictured else None
    table["warning"] = "; ".join(filter(None, (axes, other_format))) or None
    return table.where(table.notna(), None)


def _parse_rows(recognizer: Recognizer, rows: pd.DataFrame) -> list[dict[str, np.ndarray]]:
    """Modality to (C, H, W) of each row."""
    asked = []
    pixels = 0
    for number, cells in enumerate(rows.to_dict("records")):
        try:
            given = {str(name): cell for name, cell in cells.items() if not _is_empty(cell)}
            if "images" not in given:
                asked.append(_parse_maps(recognizer, given))
                continue
            with tempfile.TemporaryDirectory() as folder:
                pixels += _write_capture(Path(folder), given)
                if pixels > MAX_REQUEST_PIXELS:
                    limit = f"at most {MAX_REQUEST_PIXELS // 1_000_000} million"
                    raise InputError(
                        f"images: the request has {pixels:,} pixels up to here; expected {limit}, send fewer or smaller"
                    )
                asked.append(_solve_capture(recognizer, Path(folder)))
        except InputError as error:
            raise InputError(f"row {number}: {error}") from None
    return asked


def _predict(recognizer: Recognizer, sessions: list[dict[str, np.ndarray]]) -> Predictions:
    """Those that have the same maps are answered together."""
    embeddings: list[np.ndarray] = [np.empty(0)] * len(sessions)
    probabilities: dict[str, list[np.ndarray]] = {task: [np.empty(0)] * len(sessions) for task in recognizer.info.classes}
    for modalities in dict.fromkeys(tuple(maps) for maps in sessions):
        rows = [row for row, maps in enumerate(sessions) if tuple(maps) == modalities]
        stacked = {modality: np.stack([sessions[row][modality] for row in rows]) for modality in modalities}
        found = recognizer.predict_checked(stacked, names=[f"row {row}" for row in rows])
        for place, row in enumerate(rows):
            embeddings[row] = found.embeddings[place]
            for task, known in probabilities.items():
                known[row] = found.probabilities[task][place]
    return Predictions(np.stack(embeddings), {task: np.stack(known) for task, known in probabilities.items()})


def _parse_maps(recognizer: Recognizer, cells: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Modality to (C, H, W) of one session that is given by its maps."""
    given = [modality for modality in CHANNELS if modality in cells]
    if not given:
        wanted = ", ".join(recognizer.info.modalities)
        there = ", ".join(cells) or "none"
        raise InputError(f"has neither {wanted} nor images with azimuth_deg and elevation_deg; its columns: {there}")
    found = {modality: recognizer.check_map(modality, _parse_array(cells[modality], modality), modality) for modality in given}
    return {modality: found[modality] for modality in recognizer.info.modalities if modality in found}


def _parse_array(cell: Any, name: str) -> np.ndarray:
    if isinstance(cell, (str, bytes)):
        content = _decode_base64(cell, name)
        try:
            return read_npy(io.BytesIO(content), len(content))
        except NpyError as error:
            raise InputError(
                f"{name}: the text is no .npy file of numbers in base64 ({error}); expected what numpy.save writes"
            ) from None
    try:
        with np.errstate(over="ignore"):  # infinity, which the check of maps refuses
            return np.asarray(cell, dtype=np.float32) if isinstance(cell, list) else np.asarray(cell)
    except (ValueError, TypeError, OverflowError, RecursionError, MemoryError):
        raise InputError(f"{name}: not an array of numbers; expected nested lists, or a .npy file in base64") from None


def _write_capture(folder: Path, cells: Mapping[str, Any]) -> int:
    """Write a session that is given by its pictures as a capture on disk; returns their pixels, by the files' headers."""
    given = [modality for modality in CHANNELS if modality in cells]
    if given:
        raise InputError(f"has images and {given[0]}; expected one or the other")
    images = cells["images"]
    if not isinstance(images, (list, tuple, np.ndarray)) or not 3 <= len(images) <= _MAX_IMAGES:
        raise InputError(f"images: expected a list of 3 to {_MAX_IMAGES} image files in base64")
    lights = [name for name in ("azimuth_deg", "elevation_deg", "intensity") if name in cells]
    for name in dict.fromkeys(("azimuth_deg", "elevation_deg", *lights)):
        if not _is_number_list(cells.get(name), len(images)):
            raise InputError(f"{name}: expected a list of {len(images)} numbers, one a picture")
    landmarks = cells.get("landmarks", "")
    if not isinstance(landmarks, str) or not landmarks.isascii():
        raise InputError("landmarks: expected the text of a metadata.txt")
    table = []
    pixels = 0
    for number, image in enumerate(images):
        content = _decode_base64(image, f"images {number}")
        ending = next((ending for magic, ending in _SUFFIX_BY_MAGIC.items() if content.startswith(magic)), None)
        if ending is None:
            raise InputError(f"images {number}: no PNG, BMP, TIFF, PGM or PPM file in base64")
        path = folder / f"im{number}.{ending}"
        path.write_bytes(content)
        with _hide_folder(folder):
            pixels += count_pixels(path)
        table.append([path.name, *(cells[light][number] for light in lights)])
    (folder / LIGHTS_FILE).write_text(format_csv(["image", *lights], table))
    if landmarks:
        (folder / LANDMARKS_FILE).write_text(landmarks)
    return pixels


def _solve_capture(recognizer: Recognizer, folder: Path) -> dict[str, np.ndarray]:
    """From light to maps, by the reader of captures on disk, which knows all that can be wrong with them."""
    with _hide_folder(folder):
        maps = recognizer.capture_to_maps(folder)
    return {modality: recognizer.check_map(modality, array, modality) for modality, array in maps.items()}


@contextmanager
def _hide_folder(folder: Path) -> Iterator[None]:
    """An error about a file in the temporary `folder` names the file alone."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error).replace(f"{folder}/", "").replace(str(folder), "images")) from None


def _is_number_list(cell: Any, count: int) -> bool:
    if not isinstance(cell, (list, tuple, np.ndarray)) or len(cell) != count:
        return False
    return all(isinstance(one, (int, float, np.number)) and not isinstance(one, bool) and _is_finite(one) for one in cell)


def _is_finite(number: Any) -> bool:
    try:
        return math.isfinite(number)
    except (OverflowError, TypeError):  # a whole number beyond float64; a complex number
        return False


def _decode_base64(text: Any, name: str) -> bytes:
    """The bytes of base64, which may be wrapped into lines, or be a data: URL."""
    try:
        plain = text.decode("ascii") if isinstance(text, bytes) else text
        return base64.b64decode("".join(_DATA_URL.sub("", plain).split()), validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise InputError(f"{name}: not base64") from None


def _is_empty(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and np.isnan(cell))
