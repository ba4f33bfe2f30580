"""S-norm of the scores of benchmarks/recognition.py: each session's cosines with a cohort set its scale.

s(a, b) = ((cos(a, b) - m_a) / d_a + (cos(a, b) - m_b) / d_b) / 2, where m and d are the mean and the standard deviation of the
cosines of a session with the cohort, here the training sessions. Kenny, "Bayesian speaker verification with heavy-tailed priors",
Odyssey 2010; Matejka et al., "Analysis of score normalization in multilingual speaker recognition", Interspeech 2017.
"""

from collections.abc import Sequence

import numpy as np

_MARGIN = 0.99
"""Below 1, so that rounding leaves every Gram matrix positive definite."""


def cohort_cosines(embeddings: np.ndarray, cohort: np.ndarray) -> np.ndarray:
    """(d, n, c) float32 cosines of embeddings (d, n, k) with those (c, k) of the cohort."""
    return np.einsum("dnk,ck->dnc", _unit(embeddings), _unit(cohort)).astype(np.float32)


def s_norm(embeddings: np.ndarray, cosines: np.ndarray) -> np.ndarray:
    """(d, n, n) normalised scores of the n sessions of each draw.

    Args:
        embeddings: (d, n, k).
        cosines: (d, n, c) with the cohort, from `cohort_cosines`.
    """
    unit = _unit(embeddings)
    scores = unit @ unit.transpose(0, 2, 1)
    mean, deviation = cosines.mean(axis=2, dtype=np.float64), cosines.std(axis=2, dtype=np.float64)
    of_first = (scores - mean[:, :, None]) / np.maximum(deviation, 1e-9)[:, :, None]
    return (of_first + of_first.transpose(0, 2, 1)) / 2


def vectors_of_scores(scores: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Vectors whose cosines are the scores times one positive factor, so that scores are evaluated like embeddings.

    With a small enough factor e, the Gram matrix 1 + e S of unit vectors is positive definite, and its Cholesky factor has these
    vectors as rows. S is a matrix of scores without its diagonal, which no pair of sessions uses.

    Args:
        scores: for each fold (d, n, n), symmetric. The factor is the same for all folds and draws, whose scores are pooled.

    Returns:
        For each fold (d, n, n) float32.
    """
    pairs = [fold * (1 - np.eye(fold.shape[1])) for fold in scores]
    lowest = min(float(np.linalg.eigvalsh(fold).min()) for fold in pairs)
    factor = _MARGIN / max(-lowest, 1e-9)
    return [np.linalg.cholesky(np.eye(fold.shape[1]) + factor * fold).astype(np.float32) for fold in pairs]


def _unit(embeddings: np.ndarray) -> np.ndarray:
    exact = embeddings.astype(np.float64)
    return exact / np.maximum(np.linalg.norm(exact, axis=-1, keepdims=True), 1e-12)
