"""AdaFace against the paper's formulas in float64, its running norms, and what it becomes at the ends of its range."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fr_ps.losses.margin import AdaFace, ArcFace, CosFace

CHANNELS, PEOPLE, M = 8, 5, 0.4
PEOPLE_OF = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])


def build(h: float = 0.333, t_alpha: float = 0.01, margin: float = M) -> AdaFace:
    torch.manual_seed(0)
    return AdaFace(CHANNELS, PEOPLE, scale=64, margin=margin, h=h, t_alpha=t_alpha)


def batch(seed: int = 1, count: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    norms = 5 + 60 * torch.rand(count, 1, generator=generator)
    return functional.normalize(torch.randn(count, CHANNELS, generator=generator)) * norms


def by_the_paper(x: np.ndarray, weight: np.ndarray, people: np.ndarray, h: float) -> float:
    """The loss with arccos and cos, a sample at a time; norms standardised by those of this batch."""
    norms = np.sqrt((x**2).sum(axis=1))
    z = np.clip(h * (norms - norms.mean()) / (norms.std(ddof=1) + 1e-3), -1, 1)
    terms = []
    for vector, norm, person, quality in zip(x, norms, people, z):
        cosines = weight @ vector / (norm * np.sqrt((weight**2).sum(axis=1)))
        theta = min(max(math.acos(cosines[person]) - M * quality, 0.0), math.pi)
        cosines[person] = math.cos(theta) - (M * quality + M)
        logits = 64 * cosines
        terms.append(math.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[person])
    return float(np.mean(terms))


@pytest.mark.parametrize("h", [0.333, 1.0, 5.0])
@pytest.mark.parametrize("near", [0.0, 3.0], ids=["anywhere", "near their people"])
def test_the_loss_is_that_of_the_paper(h: float, near: float) -> None:
    loss = build(h=h)
    x = batch()
    x = x + near * x.norm(dim=1, keepdim=True) * functional.normalize(loss.weight.detach())[PEOPLE_OF]
    expected = by_the_paper(x.double().numpy(), loss.weight.detach().double().numpy(), PEOPLE_OF.numpy(), h)
    assert loss(x, PEOPLE_OF).item() == pytest.approx(expected, rel=1e-4)


def at(loss: AdaFace, z: float) -> Tensor:
    """The logits of embeddings whose standardised norm is z."""
    loss.norm_mean.fill_(50.0)
    loss.norm_std.fill_(10.0)
    norm = 50 + z * (10 + 1e-3) / loss.h
    return loss.eval().logits(functional.normalize(batch()) * norm, PEOPLE_OF)


def test_at_the_mean_norm_it_is_cosface() -> None:
    cosface = CosFace(CHANNELS, PEOPLE, scale=64, margin=M)
    cosface.load_state_dict({"weight": build().weight.detach()})
    torch.testing.assert_close(at(build(), 0.0), cosface.logits(batch(), PEOPLE_OF))


@pytest.mark.parametrize("z", [-1.0, -1.5])
def test_at_small_norms_it_is_arcface(z: float) -> None:
    arcface = ArcFace(CHANNELS, PEOPLE, scale=64, margin=M)
    arcface.load_state_dict({"weight": build().weight.detach()})
    torch.testing.assert_close(at(build(), z), arcface.logits(batch(), PEOPLE_OF), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("z", [1.0, 2.0])
def test_at_large_norms_the_angle_is_negative_and_the_cosine_margin_twice_as_large(z: float) -> None:
    loss = build()
    theta = functional.cosine_similarity(batch().double(), loss.weight.detach().double()[PEOPLE_OF]).acos()
    expected = 64 * ((theta - M).cos() - 2 * M)
    torch.testing.assert_close(at(loss, z).gather(1, PEOPLE_OF[:, None])[:, 0].double(), expected, atol=2e-3, rtol=1e-4)


def test_without_a_margin_it_is_a_scaled_softmax() -> None:
    loss = build(margin=0.0)
    cosine = functional.cosine_similarity(batch()[:, None], loss.weight[None], dim=2)
    torch.testing.assert_close(loss(batch(), PEOPLE_OF), functional.cross_entropy(64 * cosine, PEOPLE_OF))


def test_an_angle_outside_0_to_pi_is_clamped() -> None:
    loss = build()
    loss.norm_std.fill_(1.0)
    cosine = torch.tensor([1.0, math.cos(0.2), -1.0, math.cos(math.pi - 0.2)])
    norm = torch.tensor([1e3, 1e3, -1e3, -1e3])  # z = 1 takes 0.4 off the angle, z = -1 adds it
    torch.testing.assert_close(loss.apply_margin(cosine, norm), torch.tensor([1 - 2 * M, 1 - 2 * M, -1.0, -1.0]))


def test_the_norm_gets_no_gradient_through_the_margin() -> None:
    x = batch().requires_grad_()
    build()(x, PEOPLE_OF).backward()
    assert x.grad is not None
    along = (x.grad * x).sum(dim=1).abs()
    assert (along < 1e-4 * (x.grad.norm(dim=1) * x.norm(dim=1)).max()).all()


def test_running_norms_are_a_plain_mean_at_first_and_then_an_exponential_one() -> None:
    loss = build(t_alpha=0.25)
    mean = std = 0.0
    for number in range(1, 9):
        x = batch(seed=number)
        loss(x, PEOPLE_OF)
        norms = np.linalg.norm(x.double().numpy(), axis=1)
        share = 1 / number if number < 4 else 0.25
        mean, std = mean + share * (norms.mean() - mean), std + share * (norms.std(ddof=1) - std)
        assert loss.norm_mean.item() == pytest.approx(mean, rel=1e-5)
        assert loss.norm_std.item() == pytest.approx(std, rel=1e-5)


def test_running_norms_are_state_and_constant_in_evaluation_and_for_one_embedding() -> None:
    loss = build()
    loss(batch(), PEOPLE_OF)
    state = {name: tensor.clone() for name, tensor in loss.state_dict().items()}
    assert {"batches", "norm_mean", "norm_std"} < set(state)
    loss(batch(2)[:1], PEOPLE_OF[:1])
    loss.eval()(batch(2), PEOPLE_OF)
    assert all(torch.equal(state[name], tensor) for name, tensor in loss.state_dict().items())
    resumed = build()
    resumed.load_state_dict(state)
    torch.testing.assert_close(resumed.train()(batch(3), PEOPLE_OF), loss.train()(batch(3), PEOPLE_OF), rtol=0, atol=0)


def test_norms_at_the_limits_are_counted() -> None:
    loss = build(h=0.5)
    loss.norm_mean.fill_(50.0)
    loss.norm_std.fill_(10.0)
    x = functional.normalize(batch(count=4)) * torch.tensor([[20.0], [35.0], [65.0], [75.0]])  # two deviations are 20
    assert loss.diagnostics(x)["norm/clamped"].item() == 0.5
