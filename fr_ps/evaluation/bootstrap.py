"""Bootstrap over subjects, not over pairs: the pairs of one subject are not independent of each other.

A replicate draws subjects with replacement; w is how often each was drawn. A session of subject i weighs w_i, a genuine pair of i
w_i, an impostor pair of i and j w_i w_j. A subject that was drawn twice is no impostor of itself.

Poh, Martin and Bengio, "Performance generalization in biometric authentication using joint user-specific and sample bootstraps",
PAMI 2007, resample subjects in this way. Bolle, Ratha and Pankanti, "Error analysis of pattern recognition systems: the subsets
bootstrap", CVIU 2004, show that resampling pairs makes the interval too narrow.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit
from scipy.stats import t

REPLICATES = 1000
CONFIDENCE = 0.95
FEW_SUBJECTS = 50
"""With fewer subjects the interval covers the true value less often than 95 %."""
MAX_UNITS = 1000
"""More subjects than this are put into this many groups, and the groups are resampled: cheaper, and as accurate."""
_NO_SPREAD = 1e-9
_MAX_CELLS = 2**20
"""Replicates x sessions held at once: about 60 MB with all derived arrays."""


@dataclass(frozen=True)
class BootstrapWeights:
    """B bootstrap replicates of subjects.

    Attributes:
        unit: (n,) resampling unit of each session: its subject, or the group of its subject beyond `MAX_UNITS` subjects.
        weights: (B, units) float32, how often each unit was drawn; every row sums to the number of units.
        subjects: number of subjects.
    """

    unit: np.ndarray
    weights: np.ndarray
    subjects: int

    def select(self, rows: np.ndarray) -> "BootstrapWeights":
        """The same replicates for some of the sessions."""
        return BootstrapWeights(self.unit[rows], self.weights, self.subjects)

    def weighted_sums(self, values: np.ndarray) -> np.ndarray:
        """Sums over the sessions, weighted by how often each was drawn: (B, k) of (n, k) values, (B,) of (n,)."""
        by_unit = np.zeros((self.weights.shape[1], *values.shape[1:]))
        np.add.at(by_unit, self.unit, values)
        return self.weights @ by_unit


def bootstrap_weights(ids: np.ndarray, replicates: int | None = None, seed: int = 0) -> BootstrapWeights:
    """Replicates of the subjects of (n,) ids; the same subjects in any order get the same draws.

    Args:
        ids: (n,) subject of each session.
        replicates: number of replicates; None: `REPLICATES`.
        seed: random seed.
    """
    names, subject_of = np.unique(ids, return_inverse=True)
    rng = np.random.default_rng(seed)
    units = min(len(names), MAX_UNITS)
    group = rng.permutation(len(names)) % units if len(names) > units else np.arange(len(names))
    drawn = rng.multinomial(units, np.full(units, 1 / units), size=REPLICATES if replicates is None else replicates)
    return BootstrapWeights(group[subject_of], drawn.astype(np.float32), len(names))


def unweighted(sessions: int) -> BootstrapWeights:
    """A single replicate in which each session counts once."""
    return BootstrapWeights(np.zeros(sessions, dtype=np.intp), np.ones((1, 1), dtype=np.float32), sessions)


def confidence_interval(value: float, replicates: np.ndarray, subjects: int = 0) -> tuple[float, float] | None:
    """The 95 % confidence interval (low, high); None if most replicates are undefined or all are equal.

    The interval of a rate is symmetric in its logit: logit(value) - b +- t s. s is the standard deviation of the replicates'
    logits times sqrt(P / (P - 1)), t Student's quantile with P - 1 degrees of freedom for P subjects, and b the mean of the
    replicates' logits minus logit(value). On simulated subjects it covers the true value more often than the percentile interval,
    which lies too close to 1 (`benchmarks/interval_coverage.py`; logits for the AUC: Pepe, "The Statistical Evaluation of Medical
    Tests", 2003). Replicates are clipped to a tenth of the value's own distance from 0 or 1.

    Without errors the replicates have no spread, and the bound is the rule of three over subjects: if none of P subjects has an
    error, the share of all subjects with an error is below 1 - 0.05^(1 / P), about 3 / P (Jovanovic and Levy, "A look at the rule
    of three", The American Statistician 1997; ISO/IEC 19795-1 applies it to attempts).

    Args:
        value: value on all subjects.
        replicates: (B,) value in each replicate, NaN where undefined.
        subjects: number of subjects behind a rate; 0: the value is not a rate, and the interval is that of the percentiles.
    """
    defined = replicates[np.isfinite(replicates)]
    if len(defined) < max(2, len(replicates) / 2):
        return None
    if not subjects:
        low, high = np.quantile(defined, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return float(low), float(high)
    if min(value, 1 - value) < _NO_SPREAD:
        bound = 1 - (1 - CONFIDENCE) ** (1 / subjects)
        return (0.0, bound) if value < 0.5 else (1 - bound, 1.0)
    nearest = min(value, 1 - value) / 10
    logits = logit(np.clip(defined, nearest, 1 - nearest))
    if logits.std() < _NO_SPREAD:
        return None
    degrees = max(subjects - 1, 1)
    margin = t.ppf((1 + CONFIDENCE) / 2, degrees) * logits.std(ddof=1) * np.sqrt((degrees + 1) / degrees)
    centre = 2 * logit(value) - logits.mean()
    return float(min(expit(centre - margin), value)), float(max(expit(centre + margin), value))


def auc_and_average_precision(
    score: np.ndarray, positive: np.ndarray, bootstrap: BootstrapWeights
) -> tuple[np.ndarray, np.ndarray]:
    """(B,) area under the ROC curve and (B,) average precision in each replicate; NaN where one class is missing.

    The area is the weight of the correctly ordered pairs of a positive and a negative session, ties counting one half, divided by
    the weight of all such pairs. The average precision is the sum of (R_n - R_n-1) P_n over the distinct scores as thresholds, R
    being recall and P precision, without interpolation (as in scikit-learn).

    Args:
        score: (n,) finite scores; n is 1 or more.
        positive: (n,) bool.
        bootstrap: replicates of these n sessions.
    """
    areas, precisions = [], []
    with np.errstate(invalid="ignore"):  # 0 / 0: one class is missing
        for hits, false in _cumulative_weights(score, positive, bootstrap):
            all_hits, all_false = hits[:, -1], false[:, -1]
            areas.append(np.trapezoid(hits, false, axis=1) / (all_hits * all_false))
            accepted = hits[:, 1:] + false[:, 1:]
            precision = hits[:, 1:] / np.where(accepted > 0, accepted, 1)  # without accepted sessions, recall does not grow
            average = (np.diff(hits, axis=1) * precision).sum(axis=1) / all_hits
            precisions.append(np.where(all_false > 0, average, np.nan))
    return np.concatenate(areas), np.concatenate(precisions)


def balanced_accuracy(codes: np.ndarray, predicted: np.ndarray, classes: int, bootstrap: BootstrapWeights) -> np.ndarray:
    """(B,) balanced accuracy, the mean recall over the classes, in each replicate; NaN where a class is missing.

    Args:
        codes: (n,) true classes.
        predicted: (n,) predicted classes.
        classes: number of classes.
        bootstrap: replicates of these n sessions.
    """
    true = np.eye(classes)[codes]
    with np.errstate(invalid="ignore"):
        recalls = bootstrap.weighted_sums(true * (predicted == codes)[:, None]) / bootstrap.weighted_sums(true)
    return recalls.mean(axis=1)


def _cumulative_weights(
    score: np.ndarray, positive: np.ndarray, bootstrap: BootstrapWeights
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Weights of the positive and of the negative sessions that score at least each distinct score, highest first.

    Yields both as (replicates, 1 + distinct scores) arrays, a block of replicates at a time; the first column is 0.
    """
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    unit, positive = bootstrap.unit[order], positive[order]
    step = max(1, _MAX_CELLS // len(score))
    for start in range(0, len(bootstrap.weights), step):
        weights = bootstrap.weights[start : start + step, unit]
        hits = _cumulative_sums(weights * positive, last_of_tie)
        yield hits, _cumulative_sums(weights, last_of_tie) - hits


def _cumulative_sums(weights: np.ndarray, ends: np.ndarray) -> np.ndarray:
    return np.pad(weights.cumsum(axis=1, dtype=np.float64)[:, ends], ((0, 0), (1, 0)))
