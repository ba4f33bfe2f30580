"""A list of pairs to verify, as a protocol prescribes them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fr_ps.data.labels import Labels
from fr_ps.errors import InputError
from fr_ps.tables import check_columns, read_csv_rows, suggest_session

COLUMNS = ("id_a", "session_a", "id_b", "session_b")
FOLD = "fold"


@dataclass(frozen=True)
class PairList:
    """Pairs of rows of a labels table.

    Attributes:
        first: (m,) row of one session.
        second: (m,) of the other.
        fold: (m,) of each, as numbers; None where the file has no such column.
    """

    first: np.ndarray
    second: np.ndarray
    fold: np.ndarray | None


def read_pairs(path: Path, labels: Labels) -> PairList:
    """The pairs in a CSV of id_a, session_a, id_b, session_b and perhaps fold, as rows of `labels`.

    Raises:
        InputError: a missing column, a session that is not in `labels`, one compared with itself, a pair that stands
            twice, or an empty fold; names the file and the row.
    """
    header, rows = read_csv_rows(path)
    check_columns(path, header, COLUMNS)
    index = {key: row for row, key in enumerate(zip(labels.ids.tolist(), labels.sessions.tolist()))}
    ends: list[tuple[int, int]] = []
    seen: dict[tuple[int, int], int] = {}
    for number, row in rows:
        where = f"{path}: row {number}"
        keys = [(row[f"id_{end}"], row[f"session_{end}"]) for end in "ab"]
        for key in keys:
            if key not in index:
                raise InputError(
                    f"{where}: {'/'.join(key)} is not among the {len(labels)} sessions that are scored; "
                    f"{suggest_session(key, index) or 'remove the row'}"
                )
        first, second = (index[key] for key in keys)
        if first == second:
            raise InputError(f"{where}: {'/'.join(keys[0])} is compared with itself; remove the row")
        pair = (min(first, second), max(first, second))
        if pair in seen:
            raise InputError(f"{where}: is the pair of row {seen[pair]} again; remove one of the two")
        if row.get(FOLD) == "":
            raise InputError(f"{where}: {FOLD} is empty; say it in every row, or remove the column")
        seen[pair] = number
        ends.append((first, second))
    if not ends:
        raise InputError(f"{path}: no rows below the header; expected a pair a row")
    fold = np.unique([row[FOLD] for _, row in rows], return_inverse=True)[1] if FOLD in header else None
    places = np.array(ends)
    return PairList(places[:, 0], places[:, 1], fold)
