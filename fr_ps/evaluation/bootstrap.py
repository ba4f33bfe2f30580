"""Intervals from drawing people, not pairs: the pairs of one person are not independent of each other.

A draw of people with replacement is how often each was drawn, w: a session counts w_i, a genuine pair of person i w_i, an
impostor pair of i and j w_i w_j. A person that was drawn twice is no impostor of itself. (Poh, Martin and Bengio,
"Performance generalization in biometric authentication using joint user-specific and sample bootstraps", PAMI 2007, draw
people so; Bolle, Ratha and Pankanti, "Error analysis of pattern recognition systems: the subsets bootstrap", CVIU 2004,
show that drawing pairs makes the interval too narrow.)
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit
from scipy.stats import t

REPLICATES = 1000
CONFIDENCE = 0.95
FEW_SUBJECTS = 50
"""Below so many people the interval holds the truth less often than it says."""
_NO_SPREAD = 1e-9
MAX_UNITS = 1000
"""Of more people, so many groups of them are drawn instead, which costs less and tells as much."""


@dataclass(frozen=True)
class BootstrapWeights:
    """Draws of people.

    Attributes:
        unit: (n,) what each of n sessions is drawn with: its person; beyond `MOST_UNITS` people, the group that it is in.
        weights: (B, units) float32, how often each was drawn; every row sums to the number of units.
        people: whom the sessions are of.
    """

    unit: np.ndarray
    weights: np.ndarray
    subjects: int

    def select(self, rows: np.ndarray) -> "BootstrapWeights":
        """The same draws of some of the sessions."""
        return BootstrapWeights(self.unit[rows], self.weights, self.subjects)

    def weighted_sums(self, values: np.ndarray) -> np.ndarray:
        """(B, k) the sums of (n, k) values of the sessions, each weighted as it was drawn; (B,) of (n,)."""
        by_unit = np.zeros((self.weights.shape[1], *values.shape[1:]))
        np.add.at(by_unit, self.unit, values)
        return self.weights @ by_unit


def bootstrap_weights(ids: np.ndarray, replicates: int = REPLICATES, seed: int = 0) -> BootstrapWeights:
    """Draws of the people of the (n,) ids; the same people in whatever order get the same draws."""
    names, person = np.unique(ids, return_inverse=True)
    rng = np.random.default_rng(seed)
    units = min(len(names), MAX_UNITS)
    group = rng.permutation(len(names)) % units if len(names) > units else np.arange(len(names))
    weights = rng.multinomial(units, np.full(units, 1 / units), size=replicates).astype(np.float32)
    return BootstrapWeights(group[person], weights, len(names))


def confidence_interval(value: float, replicates: np.ndarray, subjects: int = 0) -> tuple[float, float] | None:
    """The interval (low, high) of a value at 95 %; None where most draws are undefined, or all say the same.

    That of a rate is symmetric in its logit: logit(value) - b +- t s, s being the standard deviation of the draws' logits
    times sqrt(P / (P - 1)), t Student's with P - 1 degrees of freedom for P people, and b by how much the mean of the draws'
    logits is above logit(value). On simulated people it holds the truth
    more often than the percentiles do, which lie too near to 1 (`benchmarks/interval_coverage.py`; logits for the AUC:
    Pepe, "The Statistical Evaluation of Medical Tests", 2003). A draw that is nearer to 0 or 1 than a tenth of what the
    value is counts as that far.

    Where no error was seen, drawing says nothing, and the bound is that of the rule of three over people: who has no error
    among P people has one in fewer than 1 - 0.05^(1 / P), about 3 / P, of all (Jovanovic and Levy, "A look at the rule of
    three", The American Statistician 1997; ISO/IEC 19795-1 has it over attempts).

    Args:
        value: of all people.
        replicates: (B,) of each draw, NaN where undefined in it.
        people: whom a rate is of; 0: of what is no rate the interval is that of the percentiles.
    """
    found = replicates[np.isfinite(replicates)]
    if len(found) < max(2, len(replicates) / 2):
        return None
    if not subjects:
        low, high = np.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return float(low), float(high)
    if min(value, 1 - value) < _NO_SPREAD:
        bound = 1 - (1 - CONFIDENCE) ** (1 / subjects)
        return (0.0, bound) if value < 0.5 else (1 - bound, 1.0)
    nearest = min(value, 1 - value) / 10
    drawn = logit(np.clip(found, nearest, 1 - nearest))
    if drawn.std() < _NO_SPREAD:
        return None
    freedom = max(subjects - 1, 1)
    wide = t.ppf((1 + CONFIDENCE) / 2, freedom) * drawn.std(ddof=1) * np.sqrt((freedom + 1) / freedom)
    centre = 2 * logit(value) - drawn.mean()
    return float(min(expit(centre - wide), value)), float(max(expit(centre + wide), value))
