"""Cross-entropy with class weights and smoothed labels against its formula, and the focal loss without focus."""

import numpy as np
import pytest
import torch

from fr_ps.losses.classification import CrossEntropy, FocalLoss


def sample(classes: int, count: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(classes)
    return 2 * torch.randn(count, classes, generator=generator), torch.arange(count) % classes


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_the_loss_is_the_formula_averaged_over_the_samples(classes: int, smoothing: float) -> None:
    logits, target = sample(classes)
    weights = torch.linspace(0.2, 1.7, classes)
    values = logits.double().numpy()
    terms = []
    for row, c in zip(values, target.tolist()):
        log_p = row - np.log(np.exp(row).sum())
        q = np.full(classes, smoothing / classes)
        q[c] += 1 - smoothing
        terms.append(-(q * weights.double().numpy() * log_p).sum())
    assert CrossEntropy(weights, smoothing)(logits, target).item() == pytest.approx(np.mean(terms), rel=1e-5)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("per_class", [False, True], ids=["number", "a number a class"])
def test_focal_without_focus_is_weighted_cross_entropy_sample_by_sample(classes: int, per_class: bool) -> None:
    logits, target = sample(classes)
    weights = torch.linspace(0.2, 1.7, classes)
    focal = FocalLoss(weights, torch.zeros(classes) if per_class else 0.0)
    for row, c in zip(logits.split(1), target.split(1)):
        expected = weights[c].double() * -row.double().log_softmax(dim=1)[0, c]
        assert focal(row, c).item() == pytest.approx(expected.item(), rel=1e-5)
        assert CrossEntropy(weights, 0.0)(row, c).item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_batch_of_one_class_keeps_its_weight() -> None:
    logits, target = torch.zeros(4, 2), torch.ones(4, dtype=torch.long)
    assert CrossEntropy(torch.tensor([1.7, 0.3]), 0.0)(logits, target).item() == pytest.approx(0.3 * np.log(2), rel=1e-5)


def test_half_precision_logits_are_computed_in_float32() -> None:
    logits, target = sample(3)
    loss = CrossEntropy(torch.ones(3), 0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = loss(logits.bfloat16(), target)
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(loss(logits.bfloat16().float(), target).item(), rel=1e-6)
