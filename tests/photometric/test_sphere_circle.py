"""Circles in rendered pictures and masks, compared with those that were drawn."""

import numpy as np
import pytest

from fr_ps.photometric.sphere_circle import Circle, check_circle, circle_of_mask, find_circle
from fr_ps.synthetic.mirror_sphere import render_mirror_sphere

NO_LIGHT = np.array([[0.0, 0.0, -1.0]])


def dark_sphere(centre: tuple[float, float], radius: float, background: float = 0.25, noise: float = 2.0) -> np.ndarray:
    """(160, 200) luminance of a mirror sphere that reflects a dark room alone."""
    pictures = render_mirror_sphere(
        NO_LIGHT, size=(160, 200), centre=centre, radius=radius, background=background, noise=noise, light_radius=0.1
    )
    return np.asarray(pictures[0] / np.float32(255))


def disc(height: int, width: int, x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.indices((height, width)) + 0.5
    return np.asarray(np.hypot(rows - y, columns - x) < radius)


@pytest.mark.parametrize(("centre", "radius"), [((103.4, 77.7), 60.3), ((40.2, 110.6), 31.4), ((160.5, 30.1), 20.8)])
@pytest.mark.parametrize("background", [0.1, 0.6])
def test_a_sphere_is_found_within_a_tenth_of_a_pixel(centre, radius, background):
    found = find_circle(dark_sphere(centre, radius, background), "ball")
    assert (found.x, found.y, found.radius) == pytest.approx((*centre, radius), abs=0.1)
    assert found.support is not None
    assert found.support > 0.95
    assert found.residual is not None
    assert found.residual < 0.25


def test_a_sphere_in_a_large_picture_on_a_table_is_found():
    picture = np.kron(dark_sphere((103.4, 77.7), 60.3, noise=0), np.ones((5, 5), dtype=np.float32))
    picture[650:, :] += 0.15 * (np.indices(picture[650:, :].shape)[1] / 1000).astype(np.float32)  # a bright, uneven table
    picture += np.random.default_rng(0).normal(0, 0.02, picture.shape).astype(np.float32)
    found = find_circle(picture, "ball")
    assert (found.x, found.y, found.radius) == pytest.approx((517, 388.5, 301.5), abs=1.0)


@pytest.mark.parametrize("kind", ["noise", "black", "square", "gradient"])
def test_a_picture_without_a_circle_is_rejected(kind, rejected):
    rng = np.random.default_rng(0)
    picture = np.zeros((120, 160), dtype=np.float32)
    if kind == "noise":
        picture = rng.random(picture.shape).astype(np.float32)
    elif kind == "square":
        picture[30:90, 50:110] = 0.5
    elif kind == "gradient":
        picture += np.linspace(0, 1, 160, dtype=np.float32)
    with rejected("ball: no sphere found", "--circle"):
        find_circle(picture, "ball")


def test_a_sphere_beyond_the_border_is_found_and_rejected(rejected):
    found = find_circle(dark_sphere((30.3, 77.7), 50.4), "ball")
    assert found.radius == pytest.approx(50.4, abs=0.2)
    with rejected("ball", "the border of the picture of 200 x 160 cuts off the sphere"):
        check_circle(found, 160, 200, "ball")


@pytest.mark.parametrize(
    ("circle", "text"),
    [
        (Circle(300, 50, 20), "outside the picture of 200 x 160"),
        (Circle(50, -5, 20), "outside the picture"),
        (Circle(50, 150, 20), "cuts off the sphere"),
        (Circle(50, 50, 5), "at least 10 pixels"),
        (Circle(50, 50, -5), "at least 10 pixels"),
    ],
)
def test_a_circle_outside_the_picture_or_too_small_is_rejected(circle, text, rejected):
    with rejected("--circle", text):
        check_circle(circle, 160, 200, "--circle")
    check_circle(Circle(30, 130, 30), 160, 200, "--circle")  # touches two borders


def test_the_circle_of_a_mask_has_its_centroid_and_area():
    circle = circle_of_mask(disc(120, 160, 70.3, 61.6, 40.4), "mask.png")
    assert (circle.x, circle.y, circle.radius) == pytest.approx((70.3, 61.6, 40.4), abs=0.1)
    assert circle.source == "mask"


def test_masks_that_are_no_disc_are_rejected(rejected):
    whole = disc(120, 160, 70, 60, 40)
    half = whole.copy()
    half[:50] = False
    for mask, text in (
        (np.zeros_like(whole), "empty mask"),
        (half, "not a disc"),
        (disc(120, 160, 30, 60, 40), "touches the border"),
        (whole | disc(120, 160, 130, 60, 20), "not a disc"),
    ):
        with rejected("mask.png", text):
            circle_of_mask(mask, "mask.png")
