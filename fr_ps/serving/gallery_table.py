"""The table of a gallery, `people.csv`: one row per enrolled session."""

import re
import unicodedata
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from fr_ps.errors import InputError
from fr_ps.tables import format_csv, read_session_rows

PEOPLE_FILE = "people.csv"
UNKNOWN = "unknown"
"""Result of an identification below the threshold. As a subject's id it is reserved, in upper or lower case."""
RESERVED_ID_MESSAGE = f"the id {UNKNOWN} is reserved for sessions that match no subject of the gallery"
CHECKSUM = "checksum"
"""Column with the first 16 hexadecimal digits of the SHA-256 of a row's embedding. Galleries of version 0.1 lack it.

They are in the table because replacing the table commits a change: at every moment, also after a process was killed, the table
matches embeddings that are on disk.
"""
COLUMNS = ["id", "session", "row", "quality", "enrolled", CHECKSUM]
_HEADER = ",".join(COLUMNS) + "\n"
_NAME = r"(?![\s.'])[^,\n\"/\\:\x00-\x1f\x7f-\x9f]++(?<!\s)"
_PLAIN_ROWS = re.compile(rf"(?:{_NAME},{_NAME},[0-9]{{1,18}},[0-9]{{1,18}}\.[0-9]{{4}},[0-9: -]++,[0-9a-f]{{16}}\n)*+")
"""Rows as `format_table` writes them for names without a character that CSV, `check_path_component` or a spreadsheet treats
specially. Their cells need no further check. The quantifiers are possessive: one pass."""


def format_table(table: pd.DataFrame) -> str:
    """The text of `people.csv`, from a table as `parse_table` returns it."""
    qualities = [f"{quality:.4f}" for quality in table["quality"]]
    columns = [qualities if name == "quality" else table[name].tolist() for name in COLUMNS]
    return format_csv(COLUMNS, zip(*columns))


def parse_table(path: Path, text: str) -> pd.DataFrame:
    """The rows of the table at `path`, in the order of the file.

    Args:
        path: of the file.
        text: its content.

    Returns:
        `id`, `session`, `row` (int64), `quality`, `enrolled`, `checksum` (empty where there is none), and for messages `number`,
        the row of the file.

    Raises:
        InputError: as `read_session_rows`; a row or quality that is no number; a subject with the id `unknown`.
    """
    table = _parse_plain_table(text)
    if table is None:
        table = _parse_edited_table(path)
    for name in table["id"].unique():
        if name.casefold() == UNKNOWN:
            number = int(table["number"][table["id"] == name].iloc[0])
            raise InputError(f"{path}: row {number}: {RESERVED_ID_MESSAGE}; change the id in this row")
    return table


def _parse_plain_table(text: str) -> pd.DataFrame | None:
    """The rows of a table without edits, which may be a million; None for any other text."""
    if (
        not text.startswith(_HEADER)
        or not _PLAIN_ROWS.fullmatch(text, len(_HEADER))
        or not unicodedata.is_normalized("NFC", text)
    ):
        return None
    from pyarrow import csv, float64, int64, string

    types = dict.fromkeys(COLUMNS, string()) | {"row": int64(), "quality": float64()}
    columns = csv.read_csv(BytesIO(text.encode()), convert_options=csv.ConvertOptions(column_types=types))
    cells = [columns[name].to_pylist() if types[name] == string() else columns[name].to_numpy() for name in COLUMNS]
    table = make_table(*cells, range(2, columns.num_rows + 2))
    return None if table.duplicated(["id", "session"]).any() else table


def _parse_edited_table(path: Path) -> pd.DataFrame:
    """The rows of any table, with the checks and messages of `read_session_rows`."""
    _, rows = read_session_rows(path, COLUMNS[2:-1])
    found: list[tuple[int, float]] = []
    for number, cells in rows.values():
        try:
            row = max(-1, min(int(cells["row"]), 2**62))  # a larger number is not in the embeddings either
            found.append((row, float(cells["quality"])))
        except ValueError:
            raise InputError(f"{path}: row {number}: row and quality must be numbers; restore the gallery from a copy") from None
    return make_table(
        [subject for subject, _ in rows],
        [session for _, session in rows],
        [row for row, _ in found],
        [quality for _, quality in found],
        [cells["enrolled"] for _, cells in rows.values()],
        [cells.get(CHECKSUM, "") for _, cells in rows.values()],
        [number for number, _ in rows.values()],
    )


def make_table(*columns: Any) -> pd.DataFrame:
    """A table as `parse_table` returns it, from its columns in their order."""
    types = dict.fromkeys(("id", "session", "enrolled", CHECKSUM), object) | {
        "row": "int64",
        "quality": "float64",
        "number": "int64",
    }
    names = [*COLUMNS, "number"]
    return pd.DataFrame({name: pd.Series(cells, dtype=types[name]) for name, cells in zip(names, columns, strict=True)})
