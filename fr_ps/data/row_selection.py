"""Selection of the rows of the labels table: by values, by limits, and by subsampling."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fr_ps.config import DataConfig
from fr_ps.data.labels import Labels
from fr_ps.errors import InputError
from fr_ps.tables import to_nfc

_MAX_CHOICES = 20
"""Most values of a column to list in a message."""


@dataclass(frozen=True)
class RowSelection:
    """The selected rows.

    Attributes:
        selected: (n,) their indices into the table, sorted.
        notes: a line for each setting that left rows out, with the number of sessions.
    """

    selected: np.ndarray
    notes: list[str]


def select_rows(labels: Labels, config: DataConfig) -> RowSelection:
    """The rows that satisfy `only` and `limits`, subsampled by `subsample_sessions` and `subsample_share`.

    The order of the rows has no influence; `split_seed` seeds the subsamples.

    Raises:
        InputError: an unknown column, values that the column does not contain, a cell of a limited column that is not a
            number, or no row is left.
    """
    kept = np.ones(len(labels), dtype=bool)
    notes: list[str] = []

    def keep(condition: np.ndarray, reason: str) -> None:
        nonlocal kept
        left_out = int((kept & ~condition).sum())
        kept = kept & condition
        if left_out:
            notes.append(f"left out: {left_out} sessions: {reason}")
        if not kept.any():
            raise InputError(f"no session is left: the last {left_out} were left out ({reason}); relax that setting")

    for column, given in config.only.items():
        values = [to_nfc(value) for value in given]
        notes += _unknown_values(labels, column, values)
        keep(np.isin(labels.columns[column], values), f"{column} is not {' or '.join(values)} (data.only)")
    for column, limit in config.limits.items():
        keep(_numeric_column(labels, column, "data.limits") <= limit, f"{column} above {limit:g} (data.limits)")
    # [seed, 1]: the split uses the seed alone and must be independent of the subsample.
    rng = np.random.default_rng([config.split_seed, 1])
    count, share = config.subsample_sessions, config.subsample_share
    if count:
        keep(_limit_per_subject(labels, kept, count, rng), f"beyond {count} of each subject (data.subsample_sessions)")
    if share < 1:
        keep(_random_share(labels, kept, share, rng), f"not in the random share of {share:g} (data.subsample_share)")
    return RowSelection(np.flatnonzero(kept), notes)


def _numeric_column(labels: Labels, column: str, key: str) -> np.ndarray:
    """The column of the table as (n,) float64; `key` is the setting that names it.

    Raises:
        InputError: there is no such column, or a cell of it is not a number; names the row.
    """
    values = pd.to_numeric(pd.Series(_column(labels, column, key)), errors="coerce").to_numpy(dtype=float)
    bad = np.flatnonzero(np.isnan(values))
    if len(bad):
        row = bad[0]
        raise InputError(
            f"{key}: {column} of {labels.ids[row]}/{labels.sessions[row]} is {str(labels.columns[column][row])!r} "
            f"({len(bad)} such rows); expected a number; the columns are {', '.join(labels.columns)}"
        )
    return values


def _unknown_values(labels: Labels, column: str, values: Sequence[str]) -> list[str]:
    """A line about each of `values` that the column does not contain.

    Raises:
        InputError: there is no such column, or it contains none of them; names the choices.
    """
    found = sorted(set(_column(labels, column, "data.only").tolist()))
    choices = ", ".join(value or "(empty)" for value in found[:_MAX_CHOICES]) + (", ..." if len(found) > _MAX_CHOICES else "")
    unknown = [value for value in values if value not in found]
    if len(unknown) == len(values):
        raise InputError(
            f"data.only: no session is left, because {column} is never {' or '.join(values)}; expected some of {choices}"
        )
    return [f"data.only: {column} is never {value!r}; its values are {choices}" for value in unknown]


def _column(labels: Labels, column: str, key: str) -> np.ndarray:
    if column not in labels.columns:
        raise InputError(f"{key} names {column!r}; expected a column of the table: {', '.join(labels.columns)}")
    return labels.columns[column]


def _shuffled(labels: Labels, kept: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The rows in `kept` in random order, whatever their order in the table."""
    rows = labels.sorted_rows()
    return rng.permutation(rows[kept[rows]])


def _limit_per_subject(labels: Labels, kept: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    rows = _shuffled(labels, kept, rng)
    number = pd.Series(labels.ids[rows]).groupby(labels.ids[rows]).cumcount().to_numpy()
    return _mask(rows[number < count], len(labels))


def _random_share(labels: Labels, kept: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    rows = _shuffled(labels, kept, rng)
    return _mask(rows[: max(1, round(share * len(rows)))], len(labels))


def _mask(rows: np.ndarray, length: int) -> np.ndarray:
    mask = np.zeros(length, dtype=bool)
    mask[rows] = True
    return mask
