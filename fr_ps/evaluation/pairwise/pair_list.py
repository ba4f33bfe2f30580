"""Pair list of a verification protocol, from a CSV."""

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
        second: (m,) row of the other.
        fold: (m,) fold number; None if the file has no column fold.
    """

    first: np.ndarray
    second: np.ndarray
    fold: np.ndarray | None


def read_pairs(path: Path, labels: Labels) -> PairList:
    """Read a CSV with the columns id_a, session_a, id_b, session_b and optionally fold.

    Raises:
        InputError: a missing column, a session that is not in `labels`, a session paired with itself, a duplicate pair, or an
            empty fold; names the file and the row.
    """
    header, rows = read_csv_rows(path)
    check_columns(path, header, COLUMNS)
    index = {key: row for row, key in enumerate(labels.row_keys())}
    pairs: list[tuple[int, int]] = []
    seen: dict[tuple[int, int], int] = {}
    for number, row in rows:
        where = f"{path}: row {number}"
        keys = [(row[f"id_{end}"], row[f"session_{end}"]) for end in "ab"]
        for key in keys:
            if key not in index:
                raise InputError(
                    f"{where}: {'/'.join(key)} is not among the {len(labels)} scored sessions; "
                    f"{suggest_session(key, index) or 'remove the row'}"
                )
        first, second = (index[key] for key in keys)
        if first == second:
            raise InputError(f"{where}: {'/'.join(keys[0])} is paired with itself; remove the row")
        pair = (min(first, second), max(first, second))
        if pair in seen:
            raise InputError(f"{where}: duplicate of row {seen[pair]}; remove one of the two")
        if row.get(FOLD) == "":
            raise InputError(f"{where}: {FOLD} is empty; fill it in every row, or remove the column")
        seen[pair] = number
        pairs.append((first, second))
    if not pairs:
        raise InputError(f"{path}: no rows below the header; expected one pair per row")
    fold = np.unique([row[FOLD] for _, row in rows], return_inverse=True)[1] if FOLD in header else None
    pair_rows = np.array(pairs)
    return PairList(pair_rows[:, 0], pair_rows[:, 1], fold)
