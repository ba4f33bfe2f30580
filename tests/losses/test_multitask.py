"""All losses of a batch together."""

import pytest
import torch
from torch import Tensor

from fr_ps.config import LossConfig
from fr_ps.losses import WEIGHTINGS, build_losses
from fr_ps.losses.contrastive import supervised_contrastive
from fr_ps.losses.multitask import ADVERSARIAL_PREFIX, LossOutput, MultiTaskLoss
from tests.models.small import to_output

CHANNELS, BATCH = 8, 6
SESSIONS = torch.tensor([2, 2, 1, 1])
COUNTS = {"gender": torch.tensor([30, 70]), "emotion": torch.tensor([5, 10, 20])}


def build(**settings: object) -> MultiTaskLoss:
    torch.manual_seed(0)
    return build_losses(LossConfig(**settings), CHANNELS, SESSIONS, COUNTS, COUNTS)  # type: ignore[arg-type]


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


def compute(losses: MultiTaskLoss, named: dict[str, Tensor], wanted: dict[str, Tensor]) -> LossOutput:
    output: LossOutput = losses(to_output(named), wanted)
    return output


NAMES = {"identity", "gender", "emotion", "adversarial_gender", "adversarial_emotion"}


def test_the_parts_are_the_losses_of_the_tasks_that_are_trained_and_the_total_their_weighted_sum() -> None:
    losses = build(weighting="fixed", identity=2, attribute=3, adversarial=0.5)
    made, wanted = outputs(), targets()
    total, parts, _ = compute(losses, made, wanted)
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


@pytest.mark.parametrize("weighting", ["fixed", "uncertainty", "dwa"])
def test_the_contrastive_loss_is_part_of_the_identity_loss_and_logged_by_itself(weighting: str) -> None:
    made, wanted = outputs(), targets()
    plain = compute(build(weighting=weighting), made, wanted)
    found = compute(build(weighting=weighting, contrastive=0.5, contrastive_temperature=0.2), made, wanted)
    term = supervised_contrastive(made["identity"], wanted["identity"], 0.2)
    torch.testing.assert_close(found.tasks["identity"], plain.tasks["identity"] + 0.5 * term)
    torch.testing.assert_close(found.total, plain.total + 0.5 * term)  # all weights start at 1
    torch.testing.assert_close(found.scalars()["loss/contrastive"], term.detach())
    assert not found.scalars()["loss/contrastive"].requires_grad
    assert found.diagnostics["norm/penalty"] == plain.diagnostics["norm/penalty"]
    assert set(found.tasks) == set(plain.tasks)
    assert "loss/contrastive" not in plain.scalars()


@pytest.mark.parametrize("weighting", ["fixed", "uncertainty"])
@pytest.mark.parametrize("contrastive", [0.0, 0.5])
def test_the_identity_loss_is_the_mean_of_those_of_the_fusion_and_of_its_branches(contrastive: float, weighting: str) -> None:
    torch.manual_seed(0)
    config = LossConfig(weighting=weighting, branches=True, contrastive=contrastive)  # type: ignore[arg-type]
    losses = build_losses(config, CHANNELS, SESSIONS, COUNTS, COUNTS, {"albedo": 5, "normal": 3})
    made, wanted = outputs(), targets()
    for modality, width, norm in (("albedo", 5, 4.0), ("normal", 3, 40.0)):
        made[f"branch_{modality}"] = (
            norm * torch.randn(BATCH, width, generator=torch.Generator().manual_seed(3))
        ).requires_grad_()
    found = compute(losses, made, wanted)
    each, penalties = [], []
    for loss, name in ((losses.identity, "identity"), *((losses.branches[m], f"branch_{m}") for m in ("albedo", "normal"))):
        term = contrastive * supervised_contrastive(made[name], wanted["identity"], 0.1)
        each.append(float(loss(made[name], wanted["identity"]) + term))
        a = made[name].detach().norm(dim=1).clamp(10, 110)
        penalties.append(float(35 * (a / 110**2 + 1 / a).mean()))
    assert float(found.tasks["identity"]) == pytest.approx(sum(each) / 3, rel=1e-5)
    assert float(found.diagnostics["norm/penalty"]) == pytest.approx(sum(penalties) / 3, rel=1e-5)
    plain = compute(build(weighting=weighting), {name: made[name] for name in outputs()}, wanted)
    torch.testing.assert_close(found.total - found.tasks["identity"], plain.total - plain.tasks["identity"])
    found.total.backward()
    for parameter in (*losses.identity.parameters(), *losses.branches.parameters(), made["branch_albedo"], made["branch_normal"]):
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


@pytest.mark.parametrize("attribute_loss", ["focal", "cross_entropy"])
def test_samples_without_a_label_are_left_out_of_that_task_only(attribute_loss: str) -> None:
    losses, made = build(weighting="fixed", attribute_loss=attribute_loss), outputs()
    plain = compute(losses, made, targets()).tasks
    parts = compute(losses, made, targets(gender=[0, -1, 1, -1, -1, 1])).tasks
    known = torch.tensor([0, 2, 5])
    subset = {name: tensor[known] for name, tensor in made.items()}
    expected = compute(losses, subset, {task: codes[known] for task, codes in targets().items()}).tasks
    for name in ("gender", "adversarial_gender"):
        torch.testing.assert_close(parts[name], expected[name])
        assert parts[name] != plain[name]
    for name in ("identity", "emotion", "adversarial_emotion"):
        assert torch.equal(parts[name], plain[name])


def test_outputs_without_a_label_get_no_gradient() -> None:
    losses, made = build(weighting="fixed"), outputs()
    compute(losses, made, targets(gender=[0, -1, 1, -1, -1, 1])).total.backward()
    grad = made["gender"].grad
    assert grad is not None
    assert (grad[[1, 3, 4]] == 0).all()
    assert (grad[[0, 2, 5]] != 0).all()
    assert made["pose"].grad is None


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_a_task_without_a_labelled_sample_has_no_part(weighting: str) -> None:
    losses, made = build(weighting=weighting), outputs()
    total, parts, _ = compute(losses, made, targets(emotion=[-1] * BATCH))
    assert set(parts) == NAMES - {"emotion", "adversarial_emotion"}
    assert torch.isfinite(total)
    total.backward()
    assert made["emotion"].grad is None


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_total_and_task_losses_have_a_gradient_until_detached(weighting: str) -> None:
    losses, made = build(weighting=weighting), outputs()
    output = compute(losses, made, targets())
    assert output.total.requires_grad
    assert all(loss.requires_grad for loss in output.tasks.values())
    assert not any(value.requires_grad for value in output.diagnostics.values())
    detached = output.detach().scalars()
    assert not any(value.requires_grad for value in detached.values())
    assert {name: float(value) for name, value in detached.items()} == {
        name: float(value.detach()) for name, value in output.scalars().items()
    }
    assert set(detached) == {"loss/total", *(f"loss/{task}" for task in NAMES), "norm/mean", "norm/clamped", "norm/penalty"}


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
    optimizer = torch.optim.AdamW(losses.weighting.parameters(), lr=0.15, weight_decay=0.0)
    for _ in range(300):
        total, parts, _ = compute(losses, made, wanted)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert parts["identity"].item() == pytest.approx(1.808 if identity_loss == "magface" else 0, abs=1e-3)
    assert 4.5 < float(losses.weighting.weights()["identity"]) <= 5 * (1 + 1e-6)


def test_dynamic_weights_follow_the_mean_losses_without_the_penalty() -> None:
    epochs = [{"identity": 4.0, "gender": 4.0, "emotion": 4.0}, {"identity": 1.0, "gender": 2.0}]
    with_penalty, without = build(weighting="dwa"), build(weighting="dwa")
    for means, penalty in zip(epochs, (3.0, 2.0)):
        without.end_epoch(means, 0.0)
        with_penalty.end_epoch(means | {"identity": means["identity"] + penalty}, penalty)
    weights = [{task: float(weight) for task, weight in losses.weighting.weights().items()} for losses in (without, with_penalty)]
    assert weights[1] == pytest.approx(weights[0])
    assert weights[0]["identity"] < weights[0]["gender"] < weights[0]["emotion"]
