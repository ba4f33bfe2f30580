"""The supervised contrastive loss, against the formula of the paper written as loops."""

import math

import pytest
import torch
from torch import Tensor

from fr_ps.losses.contrastive import supervised_contrastive

SUBJECTS = torch.tensor([3, 0, 0, 3, 3, 7])
"""The last one has no other session in the batch."""


def embeddings(dtype: torch.dtype = torch.float32) -> Tensor:
    drawn = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (drawn * torch.tensor([1.0, 30, 0.1, 4, 2, 9])[:, None]).to(dtype)


def l_out(x: Tensor, subjects: Tensor, temperature: float) -> tuple[float, float]:
    """L_out, the mean over the anchors with positives, and its smallest possible value, in float64."""
    points = [(row / row.norm()).tolist() for row in x.double()]
    terms, floors = [], []
    for i, z in enumerate(points):
        exponentials = [math.exp(sum(a * b for a, b in zip(z, other)) / temperature) for other in points]
        others = [a for a in range(len(points)) if a != i]
        positives = [a for a in others if subjects[a] == subjects[i]]
        if positives:
            total = sum(exponentials[a] for a in others)
            terms.append(-sum(math.log(exponentials[p] / total) for p in positives) / len(positives))
            floors.append(math.log(len(positives)))
    return sum(terms) / len(terms), sum(floors) / len(floors)


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_it_is_l_out_of_the_paper_above_its_smallest_value(temperature: float) -> None:
    loss, floor = l_out(embeddings(), SUBJECTS, temperature)
    assert float(supervised_contrastive(embeddings(), SUBJECTS, temperature)) == pytest.approx(loss - floor, rel=1e-5)


def test_it_vanishes_where_each_subject_is_one_point_far_from_the_others() -> None:
    points = torch.eye(3)[[0, 0, 0, 1, 1, 2]]
    assert float(supervised_contrastive(points, torch.tensor([0, 0, 0, 1, 1, 2]), 0.02)) == pytest.approx(0, abs=1e-6)


def test_its_gradient_is_that_of_its_values() -> None:
    x = embeddings(torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda points: supervised_contrastive(points, SUBJECTS, 0.3), [x])


def test_a_step_down_the_gradient_pulls_a_subject_together() -> None:
    x = embeddings(torch.float64).requires_grad_()
    supervised_contrastive(x, SUBJECTS, 0.5).backward()
    assert x.grad is not None
    moved = (x - 0.05 * x.norm(dim=1, keepdim=True) * x.grad / x.grad.norm(dim=1, keepdim=True).clamp_min(1e-12)).detach()
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(moved[1], moved[2], dim=0) > cosine(x[1], x[2], dim=0)


@pytest.mark.parametrize("subjects", [[0, 1, 2, 3, 4, 5], [0] * 6])
def test_a_batch_without_positives_or_negatives_has_a_finite_gradient(subjects: list[int]) -> None:
    x = embeddings().requires_grad_()
    loss = supervised_contrastive(x, torch.tensor(subjects), 0.1)
    loss.backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert float(loss.detach()) == 0 or len(set(subjects)) == 1


def test_half_precision_embeddings_are_computed_in_float32() -> None:
    x = embeddings().bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = supervised_contrastive(x, SUBJECTS, 0.1)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, supervised_contrastive(x.float(), SUBJECTS, 0.1))
