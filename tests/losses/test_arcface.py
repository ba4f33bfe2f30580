"""ArcFace against its formula, and where the angle would go beyond pi."""

import math

import pytest
import torch
from torch.nn import functional

from fr_ps.losses.margin import ArcFace, MagFace


@pytest.mark.parametrize("margin", [0.0, 0.3, 0.5, 1.2])
def test_the_margin_is_an_angle_and_beyond_pi_the_papers_line(margin: float) -> None:
    loss = ArcFace(4, 3, scale=1, margin=margin)
    theta = torch.linspace(0.01, math.pi - 0.01, 300, dtype=torch.float64)
    got = loss.apply_margin(theta.cos(), torch.ones(300))
    expected = [
        math.cos(angle + margin) if angle + margin < math.pi else math.cos(angle) - margin * math.sin(margin)
        for angle in theta.tolist()
    ]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), atol=1e-7, rtol=0)


@pytest.mark.parametrize("margin", [0.1, 0.5, 1.0, 1.57])
def test_the_logit_falls_with_the_angle_over_the_whole_range(margin: float) -> None:
    theta = torch.linspace(0.001, math.pi - 0.001, 2000, dtype=torch.float64)
    got = ArcFace(4, 3, scale=1, margin=margin).apply_margin(theta.cos(), torch.ones(2000))
    assert (got.diff() < 0).all()


def test_magface_with_one_margin_and_no_regulariser_is_arcface_at_acute_angles() -> None:
    torch.manual_seed(0)
    arcface = ArcFace(8, 5, scale=64, margin=0.5)
    torch.manual_seed(0)
    magface = MagFace(8, 5, scale=64, lower_norm=10, upper_norm=110, lower_margin=0.5, upper_margin=0.5, lambda_g=0)
    people = torch.arange(10) % 5
    spread = torch.randn(10, 8, generator=torch.Generator().manual_seed(1))
    x = functional.normalize(arcface.weight.detach())[people] + 0.5 * spread
    x = functional.normalize(x) * torch.linspace(1, 200, 10)[:, None]
    assert (functional.cosine_similarity(x, arcface.weight[people]) > 0).all()
    gradients = []
    for loss in (arcface, magface):
        vectors = x.clone().requires_grad_()
        value = loss(vectors, people)
        gradients.append((value.detach(), *torch.autograd.grad(value, (vectors, loss.weight))))
    for ours, theirs in zip(*gradients):
        torch.testing.assert_close(ours, theirs)
