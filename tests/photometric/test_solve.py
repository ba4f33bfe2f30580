"""Least squares and its split, against numpy's solver in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fr_ps.photometric.fit import frame, resample
from fr_ps.photometric.solve import least_squares, split
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
    albedo, normals = split(scaled)
    np.testing.assert_allclose(albedo, np.linalg.norm(scaled.astype(np.float64), axis=0), rtol=1e-6)
    np.testing.assert_allclose(albedo * normals, scaled, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=0), 1, atol=1e-6)


def test_a_pixel_without_light_has_albedo_zero_and_looks_at_the_camera() -> None:
    scaled = np.ones((3, 2, 2), dtype=np.float32)
    scaled[:, 1, 0] = 0
    albedo, normals = split(scaled)
    assert albedo[1, 0] == 0
    assert normals[:, 1, 0].tolist() == [0, 0, 1]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), fit=st.sampled_from(["crop", "pad", "stretch"]), size=st.integers(8, 60))
def test_solving_then_averaging_is_averaging_then_solving(seed: int, fit: str, size: int) -> None:
    rng = np.random.default_rng(seed)
    lights = directions(SEVEN)
    images = rng.random((7, rng.integers(20, 50), rng.integers(20, 50))).astype(np.float32)
    to = frame(*images.shape[1:], size, fit)
    np.testing.assert_allclose(
        resample(least_squares(images, lights), to), least_squares(resample(images, to), lights), atol=5e-6
    )
