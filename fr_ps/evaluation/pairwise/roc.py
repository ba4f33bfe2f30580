"""ROC curve of pair scores, operating points, AUC, EER and d'.

A pair is accepted if its score is at least the threshold. Terms of ISO/IEC 19795-1: the false match rate (FMR) is the share of
impostor pairs that are accepted, the false non-match rate (FNMR) the share of genuine pairs that are rejected.
"""

from dataclasses import dataclass

import numpy as np

from fr_ps.evaluation.metrics import LOW_SUPPORT, LOW_SUPPORT_REASON
from fr_ps.evaluation.pairwise.pairs import PairScores
from fr_ps.evaluation.pairwise.similarity import LEVELS

FMR_POINTS = (0.1, 0.01, 0.001, 0.0001, 0.00001, 0.000001)


@dataclass(frozen=True)
class RocCurve:
    """Rates at every threshold where they change, from above the highest score down.

    Attributes:
        thresholds: (t,) levels, falling.
        fmr: (t,) growing from 0 to 1.
        tmr: (t,) 1 - FNMR, growing from 0 to 1.
    """

    thresholds: np.ndarray
    fmr: np.ndarray
    tmr: np.ndarray


@dataclass(frozen=True)
class OperatingPoint:
    """Errors at a threshold.

    Attributes:
        target_fmr: target FMR.
        threshold: level; the lowest with at most the target FMR.
        false_matches: impostor pairs accepted.
        impostor_pairs: number of impostor pairs.
        false_non_matches: genuine pairs rejected.
        genuine_pairs: number of genuine pairs.
        subjects: subjects with a genuine pair.
        subjects_rejected: subjects with a false non-match.
    """

    target_fmr: float
    threshold: int
    false_matches: int
    impostor_pairs: int
    false_non_matches: int
    genuine_pairs: int
    subjects: int
    subjects_rejected: int

    @property
    def fmr(self) -> float:
        """False match rate."""
        return self.false_matches / self.impostor_pairs

    @property
    def fnmr(self) -> float:
        """False non-match rate."""
        return self.false_non_matches / self.genuine_pairs

    @property
    def low_support(self) -> str:
        """Reason if fewer than `LOW_SUPPORT` false matches are expected; empty otherwise."""
        expected = self.target_fmr * self.impostor_pairs
        if expected >= LOW_SUPPORT:
            return ""
        return f"{LOW_SUPPORT_REASON}: {expected:.1f} expected false matches of {self.impostor_pairs} impostor pairs"


def compute_roc(pair_scores: PairScores, weights: np.ndarray | None = None) -> RocCurve:
    """The ROC curve; `weights` are those of the (m,) genuine pairs, None: 1 each."""
    impostor = np.zeros(LEVELS, dtype=np.int64)
    impostor[pair_scores.impostor_levels] = pair_scores.impostor_counts
    genuine = np.bincount(pair_scores.genuine_levels, weights, minlength=LEVELS)
    levels = np.flatnonzero((impostor > 0) | (genuine > 0))
    impostor, genuine = impostor[levels], genuine[levels]
    above = (np.concatenate([[0], np.cumsum(counts[::-1])]) for counts in (impostor, genuine))
    fmr, tmr = (counts / counts[-1] for counts in above)
    return RocCurve(np.append(levels, levels[-1] + 1)[::-1], fmr, tmr)


def roc_auc(curve: RocCurve) -> float:
    """Area under the curve: the probability that a genuine pair scores above an impostor pair, ties counting half."""
    return float(np.clip(np.trapezoid(curve.tmr, curve.fmr), 0, 1))


def tmr_at(curve: RocCurve, fmr: float) -> float:
    """The true match rate at the lowest threshold with at most this FMR."""
    return float(curve.tmr[np.searchsorted(curve.fmr, fmr, side="right") - 1])


def subject_weights(pair_scores: PairScores) -> np.ndarray:
    """(m,) weight of each genuine pair: 1 / number of genuine pairs of its subject."""
    owner = pair_scores.subject[pair_scores.genuine_first]
    return 1 / np.bincount(owner)[owner]


def equal_error_rate(fmr: np.ndarray, tmr: np.ndarray) -> float:
    """The rate where FMR and FNMR are equal, interpolated linearly along the ROC curve."""
    return float(equal_error_rates(fmr[None], tmr[None])[0])


def equal_error_rates(fmr: np.ndarray, tmr: np.ndarray) -> np.ndarray:
    """(B,) `equal_error_rate` of B curves (B, t)."""
    gap = fmr - (1 - tmr)  # grows from -1 to 1
    after = np.maximum(np.argmax(gap >= 0, axis=1), 1)[:, None]
    (gap_0, gap_1), (fmr_0, fmr_1) = (
        [np.take_along_axis(values, index, axis=1)[:, 0] for index in (after - 1, after)] for values in (gap, fmr)
    )
    return fmr_0 - gap_0 / (gap_1 - gap_0) * (fmr_1 - fmr_0)


def d_prime(pair_scores: PairScores) -> float | None:
    """Difference of the mean scores over the root mean of the two variances; None if both variances are 0."""
    impostor, genuine = (pair_scores.scale.scores(levels) for levels in (pair_scores.impostor_levels, pair_scores.genuine_levels))
    mean = np.average(impostor, weights=pair_scores.impostor_counts)
    variance = np.average((impostor - mean) ** 2, weights=pair_scores.impostor_counts) + genuine.var()
    return float((genuine.mean() - mean) / np.sqrt(variance / 2)) if variance > 0 else None


def operating_points(pair_scores: PairScores, curve: RocCurve) -> list[OperatingPoint]:
    """Operating points at each FMR of `FMR_POINTS` with one or more expected false matches."""
    chosen = [target for target in FMR_POINTS if target * pair_scores.impostor_count >= 1]
    return [operating_point_at(pair_scores, smallest_threshold(curve, target), target) for target in chosen]


def smallest_threshold(curve: RocCurve, fmr: float) -> int:
    """The lowest threshold with at most this FMR: one above the first score that exceeds it."""
    too_many = int(np.searchsorted(curve.fmr, fmr, side="right"))
    return int(curve.thresholds[too_many]) + 1 if too_many < len(curve.thresholds) else 0


def operating_point_at(pair_scores: PairScores, threshold: int, target: float) -> OperatingPoint:
    """Errors at `threshold`, which is meant for the FMR `target`."""
    accepted = pair_scores.impostor_counts[pair_scores.impostor_levels >= threshold].sum()
    rejected = pair_scores.genuine_levels < threshold
    owner = pair_scores.subject[pair_scores.genuine_first]
    return OperatingPoint(
        target,
        threshold,
        int(accepted),
        pair_scores.impostor_count,
        int(rejected.sum()),
        len(rejected),
        int(np.count_nonzero(np.bincount(owner))),
        int(np.count_nonzero(np.bincount(owner[rejected]))),
    )


def default_operating_point(pair_scores: PairScores, curve: RocCurve) -> OperatingPoint:
    """The point at the smallest FMR of `FMR_POINTS` with support; without one, the point nearest to the EER."""
    supported = [point for point in operating_points(pair_scores, curve) if not point.low_support]
    if supported:
        return supported[-1]
    nearest = int(np.argmin(np.abs(curve.fmr - (1 - curve.tmr))))
    return operating_point_at(pair_scores, int(curve.thresholds[nearest]), float(curve.fmr[nearest]))
