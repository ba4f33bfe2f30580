"""The square that a picture becomes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fr_ps.photometric.fit import frame, pad_square, resample, stretch_normals

SIDES = st.integers(8, 200)


@given(height=SIDES, width=SIDES, size=SIDES)
def test_crop_is_the_central_square_without_bending(height: int, width: int, size: int) -> None:
    to = frame(height, width, size, "crop")
    left, top, right, bottom = to.box
    assert right - left == bottom - top == min(height, width)
    assert (left + right, top + bottom) == (width, height)
    assert (to.width, to.height) == (size, size)
    assert to.stretch == pytest.approx((1, 1))


@given(height=SIDES, width=SIDES, size=SIDES)
def test_pad_and_stretch_keep_the_whole_picture(height: int, width: int, size: int) -> None:
    padded, stretched = frame(height, width, size, "pad"), frame(height, width, size, "stretch")
    assert padded.box == stretched.box == (0, 0, width, height)
    assert max(padded.width, padded.height) == size
    assert abs(padded.width - size * width / max(height, width)) <= 0.5 + (padded.width == 1)
    assert abs(padded.height - size * height / max(height, width)) <= 0.5 + (padded.height == 1)
    assert (stretched.width, stretched.height) == (size, size)


@given(height=SIDES, width=SIDES, size=SIDES, fit=st.sampled_from(["crop", "pad", "stretch"]))
def test_stretch_is_each_axis_scale_over_the_geometric_mean_of_both(height: int, width: int, size: int, fit: str) -> None:
    to = frame(height, width, size, fit)
    x, y = to.stretch
    assert x * y == pytest.approx(1)
    assert x / y == pytest.approx((to.width / (to.box[2] - to.box[0])) / (to.height / (to.box[3] - to.box[1])))


def test_squeezing_168_x_192_bends_normals_by_up_to_3_8_degrees() -> None:
    to = frame(192, 168, 112, "stretch")
    angle = np.radians(np.linspace(0, 89, 500))
    straight = np.stack([np.sin(angle), np.zeros(500), np.cos(angle)])[:, None]
    sideways = stretch_normals(straight, to)[:, 0]
    turned = np.degrees(np.arctan2(sideways[0], sideways[2])) - np.degrees(angle)
    # Between the axes: x turns by at most asin((1 - s) / (1 + s)) toward the camera, s its departure from the mean.
    s = np.sqrt(192 / 168)
    assert np.abs(turned).max() == pytest.approx(np.degrees(np.arcsin((s - 1) / (s + 1))), abs=1e-3)
    # In the picture's plane both departures add up, to the 3.8 degrees that the design names.
    flat = np.stack([np.cos(angle), np.sin(angle), np.zeros(500)])[:, None]
    bent = stretch_normals(flat, to)[:, 0]
    assert np.abs(np.degrees(np.arctan2(bent[1], bent[0]) - angle)).max() == pytest.approx(3.8, abs=0.05)


def test_resampling_averages_whole_pixels_and_keeps_the_mean() -> None:
    plane = np.random.default_rng(0).random((2, 40, 60)).astype(np.float32)
    small = resample(plane, frame(40, 60, 10, "stretch"))
    assert small.shape == (2, 10, 10)
    assert small.mean() == pytest.approx(plane.mean(), abs=0.02)
    constant = resample(np.full((1, 33, 47), 0.7, dtype=np.float32), frame(33, 47, 20, "crop"))
    np.testing.assert_allclose(constant, 0.7, rtol=1e-6)


def test_cropping_at_the_same_size_takes_the_pixels_as_they_are() -> None:
    plane = np.random.default_rng(0).random((3, 24, 40)).astype(np.float32)
    np.testing.assert_array_equal(resample(plane, frame(24, 40, 24, "crop")), plane[:, :, 8:32])


def test_padding_stands_in_the_middle() -> None:
    plane = np.arange(1.0, 7.0, dtype=np.float32).reshape(2, 3)
    padded = pad_square(plane, 5, "constant")
    assert padded.shape == (5, 5)
    assert padded.sum() == plane.sum()
    np.testing.assert_array_equal(padded[1:3, 1:4], plane)
    edge = pad_square(plane, 5, "edge")
    assert (edge[0, 0], edge[0, 4], edge[4, 0], edge[4, 4]) == (1, 3, 4, 6)
