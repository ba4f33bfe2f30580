"""Classification metrics of weighted sessions, for all draws of people at once."""

from collections.abc import Iterator

import numpy as np

from fr_ps.evaluation.bootstrap import BootstrapWeights

_MAX_CELLS = 2**20
"""Draws x sessions that are held at once: some 60 MB with all that is derived from them."""


def unweighted(sessions: int) -> BootstrapWeights:
    """The one draw in which each of so many sessions counts once: what is without weights."""
    return BootstrapWeights(np.zeros(sessions, dtype=np.intp), np.ones((1, 1), dtype=np.float32), sessions)


def auc_and_average_precision(
    score: np.ndarray, positive: np.ndarray, bootstrap: BootstrapWeights
) -> tuple[np.ndarray, np.ndarray]:
    """(B,) area under the ROC curve and (B,) average precision in each draw; NaN where it has one class only.

    The area is the weight of the pairs of a positive and a negative session that the score orders rightly, a tie being one
    half, by the weight of all such pairs. The average precision is the sum of (R_n - R_n-1) P_n over the distinct scores as
    thresholds, R being recall and P precision, without interpolation (as scikit-learn has it).

    Args:
        score: (n,) finite.
        positive: (n,) bool.
        draws: of these n sessions; n is 1 or more.
    """
    areas, precisions = [], []
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN of a draw with one class only
        for hits, false in _cumulative_weights(score, positive, bootstrap):
            all_hits, all_false = hits[:, -1], false[:, -1]
            areas.append(np.trapezoid(hits, false, axis=1) / (all_hits * all_false))
            gained = np.diff(hits, axis=1)
            accepted = hits[:, 1:] + false[:, 1:]
            precision = hits[:, 1:] / np.where(accepted > 0, accepted, 1)  # nothing is gained where nobody is accepted
            found = (gained * precision).sum(axis=1) / all_hits
            precisions.append(np.where(all_false > 0, found, np.nan))
    return np.concatenate(areas), np.concatenate(precisions)


def balanced_accuracy(codes: np.ndarray, predicted: np.ndarray, classes: int, bootstrap: BootstrapWeights) -> np.ndarray:
    """(B,) balanced accuracy, the mean of the classes' recalls, in each draw; NaN where a class is missing.

    Args:
        codes: (n,) true classes.
        chosen: (n,) predicted classes.
        classes: how many there are.
        draws: of these n sessions.
    """
    true = np.eye(classes)[codes]
    with np.errstate(invalid="ignore"):
        recalls = bootstrap.weighted_sums(true * (predicted == codes)[:, None]) / bootstrap.weighted_sums(true)
    return recalls.mean(axis=1)


def _cumulative_weights(
    score: np.ndarray, positive: np.ndarray, bootstrap: BootstrapWeights
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Some draws at a time, the weight of the positive and of the negative sessions (draws, thresholds + 1) with at least a
    score, the highest one first, after a column of zeros."""
    order = np.argsort(-score, kind="stable")
    last_of_a_tie = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    unit, positive = bootstrap.unit[order], positive[order]
    some = max(1, _MAX_CELLS // len(score))
    for start in range(0, len(bootstrap.weights), some):
        weights = bootstrap.weights[start : start + some, unit]
        hits = _cumulative_sums(weights * positive, last_of_a_tie)
        yield hits, _cumulative_sums(weights, last_of_a_tie) - hits


def _cumulative_sums(weights: np.ndarray, ends: np.ndarray) -> np.ndarray:
    return np.pad(weights.cumsum(axis=1, dtype=np.float64)[:, ends], ((0, 0), (1, 0)))
