"""A picture with one pair of axes. Its margins are fixed, as measuring the text first takes longer than drawing."""

import io

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

mpl.use("agg")


def new_figure(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    """An empty one with a grid.

    Args:
        title: above it.
        x: what the horizontal axis is called.
        y: what the vertical axis is called.
    """
    figure = Figure(figsize=(5.5, 3.8))
    axes = figure.add_axes((0.13, 0.13, 0.84, 0.78), title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    return figure, axes


def as_png(figure: Figure) -> bytes:
    """The figure's PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
