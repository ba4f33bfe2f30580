"""Depth from normals, compared with analytic surfaces and other least-squares solvers in float64."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import label
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import lsqr

from fr_ps.config import Integration
from fr_ps.photometric.integrate import MAX_SLOPE, frankot_chellappa, integrate_normals, normals_from_depth, poisson, slopes
from tests.photometric.surfaces import Height, grid, normals, normals_from_differences, sphere


def waves(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 5 * np.sin(x / 9) * np.cos(y / 11) + 0.3 * x - 0.2 * y


def bowl(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 0.01 * x**2 - 0.02 * y**2 + 0.015 * x * y + 0.4 * x


def dense(normal: np.ndarray) -> np.ndarray:
    """The depth of zero mean whose differences between neighbours best fit the mean slope of both; (3, H, W) to (H, W)."""
    height, width = normal.shape[1:]
    right, down = -normal[0] / normal[2], normal[1] / normal[2]
    index = np.arange(height * width).reshape(height, width)
    rows, expected = [], []
    for row in range(height):
        for column in range(width):
            for other, slope in (((row, column + 1), right), ((row + 1, column), down)):
                if other[0] < height and other[1] < width:
                    equation = np.zeros(height * width)
                    equation[index[other]], equation[index[row, column]] = 1, -1
                    rows.append(equation)
                    expected.append((slope[other] + slope[row, column]) / 2)
    # Differences determine depth up to a constant, so the solution of least norm has zero mean.
    return np.linalg.lstsq(np.array(rows), np.array(expected), rcond=None)[0].reshape(height, width)


@pytest.mark.parametrize("surface", [waves, bowl])
@pytest.mark.parametrize("shape", [(48, 48), (40, 60), (61, 33)])
def test_normals_of_a_surface_give_it_back(surface: Height, shape: tuple[int, int]) -> None:
    x, y = grid(*shape)
    truth = surface(x, y)
    depth = poisson(normals(surface, x, y).transpose(2, 0, 1).astype(np.float32))
    assert depth.dtype == np.float32
    assert abs(depth.mean()) < 1e-3
    np.testing.assert_allclose(depth, truth - truth.mean(), atol=0.003 * np.ptp(truth))


@pytest.mark.parametrize("shape", [(9, 9), (7, 12), (1, 8), (8, 1)])
def test_equals_a_dense_least_squares_solve_even_where_no_surface_fits(shape: tuple[int, int]) -> None:
    normal = np.random.default_rng(3).normal(size=(3, *shape))
    normal[2] = np.abs(normal[2]) + 0.5
    normal /= np.linalg.norm(normal, axis=0)
    np.testing.assert_allclose(poisson(normal.astype(np.float32)), dense(normal), atol=2e-5)


def test_a_normal_that_faces_away_counts_as_the_steepest_slope() -> None:
    normal = np.zeros((3, 16, 16), dtype=np.float32)
    normal[2] = 1
    normal[:, 8, 8] = (-0.8, 0, -0.6)
    steep = np.zeros((3, 16, 16))
    steep[2] = 1
    steep[:, 8, 8] = np.array([-MAX_SLOPE, 0, 1]) / np.hypot(MAX_SLOPE, 1)
    np.testing.assert_allclose(poisson(normal), dense(steep), atol=1e-4)


def circle(height: int, width: int) -> np.ndarray:
    x, y = grid(height, width)
    return np.hypot(x / width, y / height) < 0.45


def ring(height: int, width: int) -> np.ndarray:
    x, y = grid(height, width)
    return circle(height, width) & (np.hypot(x / width, y / height) > 0.2)


def corner(height: int, width: int) -> np.ndarray:
    mask = np.ones((height, width), dtype=bool)
    mask[: height // 2, width // 3 :] = False
    return mask


def two_parts(height: int, width: int) -> np.ndarray:
    mask = np.ones((height, width), dtype=bool)
    mask[:, width // 2 : width // 2 + 2] = False
    return mask


MASKS = (circle, ring, corner, two_parts)
MakeMask = Callable[[int, int], np.ndarray]


def sparse(normal: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The depth whose differences, weighted by the smaller weight of their pixels, best fit the slopes."""
    height, width = weights.shape
    right = np.clip(-normal[0] / np.maximum(normal[2], 1e-6), -MAX_SLOPE, MAX_SLOPE)
    down = np.clip(normal[1] / np.maximum(normal[2], 1e-6), -MAX_SLOPE, MAX_SLOPE)
    index = np.arange(height * width).reshape(height, width)
    pairs = ((index[:, :-1], index[:, 1:], right), (index[:-1], index[1:], down))
    first, second = (np.concatenate([pair[i].ravel() for pair in pairs]) for i in (0, 1))
    expected = np.concatenate([(slope.ravel()[a.ravel()] + slope.ravel()[b.ravel()]) / 2 for a, b, slope in pairs])
    root = np.sqrt(np.minimum(weights.ravel()[first], weights.ravel()[second]))
    count = np.arange(len(first))
    matrix = coo_matrix(
        (np.concatenate([-root, root]), (np.tile(count, 2), np.concatenate([first, second]))), (len(first), index.size)
    )
    return lsqr(matrix.tocsr(), root * expected, atol=1e-13, btol=1e-13, iter_lim=20000)[0].reshape(height, width)


def assert_same_shape(depth: np.ndarray, truth: np.ndarray, mask: np.ndarray, atol: float) -> None:
    """Equal within each connected part of the mask, up to a constant."""
    parts, count = label(mask)
    for part in range(1, count + 1):
        here = parts == part
        np.testing.assert_allclose(depth[here] - depth[here].mean(), truth[here] - truth[here].mean(), atol=atol)


def rough_normals(shape: tuple[int, int], seed: int) -> np.ndarray:
    """Normals of no surface."""
    normal = np.random.default_rng(seed).normal(size=(3, *shape))
    normal[2] = np.abs(normal[2]) + 0.5
    return normal / np.linalg.norm(normal, axis=0)


@pytest.mark.parametrize("make", MASKS)
@pytest.mark.parametrize("shape", [(24, 24), (19, 31)])
def test_within_a_mask_it_equals_a_sparse_solve_of_the_mask_alone(make: MakeMask, shape: tuple[int, int]) -> None:
    mask = make(*shape)
    normal = rough_normals(shape, 5)
    expected = sparse(normal, mask.astype(np.float64))
    normal[:, ~mask] = np.array([[0.9], [-0.3], [0.1]])
    depth = poisson(normal.astype(np.float32), mask.astype(np.float32))
    assert_same_shape(depth, expected, mask, 5e-4)


@pytest.mark.parametrize("seed", range(4))
def test_weights_count_as_they_do_in_a_sparse_solve(seed: int) -> None:
    normal = rough_normals((20, 26), seed)
    weights = 10 ** np.random.default_rng(seed).uniform(-1.5, 0, (20, 26))
    depth = poisson(normal.astype(np.float32), weights.astype(np.float32))
    assert_same_shape(depth, sparse(normal, weights), np.ones((20, 26), dtype=bool), 5e-4)
    assert np.abs(depth - poisson(normal.astype(np.float32))).max() > 0.1, "the weights matter"
    assert abs(depth.mean()) < 1e-5


def test_equal_weights_are_none() -> None:
    normal = rough_normals((20, 26), 0).astype(np.float32)
    np.testing.assert_allclose(poisson(normal, np.full((20, 26), 0.3, dtype=np.float32)), poisson(normal), atol=1e-4)


quadratics = st.lists(st.floats(-1, 1), min_size=5, max_size=5)


@given(
    coefficients=quadratics,
    shape=st.tuples(st.integers(2, 40), st.integers(2, 40)),
    make=st.sampled_from([None, circle, ring, corner, two_parts]),
)
def test_integration_restores_a_quadric_from_its_derivatives(coefficients, shape, make) -> None:
    """For a quadric, the mean slope of two pixels equals their difference."""
    x, y = grid(*shape)
    x, y = x / max(shape), y / max(shape)
    a, b, c, d, e = coefficients
    truth = max(shape) * (a * x**2 + b * x * y + c * y**2 + d * x + e * y)
    vectors = np.stack([-(2 * a * x + b * y + d), -(b * x + 2 * c * y + e), np.ones(shape)])
    normal = (vectors / np.linalg.norm(vectors, axis=0)).astype(np.float32)
    mask = np.ones(shape, dtype=bool) if make is None else make(*shape)
    depth = integrate_normals(normal, mask, "poisson")
    assert depth.dtype == np.float32
    assert abs(depth.mean()) < 1e-4
    assert_same_shape(depth, truth, mask, 1e-5 + 1e-3 * np.ptp(truth))


term = st.tuples(st.floats(0.5, 3), st.floats(-2.5, 2.5), st.floats(-2.5, 2.5), st.floats(0, 6.3))


@given(terms=st.lists(term, min_size=1, max_size=4), method=st.sampled_from(["poisson", "frankot_chellappa"]))
def test_integrating_undoes_differentiating_of_any_smooth_surface(terms, method: Integration) -> None:
    def surface(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return sum(a * np.sin((u * x + v * y) / 15 + phase) for a, u, v, phase in terms)

    x, y = grid(48, 40)
    truth = surface(x, y)
    depth = integrate_normals(normals(surface, x, y).transpose(2, 0, 1).astype(np.float32), np.ones((48, 40), dtype=bool), method)
    assert abs(depth.mean()) < 1e-3
    rms = np.sqrt(np.mean((depth - (truth - truth.mean())) ** 2))
    assert rms < {"poisson": 0.005, "frankot_chellappa": 0.015}[method] * max(sum(term[0] for term in terms), 0.1)


@pytest.mark.parametrize("surface", [waves, bowl])
@pytest.mark.parametrize("shape", [(48, 48), (40, 60), (61, 33)])
def test_frankot_and_chellappa_give_a_smooth_surface_back(surface: Height, shape: tuple[int, int]) -> None:
    x, y = grid(*shape)
    truth = surface(x, y)
    depth = frankot_chellappa(normals(surface, x, y).transpose(2, 0, 1).astype(np.float32))
    assert depth.dtype == np.float32
    assert abs(depth.mean()) < 1e-3
    # A slope at the mirrored border is a crease, near which the Fourier basis oscillates.
    inner = (slice(4, -4), slice(4, -4))
    difference = (depth - truth)[inner]
    np.testing.assert_allclose(difference - difference.mean(), 0, atol=0.03 * np.ptp(truth))


def test_frankot_and_chellappa_project_slopes_of_no_surface_on_the_nearest_surface() -> None:
    """Adding a curl field, which is orthogonal to the slopes of every surface, changes nothing."""
    height, width = 32, 40
    y, x = np.mgrid[:height, :width] + 0.5
    bump = np.pi / width, np.pi / height
    # Slopes of z = cos(u x) cos(v y), and a curl field of the same frequencies that mirroring continues smoothly.
    per_column = -bump[0] * np.sin(bump[0] * x) * np.cos(bump[1] * y)
    per_row = -bump[1] * np.cos(bump[0] * x) * np.sin(bump[1] * y)
    curl = 0.7 * bump[1] * np.sin(bump[0] * x) * np.cos(bump[1] * y), -0.7 * bump[0] * np.cos(bump[0] * x) * np.sin(bump[1] * y)

    def integrated(across: np.ndarray, down: np.ndarray) -> np.ndarray:
        vectors = np.stack([-across, down, np.ones_like(across)])
        return frankot_chellappa(vectors / np.linalg.norm(vectors, axis=0))

    plain = integrated(per_column, per_row)
    np.testing.assert_allclose(plain, np.cos(bump[0] * x) * np.cos(bump[1] * y), atol=1e-5)
    np.testing.assert_allclose(integrated(per_column + curl[0], per_row + curl[1]), plain, atol=1e-5)


@pytest.mark.parametrize("method", ["poisson", "frankot_chellappa"])
@pytest.mark.parametrize("make", MASKS)
def test_outside_the_mask_is_the_depth_of_the_nearest_pixel_inside(make: MakeMask, method: Integration) -> None:
    mask = make(17, 22)
    normal = normals(bowl, *grid(17, 22)).transpose(2, 0, 1).astype(np.float32)
    depth = integrate_normals(np.where(mask, normal, np.array([0, 0, 1], dtype=np.float32)[:, None, None]), mask, method)
    assert abs(depth.mean()) < 1e-4
    known = np.argwhere(mask)
    for place in np.argwhere(~mask):
        away = np.sum((known - place) ** 2, axis=1)
        nearest = known[away == away.min()]
        assert depth[tuple(place)] in depth[tuple(nearest.T)]


def test_a_mask_without_a_pixel_is_flat() -> None:
    normal = np.zeros((3, 8, 9), dtype=np.float32)
    normal[2] = 1
    assert not integrate_normals(normal, np.zeros((8, 9), dtype=bool), "poisson").any()


def test_slopes_are_the_means_of_two_pixels_clipped() -> None:
    normal = rough_normals((6, 7), 0)
    normal[:, 2, 3] = (0.999, 0, 0.045)
    across, down = slopes(normal)
    right, up = -normal[0] / normal[2], -normal[1] / normal[2]
    right, up = np.clip(right, -MAX_SLOPE, MAX_SLOPE), np.clip(up, -MAX_SLOPE, MAX_SLOPE)
    np.testing.assert_allclose(across, (right[:, 1:] + right[:, :-1]) / 2)
    np.testing.assert_allclose(down, -(up[1:] + up[:-1]) / 2)
    assert right[2, 3] == -MAX_SLOPE


def test_normals_of_a_depth_are_those_of_its_differences() -> None:
    _, depth, _ = sphere(40)
    got = normals_from_depth(depth)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got[:, 1:-1, 1:-1], normals_from_differences(depth).transpose(2, 0, 1), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(got, axis=0), 1, atol=1e-6)
    x, y = grid(5, 6)
    np.testing.assert_allclose(normals_from_depth(0.5 * x - 2 * y)[:, 0, 0], np.array([-0.5, 2, 1]) / np.sqrt(5.25), atol=1e-6)
