"""Exact solvers of the small quadratic problems of MGDA and UPGrad: non-negative least squares on the gradients' Gramian.

scipy's `nnls` is an active-set method: it ends at the solution after a few steps, whatever the lengths of the gradients. An
iteration such as Frank-Wolfe slows down without bound where long gradients conflict, and a regularised solver stops short
of the solution.
"""

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

Array = np.ndarray
_ITERATIONS_PER_TASK = 100
"""Limit of the active-set method. scipy's default, 3, already suffices for every Gramian in the tests."""
_RIDGE = 1e-7
"""Relative to gradients of length 1."""


def mgda_weights(gramian: Tensor) -> Tensor:
    """Weights, 0 or more and with the sum 1, of the shortest vector in the convex hull of the gradients.

    Désidéri, "Multiple-gradient descent algorithm (MGDA) for multiobjective optimization", 2012. With u_i = g_i / |g_i| and
    c_i = min_j |g_j| / |g_i|, the weights w_i are in proportion to c_i v_i, where v >= 0 minimises
    |sum_i v_i u_i|^2 + (1 - sum_i c_i v_i)^2.

    Proof: let v = t x with sum_i c_i x_i = 1. Then w_i = c_i x_i, and d = |sum_i x_i u_i| is the length of sum_i w_i g_i divided
    by min_j |g_j|. For a given x, the minimum over t is d^2 / (1 + d^2), which is smallest for the shortest vector. Scaled in
    this way, all columns of the problem have a length from 1 to sqrt(2).

    Args:
        gramian: (tasks, tasks) products of the gradients, float64, on the CPU, with a positive diagonal.
    """
    factor, lengths = _unit_factor(gramian)
    relative = lengths.min() / lengths
    target = np.zeros(len(lengths) + 1)
    target[-1] = 1.0
    weights = relative * _nnls(np.vstack([factor, relative]), target)
    return torch.from_numpy(weights / weights.sum())


def upgrad_weights(gramian: Tensor) -> Tensor:
    """Weights of the sum of the gradients' projections onto the cone of directions that conflict with none of them.

    Quinton, Rey, "Jacobian Descent for Multi-Objective Optimization", arXiv:2406.16232. The projection of u_i = g_i / |g_i|
    is u_i + sum_j y_j u_j with the y >= 0 that minimise its length.

    Args:
        gramian: (tasks, tasks) products of the gradients, float64, on the CPU, with a positive diagonal.
    """
    factor, lengths = _unit_factor(gramian)
    added_weights = [length * _nnls(factor, -unit) / lengths for unit, length in zip(factor.T, lengths)]
    return torch.from_numpy(1 + np.sum(added_weights, axis=0))


def projection_weights(gramian: Tensor) -> Tensor:
    """Weights y of the gradients for which a + sum_j y_j g_j is the projection of a onto the cone of `upgrad_weights`.

    Args:
        gramian: (gradients + 1, gradients + 1) products, with a as the last row and column; otherwise as in `upgrad_weights`.
    """
    factor, lengths = _unit_factor(gramian)
    count = len(lengths) - 1
    # If gradients are numerically dependent, weights can grow to 1e13; the ridge selects the smallest weights.
    matrix = np.vstack([factor[:, :-1], _RIDGE * np.eye(count)])
    target = np.concatenate([-factor[:, -1], np.zeros(count)])
    return torch.from_numpy(lengths[-1] * _nnls(matrix, target) / lengths[:-1])


def _unit_factor(gramian: Tensor) -> tuple[Array, Array]:
    """A (tasks, tasks) matrix F, and the (tasks,) lengths of the gradients. F^T F is the Gramian of the gradients scaled to unit
    length."""
    exact = gramian.numpy()
    lengths = np.sqrt(exact.diagonal())
    values, vectors = np.linalg.eigh(exact / lengths / lengths[:, None])
    return np.sqrt(values.clip(min=0))[:, None] * vectors.T, lengths


def _nnls(matrix: Array, target: Array) -> Array:
    """x >= 0 that minimises |matrix x - target|."""
    solution, _ = nnls(matrix, target, maxiter=_ITERATIONS_PER_TASK * matrix.shape[1])
    return solution
