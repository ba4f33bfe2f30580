"""Partial FC: the loss over a sample by the columns of all logits, the update of its centres by AdamW's formula."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from fr_ps.config import BatchConfig, Config, LossConfig, OptimConfig
from fr_ps.losses import IDENTITY_LOSSES, build_identity_loss
from fr_ps.losses.margin import AdaFace, MarginLoss
from fr_ps.training.sampled_centres import sample_subjects, sampled_centres
from fr_ps.training.trainer import Trainer
from tests.training.runs import make_config, make_trainer

CHANNELS, SUBJECTS = 8, 40
TARGETS = torch.tensor([7, 3, 30, 7, 39])


def build(name: str = "cosface", person_weights: torch.Tensor | None = None) -> MarginLoss:
    torch.manual_seed(0)
    loss = build_identity_loss(LossConfig(identity_loss=name), CHANNELS, SUBJECTS, person_weights)  # type: ignore[arg-type]
    if isinstance(loss, AdaFace):
        loss.norm_mean.fill_(20.0)
        loss.norm_std.fill_(5.0)
    return loss.eval()


def embeddings() -> torch.Tensor:
    return (20 * torch.randn(len(TARGETS), CHANNELS, generator=torch.Generator().manual_seed(1))).requires_grad_()


def test_a_sample_has_the_subjects_of_the_step_and_uniform_others() -> None:
    samples = [sample_subjects(SUBJECTS, TARGETS, 0.25, seed) for seed in range(2000)]
    for sample in samples:
        assert len(sample) == 10
        assert (sample.diff() > 0).all()
        assert set(TARGETS.tolist()) <= set(sample.tolist())
    frequency = torch.stack(samples).flatten().bincount(minlength=SUBJECTS) / len(samples)
    others = [subject for subject in range(SUBJECTS) if subject not in TARGETS]
    assert frequency[others].numpy() == pytest.approx(np.full(len(others), 6 / 36), abs=0.045)  # 5 standard deviations


def test_a_sample_is_a_function_of_the_seed_alone() -> None:
    first = sample_subjects(SUBJECTS, TARGETS, 0.5, 3)
    torch.manual_seed(5)
    assert torch.equal(first, sample_subjects(SUBJECTS, TARGETS, 0.5, 3))
    assert not torch.equal(first, sample_subjects(SUBJECTS, TARGETS, 0.5, 4))


@pytest.mark.parametrize(("share", "count"), [(1e-6, 5), (0.26, 11), (0.999, 40), (1.0, 40)])
def test_the_size_of_a_sample_is_the_share_rounded_up_and_enough_for_the_batch(share: float, count: int) -> None:
    assert len(sample_subjects(SUBJECTS, TARGETS, share, 0)) == count


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", IDENTITY_LOSSES)
def test_the_loss_is_the_cross_entropy_over_the_columns_of_the_sample(name: str, weighted: bool) -> None:
    weights = torch.linspace(0.2, 1, SUBJECTS) if weighted else None
    loss, whole, x = build(name, weights), build(name, weights), embeddings()
    sample = sample_subjects(SUBJECTS, TARGETS, 0.3, 0)
    columns = whole.logits(x, TARGETS)[:, sample]
    positions = torch.tensor([sample.tolist().index(target) for target in TARGETS])
    factors = torch.ones(len(TARGETS)) if weights is None else weights[TARGETS]
    expected = (factors * functional.cross_entropy(columns, positions, reduction="none")).mean() + loss.penalty(x.norm(dim=1))
    to_embeddings, to_centres = torch.autograd.grad(expected, [x, whole.weight])

    with sampled_centres([loss], torch.optim.AdamW([loss.weight]), TARGETS, 0.3, 0):
        value = loss(x, TARGETS)
        value.backward()
        assert loss.weight.grad is not None
        assert loss.weight.grad.shape == (12, CHANNELS)
        torch.testing.assert_close(loss.weight.grad, to_centres[sample])
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(x.grad, to_embeddings)
    assert torch.equal(loss.weight, whole.weight)
    assert loss.weight.grad is None


def test_adamw_moves_the_centres_of_the_sample_only() -> None:
    loss = build()
    optimizer = torch.optim.AdamW([loss.weight], lr=0.01, weight_decay=0.1, fused=True)
    expected = loss.weight.detach().double().numpy().copy()
    first, second = np.zeros_like(expected), np.zeros_like(expected)
    for step in range(1, 9):
        targets = torch.tensor([step, 2 * step])
        rows = sample_subjects(SUBJECTS, targets, 0.2, step)
        with sampled_centres([loss], optimizer, targets, 0.2, step):
            optimizer.zero_grad()
            loss(embeddings()[:2], targets).backward()
            gradient = loss.weight.grad.double().numpy()  # type: ignore[union-attr]
            optimizer.step()
        rows = rows.numpy()
        first[rows] = 0.9 * first[rows] + 0.1 * gradient
        second[rows] = 0.999 * second[rows] + 0.001 * gradient**2
        direction = first[rows] / (1 - 0.9**step) / (np.sqrt(second[rows] / (1 - 0.999**step)) + 1e-8)
        expected[rows] -= 0.01 * (0.1 * expected[rows] + direction)
    np.testing.assert_allclose(loss.weight.detach().numpy(), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(optimizer.state[loss.weight]["exp_avg"].numpy(), first, rtol=1e-4, atol=1e-6)


def test_a_process_without_a_sampled_subject_has_its_first_one() -> None:
    torch.manual_seed(0)
    whole = build().weight.detach()
    for part, expected in ((range(8, 20), [8]), (range(30, SUBJECTS), [30, 39])):
        torch.manual_seed(0)
        loss = build_identity_loss(LossConfig(), CHANNELS, SUBJECTS, None, part)
        with sampled_centres([loss], torch.optim.AdamW([loss.weight]), TARGETS, 1e-6, 0):
            assert loss.sampled is not None
            assert loss.sampled.tolist() == expected
            assert torch.equal(loss.weight, whole[expected])


class LargeTensors(TorchDispatchMode):
    """Counts the operations that make a tensor of the size of all centres, other than in `known` memory."""

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.known, self.made = {tensor.data_ptr() for tensor in known}, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **kwargs or {})
        if isinstance(out, torch.Tensor) and out.numel() >= SUBJECTS * CHANNELS:
            self.made += out.data_ptr() not in self.known
        return out


def test_a_step_allocates_nothing_of_the_size_of_all_centres() -> None:
    loss = build()
    optimizer = torch.optim.AdamW([loss.weight], fused=True)
    counts = []
    for step in range(2):
        counter = LargeTensors([loss.weight, *optimizer.state[loss.weight].values()])
        with counter, sampled_centres([loss], optimizer, TARGETS, 0.2, step):
            loss(embeddings(), TARGETS).backward()
            optimizer.step()
        counts.append(counter.made)
    assert counts[0] > 0  # the moments
    assert counts[1] == 0


@pytest.mark.parametrize("steps_before", [0, 1])
def test_a_failed_step_leaves_all_centres(steps_before: int) -> None:
    loss = build()
    optimizer = torch.optim.AdamW([loss.weight], fused=True)
    for fails in (False,) * steps_before + (True,):
        before = loss.weight.detach().clone()
        try:
            with sampled_centres([loss], optimizer, TARGETS, 0.3, 0):
                loss(embeddings(), TARGETS).backward()
                if fails:
                    raise ConnectionError
                optimizer.step()
        except ConnectionError:
            assert torch.equal(loss.weight, before)
    shapes = {value.shape for value in optimizer.state[loss.weight].values() if value.dim()}
    assert shapes == ({(SUBJECTS, CHANNELS)} if steps_before else set())
    assert loss.sampled is None


def config(prepared: Path, optim: str = "adamw", **loss: Any) -> Config:
    """Batches of four sessions, fewer than the six subjects."""
    made = make_config(prepared, loss=loss, accumulate=1)
    made = replace(made, batch=BatchConfig(people=2, sessions=2, steps=4), optim=OptimConfig(name=optim, lr=2e-3))  # type: ignore[arg-type]
    return replace(made, data=replace(made.data, modalities=("albedo", "normal"))) if loss.get("branches") else made


def trained(trainer: Trainer, epochs: int = 2) -> dict[str, torch.Tensor]:
    while trainer.state.epoch < epochs:
        trainer.train_epoch()
        trainer.state.end_epoch()
    return trainer.state.losses.state_dict() | trainer.state.network.state_dict()


@pytest.mark.parametrize("optim", ["adamw", "sgd"])
@pytest.mark.parametrize("loss", [{}, {"branches": True, "person_weights": "soft", "weighting": "upgrad"}])
def test_a_sample_of_all_subjects_trains_bit_for_bit_like_the_exact_loss(
    prepared: Path, optim: str, loss: dict[str, Any]
) -> None:
    exact, sampled, fewer = (
        trained(make_trainer(config(prepared, optim, sampled_subject_share=share, **loss)), 1) for share in (1.0, 0.999, 0.5)
    )
    assert all(torch.equal(value, sampled[name]) for name, value in exact.items())
    assert exact["identity.weight"].shape == fewer["identity.weight"].shape
    assert not torch.equal(exact["identity.weight"], fewer["identity.weight"])


@pytest.mark.parametrize("optim", ["adamw", "sgd"])
def test_a_resumed_training_is_that_without_interruption(prepared: Path, optim: str) -> None:
    settings = config(prepared, optim, sampled_subject_share=0.5, identity_loss="adaface")
    whole, first, resumed = (make_trainer(settings) for _ in range(3))
    expected = trained(whole)
    stream = first.loader.stream(first.loader.epoch_indices(0), 0)
    for step in range(2):
        first.train_step(stream, range(step, step + 1))
    first.state.batch = 2
    torch.manual_seed(99)
    resumed.state.load_state_dict(first.state.state_dict())
    assert all(torch.equal(value, expected[name]) for name, value in trained(resumed).items())


def test_accumulated_batches_share_one_sample_with_the_subjects_of_all(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(config(prepared, sampled_subject_share=0.1), batch=BatchConfig(people=2, sessions=1, steps=4))
    trainer = make_trainer(replace(settings, train=replace(settings.train, accumulate=2)))
    seen: list[torch.Tensor | None] = []
    trainer.state.losses.identity.register_forward_pre_hook(lambda loss, _: seen.append(loss.sampled))
    batches = list(trainer.loader.stream(trainer.loader.epoch_indices(0), 0))
    trainer.train_step(iter(batches), range(2))
    first, second = seen
    assert first is second
    assert first is not None
    assert set(torch.cat([batch.targets["identity"] for batch in batches[:2]]).tolist()) <= set(first.tolist())
