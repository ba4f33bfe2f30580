"""Calibration: expected calibration error and reliability diagram.

Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017; Naeini, Cooper and Hauskrecht,
"Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015.
"""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from fr_ps.evaluation.bootstrap import BootstrapWeights, unweighted
from fr_ps.report.figures import COLOURS, empty_figure, legend_beside

BINS = 10
_EDGES = np.linspace(0, 1, BINS + 1)


@dataclass(frozen=True)
class ReliabilityDiagram:
    """A reliability diagram in `BINS` bins of equal width; a bin includes its upper edge, and the first bin also 0.

    Attributes:
        counts: (bins,) sessions per bin.
        confidence: (bins,) mean probability; NaN in an empty bin.
        frequency: (bins,) share of correct sessions; NaN in an empty bin.
        error: expected calibration error, 0 to 1.
    """

    counts: np.ndarray
    confidence: np.ndarray
    frequency: np.ndarray
    error: float


def reliability_diagram(confidence: np.ndarray, correct: np.ndarray) -> ReliabilityDiagram:
    """The reliability diagram of probabilities.

    Args:
        confidence: (n,) probability of the positive or the predicted class, 0 to 1; n is 1 or more.
        correct: (n,) bool, whether the session has that class.
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
    """(B,) expected calibration error in each replicate; NaN where no session was drawn.

    The sum over the bins of share of the sessions x |mean confidence - observed frequency|. It is biased upwards: with few
    sessions it is well above 0 for a calibrated model, and a replicate tends to be above the original value.

    Args:
        confidence: see `reliability_diagram`.
        correct: see `reliability_diagram`.
        bootstrap: replicates of these n sessions.
    """
    gaps = np.abs(bootstrap.weighted_sums(_one_hot_bins(confidence, confidence - correct)))
    with np.errstate(invalid="ignore"):
        return gaps.sum(axis=1) / bootstrap.weighted_sums(np.ones(len(correct)))


def reliability_figure(diagram: ReliabilityDiagram, title: str, probability: str, frequency: str) -> Figure:
    """Observed frequency against mean probability, and below it the number of sessions per bin.

    Args:
        diagram: reliability diagram.
        title: figure title; the expected calibration error (ECE) is appended.
        probability: label of the horizontal axis.
        frequency: label of the vertical axis.
    """
    figure = empty_figure(6.6, 4.2)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    figure.subplots_adjust(left=0.11, right=0.78, bottom=0.12, top=0.92, hspace=0.07)
    above.set_title(f"{title} (ECE {diagram.error:.3f})")
    above.plot([0, 1], [0, 1], color="grey", linestyle="--", label="calibrated")
    occupied = diagram.counts > 0
    above.plot(diagram.confidence[occupied], diagram.frequency[occupied], marker="o", color=COLOURS[0], label="observed")
    above.set_ylabel(frequency)
    above.set_xlim(0, 1)
    above.set_ylim(-0.03, 1.03)
    legend_beside(above)
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
    """(n, bins) the values, each in the column of the bin of its confidence; 0 elsewhere."""
    return np.eye(BINS)[np.digitize(confidence, _EDGES[1:-1], right=True)] * values[:, None]
