"""What holds for every identity loss, and the angle that they add."""

import math
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from fr_ps.config import LossConfig
from fr_ps.losses import IDENTITY_LOSSES, build_identity_loss
from fr_ps.losses.margin import AdaFace, MarginLoss, add_angle

NAMES = get_args(get_type_hints(LossConfig)["identity_loss"])
CHANNELS, PEOPLE = 8, 5
every_loss = pytest.mark.parametrize("name", NAMES)


def build(name: str, person_weights: Tensor | None = None, **settings: float) -> MarginLoss:
    torch.manual_seed(0)
    config = LossConfig(identity_loss=name, **settings)  # type: ignore[arg-type]
    return build_identity_loss(config, CHANNELS, PEOPLE, person_weights)


def embeddings(norms: list[float], seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.randn(len(norms), CHANNELS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (functional.normalize(x) * torch.tensor(norms, dtype=torch.float64)[:, None]).to(dtype)


def test_every_name_of_the_settings_is_built() -> None:
    assert set(NAMES) == set(IDENTITY_LOSSES)


@every_loss
def test_the_target_logit_is_lowered_and_the_others_are_scaled_cosines(name: str) -> None:
    loss = build(name).eval()
    people = torch.arange(PEOPLE)
    x = functional.normalize(loss.weight.detach()) * 30 + embeddings([10.0] * PEOPLE)
    logits = loss.logits(x, people).detach()
    plain = 64 * functional.cosine_similarity(x[:, None], loss.weight[None], dim=2).detach()
    true = torch.eye(PEOPLE, dtype=torch.bool)
    torch.testing.assert_close(logits[~true], plain[~true], atol=1e-4, rtol=1e-5)
    assert (logits[true] < plain[true] - 1).all()


def hard_embeddings(loss: MarginLoss) -> Tensor:
    """Along and against the true person, at every kind of norm, and zero."""
    directions = functional.normalize(loss.weight.detach())
    rows = [sign * norm * directions[0] for sign in (1, -1) for norm in (1e-20, 1e-3, 1.0, 10.0, 50.0, 110.0, 1e4)]
    return torch.stack([*rows, torch.zeros(CHANNELS), directions[1] * 30])


@every_loss
@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16 autocast"])
def test_value_and_gradients_are_finite_at_the_poles_and_at_zero(name: str, autocast: bool) -> None:
    loss = build(name)
    rows = hard_embeddings(loss)
    for x in (rows, *rows.split(1)):
        x = x.clone().requires_grad_()
        loss.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            value = loss(x, torch.zeros(len(x), dtype=torch.long))
        value.backward()
        assert torch.isfinite(value)
        for tensor in (x, loss.weight):
            assert tensor.grad is not None
            assert torch.isfinite(tensor.grad).all()


@every_loss
def test_a_bfloat16_batch_under_autocast_has_the_loss_of_the_same_numbers_in_float32(name: str) -> None:
    """Cosines near 1 in bfloat16 have steps of 0.004, which the scale of 64 makes a quarter."""
    loss = build(name).eval()
    x = (functional.normalize(loss.weight.detach()) * 30 + embeddings([3.0] * PEOPLE)).bfloat16()
    people = torch.arange(PEOPLE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = loss(x, people)
    assert mixed.dtype == torch.float32
    assert mixed.item() == pytest.approx(loss(x.float(), people).item(), rel=1e-5, abs=1e-7)


@every_loss
def test_gradients_pass_gradcheck_in_float64_away_from_the_kinks(name: str) -> None:
    loss = build(name, scale=4.0).double().eval()
    if isinstance(loss, AdaFace):
        loss.norm_mean.fill_(50.0)
        loss.norm_std.fill_(30.0)
    people, norms = torch.tensor([0, 1, 2, 3]), [15.0, 30.0, 60.0, 100.0]
    x = embeddings(norms, dtype=torch.float64).requires_grad_()

    def value(vectors: Tensor, _weight: Tensor) -> Tensor:
        if name == "adaface":  # which holds the norm for a constant: so must the finite differences
            vectors = functional.normalize(vectors) * torch.tensor(norms, dtype=torch.float64)[:, None]
        return loss(vectors, people)

    assert torch.autograd.gradcheck(value, (x, loss.weight))


@every_loss
def test_diagnostics_are_the_mean_norm_and_the_clamped_share_and_change_nothing(name: str) -> None:
    loss = build(name)
    before = {key: tensor.clone() for key, tensor in loss.state_dict().items()}
    observed = loss.diagnostics(embeddings([5.0, 20.0, 65.0]))
    assert set(observed) == {"norm/mean", "norm/clamped"}
    assert observed["norm/mean"].item() == pytest.approx(30)
    assert all(torch.equal(before[key], tensor) for key, tensor in loss.state_dict().items())


@pytest.mark.parametrize("name", ["arcface", "cosface"])
def test_a_margin_that_no_norm_changes_is_never_clamped(name: str) -> None:
    assert build(name).diagnostics(embeddings([1e-3, 1e4]))["norm/clamped"] == 0


@every_loss
def test_the_weight_of_a_subject_multiplies_the_cross_entropy_of_its_samples(name: str) -> None:
    weights = torch.tensor([1.0, 0.3, 0.5, 0.0, 0.8])
    x, people = embeddings([20.0, 30, 40, 50, 60, 70]), torch.tensor([0, 1, 2, 3, 4, 1])
    weighted, plain = build(name, weights).eval(), build(name).eval()
    assert torch.equal(weighted.weight, plain.weight)
    log_p = plain.logits(x, people).detach().double().log_softmax(dim=1).numpy()
    entropies = -log_p[np.arange(6), people.numpy()]
    penalty = plain(x, people).item() - entropies.mean()
    expected = (weights.double().numpy()[people.numpy()] * entropies).mean() + penalty
    assert weighted(x, people).item() == pytest.approx(expected, rel=1e-5)
    assert weighted(x, people).item() < plain(x, people).item() - 0.1


@settings(deadline=None)
@given(st.floats(0.001, math.pi - 0.001), st.floats(-1.5, 1.5) | st.integers(-1, 1))
def test_an_angle_is_added_as_arccos_and_cos_would(theta: float, angle: float) -> None:
    added = add_angle(torch.tensor(math.cos(theta), dtype=torch.float64), angle)
    assert added.item() == pytest.approx(math.cos(theta + angle), abs=1e-9)


@pytest.mark.parametrize("cosine", [1.0, -1.0, 1.0000002, -1.0000002])
def test_an_angle_is_added_at_the_poles_without_an_infinite_gradient(cosine: float) -> None:
    x = torch.tensor(cosine, requires_grad=True)
    added = add_angle(x, 0.5)
    added.backward()
    assert added.item() == pytest.approx(math.copysign(math.cos(0.5), cosine), abs=1e-3)
    assert x.grad is not None
    assert x.grad.item() == pytest.approx(math.cos(0.5))
