"""Tables of a report, as text and as CSV cells. No matplotlib here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tabulate import tabulate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TERMINAL_WIDTH = 100
Cell = str | int | float | None
"""None is undefined: an empty CSV field, a dash on the page and in the terminal."""
DrawFigure = Callable[[], "Figure"]
"""Draws a figure when called."""


@dataclass(frozen=True)
class Table:
    """A table of the report, also written as a CSV file.

    Attributes:
        name: CSV file name without its suffix.
        title: title above the table.
        header: column names.
        rows: one cell per column.
        note: explanation below the table.
        label_columns: number of first columns that identify a row; the page folds a row without a value in the others.
        reasons: first cell of such a row to the reason.
    """

    name: str
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    label_columns: int = 1
    reasons: Mapping[str, str] = field(default_factory=dict)


def format_cell(cell: Cell) -> str:
    """A cell as text: floats with four decimals (or two in scientific notation), a dash for undefined."""
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.4f}" if abs(cell) >= 0.001 or cell == 0 else f"{cell:.2e}"
    return str(cell)


def table_text(table: Table) -> str:
    """The table for the terminal, with title and note; in a wide one, the common beginning of the names stands in the header."""
    rows = [[format_cell(cell) for cell in row] for row in table.rows]
    text = _tabulate(rows, table.header)
    groups = {row[0].partition("/")[0] for row in rows}
    if len(groups) == 1 and all("/" in row[0] for row in rows) and max(map(len, text.splitlines())) > TERMINAL_WIDTH:
        (group,) = groups
        header = [f"{table.header[0]} of {group}", *table.header[1:]]
        text = _tabulate([[row[0].removeprefix(f"{group}/"), *row[1:]] for row in rows], header)
    return "\n".join(part for part in (table.title, text, table.note) if part)


def _tabulate(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    return tabulate(rows, headers=list(header), disable_numparse=True)
