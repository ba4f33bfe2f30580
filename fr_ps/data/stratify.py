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
    return np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)


def count_strata(codes: np.ndarray, subject_of: np.ndarray) -> np.ndarray:
    """(subjects, strata) number of sessions of each subject, by combined label and by class of each attribute.

    Args:
        codes: (n, attributes) class of each session's attributes.
        subject_of: (n,) index of each session's subject, from 0.
    """
    classes = [np.unique(column, return_inverse=True)[1].reshape(-1) for column in codes.T]
    counts = []
    for strata in [combined_labels(codes), *classes]:
        counts.append(np.zeros((subject_of.max() + 1, strata.max() + 1)))
        np.add.at(counts[-1], (subject_of, strata), 1)
    return np.concatenate(counts, axis=1)


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
    excess = np.stack([counts[part == index].sum(axis=0) for index in range(len(sizes))]) - share[:, None] * total
    for subject in rng.permutation(len(counts)):
        others = rng.choice(len(counts), min(len(counts), _MAX_SWAP_CANDIDATES), replace=False)
        here, there = part[subject], part[others]
        gain = counts[others] - counts[subject]
        change = ((excess[here] + gain) ** 2 - excess[here] ** 2) / (share[here] * total)
        change += ((excess[there] - gain) ** 2 - excess[there] ** 2) / (share[there, None] * total)
        cost = np.where(there == here, 0, change.sum(axis=1))
        best = np.argmin(cost)
        if cost[best] < -1e-9:
            excess[here] += gain[best]
            excess[there[best]] -= gain[best]
            part[subject], part[others[best]] = there[best], here
    return part


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
            quota[part[index]] -= 1
            free[part[index]] -= 1
        return part
