"""Changes of a gallery: enrolling and forgetting sessions. Each change is complete or absent, also if it is interrupted."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd

from fr_ps.errors import InputError
from fr_ps.files import check_path_component, remove_stale_temp, write_atomic, write_json, write_text
from fr_ps.locks import file_lock
from fr_ps.npy import array_bytes, array_header, map_array, read_array
from fr_ps.serving.gallery import (
    BLOCK_ROWS,
    EMBEDDINGS_FILE,
    FORMAT,
    INFO_FILE,
    Gallery,
    GalleryInfo,
    checksums,
    read_gallery,
    table_text,
)
from fr_ps.serving.gallery_table import CHECKSUM, COLUMNS, PEOPLE_FILE, RESERVED_ID_MESSAGE, UNKNOWN, format_table, make_table
from fr_ps.tables import format_csv


def enroll(folder: Path, model: str, keys: Sequence[tuple[str, str]], embeddings: np.ndarray) -> Gallery:
    """Add sessions to the gallery in `folder`; create it if it is missing. Sessions that are already enrolled are replaced.

    The change is atomic: the table, which is written last, commits it.

    Args:
        folder: folder of the gallery.
        model: SHA-256 of the weights that made the embeddings.
        keys: (id, session) of each embedding.
        embeddings: (len(keys), D) float32.

    Raises:
        InputError: another model made the gallery; it cannot be written; an embedding is zero or has NaN; a subject's id is
            `unknown`.
    """
    if not np.isfinite(embeddings).all() or not embeddings.any(axis=1).all():
        raise InputError(f"{folder}: an embedding is zero or has NaN; no session was enrolled; check the model and its maps")
    for key in keys:
        if key[0].casefold() == UNKNOWN:
            raise InputError(f"{folder}: {'/'.join(key)}: {RESERVED_ID_MESSAGE}; give the subject another id")
        for name in key:
            check_path_component(name, f"{folder}: {'/'.join(key)}")
    if len(set(keys)) < len(keys):
        raise InputError(f"{folder}: a session is listed twice; list each session once")
    with file_lock(folder):
        remove_stale_temp(folder)
        if not (folder / INFO_FILE).exists():
            check_empty(folder)
            write_atomic(folder / EMBEDDINGS_FILE, lambda file: file.write(array_bytes(np.zeros((0, embeddings.shape[1]), "f4"))))
            write_text(folder / PEOPLE_FILE, format_csv(COLUMNS, []))
            write_json(folder / INFO_FILE, asdict(GalleryInfo(FORMAT, model, embeddings.shape[1])))
        old = read_gallery(folder)
        old.check_model(model)
        new = set(keys)
        kept = old.table[[key not in new for key in zip(old.table["id"], old.table["session"])]]
        # A row that the old table refers to is never overwritten before that table is replaced.
        rows = _free_rows(old, len(keys))
        # The old table stays valid for these embeddings: its rows are unchanged.
        length = int(max([len(old.embeddings) - 1, *rows])) + 1
        _write_embeddings(folder, old.embeddings, length, rows, embeddings)
        when = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
        added = make_table(
            [subject for subject, _ in keys],
            [session for _, session in keys],
            rows,
            np.linalg.norm(embeddings, axis=1),
            [when] * len(keys),
            checksums(embeddings),
            [0] * len(keys),
        )
        return _write_table(old, pd.concat([kept, added]))


def forget(folder: Path, subject: str, session: str | None = None) -> int:
    """Remove a subject, or one of its sessions, and overwrite the embeddings with zeros. Return the number of removed sessions.

    Raises:
        InputError: there is no gallery, or the subject or session is not enrolled.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such gallery; check --gallery")
    read_gallery(folder)  # fails before the lock file is written into a folder that is no gallery
    with file_lock(folder):
        remove_stale_temp(folder)
        old = read_gallery(folder)
        gone = old.table["id"] == subject
        if session is not None:
            gone &= old.table["session"] == session
        if not gone.any():
            _write_table(old, old.table)  # clears embeddings that an interrupted removal left behind
            what = subject if session is None else f"{subject}/{session}"
            raise InputError(f"{folder / PEOPLE_FILE}: {what} is not enrolled; enrolled subjects: {_join_names(old.subjects)}")
        _write_table(old, old.table[~gone])
        return int(gone.sum())


def check_empty(folder: Path) -> None:
    """Check that creating a gallery in `folder` overwrites no sessions: a gallery that lost its `gallery.json` still has some.

    An empty table and an empty array are accepted: a process that was killed while it created the gallery leaves them.

    Raises:
        InputError: names the file.
    """
    people, embeddings = folder / PEOPLE_FILE, folder / EMBEDDINGS_FILE
    remedy = f"already exists, without {INFO_FILE}; restore that file, or choose another folder"
    if people.exists() and table_text(folder) not in (format_csv(COLUMNS[:-1], []), format_csv(COLUMNS, [])):
        raise InputError(f"{people}: {remedy}")
    if embeddings.exists():
        stored = read_array(embeddings)
        if stored.dtype != np.float32 or stored.ndim != 2 or len(stored):
            raise InputError(f"{embeddings}: {remedy}")


def _free_rows(gallery: Gallery, count: int) -> np.ndarray:
    """The first `count` rows that no session uses, in rising order; some may be beyond the end of the embeddings."""
    return np.flatnonzero(~_used_rows(gallery.table, len(gallery.embeddings) + count))[:count]


def _used_rows(table: pd.DataFrame, length: int) -> np.ndarray:
    """(length,) whether a session uses the row."""
    used = np.zeros(length, dtype=bool)
    used[table["row"].to_numpy()] = True
    return used


def _write_table(old: Gallery, table: pd.DataFrame) -> Gallery:
    """Write the new table of `old`, for the embeddings on disk, then zero those that no session uses any more."""
    embeddings = map_array(old.folder / EMBEDDINGS_FILE)
    table = table.assign(number=np.arange(2, len(table) + 2)).reset_index(drop=True)
    unchecked = (table[CHECKSUM] == "").to_numpy()  # of version 0.1
    table.loc[unchecked, CHECKSUM] = checksums(embeddings[table["row"][unchecked]])
    write_text(old.folder / PEOPLE_FILE, format_table(table))
    used = _used_rows(table, len(embeddings))
    free = np.flatnonzero(~used)
    length = int(table["row"].max()) + 1 if len(table) else 0
    if length < len(embeddings) or embeddings[free].any():
        free = free[free < length]
        _write_embeddings(old.folder, embeddings, length, free, np.broadcast_to(np.float32(0), (len(free), embeddings.shape[1])))
        embeddings = map_array(old.folder / EMBEDDINGS_FILE)
    return Gallery(old.folder, old.model, table, embeddings)


def _write_embeddings(folder: Path, old: np.ndarray, length: int, rows: np.ndarray, values: np.ndarray) -> None:
    """Write the embeddings `old`, cut or filled up with zeros to `length` rows, with `values` in the rising `rows`.

    In blocks: a gallery may be as large as the memory.
    """

    def write(file: IO[bytes]) -> None:
        file.write(array_header((length, old.shape[1]), np.dtype(np.float32)))
        for start in range(0, length, BLOCK_ROWS):
            block = np.zeros((min(BLOCK_ROWS, length - start), old.shape[1]), dtype=np.float32)
            stored = old[start : start + len(block)]
            block[: len(stored)] = stored
            inside = slice(*np.searchsorted(rows, (start, start + len(block))))
            block[rows[inside] - start] = values[inside]
            file.write(block.tobytes())

    write_atomic(folder / EMBEDDINGS_FILE, write)


def _join_names(names: Sequence[str], limit: int = 10) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "") or "none"
