"""Weights with eight lights or more, compared with rendered surfaces, known outliers and direct computations."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rendering import dome, render
from scipy.integrate import quad
from scipy.special import logsumexp

from fr_ps.photometric import outliers
from fr_ps.photometric.outliers import many_light_weights
from fr_ps.photometric.robust import confidence, observation_weights, solve_integrable
from fr_ps.photometric.solve import least_squares, split_albedo, weighted_least_squares
from tests.photometric.surfaces import ball_on_a_table, degrees, grid, normal_error, sphere, unsaturated


def ratios(images: np.ndarray, lights: np.ndarray, normal: np.ndarray) -> tuple[float, float]:
    """Errors of robust and integrable over that of least squares."""
    weights = observation_weights(images, unsaturated(images), lights)
    base = normal_error(least_squares(images, lights), normal)
    everywhere = np.ones(normal.shape[:2], dtype=bool)
    robust = normal_error(weighted_least_squares(images, lights, weights)[0], normal)
    return robust / base, normal_error(solve_integrable(images, lights, weights, everywhere), normal) / base


@pytest.mark.parametrize(
    ("count", "albedo", "highlights", "exponent", "bound"),
    [
        (8, 0.1, 1.0, 60, 0.6),
        (8, 0.1, 1.0, 100, 0.25),
        (8, 0.3, 0.6, 200, 0.1),
        (12, 0.06, 1.0, 25, 0.6),
        (12, 0.1, 1.0, 60, 0.4),
        (20, 0.06, 1.0, 25, 0.5),
        (20, 0.3, 0.6, 200, 0.05),
        (50, 0.06, 1.0, 25, 0.4),
        (50, 0.1, 1.0, 60, 0.2),
    ],
)
def test_with_strong_highlights_the_error_is_at_most_06_of_least_squares(
    count: int, albedo: float, highlights: float, exponent: float, bound: float
) -> None:
    normal, depth = ball_on_a_table(48)
    lights = dome(count)
    shape = np.full(depth.shape, albedo)
    images = render(shape, normal, depth, lights, cast_shadows=True, highlights=highlights, exponent=exponent)
    robust, integrable = ratios(images, lights, normal)
    assert robust < bound
    assert integrable < bound + 0.05


@pytest.mark.parametrize("count", [8, 20])
@pytest.mark.parametrize("ambient", [0.0, 0.02])
def test_with_shadows_on_a_matte_surface_the_error_is_a_fraction_of_least_squares(count: int, ambient: float) -> None:
    normal, depth = ball_on_a_table(48)
    lights = dome(count, widest=65)
    images = render(np.full(depth.shape, 0.7), normal, depth, lights, cast_shadows=True) + np.float32(ambient)
    assert ratios(images, lights, normal)[0] < (0.3 if ambient == 0 else 0.5)


@pytest.mark.parametrize("count", [8, 20])
@pytest.mark.parametrize("noise", [0, 0.004, 0.02])
def test_on_a_fully_lit_matte_surface_the_error_is_at_most_slightly_above_least_squares(count: int, noise: float) -> None:
    normal = sphere(48)[0]
    lights = dome(count, widest=35)
    images = 0.8 * np.einsum("hwc,kc->khw", normal, lights)
    assert images.min() > 0.05
    images = np.maximum(images + np.random.default_rng(0).normal(0, noise, images.shape), 0).astype(np.float32)
    weights = observation_weights(images, unsaturated(images), lights)
    plain = normal_error(least_squares(images, lights), normal)
    assert normal_error(weighted_least_squares(images, lights, weights)[0], normal) <= 1.1 * plain + 0.001


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count", [10, 14, 24])
def test_a_fifth_of_highlights_and_a_fifth_of_shadows_are_found(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    lights = dome(count, widest=40)
    normal = rng.normal(0, 0.15, (20, 20, 3)) + np.array([0, 0, 1])
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    images = rng.uniform(0.1, 0.5, (20, 20)) * np.einsum("hwc,kc->khw", normal, lights)
    order = rng.permuted(np.broadcast_to(np.arange(count)[:, None, None], images.shape), axis=0)
    bad = count // 5
    images = np.where(order < bad, rng.uniform(2, 8, images.shape), 1) * images
    images = np.where((order >= bad) & (order < 2 * bad), rng.uniform(0, 0.1, images.shape), 1) * images
    images = np.maximum(images, 0).astype(np.float32)
    solved = weighted_least_squares(images, lights, many_light_weights(images, np.ones_like(images), lights))[0]
    assert np.median(degrees(split_albedo(solved)[1].transpose(1, 2, 0), normal)) < 4
    assert normal_error(solved, normal) < 0.4 * normal_error(least_squares(images, lights), normal)


def test_the_likelihood_of_an_observation_is_a_density() -> None:
    lights = np.array([[0.0, 0, 1]])
    for albedo in (0.01, 0.4):
        scaled = np.array([[0], [0], [albedo]], dtype=np.float32)

        def density(value: float, scaled: np.ndarray = scaled, albedo: float = albedo) -> float:
            return float(outliers._likelihood(np.array([[value]]), lights, scaled, np.array([0.01 * albedo]))[0, 0])

        parts = [0, 0.5 * albedo, albedo, 1.5 * albedo, 10 * albedo, 250 * albedo]
        total = sum(quad(density, low, high, limit=200)[0] for low, high in pairwise(parts))
        assert total == pytest.approx(1, abs=0.01)


def test_the_posterior_is_that_of_a_mixture_whose_proportions_are_estimated() -> None:
    scores = np.random.default_rng(0).normal(0, 3, (4, 500))
    scores[1] += 2
    found = outliers._posterior(scores, lit=np.ones(500, dtype=bool))
    np.testing.assert_allclose(found.sum(axis=0), 1)
    prior = np.full(4, 0.25)
    for _ in range(outliers._EM_ITERATIONS):
        joint = scores.T + np.log(prior)
        prior = np.exp(joint - logsumexp(joint, axis=1, keepdims=True)).mean(axis=0) + outliers._MIN_PRIOR
    expected = np.exp(scores.T + np.log(prior) - logsumexp(scores.T + np.log(prior), axis=1, keepdims=True))
    np.testing.assert_allclose(found, expected.T, rtol=1e-6, atol=1e-9)
    assert found[1].mean() > 0.5


def random_images(seed: int, count: int, power: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    images = (rng.random((count, 7, 9)) ** power).astype(np.float32)
    images[rng.random(images.shape) < 0.1] = 0
    return images, rng.random(images.shape).astype(np.float32)


@given(seed=st.integers(0, 2**32 - 1), count=st.sampled_from([8, 13]), power=st.sampled_from([0.2, 1, 4]))
def test_weights_are_positive_and_independent_of_exposure_and_of_the_order_of_lights(seed: int, count: int, power: float) -> None:
    images, saturated = random_images(seed, count, power)
    lights = dome(count)
    weights = observation_weights(images, saturated, lights)
    assert weights.dtype == np.float32
    assert weights.shape == images.shape
    assert weights.min() > 0
    assert weights.max() <= 1
    np.testing.assert_allclose(observation_weights(images * 16, saturated, lights), weights, rtol=1e-3, atol=1e-5)
    order = np.random.default_rng(seed).permutation(count)
    # Ties are sorted by the order of the lights, so only pixels without a second zero are compared.
    distinct = (images == 0).sum(axis=0) < 2
    moved = observation_weights(images[order], saturated[order], lights[order])
    np.testing.assert_allclose(moved[:, distinct], weights[order][:, distinct], rtol=0.02, atol=1e-3)


def test_blocks_of_pixels_do_not_change_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    images, saturated = random_images(3, 9, 1)
    whole = many_light_weights(images, 1 - saturated / 2, dome(9))
    monkeypatch.setattr(outliers, "_BLOCK_PIXELS", 10)
    np.testing.assert_allclose(many_light_weights(images, 1 - saturated / 2, dome(9)), whole, rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_constant_images_have_finite_normals(value: float) -> None:
    images = np.full((8, 5, 6), value, dtype=np.float32)
    weights = observation_weights(images, unsaturated(images), dome(8))
    assert (weights > 0).all()
    assert (weights < 0.3).all() if value == 0 else (weights.max(axis=0) > 0.9).all()
    scaled, variance = weighted_least_squares(images, dome(8), weights)
    assert np.isfinite(scaled).all()
    assert np.isfinite(confidence(variance, dome(8))).all()
    assert np.abs(scaled).max() < 3 * value + 1e-6


def test_repeated_lights_have_finite_normals_near_the_truth() -> None:
    normal = sphere(24)[0]
    lights = np.repeat(dome(4, widest=40), 2, axis=0)
    images = (0.5 * np.einsum("hwc,kc->khw", normal, lights)).astype(np.float32)
    weights = observation_weights(images, unsaturated(images), lights)
    assert normal_error(weighted_least_squares(images, lights, weights)[0], normal) < 0.1


def test_saturated_observations_have_almost_no_weight() -> None:
    normal = sphere(32)[0]
    lights = dome(10, widest=40)
    images = np.einsum("hwc,kc->khw", normal, lights).astype(np.float32)
    limit = 0.93
    saturated = (images >= limit).astype(np.float32)
    clipped = np.minimum(images, limit)
    robust = weighted_least_squares(clipped, lights, observation_weights(clipped, saturated, lights))[0]
    assert normal_error(robust, normal) < 0.4 * normal_error(least_squares(clipped, lights), normal)


def test_confidence_falls_where_observations_are_left_out() -> None:
    normal, depth = ball_on_a_table(48)
    lights = dome(20)
    images = render(np.full(depth.shape, 0.1), normal, depth, lights, cast_shadows=True, highlights=1, exponent=60)
    found = confidence(
        weighted_least_squares(images, lights, observation_weights(images, unsaturated(images), lights))[1], lights
    )
    matte = render(np.full(depth.shape, 0.1), normal, depth, lights, cast_shadows=True)
    plain = confidence(weighted_least_squares(matte, lights, observation_weights(matte, unsaturated(matte), lights))[1], lights)
    shining = images.max(axis=0) > 3 * matte.max(axis=0)
    assert 0 < found.min() <= found.max() <= 1
    assert found[shining].mean() < 0.7 * plain[shining].mean()
    assert plain[matte.min(axis=0) > 0.5 * matte.max(axis=0)].mean() > 0.6


def test_broad_highlights_in_many_of_the_observations_are_left_out() -> None:
    """A Blinn lobe of exponent 60, as strong as the shading: near the middle of a ball it brightens half of the observations."""
    x, y = grid(64, 64)
    inside = np.hypot(x, y) < 30
    normal = np.stack([x, y, np.sqrt(np.maximum(32.0**2 - x**2 - y**2, 1))], axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    rng = np.random.default_rng(0)
    lights = np.column_stack([rng.uniform(-0.7, 0.7, (40, 2)), np.ones(40)])
    lights /= np.linalg.norm(lights, axis=1, keepdims=True)
    halves = lights + np.array([0, 0, 1])
    halves /= np.linalg.norm(halves, axis=1, keepdims=True)
    shading, lobe = (np.maximum(np.einsum("hwc,kc->khw", normal, vectors), 0) for vectors in (lights, halves))
    images = ((0.35 * shading + 0.35 * lobe**60 * (shading > 0)) * inside).astype(np.float32)
    weights = many_light_weights(images, np.ones_like(images), lights)
    found = split_albedo(weighted_least_squares(images, lights, weights)[0])[1].transpose(1, 2, 0)
    plain = split_albedo(least_squares(images, lights))[1].transpose(1, 2, 0)
    middle = np.hypot(x, y) < 12
    assert degrees(plain, normal)[middle].mean() > 8
    assert degrees(found, normal)[middle].mean() < 3.5
    assert degrees(found, normal)[inside].mean() < 1
