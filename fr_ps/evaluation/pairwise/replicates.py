"""What verification comes to in each draw of people, from the weight of the pairs between some thresholds.

With few different scores every one is a threshold, and all is exact; with more, some hundred are, dense where rates are read
off, and what that changes is measured on the undrawn people and taken out.
"""

from dataclasses import dataclass

import numpy as np

from fr_ps.evaluation.numbers.metrics import Metrics
from fr_ps.evaluation.numbers.resample import Resample
from fr_ps.evaluation.pairwise.pairs import AllPairs, Comparisons, ListedPairs
from fr_ps.evaluation.pairwise.roc import Point, equal_error_rates, person_weights, points, roc

EXACT = 500
"""So many different scores are all thresholds."""
_TAIL, _QUANTILES = 128, 96


@dataclass(frozen=True)
class Rates:
    """Of B draws at t falling thresholds; NaN where a draw has no such pair.

    Attributes:
        keys: (t,).
        fmr: (B, t).
        tmr: (B, t).
        tmr_balanced: (B, t), every person's genuine pairs weighing the same together.
        whole: whether these are all thresholds that change something; else the curve goes on between them.
    """

    keys: np.ndarray
    fmr: np.ndarray
    tmr: np.ndarray
    tmr_balanced: np.ndarray
    whole: bool

    def at(self, key: int) -> tuple[np.ndarray, np.ndarray]:
        """(B,) FMR and FNMR at a threshold that is one of `keys`."""
        (place,) = np.flatnonzero(self.keys == key)
        return self.fmr[:, place], 1 - self.tmr[:, place]


def resampled_rates(pairs: AllPairs | ListedPairs, comparisons: Comparisons, also: list[int]) -> tuple[Rates, Rates]:
    """The rates of all draws, and those of nobody drawn twice or left out (B = 1), at the same thresholds.

    Args:
        pairs: with draws.
        comparisons: of them.
        also: keys that have to be among the thresholds.
    """
    assert pairs.draws is not None
    nodes, whole = _nodes(comparisons, also)
    impostor = pairs.weighed(nodes)
    counts = np.bincount(
        np.searchsorted(nodes, comparisons.impostor_keys, side="right"), comparisons.impostor_counts, minlength=len(nodes) + 1
    )
    drawn = _rates(nodes, whole, impostor, *_genuine(comparisons, nodes, pairs.draws))
    undrawn = Resample(pairs.draws.unit, np.ones((1, pairs.draws.weights.shape[1]), np.float32), pairs.draws.people)
    return drawn, _rates(nodes, whole, counts[None], *_genuine(comparisons, nodes, undrawn))


def add_replicates(metrics: Metrics, comparisons: Comparisons, drawn: Rates, undrawn: Rates) -> Metrics:
    """`verification`'s metrics with what they are in each draw."""
    people = len(np.unique(comparisons.person[comparisons.first]))
    found = metrics.joined(Metrics())

    def add(name: str, of: np.ndarray, coarse: np.ndarray) -> None:
        value = metrics.values[name]
        if value is not None:
            shifted = np.clip(of + (value - coarse), 0, 1)
            found.add(name, value, metrics.reasons.get(name, ""), shifted, people)

    add("auc", _areas(drawn.fmr, drawn.tmr), _areas(undrawn.fmr, undrawn.tmr))
    add("auc_person_balanced", *(_areas(rates.fmr, rates.tmr_balanced) for rates in (drawn, undrawn)))
    add("eer", *(equal_error_rates(rates.fmr, rates.tmr) for rates in (drawn, undrawn)))
    for point in points(comparisons, roc(comparisons)):
        add(f"tar_at_far_{point.target:g}", *(_tmr_at(rates, point.target) for rates in (drawn, undrawn)))
    return found


def add_fixed(metrics: Metrics, names: tuple[str, str], point: Point, reason: str, drawn: Rates) -> None:
    """FMR and FNMR at a threshold that was chosen elsewhere, under two names."""
    for name, value, replicates in zip(names, (point.fmr, point.fnmr), drawn.at(point.key)):
        metrics.add(name, value, reason, replicates, point.people)


def _nodes(comparisons: Comparisons, also: list[int]) -> tuple[np.ndarray, bool]:
    """Growing keys to look at, and whether they are all that there are."""
    keys, counts, genuine = comparisons.impostor_keys, comparisons.impostor_counts, comparisons.genuine_keys
    distinct = np.union1d(keys, genuine)
    whole = len(distinct) <= EXACT
    if not whole:
        above = np.cumsum(counts[::-1])[::-1]  # impostor pairs from each key on
        wanted = np.geomspace(1, above[0], _TAIL)
        tail = keys[len(keys) - np.searchsorted(above[::-1], wanted, side="left") - 1]
        quantiles = np.quantile(genuine, np.linspace(0, 1, _QUANTILES), method="nearest")
        distinct = np.union1d(tail, quantiles.astype(np.int64))
    curve = roc(comparisons)
    own = [point.key for point in points(comparisons, curve)]
    return np.union1d(distinct, np.array([*own, *also], dtype=np.int64)), whole


def _genuine(comparisons: Comparisons, nodes: np.ndarray, draws: Resample) -> tuple[np.ndarray, np.ndarray]:
    """(B, K + 1) the weight of the genuine pairs below, between or above the nodes, and the same person-balanced."""
    place = np.searchsorted(nodes, comparisons.genuine_keys, side="right")
    unit, shape = draws.unit[comparisons.first], (draws.weights.shape[1], len(nodes) + 1)
    found = []
    for weight in (None, person_weights(comparisons)):
        table = np.bincount(unit * shape[1] + place, weight, minlength=shape[0] * shape[1]).reshape(shape)
        found.append(draws.weights.astype(np.float64) @ table)
    return found[0], found[1]


def _rates(nodes: np.ndarray, whole: bool, impostor: np.ndarray, genuine: np.ndarray, balanced: np.ndarray) -> Rates:
    """From weights in K + 1 bins to rates at thresholds above all, at each node, and below all."""

    def share(weights: np.ndarray) -> np.ndarray:
        above = np.cumsum(weights[:, ::-1], axis=1)
        with np.errstate(invalid="ignore"):
            return np.concatenate([np.zeros((len(weights), 1)), above], axis=1) / above[:, -1:]

    keys = np.concatenate([[-1], nodes, [np.iinfo(np.int64).max]])[::-1]
    return Rates(keys, share(impostor), share(genuine), share(balanced), whole)


def _areas(fmr: np.ndarray, tmr: np.ndarray) -> np.ndarray:
    return np.trapezoid(tmr, fmr, axis=1)


def _tmr_at(rates: Rates, fmr: float) -> np.ndarray:
    place = np.clip((rates.fmr <= fmr).sum(axis=1) - 1, 0, rates.fmr.shape[1] - 2)[:, None]
    (fmr_0, fmr_1), (tmr_0, tmr_1) = (
        [np.take_along_axis(of, at, axis=1)[:, 0] for at in (place, place + 1)] for of in (rates.fmr, rates.tmr)
    )
    if rates.whole:
        return tmr_0 + np.where(np.isnan(fmr_0), np.nan, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return tmr_0 + np.nan_to_num((fmr - fmr_0) / (fmr_1 - fmr_0)) * (tmr_1 - tmr_0)
