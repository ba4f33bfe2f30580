"""Search of probes in a gallery: rank and score of the probe's own subject, and its top impostor.

Terms of ISO/IEC 19795-1: a probe is a session to identify; its search is mated if its subject is enrolled.
"""

from dataclasses import dataclass

import numpy as np

from fr_ps.device import full_float32
from fr_ps.evaluation.pairwise.similarity import LEVELS, SimilarityScorer, similarity_scorer


@dataclass(frozen=True)
class SearchScores:
    """Results of m searches with one rule for the score of a subject with several gallery sessions.

    Attributes:
        mated: (m,) float64 score of the probe's own subject, NaN if it is not enrolled.
        nonmated: (m,) float64 best score of another subject, NaN if no other is enrolled.
        rank: (m,) rank of the probe's own subject, 1 + number of other subjects with at least its score; 0 if not enrolled.
    """

    mated: np.ndarray
    nonmated: np.ndarray
    rank: np.ndarray


@dataclass(frozen=True)
class GallerySearch:
    """m probes, each searched among the enrolled subjects.

    Attributes:
        probes: (m,) rows.
        gallery: (g,) rows of the enrolled sessions; None: each probe is searched among all other sessions.
        subjects: number of enrolled subjects.
        by_maximum: the score of a subject is that of its best gallery session.
        mean: the score of a subject is the mean over its gallery sessions.
        top_impostor: (m,) row of the most similar gallery session of another subject, -1 if no other is enrolled.
    """

    probes: np.ndarray
    gallery: np.ndarray | None
    subjects: int
    by_maximum: SearchScores
    mean: SearchScores
    top_impostor: np.ndarray

    @property
    def is_scored(self) -> np.ndarray:
        """(m,) True if the search is mated and another subject is enrolled, so that it can be wrong."""
        return (self.by_maximum.rank > 0) & ~np.isnan(self.by_maximum.nonmated)

    @property
    def undefined_reason(self) -> str:
        """Why identification is undefined; empty if it is defined."""
        if self.is_scored.any():
            return ""
        if not len(self.probes):
            return "no probe: no session, or all are enrolled"
        if not self.by_maximum.rank.any():
            why = "no subject has two sessions" if self.gallery is None else "no subject of a probe is enrolled"
            return f"no mated search: {why}"
        return "only one subject is enrolled"


@full_float32()
def search_gallery(embeddings: np.ndarray, ids: np.ndarray, gallery: np.ndarray | None, block: int = 128) -> GallerySearch:
    """Search every probe by cosine; memory grows with `block` x n.

    Args:
        embeddings: (n, C); a zero embedding has cosine 0 with all.
        ids: (n,) subject of each session.
        gallery: rows of the enrolled sessions, all others are probes; None: every session is a probe among all others.
        block: probes per block.

    Raises:
        InputError: an embedding with NaN or infinity.
    """
    subject_of, all_rows = np.unique(ids, return_inverse=True)[1], np.arange(len(ids))
    probes = all_rows if gallery is None else np.setdiff1d(all_rows, gallery)
    enrolled = all_rows if gallery is None else np.unique(gallery)
    columns = enrolled[np.argsort(subject_of[enrolled], kind="stable")]  # the sessions of a subject are adjacent
    subjects, starts, sessions = np.unique(subject_of[columns], return_index=True, return_counts=True)
    index = np.full(len(ids), -1)  # subject to its index among the enrolled subjects
    index[subjects] = np.arange(len(subjects))
    column_subject, probe_subject = index[subject_of[columns]], index[subject_of[probes]]
    self_column = np.argsort(columns) if gallery is None else np.full(len(probes), -1)
    scorer = similarity_scorer(embeddings, ids)
    search_scorer = SimilarityScorer(scorer.left[probes], scorer.right[columns], scorer.scale)

    mated_level, nonmated_level = np.full((2, len(probes), 2), np.nan)
    rank, top_impostor = np.zeros((len(probes), 2), dtype=int), np.full(len(probes), -1)
    for start in range(0, len(probes) if len(columns) else 0, block):
        part = slice(start, start + block)
        levels = search_scorer.levels(part, slice(None)).numpy()  # (b, g)
        subject_levels = _subject_levels(levels, probe_subject[part], self_column[part], starts, sessions)
        for rule, by_rule in enumerate(subject_levels):
            mated_level[part, rule], nonmated_level[part, rule], rank[part, rule] = _rank(by_rule, probe_subject[part])
        np.putmask(levels, probe_subject[part, None] == column_subject, -1)
        best = levels.argmax(axis=1)
        top_impostor[part] = np.where(levels[np.arange(len(levels)), best] < 0, -1, columns[best])
    mated_score, nonmated_score = scorer.scale.scores(mated_level), scorer.scale.scores(nonmated_level)
    maximum, mean = (SearchScores(mated_score[:, rule], nonmated_score[:, rule], rank[:, rule]) for rule in (0, 1))
    return GallerySearch(probes, None if gallery is None else enrolled, len(subjects), maximum, mean, top_impostor)


def _subject_levels(
    levels: np.ndarray, probe_subject: np.ndarray, self_column: np.ndarray, starts: np.ndarray, sessions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(b, subjects) maximum and mean level over each subject's sessions; -1 if no session is left.

    Args:
        levels: (b, g) levels, those of a subject adjacent; the level of a probe with itself becomes -1.
        probe_subject: (b,) index of the probe's subject among the enrolled subjects, -1 if it is not enrolled.
        self_column: (b,) column of the probe itself, -1 if it is not enrolled.
        starts: (subjects,) first column of each subject.
        sessions: (subjects,) number of columns of each subject.
    """
    # Sums of whole numbers are exact, so that equal means tie. int32 is used if it cannot overflow.
    total = np.add.reduceat(levels, starts, axis=1, dtype=np.int32 if sessions.max() * LEVELS < 2**31 else np.int64)
    mean = total / sessions
    (rows,) = np.nonzero(self_column >= 0)
    probe_subject, self_column = probe_subject[rows], self_column[rows]
    remaining = sessions[probe_subject] - 1
    mean[rows, probe_subject] = np.where(
        remaining, (total[rows, probe_subject] - levels[rows, self_column]) / np.maximum(remaining, 1), -1
    )
    levels[rows, self_column] = -1
    return np.maximum.reduceat(levels, starts, axis=1), mean


def _rank(levels: np.ndarray, probe_subject: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(b,) mated level, highest non-mated level and rank; overwrites the mated entries of the (b, subjects) `levels`."""
    (rows,) = np.nonzero(probe_subject >= 0)
    mated_level = np.full(len(probe_subject), np.nan)
    mated_level[rows] = levels[rows, probe_subject[rows]]
    mated_level[mated_level < 0] = np.nan
    rank = np.count_nonzero(levels >= mated_level[:, None], axis=1)  # includes the mated one; 0 for NaN
    levels[rows, probe_subject[rows]] = -1
    nonmated_level = levels.max(axis=1)
    return mated_level, np.where(nonmated_level < 0, np.nan, nonmated_level), rank
