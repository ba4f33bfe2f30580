"""Estimates of intensities and ambient light, compared with those of rendered pictures."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rendering import render

from fr_ps.photometric.calibrate import calibrate_images, estimate_ambient, estimate_intensities
from fr_ps.synthetic.scene import render_session
from tests.conftest import AssertRejected
from tests.photometric.surfaces import FOUR, SEVEN, THREE, Angles, directions, sphere

FIVE: Angles = ((0, 0), (40, 10), (-35, 20), (10, -35), (-20, 45))
LOPSIDED: Angles = ((0, 0), (40, 10), (-40, 15), (5, -40))
WIDE: Angles = ((0, 0), (60, 10), (-50, 15), (5, -50))
"""Four lights each, one of them at the camera: not a rectangle, so that ambient light is observable."""


def pictures(
    angles: Angles,
    intensities: np.ndarray,
    *,
    ambient: float = 0.0,
    subject: int | None = 1,
    noise: float = 0.0,
    shadows: bool = False,
    exact: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of a face, or of a ball's cap, of 8 bits unless `exact`; and that none of them is saturated."""
    if subject is None:
        normal, depth, _ = sphere(64)
        albedo = np.full(depth.shape, 0.7)
    else:
        scene = render_session(0, subject, 0, 64)
        normal, depth, albedo = scene.normal, scene.depth, scene.albedo / scene.albedo.max()
    clean = render(albedo, normal, depth, directions(angles), cast_shadows=shadows)
    received = 0.55 * clean * intensities[:, None, None] + ambient
    received += np.random.default_rng(0).normal(0, noise, received.shape)
    assert received.max() < 1
    stored = received if exact else np.rint(255 * np.maximum(received, 0)) / 255
    return stored.astype(np.float32), np.zeros(received.shape, dtype=np.float32)


def drawn(count: int, seed: int) -> np.ndarray:
    """Intensities of mean 1 that differ by up to a factor of two."""
    values = np.random.default_rng(seed).uniform(0.65, 1.3, count)
    return values / values.mean()


@given(
    seed=st.integers(0, 2**32 - 1), angles=st.sampled_from([FOUR, FIVE, LOPSIDED, SEVEN]), subject=st.sampled_from([None, 0, 1])
)
def test_intensities_are_found_within_2_percent(seed: int, angles: Angles, subject: int | None) -> None:
    truth = drawn(len(angles), seed)
    found = estimate_intensities(*pictures(angles, truth, subject=subject, exact=True), directions(angles), with_ambient=False)
    assert found.mean() == pytest.approx(1)
    np.testing.assert_allclose(found, truth, rtol=0.02)


@given(seed=st.integers(0, 2**32 - 1), angles=st.sampled_from([FOUR, FIVE, LOPSIDED, SEVEN]), ambient=st.floats(0.0, 0.15))
def test_ambient_light_does_not_affect_intensities_where_every_light_reaches(seed: int, angles: Angles, ambient: float) -> None:
    truth = drawn(len(angles), seed)
    images, saturated = pictures(angles, truth, ambient=ambient, subject=None, exact=True)
    found = estimate_intensities(images, saturated, directions(angles), with_ambient=True)
    np.testing.assert_allclose(found, truth, rtol=0.02)


def test_ignoring_ambient_light_biases_the_intensities() -> None:
    truth = drawn(5, 0)
    images, saturated = pictures(FIVE, truth, ambient=0.15, exact=True, subject=None)
    off = [
        np.abs(estimate_intensities(images, saturated, directions(FIVE), ambient) / truth - 1).max() for ambient in (False, True)
    ]
    assert off[0] > 3 * off[1]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("subject", range(3))
def test_with_four_lights_a_camera_of_8_bits_costs_at_most_3_percent(seed: int, subject: int) -> None:
    truth = drawn(4, seed)
    found = estimate_intensities(*pictures(FOUR, truth, subject=subject), directions(FOUR), with_ambient=False)
    np.testing.assert_allclose(found, truth, rtol=0.03)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("angles", [FOUR, FIVE, SEVEN])
def test_with_a_noise_of_two_gray_levels_most_of_the_difference_is_found(angles: Angles, seed: int) -> None:
    truth = drawn(len(angles), seed)
    found = estimate_intensities(*pictures(angles, truth, noise=2 / 255), directions(angles), with_ambient=False)
    assert np.abs(found / truth - 1).max() < 0.4 * np.abs(1 / truth - 1).max()


@pytest.mark.parametrize("angles", [FOUR, SEVEN])
@pytest.mark.parametrize("fault", [{"noise": 0.008}, {"noise": 0.03}, {"shadows": True, "subject": 2}])
def test_uncertain_estimates_are_no_worse_than_nominal_intensities(angles: Angles, fault: dict) -> None:
    for seed in range(6):
        truth = drawn(len(angles), seed)
        found = estimate_intensities(*pictures(angles, truth, **fault), directions(angles), with_ambient=False)
        assert np.abs(found / truth - 1).mean() < np.abs(1 / truth - 1).mean()


def test_equal_lights_are_found_equal() -> None:
    np.testing.assert_allclose(
        estimate_intensities(*pictures(FOUR, np.ones(4)), directions(FOUR), with_ambient=False), 1, atol=0.01
    )


def test_saturated_pixels_are_ignored() -> None:
    truth = np.array([1.2, 0.8, 1.1, 0.9])
    images, saturated = pictures(FOUR, truth)
    images[1, 10:50, 10:50], saturated[1, 10:50, 10:50] = 0.5, 1
    found = estimate_intensities(images, saturated, directions(FOUR), with_ambient=False)
    np.testing.assert_allclose(found, truth, atol=0.01)
    fooled = estimate_intensities(images, np.zeros_like(saturated), directions(FOUR), with_ambient=False)
    assert np.abs(fooled - truth).max() > 0.03


@given(angles=st.sampled_from([FIVE, LOPSIDED, WIDE]), ambient=st.floats(0.0, 0.2), subject=st.sampled_from([None, 0, 1]))
def test_ambient_light_is_found_where_the_lights_allow_it(angles: Angles, ambient: float, subject: int | None) -> None:
    equal = np.ones(len(angles))
    for exact, tolerance in ((True, 2e-4), (False, 1.5 / 255)):
        images, saturated = pictures(angles, equal, ambient=ambient, subject=subject, exact=exact)
        assert estimate_ambient(images, saturated, directions(angles), equal) == pytest.approx(ambient, abs=tolerance)


def test_ambient_light_is_never_below_0() -> None:
    images, saturated = pictures(WIDE, np.ones(4), ambient=0.05)
    assert estimate_ambient(images - 0.08, saturated, directions(WIDE), np.ones(4)) == 0


@pytest.mark.parametrize("angles", [FOUR, ((45, 45), (-45, 45), (45, -45), (-45, -45)), ((20, 50), (-20, 50), (50, 0), (-50, 0))])
def test_ambient_light_under_a_rectangle_of_lights_is_rejected(angles: Angles, rejected: AssertRejected) -> None:
    images, saturated = pictures(angles, np.ones(4), ambient=0.1, subject=None)
    with rejected("indistinguishable from a surface", "--estimate-ambient false"):
        estimate_ambient(images, saturated, directions(angles), np.ones(4))
    # Equal light in all pictures is exactly that of a surface under these lights.
    equal = np.ones((4, 1))
    assert np.abs(directions(angles) @ np.linalg.lstsq(directions(angles), equal, rcond=None)[0] - equal).max() < 1e-9


def test_three_lights_are_rejected(rejected: AssertRejected) -> None:
    images, saturated = pictures(THREE, np.ones(3))
    with rejected("intensities", "3 lights", "four lights or more"):
        estimate_intensities(images, saturated, directions(THREE), with_ambient=False)
    for calibrate_ambient, calibrate_intensities, word in ((True, False, "ambient"), (False, True, "intensities")):
        with rejected(word):
            calibrate_images(
                images,
                saturated,
                directions(THREE),
                np.ones(3),
                calibrate_intensities=calibrate_intensities,
                calibrate_ambient=calibrate_ambient,
            )


@pytest.mark.parametrize("fault", ["black", "saturated", "one light out"])
def test_too_few_pixels_that_every_light_reaches_are_rejected(fault: str, rejected: AssertRejected) -> None:
    images, saturated = pictures(WIDE, np.ones(4))
    if fault == "black":
        images[:] = 0
    elif fault == "saturated":
        saturated[3] = 1
    else:
        images[2] *= 0.1
    for estimate in (
        lambda: estimate_intensities(images, saturated, directions(WIDE), False),
        lambda: estimate_ambient(images, saturated, directions(WIDE), np.ones(4)),
    ):
        with rejected("only 0 pixels", "200 are required"):
            estimate()


def lambertian(angles: Angles) -> np.ndarray:
    return pictures(angles, np.ones(len(angles)))[0].astype(np.float64)


def test_calibrated_pictures_equal_those_of_equal_lights_without_ambient() -> None:
    truth = drawn(4, 5)
    images, saturated = pictures(WIDE, truth, ambient=0.06)
    given, intensities, ambient = calibrate_images(
        images, saturated, directions(WIDE), 3 * truth, calibrate_intensities=False, calibrate_ambient=True
    )
    assert given.dtype == np.float32
    np.testing.assert_allclose(intensities, truth)
    assert ambient == pytest.approx(0.06, abs=0.003)
    np.testing.assert_allclose(given, lambertian(WIDE), atol=0.01)

    found, intensities, ambient = calibrate_images(
        images, saturated, directions(WIDE), np.ones(4), calibrate_intensities=True, calibrate_ambient=True
    )
    np.testing.assert_allclose(intensities, truth, rtol=0.02)
    assert intensities.mean() == pytest.approx(1)
    assert ambient == pytest.approx(0.06, abs=0.005)
    np.testing.assert_allclose(found, lambertian(WIDE), atol=0.02)
    assert found.min() >= 0


def test_wrong_nominal_intensities_are_corrected_and_right_ones_kept() -> None:
    truth = drawn(4, 5)
    images, saturated = pictures(FOUR, truth)
    for stated in (truth, 7 * truth, np.ones(4), np.array([1, 1.2, 0.9, 1])):
        found = calibrate_images(
            images, saturated, directions(FOUR), stated, calibrate_intensities=True, calibrate_ambient=False
        )[1]
        np.testing.assert_allclose(found, truth, rtol=0.02)


def test_without_estimates_only_nominal_intensities_are_removed() -> None:
    images, saturated = pictures(FOUR, np.ones(4), ambient=0.1)
    same, intensities, ambient = calibrate_images(
        images, saturated, directions(FOUR), np.full(4, 2.0), calibrate_intensities=False, calibrate_ambient=False
    )
    np.testing.assert_array_equal(same, images)
    assert (intensities.tolist(), ambient) == ([1, 1, 1, 1], 0)
    stated = np.array([1, 2, 3, 2])
    divided, intensities, _ = calibrate_images(
        images, saturated, directions(FOUR), stated, calibrate_intensities=False, calibrate_ambient=False
    )
    np.testing.assert_allclose(divided, images / (stated / 2)[:, None, None], rtol=1e-6)
    assert intensities.tolist() == [0.5, 1, 1.5, 1]
