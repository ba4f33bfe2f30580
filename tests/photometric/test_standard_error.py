"""The standard error of the normals, compared with the spread of many fits to pictures with known noise."""

import numpy as np
import pytest
from rendering import dome, render

from fr_ps.photometric import standard_error
from fr_ps.photometric.robust import observation_weights
from fr_ps.photometric.solve import least_squares, split_albedo, weighted_least_squares
from fr_ps.photometric.standard_error import normal_standard_error
from tests.photometric.surfaces import ball_on_a_table, degrees, sphere, unsaturated

TRIALS = 20_000
NORMAL = np.array([0.3, -0.2, 0.9]) / np.linalg.norm([0.3, -0.2, 0.9])


def noisy_trials(count: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(count, 1, TRIALS) pictures of one matte pixel under `count` lights, each trial with its own noise; and the lights."""
    lights = dome(count, widest=40)
    clean = 0.5 * (lights @ NORMAL)
    trials = clean[:, None, None] + np.random.default_rng(seed).normal(0, noise, (count, 1, TRIALS))
    return trials.astype(np.float32), lights


def mean_square(angles: np.ndarray) -> float:
    return float(np.mean(angles.astype(np.float64) ** 2))


@pytest.mark.parametrize("count", [5, 8, 50])
@pytest.mark.parametrize("weighted", [False, True])
def test_its_mean_square_is_that_of_the_angles_in_a_monte_carlo_simulation(count: int, weighted: bool) -> None:
    images, lights = noisy_trials(count, noise=0.003)
    weights = np.ones_like(images)
    if weighted:
        weights *= np.random.default_rng(1).uniform(0.05, 1, count).astype(np.float32)[:, None, None]
    scaled, _ = weighted_least_squares(images, lights, weights)
    angles = degrees(split_albedo(scaled)[1].transpose(1, 2, 0), NORMAL)
    found = normal_standard_error(images, lights, weights, scaled)
    assert found is not None
    assert mean_square(found) == pytest.approx(mean_square(angles), rel=0.05)


def test_it_is_the_textbook_formula_without_weights() -> None:
    """Residual variance with k - 3 degrees of freedom; covariance of the fit; its part across the normal."""
    images, lights = noisy_trials(7, noise=0.02)
    images = images[:, :, :50]
    scaled = least_squares(images, lights)
    found = normal_standard_error(images, lights, np.ones_like(images), scaled)
    assert found is not None
    for pixel in range(50):
        g = np.linalg.lstsq(lights, images[:, 0, pixel].astype(np.float64), rcond=None)[0]
        variance = np.sum((images[:, 0, pixel] - lights @ g) ** 2) / 4
        n = g / np.linalg.norm(g)
        across = (np.eye(3) - np.outer(n, n)) / np.linalg.norm(g)
        covariance = across @ (variance * np.linalg.inv(lights.T @ lights)) @ across
        assert found[0, pixel] == pytest.approx(np.degrees(np.sqrt(np.trace(covariance))), rel=1e-3)


@pytest.mark.parametrize("count", [8, 20, 50])
@pytest.mark.parametrize("noise", [0.003, 0.02])
def test_with_the_weights_of_robust_it_is_the_error_on_a_noisy_surface_with_shadows(count: int, noise: float) -> None:
    normal, depth = ball_on_a_table(48)
    lights = dome(count)
    images = render(np.full(depth.shape, 0.7), normal, depth, lights, cast_shadows=True)
    images = np.maximum(images + np.random.default_rng(0).normal(0, noise, images.shape), 0).astype(np.float32)
    weights = observation_weights(images, unsaturated(images), lights)
    scaled, _ = weighted_least_squares(images, lights, weights)
    found = normal_standard_error(images, lights, weights, scaled)
    assert found is not None
    # Medians: at the edge of a cast shadow the weights themselves are uncertain.
    angles = degrees(split_albedo(scaled)[1].transpose(1, 2, 0), normal)
    median_of_rayleigh = np.sqrt(np.log(2))  # over its root mean square, as the angle has two directions across the normal
    assert np.median(found) == pytest.approx(np.median(angles) / median_of_rayleigh, rel=0.25)


def test_an_outlier_that_the_fit_leaves_out_does_not_raise_it() -> None:
    images, lights = noisy_trials(10, noise=0.003)
    weights = np.ones_like(images)
    weights[4] = 1e-4
    scaled, _ = weighted_least_squares(images, lights, weights)
    clean = normal_standard_error(images, lights, weights, scaled)
    images[4] += 3
    scaled, _ = weighted_least_squares(images, lights, weights)
    spoilt = normal_standard_error(images, lights, weights, scaled)
    assert clean is not None
    assert spoilt is not None
    assert mean_square(spoilt) == pytest.approx(mean_square(clean), rel=0.1)


def test_it_is_undefined_without_residual_or_albedo_and_at_most_90_degrees() -> None:
    for count in (3, 4):
        images, lights = noisy_trials(count, noise=0.01)
        assert normal_standard_error(images, lights, np.ones_like(images), least_squares(images, lights)) is None
    images, lights = noisy_trials(6, noise=5.0)
    images[:, 0, :7] = 0
    found = normal_standard_error(images, lights, np.ones_like(images), least_squares(images, lights))
    assert found is not None
    assert np.isnan(found[0, :7]).all()
    assert np.isfinite(found[0, 7:]).all()
    assert found[0, 7:].max() == 90


def test_blocks_of_pixels_and_exposure_do_not_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lights = dome(9)
    images = np.einsum("hwc,kc->khw", sphere(24)[0], lights) + np.random.default_rng(0).normal(0, 0.01, (9, 24, 24))
    weights = np.random.default_rng(1).uniform(0.1, 1, images.shape)
    scaled, _ = weighted_least_squares(images, lights, weights)
    whole = normal_standard_error(images, lights, weights, scaled)
    monkeypatch.setattr(standard_error, "_BLOCK_PIXELS", 100)
    assert whole is not None
    assert (whole.dtype, whole.shape) == (np.float32, (24, 24))
    parts = normal_standard_error(16 * images, lights, weights, 16 * scaled)
    assert parts is not None
    np.testing.assert_allclose(parts, whole, rtol=1e-5)
