"""Prediction requests of an MLflow model, as over HTTP: a table with one row per session, of maps or of images and lights.

A map is an array, nested lists, or a .npy file in base64. `images` is a list of image files in base64, with the columns of a
`lights.csv` as lists: `azimuth_deg` and `elevation_deg`, or `x`, `y` and `z`; and optionally intensities. Also optional are
`mask` and `ambient`, image files in base64, and `landmarks`, the text of a `metadata.txt`.
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
from fr_ps.errors import InputError
from fr_ps.models.inference import Predictions, concatenate_predictions
from fr_ps.npy import NpyError, read_npy
from fr_ps.photometric.acquisition import Acquisition
from fr_ps.photometric.images import count_pixels
from fr_ps.photometric.lights import ANGLE_COLUMNS, COLOR_INTENSITY_COLUMNS, INTENSITY_COLUMN, LIGHTS_FILE, VECTOR_COLUMNS
from fr_ps.photometric.orientation import axes_warning, normal_statistics
from fr_ps.photometric.photoface import LANDMARKS_FILE
from fr_ps.serving.recognizer import Recognizer
from fr_ps.serving.results import prediction_table
from fr_ps.tables import format_csv

MAX_SESSIONS = 256
"""Sessions per request. More would take longer than a client waits."""
MAX_REQUEST_PIXELS = 100_000_000
"""Pixels of all images of a request: 4 images of 24 million pixels, or 256 sessions of 4 images of 97,000."""
MAX_CONCURRENT_REQUESTS = 2
"""Further requests wait: an image file of a few kB may need 100 MB while its maps are computed."""
_MAX_IMAGES = 128
_DATA_URL = re.compile(r"\A\s*data:[^,]{0,100};base64,", re.IGNORECASE)
_REQUEST_SLOTS = threading.BoundedSemaphore(MAX_CONCURRENT_REQUESTS)
_LIGHT_COLUMNS = (*ANGLE_COLUMNS, *VECTOR_COLUMNS, INTENSITY_COLUMN, *COLOR_INTENSITY_COLUMNS)
CAPTURE_COLUMNS = ("images", *_LIGHT_COLUMNS, "mask", "ambient", "landmarks")
"""Columns of a row with images."""
_AMBIENT_STEM = "ambient"
_SUFFIX_BY_MAGIC = {b"\x89PNG": "png", b"BM": "bmp", b"II*\0": "tif", b"MM\0*": "tif", b"P5": "pgm", b"P2": "pgm", b"P6": "ppm"}


def predict_rows(recognizer: Recognizer, rows: pd.DataFrame) -> pd.DataFrame:
    """Predict the sessions of a request.

    Returns:
        One row per session, in the same order. The columns are those of `prediction_table`, `maps` (the modalities that were
        read), and `warning`, the same in all rows: the axes of the normals are probably wrong in most rows, another format
        version of `prepare` made the training maps, or captures differ from those of the training data; None: no warning.

    Raises:
        InputError: no rows or too many, or a row whose maps or images are missing or invalid; names the row.
    """
    if not isinstance(rows, pd.DataFrame):
        raise InputError(f"expected a table, one row per session, with {', '.join(CHANNELS)} or images and their lights")
    if not 1 <= len(rows) <= MAX_SESSIONS:
        raise InputError(f"{len(rows)} sessions; expected 1 to {MAX_SESSIONS} per request")
    with _REQUEST_SLOTS:
        sessions, acquisitions = _parse_rows(recognizer, rows)
        table = _to_objects(prediction_table(recognizer, _predict(recognizer, sessions)))
    # MLflow drops unknown columns, such as a misspelt modality: the client sees here which maps were read.
    table["maps"] = pd.Series(["+".join(maps) for maps in sessions], dtype=object)
    axes = axes_warning([normal_statistics(maps["normal"]) for maps in sessions if "normal" in maps])
    warnings = [*filter(None, [axes]), *(recognizer.capture_warnings(acquisitions) if acquisitions else [])]
    table["warning"] = pd.Series(["; ".join(warnings) or None] * len(table), dtype=object)
    return table


answer_rows = predict_rows
"""`pyfunc_model.py` in MLflow models that version 0.1 logged imports this name; see tests/old_files/pyfunc_model.py."""


def _to_objects(table: pd.DataFrame) -> pd.DataFrame:
    """The table with Python objects as cells, None where a cell is missing."""
    columns = {str(name): [None if _is_missing(cell) else cell for cell in table[name].tolist()] for name in table}
    return pd.DataFrame(columns, dtype=object)


def _is_missing(cell: object) -> bool:
    return cell is pd.NA or (isinstance(cell, float) and math.isnan(cell))


def _parse_rows(recognizer: Recognizer, rows: pd.DataFrame) -> tuple[list[dict[str, np.ndarray]], list[tuple[str, Acquisition]]]:
    """Modality to (C, H, W) of each row; and how each row with images was taken, by name of the row."""
    sessions = []
    acquisitions = []
    pixels = 0
    for number, cells in enumerate(rows.to_dict("records")):
        try:
            given = {str(name): cell for name, cell in cells.items() if not _is_empty(cell)}
            if "images" not in given:
                sessions.append(_parse_maps(recognizer, given))
                continue
            with tempfile.TemporaryDirectory() as folder:
                pixels += _write_capture(Path(folder), given, recognizer.info.preparation)
                if pixels > MAX_REQUEST_PIXELS:
                    limit = f"at most {MAX_REQUEST_PIXELS // 1_000_000} million per request"
                    raise InputError(
                        f"images: {pixels:,} pixels up to this row; expected {limit}; send fewer sessions or smaller images"
                    )
                maps, acquisition = _solve_capture(recognizer, Path(folder))
                sessions.append(maps)
                acquisitions.append((f"row {number}", acquisition))
        except InputError as error:
            raise InputError(f"row {number}: {error}") from None
    return sessions, acquisitions


def _predict(recognizer: Recognizer, sessions: list[dict[str, np.ndarray]]) -> Predictions:
    """Predict sessions, those with the same modalities in one batch; the result has the order of `sessions`."""
    rows_by_modalities: dict[tuple[str, ...], list[int]] = {}
    for row, maps in enumerate(sessions):
        rows_by_modalities.setdefault(tuple(maps), []).append(row)
    parts = []
    for modalities, rows in rows_by_modalities.items():
        stacked = {modality: np.stack([sessions[row][modality] for row in rows]) for modality in modalities}
        parts.append(recognizer.predict_checked(stacked, names=[f"row {row}" for row in rows]))
    grouped = concatenate_predictions(parts)
    order = np.argsort(np.concatenate(list(rows_by_modalities.values())))
    return Predictions(grouped.embeddings[order], {task: values[order] for task, values in grouped.probabilities.items()})


def _parse_maps(recognizer: Recognizer, cells: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Modality to (C, H, W) of a row with maps."""
    given = [modality for modality in CHANNELS if modality in cells]
    if not given:
        expected = (
            f"{', '.join(recognizer.info.modalities)}, or images with their lights (azimuth_deg and elevation_deg, or x, y, z)"
        )
        raise InputError(f"no maps and no images; expected {expected}; the columns of the row: {', '.join(cells) or 'none'}")
    maps = {modality: recognizer.check_map(modality, _parse_array(cells[modality], modality), modality) for modality in given}
    return {modality: maps[modality] for modality in recognizer.info.modalities if modality in maps}


def _parse_array(cell: Any, name: str) -> np.ndarray:
    if isinstance(cell, (str, bytes)):
        content = _decode_base64(cell, name)
        try:
            return read_npy(io.BytesIO(content), len(content))
        except NpyError as error:
            raise InputError(
                f"{name}: the text is no .npy file of numbers in base64 ({error}); expected a file written by numpy.save"
            ) from None
    try:
        with np.errstate(over="ignore"):  # overflow gives infinity, which the check of maps rejects
            return np.asarray(cell, dtype=np.float32) if isinstance(cell, list) else np.asarray(cell)
    except (ValueError, TypeError, OverflowError, RecursionError, MemoryError):
        raise InputError(f"{name}: not an array of numbers; expected nested lists, or a .npy file in base64") from None


def _write_capture(folder: Path, cells: Mapping[str, Any], preparation: Mapping[str, Any]) -> int:
    """Write a row with images to `folder` as a capture.

    Args:
        folder: empty.
        cells: of the row.
        preparation: of the model's maps.

    Returns:
        The total number of pixels that the headers of its images state.
    """
    given = [modality for modality in CHANNELS if modality in cells]
    if given:
        raise InputError(f"images and {given[0]} in one row; expected one or the other")
    images = cells["images"]
    if not isinstance(images, (list, tuple, np.ndarray)) or not 3 <= len(images) <= _MAX_IMAGES:
        raise InputError(f"images: expected a list of 3 to {_MAX_IMAGES} image files in base64")
    lights = [name for name in _LIGHT_COLUMNS if name in cells]
    direction = VECTOR_COLUMNS if set(VECTOR_COLUMNS) & set(lights) else ANGLE_COLUMNS
    for name in dict.fromkeys((*direction, *lights)):
        if not _is_number_list(cells.get(name), len(images)):
            raise InputError(f"{name}: expected a list of {len(images)} numbers, one per image")
    landmarks = cells.get("landmarks", "")
    if not isinstance(landmarks, str) or not landmarks.isascii():
        raise InputError("landmarks: expected the text of a metadata.txt")
    names, pixels = [], 0
    for number, image in enumerate(images):
        name, count = _write_image(folder, f"im{number}", image, f"images {number}")
        names.append(name)
        pixels += count
    table = [[name, *(cells[light][number] for light in lights)] for number, name in enumerate(names)]
    (folder / LIGHTS_FILE).write_text(format_csv(["image", *lights], table))
    if landmarks:
        (folder / LANDMARKS_FILE).write_text(landmarks)
    return pixels + _write_mask_and_ambient(folder, cells, preparation)


def _write_mask_and_ambient(folder: Path, cells: Mapping[str, Any], preparation: Mapping[str, Any]) -> int:
    """Write the images `mask` and `ambient` of a row; returns their pixels."""
    mask, ambient = preparation.get("mask", "file"), preparation.get("ambient")
    pixels = 0
    if "mask" in cells:
        if mask != "file":
            raise InputError(f"mask: the model's maps were made with mask {mask}; remove it")
        pixels += _write_image(folder, "mask", cells["mask"], "mask")[1]
    if "ambient" in cells and not ambient:
        raise InputError("ambient: the model's maps were made without an ambient image; remove it")
    if ambient:
        if "ambient" not in cells:
            raise InputError("ambient: missing; expected the image without the lights, which the model's maps need")
        pixels += _write_image(folder, _AMBIENT_STEM, cells["ambient"], "ambient")[1]
    return pixels


def _write_image(folder: Path, stem: str, cell: Any, where: str) -> tuple[str, int]:
    """Write an image file in base64 as `stem` with the ending of its format; returns its name and its number of pixels."""
    content = _decode_base64(cell, where)
    suffix = next((suffix for magic, suffix in _SUFFIX_BY_MAGIC.items() if content.startswith(magic)), None)
    if suffix is None:
        raise InputError(f"{where}: no PNG, BMP, TIFF, PGM or PPM file in base64")
    path = folder / f"{stem}.{suffix}"
    path.write_bytes(content)
    with _hide_folder(folder):
        return path.name, count_pixels(path)


def _solve_capture(recognizer: Recognizer, folder: Path) -> tuple[dict[str, np.ndarray], Acquisition]:
    """The maps of the capture in `folder`, by the code that also reads the user's captures, and how it was taken."""
    ambient = next(folder.glob(f"{_AMBIENT_STEM}.*"), None)
    with _hide_folder(folder):
        maps, acquisition = recognizer.solve_capture(folder, ambient=ambient.name if ambient else None)
    return {modality: recognizer.check_map(modality, array, modality) for modality, array in maps.items()}, acquisition


@contextmanager
def _hide_folder(folder: Path) -> Iterator[None]:
    """Remove the temporary `folder` from error messages; the names of its files remain."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error).replace(f"{folder}/", "").replace(str(folder), "images")) from None


def _is_number_list(cell: Any, count: int) -> bool:
    if not isinstance(cell, (list, tuple, np.ndarray)) or len(cell) != count:
        return False
    return all(isinstance(x, (int, float, np.number)) and not isinstance(x, bool) and _is_finite(x) for x in cell)


def _is_finite(number: Any) -> bool:
    try:
        return math.isfinite(number)
    except (OverflowError, TypeError):  # an integer above the largest float64; a complex number
        return False


def _decode_base64(text: Any, name: str) -> bytes:
    """Decode base64. Line breaks and the prefix of a data: URL are allowed."""
    try:
        plain = text.decode("ascii") if isinstance(text, bytes) else text
        return base64.b64decode("".join(_DATA_URL.sub("", plain).split()), validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise InputError(f"{name}: not base64; expected the content of a file in base64") from None


def _is_empty(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and np.isnan(cell))
