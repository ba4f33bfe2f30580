"""Pixels, averaged normals and eigenfaces: equal to a float64 computation."""

import numpy as np
import pytest

from fr_ps.evaluation.baselines import single_modality
from fr_ps.evaluation.baselines.embeddings import baseline_embeddings
from fr_ps.evaluation.baselines.single_modality import normals_10x10
from tests.evaluation.baselines.smooth_maps import SIDE, cosines, people, whitened


def test_eigenfaces_are_the_whitened_svd_of_the_training_maps() -> None:
    store, labels = people(12, 4)
    train, tested = np.arange(32), np.arange(32, 48)
    found = baseline_embeddings(store, labels, train, tested).embeddings["eigenfaces_depth"]
    flat = store.maps["depth"].reshape(48, -1)
    assert found.shape == (16, 31)
    np.testing.assert_allclose(cosines(found), cosines(whitened(flat[train], flat[tested], 31)), atol=1e-3)


def test_pixels_and_10x10_normals_are_those_of_the_maps_in_the_order_of_the_rows() -> None:
    store, labels = people(30, 4, "normal")
    tested = np.random.default_rng(0).permutation(120)[:90]  # more than one batch
    found = baseline_embeddings(store, labels, np.arange(12), tested).embeddings
    np.testing.assert_array_equal(found["pixels_normal"], store.maps["normal"][tested].reshape(90, -1))
    np.testing.assert_array_equal(found["normals_10x10"], normals_10x10(store.maps["normal"][tested]))


def test_pixels_that_would_not_fit_in_memory_are_omitted(monkeypatch: pytest.MonkeyPatch) -> None:
    store, labels = people(6, 2, "albedo", "normal")
    monkeypatch.setattr(single_modality, "MAX_PIXELS", 4 * SIDE**2)
    found = baseline_embeddings(store, labels, np.arange(8), np.arange(8, 12))
    assert found.omitted == {"pixels_normal": f"4 maps have more than {4 * SIDE**2} values"}
    assert "pixels_albedo" in found.embeddings


def test_normals_of_10_x_10_pixels_are_unit_means_over_parts_of_the_map() -> None:
    maps = people(2, 2, "normal")[0].maps["normal"]
    got = normals_10x10(maps).reshape(4, 3, 10, 10)
    for row in range(10):
        for column in range(10):
            mean = maps[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].astype(np.float64).mean(axis=(2, 3))
            wanted = mean / np.linalg.norm(mean, axis=1, keepdims=True)
            np.testing.assert_allclose(got[:, :, row, column], wanted, atol=1e-5)
