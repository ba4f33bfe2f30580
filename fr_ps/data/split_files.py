"""A split on disk: split.csv, and the tables of the original project."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fr_ps.data.labels import Labels
from fr_ps.errors import InputError
from fr_ps.files import write_text
from fr_ps.tables import SessionKey, check_columns, format_csv, read_csv_rows, suggest_session

SPLIT_FILE = "split.csv"
PARTS = ("train", "val", "test", "gallery")
_ORIGINAL_NAME = "{part}_set.csv"
_NO_ROWS = np.empty(0, dtype=int)


@dataclass(frozen=True)
class Split:
    """Sorted indices of each part into the `Labels` that were split. A part may be empty, and a row may be in no part.

    Attributes:
        train: rows to train on.
        val: rows that select the checkpoint.
        test: rows for the final test; the probes if there is a gallery.
        gallery: rows that enrol subjects of the test part.
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    gallery: np.ndarray = field(default_factory=lambda: _NO_ROWS)


def write_split(path: Path, labels: Labels, split: Split) -> None:
    """Write the parts as a CSV of id, session, part."""
    write_text(path, split_text(labels, split))


def split_text(labels: Labels, split: Split) -> str:
    """The parts as a CSV of id, session, part."""
    parts = ([labels.ids[row], labels.sessions[row], part] for part in PARTS for row in getattr(split, part))
    return format_csv(["id", "session", "part"], parts)


def read_part(path: Path, part: str, labels: Labels) -> np.ndarray:
    """The rows of `labels` that the split file at `path` puts in `part`.

    Raises:
        InputError: the file is unreadable, the part is empty, or a session of it is not in the labels.
    """
    keys = [key for key, found in read_parts(path).items() if found == part]
    if not keys:
        raise InputError(f"{path}: the part {part!r} of that run is empty; name another part")
    index = {key: row for row, key in enumerate(labels.row_keys())}
    absent = [key for key in keys if key not in index]
    if absent:
        raise InputError(
            f"{path}: {'/'.join(absent[0])} is not in the data set ({len(absent)} such sessions); "
            f"{suggest_session(absent[0], index) or 'name the data set of that run'}"
        )
    return np.array([index[key] for key in keys])


def read_split(path: Path, labels: Labels, left_out: Collection[SessionKey] = ()) -> Split:
    """The split in the files at `path`; rows that they do not name are in no part.

    Args:
        path: a split.csv (id, session, part), or a folder with the original project's train_set.csv, test_set.csv and
            optionally gallery_set.csv and val_set.csv (rows of id, session, ...).
        labels: the rows to split.
        left_out: sessions of the data set that the settings leave out of `labels`; the files may name them.

    Raises:
        InputError: a file is missing or unreadable, a session is in two parts, or is not in the data set.
    """
    if not path.exists():
        raise InputError(f"{path}: no such split; data.split must name a split.csv or a folder with train_set.csv, test_set.csv")
    parts = _read_folder(path) if path.is_dir() else read_parts(path)
    index = {key: row for row, key in enumerate(labels.row_keys())}
    known = index.keys() | set(left_out)
    absent = [key for key in parts if key not in known]
    if absent:
        raise InputError(
            f"{path}: {'/'.join(absent[0])} ({parts[absent[0]]}) is not in the data set ({len(absent)} such sessions of "
            f"{len(parts)}); {suggest_session(absent[0], index) or 'name the data set that was split'}"
        )
    rows: dict[str, list[int]] = {part: [] for part in PARTS}
    for key, part in parts.items():
        if key in index:
            rows[part].append(index[key])
    return Split(**{part: np.array(sorted(found), dtype=int) for part, found in rows.items()})


def _read_folder(folder: Path) -> dict[SessionKey, str]:
    """Part of each session, from the original project's files in `folder`."""
    parts: dict[SessionKey, str] = {}
    for part in PARTS:
        path = folder / _ORIGINAL_NAME.format(part=part)
        if path.is_file() or part in ("train", "test"):
            for number, row in _read_rows(path, "id", "session"):
                _assign_part(parts, row, part, f"{path}: row {number}")
    return parts


def read_parts(path: Path) -> dict[SessionKey, str]:
    """Part of each session, from a split.csv."""
    parts: dict[SessionKey, str] = {}
    for number, row in _read_rows(path, "id", "session", "part"):
        where = f"{path}: row {number}"
        if row["part"] not in PARTS:
            raise InputError(f"{where}: part is {row['part']!r}; expected one of {', '.join(PARTS)}")
        _assign_part(parts, row, row["part"], where)
    return parts


def _read_rows(path: Path, *columns: str) -> list[tuple[int, dict[str, str]]]:
    header, rows = read_csv_rows(path)
    check_columns(path, header, columns)
    return rows


def _assign_part(parts: dict[SessionKey, str], row: dict[str, str], part: str, where: str) -> None:
    key = (row["id"], row["session"])
    if key in parts:
        raise InputError(f"{where}: {'/'.join(key)} is already in the part {parts[key]}; remove one of the two rows")
    parts[key] = part
