"""What an analysis comes to: numbers, tables, pictures. The report puts those of all analyses one after the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fr_ps.evaluation.metrics import Metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Cell = str | int | float | None
"""None is undefined: empty in the CSV file, a dash where people read."""
DrawFigure = Callable[[], "Figure"]
"""Draws a figure when it is called."""


@dataclass(frozen=True)
class Table:
    """Rows for the report, and for a CSV file of their own.

    Attributes:
        name: of the file, without its ending.
        title: above it in the report.
        header: a name a column.
        rows: a cell a column.
        note: what a reader has to know, below it.
    """

    name: str
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


@dataclass
class ReportSection:
    """Of one analysis.

    Attributes:
        metrics: named as in metrics.json but for the part (`identity/auc`).
        tables: for the report.
        figures: name of the PNG file, without its ending, to the function that draws it; `write_report` calls it.
    """

    metrics: Metrics = field(default_factory=Metrics)
    tables: list[Table] = field(default_factory=list)
    figures: dict[str, DrawFigure] = field(default_factory=dict)
