"""Calibration: of the sessions that are given 80 %, are 80 % so?

Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017; Naeini, Cooper and Hauskrecht,
"Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015.
"""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from fr_ps.evaluation.bootstrap import BootstrapWeights
from fr_ps.evaluation.weighted_metrics import unweighted
from fr_ps.report.figures import empty_figure

BINS = 10
_EDGES = np.linspace(0, 1, BINS + 1)


@dataclass(frozen=True)
class ReliabilityDiagram:
    """A reliability diagram in `BINS` bins of equal width, each with its upper edge, the first one with both.

    Attributes:
        counts: (bins,) sessions in each.
        confidence: (bins,) mean probability of these; NaN of none.
        frequency: (bins,) share of these of which it was true; NaN of none.
        error: the expected calibration error, 0 to 1.
    """

    counts: np.ndarray
    confidence: np.ndarray
    frequency: np.ndarray
    error: float


def reliability_diagram(confidence: np.ndarray, correct: np.ndarray) -> ReliabilityDiagram:
    """The reliability diagram of probabilities.

    Args:
        confidence: (n,) probability, 0 to 1, of a statement about each session, that it is of the positive class, or of the
            predicted one; n is 1 or more.
        correct: (n,) bool, whether the statement is true.
    """
    counts, sums, hits = (
        _one_hot_bins(confidence, values).sum(axis=0) for values in (np.ones(len(correct)), confidence, correct)
    )
    with np.errstate(invalid="ignore"):
        means = sums / counts, hits / counts
    return ReliabilityDiagram(
        counts.astype(int), *means, float(expected_calibration_error(confidence, correct, unweighted(len(correct)))[0])
    )


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bootstrap: BootstrapWeights) -> np.ndarray:
    """(B,) expected calibration error in each draw; NaN where none of the sessions was drawn.

    It is the sum over the bins of share of the sessions x |mean confidence - observed frequency|. Chance alone makes it
    more than 0: of few sessions that of a perfectly calibrated model is well above, and that of a draw tends to be above
    that of the sessions that were drawn from, so that a percentile interval of a small one may lie above its value.

    Args:
        confidence: as for `reliability`.
        correct: as for `reliability`.
        draws: of these n sessions.
    """
    gaps = np.abs(bootstrap.weighted_sums(_one_hot_bins(confidence, confidence - correct)))
    with np.errstate(invalid="ignore"):
        return gaps.sum(axis=1) / bootstrap.weighted_sums(np.ones(len(correct)))


def reliability_figure(diagram: ReliabilityDiagram, title: str, probability: str, frequency: str) -> Figure:
    """Observed frequency against mean probability, and below it how many sessions are in each bin.

    Args:
        found: what is drawn.
        title: of the picture; the expected calibration error (ECE) is put after it.
        probability: what the horizontal axis is called.
        frequency: what the vertical axis is called.
    """
    figure = empty_figure(5.5, 4.8)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    figure.subplots_adjust(left=0.13, right=0.97, bottom=0.1, top=0.93, hspace=0.07)
    above.set_title(f"{title} (ECE {diagram.error:.3f})")
    above.plot([0, 1], [0, 1], color="grey", linestyle="--", label="calibrated")
    there = diagram.counts > 0
    above.plot(diagram.confidence[there], diagram.frequency[there], marker="o", label="observed")
    above.set_ylabel(frequency)
    above.set_xlim(0, 1)
    above.set_ylim(-0.03, 1.03)
    above.legend(loc="best")
    bars = below.bar((_EDGES[:-1] + _EDGES[1:]) / 2, diagram.counts, width=0.9 / BINS, color="grey")
    below.bar_label(bars, fontsize=7)
    below.margins(y=0.25)
    below.set_xlabel(probability)
    below.set_ylabel("sessions")
    below.set_xticks(_EDGES)
    for axes in (above, below):
        axes.grid(alpha=0.3)
    return figure


def _one_hot_bins(confidence: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(n, bins) the values, each in the column of its confidence; 0 elsewhere."""
    return np.eye(BINS)[np.digitize(confidence, _EDGES[1:-1], right=True)] * values[:, None]
