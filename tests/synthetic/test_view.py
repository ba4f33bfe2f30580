"""The camera of the synthetic faces: projection agrees with rendering and with the view's parameters."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fr_ps.synthetic.faces import head_surface, locate_on_surface, sample_appearance, sample_subject
from fr_ps.synthetic.view import CLOSE, WIDE, Framing, View, sample_view

SIZE = 96


def straight(framing: Framing) -> View:
    return View(framing, SIZE, yaw=0.0, pitch=0.0, roll=(0.0, 1.0), shift_x=0.0, shift_y=0.0, scale=1.0)


def rolled(view: View, angle: float) -> View:
    return replace(view, roll=(float(np.sin(angle)), float(np.cos(angle))))


def seen_and_projected(view: View, angle: float, height: float) -> tuple[np.ndarray, np.ndarray]:
    """The position of a spot on a smooth head in the picture, and its projection by the view."""
    angles, heights = view.surface_grid()
    width = 0.95 - 0.25 * heights[:, None] ** 2 / 4
    x, z = width * np.sin(angles), 0.9 * width * np.cos(angles)
    spot = np.exp(-0.5 * (((angles - angle) / 0.03) ** 2 + ((heights[:, None] - height) / 0.03) ** 2))
    _, picture = view.render_maps(x, z, spot, heights)
    down, right = np.mgrid[:SIZE, :SIZE] + 0.5
    centre = np.array([(picture * right).sum(), (picture * down).sum()]) / picture.sum()
    return centre, view.project(*locate_on_surface(np.array([(angle, height)]), angles, heights, x, z))[0]


@given(
    framing=st.sampled_from([CLOSE, WIDE]),
    yaw=st.floats(-0.6, 0.6),
    pitch=st.floats(-0.12, 0.12),
    roll=st.floats(-0.2, 0.2),
    shift=st.tuples(st.floats(-0.15, 0.15), st.floats(-0.15, 0.15)),
    scale=st.floats(0.85, 1.15),
    height=st.floats(-0.5, 0.4),
    ahead=st.floats(-0.4, 0.4),
)
def test_a_point_of_the_head_is_rendered_where_it_is_projected(framing, yaw, pitch, roll, shift, scale, height, ahead) -> None:
    if not framing.rigid:
        roll /= 4
    view = replace(straight(framing), yaw=yaw, pitch=pitch, shift_x=shift[0], shift_y=shift[1], scale=scale)
    view = rolled(view, roll) if framing.rigid else replace(view, roll=(roll, 1.0))
    seen, projected = seen_and_projected(view, ahead - yaw, height)
    assert np.abs(seen - projected).max() < 0.3, "of a pixel"


POINTS = np.random.default_rng(0).uniform(-0.8, 0.8, (3, 20))


def test_shifts_scale_and_angles_move_points_the_right_way() -> None:
    view = straight(WIDE)
    middle = view.project(*POINTS)
    pixels = SIZE / (2 * WIDE.half_picture)
    np.testing.assert_allclose(replace(view, shift_x=0.2).project(*POINTS) - middle, [[0.2 * pixels, 0]] * 20, atol=1e-9)
    np.testing.assert_allclose(replace(view, shift_y=0.2).project(*POINTS) - middle, [[0, -0.2 * pixels]] * 20, atol=1e-9)
    np.testing.assert_allclose(replace(view, scale=2.0).project(*POINTS) - SIZE / 2, 2 * (middle - SIZE / 2))
    nose, right_ear = (0.0, 0.0, 1.0), (0.9, 0.0, 0.0)

    def place(view: View, point: tuple[float, float, float]) -> np.ndarray:
        x, y, z = (np.array([value]) for value in point)
        return view.project(x, y, z)[0]

    turned = replace(view, yaw=0.5)
    assert (place(turned, nose) - place(turned, (0.0, 0.0, 0.0)))[0] > 10, "toward the image's right"
    assert (place(replace(view, pitch=0.3), nose) - place(view, nose))[1] < 0, "up"
    assert (place(rolled(view, 0.3), right_ear) - place(view, right_ear))[1] > 0, "clockwise"


@given(st.floats(-0.5, 0.5))
def test_a_rigid_roll_is_a_rotation(angle: float) -> None:
    before, after = straight(WIDE).project(*POINTS), rolled(straight(WIDE), angle).project(*POINTS)
    before, after = before - before.mean(axis=0), after - after.mean(axis=0)
    cos, sin = np.cos(angle), np.sin(angle)
    np.testing.assert_allclose(after, before @ np.array([[cos, sin], [-sin, cos]]), atol=1e-9)


def test_views_stay_within_the_limit_of_the_framing_and_reach_it() -> None:
    views = [sample_view(WIDE, 0.0, SIZE, np.random.default_rng(seed)) for seed in range(300)]
    for values, spread in (
        ([view.shift_x for view in views], WIDE.shift),
        ([np.log(view.scale) for view in views], WIDE.scale),
        ([np.arcsin(view.roll[0]) for view in views], WIDE.roll),
    ):
        assert np.abs(values).max() == pytest.approx(WIDE.limit * spread)
        assert np.std(values) == pytest.approx(spread, rel=0.2)


def test_the_whole_head_is_in_the_wide_picture() -> None:
    rng = np.random.default_rng(5)
    subject = sample_subject(True, rng)
    look = sample_appearance(subject, "blankstare", rng)
    view = straight(WIDE)
    angle, height = view.surface_grid()
    x, z, albedo = head_surface(subject, look, angle, height)
    depth, _ = view.render_maps(x, z, albedo, height)
    middle = depth[SIZE // 2]
    assert middle.max() > 0.8
    assert (middle[[0, -1]] < 0).all(), "background on both sides"
    assert x[height > 1.65].size > 0
    assert np.abs(x[height > 1.65]).max() < 0.2, "the crown is closed"
