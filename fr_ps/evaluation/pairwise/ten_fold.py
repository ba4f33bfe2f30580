"""Ten-fold verification accuracy of Labeled Faces in the Wild: the threshold of each fold comes from the nine others.

Huang, Ramesh, Berg and Learned-Miller, "Labeled Faces in the Wild", TR 07-49, University of Massachusetts, 2007: the mean over
the folds, with its standard error (the standard deviation over the folds divided by the square root of ten).
"""

from dataclasses import dataclass

import numpy as np

from fr_ps.evaluation.metrics import Metrics
from fr_ps.evaluation.pairwise.pair_list import PairList

FOLDS = 10
MAX_PAIRS_PER_FOLD = 300
"""Genuine pairs per fold, and as many impostor pairs, as in LFW."""
METRIC_NAMES = ("accuracy_10fold", "accuracy_10fold_se")


@dataclass(frozen=True)
class Folds:
    """Pairs in ten folds, with as many genuine as impostor pairs in each.

    Attributes:
        first: (m,) row of one session.
        second: (m,) row of the other.
        fold: (m,) fold number, 0 to 9.
        undefined_reason: why there are no folds; empty if there are.
    """

    first: np.ndarray
    second: np.ndarray
    fold: np.ndarray
    undefined_reason: str = ""


def draw_folds(ids: np.ndarray, first: np.ndarray, second: np.ndarray, seed: int = 0) -> Folds:
    """Sample ten subject-disjoint folds of pairs.

    Args:
        ids: (n,) subject of each session.
        first: (m,) row of one session of each genuine pair.
        second: (m,) row of the other.
        seed: random seed.
    """
    rng = np.random.default_rng(seed)
    paired = rng.permutation(np.unique(ids[first]))
    if len(paired) < 2 * FOLDS:
        return _no_folds(f"only {len(paired)} subjects have two sessions or more; ten folds with impostor pairs need {2 * FOLDS}")
    folds: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for fold in range(FOLDS):
        subjects = paired[fold::FOLDS]
        genuine = np.flatnonzero(np.isin(ids[first], subjects))
        genuine = rng.permutation(genuine)[:MAX_PAIRS_PER_FOLD]
        impostor_first, impostor_second = _sample_impostors(ids, np.flatnonzero(np.isin(ids, subjects)), len(genuine), rng)
        count = min(len(genuine), len(impostor_first))
        folds.append(
            (
                np.concatenate([first[genuine[:count]], impostor_first[:count]]),
                np.concatenate([second[genuine[:count]], impostor_second[:count]]),
                np.full(2 * count, fold),
            )
        )
    first_rows, second_rows, number = (np.concatenate(part) for part in zip(*folds))
    return Folds(first_rows, second_rows, number)


def folds_from_list(pair_list: PairList) -> Folds:
    """The folds of a pair list."""
    if pair_list.fold is None or len(np.unique(pair_list.fold)) < 2:
        return _no_folds("the pair list has no column fold with two folds or more")
    return Folds(pair_list.first, pair_list.second, pair_list.fold)


def _no_folds(reason: str) -> Folds:
    none = np.empty(0, dtype=int)
    return Folds(none, none, none, reason)


def ten_fold_accuracy(score: np.ndarray, genuine: np.ndarray, fold: np.ndarray) -> Metrics:
    """Mean accuracy over the folds and its standard error, with a remark if there are not ten folds.

    Args:
        score: (m,) scores of the pairs.
        genuine: (m,) bool.
        fold: (m,) fold number.
    """
    accuracy = []
    for number in np.unique(fold):
        tested = fold == number
        accuracy.append(_accuracy(score[tested], genuine[tested], _best_threshold(score[~tested], genuine[~tested])))
    metrics = Metrics()
    note = "" if len(accuracy) == FOLDS else f"{len(accuracy)} folds"
    metrics.add(METRIC_NAMES[0], float(np.mean(accuracy)), note)
    metrics.add(METRIC_NAMES[1], float(np.std(accuracy, ddof=1) / np.sqrt(len(accuracy))), note)
    return metrics


def _sample_impostors(ids: np.ndarray, rows: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """At most `count` different impostor pairs of the rows."""
    drawn = np.sort(rng.choice(rows, size=(8 * count, 2)), axis=1)
    drawn = drawn[ids[drawn[:, 0]] != ids[drawn[:, 1]]]
    _, once = np.unique(drawn, axis=0, return_index=True)
    drawn = drawn[np.sort(once)][:count]
    return drawn[:, 0], drawn[:, 1]


def _best_threshold(score: np.ndarray, genuine: np.ndarray) -> float:
    """The threshold of the highest accuracy; the smallest if several are equal.

    Candidates are minus infinity, the midpoints of neighbouring distinct scores, and infinity. A threshold at a score itself
    leaves no margin on one side: the lowest genuine pair would always be rejected in its own fold.
    """
    order = np.argsort(score)
    distinct, start = np.unique(score[order], return_index=True)
    low, high = distinct[:-1], distinct[1:]
    middle = (low + high) / 2
    middle = np.where(middle > low, middle, high)  # neighbouring floats have no midpoint
    candidates, start = np.concatenate([[-np.inf], middle, [np.inf]]), np.append(start, len(score))
    below = np.concatenate([[0], np.cumsum(genuine[order])])
    correct = (start - below[start]) + (genuine.sum() - below[start])  # impostors below, genuine at or above
    return float(candidates[np.argmax(correct)])


def _accuracy(score: np.ndarray, genuine: np.ndarray, threshold: float) -> float:
    return float(((score >= threshold) == genuine).mean())
