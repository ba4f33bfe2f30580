"""The figures of a study as pictures. Margins are fixed by the length of the names, as measuring them takes longer than drawing.

optuna.visualization.matplotlib cuts long names off and prints choices over each other.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fr_ps.report.figures import empty_figure, new_figure
from fr_ps.search.outcome.figures.finished import Curve, Finished, Objective, best_so_far, grouped, value_axis
from fr_ps.search.outcome.figures.setting import NOT_SET, Setting
from fr_ps.search.outcome.figures.text import cut, share_text, two_lines

_GREY, _BLUE, _RED, _AMBER = "#9aa5b1", "#1f5fa8", "#c8102e", "#d98e04"
_LETTER = 0.08
"""Inches of a letter of 9 points."""
_BELOW = -0.12
"""Where the lines of trials without the setting cross its axis, which goes from 0 to 1."""


def history(finished: Finished, column: int, objective: Objective) -> Figure:
    """The value of each finished trial, and the best one so far."""
    values = finished.values[:, column]
    figure, axes = _over_integers("Best value so far", "trial", objective)
    axes.plot(finished.numbers, values, ".", color=_GREY, label="a trial")
    axes.step(finished.numbers, best_so_far(values, objective), where="post", color=_BLUE, label="best so far")
    best = objective.best(values)
    axes.plot(finished.numbers[best], values[best], "o", color=_RED, label=f"best: trial {finished.numbers[best]}")
    axes.legend(fontsize=8, loc="best")
    return figure


def importance(shares: Mapping[str, float], objective: Objective) -> Figure:
    """A bar a setting, the most important one on top."""
    names = [cut(name, 44) for name in shares]
    margin = 0.3 + _LETTER * max(map(len, names))
    width, height = margin + 4.5, 1.0 + 0.28 * len(names)
    figure = empty_figure(width, height)
    axes = figure.add_axes((margin / width, 0.5 / height, 4 / width, (height - 0.9) / height))
    axes.set_title(f"Importance for {cut(objective.name, 40)}")
    axes.set_xlabel("share of the explained spread")
    bars = axes.barh(range(len(names)), list(shares.values()), color=_BLUE)
    axes.bar_label(bars, [share_text(share) for share in shares.values()], padding=3, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_xlim(0, 1.12 * max(shares.values()))
    axes.set_ylim(len(names) - 0.5, -0.5)
    return figure


def parallel(finished: Finished, column: int, objective: Objective, settings: Sequence[Setting]) -> Figure:
    """A line a trial through its value and its settings; the better, the darker."""
    own = value_axis(finished, column, objective)
    lines = [own, *settings]
    width = 1.75 * len(lines) + 0.6
    figure = empty_figure(width, 4.4)
    axes = figure.add_axes((0.6 / width, 0.02, 1 - 0.6 / width, 0.82), xlim=(-0.1, len(lines) - 0.1), ylim=(-0.2, 1.06))
    axes.set_axis_off()
    heights = np.column_stack([np.where(np.isnan(line.places), _BELOW, line.scaled(line.places)) for line in lines])
    goodness = heights[:, 0] if objective.maximize else 1 - heights[:, 0]
    best_last = np.argsort(goodness, kind="stable")
    points = np.stack([np.broadcast_to(np.arange(len(lines)), heights.shape), heights], axis=2)
    colors = mpl.colormaps["viridis_r"](goodness[best_last])
    axes.add_collection(LineCollection(list(points[best_last]), colors=colors, linewidths=1.2, alpha=0.7))
    for place, line in enumerate(lines):
        _upright(axes, place, line)
    return figure


def slices(finished: Finished, column: int, objective: Objective, settings: Sequence[Setting]) -> Figure:
    """A panel a setting: the value of each trial over it; the later the trial, the darker."""
    values = finished.values[:, column]
    # The first is pale, not white.
    lateness = 0.15 + 0.85 * (finished.numbers - finished.numbers.min()) / max(1, np.ptp(finished.numbers))
    look = {"c": lateness, "cmap": "Blues", "vmin": 0, "vmax": 1, "s": 18, "edgecolors": _GREY, "linewidths": 0.4}
    room = 0.05 * np.ptp(values) or 0.05 * abs(values[0]) or 1
    across = min(3, len(settings))
    width, height = 4 * across + 0.2, 3 * math.ceil(len(settings) / across) + 0.5
    figure = empty_figure(width, height)
    title = "setting by setting; the later the trial, the darker"
    figure.suptitle(f"{cut(objective.name, 40)}\n{title}" if across == 1 else f"{objective.name}, {title}", fontsize=11)
    for index, setting in enumerate(settings):
        row, place = divmod(index, across)
        left, bottom = 4 * place + 0.85, height - 3 * row - 2.95
        axes = figure.add_axes((left / width, bottom / height, 3.1 / width, 2.1 / height))
        # With a place of its own the title is not measured against the ticks, which takes a fifth of the drawing.
        axes.set_title(cut(setting.name, 40), fontsize=10, y=1.02)
        axes.scatter(setting.places, values, **look)
        axes.set_ylim(values.min() - room, values.max() + room)
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=8)
        _mark(axes, setting)
        if place == 0:
            axes.set_ylabel(cut(objective.name, 30))
    return figure


def curves(all_curves: Sequence[Curve], best: int | None, objective: Objective) -> Figure:
    """What each trial reported while it trained; pruned ones end in a cross."""
    figure, axes = _over_integers("Learning curves", "epoch", objective)
    for name, members in grouped(all_curves, best).items():
        color, width = {"finished": (_GREY, 0.7), "pruned": (_AMBER, 0.9)}.get(name, (_RED, 1.8))
        for curve in members:
            # A line of one point is not seen, and a pruned trial's end is.
            (line,) = axes.plot(curve.steps, curve.values, color=color, linewidth=width, markersize=4)
            line.set_marker("x" if curve.pruned else ".")
            line.set_markevery([len(curve.steps) - 1])
        line.set_label(name)
    axes.legend(fontsize=8, loc="best")
    return figure


def pareto(finished: Finished, front: np.ndarray, objectives: Sequence[Objective]) -> Figure:
    """A panel a pair of objectives: all finished trials, and those that no other one beats in all of them."""
    pairs = list(combinations(range(len(objectives)), 2))
    width = 4.6 * len(pairs)
    figure = empty_figure(width, 4.2)
    figure.suptitle("Pareto front", y=0.98)
    for index, (across, up) in enumerate(pairs):
        axes = figure.add_axes(((4.6 * index + 0.85) / width, 0.14, 3.6 / width, 0.76))
        axes.plot(*finished.values[~front][:, [across, up]].T, ".", color=_GREY, label="not on the front")
        axes.plot(*finished.values[front][:, [across, up]].T, "o", color=_RED, markersize=5, label="on the front")
        axes.set_xlabel(f"{cut(objectives[across].name, 30)} ({objectives[across].better} is better)")
        axes.set_ylabel(f"{cut(objectives[up].name, 30)} ({objectives[up].better} is better)")
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8, loc="best")
    return figure


def _over_integers(title: str, x: str, objective: Objective) -> tuple[Figure, Axes]:
    figure, axes = new_figure(title, x, cut(objective.name, 40))
    # Wider than elsewhere, for values such as 0.9125.
    axes.set_position((0.16, 0.13, 0.81, 0.78))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True))
    return figure, axes


def _upright(axes: Axes, place: int, line: Setting) -> None:
    """One of the parallel axes, with its name and marks."""
    axes.plot([place, place], [0, 1], color="black", linewidth=0.8)
    axes.text(place, 1.08, "\n".join(two_lines(line.name)), ha="center", va="bottom", fontsize=9, weight="bold")
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
    marks = [(float(line.scaled(np.array(at))), text) for at, text in line.ticks()]
    for height, text in marks if line.everywhere else [(_BELOW, NOT_SET), *marks]:
        axes.plot([place, place + 0.02], [height, height], color="black", linewidth=0.8)
        axes.text(place + 0.04, height, text, va="center", fontsize=8, bbox=box)


def _mark(axes: Axes, setting: Setting) -> None:
    """The horizontal axis of a panel."""
    places, texts = zip(*setting.ticks())
    tilted = sum(map(len, texts)) > 34
    axes.set_xticks(places, texts, rotation=20 if tilted else 0, ha="right" if tilted else "center")
    room = 0.5 if setting.choices else 0.04 * (setting.high - setting.low) or 0.5
    axes.set_xlim(setting.low - room, setting.high + room)
