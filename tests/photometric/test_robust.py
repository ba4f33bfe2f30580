"""Errors by shadows, highlights and saturation: robust and integrable compared with least squares."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rendering import render

from fr_ps.photometric.robust import MIN_MANY_LIGHTS, confidence, glossiness, observation_weights, solve_integrable
from fr_ps.photometric.solve import least_squares, split_albedo, weighted_least_squares
from fr_ps.synthetic.scene import render_session
from tests.photometric import surfaces
from tests.photometric.surfaces import (
    FOUR,
    SEVEN,
    THREE,
    Angles,
    ball_on_a_table,
    degrees,
    directions,
    normal_error,
    sphere,
    unsaturated,
)

GRAZING: Angles = ((45, 40), (-45, 40), (45, -25), (-45, -25))


def errors(images: np.ndarray, saturated: np.ndarray, angles: Angles, normal: np.ndarray) -> tuple[float, float, float]:
    """Of least squares, the per-pixel robust solver, and the integrable one."""
    lights = directions(angles)
    weights = observation_weights(images, saturated, lights)
    everywhere = np.ones(normal.shape[:2], dtype=bool)
    solved = (
        least_squares(images, lights),
        weighted_least_squares(images, lights, weights)[0],
        solve_integrable(images, lights, weights, everywhere),
    )
    return tuple(normal_error(scaled, normal) for scaled in solved)


@given(seed=st.integers(0, 2**32 - 1), angles=st.sampled_from([THREE, FOUR, SEVEN]), power=st.sampled_from([0.2, 1, 6]))
def test_weights_are_positive_and_bounded_for_any_pictures(seed: int, angles: Angles, power: float) -> None:
    rng = np.random.default_rng(seed)
    images = (rng.random((len(angles), 8, 9)) ** power).astype(np.float32)
    images[rng.random(images.shape) < 0.1] = 0
    saturated = rng.random(images.shape).astype(np.float32)
    weights = observation_weights(images, saturated, directions(angles))
    assert weights.dtype == np.float32
    assert weights.shape == images.shape
    assert weights.min() > 0
    assert weights.max() <= 1.0401
    bright = images.max(axis=0) > 1e-3
    scaled = observation_weights(30 * images, saturated, directions(angles))
    np.testing.assert_allclose(scaled[:, bright], weights[:, bright], rtol=1e-4)


@pytest.mark.parametrize("angles", [THREE, FOUR, SEVEN])
@pytest.mark.parametrize("which", [0, 2])
def test_a_darker_shadow_has_less_weight(angles: Angles, which: int) -> None:
    images = surfaces.render(sphere(24)[0], angles, 0.8).astype(np.float32)
    darkness = np.array([1, 0.9, 0.7, 0.5, 0.3, 0.2, 0.1, 0.02, 0])
    weights = []
    for share in darkness:
        shadowed = images.copy()
        shadowed[which] *= share
        weights.append(observation_weights(shadowed, unsaturated(images), directions(angles))[which])
    assert (np.diff(weights, axis=0) <= 1e-5).all()
    others = np.sort(np.delete(images, which, axis=0), axis=0)[-1]
    dark = 0.3 * images[which] < 0.35 * others
    assert dark.mean() > 0.8
    assert (np.diff(weights[4:], axis=0)[:, dark] < -1e-3).all(), (
        "below a third of the brightest other observation, the weight falls at every step"
    )
    bright = images[which] > 0.36 * images.max(axis=0)
    np.testing.assert_allclose(weights[0][bright], 1.04, atol=0.002)
    assert (weights[-1] < 0.05).all()


@pytest.mark.parametrize("angles", [FOUR, SEVEN])
def test_a_brighter_highlight_has_less_weight(angles: Angles) -> None:
    # A plane that faces the camera, on which all pixels are equal.
    images = surfaces.render(np.broadcast_to(np.array([0.0, 0, 1]), (2, 2, 3)), angles).astype(np.float32)
    weights = []
    which = images[:, 0, 0].argmax()
    for more in (0, 0.05, 0.1, 0.2):
        shining = images.copy()
        shining[which] += more
        weights.append(observation_weights(shining, unsaturated(images), directions(angles))[which, 0, 0])
    assert (np.diff(weights) < -0.02).all()


def test_a_saturated_observation_has_a_twentieth_of_the_weight() -> None:
    images = surfaces.render(sphere(16)[0], FOUR, 0.8).astype(np.float32)
    saturated = unsaturated(images)
    saturated[1], saturated[2] = 1, 0.5
    plain = observation_weights(images, unsaturated(images), directions(FOUR))
    ratio = observation_weights(images, saturated, directions(FOUR)) / plain
    np.testing.assert_allclose(ratio, np.array([1, 0.05, 0.525, 1])[:, None, None] * np.ones((1, 16, 16)), rtol=1e-5)


def test_saturated_pixels_have_almost_no_weight() -> None:
    normal = sphere(48)[0]
    images = surfaces.render(normal, SEVEN, 1.0)
    limit = 0.9
    saturated = (images >= limit).astype(np.float32)
    assert saturated.any(axis=0).mean() > 0.3
    assert (saturated.sum(axis=0) <= 4).all(), "every pixel is unsaturated in three pictures"
    clipped = np.minimum(images, limit).astype(np.float32)
    plain, robust, integrable = errors(clipped, saturated, SEVEN, normal)
    assert robust < 0.3 * plain
    assert integrable < 0.4 * plain
    deaf = errors(clipped, unsaturated(images), SEVEN, normal)[1]
    assert robust < 0.5 * deaf, "which the flags are for"


@pytest.mark.parametrize("angles", [FOUR, SEVEN, GRAZING])
@pytest.mark.parametrize("highlights", [0.0, 0.3])
def test_on_a_ball_shadows_and_highlights_have_much_less_effect(angles: Angles, highlights: float) -> None:
    normal, depth = ball_on_a_table()
    images = render(np.full(depth.shape, 0.7), normal, depth, directions(angles), cast_shadows=True, highlights=highlights)
    assert (images == 0).mean() > 0.08
    plain, robust, integrable = errors(images, unsaturated(images), angles, normal)
    assert robust < 0.55 * plain
    assert integrable < 0.95 * robust


@pytest.mark.parametrize("angles", [FOUR, SEVEN, GRAZING])
@pytest.mark.parametrize(
    ("albedo", "highlights", "exponent", "bound"),
    [(0.06, 1.0, 25, 1.0), (0.12, 0.8, 30, 0.95), (0.1, 1.0, 60, 0.75), (0.1, 1.0, 100, 0.6), (0.3, 0.6, 200, 0.5)],
)
def test_few_lights_on_a_dark_glossy_ball_are_not_worse_than_least_squares(
    angles: Angles, albedo: float, highlights: float, exponent: float, bound: float
) -> None:
    normal, depth = ball_on_a_table(48)
    shape = np.full(depth.shape, albedo)
    images = render(shape, normal, depth, directions(angles), cast_shadows=True, highlights=highlights, exponent=exponent)
    plain, robust, integrable = errors(images, unsaturated(images), angles, normal)
    assert robust < bound * plain
    assert integrable < bound * plain


def test_a_shadow_is_measured_against_the_second_brightest_observation() -> None:
    # Next to a highlight the other three are dark, but none of them is in shadow.
    images = np.full((4, 3, 3), 0.1, dtype=np.float32)
    images[0] = 0.9
    weights = observation_weights(images, unsaturated(images), directions(FOUR))
    assert (weights[1:] > 0.5).all()
    assert (weights[1:] > 2 * weights[0]).all()


def test_glossiness_is_0_on_faces_and_1_on_a_dark_glossy_ball() -> None:
    normal, depth = ball_on_a_table(48)
    glossy = render(np.full(depth.shape, 0.06), normal, depth, directions(FOUR), cast_shadows=True, highlights=1, exponent=100)
    scene = render_session(0, 2, 0, 96)
    shine = 0.15 * float(scene.albedo.max())
    face = render(scene.albedo, scene.normal, scene.depth, directions(FOUR), cast_shadows=True, highlights=shine)
    found = [glossiness(*np.sort(images, axis=0)[[-1, -2]]) for images in (face + 1e-3, 30 * face + 1e-3, glossy + 1e-3)]
    assert found == [0, 0, 1]


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(4, MIN_MANY_LIGHTS + 2))
def test_repeated_lights_and_constant_images_give_finite_normals(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    lights = directions(THREE)[np.concatenate([np.arange(3), rng.integers(0, 3, count - 3)])]
    images = rng.choice([0, 0.2, 1], size=(count, 6, 6)).astype(np.float32)
    for pictures in (images, np.broadcast_to(images[0], images.shape)):
        weights = observation_weights(pictures, unsaturated(images), lights)
        assert (weights > 0).all()
        assert np.isfinite(weighted_least_squares(pictures, lights, weights)[0]).all()
        assert np.isfinite(solve_integrable(pictures, lights, weights, np.ones((6, 6), dtype=bool))).all()


@pytest.mark.parametrize("subject", range(4))
@pytest.mark.parametrize("angles", [FOUR, SEVEN, GRAZING])
def test_on_faces_robust_beats_least_squares_and_integrable_beats_both(subject: int, angles: Angles) -> None:
    scene = render_session(0, subject, 0, 96)
    shine = 0.15 * float(scene.albedo.max())
    images = render(scene.albedo, scene.normal, scene.depth, directions(angles), cast_shadows=True, highlights=shine)
    images /= np.quantile(images, 0.998)
    saturated = (images >= 1).astype(np.float32)
    plain, robust, integrable = errors(np.minimum(images, 1), saturated, angles, scene.normal)
    assert robust < 0.9 * plain
    assert integrable < 0.985 * robust


@pytest.mark.parametrize("angles", [THREE, FOUR, SEVEN])
@pytest.mark.parametrize("noise", [0, 0.004, 0.02])
def test_on_fully_lit_surfaces_the_error_is_at_most_slightly_above_least_squares(angles: Angles, noise: float) -> None:
    normal = sphere(64)[0]
    images = surfaces.render(normal, angles, 0.8)
    assert images.min() > 0.05
    images = (images + np.random.default_rng(0).normal(0, noise, images.shape)).astype(np.float32)
    plain, robust, integrable = errors(np.maximum(images, 0), unsaturated(images), angles, normal)
    assert robust <= 1.01 * plain + 0.001
    assert integrable <= 1.01 * plain + 0.02
    if noise:
        assert integrable < 0.85 * plain, "neighbours average noise out"


@given(seed=st.integers(0, 2**32 - 1))
def test_three_lights_determine_a_pixel_exactly(seed: int) -> None:
    images = np.random.default_rng(seed).uniform(0, 1, (3, 12, 12)).astype(np.float32)
    lights = directions(THREE)
    weights = observation_weights(images, unsaturated(images), lights)
    alone = least_squares(images, lights)
    np.testing.assert_allclose(weighted_least_squares(images, lights, weights)[0], alone, atol=2e-4)
    assert np.isfinite(solve_integrable(images, lights, weights, np.ones((12, 12), dtype=bool))).all()


def test_with_three_lights_neighbours_constrain_a_shadowed_pixel() -> None:
    normal, depth = ball_on_a_table()
    images = render(np.full(depth.shape, 0.7), normal, depth, directions(THREE), cast_shadows=True)
    plain, robust, integrable = errors(images, unsaturated(images), THREE, normal)
    assert robust == pytest.approx(plain, rel=1e-3)
    assert integrable < 0.85 * plain


def test_confidence_is_the_variance_of_all_pictures_over_that_of_their_weights() -> None:
    lights = directions(FOUR)
    weights = np.random.default_rng(0).uniform(0.05, 1, (4, 5, 6)).astype(np.float32)
    got = confidence(weighted_least_squares(weights, lights, weights)[1], lights)
    for place in np.ndindex(5, 6):
        weighed = np.linalg.inv(lights.T @ np.diag(weights[(slice(None), *place)].astype(np.float64)) @ lights)
        assert got[place] == pytest.approx(np.trace(np.linalg.inv(lights.T @ lights)) / np.trace(weighed), rel=1e-3)


def test_confidence_is_1_in_full_light_and_low_in_shadow() -> None:
    normal, depth = ball_on_a_table()
    lights = directions(FOUR)
    images = render(np.ones(depth.shape), normal, depth, lights, cast_shadows=True)
    weights = observation_weights(images, unsaturated(images), lights)
    found = confidence(weighted_least_squares(images, lights, weights)[1], lights)
    dark = (images == 0).sum(axis=0)
    assert (found[images.min(axis=0) > 0.5 * images.max(axis=0)] > 0.95).all()
    medians = [np.median(found[dark == count]) for count in (0, 1, 2)]
    assert medians[0] > 0.9 > 0.6 > medians[1] > 3 * medians[2] > 0
    assert found.max() <= 1


def test_a_prior_has_most_effect_where_confidence_is_low() -> None:
    scene = render_session(0, 1, 0, 64)
    lights = directions(GRAZING)
    images = render(scene.albedo, scene.normal, scene.depth, lights, cast_shadows=True)
    weights = observation_weights(images, unsaturated(images), lights)
    everywhere = np.ones((64, 64), dtype=bool)
    alone = solve_integrable(images, lights, weights, everywhere)
    true = solve_integrable(images, lights, weights, everywhere, 0.95 * scene.normal.transpose(2, 0, 1))
    assert normal_error(true, scene.normal) < 0.95 * normal_error(alone, scene.normal)
    flat = np.zeros((3, 64, 64), dtype=np.float32)
    flat[2] = 0.95
    pulled = solve_integrable(images, lights, weights, everywhere, flat)
    toward = np.broadcast_to(np.array([0.0, 0, 1]), (64, 64, 3))
    moved = degrees(split_albedo(pulled)[1].transpose(1, 2, 0), split_albedo(alone)[1].transpose(1, 2, 0))
    assert normal_error(pulled, toward) < normal_error(alone, toward)
    dark = (images == 0).sum(axis=0)
    assert moved[dark >= 2].mean() > 2 * moved[dark == 0].mean()
    assert moved[dark == 0].mean() < 4


def test_a_prior_has_more_effect_where_its_faces_agree() -> None:
    scene = render_session(0, 1, 0, 64)
    lights = directions(FOUR)
    images = render(scene.albedo, scene.normal, scene.depth, lights, cast_shadows=True)
    weights = observation_weights(images, unsaturated(images), lights)
    everywhere = np.ones((64, 64), dtype=bool)
    toward = np.broadcast_to(np.array([0.0, 0, 1]), (64, 64, 3))
    away = [normal_error(solve_integrable(images, lights, weights, everywhere), toward)]
    for length in (0.0, 0.5, 0.9, 0.97, 0.995, 1.0):
        flat = np.zeros((3, 64, 64), dtype=np.float32)
        flat[2] = length
        away.append(normal_error(solve_integrable(images, lights, weights, everywhere, flat), toward))
    assert away[1] == pytest.approx(away[0], rel=1e-4), "without agreement, the prior has no effect"
    assert (np.diff(away[1:]) < -0.01).all()


@pytest.mark.parametrize("angles", [THREE, FOUR, SEVEN])
def test_black_pictures_give_finite_normals(angles: Angles) -> None:
    images = surfaces.render(sphere(32)[0], angles, 0.8).astype(np.float32)
    images[:, :, 20:] = 0
    images[0] = 0
    lights = directions(angles)
    for pictures in (images, np.zeros_like(images)):
        weights = observation_weights(pictures, unsaturated(images), lights)
        assert np.isfinite(weights).all()
        black = ~pictures.any(axis=0)
        prior = np.zeros((3, 32, 32), dtype=np.float32)
        prior[2] = 1
        for solved in (
            weighted_least_squares(pictures, lights, weights)[0],
            solve_integrable(pictures, lights, weights, np.ones((32, 32), dtype=bool)),
            solve_integrable(pictures, lights, weights, np.zeros((32, 32), dtype=bool)),
            solve_integrable(pictures, lights, weights, ~black, prior),
        ):
            albedo, normals = split_albedo(solved)
            np.testing.assert_allclose(np.linalg.norm(normals, axis=0), 1, atol=1e-5)
            assert albedo[black].max() < 1e-6
        assert np.isfinite(confidence(weighted_least_squares(pictures, lights, weights)[1], lights)).all()


def test_pixels_outside_the_mask_do_not_affect_the_inside() -> None:
    normal = sphere(40)[0]
    lights = directions(FOUR)
    images = surfaces.render(normal, FOUR, 0.8).astype(np.float32)
    mask = np.ones((40, 40), dtype=bool)
    mask[:, 30:] = False
    rubbish = np.where(mask, images, np.random.default_rng(0).random(images.shape)).astype(np.float32)
    black = np.where(mask, images, 0).astype(np.float32)
    solved = [
        solve_integrable(pictures, lights, observation_weights(pictures, unsaturated(images), lights), mask)
        for pictures in (black, rubbish)
    ]
    np.testing.assert_allclose(solved[1][:, mask], solved[0][:, mask], atol=1e-5)
    assert degrees(split_albedo(solved[1])[1].transpose(1, 2, 0), normal)[:, :28].mean() < 0.2
