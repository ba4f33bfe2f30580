"""Random draws whose parts resemble the whole: whole people dealt to parts, and the sessions of a person to parts.

Balanced are the combined labels, the codes of all attributes of a session together; between people also the classes of each
attribute alone, as few people cannot match many combined labels. scikit-learn's StratifiedGroupKFold knows folds of about
the same size only, no shares and no exact numbers of people.
"""

from collections.abc import Sequence

import numpy as np

_MAX_SWAP_CANDIDATES = 500


def combined_labels(codes: np.ndarray) -> np.ndarray:
    """(n,) the number of each session's combined label, from the codes (n, attributes); a missing label is one more class."""
    return np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)


def count_strata(codes: np.ndarray, subject_of: np.ndarray) -> np.ndarray:
    """(people, kinds) sessions of each person, by combined label and by class of each attribute; the codes are (n, attributes).

    Args:
        codes: class of each session's attributes.
        person_of: (n,) number of each session's person, from 0.
    """
    kinds = [np.unique(column, return_inverse=True)[1].reshape(-1) for column in codes.T]
    counts = []
    for kind in [combined_labels(codes), *kinds]:
        counts.append(np.zeros((subject_of.max() + 1, kind.max() + 1)))
        np.add.at(counts[-1], (subject_of, kind), 1)
    return np.concatenate(counts, axis=1)


def allocate_subjects(counts: np.ndarray, sizes: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Deal people to parts of exactly `sizes` people, each part with its share of the sessions of every kind.

    A plain random draw, after which each person changes places once with the one of another part that brings the parts
    closest to their shares (chi-square distance), if any does. Unlike a greedy deal from the largest person down, that
    leaves everybody, the most photographed too, a chance of every part.

    Args:
        counts: (people, kinds) number of sessions, a session being of one kind or several.
        sizes: people in each part, all above 0; they add up to the number of people.
        rng: what decides. A person is compared with at most 500 others, so that time grows no faster than their number.

    Returns:
        (people,) the part of each.
    """
    total = counts.sum(axis=0)
    counts, total = counts[:, total > 0], total[total > 0]
    share = np.asarray(sizes) / len(counts)
    part = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    excess = np.stack([counts[part == index].sum(axis=0) for index in range(len(sizes))]) - share[:, None] * total
    for person in rng.permutation(len(counts)):
        others = rng.choice(len(counts), min(len(counts), _MAX_SWAP_CANDIDATES), replace=False)
        here, there = part[person], part[others]
        gain = counts[others] - counts[person]
        change = ((excess[here] + gain) ** 2 - excess[here] ** 2) / (share[here] * total)
        change += ((excess[there] - gain) ** 2 - excess[there] ** 2) / (share[there, None] * total)
        cost = np.where(there == here, 0, change.sum(axis=1))
        best = np.argmin(cost)
        if cost[best] < -1e-9:
            excess[here] += gain[best]
            excess[there[best]] -= gain[best]
            part[person], part[others[best]] = there[best], here
    return part


class SessionAllocator:
    """Deals the sessions of one person after the other, so that over all of them each part gets its share of every combined
    label.

    Args:
        parts: how many.
        totals: (combined labels,) sessions of each in the whole data.
    """

    def __init__(self, parts: int, totals: np.ndarray) -> None:
        self.totals = totals
        self.quota = np.zeros((parts, len(totals)))

    def allocate(self, combined: np.ndarray, slots: np.ndarray) -> np.ndarray:
        """The part of each session of one person.

        Args:
            combined: (n,) combined label of each.
            seats: (n,) the parts that they are to fill, in any order.
        """
        free = np.bincount(slots, minlength=len(self.quota))
        self.quota += free[:, None] / len(slots) * np.bincount(combined, minlength=len(self.totals))
        part = np.empty(len(combined), dtype=int)
        for index in np.argsort(self.totals[combined], kind="stable"):  # the rarest label chooses first
            owed = self.quota[:, combined[index]]
            part[index] = np.argmax(np.where(free > 0, owed, -np.inf))
            owed[part[index]] -= 1
            free[part[index]] -= 1
        return part
