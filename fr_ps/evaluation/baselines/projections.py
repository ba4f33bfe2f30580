"""Linear projections fitted to vectors: principal components, and normalisation of the covariance within subjects (WCCN)."""

from collections.abc import Mapping

import numpy as np
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA

from fr_ps.evaluation.baselines.map_reader import MapReader, ToVectors
from fr_ps.evaluation.baselines.training_rows import MapSources

COMPONENTS = 150
"""Largest number of principal components."""
_EXACT_UP_TO = 500
_RANK_TOLERANCE = 1e-5  # of the largest standard deviation; smaller ones are rounding error, which whitening would amplify


def principal_components(vectors: np.ndarray, *, whiten: bool, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and scaled components (D, k) of (n, D) vectors, for (x - mean) @ components; overwrites the vectors.

    k is min(`COMPONENTS`, n - 1) without components of no variance; 0 for equal vectors. The components are exact for up to 500
    vectors, else from a randomised SVD (Halko, Martinsson and Tropp, "Finding structure with randomness", SIAM Review 2011).

    Args:
        vectors: (n, D) float32.
        whiten: scale each component to variance 1; False: scale all alike, to a total variance of 1.
        seed: random seed of the SVD.
    """
    count = min(COMPONENTS, len(vectors) - 1, vectors.shape[1])
    if count < 1 or np.ptp(vectors, axis=0).max() <= _RANK_TOLERANCE * np.abs(vectors[0]).max():
        return vectors[0], np.zeros((vectors.shape[1], 0), dtype=np.float32)
    solver = "full" if min(vectors.shape) <= _EXACT_UP_TO else "randomized"
    fitted = PCA(count, svd_solver=solver, copy=False, random_state=seed).fit(vectors)
    deviations = np.sqrt(fitted.explained_variance_)
    kept = deviations > _RANK_TOLERANCE * deviations[0]
    scale = deviations[kept] if whiten else np.linalg.norm(deviations[kept])
    return fitted.mean_, fitted.components_[kept].T / scale


def fit_components(
    reader: MapReader, functions: Mapping[str, ToVectors], sources: MapSources, *, whiten: bool, seed: int
) -> dict[str, ToVectors]:
    """Name of each function to one that projects its vectors on their `principal_components`, fitted on the maps of `sources`."""
    fitted = reader.vectors(functions, sources)
    return {name: _components_of(one, fitted[name], whiten=whiten, seed=seed) for name, one in functions.items()}


def wccn(scores: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """(k, k) B that normalises (n, k) scores @ B: B B^T = W^-1, W being their covariance within the (n,) subjects.

    W is pooled, so a subject weighs by its sessions, and shrunk toward a multiple of the identity (Ledoit and Wolf, "A
    well-conditioned estimator for large-dimensional covariance matrices", Journal of Multivariate Analysis 2004). If no subject
    has differing scores, W is undefined and B is (k, 0).
    """
    _, subject_of, counts = np.unique(ids, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), scores.shape[1]))
    np.add.at(sums, subject_of, scores)
    residuals = scores - (sums / counts[:, None])[subject_of]
    if not np.abs(residuals).max(initial=0) > _RANK_TOLERANCE * np.abs(scores).max(initial=0):
        return np.zeros((scores.shape[1], 0))
    within = LedoitWolf(assume_centered=True).fit(residuals).covariance_
    return np.linalg.cholesky(np.linalg.inv(within))


def _components_of(function: ToVectors, fitted: np.ndarray, *, whiten: bool, seed: int) -> ToVectors:
    mean, components = principal_components(fitted, whiten=whiten, seed=seed)
    return lambda maps: (function(maps) - mean) @ components
