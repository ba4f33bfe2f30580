"""Pictures of verification."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from scipy.stats import norm

from fr_ps.evaluation.pairwise.pairs import PairScores
from fr_ps.evaluation.pairwise.roc import OperatingPoint, RocCurve
from fr_ps.report.figures import new_figure, use_plain_tick_labels


def roc_figure(curve: RocCurve, impostors: int, operating_points: Sequence[OperatingPoint]) -> Figure:
    """True matches against false matches, the latter on a logarithmic axis as far as the pairs support it."""
    figure, axes = new_figure("ROC of verification", "false match rate", "true match rate")
    least = min(1 / impostors, 0.5)
    axes.step(np.maximum(curve.fmr, least), curve.tmr, where="post")
    _plot_operating_points(
        axes, [point.target_fmr for point in operating_points], [1 - point.fnmr for point in operating_points], operating_points
    )
    axes.set_xscale("log")
    use_plain_tick_labels(axes.xaxis)
    axes.set_xlim(least, 1)
    axes.set_ylim(0, 1.02)
    return figure


def det_figure(curve: RocCurve, impostors: int, genuine: int, operating_points: Sequence[OperatingPoint]) -> Figure:
    """False non-matches against false matches, both as normal deviates (DET; Martin et al., Eurospeech 1997)."""
    figure, axes = new_figure("DET of verification", "false match rate", "false non-match rate")
    fmr = np.clip(curve.fmr, 0.5 / impostors, 1 - 0.5 / impostors)
    fnmr = np.clip(1 - curve.tmr, 0.5 / genuine, 1 - 0.5 / genuine)
    axes.plot(norm.ppf(fmr), norm.ppf(fnmr), drawstyle="steps-post")
    shown = [point for point in operating_points if point.false_non_matches]
    _plot_operating_points(
        axes, norm.ppf([point.target_fmr for point in shown]), norm.ppf([point.fnmr for point in shown]), shown
    )
    ticks = np.array([1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95])
    for axis, least in ((axes.xaxis, 0.5 / impostors), (axes.yaxis, 0.5 / genuine)):
        some = ticks[ticks >= least]
        axis.set_ticks(norm.ppf(some), [f"{tick:g}" for tick in some])
    axes.set_xlim(norm.ppf(0.5 / impostors), norm.ppf(0.9))
    axes.set_ylim(norm.ppf(0.5 / genuine), norm.ppf(0.9))
    return figure


def score_figure(pair_scores: PairScores) -> Figure:
    """How genuine and impostor scores are distributed."""
    figure, axes = new_figure("Scores", pair_scores.scale.measure, "density")
    impostor, genuine = (pair_scores.scale.scores(keys) for keys in (pair_scores.impostor_levels, pair_scores.genuine_levels))
    edges = np.linspace(min(impostor.min(), genuine.min()), max(impostor.max(), genuine.max()), 61)
    for name, scores, weights, count in (
        ("impostor", impostor, pair_scores.impostor_counts, pair_scores.impostor_count),
        ("genuine", genuine, None, len(genuine)),
    ):
        axes.hist(scores, bins=edges.tolist(), weights=weights, density=True, alpha=0.6, label=f"{name} ({count} pairs)")
    axes.legend()
    return figure


def _plot_operating_points(axes: Axes, x: ArrayLike, y: ArrayLike, operating_points: Sequence[OperatingPoint]) -> None:
    """The points that have support filled, the others hollow."""
    colours = ["none" if point.low_support else "tab:red" for point in operating_points]
    axes.scatter(x, y, c=colours, edgecolors="tab:red", zorder=3)
