"""MagFace against the paper's formulas in float64, and its numerics where they are hard."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fr_ps.losses.margin import MagFace

SETTINGS: dict[str, float] = {
    "scale": 64.0,
    "lower_norm": 10.0,
    "upper_norm": 110.0,
    "lower_margin": 0.45,
    "upper_margin": 0.8,
    "lambda_g": 35.0,
}
CHANNELS, PEOPLE = 8, 5


def build(**changes: float) -> MagFace:
    torch.manual_seed(0)
    return MagFace(CHANNELS, PEOPLE, **(SETTINGS | changes))


def embeddings(norms: list[float], seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.randn(len(norms), CHANNELS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (x / x.norm(dim=1, keepdim=True) * torch.tensor(norms, dtype=torch.float64)[:, None]).to(dtype)


def by_the_paper(x: np.ndarray, weight: np.ndarray, people: np.ndarray, settings: dict[str, float]) -> tuple[np.ndarray, float]:
    """Logits and loss with arccos and cos, a sample at a time."""
    s, lower, u = settings["scale"], settings["lower_norm"], settings["upper_norm"]
    logits = np.empty((len(x), len(weight)))
    losses = []
    for i, vector in enumerate(x):
        length = math.sqrt(sum(value * value for value in vector))
        a = min(max(length, lower), u)
        m = settings["lower_margin"] + (settings["upper_margin"] - settings["lower_margin"]) * (a - lower) / (u - lower)
        for j, direction in enumerate(weight):
            cosine = float(vector @ direction) / (length * math.sqrt(float(direction @ direction)))
            if j == people[i] and cosine > 0:
                cosine = math.cos(math.acos(cosine) + m)
            logits[i, j] = s * cosine
        g = a / u**2 + 1 / a
        top = logits[i].max()
        log_sum = top + math.log(np.exp(logits[i] - top).sum())
        losses.append(log_sum - logits[i, people[i]] + settings["lambda_g"] * g)
    return logits, float(np.mean(losses))


@pytest.mark.parametrize(
    "changes",
    [{}, {"lambda_g": 0.0}, {"scale": 16.0, "upper_margin": 1.2}, {"lower_norm": 1.0, "upper_norm": 50.0}, {"lower_margin": 0.0}],
    ids=str,
)
def test_logits_and_loss_are_those_of_the_paper(changes: dict[str, float]) -> None:
    loss = build(**changes)
    x = embeddings([0.5, 3, 10, 11, 25, 60, 109, 110, 300, 40, 40, 40])
    people = torch.arange(12) % PEOPLE
    weight = loss.weight.detach().double().numpy()
    logits, value = by_the_paper(x.double().numpy(), weight, people.numpy(), SETTINGS | changes)
    np.testing.assert_allclose(loss.logits(x, people).detach().numpy(), logits, rtol=1e-4, atol=2e-4)
    assert loss(x, people).item() == pytest.approx(value, rel=1e-5)
    true = torch.nn.functional.linear(x, loss.weight).gather(1, people[:, None])
    assert (true > 0).any()
    assert (true < 0).any()  # both sides of the easy margin were computed


def test_only_the_target_logit_has_a_margin() -> None:
    loss = build()
    x = embeddings([30.0] * 6)
    people = torch.tensor([0, 1, 2, 3, 4, 0])
    plain = SETTINGS["scale"] * torch.nn.functional.cosine_similarity(x[:, None], loss.weight[None], dim=2)
    difference = (loss.logits(x, people) - plain).detach()
    true = torch.nn.functional.one_hot(people, PEOPLE).bool()
    torch.testing.assert_close(difference[~true], torch.zeros(24), atol=1e-4, rtol=0)
    positive = plain.gather(1, people[:, None])[:, 0] > 0
    assert positive.any()
    assert (difference[true][positive] < -1).all()
    torch.testing.assert_close(difference[true][~positive], torch.zeros(int((~positive).sum())), atol=1e-4, rtol=0)


def test_with_one_margin_and_no_regulariser_it_is_arcface() -> None:
    loss = build(lower_margin=0.5, upper_margin=0.5, lambda_g=0.0)
    x, people = embeddings([5.0, 20, 50, 120, 30, 70]), torch.tensor([0, 1, 2, 3, 4, 0])
    cosine = torch.nn.functional.cosine_similarity(x[:, None].double(), loss.weight[None].double(), dim=2)
    angle = cosine.acos()
    true = torch.nn.functional.one_hot(people, PEOPLE).bool() & (cosine > 0)
    expected = torch.nn.functional.cross_entropy(64 * torch.where(true, angle + 0.5, angle).cos(), people)
    assert loss(x, people).item() == pytest.approx(expected.item(), rel=1e-5)
    assert loss(x * 0.5, people).item() == pytest.approx(loss(x, people).item(), rel=1e-5)


@pytest.mark.parametrize("through", ["logits", "regulariser"])
def test_gradients_pass_gradcheck_in_float64_away_from_the_clamps(through: str) -> None:
    loss = build(scale=4.0).double()
    people = torch.tensor([0, 1, 2, 3])
    x = embeddings([15.0, 30.0, 60.0, 100.0], dtype=torch.float64).requires_grad_()
    weight = loss.weight

    def value(vectors: Tensor, _weight: Tensor) -> Tensor:
        if through == "logits":
            return torch.nn.functional.cross_entropy(loss.logits(vectors, people), people)
        return loss.regulariser(vectors.norm(dim=1)).mean() * loss.lambda_g

    if through == "logits":
        assert torch.autograd.gradcheck(value, (x, weight))
    else:
        assert torch.autograd.gradcheck(lambda vectors: value(vectors, weight), (x,))


def test_the_loss_has_the_gradient_of_the_formula_of_the_paper() -> None:
    """Central differences of the float64 computation against the float32 gradient."""
    loss = build()
    people = torch.tensor([0, 1, 2, 3, 4])
    x = embeddings([15.0, 30.0, 60.0, 100.0, 40.0]).requires_grad_()
    loss(x, people).backward()
    start, weight = x.detach().double().numpy(), loss.weight.detach().double().numpy()
    numeric = np.empty_like(start)
    for index in np.ndindex(start.shape):
        ends = []
        for step in (1e-4, -1e-4):
            moved = start.copy()
            moved[index] += step
            ends.append(by_the_paper(moved, weight, people.numpy(), SETTINGS)[1])
        numeric[index] = (ends[0] - ends[1]) / 2e-4
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), numeric, rtol=1e-3, atol=1e-5)


def test_the_regulariser_is_convex_and_falls_to_the_upper_norm() -> None:
    loss = build().double()
    a = torch.linspace(10, 110, 1001, dtype=torch.float64)
    g = loss.regulariser(a)
    assert (g.diff() < 0).all()
    assert (g.diff().diff() > 0).all()
    assert loss.regulariser(torch.tensor([109.0, 110.0, 111.0], dtype=torch.float64)).argmin() == 1


def test_the_margin_is_linear_between_its_bounds() -> None:
    margins = build().margin(torch.tensor([10.0, 35.0, 60.0, 110.0]))
    torch.testing.assert_close(margins, torch.tensor([0.45, 0.5375, 0.625, 0.8]))


def best_norm(loss: MagFace, angle: float) -> float:
    """The norm between the clamps at which one sample's loss, at this angle from its person, is least."""
    a = torch.linspace(10, 110, 2001, dtype=torch.float64)
    direction = torch.nn.functional.normalize(loss.weight.detach()[0], dim=0)
    other = loss.weight.detach()[1] - (loss.weight.detach()[1] @ direction) * direction
    x = (math.cos(angle) * direction + math.sin(angle) * torch.nn.functional.normalize(other, dim=0)) * a[:, None]
    people = torch.zeros(len(a), dtype=torch.long)
    entropy = torch.nn.functional.cross_entropy(loss.logits(x, people), people, reduction="none")
    return float(a[(entropy + loss.lambda_g * loss.regulariser(a)).argmin()])


def test_easier_samples_have_larger_best_norms() -> None:
    """What makes the norm a measure of quality."""
    loss = build().double()
    norms = [best_norm(loss, angle) for angle in (0.2, 0.7, 0.9, 1.2)]
    assert norms == sorted(norms, reverse=True)
    assert norms[0] > norms[-1] + 10


def test_norms_outside_the_clamps_are_counted_and_their_penalty_is_that_of_the_bound() -> None:
    norms = [5.0, 9.9, 10.1, 50, 109.9, 110.1, 500, 20]
    observed = build().diagnostics(embeddings(norms))
    assert observed["norm/clamped"].item() == pytest.approx(4 / 8)
    assert build().penalty(torch.tensor(norms)).item() == pytest.approx(
        np.mean([35 * (a / 110**2 + 1 / a) for a in (10, 10, 10.1, 50, 109.9, 110, 110, 20)]), rel=1e-5
    )
    assert observed["norm/mean"].item() == pytest.approx((5 + 9.9 + 10.1 + 50 + 109.9 + 110.1 + 500 + 20) / 8, rel=1e-5)


@pytest.mark.parametrize("norm", [5.0, 200.0])
def test_a_clamped_norm_gets_no_gradient_along_itself(norm: float) -> None:
    loss = build()
    x = embeddings([norm]).requires_grad_()
    loss(x, torch.tensor([0])).backward()
    grad: Any = x.grad
    inward = torch.nn.functional.cosine_similarity(x, grad).item()
    assert abs(inward) < 1e-3
    inside = embeddings([50.0]).requires_grad_()
    loss(inside, torch.tensor([0])).backward()
    assert inside.grad is not None
    assert abs((inside.grad * inside).sum().item()) > 1e-3
