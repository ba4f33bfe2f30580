"""Figures of paired differences."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from fr_ps.evaluation.differences import Difference
from fr_ps.evaluation.metrics import lower_is_better
from fr_ps.report.figures import COLOURS, empty_figure, legend_beside, shorten


def difference_figure(title: str, names: tuple[str, str], labelled: Sequence[tuple[str, Difference]]) -> Figure:
    """Each difference with its interval, to the right where the first model is better.

    Args:
        title: figure title.
        names: names of the first and the second model.
        labelled: label and difference of each line, from above.
    """
    first, second = map(shorten, names)
    height = 1.3 + 0.3 * len(labelled)
    labels = [shorten(label) for label, _ in labelled]
    width, left = 9.4, 0.3 + 0.085 * max(map(len, labels))
    figure = empty_figure(width, height)
    axes = figure.add_axes((left / width, 0.62 / height, (width - left - 2.6) / width, 1 - 1.07 / height), title=title)
    axes.axvline(0, color="black", linewidth=1)
    kinds = {
        "first": (COLOURS[0], f"{first} is better"),
        "second": (COLOURS[1], f"{second} is better"),
        "neither": (COLOURS[8], "no measurable difference"),
    }
    drawn = set()
    for y, (_, difference) in enumerate(labelled):
        sign = -1 if lower_is_better(difference.name) else 1
        colour, label = kinds[difference.better] if difference.has_interval else (COLOURS[7], "no interval")
        if difference.has_interval:
            axes.plot([sign * difference.low, sign * difference.high], [y, y], color=colour, linewidth=3, alpha=0.4)
        legend = "_" if label in drawn else label
        axes.plot(sign * difference.value, y, "o", color=colour, markersize=5, label=legend)
        drawn.add(label)
    axes.set_yticks(range(len(labelled)), labels)
    axes.set_ylim(len(labelled) - 0.5, -0.5)
    margin = 1.05 * max([abs(edge) for edge in axes.get_xlim()] + [1e-3])
    axes.set_xlim(-margin, margin)
    axes.set_xlabel(f"← {second} better      difference      {first} better →")
    axes.grid(alpha=0.3)
    legend_beside(axes)
    return figure
