"""What verification comes to in each draw of people, from the weight of the pairs between some thresholds.

With few different scores every one is a threshold, and all is exact; with more, some hundred are, dense where rates are read
off, and what that changes is measured on the undrawn people and taken out.
"""

from dataclasses import dataclass

import numpy as np

from fr_ps.evaluation.bootstrap import BootstrapWeights
from fr_ps.evaluation.metrics import Metrics
from fr_ps.evaluation.pairwise.pairs import AllPairs, ListedPairs, PairScores
from fr_ps.evaluation.pairwise.roc import OperatingPoint, compute_roc, equal_error_rates, operating_points, subject_weights

MAX_EXACT_THRESHOLDS = 500
"""So many different scores are all thresholds."""
_TAIL, _QUANTILES = 128, 96


@dataclass(frozen=True)
class BootstrapRates:
    """Of B draws at t falling thresholds; NaN where a draw has no such pair.

    Attributes:
        keys: (t,).
        fmr: (B, t).
        tmr: (B, t).
        tmr_balanced: (B, t), every person's genuine pairs weighing the same together.
        whole: whether these are all thresholds that change something; else the curve goes on between them.
    """

    thresholds: np.ndarray
    fmr: np.ndarray
    tmr: np.ndarray
    tmr_balanced: np.ndarray
    exact: bool

    def at_threshold(self, threshold: int) -> tuple[np.ndarray, np.ndarray]:
        """(B,) FMR and FNMR at a threshold that is one of `keys`."""
        (place,) = np.flatnonzero(self.thresholds == threshold)
        return self.fmr[:, place], 1 - self.tmr[:, place]


def bootstrap_rates(
    pairs: AllPairs | ListedPairs, pair_scores: PairScores, extra_thresholds: list[int]
) -> tuple[BootstrapRates, BootstrapRates]:
    """The rates of all draws, and those of nobody drawn twice or left out (B = 1), at the same thresholds.

    Args:
        pairs: with draws.
        comparisons: of them.
        also: keys that have to be among the thresholds.
    """
    assert pairs.bootstrap is not None
    nodes, whole = _threshold_grid(pair_scores, extra_thresholds)
    impostor = pairs.impostor_weights(nodes)
    counts = np.bincount(
        np.searchsorted(nodes, pair_scores.impostor_levels, side="right"), pair_scores.impostor_counts, minlength=len(nodes) + 1
    )
    drawn = _rates_from_weights(nodes, whole, impostor, *_genuine_weights(pair_scores, nodes, pairs.bootstrap))
    undrawn = BootstrapWeights(
        pairs.bootstrap.unit, np.ones((1, pairs.bootstrap.weights.shape[1]), np.float32), pairs.bootstrap.subjects
    )
    return drawn, _rates_from_weights(nodes, whole, counts[None], *_genuine_weights(pair_scores, nodes, undrawn))


def add_bootstrap_intervals(
    metrics: Metrics, pair_scores: PairScores, resampled: BootstrapRates, reference: BootstrapRates
) -> Metrics:
    """`verification`'s metrics with what they are in each draw."""
    people = len(np.unique(pair_scores.subject[pair_scores.genuine_first]))
    found = metrics.merge(Metrics())

    def add(name: str, of: np.ndarray, coarse: np.ndarray) -> None:
        value = metrics.values[name]
        if value is not None:
            shifted = np.clip(of + (value - coarse), 0, 1)
            found.add(name, value, metrics.reasons.get(name, ""), shifted, people)

    add("auc", _aucs(resampled.fmr, resampled.tmr), _aucs(reference.fmr, reference.tmr))
    add("auc_person_balanced", *(_aucs(rates.fmr, rates.tmr_balanced) for rates in (resampled, reference)))
    add("eer", *(equal_error_rates(rates.fmr, rates.tmr) for rates in (resampled, reference)))
    for point in operating_points(pair_scores, compute_roc(pair_scores)):
        add(f"tar_at_far_{point.target_fmr:g}", *(_tmr_at(rates, point.target_fmr) for rates in (resampled, reference)))
    return found


def add_fixed_threshold_rates(
    metrics: Metrics, names: tuple[str, str], point: OperatingPoint, reason: str, resampled: BootstrapRates
) -> None:
    """FMR and FNMR at a threshold that was chosen elsewhere, under two names."""
    for name, value, replicates in zip(names, (point.fmr, point.fnmr), resampled.at_threshold(point.threshold)):
        metrics.add(name, value, reason, replicates, point.subjects)


def _threshold_grid(pair_scores: PairScores, extra_thresholds: list[int]) -> tuple[np.ndarray, bool]:
    """Growing keys to look at, and whether they are all that there are."""
    keys, counts, genuine = pair_scores.impostor_levels, pair_scores.impostor_counts, pair_scores.genuine_levels
    distinct = np.union1d(keys, genuine)
    whole = len(distinct) <= MAX_EXACT_THRESHOLDS
    if not whole:
        above = np.cumsum(counts[::-1])[::-1]  # impostor pairs from each key on
        wanted = np.geomspace(1, above[0], _TAIL)
        tail = keys[len(keys) - np.searchsorted(above[::-1], wanted, side="left") - 1]
        quantiles = np.quantile(genuine, np.linspace(0, 1, _QUANTILES), method="nearest")
        distinct = np.union1d(tail, quantiles.astype(np.int64))
    curve = compute_roc(pair_scores)
    own = [point.threshold for point in operating_points(pair_scores, curve)]
    return np.union1d(distinct, np.array([*own, *extra_thresholds], dtype=np.int64)), whole


def _genuine_weights(
    pair_scores: PairScores, thresholds: np.ndarray, bootstrap: BootstrapWeights
) -> tuple[np.ndarray, np.ndarray]:
    """(B, K + 1) the weight of the genuine pairs below, between or above the nodes, and the same person-balanced."""
    place = np.searchsorted(thresholds, pair_scores.genuine_levels, side="right")
    unit, shape = bootstrap.unit[pair_scores.genuine_first], (bootstrap.weights.shape[1], len(thresholds) + 1)
    found = []
    for weight in (None, subject_weights(pair_scores)):
        table = np.bincount(unit * shape[1] + place, weight, minlength=shape[0] * shape[1]).reshape(shape)
        found.append(bootstrap.weights.astype(np.float64) @ table)
    return found[0], found[1]


def _rates_from_weights(
    thresholds: np.ndarray, exact: bool, impostor: np.ndarray, genuine: np.ndarray, balanced: np.ndarray
) -> BootstrapRates:
    """From weights in K + 1 bins to rates at thresholds above all, at each node, and below all."""

    def share(weights: np.ndarray) -> np.ndarray:
        above = np.cumsum(weights[:, ::-1], axis=1)
        with np.errstate(invalid="ignore"):
            return np.concatenate([np.zeros((len(weights), 1)), above], axis=1) / above[:, -1:]

    keys = np.concatenate([[-1], thresholds, [np.iinfo(np.int64).max]])[::-1]
    return BootstrapRates(keys, share(impostor), share(genuine), share(balanced), exact)


def _aucs(fmr: np.ndarray, tmr: np.ndarray) -> np.ndarray:
    return np.trapezoid(tmr, fmr, axis=1)


def _tmr_at(rates: BootstrapRates, fmr: float) -> np.ndarray:
    place = np.clip((rates.fmr <= fmr).sum(axis=1) - 1, 0, rates.fmr.shape[1] - 2)[:, None]
    (fmr_0, fmr_1), (tmr_0, tmr_1) = (
        [np.take_along_axis(of, at, axis=1)[:, 0] for at in (place, place + 1)] for of in (rates.fmr, rates.tmr)
    )
    if rates.exact:
        return tmr_0 + np.where(np.isnan(fmr_0), np.nan, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return tmr_0 + np.nan_to_num((fmr - fmr_0) / (fmr_1 - fmr_0)) * (tmr_1 - tmr_0)
