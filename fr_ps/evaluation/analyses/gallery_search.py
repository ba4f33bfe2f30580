"""Searching a gallery of enrolled people: how high does a probe's own person come out, and who is its best rival?

Terms are those of ISO/IEC 19795-1: a search of a probe is mated if the probe's person is enrolled.
"""

from dataclasses import dataclass

import numpy as np

from fr_ps.evaluation.pairwise.similarity import LEVELS, Similarity, similarity


@dataclass(frozen=True)
class SearchScores:
    """What m searches give if a person with several gallery sessions is scored in one way.

    Attributes:
        own: (m,) float64 score of the probe's own person, NaN where it is not enrolled.
        other: (m,) float64 best score of another person, NaN where nobody else is enrolled.
        rank: (m,) of the own person, 1 is best: 1 + the number of others with a score of at least its own; 0 where it is
            not enrolled.
    """

    mated: np.ndarray
    nonmated: np.ndarray
    rank: np.ndarray


@dataclass(frozen=True)
class GallerySearch:
    """m probes, each searched among the enrolled people.

    Attributes:
        probes: (m,) rows.
        gallery: (g,) rows of the enrolled sessions; None: each probe was searched among all sessions but itself.
        people: how many are enrolled.
        maximum: a person's score is that of its best gallery session.
        mean: it is the mean over its gallery sessions.
        rival_row: (m,) the most similar gallery session of anybody else, -1 where nobody else is enrolled.
    """

    probes: np.ndarray
    gallery: np.ndarray | None
    subjects: int
    by_maximum: SearchScores
    mean: SearchScores
    top_impostor: np.ndarray

    @property
    def is_scored(self) -> np.ndarray:
        """(m,) whether the search is mated and could be wrong: somebody else is enrolled too."""
        return (self.by_maximum.rank > 0) & ~np.isnan(self.by_maximum.nonmated)

    @property
    def undefined_reason(self) -> str:
        """Why nobody can be identified; empty where somebody can."""
        if self.is_scored.any():
            return ""
        if not len(self.probes):
            return "no probe: no session, or all are enrolled"
        if not self.by_maximum.rank.any():
            why = "nobody has two sessions" if self.gallery is None else "no probe's person is enrolled"
            return f"no mated search: {why}"
        return "no search that could be wrong: one person only is enrolled"


def search_gallery(embeddings: np.ndarray, ids: np.ndarray, gallery: np.ndarray | None, block: int = 128) -> GallerySearch:
    """Search every probe by cosine; memory grows with `block` x n.

    Args:
        embeddings: (n, C); one of length 0 has the cosine 0 with all.
        ids: (n,) whose they are.
        gallery: rows of the enrolled sessions, all others are probes; None: every session is a probe among all the others.
        block: probes at a time.

    Raises:
        InputError: an embedding with NaN or infinity.
    """
    person, everyone = np.unique(ids, return_inverse=True)[1], np.arange(len(ids))
    probes = everyone if gallery is None else np.setdiff1d(everyone, gallery)
    enrolled = everyone if gallery is None else np.unique(gallery)
    columns = enrolled[np.argsort(person[enrolled], kind="stable")]  # a person's sessions side by side
    people, starts, sessions = np.unique(person[columns], return_index=True, return_counts=True)
    place = np.full(len(ids), -1)
    place[people] = np.arange(len(people))
    owner, own_place = place[person[columns]], place[person[probes]]
    itself = np.argsort(columns) if gallery is None else np.full(len(probes), -1)
    every = similarity(embeddings, ids)
    pairs = Similarity(every.left[probes], every.right[columns], every.scale)

    own, other = np.full((2, len(probes), 2), np.nan)
    rank, rival = np.zeros((len(probes), 2), dtype=int), np.full(len(probes), -1)
    for start in range(0, len(probes) if len(columns) else 0, block):
        some = slice(start, start + block)
        keys = pairs.levels(some, slice(None)).numpy()  # (b, g)
        scores = _subject_scores(keys, own_place[some], itself[some], starts, sessions)
        for way, found in enumerate(scores):
            own[some, way], other[some, way], rank[some, way] = _rank(found, own_place[some])
        np.putmask(keys, own_place[some, None] == owner, -1)
        best = keys.argmax(axis=1)
        rival[some] = np.where(keys[np.arange(len(keys)), best] < 0, -1, columns[best])
    own, other = every.scale.scores(own), every.scale.scores(other)
    maximum, mean = (SearchScores(own[:, way], other[:, way], rank[:, way]) for way in (0, 1))
    return GallerySearch(probes, None if gallery is None else enrolled, len(people), maximum, mean, rival)


def _subject_scores(
    keys: np.ndarray, mated: np.ndarray, self_column: np.ndarray, starts: np.ndarray, sessions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(b, people) the maximum and the mean over each person's sessions; -1 where none is left.

    Args:
        keys: (b, g), side by side for each person; that of a probe with itself becomes -1.
        own: (b,) place of the probe's person among the people, -1 where it has none.
        itself: (b,) the probe's own column, -1 where it has none.
        starts: (people,) the first column of each.
        sessions: (people,) the number of columns of each.
    """
    # Sums of whole numbers are exact, so that equal means tie; those of so few fit into half the memory.
    total = np.add.reduceat(keys, starts, axis=1, dtype=np.int32 if sessions.max() * LEVELS < 2**31 else np.int64)
    mean = total / sessions
    (down,) = np.nonzero(self_column >= 0)
    mated, self_column = mated[down], self_column[down]
    left = sessions[mated] - 1
    mean[down, mated] = np.where(left, (total[down, mated] - keys[down, self_column]) / np.maximum(left, 1), -1)
    keys[down, self_column] = -1
    return np.maximum.reduceat(keys, starts, axis=1), mean


def _rank(scores: np.ndarray, mated: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(b,) own score, best other score and rank; (b, people) `scores` lose the own ones."""
    (down,) = np.nonzero(mated >= 0)
    mine = np.full(len(mated), np.nan)
    mine[down] = scores[down, mated[down]]
    mine[mine < 0] = np.nan
    rank = np.count_nonzero(scores >= mine[:, None], axis=1)  # its own score is one of these, and nothing is at least NaN
    scores[down, mated[down]] = -1
    other = scores.max(axis=1)
    return mine, np.where(other < 0, np.nan, other), rank
