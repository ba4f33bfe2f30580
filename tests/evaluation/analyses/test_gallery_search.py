"""Searches against loops over exact cosines."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fr_ps.errors import InputError
from fr_ps.evaluation.analyses.gallery_search import search_gallery

SHARES = st.sampled_from([None, 0.0, 0.5, 1.0])
"""Shares of the sessions that are enrolled; None: each session is searched among all others."""


def signs(seed: int, count: int, people: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings, some of them zero, whose cosines are multiples of 1/16 and often equal; and subjects."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice([-1.0, 1.0], size=(max(1, count // 2), 16))
    kinds[:, 6:] = 1
    embeddings = kinds[rng.integers(len(kinds), size=count)]
    embeddings[rng.random(count) < 0.1] = 0
    return embeddings.astype(np.float32), rng.integers(people, size=count).astype(str)


def faces(seed: int, people: int, sessions: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    ids = np.repeat([f"p{person:03}" for person in range(people)], sessions)
    centres = np.repeat(rng.standard_normal((people, 16)), sessions, axis=0)
    return (centres + noise * rng.standard_normal(centres.shape)).astype(np.float32), ids


def some_rows(seed: int, count: int, share: float | None) -> np.ndarray | None:
    return None if share is None else np.flatnonzero(np.random.default_rng(seed).random(count) < share)


def scores_by_loop(embeddings: np.ndarray, ids: np.ndarray, gallery: np.ndarray | None, probe: int) -> tuple[dict, dict]:
    """The exact score of every enrolled subject: that of its best session, and the mean."""
    whole = embeddings.astype(int)
    enrolled = [row for row in (range(len(ids)) if gallery is None else gallery) if row != probe]
    best, mean = {}, {}
    for person in {ids[row] for row in enrolled}:
        scores = [Fraction(int(whole[probe] @ whole[row]), 16) for row in enrolled if ids[row] == person]
        best[person], mean[person] = max(scores), sum(scores, Fraction(0)) / len(scores)
    return best, mean


@given(seed=st.integers(0, 10**6), count=st.integers(1, 30), people=st.integers(1, 8), share=SHARES, block=st.integers(1, 40))
def test_a_search_equals_a_loop_over_subjects(seed: int, count: int, people: int, share: float | None, block: int) -> None:
    embeddings, ids = signs(seed, count, people)
    gallery = some_rows(seed, count, share)
    found = search_gallery(embeddings, ids, gallery, block)
    assert found.probes.tolist() == [row for row in range(count) if gallery is None or row not in gallery]
    assert found.subjects == len(set(ids if gallery is None else ids[gallery]))
    for place, probe in enumerate(found.probes):
        own = ids[probe]
        for ranking, scores in zip((found.by_maximum, found.mean), scores_by_loop(embeddings, ids, gallery, probe)):
            others = [score for person, score in scores.items() if person != own]
            assert ranking.rank[place] == (1 + sum(score >= scores[own] for score in others) if own in scores else 0)
            assert ranking.mated[place] == pytest.approx(float(scores.get(own, np.nan)), abs=1e-6, nan_ok=True)
            assert ranking.nonmated[place] == pytest.approx(float(max(others, default=np.nan)), abs=1e-6, nan_ok=True)


@given(seed=st.integers(0, 10**6), count=st.integers(1, 30), people=st.integers(1, 8), share=SHARES)
def test_the_top_impostor_has_the_best_non_mated_score(seed: int, count: int, people: int, share: float | None) -> None:
    embeddings, ids = signs(seed, count, people)
    gallery = some_rows(seed, count, share)
    found = search_gallery(embeddings, ids, gallery)
    has_impostor = found.top_impostor >= 0
    assert (has_impostor == ~np.isnan(found.by_maximum.nonmated)).all()
    rows, probes = found.top_impostor[has_impostor], found.probes[has_impostor]
    assert (ids[rows] != ids[probes]).all()
    assert gallery is None or np.isin(rows, gallery).all()
    assert (embeddings[rows] * embeddings[probes]).sum(axis=1) / 16 == pytest.approx(
        found.by_maximum.nonmated[has_impostor], abs=1e-6
    )


def test_the_probe_itself_is_in_neither_the_maximum_nor_the_mean() -> None:
    embeddings = np.array([[1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)
    found = search_gallery(embeddings, np.array(["a", "a", "b"]), None)
    assert found.by_maximum.mated[:2] == pytest.approx([0, 0], abs=1e-6)
    assert found.mean.mated[:2] == pytest.approx([0, 0], abs=1e-6)
    assert np.isnan(found.by_maximum.mated[2])
    assert found.by_maximum.nonmated == pytest.approx([0.6, 0.8, 0.8], abs=1e-6)
    assert found.mean.nonmated == pytest.approx([0.6, 0.8, 0.7], abs=1e-6)
    assert found.by_maximum.rank.tolist() == [2, 2, 0]
    assert found.top_impostor.tolist() == [2, 2, 1]


def test_a_nan_embedding_is_rejected() -> None:
    embeddings, ids = faces(0, 3, 2, 1.0)
    embeddings[4, 1] = np.nan
    with pytest.raises(InputError, match="p002"):
        search_gallery(embeddings, ids, None)
