"""Tables and figures of verification."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from scipy.stats import norm

from fr_ps.evaluation.metrics import Metrics, ReportSection
from fr_ps.evaluation.pairwise.pairs import PairScores
from fr_ps.evaluation.pairwise.roc import OperatingPoint, RocCurve, compute_roc, operating_points
from fr_ps.evaluation.pairwise.verification import RocBand, at_validation_thresholds
from fr_ps.models.thresholds import Thresholds
from fr_ps.report.figures import COLOURS, legend_beside, new_figure, shorten, use_plain_tick_labels
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

# In normal deviates.
_DET_MARGIN = 0.15


@dataclass(frozen=True)
class DrawnRoc:
    """What the figures of a model show.

    Attributes:
        pair_scores: scores of genuine and impostor pairs.
        curve: ROC curve.
        points: operating points.
        band: intervals of the curve; None without any.
    """

    pair_scores: PairScores
    curve: RocCurve
    points: Sequence[OperatingPoint]
    band: RocBand | None


def draw_roc(pair_scores: PairScores, band: RocBand | None) -> DrawnRoc:
    """Curve and operating points of the pairs, of which both kinds exist."""
    curve = compute_roc(pair_scores)
    return DrawnRoc(pair_scores, curve, operating_points(pair_scores, curve), band)


def verification_section(
    pair_scores: PairScores, metrics: Metrics, thresholds: Thresholds | None, band: RocBand | None = None
) -> ReportSection:
    """Tables and figures of `verification_with_band`, and its metrics under `identity/`."""
    section = ReportSection(metrics.with_prefix("identity"))
    if pair_scores.undefined_reason:
        return section
    drawn = draw_roc(pair_scores, band)
    points = drawn.points
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
    add_verification_figures(section, {"": drawn})
    return section


def add_verification_figures(section: ReportSection, models: Mapping[str, DrawnRoc]) -> None:
    """Add ROC, DET and histograms of the scores, of one or more models by name, with their captions."""
    section.figures |= {"roc": partial(roc_figure, models), "det": partial(det_figure, models)}
    suffixes = {name: f"_{number}" if name else "" for number, name in enumerate(models, 1)}
    section.figures |= {f"scores{suffixes[name]}": partial(score_figure, drawn, name) for name, drawn in models.items()}
    section.captions |= {
        "roc": "Share of the same-subject pairs that are accepted (higher is better), by the share of the different-subject "
        "pairs that are accepted with them. Band: 95 % interval over subjects.",
        "det": "The same, as errors on the scale of normal deviates (lower is better). A rate of zero is drawn at half an error.",
    }
    section.captions |= {
        f"scores{suffix}": "A pair is accepted at or above a threshold; the thresholds shown are chosen on these pairs."
        for suffix in suffixes.values()
    }


def _label(name: str) -> str:
    return shorten(name) if name else "model"


def roc_figure(models: Mapping[str, DrawnRoc]) -> Figure:
    """True match rate against false match rate, the latter on a logarithmic axis down to one impostor pair."""
    figure, axes = new_figure("ROC of verification", "false match rate", "true match rate", legend=True)
    least = min(1 / max(drawn.pair_scores.impostor_count for drawn in models.values()), 0.5)
    for (name, drawn), colour in zip(models.items(), COLOURS):
        axes.step(
            np.maximum(drawn.curve.fmr, least),
            drawn.curve.tmr,
            where="post",
            color=colour,
            label=shorten(name) if name else "model",
        )
    for drawn, colour in zip(models.values(), COLOURS):
        if drawn.band:
            _plot_band(axes, drawn.band.fmr, drawn.band.low, drawn.band.high, colour)
        _plot_operating_points(
            axes, [point.target_fmr for point in drawn.points], [1 - point.fnmr for point in drawn.points], drawn.points, colour
        )
    axes.set_xscale("log")
    use_plain_tick_labels(axes.xaxis)
    axes.set_xlim(least, 1)
    axes.set_ylim(0, 1.02)
    legend_beside(axes)
    return figure


def det_figure(models: Mapping[str, DrawnRoc]) -> Figure:
    """False non-match rate against false match rate, both as normal deviates (DET; Martin et al., Eurospeech 1997)."""
    figure, axes = new_figure("DET of verification", "false match rate", "false non-match rate", legend=True)
    least_x = 0.5 / max(drawn.pair_scores.impostor_count for drawn in models.values())
    least_y = 0.5 / max(len(drawn.pair_scores.genuine_levels) for drawn in models.values())

    def deviates(rates: ArrayLike, least: float) -> np.ndarray:
        return norm.ppf(np.clip(rates, least, 1 - least))

    for (name, drawn), colour in zip(models.items(), COLOURS):
        fmr, fnmr = deviates(drawn.curve.fmr, least_x), deviates(1 - drawn.curve.tmr, least_y)
        axes.plot(fmr, fnmr, drawstyle="steps-post", color=colour, label=_label(name))
    for drawn, colour in zip(models.values(), COLOURS):
        if band := drawn.band:
            low, high = deviates(1 - band.high, least_y), deviates(1 - band.low, least_y)
            _plot_band(axes, deviates(band.fmr, least_x), low, high, colour)
        shown = [point for point in drawn.points if point.false_non_matches]
        _plot_operating_points(
            axes, norm.ppf([point.target_fmr for point in shown]), norm.ppf([point.fnmr for point in shown]), shown, colour
        )
    ticks = np.array([1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95])
    for axis, least in ((axes.xaxis, least_x), (axes.yaxis, least_y)):
        shown_ticks = ticks[ticks >= least]
        axis.set_ticks(norm.ppf(shown_ticks), [f"{tick:g}" for tick in shown_ticks])
    # The margin shows a curve without errors, which follows the lowest rates.
    axes.set_xlim(norm.ppf(least_x) - _DET_MARGIN, norm.ppf(0.9))
    axes.set_ylim(norm.ppf(least_y) - _DET_MARGIN, norm.ppf(0.9))
    legend_beside(axes)
    return figure


def score_figure(drawn: DrawnRoc, name: str = "") -> Figure:
    """Distributions of genuine and impostor scores, and the thresholds of the operating points."""
    pair_scores = drawn.pair_scores
    figure, axes = new_figure(
        f"Scores of {shorten(name)}" if name else "Scores", pair_scores.scale.measure, "density", legend=True
    )
    impostor, genuine = (pair_scores.scale.scores(levels) for levels in (pair_scores.impostor_levels, pair_scores.genuine_levels))
    edges = np.linspace(min(impostor.min(), genuine.min()), max(impostor.max(), genuine.max()), 61)
    for kind, scores, weights, count, colour in (
        ("impostor", impostor, pair_scores.impostor_counts, pair_scores.impostor_count, COLOURS[1]),
        ("genuine", genuine, None, len(genuine), COLOURS[0]),
    ):
        label = f"{kind} ({count} pairs)"
        axes.hist(scores, bins=edges.tolist(), weights=weights, density=True, alpha=0.6, label=label, color=colour)
    for point, style in zip(drawn.points, ("-", "--", ":", "-.", (0, (1, 4)), (0, (6, 4)))):
        threshold = float(pair_scores.scale.scores(np.array(point.threshold)))
        low = "\n(low support)" if point.low_support else ""
        label = f"FMR {point.target_fmr:g}: {threshold:.3f}{low}"
        axes.axvline(threshold, color="black", linewidth=1, linestyle=style, label=label)
    legend_beside(axes)
    return figure


def _plot_band(axes: Axes, x: ArrayLike, low: ArrayLike, high: ArrayLike, colour: str) -> None:
    label = _new_label(axes, "95 % interval")
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0, label=label)


def _plot_operating_points(axes: Axes, x: ArrayLike, y: ArrayLike, points: Sequence[OperatingPoint], colour: str) -> None:
    """Points with support filled, points of low support hollow."""
    for low_support, label in ((False, "operating point"), (True, "low support")):
        chosen = np.array([bool(point.low_support) == low_support for point in points], dtype=bool)
        if chosen.any():
            face = "none" if low_support else colour
            label = _new_label(axes, label)
            axes.scatter(np.asarray(x)[chosen], np.asarray(y)[chosen], c=face, edgecolors=colour, zorder=3, label=label)


def _new_label(axes: Axes, label: str) -> str:
    """The label, or `_` (not in the legend) if a collection of another model has it."""
    return "_" if label in [collection.get_label() for collection in axes.collections] else label


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
