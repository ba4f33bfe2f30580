"""Pictures of an evaluation and of a training, as PNG."""

import io
from collections.abc import Callable, Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from fr_ps.evaluation.verification import Pairs

mpl.use("agg")
Curves = Mapping[str, Sequence[tuple[int, float]]]
"""Metric name to (epoch, value) points."""


def roc_figure(pairs: Pairs) -> Figure:
    """True accepts against false accepts, the latter on a logarithmic axis as far as the pairs support it."""
    figure, axes = _axes("ROC of verification", "false accept rate", "true accept rate")
    far, tar, _ = roc_curve(pairs.genuine, pairs.score)
    least = 1 / max(int((~pairs.genuine).sum()), 1)
    axes.plot(np.maximum(far, least), tar)
    axes.set_xscale("log")
    axes.set_xlim(least, 1)
    axes.set_ylim(0, 1.02)
    return figure


def score_figure(pairs: Pairs) -> Figure:
    """How genuine and impostor scores are distributed."""
    figure, axes = _axes("Scores", "cosine", "density")
    edges = np.linspace(min(-0.2, float(pairs.score.min())), 1, 61)
    for name, chosen in (("impostor", ~pairs.genuine), ("genuine", pairs.genuine)):
        axes.hist(pairs.score[chosen], bins=edges, density=True, alpha=0.6, label=f"{name} ({int(chosen.sum())} pairs)")
    axes.legend()
    return figure


def curves_figure(curves: Curves, title: str, names: Sequence[str], logarithmic: bool = False) -> Figure:
    """The chosen curves over epochs, a line each."""
    figure, axes = _axes(title, "epoch", "")
    for name in names:
        if curves.get(name):
            epochs, values = zip(*curves[name])
            axes.plot(epochs, values, marker=".", label=name.split("/", 1)[1])
    if logarithmic:
        axes.set_yscale("log")
    if axes.lines:
        axes.legend(fontsize=7, ncols=2)
    return figure


def rate_figure(rate: Callable[[int], float], epochs: int, steps: int) -> Figure:
    """The learning rate of each step over the epochs.

    Args:
        rate: step, from 0, to learning rate.
        epochs: that were trained.
        steps: of each; the last one of epoch e stands at e, as the other curves' points do.
    """
    figure, axes = _axes("Learning rate of each step", "epoch", "")
    axes.plot([(step + 1) / steps for step in range(epochs * steps)], [rate(step) for step in range(epochs * steps)])
    axes.set_xlim(0, epochs)
    axes.set_ylim(bottom=0)
    return figure


def as_png(figure: Figure) -> bytes:
    """The figure's PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _axes(title: str, x: str, y: str):  # type: ignore[no-untyped-def]
    figure = Figure(figsize=(5.5, 3.8), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    return figure, axes
