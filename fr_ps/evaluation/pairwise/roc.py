"""Error rates of counted comparisons at every threshold, and what is read off them.

A pair is accepted if its score is at least the threshold. Terms are those of ISO/IEC 19795-1: the false match rate (FMR) is
the share of impostor pairs that are accepted, the false non-match rate (FNMR) that of genuine pairs that are not.
"""

from dataclasses import dataclass

import numpy as np

from fr_ps.evaluation.metrics import LOW_SUPPORT, LOW_SUPPORT_REASON
from fr_ps.evaluation.pairwise.pairs import PairScores
from fr_ps.evaluation.pairwise.similarity import LEVELS

FAR_POINTS = (0.1, 0.01, 0.001, 0.0001, 0.00001, 0.000001)


@dataclass(frozen=True)
class RocCurve:
    """Rates at every threshold that changes something, falling from one above the highest score.

    Attributes:
        keys: (t,) thresholds.
        fmr: (t,) growing from 0 to 1.
        tmr: (t,) 1 - FNMR, growing from 0 to 1.
    """

    thresholds: np.ndarray
    fmr: np.ndarray
    tmr: np.ndarray


@dataclass(frozen=True)
class OperatingPoint:
    """What a threshold comes to.

    Attributes:
        target: the FMR that was wanted.
        key: the smallest threshold whose FMR is at most that.
        false_matches: of the impostor pairs.
        impostors: impostor pairs.
        false_non_matches: of the genuine pairs.
        genuine: genuine pairs.
        people: who have a genuine pair.
        people_refused: of them, who have a false non-match.
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
        """Why nothing may be decided here; empty where it may."""
        expected = self.target_fmr * self.impostor_pairs
        if expected >= LOW_SUPPORT:
            return ""
        return f"{LOW_SUPPORT_REASON}: {expected:.1f} expected false matches of {self.impostor_pairs} impostor pairs"


def compute_roc(pair_scores: PairScores, weights: np.ndarray | None = None) -> RocCurve:
    """Rates at every threshold; each of the (m,) genuine pairs counts 1, or as `weights` says."""
    impostor = np.zeros(LEVELS, dtype=np.int64)
    impostor[pair_scores.impostor_levels] = pair_scores.impostor_counts
    genuine = np.bincount(pair_scores.genuine_levels, weights, minlength=LEVELS)
    keys = np.flatnonzero((impostor > 0) | (genuine > 0))
    impostor, genuine = impostor[keys], genuine[keys]
    above = (np.concatenate([[0], np.cumsum(counts[::-1])]) for counts in (impostor, genuine))
    fmr, tmr = (counts / counts[-1] for counts in above)
    return RocCurve(np.append(keys, keys[-1] + 1)[::-1], fmr, tmr)


def roc_auc(curve: RocCurve) -> float:
    """Under the ROC curve: how often a genuine pair scores above an impostor pair, a tie counting half."""
    return float(np.clip(np.trapezoid(curve.tmr, curve.fmr), 0, 1))


def subject_weights(pair_scores: PairScores) -> np.ndarray:
    """(m,) one over the number of genuine pairs of each one's person."""
    owner = pair_scores.subject[pair_scores.genuine_first]
    return 1 / np.bincount(owner)[owner]


def equal_error_rate(fmr: np.ndarray, tmr: np.ndarray) -> float:
    """Where FMR and FNMR are the same, by linear interpolation along the ROC curve."""
    return float(equal_error_rates(fmr[None], tmr[None])[0])


def equal_error_rates(fmr: np.ndarray, tmr: np.ndarray) -> np.ndarray:
    """(B,) of B curves (B, t)."""
    gap = fmr - (1 - tmr)  # grows from -1 to 1
    after = np.maximum(np.argmax(gap >= 0, axis=1), 1)[:, None]
    (gap_0, gap_1), (fmr_0, fmr_1) = (
        [np.take_along_axis(of, place, axis=1)[:, 0] for place in (after - 1, after)] for of in (gap, fmr)
    )
    return fmr_0 - gap_0 / (gap_1 - gap_0) * (fmr_1 - fmr_0)


def d_prime(pair_scores: PairScores) -> float | None:
    """Distance of the mean scores in their standard deviations (root mean of the two variances); None where these are 0."""
    impostor, genuine = (pair_scores.scale.scores(keys) for keys in (pair_scores.impostor_levels, pair_scores.genuine_levels))
    mean = np.average(impostor, weights=pair_scores.impostor_counts)
    variance = np.average((impostor - mean) ** 2, weights=pair_scores.impostor_counts) + genuine.var()
    return float((genuine.mean() - mean) / np.sqrt(variance / 2)) if variance > 0 else None


def operating_points(pair_scores: PairScores, curve: RocCurve) -> list[OperatingPoint]:
    """At each FMR of `FAR_POINTS` at which one false match or more is expected."""
    chosen = [target for target in FAR_POINTS if target * pair_scores.impostor_count >= 1]
    return [operating_point_at(pair_scores, smallest_threshold(curve, target), target) for target in chosen]


def smallest_threshold(curve: RocCurve, fmr: float) -> int:
    """The smallest key with at most that FMR: one above the first score that would be too many."""
    too_many = int(np.searchsorted(curve.fmr, fmr, side="right"))
    return int(curve.thresholds[too_many]) + 1 if too_many < len(curve.thresholds) else 0


def operating_point_at(pair_scores: PairScores, threshold: int, target: float) -> OperatingPoint:
    """What the threshold `key` comes to, which was meant to give the FMR `target`."""
    accepted = pair_scores.impostor_counts[pair_scores.impostor_levels >= threshold].sum()
    refused = pair_scores.genuine_levels < threshold
    owner = pair_scores.subject[pair_scores.genuine_first]
    return OperatingPoint(
        target,
        threshold,
        int(accepted),
        pair_scores.impostor_count,
        int(refused.sum()),
        len(refused),
        int(np.count_nonzero(np.bincount(owner))),
        int(np.count_nonzero(np.bincount(owner[refused]))),
    )


def default_operating_point(pair_scores: PairScores, curve: RocCurve) -> OperatingPoint:
    """The one at the smallest FMR of `FAR_POINTS` that has support; where none has, the one nearest to equal errors."""
    supported = [point for point in operating_points(pair_scores, curve) if not point.low_support]
    if supported:
        return supported[-1]
    nearest = int(np.argmin(np.abs(curve.fmr - (1 - curve.tmr))))
    return operating_point_at(pair_scores, int(curve.thresholds[nearest]), float(curve.fmr[nearest]))
