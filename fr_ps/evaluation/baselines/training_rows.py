"""The training rows that baselines are fitted on, and the jittered copies of their maps."""

from collections.abc import Sequence

import numpy as np

from fr_ps.data.labels import Labels
from fr_ps.evaluation.jitter import TEST_SEED

MAX_SESSIONS = 2000
"""Largest number of training sessions, and of maps for the principal components."""

MapSources = Sequence[tuple[np.ndarray, int | None]]
"""Rows, and the jitter seed of their maps; None: no jitter."""


def sample_subjects(labels: Labels, rows: np.ndarray, seed: int) -> np.ndarray:
    """At most `MAX_SESSIONS` of the (n,) rows: all sessions of randomly chosen subjects, sorted by subject and session.

    A subject with more sessions than fit is skipped.
    """
    rows = rows[np.lexsort((labels.sessions[rows], labels.ids[rows]))]
    _, subject_of, counts = np.unique(labels.ids[rows], return_inverse=True, return_counts=True)
    chosen, room = np.zeros(len(counts), dtype=bool), MAX_SESSIONS
    for candidate in np.random.default_rng(seed).permutation(len(counts)):
        if counts[candidate] <= room:
            chosen[candidate] = True
            room -= counts[candidate]
    return rows[chosen[subject_of]]


def rows_with_several_sessions(labels: Labels, rows: np.ndarray) -> np.ndarray:
    """Those of the (n,) rows whose subjects have two sessions or more among them."""
    _, subject_of, counts = np.unique(labels.ids[rows], return_inverse=True, return_counts=True)
    return rows[counts[subject_of] > 1]


def with_jittered_copies(rows: np.ndarray, seed: int, copies: int) -> MapSources:
    """The maps of the (n,) rows, then their jittered copies, none of which equals the jittered test map of its session."""
    first = TEST_SEED + 1 + seed * copies
    return [(rows, None), *((rows, first + copy) for copy in range(copies))]


def sample_maps(sources: MapSources, seed: int) -> MapSources:
    """A random sample of `MAX_SESSIONS` of the maps; all if there are no more."""
    sizes = [len(rows) for rows, _ in sources]
    chosen = np.sort(np.random.default_rng(seed).permutation(sum(sizes))[:MAX_SESSIONS])
    parts = np.split(chosen, np.searchsorted(chosen, np.cumsum(sizes)[:-1]))
    starts = np.cumsum([0, *sizes[:-1]])
    return [(rows[part - start], jitter_seed) for (rows, jitter_seed), part, start in zip(sources, parts, starts)]


def count_maps(sources: MapSources) -> int:
    """Number of maps of all sources."""
    return sum(len(rows) for rows, _ in sources)
