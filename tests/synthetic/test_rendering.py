"""Rendering of known surfaces, compared with lengths, angles and another computation."""

import numpy as np
import pytest
from rendering import cast_shadow, render

from tests.photometric import surfaces
from tests.photometric.surfaces import FOUR, degrees, directions, sphere


def wall(height: float, size: int = 80) -> np.ndarray:
    """(size, size) depth: flat, with the right third `height` pixels nearer to the camera."""
    depth = np.zeros((size, size))
    depth[:, size - size // 3 :] = height
    return depth


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("elevation", [20, 35, 60])
@pytest.mark.parametrize("height", [4.0, 11.5])
def test_a_wall_casts_a_shadow_of_its_height_over_the_tangent(height: float, elevation: float, turns: int) -> None:
    # Light from the right; np.rot90 turns the picture and the light counterclockwise.
    turn = np.radians(90 * turns)
    up = np.radians(elevation)
    light = np.array([np.cos(turn) * np.cos(up), np.sin(turn) * np.cos(up), np.sin(up)])
    shadow = np.rot90(cast_shadow(np.rot90(wall(height), turns), light), -turns)
    lengths = shadow.sum(axis=1)
    np.testing.assert_allclose(lengths, height / np.tan(up), atol=1)
    edge = 80 - 80 // 3
    assert not shadow[:, edge:].any(), "the wall's top is in the light"
    assert shadow[:, edge - lengths.min() : edge].all(), "the shadow begins at the wall"
    assert not cast_shadow(np.rot90(wall(height), turns), light * (-1, -1, 1)).any(), "from the other side nothing is hidden"


def test_a_box_casts_a_shadow_along_the_diagonal() -> None:
    depth = np.zeros((90, 90))
    depth[50:60, 50:60] = 8
    light = np.array([1, -1, np.sqrt(2)]) / 2  # from the lower right, 45 degrees high: 8 pixels along the diagonal
    rows, columns = np.nonzero(cast_shadow(depth, light))
    assert rows.min() == columns.min() == pytest.approx(50 - 8 / np.sqrt(2), abs=1)
    assert rows.max() == columns.max() <= 59


@pytest.mark.parametrize("light", directions([(0, 0), (80, 0), (-30, 70), (45, -45)]))
def test_flat_and_convex_surfaces_cast_no_shadow(light: np.ndarray) -> None:
    normal, depth, _ = sphere(64)
    assert not cast_shadow(depth, light)[normal @ light > 0.05].any()
    y, x = np.mgrid[:64, :64]
    assert not cast_shadow(0.3 * x - 0.2 * y, directions([(20, 10)])[0]).any()


def test_without_shadows_and_highlights_it_is_lambert() -> None:
    normal, depth, _ = sphere(48)
    albedo = np.random.default_rng(0).uniform(0.2, 1, (48, 48))
    images = render(albedo, normal, depth, directions(FOUR), cast_shadows=False)
    assert images.dtype == np.float32
    np.testing.assert_allclose(images, surfaces.render(normal, FOUR, albedo), atol=1e-6)


def test_a_cast_shadow_is_black_and_other_pixels_are_unchanged() -> None:
    depth = wall(10.0)
    normal = np.broadcast_to(np.array([0, 0, 1.0]), (80, 80, 3))
    lights = directions([(-50, 0), (50, 0), (-50, 20)])
    images = render(np.ones((80, 80)), normal, depth, lights, cast_shadows=True, highlights=0.5)
    plain = render(np.ones((80, 80)), normal, depth, lights, cast_shadows=False, highlights=0.5)
    for image, bright, light in zip(images, plain, lights):
        shadow = cast_shadow(depth, light)
        assert not image[shadow].any()
        np.testing.assert_array_equal(image[~shadow], bright[~shadow])
    assert [bool((image == 0).any()) for image in images] == [True, False, True]


def test_a_highlight_is_brightest_halfway_between_light_and_camera_and_sharper_with_the_exponent() -> None:
    normal, depth, _ = sphere(101)
    light = directions([(30, 20)])[0]
    half = light + np.array([0, 0, 1])
    half /= np.linalg.norm(half)
    black = np.zeros((101, 101))
    areas = []
    for exponent in (10.0, 40.0):
        (image,) = render(black, normal, depth, light[None], cast_shadows=False, highlights=0.7, exponent=exponent)
        brightest = normal.reshape(-1, 3)[image.argmax()]
        assert degrees(brightest, half) < 1
        assert image.max() == pytest.approx(0.7, abs=0.01)
        areas.append((image > 0.35).sum())
        away = degrees(normal, half)
        assert image[away > 1 + np.degrees(np.arccos(0.5 ** (1 / exponent)))].max() < 0.35
    assert areas[1] < areas[0] / 2


def test_a_side_that_faces_away_has_no_highlight() -> None:
    normal = np.array([[[np.sin(a), 0, np.cos(a)] for a in np.radians([-89.0, -60.0, 0.0])]])
    light = directions([(-80, 0)])  # from the right
    (image,) = render(np.zeros((1, 3)), normal, np.zeros((1, 3)), light, cast_shadows=False, highlights=1.0, exponent=1.0)
    assert image[0, 0] == image[0, 1] == 0
    assert image[0, 2] > 0.5
