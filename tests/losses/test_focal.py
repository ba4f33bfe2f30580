"""The focal loss against scikit-learn and its formula in float64."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from fr_ps.losses.classification import FocalLoss


def sample(classes: int, count: int = 12, spread: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(classes)
    logits = spread * torch.randn(count, classes, generator=generator)
    return logits, torch.arange(count) % classes


def softmax(logits: torch.Tensor) -> np.ndarray:
    values = np.exp(logits.double().numpy() - logits.double().numpy().max(axis=1, keepdims=True))
    return values / values.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_without_focus_it_is_cross_entropy_weighted_sample_by_sample(classes: int) -> None:
    logits, target = sample(classes)
    alpha = torch.linspace(0.1, 0.9, classes)
    weights = alpha[target].double().numpy()
    expected = log_loss(target.numpy(), softmax(logits), sample_weight=weights) * weights.sum() / len(weights)
    assert FocalLoss(alpha, 0.0)(logits, target).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 2.5])
def test_with_focus_it_is_the_formula(classes: int, gamma: float) -> None:
    logits, target = sample(classes)
    alpha = torch.linspace(0.1, 0.9, classes)
    terms = []
    for row, c in zip(softmax(logits), target.tolist()):
        terms.append(float(alpha[c]) * (1 - row[c]) ** gamma * -np.log(row[c]))
    assert FocalLoss(alpha, gamma)(logits, target).item() == pytest.approx(np.mean(terms), rel=1e-5)


def test_each_class_may_have_its_own_focus() -> None:
    logits, target = sample(3)
    alpha, gamma = torch.tensor([0.2, 0.3, 0.5]), torch.tensor([0.0, 2.0, 0.7])
    p = softmax(logits)[np.arange(len(target)), target.numpy()]
    terms = alpha.double().numpy()[target] * (1 - p) ** gamma.double().numpy()[target] * -np.log(p)
    assert FocalLoss(alpha, gamma)(logits, target).item() == pytest.approx(terms.mean(), rel=1e-5)


def test_focus_makes_easy_samples_count_less_against_hard_ones() -> None:
    easy, hard, target = torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([0])
    ratios = [
        FocalLoss(torch.ones(2), gamma)(easy, target) / FocalLoss(torch.ones(2), gamma)(hard, target) for gamma in (0, 1, 2)
    ]
    assert ratios[0] > 10 * ratios[1] > 100 * ratios[2] > 0


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, torch.tensor([0.0, 0.5])])
@pytest.mark.parametrize("gap", [0.0, 10.0, 40.0, 100.0, 1e4])
@pytest.mark.parametrize("right", [True, False])
def test_value_and_gradient_are_finite_at_certainty(gamma: torch.Tensor | float, gap: float, right: bool) -> None:
    logits = torch.tensor([[gap, 0.0], [gap / 2, -gap / 2]], requires_grad=True)
    loss = FocalLoss(torch.tensor([0.3, 0.7]), gamma)(logits, torch.tensor([0, 0] if right else [1, 1]))
    loss.backward()
    assert torch.isfinite(loss)
    assert loss >= 0
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    if gap >= 40:
        assert loss.item() == pytest.approx(0 if right else 0.7 * gap, abs=1e-6, rel=1e-5)
        assert bool(logits.grad.abs().sum() > 0.1) is not right


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_the_gradient_is_that_of_finite_differences_of_the_formula(gamma: float) -> None:
    logits, target = sample(3, spread=1.0)
    logits.requires_grad_()
    alpha = torch.tensor([0.2, 0.3, 0.5])
    FocalLoss(alpha, gamma)(logits, target).backward()

    def value(raw: np.ndarray) -> float:
        p = softmax(torch.from_numpy(raw))[np.arange(len(raw)), target.numpy()]
        return float((alpha.double().numpy()[target.numpy()] * (1 - p) ** gamma * -np.log(p)).mean())

    start = logits.detach().double().numpy()
    assert logits.grad is not None
    for index in np.ndindex(start.shape):
        ends = []
        for step in (1e-5, -1e-5):
            moved = start.copy()
            moved[index] += step
            ends.append(value(moved))
        assert logits.grad[index].item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-3, abs=1e-6)


def test_half_precision_logits_are_computed_in_float32() -> None:
    logits, target = sample(2)
    loss = FocalLoss(torch.tensor([0.4, 0.6]), 2.0)
    got = loss(logits.bfloat16(), target)
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(loss(logits.bfloat16().float(), target).item(), rel=1e-6)
