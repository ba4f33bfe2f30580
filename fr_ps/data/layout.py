"""A prepared data set on disk: `labels.csv` and `data/{id}/{session}/{albedo,normal,depth}.npy`.

The layout of the original project, the research repository that fr_ps replaces, is supported too: its file
names, three equal channels, `{id}/{session}` at the root.
"""

import os
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import get_args

import numpy as np

from fr_ps.config import Modality
from fr_ps.data.labels import Labels
from fr_ps.errors import InputError
from fr_ps.npy import read_array
from fr_ps.tables import SessionKey, suggest_session, to_nfc

LABELS_FILE = "labels.csv"
QUALITY = "quality_"
"""Prefix of the quality columns that `prepare` adds to `labels.csv`; lower is better."""
DATA_FOLDER = "data"
CHANNELS = {"albedo": 1, "normal": 3, "depth": 1}
_ORIGINAL_NAME = "{modality}_map_new_crop.exr.npy"
_UNIT_TOLERANCE = 1e-3


def output_folder(root: Path, subject: str, session: str) -> Path:
    """The folder to which `prepare` writes the maps of one session."""
    return root / DATA_FOLDER / subject / session


def session_folder(root: Path, subject: str, session: str) -> Path:
    """The folder of the maps of one session: below `data`, or at the root as in the original project.

    Folder names may be in Unicode's decomposed form. If the session has no folder: the one that `output_folder` gives.
    """
    written = output_folder(root, subject, session)
    if is_directory(written):
        return written
    for base in (root / DATA_FOLDER, root):
        folder = _find_folder(_find_folder(base, subject), session)
        if folder:
            return folder
    return written


def _find_folder(folder: Path | None, name: str) -> Path | None:
    """The subfolder `name` of `folder`, in any Unicode form; None if there is none."""
    if folder is None:
        return None
    if is_directory(folder / name):
        return folder / name
    if name.isascii():
        return None
    with suppress(OSError):
        return next((child for child in folder.iterdir() if to_nfc(child.name) == to_nfc(name) and is_directory(child)), None)
    return None


def session_keys(root: Path, known: Collection[str] = ()) -> list[SessionKey]:
    """(id, session) of every session folder, sorted.

    Without a folder `data`, a folder `{id}/{session}` counts only if it contains a map.

    Args:
        root: of the data set.
        known: sessions to leave out, as `id/session`.
    """
    at_root = not is_directory(root / DATA_FOLDER)
    found = []
    for subject in _visible_entries(root if at_root else root / DATA_FOLDER):
        subject_name = to_nfc(subject.name)
        for session in _visible_entries(subject):
            session_name = to_nfc(session.name)
            if f"{subject_name}/{session_name}" in known or not is_directory(Path(session)):  # `known` costs no system call
                continue
            if not at_root or any(_find_map(Path(session), modality) for modality in CHANNELS):
                found.append((subject_name, session_name))
    return sorted(found)


def _visible_entries(folder: "Path | os.DirEntry[str]") -> list["os.DirEntry[str]"]:
    """The entries of `folder` that are not hidden; none if it is not a folder or inaccessible."""
    with suppress(OSError), os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]
    return []


def map_file(root: Path, subject: str, session: str, modality: str) -> Path | None:
    """The file of one map, under our name or that of the original project; None if there is neither.

    Raises:
        InputError: the folder is inaccessible.
    """
    return _find_map(session_folder(root, subject, session), modality)


def _map_names(modality: str) -> tuple[str, str]:
    """Our name of the file of a map, and that of the original project."""
    return f"{modality}.npy", _ORIGINAL_NAME.format(modality=modality)


def _find_map(folder: Path, modality: str) -> Path | None:
    for name in _map_names(modality):
        try:
            if (folder / name).is_file():
                return folder / name
        except OSError as error:
            raise InputError(f"{folder / name}: unreadable ({error.strerror}); check the folder's permissions") from None
    return None


def map_files(root: Path, labels: Labels, modality: str) -> list[Path]:
    """For each row of the table, the file of its map of `modality`.

    Raises:
        InputError: as `stat_map_files`.
    """
    return [Path(path) for path, _ in stat_map_files(root, labels, modality)]


def stat_map_files(root: Path, labels: Labels, modality: str) -> Iterator[tuple[str, os.stat_result]]:
    """For each row of the table, the path of its map of `modality` and the result of `os.stat`.

    Each start of a training looks at every file, so this function makes few system calls: one per row, or two if the files have
    the names of the original project.

    Raises:
        InputError: rows without a map (names the first one and their number), or a folder is inaccessible.
    """
    base = f"{root / DATA_FOLDER if is_directory(root / DATA_FOLDER) else root}"
    absent = []
    names = _map_names(modality)
    for subject, session in labels.row_keys():
        found = _stat_map(f"{base}/{subject}/{session}", names)
        if found is None and (path := map_file(root, subject, session, modality)):
            found = str(path), path.stat()
        if found:
            yield found
        else:
            absent.append((subject, session))
    if absent:
        expected = session_folder(root, *absent[0]) / f"{modality}.npy"
        remedy = suggest_session(absent[0], session_keys(root)) or "prepare it, or remove the row"
        raise InputError(
            f"{root / LABELS_FILE}: row of {'/'.join(absent[0])} has no {modality} map (no file {expected}; {len(absent)} such "
            f"rows); {remedy}"
        )


def _stat_map(folder: str, names: Sequence[str]) -> tuple[str, os.stat_result] | None:
    """The path and the status of the first of `names` that is a file in `folder`; None if none is."""
    for name in names:
        path = f"{folder}/{name}"
        try:
            status = os.stat(path)  # noqa: PTH116 (a Path for each file would take twice the time)
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode):
            return path, status
    return None


def common_modalities(root: Path, labels: Labels) -> list[Modality]:
    """The modalities of which every row of the table has a map."""
    return [modality for modality in get_args(Modality) if all(map_file(root, *key, modality) for key in labels.row_keys())]


def find_orphans(root: Path, labels: Labels) -> list[str]:
    """Sessions (`id/session`) that have a folder but no row in the table."""
    return ["/".join(key) for key in session_keys(root, known=set(labels.session_names()))]


def is_directory(path: Path) -> bool:
    """Whether `path` is a folder; False also if its parent is inaccessible."""
    try:
        return path.is_dir()
    except OSError:
        return False


def read_map(path: Path, modality: str) -> np.ndarray:
    """One map as (C, H, W) float32, checked.

    Raises:
        InputError: the file is unreadable, or `check_map` rejects the map.
    """
    return check_map(read_array(path), modality, str(path))


def check_map(array: np.ndarray, modality: str, where: str) -> np.ndarray:
    """The map `array`, H x W or H x W x 3, as (C, H, W) float32; normals are scaled to unit length.

    Raises:
        InputError: a type that is not numeric, a wrong shape, NaN or infinity, or normals that are far from unit length or
            encoded as colours. The message begins with `where`.
    """
    channels = CHANNELS[modality]
    if array.dtype.kind not in "fiu":
        raise InputError(f"{where}: dtype is {array.dtype}; expected float32")
    if channels == 1 and array.ndim == 3 and array.shape[2] in (1, 3):
        array = _squeeze_channels(array, modality, where)
    expected, trailing_shape = ("H x W x 3", (3,)) if channels == 3 else ("H x W", ())
    if array.ndim < 2 or array.shape[2:] != trailing_shape or array.size == 0:
        raise InputError(f"{where}: shape is {' x '.join(map(str, array.shape))}; {modality} must be {expected}")
    with np.errstate(over="ignore"):  # gives infinity, which is rejected next
        array = array.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        row, column = np.argwhere(~np.isfinite(array))[0][:2]
        raise InputError(f"{where}: NaN or infinity at row {row}, column {column}; prepare it again")
    if channels == 1:
        return array[None]
    _reject_color_encoded(array, where)
    return np.ascontiguousarray(_normalize_normals(array, where).transpose(2, 0, 1))


def _squeeze_channels(array: np.ndarray, modality: str, where: str) -> np.ndarray:
    """The (H, W) map of (H, W, C) with 1 channel or 3 equal ones, as the original project stores it.

    Raises:
        InputError: the channels differ.
    """
    first = array[:, :, 0]
    if not all(np.array_equal(first, array[:, :, channel], equal_nan=True) for channel in range(1, array.shape[2])):
        size = " x ".join(map(str, array.shape))
        raise InputError(f"{where}: shape is {size} with different channels; {modality} must be H x W, or have equal channels")
    return first


def _reject_color_encoded(normals: np.ndarray, where: str) -> None:
    """Reject normals (H, W, 3) that look encoded as colours: no n_x or n_y is negative, and not all are about 0.

    Raises:
        InputError: they are encoded; names the remedy.
    """
    sideways, largest = normals[..., :2], float(normals.max())
    if sideways.min() < 0 or sideways.max() < _UNIT_TOLERANCE or largest > 255:
        return
    encoded, remedy = ("(n + 1) / 2", "2 m - 1") if largest < 2 else ("(n + 1) x 127.5", "m / 127.5 - 1")
    raise InputError(
        f"{where}: n_x and n_y are never negative, so the map m is probably encoded as {encoded}; expected unit vectors "
        f"(x, y, z) from -1 to 1: store {remedy}"
    )


def _normalize_normals(normals: np.ndarray, where: str) -> np.ndarray:
    """`normals` (H, W, 3) scaled to unit length; zero vectors (background) become (0, 0, 1).

    Raises:
        InputError: a length is outside 0.5 to 1.5, which resampling of unit normals does not explain.
    """
    lengths = np.sqrt(np.einsum("hwc,hwc->hw", normals, normals))
    if np.abs(lengths - 1).max() < _UNIT_TOLERANCE:
        return normals
    empty = lengths < _UNIT_TOLERANCE
    wrong = ~empty & ((lengths < 0.5) | (lengths > 1.5))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        length = lengths[row, column]
        raise InputError(
            f"{where}: the normal at row {row}, column {column} has length {length:.3g}; expected unit vectors (x, y, z)"
        )
    unit = normals / np.where(empty, 1, lengths)[..., None]
    unit[empty] = (0, 0, 1)
    return unit
