"""Gradient reversal: nothing forward, minus alpha backward."""

from typing import Any

import pytest
import torch
from torch import nn

from fr_ps.models.layers import reverse_gradient

ALPHAS = (0.0, 0.1, 1.0, 2.5)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_forward_is_the_identity(alpha: float) -> None:
    x = torch.randn(3, 4, 5)
    assert torch.equal(reverse_gradient(x, alpha), x)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_backward_is_minus_alpha_times_the_finite_differences_of_the_following_function(alpha: float) -> None:
    def after(y: torch.Tensor) -> torch.Tensor:
        return (y.sin() * y.square()).sum()

    x = torch.linspace(-2, 2, 7, dtype=torch.float64, requires_grad=True)
    after(reverse_gradient(x, alpha)).backward()
    step = 1e-6
    numeric = [(after(x + step * row) - after(x - step * row)).item() / (2 * step) for row in torch.eye(7, dtype=torch.float64)]
    assert x.grad is not None
    torch.testing.assert_close(x.grad, -alpha * torch.tensor(numeric, dtype=torch.float64), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_reversing_twice_passes_gradcheck_as_alpha_squared(alpha: float) -> None:
    """Forward the composed function is y, backward alpha^2: scaled by it, the two agree as a true derivative does."""
    x = torch.randn(5, dtype=torch.float64, requires_grad=True)
    twice = torch.autograd.grad(reverse_gradient(reverse_gradient(x, alpha), alpha).pow(3).sum(), x)[0]
    once = torch.autograd.grad((x**3).sum(), x)[0]
    torch.testing.assert_close(twice, alpha**2 * once)
    if alpha == 1:
        assert torch.autograd.gradcheck(lambda z: reverse_gradient(reverse_gradient(z, alpha), alpha).pow(3), x)


def test_layers_after_the_reversal_learn_with_the_plain_sign() -> None:
    layer = nn.Linear(4, 1)
    x = torch.randn(6, 4)
    gradients = []
    for y in (x, reverse_gradient(x, 0.5)):
        layer.zero_grad()
        layer(y).square().sum().backward()
        assert layer.weight.grad is not None
        gradients.append(layer.weight.grad.clone())
    assert torch.equal(*gradients)
    assert gradients[0].abs().sum() > 0


@pytest.mark.parametrize("alpha", [0.1, 1.0, 2.5])
def test_the_jacobian_is_minus_alpha_times_the_identity_while_that_of_the_function_is_the_identity(alpha: float) -> None:
    """`gradcheck` compares the two: it fails for the reversal, and passes once that is divided out."""

    class Unreversed(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.view_as(x)

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
            return gradients[0] / -alpha

    x = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: Unreversed.apply(reverse_gradient(z, alpha)).pow(3), x)
    assert not torch.autograd.gradcheck(lambda z: reverse_gradient(z, alpha).pow(3), x, raise_exception=False)
