"""Exact weights of MGDA and UPGrad: against conditions of optimality, quadprog and SLSQP, for gradients of any lengths."""

import numpy as np
import pytest
import quadprog
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor, nn
from torchjd import aggregation
from torchjd.linalg import QuadprogProjector

from fr_ps.losses.gradient_solvers import mgda_weights, projection_weights, upgrad_weights


def conflicting(seed: int, longest: float, conflict: float, tasks: int = 6) -> Tensor:
    """(tasks, 40) gradients that pull to two sides, the more so the larger `conflict`, of lengths from 1 to `longest`."""
    generator = torch.Generator().manual_seed(seed)
    sides = torch.randn(tasks, 1, generator=generator).sign() * torch.randn(1, 40, generator=generator) * conflict
    rows = nn.functional.normalize(torch.randn(tasks, 40, generator=generator) + sides)
    return (rows * longest ** torch.rand(tasks, 1, generator=generator)).double()


def worst_cosine(weights: Tensor, rows: Tensor) -> float:
    """The smallest cosine of the combination to a gradient: below 0, that gradient's loss rises."""
    return nn.functional.cosine_similarity(rows, (weights @ rows)[None]).min().item()


lengths = pytest.mark.parametrize(
    ("longest", "conflict"), [(1.0, 1.0), (100.0, 3.0), (1e4, 3.0), (1e4, 10.0), (1e6, 10.0), (1e8, 100.0)]
)


@lengths
@pytest.mark.parametrize("solve", [mgda_weights, upgrad_weights])
def test_no_loss_rises_where_long_gradients_conflict(solve: object, longest: float, conflict: float) -> None:
    assert callable(solve)
    for seed in range(100):
        rows = conflicting(seed, longest, conflict)
        assert worst_cosine(solve(rows @ rows.T), rows) > -1e-7


@pytest.mark.parametrize(
    "iterative",
    [
        aggregation.MGDAWeighting(epsilon=1e-8, max_iters=250),
        aggregation.UPGradWeighting(projector=QuadprogProjector(reg_eps=1e-10)),
    ],
    ids=["mgda", "upgrad"],
)
def test_the_solvers_of_torchjd_let_a_loss_rise_for_these_gradients(iterative: nn.Module) -> None:
    """The reason for solvers of our own. If this fails, torchjd has become exact, and they can go."""
    draws = [conflicting(seed, 1e4, 10.0) for seed in range(50)]
    gramians = [rows @ rows.T for rows in draws]
    worst = [worst_cosine(iterative(gramian / gramian.diagonal().mean()), rows) for gramian, rows in zip(gramians, draws)]
    assert sum(cosine < -1e-6 for cosine in worst) > 5


@st.composite
def gradients(draw: st.DrawFn) -> Tensor:
    """Up to seven gradients, none of them 0, in few dimensions, so that they are often dependent, of very different lengths."""
    row = st.lists(st.integers(-2, 2), min_size=3, max_size=3).filter(any)
    rows = draw(st.lists(row, min_size=1, max_size=7))
    powers = draw(st.lists(st.integers(-6, 0), min_size=len(rows), max_size=len(rows)))
    return torch.tensor(rows, dtype=torch.float64) * 10.0 ** torch.tensor(powers)[:, None]


@settings(deadline=None, max_examples=200)
@given(rows=gradients())
def test_the_weights_of_mgda_meet_the_conditions_of_optimality(rows: Tensor) -> None:
    """They are sufficient: d is the shortest vector of the hull if and only if g_i . d >= d . d for every i."""
    weights = mgda_weights(rows @ rows.T)
    assert (weights >= 0).all()
    assert weights.sum().item() == pytest.approx(1)
    direction, norms = weights @ rows, rows.norm(dim=1)
    assert direction.norm() <= norms.min() * (1 + 1e-9)
    slack = (rows @ direction - direction @ direction) / norms
    assert slack.min() >= -1e-7 * norms.min()


@settings(deadline=None, max_examples=200)
@given(rows=gradients())
def test_the_direction_of_upgrad_conflicts_with_no_gradient(rows: Tensor) -> None:
    weights = upgrad_weights(rows @ rows.T)
    assert (weights >= 1).all()
    assert ((rows @ (weights @ rows)) / rows.norm(dim=1)).min() >= -1e-7 * rows.norm(dim=1).max()


def independent(seed: int, longest: float, tasks: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(tasks, 9, generator=generator, dtype=torch.float64)
    return rows * longest ** torch.rand(tasks, 1, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("longest", [1.0, 30.0, 300.0])
def test_mgda_equals_quadprog_and_slsqp(longest: float) -> None:
    for seed in range(20):
        rows = independent(seed, longest)
        gramian = (rows @ rows.T).numpy()
        scaled = gramian / gramian.diagonal().mean()
        constraints = np.column_stack([np.ones(4), np.eye(4)])
        by_quadprog = quadprog.solve_qp(scaled, np.zeros(4), constraints, np.array([1.0, 0, 0, 0, 0]), meq=1)[0]
        by_slsqp = minimize(
            lambda w, g: w @ g @ w,
            np.full(4, 0.25),
            args=(scaled,),
            jac=lambda w, g: 2 * g @ w,
            bounds=[(0, 1)] * 4,
            constraints={"type": "eq", "fun": lambda w, g: w.sum() - 1, "args": (scaled,)},
            method="SLSQP",
            options={"ftol": 1e-16, "maxiter": 500},
        ).x
        found = mgda_weights(rows @ rows.T).numpy()
        np.testing.assert_allclose(found, by_quadprog, rtol=0, atol=1e-9)
        np.testing.assert_allclose(found, by_slsqp, rtol=0, atol=1e-3)


@pytest.mark.parametrize("longest", [1.0, 30.0, 300.0])
def test_upgrad_is_the_sum_of_the_projections_of_quadprog(longest: float) -> None:
    for seed in range(20):
        rows = independent(seed, longest).numpy()
        # The nearest vector to g among those with g_i . x >= 0, in the space of x instead of the weights.
        projected = [quadprog.solve_qp(np.eye(9), row, rows.T, np.zeros(4))[0] for row in rows]
        found = upgrad_weights(torch.from_numpy(rows @ rows.T)).numpy() @ rows
        np.testing.assert_allclose(found, np.sum(projected, axis=0), rtol=0, atol=1e-9 * longest)


def test_a_vector_is_projected_as_by_quadprog() -> None:
    for seed in range(20):
        rows = independent(seed, 30.0, tasks=5).numpy()
        weights = projection_weights(torch.from_numpy(rows @ rows.T)).numpy()
        expected = quadprog.solve_qp(np.eye(9), rows[-1], rows[:-1].T, np.zeros(4))[0]
        np.testing.assert_allclose(rows[-1] + weights @ rows[:-1], expected, rtol=0, atol=1e-8)


def test_a_vector_is_projected_where_the_gradients_are_dependent_but_for_rounding() -> None:
    """They leave one line, along (2, 0, 1). Unregularised, the weights were 1e13 and the projection off by its own length."""
    rows = torch.tensor([[1.0, 1, -2], [0, -1, 0], [-1, 1, 2], [-40, -3, 77]], dtype=torch.float64)
    weights = projection_weights(rows @ rows.T)
    expected = torch.tensor([-1.2, 0, -0.6], dtype=torch.float64)
    torch.testing.assert_close(rows[-1] + weights @ rows[:-1], expected, rtol=0, atol=1e-6)


def test_opposite_gradients_give_a_zero_direction() -> None:
    rows = torch.tensor([[3.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(mgda_weights(rows @ rows.T), torch.tensor([0.25, 0.75], dtype=torch.float64))
    torch.testing.assert_close(upgrad_weights(rows @ rows.T) @ rows, torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-12)
