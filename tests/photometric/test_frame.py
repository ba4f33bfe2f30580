"""Frames: positions of their points, resampled pictures, rotated directions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fr_ps.photometric.captures import Capture
from fr_ps.photometric.frame import Frame, fit_frame, inside_mask, rotate_in_plane, warp
from fr_ps.photometric.maps import compute_maps
from fr_ps.photometric.solve import least_squares, split_albedo
from tests.photometric.surfaces import FOUR, degrees, directions, grid, hill, normals, render

FITS = ("crop", "pad", "stretch")
EDGES = st.integers(-20, 60)
SIDES = st.integers(1, 200)
ANGLES = st.floats(-math.pi, math.pi)

frames = st.builds(
    Frame,
    x=st.floats(-10, 60),
    y=st.floats(-10, 60),
    width=st.floats(4, 80),
    height=st.floats(4, 80),
    angle=ANGLES,
    size=st.integers(1, 24),
)


def by_hand(frame: Frame, right: float, down: float) -> tuple[float, float]:
    """A point of the square in the picture: scaled about the middle, then rotated back, with y upward."""
    x = (right / frame.size - 0.5) * frame.width
    y = (0.5 - down / frame.size) * frame.height
    back = complex(x, y) * complex(math.cos(frame.angle), -math.sin(frame.angle))
    return frame.x + back.real, frame.y - back.imag


@given(left=EDGES, top=EDGES, width=SIDES, height=SIDES, size=SIDES)
def test_crop_is_the_central_square_pad_the_square_around_and_stretch_the_box(
    left: int, top: int, width: int, height: int, size: int
) -> None:
    box = (left, top, left + width, top + height)
    sides = {"crop": (min(width, height),) * 2, "pad": (max(width, height),) * 2, "stretch": (width, height)}
    for fit in FITS:
        frame = fit_frame(box, size, fit)
        assert (frame.width, frame.height) == sides[fit]
        assert (frame.angle, frame.size) == (0, size)
        corners = frame.to_source(np.array([[0, 0], [size, size]]))
        np.testing.assert_allclose(corners.sum(axis=0), (2 * left + width, 2 * top + height), atol=1e-9)
        np.testing.assert_allclose(corners[1] - corners[0], sides[fit], atol=1e-9)


@given(frame=frames)
def test_points_of_the_square_are_mapped_to_the_picture_as_by_complex_numbers(frame: Frame) -> None:
    points = np.random.default_rng(0).uniform(-2, frame.size + 2, (7, 2))
    expected = [by_hand(frame, *point) for point in points]
    np.testing.assert_allclose(frame.to_source(points), expected, atol=1e-9)
    np.testing.assert_allclose(frame.to_source(points.reshape(7, 1, 2))[:, 0], expected, atol=1e-9)


@given(frame=frames)
def test_stretch_is_each_axis_scale_over_the_geometric_mean_of_both(frame: Frame) -> None:
    x, y = frame.stretch
    assert x * y == pytest.approx(1)
    assert x / y == pytest.approx((frame.size / frame.width) / (frame.size / frame.height))


@given(frame=frames, height=st.integers(1, 60), width=st.integers(1, 60))
def test_pixels_are_inside_if_their_corners_are_in_the_picture(frame: Frame, height: int, width: int) -> None:
    got = inside_mask(frame, height, width)
    assert got.shape == (frame.size, frame.size)
    slack = 1e-5 * max(height, width)
    for row in range(frame.size):
        for column in range(frame.size):
            corners = [by_hand(frame, column + i, row + j) for i in (0, 1) for j in (0, 1)]
            depth = min(min(x, width - x, y, height - y) for x, y in corners)
            if abs(depth) > slack:
                assert got[row, column] == (depth > 0)


@given(height=st.integers(8, 90), width=st.integers(8, 90), size=st.integers(1, 40), fit=st.sampled_from(["crop", "stretch"]))
def test_crop_and_stretch_stay_in_the_picture_to_the_last_pixel(height: int, width: int, size: int, fit: str) -> None:
    assert inside_mask(fit_frame((0, 0, width, height), size, fit), height, width).all()


def ramp(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 0.31 * x - 0.17 * y + 2


def smooth(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 0.5 + 0.3 * np.sin(x / 7) * np.cos(y / 9) + 0.01 * x


def pixel_places(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """x and y in the picture of the middle of every pixel of the square."""
    middles = np.arange(frame.size) + 0.5
    return tuple(np.moveaxis(np.array([[by_hand(frame, x, y) for x in middles] for y in middles]), -1, 0))


def picture_of(function, height: int, width: int) -> np.ndarray:
    """A function of x right and y down from the top left corner, at the middle of every pixel."""
    y, x = np.mgrid[:height, :width] + 0.5
    return function(x, y)


@given(
    angle=ANGLES.filter(bool),
    shift=st.tuples(st.floats(-6, 6), st.floats(-6, 6)),
    side=st.floats(6, 40),
    aspect=st.floats(0.7, 1.4),
    size=st.integers(4, 40),
)
def test_a_linear_ramp_stays_exact_however_it_is_turned_and_scaled(
    angle: float, shift: tuple[float, float], side: float, aspect: float, size: int
) -> None:
    # Far from the border, whose pixels must not be averaged in.
    frame = Frame(72 + shift[0], 72 + shift[1], side, side * aspect, angle, size)
    planes = np.stack([picture_of(ramp, 144, 144), picture_of(lambda x, y: y - x, 144, 144)])
    warped = warp(planes, frame)
    assert warped.dtype == np.float32
    assert warped.shape == (2, size, size)
    x, y = pixel_places(frame)
    np.testing.assert_allclose(warped[0], ramp(x, y), atol=2e-4)
    np.testing.assert_allclose(warped[1], y - x, atol=1e-3)


@pytest.mark.parametrize(("side", "size"), [(40, 40), (61, 40), (37, 40), (120, 25), (33.5, 56)])
def test_an_upright_ramp_stays_within_a_sixteenth_of_a_pixel(side: float, size: int) -> None:
    frame = Frame(70.3, 73.1, side, 0.9 * side, 0.0, size)
    x, y = pixel_places(frame)
    np.testing.assert_allclose(warp(picture_of(lambda x, y: x, 144, 144)[None], frame)[0], x, atol=1 / 16)
    np.testing.assert_allclose(warp(picture_of(lambda x, y: y, 144, 144)[None], frame)[0], y, atol=1 / 16)


@pytest.mark.parametrize("degrees", [-130, -35, 10, 80, 180])
@pytest.mark.parametrize(("side", "size"), [(48, 48), (48, 80), (60, 33)])
def test_a_picture_turns_by_the_angle_counter_clockwise(degrees: int, side: float, size: int) -> None:
    frame = Frame(50, 46, side, side, math.radians(degrees), size)
    x, y = pixel_places(frame)
    np.testing.assert_allclose(warp(picture_of(smooth, 96, 100)[None], frame)[0], smooth(x, y), atol=0.01)


@pytest.mark.parametrize("turns", range(4))
def test_quarter_turns_are_numpys(turns: int) -> None:
    plane = np.random.default_rng(0).random((2, 24, 24)).astype(np.float32)
    warped = warp(plane, Frame(12, 12, 24, 24, turns * math.pi / 2, 24))
    np.testing.assert_allclose(warped, np.rot90(plane, turns, axes=(1, 2)), atol=1e-5)


@pytest.mark.parametrize("factor", [2, 3, 4, 6])
def test_whole_pixels_that_merge_are_averaged_in_a_turned_frame_and_in_one_with_a_margin(factor: int) -> None:
    plane = np.random.default_rng(0).random((2, 12 * factor, 12 * factor)).astype(np.float32)
    blocks = plane.reshape(2, 12, factor, 12, factor).mean(axis=(2, 4), dtype=np.float64)
    middle, side = 6 * factor, 12 * factor
    turned = warp(plane, Frame(middle, middle, side, side, math.pi / 2, 12))
    np.testing.assert_allclose(turned, np.rot90(blocks, axes=(1, 2)), atol=1e-5)
    padded = warp(plane, Frame(middle, middle, 14 * factor, 14 * factor, 0.0, 14))
    np.testing.assert_allclose(padded[:, 1:-1, 1:-1], blocks, atol=1e-6)


def triangles(start: float, side: float, size: int, length: int) -> np.ndarray:
    """(size, length) weights of the source pixels along one axis, linear to 0 at the middle of the next output pixel."""
    step = side / size
    away = np.arange(length)[None] + 0.5 - (start + (np.arange(size)[:, None] + 0.5) * step)
    weights = np.maximum(0, 1 - np.abs(away) / max(step, 1))
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("box", "size"), [((0, 0, 60, 40), 20), ((3.5, 2.25, 55, 37), 33), ((10, 10, 30, 28), 45)])
def test_an_upright_frame_weighs_pixels_by_a_triangle(box: tuple[float, float, float, float], size: int) -> None:
    plane = np.random.default_rng(0).random((1, 40, 60)).astype(np.float32)
    left, top, right, bottom = box
    expected = triangles(top, bottom - top, size, 40) @ plane[0] @ triangles(left, right - left, size, 60).T
    np.testing.assert_allclose(warp(plane, fit_frame(box, size, "stretch"))[0], expected, atol=1e-5)


@pytest.mark.parametrize(("height", "width", "size"), [(40, 60, 10), (33, 47, 20), (168, 192, 112), (50, 50, 37)])
def test_all_source_pixels_are_averaged_with_similar_weight(height: int, width: int, size: int) -> None:
    """Averaging n pixels reduces noise to about 1 / sqrt(n) if no pixel is skipped."""
    plane = np.random.default_rng(0).normal(size=(20, height, width)).astype(np.float32)
    left = warp(plane, fit_frame((0, 0, width, height), size, "stretch")).std()
    merged = height * width / size**2
    assert left < 1.35 / math.sqrt(merged)
    constant = warp(np.full((1, height, width), 0.7, dtype=np.float32), fit_frame((0, 0, width, height), size, "stretch"))
    np.testing.assert_allclose(constant, 0.7, rtol=1e-6)


def test_cropping_at_the_same_size_takes_the_pixels_as_they_are() -> None:
    plane = np.random.default_rng(0).random((3, 24, 40)).astype(np.float32)
    np.testing.assert_array_equal(warp(plane, fit_frame((0, 0, 40, 24), 24, "crop")), plane[:, :, 8:32])


def test_outside_the_picture_is_0() -> None:
    frame = Frame(0, 10, 40, 40, 0.4, 30)
    warped = warp(np.ones((1, 20, 20)), frame)[0]
    x, y = pixel_places(frame)
    far = (x < -2) | (y < -2) | (x > 22) | (y > 22)
    assert not warped[far].any()
    np.testing.assert_allclose(warped[inside_mask(frame, 20, 20)], 1, atol=1e-6)
    assert far.sum() > 200
    assert inside_mask(frame, 20, 20).sum() > 50


@given(angle=ANGLES)
def test_vectors_turn_counter_clockwise_about_the_line_of_sight(angle: float) -> None:
    vectors = np.random.default_rng(0).normal(size=(6, 3))
    turned = rotate_in_plane(vectors, angle)
    expected = (vectors[:, 0] + 1j * vectors[:, 1]) * np.exp(1j * angle)
    np.testing.assert_allclose(turned[:, 0] + 1j * turned[:, 1], expected, atol=1e-12)
    np.testing.assert_array_equal(turned[:, 2], vectors[:, 2])
    np.testing.assert_allclose(rotate_in_plane(turned, -angle), vectors, atol=1e-12)


@pytest.mark.parametrize("stretch", [(1.0, 1.0), (1.3, 0.8), (0.5, 2.0)])
def test_stretched_normals_are_those_of_the_stretched_surface(stretch: tuple[float, float]) -> None:
    x, y = grid(30, 40)
    s_x, s_y = stretch
    plain = normals(hill, x, y).transpose(2, 0, 1)
    stretched = normals(lambda x, y: hill(x / s_x, y / s_y), x * s_x, y * s_y).transpose(2, 0, 1)
    axes = np.array([s_x, s_y, 1])
    images = 0.8 * np.tensordot(directions(FOUR), plain, axes=1)
    albedo, got = split_albedo(least_squares(images, directions(FOUR) * axes), axes)
    np.testing.assert_allclose(got, stretched, atol=1e-5)
    np.testing.assert_allclose(albedo, 0.8, atol=1e-5)


def bend(vectors: np.ndarray, stretch: tuple[float, float]) -> np.ndarray:
    bent = vectors / np.array([*stretch, 1])[:, None, None]
    return bent / np.linalg.norm(bent, axis=0)


def test_squeezing_168_x_192_bends_normals_by_up_to_3_8_degrees() -> None:
    frame = fit_frame((0, 0, 168, 192), 112, "stretch")
    angle = np.radians(np.linspace(0, 89, 500))
    straight = np.stack([np.sin(angle), np.zeros(500), np.cos(angle)])[:, None]
    sideways = bend(straight, frame.stretch)[:, 0]
    turned = np.degrees(np.arctan2(sideways[0], sideways[2])) - np.degrees(angle)
    # In the plane of x and z, a normal turns by at most asin((s - 1) / (s + 1)), s being the scale of x over the mean scale.
    s = np.sqrt(192 / 168)
    assert np.abs(turned).max() == pytest.approx(np.degrees(np.arcsin((s - 1) / (s + 1))), abs=1e-3)
    # In the plane of x and y, the scales of both axes add up to 3.8 degrees.
    flat = np.stack([np.cos(angle), np.sin(angle), np.zeros(500)])[:, None]
    bent = bend(flat, frame.stretch)[:, 0]
    assert np.abs(np.degrees(np.arctan2(bent[1], bent[0]) - angle)).max() == pytest.approx(3.8, abs=0.05)


@pytest.mark.parametrize("angle", [-2.5, -0.4, 0.3, 1.2])
@pytest.mark.parametrize("sides", [(44.0, 44.0), (44.0, 36.0)])
def test_maps_of_a_turned_frame_are_those_of_the_turned_surface(angle: float, sides: tuple[float, float]) -> None:
    size = 40
    images = render(normals(hill, *grid(90, 90)), FOUR, 0.8).astype(np.float32)
    frame = Frame(45, 45, *sides, angle, size)
    maps = compute_maps(Capture(images, directions(FOUR)), frame, solver="least_squares")
    scale_x, scale_y = size / frame.width, size / frame.height
    common = math.sqrt(scale_x * scale_y)

    def turned(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        before = (x / scale_x + 1j * y / scale_y) * np.exp(-1j * angle)
        return common * hill(before.real, before.imag)

    x, y = grid(size, size)
    truth = turned(x, y)
    assert degrees(maps.normal, normals(turned, x, y)).mean() < 0.5
    np.testing.assert_allclose(maps.depth, truth - truth.mean(), atol=0.03 * np.ptp(truth))
    np.testing.assert_allclose(maps.albedo, 0.8, atol=0.02)
