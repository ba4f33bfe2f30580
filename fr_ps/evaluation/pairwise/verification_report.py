"""Tables and figures of verification."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from scipy.stats import norm

from fr_ps.evaluation.metrics import Metrics, ReportSection
from fr_ps.evaluation.pairwise.pairs import PairScores
from fr_ps.evaluation.pairwise.roc import OperatingPoint, RocCurve, compute_roc, operating_points
from fr_ps.evaluation.pairwise.verification import at_validation_thresholds
from fr_ps.models.thresholds import Thresholds
from fr_ps.report.figures import new_figure, use_plain_tick_labels
from fr_ps.report.table import Cell, Table

_HEADER = (
    "target FMR",
    "threshold",
    "FMR",
    "false matches",
    "of impostor pairs",
    "FNMR",
    "low",
    "high",
    "false non-matches",
    "of genuine pairs",
    "subjects rejected",
    "of subjects",
    "support",
)


def verification_section(pair_scores: PairScores, metrics: Metrics, thresholds: Thresholds | None) -> ReportSection:
    """Tables and figures of `verification_with_intervals`, and its metrics under `identity/`."""
    section = ReportSection(metrics.with_prefix("identity"))
    if pair_scores.undefined_reason:
        return section
    curve = compute_roc(pair_scores)
    points = operating_points(pair_scores, curve)
    names = [f"tar_at_far_{point.target_fmr:g}" for point in points]
    section.tables.append(
        Table(
            "operating_points",
            "FNMR at fixed FMR, thresholds from these test pairs",
            _HEADER,
            [_row(pair_scores, metrics, point, name, point.low_support) for point, name in zip(points, names)],
            "The threshold is the lowest with an FMR of at most the target. Low, high: 95 % confidence interval of the FNMR. "
            "A subject with a false non-match is rejected.",
        )
    )
    if at_validation := at_validation_thresholds(pair_scores, thresholds):
        assert thresholds is not None
        rows = [
            _row(pair_scores, metrics, point, f"fnmr_at_val_far_{calibrated.fmr:g}", calibrated.support or point.low_support)
            for calibrated, point in at_validation
        ]
        section.tables.append(
            Table(
                "validation_thresholds",
                "FMR and FNMR at the thresholds from validation",
                _HEADER,
                rows,
                f"Calibrated on {thresholds.sessions} sessions of {thresholds.people} subjects. "
                "Low support: on validation or on these pairs.",
            )
        )
    section.figures = {
        "roc": partial(roc_figure, curve, pair_scores.impostor_count, points),
        "det": partial(det_figure, curve, pair_scores.impostor_count, len(pair_scores.genuine_levels), points),
        "scores": partial(score_figure, pair_scores),
    }
    return section


def roc_figure(curve: RocCurve, impostors: int, points: Sequence[OperatingPoint]) -> Figure:
    """True match rate against false match rate, the latter on a logarithmic axis down to one impostor pair."""
    figure, axes = new_figure("ROC of verification", "false match rate", "true match rate")
    least = min(1 / impostors, 0.5)
    axes.step(np.maximum(curve.fmr, least), curve.tmr, where="post")
    _plot_operating_points(axes, [point.target_fmr for point in points], [1 - point.fnmr for point in points], points)
    axes.set_xscale("log")
    use_plain_tick_labels(axes.xaxis)
    axes.set_xlim(least, 1)
    axes.set_ylim(0, 1.02)
    return figure


def det_figure(curve: RocCurve, impostors: int, genuine: int, points: Sequence[OperatingPoint]) -> Figure:
    """False non-match rate against false match rate, both as normal deviates (DET; Martin et al., Eurospeech 1997)."""
    figure, axes = new_figure("DET of verification", "false match rate", "false non-match rate")
    fmr = np.clip(curve.fmr, 0.5 / impostors, 1 - 0.5 / impostors)
    fnmr = np.clip(1 - curve.tmr, 0.5 / genuine, 1 - 0.5 / genuine)
    axes.plot(norm.ppf(fmr), norm.ppf(fnmr), drawstyle="steps-post")
    shown = [point for point in points if point.false_non_matches]
    _plot_operating_points(
        axes, norm.ppf([point.target_fmr for point in shown]), norm.ppf([point.fnmr for point in shown]), shown
    )
    ticks = np.array([1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95])
    for axis, least in ((axes.xaxis, 0.5 / impostors), (axes.yaxis, 0.5 / genuine)):
        shown_ticks = ticks[ticks >= least]
        axis.set_ticks(norm.ppf(shown_ticks), [f"{tick:g}" for tick in shown_ticks])
    axes.set_xlim(norm.ppf(0.5 / impostors), norm.ppf(0.9))
    axes.set_ylim(norm.ppf(0.5 / genuine), norm.ppf(0.9))
    return figure


def score_figure(pair_scores: PairScores) -> Figure:
    """Distributions of genuine and impostor scores."""
    figure, axes = new_figure("Scores", pair_scores.scale.measure, "density")
    impostor, genuine = (pair_scores.scale.scores(levels) for levels in (pair_scores.impostor_levels, pair_scores.genuine_levels))
    edges = np.linspace(min(impostor.min(), genuine.min()), max(impostor.max(), genuine.max()), 61)
    for name, scores, weights, count in (
        ("impostor", impostor, pair_scores.impostor_counts, pair_scores.impostor_count),
        ("genuine", genuine, None, len(genuine)),
    ):
        axes.hist(scores, bins=edges.tolist(), weights=weights, density=True, alpha=0.6, label=f"{name} ({count} pairs)")
    axes.legend()
    return figure


def _plot_operating_points(axes: Axes, x: ArrayLike, y: ArrayLike, points: Sequence[OperatingPoint]) -> None:
    """Points with support filled, points of low support hollow."""
    colours = ["none" if point.low_support else "tab:red" for point in points]
    axes.scatter(x, y, c=colours, edgecolors="tab:red", zorder=3)


def _row(pair_scores: PairScores, metrics: Metrics, point: OperatingPoint, name: str, support: str) -> list[Cell]:
    low, high = metrics.intervals.get(name, (None, None))
    if name.startswith("tar_") and low is not None and high is not None:
        low, high = 1 - high, 1 - low
    return [
        f"{point.target_fmr:g}",
        float(pair_scores.scale.scores(np.array(point.threshold))),
        point.fmr,
        point.false_matches,
        point.impostor_pairs,
        point.fnmr,
        low,
        high,
        point.false_non_matches,
        point.genuine_pairs,
        point.subjects_rejected,
        point.subjects,
        "low" if support else "",
    ]
