"""Verification metrics, and their bootstrap replicates over subjects.

The replicates come from the weight of the pairs between a few thresholds. With few distinct scores each is a threshold, and the
rates are exact. With more, some hundred thresholds are used, dense where rates are read off, and the error of this grid, measured
on the unweighted subjects, is subtracted.
"""

from dataclasses import dataclass

import numpy as np

from fr_ps.evaluation.bootstrap import BootstrapWeights, confidence_interval
from fr_ps.evaluation.metrics import Metrics
from fr_ps.evaluation.pairwise.pairs import AllPairs, ListedPairs, PairScores
from fr_ps.evaluation.pairwise.roc import (
    OperatingPoint,
    compute_roc,
    d_prime,
    equal_error_rate,
    equal_error_rates,
    operating_point_at,
    operating_points,
    roc_auc,
    subject_weights,
    tmr_at,
)
from fr_ps.models.thresholds import Thresholds, ValidationThreshold

METRIC_NAMES = ("auc", "auc_person_balanced", "eer", "dprime")
MAX_EXACT_THRESHOLDS = 500
"""Up to this many distinct scores, each is a threshold of the replicates."""
_TAIL_THRESHOLDS, _QUANTILE_THRESHOLDS = 128, 96
"""With more, thresholds at the highest impostor scores and at quantiles of the genuine scores."""
_BAND_POINTS = 60


def verification_metrics(pair_scores: PairScores) -> Metrics:
    """AUC, subject-balanced AUC, EER, d', and the true match rate at each FMR of `FMR_POINTS`.

    The subject-balanced AUC gives all subjects the same total weight of genuine pairs. A point with fewer than one expected false
    match (FMR x impostor pairs) is left out; one with fewer than 30 is marked low support.
    """
    metrics = Metrics()
    if pair_scores.undefined_reason:
        for name in METRIC_NAMES:
            metrics.add(name, None, pair_scores.undefined_reason)
        return metrics
    curve = compute_roc(pair_scores)
    metrics.add("auc", roc_auc(curve))
    metrics.add("auc_person_balanced", roc_auc(compute_roc(pair_scores, subject_weights(pair_scores))))
    metrics.add("eer", equal_error_rate(curve.fmr, curve.tmr))
    separation = d_prime(pair_scores)
    metrics.add("dprime", separation, "" if separation is not None else "genuine and impostor scores have no variance")
    for point in operating_points(pair_scores, curve):
        metrics.add(f"tar_at_far_{point.target_fmr:g}", 1 - point.fnmr, point.low_support)
    return metrics


@dataclass(frozen=True)
class RocBand:
    """Pointwise 95 % bootstrap confidence intervals of a ROC curve.

    Attributes:
        fmr: (g,) growing, from one impostor pair to 1.
        low: (g,) lower bounds of the TMR; NaN without an interval, and where every genuine pair is accepted.
        high: (g,) upper bounds.
    """

    fmr: np.ndarray
    low: np.ndarray
    high: np.ndarray


def verification_with_intervals(pairs: AllPairs | ListedPairs, thresholds: Thresholds | None) -> tuple[PairScores, Metrics]:
    """The pair scores, and `verification_metrics` with confidence intervals.

    With thresholds from validation, also the error rates at these: `fmr_at_val_far_0.01` and `fnmr_at_val_far_0.01`.

    Args:
        pairs: pairs with bootstrap replicates.
        thresholds: thresholds of the model.
    """
    pair_scores, metrics, _ = _verify(pairs, thresholds)
    return pair_scores, metrics


def verification_with_band(
    pairs: AllPairs | ListedPairs, thresholds: Thresholds | None
) -> tuple[PairScores, Metrics, RocBand | None]:
    """`verification_with_intervals`, and the intervals of the ROC curve; None where verification is undefined."""
    pair_scores, metrics, rates = _verify(pairs, thresholds)
    return pair_scores, metrics, roc_band(pair_scores, *rates) if rates else None


def roc_band(pair_scores: PairScores, resampled: "BootstrapRates", reference: "BootstrapRates") -> RocBand:
    """The intervals of the TMR at FMRs from one impostor pair to 1, computed as those of `tar_at_far_...`.

    Args:
        pair_scores: scores of the pairs.
        resampled: rates of all replicates.
        reference: rates with every subject once.
    """
    curve, subjects = compute_roc(pair_scores), _mated_subjects(pair_scores)
    rates = np.geomspace(1 / pair_scores.impostor_count, 1, _BAND_POINTS)
    bounds = []
    for fmr in rates:
        value = tmr_at(curve, fmr)
        replicates = np.clip(_tmr_at(resampled, fmr) + (value - _tmr_at(reference, fmr)), 0, 1)
        # Where no genuine pair is rejected, the interval depends on the number of subjects alone, and not on the FMR.
        bounds.append((value < 1 and confidence_interval(value, replicates, subjects)) or (np.nan, np.nan))
    low, high = np.transpose(bounds)
    return RocBand(rates, low, high)


def _verify(
    pairs: AllPairs | ListedPairs, thresholds: Thresholds | None
) -> tuple[PairScores, Metrics, "tuple[BootstrapRates, BootstrapRates] | None"]:
    """Pair scores, metrics, and the rates of all replicates and those with every subject once."""
    pair_scores = pairs.score()
    metrics = verification_metrics(pair_scores)
    if pair_scores.undefined_reason:
        return pair_scores, metrics, None
    at_validation = at_validation_thresholds(pair_scores, thresholds)
    replicates, reference = bootstrap_rates(pairs, pair_scores, [point.threshold for _, point in at_validation])
    metrics = add_bootstrap_intervals(metrics, pair_scores, replicates, reference)
    for calibrated, point in at_validation:
        reason = f"on validation, {calibrated.support}" if calibrated.support else point.low_support
        names = (f"fmr_at_val_far_{calibrated.fmr:g}", f"fnmr_at_val_far_{calibrated.fmr:g}")
        for name, value, drawn in zip(names, (point.fmr, point.fnmr), replicates.at_threshold(point.threshold)):
            metrics.add(name, value, reason, drawn, point.subjects)
    return pair_scores, metrics, (replicates, reference)


def at_validation_thresholds(
    pair_scores: PairScores, thresholds: Thresholds | None
) -> list[tuple[ValidationThreshold, OperatingPoint]]:
    """The thresholds from validation with their operating points on these pairs; empty if the scores are not cosines."""
    if thresholds is None or pair_scores.scale.measure != "cosine":
        return []
    return [
        (calibrated, operating_point_at(pair_scores, pair_scores.scale.threshold_level(calibrated.threshold), calibrated.fmr))
        for calibrated in thresholds.identity
    ]


@dataclass(frozen=True)
class BootstrapRates:
    """Error rates of B replicates at t falling thresholds; NaN where a replicate has no such pair.

    Attributes:
        thresholds: (t,) levels.
        fmr: (B, t).
        tmr: (B, t).
        tmr_balanced: (B, t), all subjects with the same total weight of genuine pairs.
        exact: whether the rates change at these thresholds only; if not, the curve is interpolated between them.
    """

    thresholds: np.ndarray
    fmr: np.ndarray
    tmr: np.ndarray
    tmr_balanced: np.ndarray
    exact: bool

    def at_threshold(self, threshold: int) -> tuple[np.ndarray, np.ndarray]:
        """(B,) FMR and (B,) FNMR at one of `thresholds`."""
        (column,) = np.flatnonzero(self.thresholds == threshold)
        return self.fmr[:, column], 1 - self.tmr[:, column]


def bootstrap_rates(
    pairs: AllPairs | ListedPairs, pair_scores: PairScores, extra_thresholds: list[int]
) -> tuple[BootstrapRates, BootstrapRates]:
    """Rates of all replicates, and those with every subject once (B = 1), at the same thresholds.

    Args:
        pairs: pairs with bootstrap replicates.
        pair_scores: scores of these pairs.
        extra_thresholds: levels that must be among the thresholds.
    """
    assert pairs.bootstrap is not None
    thresholds, exact = _threshold_grid(pair_scores, extra_thresholds)
    impostor = pairs.impostor_weights(thresholds)
    bins = np.searchsorted(thresholds, pair_scores.impostor_levels, side="right")
    counts = np.bincount(bins, pair_scores.impostor_counts, minlength=len(thresholds) + 1)
    every_once = np.ones((1, pairs.bootstrap.weights.shape[1]), np.float32)
    reference = BootstrapWeights(pairs.bootstrap.unit, every_once, pairs.bootstrap.subjects)
    return (
        _rates_from_weights(thresholds, exact, impostor, *_genuine_weights(pair_scores, thresholds, pairs.bootstrap)),
        _rates_from_weights(thresholds, exact, counts[None], *_genuine_weights(pair_scores, thresholds, reference)),
    )


def add_bootstrap_intervals(
    metrics: Metrics, pair_scores: PairScores, resampled: BootstrapRates, reference: BootstrapRates
) -> Metrics:
    """A copy of `verification_metrics` with replicates and confidence intervals.

    Args:
        metrics: from `verification_metrics`.
        pair_scores: scores of the same pairs.
        resampled: rates of all replicates.
        reference: rates with every subject once; its difference to `metrics` is the error of the threshold grid.
    """
    subjects = _mated_subjects(pair_scores)
    result = metrics.merge()

    def add(name: str, replicates: np.ndarray, on_grid: np.ndarray) -> None:
        value = metrics.values[name]
        if value is not None:
            shifted = np.clip(replicates + (value - on_grid), 0, 1)
            result.add(name, value, metrics.reasons.get(name, ""), shifted, subjects)

    add("auc", _aucs(resampled.fmr, resampled.tmr), _aucs(reference.fmr, reference.tmr))
    add("auc_person_balanced", *(_aucs(rates.fmr, rates.tmr_balanced) for rates in (resampled, reference)))
    add("eer", *(equal_error_rates(rates.fmr, rates.tmr) for rates in (resampled, reference)))
    for point in operating_points(pair_scores, compute_roc(pair_scores)):
        add(f"tar_at_far_{point.target_fmr:g}", *(_tmr_at(rates, point.target_fmr) for rates in (resampled, reference)))
    return result


def _mated_subjects(pair_scores: PairScores) -> int:
    return len(np.unique(pair_scores.subject[pair_scores.genuine_first]))


def _threshold_grid(pair_scores: PairScores, extra_thresholds: list[int]) -> tuple[np.ndarray, bool]:
    """Ascending thresholds, and whether every distinct score is one of them."""
    levels, counts, genuine = pair_scores.impostor_levels, pair_scores.impostor_counts, pair_scores.genuine_levels
    distinct = np.union1d(levels, genuine)
    exact = len(distinct) <= MAX_EXACT_THRESHOLDS
    if not exact:
        above = np.cumsum(counts[::-1])[::-1]  # impostor pairs at or above each level
        target_counts = np.geomspace(1, above[0], _TAIL_THRESHOLDS)
        tail = levels[len(levels) - np.searchsorted(above[::-1], target_counts, side="left") - 1]
        quantiles = np.quantile(genuine, np.linspace(0, 1, _QUANTILE_THRESHOLDS), method="nearest")
        distinct = np.union1d(tail, quantiles.astype(np.int64))
    fmr_thresholds = [point.threshold for point in operating_points(pair_scores, compute_roc(pair_scores))]
    return np.union1d(distinct, np.array([*fmr_thresholds, *extra_thresholds], dtype=np.int64)), exact


def _genuine_weights(
    pair_scores: PairScores, thresholds: np.ndarray, bootstrap: BootstrapWeights
) -> tuple[np.ndarray, np.ndarray]:
    """(B, K + 1) weight of the genuine pairs below, between and above K thresholds, and the same subject-balanced."""
    bin_of = np.searchsorted(thresholds, pair_scores.genuine_levels, side="right")
    unit, shape = bootstrap.unit[pair_scores.genuine_first], (bootstrap.weights.shape[1], len(thresholds) + 1)
    weighted = []
    for pair_weights in (None, subject_weights(pair_scores)):
        table = np.bincount(unit * shape[1] + bin_of, pair_weights, minlength=shape[0] * shape[1]).reshape(shape)
        weighted.append(bootstrap.weights.astype(np.float64) @ table)
    return weighted[0], weighted[1]


def _rates_from_weights(
    thresholds: np.ndarray, exact: bool, impostor: np.ndarray, genuine: np.ndarray, balanced: np.ndarray
) -> BootstrapRates:
    """The rates above all thresholds, at each one, and below all, from (B, K + 1) weights."""

    def share(weights: np.ndarray) -> np.ndarray:
        above = np.cumsum(weights[:, ::-1], axis=1)
        with np.errstate(invalid="ignore"):
            return np.concatenate([np.zeros((len(weights), 1)), above], axis=1) / above[:, -1:]

    levels = np.concatenate([[-1], thresholds, [np.iinfo(np.int64).max]])[::-1]
    return BootstrapRates(levels, share(impostor), share(genuine), share(balanced), exact)


def _aucs(fmr: np.ndarray, tmr: np.ndarray) -> np.ndarray:
    return np.trapezoid(tmr, fmr, axis=1)


def _tmr_at(rates: BootstrapRates, fmr: float) -> np.ndarray:
    """(B,) TMR at an FMR: of the last threshold if the rates are exact, else interpolated between two thresholds."""
    column = np.clip((rates.fmr <= fmr).sum(axis=1) - 1, 0, rates.fmr.shape[1] - 2)[:, None]
    (fmr_0, fmr_1), (tmr_0, tmr_1) = (
        [np.take_along_axis(values, index, axis=1)[:, 0] for index in (column, column + 1)] for values in (rates.fmr, rates.tmr)
    )
    if rates.exact:
        return tmr_0 + np.where(np.isnan(fmr_0), np.nan, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return tmr_0 + np.nan_to_num((fmr - fmr_0) / (fmr_1 - fmr_0)) * (tmr_1 - tmr_0)
