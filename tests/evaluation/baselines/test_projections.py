"""Principal components and WCCN: equal to a float64 computation."""

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from fr_ps.evaluation.baselines.projections import COMPONENTS, principal_components, wccn
from tests.evaluation.baselines.smooth_maps import cosines, whitened


def test_beyond_500_sessions_randomised_components_agree_with_the_svd() -> None:
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(640, 300)) * np.r_[np.geomspace(10, 1, 150), np.full(150, 0.05)]).astype(np.float32)
    mean, components = principal_components(vectors[:600].copy(), whiten=True, seed=0)
    assert components.shape == (300, COMPONENTS)
    got = (vectors[600:] - mean) @ components
    np.testing.assert_allclose(cosines(got), cosines(whitened(vectors[:600], vectors[600:], COMPONENTS)), atol=1e-3)


def test_whitened_components_vary_by_1_and_the_others_by_1_together() -> None:
    vectors = (np.random.default_rng(0).normal(size=(40, 90)) * np.geomspace(10, 0.1, 90)).astype(np.float32)
    for whiten in (True, False):
        mean, components = principal_components(vectors.copy(), whiten=whiten, seed=0)
        covariance = np.cov(((vectors - mean) @ components).T)
        assert components.shape == (90, 39)
        if whiten:
            np.testing.assert_allclose(covariance, np.eye(39), atol=1e-3)
        else:
            assert np.trace(covariance) == pytest.approx(1, abs=1e-4)
            assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-5


def test_components_without_variance_are_dropped() -> None:
    vectors = np.random.default_rng(0).normal(size=(10, 50)).astype(np.float32)
    assert principal_components(np.repeat(vectors, 3, axis=0), whiten=True, seed=0)[1].shape == (50, 9)
    assert principal_components(np.repeat(vectors[:1], 3, axis=0), whiten=True, seed=0)[1].shape == (50, 0)
    assert principal_components(vectors[:1].copy(), whiten=True, seed=0)[1].shape == (50, 0)


def test_wccn_makes_the_within_subject_covariance_the_identity() -> None:
    rng = np.random.default_rng(0)
    mixing = np.linalg.qr(rng.normal(size=(8, 8)))[0] * np.geomspace(3, 1, 8)
    ids = rng.permutation(np.repeat(np.arange(40), rng.integers(2, 100, size=40)))
    scores = 5 * rng.normal(size=(40, 8))[ids] + rng.normal(size=(len(ids), 8)) @ mixing
    residuals = np.array([score - scores[ids == person].mean(axis=0) for score, person in zip(scores, ids)])
    shrunk = LedoitWolf(assume_centered=True).fit(residuals).covariance_
    normaliser = wccn(scores, np.array([f"p{person}" for person in ids]))
    np.testing.assert_allclose(normaliser.T @ shrunk @ normaliser, np.eye(8), atol=1e-8)
    np.testing.assert_allclose(normaliser.T @ (residuals.T @ residuals / len(ids)) @ normaliser, np.eye(8), atol=0.05)
