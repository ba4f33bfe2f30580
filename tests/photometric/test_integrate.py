"""Depth from normals, against analytic surfaces and a dense least-squares solve in float64."""

import numpy as np
import pytest

from fr_ps.photometric.integrate import STEEPEST, poisson
from tests.photometric.surfaces import Height, grid, normals


def waves(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 5 * np.sin(x / 9) * np.cos(y / 11) + 0.3 * x - 0.2 * y


def bowl(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 0.01 * x**2 - 0.02 * y**2 + 0.015 * x * y + 0.4 * x


def dense(normal: np.ndarray) -> np.ndarray:
    """The depth of zero mean whose differences between neighbours are nearest to the mean slope of both; (3, H, W) to (H, W)."""
    height, width = normal.shape[1:]
    right, down = -normal[0] / normal[2], normal[1] / normal[2]
    index = np.arange(height * width).reshape(height, width)
    rows, wanted = [], []
    for row in range(height):
        for column in range(width):
            for other, slope in (((row, column + 1), right), ((row + 1, column), down)):
                if other[0] < height and other[1] < width:
                    equation = np.zeros(height * width)
                    equation[index[other]], equation[index[row, column]] = 1, -1
                    rows.append(equation)
                    wanted.append((slope[other] + slope[row, column]) / 2)
    # The solution of least norm is the one of zero mean: constants are all that the differences do not see.
    return np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)[0].reshape(height, width)


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


def test_a_normal_that_faces_away_bends_the_depth_no_more_than_the_steepest_slope() -> None:
    normal = np.zeros((3, 16, 16), dtype=np.float32)
    normal[2] = 1
    normal[:, 8, 8] = (-0.8, 0, -0.6)
    steep = np.zeros((3, 16, 16))
    steep[2] = 1
    steep[:, 8, 8] = np.array([-STEEPEST, 0, 1]) / np.hypot(STEEPEST, 1)
    np.testing.assert_allclose(poisson(normal), dense(steep), atol=1e-4)
