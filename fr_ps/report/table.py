"""Tables of a report, as text and as CSV cells. No matplotlib here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tabulate import tabulate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    """

    name: str
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


def format_cell(cell: Cell) -> str:
    """A cell as text: floats with four decimals (or two in scientific notation), a dash for undefined."""
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.4f}" if abs(cell) >= 0.001 or cell == 0 else f"{cell:.2e}"
    return str(cell)


def table_text(table: Table) -> str:
    """The table for the terminal, with title and note."""
    rows = [[format_cell(cell) for cell in row] for row in table.rows]
    text = tabulate(rows, headers=list(table.header), disable_numparse=True)
    return "\n".join(part for part in (table.title, text, table.note) if part)
