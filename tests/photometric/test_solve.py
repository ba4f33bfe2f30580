"""Least squares with and without weights, and the split into albedo and normal, compared with numpy in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fr_ps.photometric.frame import fit_frame, warp
from fr_ps.photometric.solve import least_squares, split_albedo, weighted_least_squares
from tests.photometric.surfaces import FOUR, SEVEN, THREE, Angles, directions


@pytest.mark.parametrize("angles", [THREE, FOUR, SEVEN])
def test_equals_numpys_least_squares_pixel_by_pixel(angles: Angles) -> None:
    lights = directions(angles)
    images = np.random.default_rng(0).random((len(lights), 9, 7)).astype(np.float32)
    solved = least_squares(images, lights)
    assert solved.dtype == np.float32
    for row in range(9):
        for column in range(7):
            expected = np.linalg.lstsq(lights, images[:, row, column].astype(np.float64), rcond=None)[0]
            np.testing.assert_allclose(solved[:, row, column], expected, atol=2e-6)


def test_split_gives_length_and_direction() -> None:
    scaled = np.random.default_rng(1).normal(size=(3, 8, 5)).astype(np.float32)
    albedo, normals = split_albedo(scaled)
    np.testing.assert_allclose(albedo, np.linalg.norm(scaled.astype(np.float64), axis=0), rtol=1e-6)
    np.testing.assert_allclose(albedo * normals, scaled, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=0), 1, atol=1e-6)


def test_a_pixel_without_light_has_albedo_zero_and_a_frontal_normal() -> None:
    scaled = np.ones((3, 2, 2), dtype=np.float32)
    scaled[:, 1, 0] = 0
    albedo, normals = split_albedo(scaled)
    assert albedo[1, 0] == 0
    assert normals[:, 1, 0].tolist() == [0, 0, 1]


def problem(seed: int, count: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Random pictures, lights up to the largest condition number of `prepare`, weights of all magnitudes, and a prior."""
    rng = np.random.default_rng(seed)
    lights = np.ones((count, 3))
    while np.linalg.cond(lights) > 10:
        lights = rng.normal(size=(count, 3))
        lights[:, 2] = np.abs(lights[:, 2]) + 0.3
        lights /= np.linalg.norm(lights, axis=1, keepdims=True)
    weights = 10 ** rng.uniform(-3, 0, (count, 6, 5))
    return rng.random((count, 6, 5)).astype(np.float32), lights, weights, rng.normal(size=(3, 6, 5))


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(4, 8), strongest=st.sampled_from([None, 0.01, 0.5, 20.0]))
def test_weighted_equals_numpys_least_squares_of_weighted_rows(seed: int, count: int, strongest: float | None) -> None:
    images, lights, weights, toward = problem(seed, count)
    strength = None if strongest is None else np.random.default_rng(seed).uniform(0, strongest, (6, 5))
    scaled, variance = weighted_least_squares(images, lights, weights, *(() if strength is None else (strength, toward)))
    assert scaled.dtype == np.float32
    for place in np.ndindex(6, 5):
        here = (slice(None), *place)
        root = np.sqrt(weights[here])
        rows, right_side = root[:, None] * lights, root * images[here]
        if strength is not None:
            rows = np.vstack([rows, np.sqrt(strength[place]) * np.eye(3)])
            right_side = np.concatenate([right_side, np.sqrt(strength[place]) * toward[here]])
        expected, _, _, singular = np.linalg.lstsq(rows, right_side, rcond=None)
        np.testing.assert_allclose(scaled[here], expected, atol=1e-5 * (1 + np.abs(expected).max()))
        assert variance[place] == pytest.approx(np.sum(singular**-2.0), rel=1e-6)


@pytest.mark.parametrize("angles", [THREE, FOUR, SEVEN])
def test_equal_weights_are_plain_least_squares_and_their_size_affects_only_the_variance(angles: Angles) -> None:
    lights = directions(angles)
    images = np.random.default_rng(0).random((len(lights), 9, 7)).astype(np.float32)
    scaled, variance = weighted_least_squares(images, lights, np.full(images.shape, 0.25))
    np.testing.assert_allclose(scaled, least_squares(images, lights), atol=3e-6)
    np.testing.assert_allclose(variance, 4 * np.trace(np.linalg.inv(lights.T @ lights)), rtol=1e-6)


def test_the_variance_is_that_of_noise() -> None:
    rng = np.random.default_rng(0)
    lights, weights = directions(FOUR), np.array([1.0, 0.5, 2.0, 0.1])
    # The noise of a picture with weight w has the variance 1 / w.
    noise = rng.normal(size=(4, 200, 200)) / np.sqrt(weights)[:, None, None]
    scaled, variance = weighted_least_squares(noise, lights, np.broadcast_to(weights[:, None, None], noise.shape))
    assert scaled.var(axis=(1, 2)).sum() == pytest.approx(variance[0, 0], rel=0.02)


def test_a_picture_of_negligible_weight_has_no_effect() -> None:
    truth = np.array([0.2, -0.1, 0.9])[:, None, None] * np.ones((3, 4, 4))
    lights = directions(FOUR)
    images = np.tensordot(lights, truth, axes=1)
    images[2] = 7
    weights = np.ones(images.shape)
    weights[2] = 1e-6
    np.testing.assert_allclose(weighted_least_squares(images, lights, weights)[0], truth, atol=1e-4)


@given(seed=st.integers(0, 2**32 - 1), fit=st.sampled_from(["crop", "pad", "stretch"]), size=st.integers(8, 60))
def test_solving_then_averaging_is_averaging_then_solving(seed: int, fit: str, size: int) -> None:
    rng = np.random.default_rng(seed)
    lights = directions(SEVEN)
    images = rng.random((7, rng.integers(20, 50), rng.integers(20, 50))).astype(np.float32)
    frame = fit_frame((0, 0, images.shape[2], images.shape[1]), size, fit)
    np.testing.assert_allclose(warp(least_squares(images, lights), frame), least_squares(warp(images, frame), lights), atol=5e-6)
