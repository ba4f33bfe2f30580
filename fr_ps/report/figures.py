"""Matplotlib figures with math text off and fixed margins.

Matplotlib would parse two dollar signs in an id, class name or setting as a formula. Therefore every figure of the project is
created here, with `text.parse_math` off, and logarithmic axes have plain numbers. Margins are fixed because measuring the text
takes longer than drawing. No two lines of a figure share a colour, as long as there are at most `len(COLOURS)`. A legend is
beside the plot, never on it.
"""

import io
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from fr_ps.report.table import DrawFigure

COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#7b4fa3",
    "#8c6d31",
    "#4d4d4d",
    "#a6b000",
    "#00b8b8",
    "#8f0f15",
)
"""Colours of the lines of a figure; the first six are those of Okabe and Ito, which colour-blind readers can distinguish."""
POINTS_PER_INCH = 140
_LABEL_LENGTH = 34

mpl.use("agg")
mpl.rcParams["text.parse_math"] = False
mpl.rcParams["axes.prop_cycle"] = cycler(color=COLOURS)
mpl.rcParams["axes.titlelocation"] = "left"
mpl.rcParams["axes.spines.top"] = mpl.rcParams["axes.spines.right"] = False


class _PlainLogFormatter(LogFormatter):
    """Plain numbers at the ticks of a logarithmic axis that matplotlib labels; an empty text at the others."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def empty_figure(width: float, height: float) -> Figure:
    """A figure without axes; sizes in inches."""
    return Figure(figsize=(width, height))


def use_plain_tick_labels(axis: Axis) -> None:
    """Label a logarithmic or symmetrical logarithmic axis with plain numbers."""
    axis.set_major_formatter(_PlainLogFormatter())
    axis.set_minor_formatter(_PlainLogFormatter(labelOnlyBase=False))


def new_figure(title: str, x: str, y: str, *, legend: bool = False) -> tuple[Figure, Axes]:
    """A figure with one empty axes and a grid.

    Args:
        title: figure title.
        x: label of the horizontal axis.
        y: label of the vertical axis.
        legend: leave room for `legend_beside`.
    """
    figure = empty_figure(6.6, 3.8)
    axes = figure.add_axes((0.11, 0.13, 0.6 if legend else 0.86, 0.77), title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    return figure, axes


def legend_beside(axes: Axes, **options: Any) -> None:
    """Draw the legend to the right of the axes; `options` are those of `Axes.legend`."""
    beside = {"loc": "upper left", "bbox_to_anchor": (1.02, 1), "borderaxespad": 0, "frameon": False, "fontsize": 9}
    axes.legend(**beside | options)


def shorten(text: str) -> str:
    """`text` of any length as a label of a figure."""
    return text if len(text) <= _LABEL_LENGTH else f"{text[: _LABEL_LENGTH - 1]}…"


def draw_png(draw: DrawFigure) -> bytes:
    """Draw a figure and return it as PNG."""
    return to_png(draw())


def to_png(figure: Figure, **options: Any) -> bytes:
    """The figure as PNG; `options` are those of `savefig`."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=POINTS_PER_INCH, metadata={"Software": None}, **options)
    return buffer.getvalue()


def plot_png(draw: Callable[[], Any]) -> bytes:
    """Draw a plot of optuna.visualization.matplotlib, wide enough for its labels, and return it as PNG.

    The style that Optuna sets for the whole process is restored at the end.

    Args:
        draw: draws the plot and returns its axes, one or an array.
    """
    from matplotlib import pyplot  # only these plots register their figures there

    with mpl.rc_context():
        panels = np.atleast_1d(np.asarray(draw(), dtype=object)).ravel()
        figure = panels[0].figure
        figure.set_size_inches(max(6.4, 1.9 * len(figure.axes)), 4.4)
        for axes in figure.axes:
            for axis in (axes.xaxis, axes.yaxis):
                if axis.get_scale() == "log":
                    use_plain_tick_labels(axis)
            if len(panels) > 1:  # a slice plot: horizontal names of choices would overlap
                axes.tick_params("x", rotation=30)
            if axes.get_legend() and len(axes.get_legend().get_texts()) > 4:  # one entry for each trial
                axes.get_legend().remove()
        png = to_png(figure, bbox_inches="tight")
        pyplot.close(figure)
    return png
