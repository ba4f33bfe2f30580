"""All losses of a batch together."""

import pytest
import torch
from torch import Tensor

from fr_ps.config import LossConfig
from fr_ps.losses import WEIGHTINGS, build_losses
from fr_ps.losses.multitask import MultiTaskLoss
from fr_ps.models.network import ADVERSARIAL_PREFIX

CHANNELS, BATCH = 8, 6
SESSIONS = torch.tensor([2, 2, 1, 1])
COUNTS = {"gender": torch.tensor([30, 70]), "emotion": torch.tensor([5, 10, 20])}


def build(**settings: object) -> MultiTaskLoss:
    torch.manual_seed(0)
    return build_losses(LossConfig(**settings), CHANNELS, SESSIONS, COUNTS)  # type: ignore[arg-type]


def outputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    made = {"identity": 20 * torch.randn(BATCH, CHANNELS, generator=generator)}
    for task, counts in COUNTS.items():
        for name in (task, ADVERSARIAL_PREFIX + task):
            made[name] = torch.randn(BATCH, len(counts), generator=generator)
    made |= {name: torch.randn(BATCH, 2, generator=generator) for name in ("pose", "adversarial_pose")}  # not trained
    return {name: tensor.requires_grad_() for name, tensor in made.items()}


def targets(**changes: list[int]) -> dict[str, Tensor]:
    plain = {"identity": [0, 0, 1, 1, 2, 3], "gender": [0, 1, 1, 0, 1, 1], "emotion": [0, 1, 2, 0, 1, 2], "pose": [0, 1] * 3}
    return {task: torch.tensor(codes) for task, codes in (plain | changes).items()}


NAMES = {"identity", "gender", "emotion", "adversarial_gender", "adversarial_emotion"}


def test_the_parts_are_the_losses_of_the_tasks_that_are_trained_and_the_total_their_weighted_sum() -> None:
    losses = build(weighting="fixed", identity=2, attribute=3, adversarial=0.5)
    made, wanted = outputs(), targets()
    total, parts = losses(made, wanted)
    assert set(parts) == NAMES
    alone = {"identity": losses.identity(made["identity"], wanted["identity"]).item()}
    for task, counts in COUNTS.items():
        alpha = (1 / counts) / (1 / counts).sum()
        for name in (task, ADVERSARIAL_PREFIX + task):
            p = made[name].detach().double().softmax(dim=1).gather(1, wanted[task][:, None])[:, 0]
            alone[name] = (alpha[wanted[task]] * (1 - p) * -p.log()).mean().item()  # the default gamma is 1
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(alone, rel=1e-5)
    weights = {"identity": 2, "gender": 3, "emotion": 3, "adversarial_gender": 0.5, "adversarial_emotion": 0.5}
    assert total.item() == pytest.approx(sum(weights[name] * value for name, value in alone.items()), rel=1e-5)


@pytest.mark.parametrize("attribute_loss", ["focal", "cross_entropy"])
def test_samples_without_a_label_are_left_out_of_that_task_only(attribute_loss: str) -> None:
    losses, made = build(weighting="fixed", attribute_loss=attribute_loss), outputs()
    _, plain = losses(made, targets())
    _, parts = losses(made, targets(gender=[0, -1, 1, -1, -1, 1]))
    known = torch.tensor([0, 2, 5])
    subset = {name: tensor[known] for name, tensor in made.items()}
    _, expected = losses(subset, {task: codes[known] for task, codes in targets().items()})
    for name in ("gender", "adversarial_gender"):
        torch.testing.assert_close(parts[name], expected[name])
        assert parts[name] != plain[name]
    for name in ("identity", "emotion", "adversarial_emotion"):
        assert torch.equal(parts[name], plain[name])


def test_outputs_without_a_label_get_no_gradient() -> None:
    losses, made = build(weighting="fixed"), outputs()
    total, _ = losses(made, targets(gender=[0, -1, 1, -1, -1, 1]))
    total.backward()
    grad = made["gender"].grad
    assert grad is not None
    assert (grad[[1, 3, 4]] == 0).all()
    assert (grad[[0, 2, 5]] != 0).all()
    assert made["pose"].grad is None


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_a_task_without_a_labelled_sample_has_no_part(weighting: str) -> None:
    losses, made = build(weighting=weighting), outputs()
    total, parts = losses(made, targets(emotion=[-1] * BATCH))
    assert set(parts) == NAMES - {"emotion", "adversarial_emotion"}
    assert torch.isfinite(total)
    total.backward()
    assert made["emotion"].grad is None


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_the_total_carries_a_gradient_and_the_parts_do_not(weighting: str) -> None:
    losses, made = build(weighting=weighting), outputs()
    total, parts = losses(made, targets())
    assert total.requires_grad
    assert not any(part.requires_grad for part in parts.values())
    assert not any(value.requires_grad for value in losses.diagnostics(made).values())


def test_learnt_weights_are_parameters_of_the_losses_and_start_equal() -> None:
    losses = build(weighting="uncertainty")
    assert "weighting.raw" in dict(losses.named_parameters())
    weights = losses.weighting.weights()
    assert set(weights) == NAMES
    assert all(float(weight) == pytest.approx(1, abs=1e-6) for weight in weights.values())


@pytest.mark.parametrize("identity_loss", ["magface", "arcface"])
def test_the_learnt_weight_of_a_solved_identity_grows_to_its_bound(identity_loss: str) -> None:
    """At norm 20 MagFace's loss stays above 35 (20 / 110^2 + 1 / 20) = 1.81, the penalty on norms."""
    losses, wanted = build(weighting="uncertainty", identity_loss=identity_loss), targets()
    with torch.no_grad():
        losses.identity.weight.copy_(torch.eye(len(SESSIONS), CHANNELS))
    made = {name: tensor.detach() for name, tensor in outputs().items()}
    made["identity"] = 20 * losses.identity.weight.detach()[wanted["identity"]]
    optimizer = torch.optim.AdamW(losses.weighting.parameters(), lr=0.05, weight_decay=0.0)
    for _ in range(800):
        total, parts = losses(made, wanted)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert parts["identity"].item() == pytest.approx(1.808 if identity_loss == "magface" else 0, abs=1e-3)
    assert 4.5 < float(losses.weighting.weights()["identity"]) <= 5 * (1 + 1e-6)


def test_dynamic_weights_follow_the_mean_losses_without_the_penalty() -> None:
    epochs = [{"loss/identity": 4.0, "loss/gender": 4.0, "loss/emotion": 4.0}, {"loss/identity": 1.0, "loss/gender": 2.0}]
    with_penalty, without = build(weighting="dwa"), build(weighting="dwa")
    for means, penalty in zip(epochs, (3.0, 2.0)):
        without.end_epoch(means)
        with_penalty.end_epoch(
            means | {"loss/identity": means["loss/identity"] + penalty, "norm/penalty": penalty, "norm/mean": 9.0}
        )
    weights = [{task: float(weight) for task, weight in losses.weighting.weights().items()} for losses in (without, with_penalty)]
    assert weights[1] == pytest.approx(weights[0])
    assert weights[0]["identity"] < weights[0]["gender"] < weights[0]["emotion"]
