"""Gradient reversal. Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 2016."""

from typing import Any

import torch
from torch import Tensor


class _GradientReversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: float) -> Tensor:
        ctx.alpha = alpha
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.alpha * gradients[0], None


def reverse_gradient(x: Tensor, alpha: float) -> Tensor:
    """`x` itself going forward; going backward the gradient times -alpha."""
    return _GradientReversal.apply(x, alpha)
