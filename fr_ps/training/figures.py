"""Curves of a training, as pictures."""

from collections.abc import Callable, Mapping, Sequence

from matplotlib.figure import Figure

from fr_ps.report.figures import new_figure, use_plain_tick_labels

Curves = Mapping[str, Sequence[tuple[int, float]]]
"""Metric name to (epoch, value) points."""


def curves_figure(curves: Curves, title: str, names: Sequence[str], logarithmic: bool = False) -> Figure:
    """The chosen curves over epochs, a line each."""
    figure, axes = new_figure(title, "epoch", "")
    for name in names:
        if curves.get(name):
            epochs, values = zip(*curves[name])
            axes.plot(epochs, values, marker=".", label=name.split("/", 1)[1])
    if logarithmic:
        axes.set_yscale("log")
        use_plain_tick_labels(axes.yaxis)
    if axes.lines:
        axes.legend(fontsize=7, ncols=2)
    return figure


def learning_rate_figure(learning_rate: Callable[[int], float], epochs: int, steps: int) -> Figure:
    """The learning rate of each step over the epochs.

    Args:
        rate: step, from 0, to learning rate.
        epochs: that were trained.
        steps: of each; the last one of epoch e stands at e, as the other curves' points do.
    """
    figure, axes = new_figure("Learning rate of each step", "epoch", "")
    axes.plot([(step + 1) / steps for step in range(epochs * steps)], [learning_rate(step) for step in range(epochs * steps)])
    axes.set_xlim(0, epochs)
    axes.set_ylim(bottom=0)
    return figure
