"""Stratified random allocation: of subjects to parts, and of the sessions of each subject to parts.

Stratified by combined labels, the codes of all attributes of a session together; between subjects also by the classes of each
attribute alone, because few subjects cannot match many combined labels. scikit-learn's StratifiedGroupKFold supports folds
of about equal size only, neither shares nor exact numbers of subjects.
"""

from collections.abc import Sequence

import numpy as np

_MAX_SWAP_CANDIDATES = 500


def combined_labels(codes: np.ndarray) -> np.ndarray:
    """(n,) the index of each session's combined label, from the codes (n, attributes); a missing label is one more class."""
    numbers = np.zeros(len(codes), dtype=np.int64)  # the codes are digits; sorting numbers is faster than sorting rows
    for column in codes.T.astype(np.int64):
        numbers = numbers * (column.max(initial=0) - column.min(initial=0) + 1) + (column - column.min(initial=0))
    return np.unique(numbers, return_inverse=True)[1]


def count_strata(codes: np.ndarray, subject_of: np.ndarray) -> np.ndarray:
    """(subjects, strata) number of sessions of each subject, by combined label and by class of each attribute.

    Args:
        codes: (n, attributes) class of each session's attributes.
        subject_of: (n,) index of each session's subject, from 0.
    """
    classes = [np.unique(column, return_inverse=True)[1].reshape(-1) for column in codes.T]
    counts = []
    for strata in [combined_labels(codes), *classes]:
        shape = subject_of.max() + 1, strata.max() + 1
        counts.append(np.bincount(subject_of * shape[1] + strata, minlength=shape[0] * shape[1]).reshape(shape))
    return np.concatenate(counts, axis=1).astype(float)


def allocate_subjects(counts: np.ndarray, sizes: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Allocate subjects to parts of exactly `sizes` subjects, each part with its share of the sessions of every stratum.

    Starts from a uniform random allocation. Then every subject is swapped once with the subject of another part whose swap most
    reduces the chi-square distance of the parts to their shares, if any swap does. Unlike a greedy allocation in order of the
    number of sessions, every subject can be in every part.

    Args:
        counts: (subjects, strata) number of sessions; a session is in one stratum or several.
        sizes: subjects in each part, all above 0; they add up to the number of subjects.
        rng: of the allocation. A subject is compared with at most 500 others, so that time is linear in their number.

    Returns:
        (subjects,) the part of each.
    """
    total = counts.sum(axis=0)
    counts, total = counts[:, total > 0], total[total > 0]
    share = np.asarray(sizes) / len(counts)
    part = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    swaps = _Swaps(counts, part, np.stack([counts[part == index].sum(axis=0) for index in range(len(sizes))]), share, total)
    for subject in rng.permutation(len(counts)):
        others = rng.choice(len(counts), min(len(counts), _MAX_SWAP_CANDIDATES), replace=False)
        others = others[part[others] != part[subject]]
        if len(others):
            cost = swaps.costs(subject, others)
            best = np.argmin(cost)
            if cost[best] < -1e-9:
                swaps.swap(subject, others[best])
    return part


class _Swaps:
    """Swaps of two subjects of different parts, and what each changes in the chi-square distance of the parts to their shares.

    Args:
        counts: (subjects, strata) number of sessions.
        part: (subjects,) the part of each; changed by `swap`.
        sums: (parts, strata) number of sessions of each part.
        share: (parts,) of the subjects.
        total: (strata,) number of sessions.
    """

    def __init__(self, counts: np.ndarray, part: np.ndarray, sums: np.ndarray, share: np.ndarray, total: np.ndarray) -> None:
        self.counts, self.part = counts, part
        self.expected = share[:, None] * total
        self.excess = sums - self.expected
        # Subjects of one kind have equal counts. With few kinds, the costs of all swaps are kept until a swap changes them.
        self.kinds, kind_of = np.unique(counts, axis=0, return_inverse=True)
        self.kind_of = kind_of.reshape(-1)
        self.kind_places = np.tile(np.arange(len(self.kinds)), len(share))
        self.part_places = np.repeat(np.arange(len(share)), len(self.kinds))
        self.known: dict[tuple[int, int], np.ndarray] = {}

    def costs(self, subject: int, others: np.ndarray) -> np.ndarray:
        """(n,) the change by swapping `subject` with each of (n,) others."""
        kind, here, there = self.kind_of[subject], self.part[subject], self.part[others]
        if len(self.kind_places) > _MAX_SWAP_CANDIDATES:
            return self._change(self.counts[others] - self.counts[subject], here, there)
        if (kind, here) not in self.known:
            self.known[kind, here] = self._change(self.kinds[self.kind_places] - self.kinds[kind], here, self.part_places)
        return self.known[kind, here][there * len(self.kinds) + self.kind_of[others]]

    def _change(self, gain: np.ndarray, here: int, there: np.ndarray) -> np.ndarray:
        """(n,) change of the distance if `gain` (n, strata) sessions move from the parts `there` (n,) to the part `here`."""
        change = ((self.excess[here] + gain) ** 2 - self.excess[here] ** 2) / self.expected[here]
        change += ((self.excess[there] - gain) ** 2 - self.excess[there] ** 2) / self.expected[there]
        return np.asarray(change.sum(axis=1))

    def swap(self, subject: int, other: int) -> None:
        """Exchange the parts of two subjects."""
        here, there = self.part[subject], self.part[other]
        gain = self.counts[other] - self.counts[subject]
        self.excess[here] += gain
        self.excess[there] -= gain
        self.part[subject], self.part[other] = there, here
        self.known.clear()


class SessionAllocator:
    """Allocates the sessions of one subject after another, so that in total each part gets its share of every combined label.

    Args:
        parts: number of parts.
        totals: (combined labels,) number of sessions of each in the whole data.
    """

    def __init__(self, parts: int, totals: np.ndarray) -> None:
        self.totals = totals
        self.quota = np.zeros((parts, len(totals)))

    def allocate(self, combined: np.ndarray, slots: np.ndarray) -> np.ndarray:
        """The part of each session of one subject.

        Args:
            combined: (n,) combined label of each.
            slots: (n,) the parts to fill, in any order.
        """
        free = np.bincount(slots, minlength=len(self.quota))
        self.quota += free[:, None] / len(slots) * np.bincount(combined, minlength=len(self.totals))
        part = np.empty(len(combined), dtype=int)
        for index in np.argsort(self.totals[combined], kind="stable"):  # the rarest label first
            quota = self.quota[:, combined[index]]
            part[index] = np.argmax(np.where(free > 0, quota, -np.inf))
            quota[part[index]] -= 1  # a view of `self.quota`: what remains carries over to the next subject
            free[part[index]] -= 1
        return part
