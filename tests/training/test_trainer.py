"""The training loop on tiny data, and its step against plain gradient descent."""

import contextlib
import math
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fr_ps.config import Config, TrainConfig
from fr_ps.data.labels import ATTRIBUTES
from fr_ps.losses.multitask import LossOutput
from fr_ps.losses.weighting import FixedWeighting
from fr_ps.training import trainer as module
from fr_ps.training.batch_loader import Batch
from fr_ps.training.divergence import NonFiniteGuard
from fr_ps.training.train_state import TrainState
from fr_ps.training.trainer import Trainer
from tests.training.runs import make_config, make_trainer


class RecordingEma:
    """In place of a moving average: keeps the steps."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self.steps: list[int] = []

    def update(self, step: int) -> None:
        self.steps.append(step)


class Training:
    """A trainer whose learning rates and steps are recorded."""

    def __init__(
        self, prepared: Path, seed: int = 0, weighting: str = "uncertainty", clip: float = 5, accumulate: int = 1, epochs: int = 2
    ) -> None:
        config = make_config(
            prepared, channels=32, loss={"weighting": weighting}, seed=seed, accumulate=accumulate, epochs=epochs
        )
        self.trainer = make_trainer(replace(config, optim=replace(config.optim, clip=clip)))
        self.state = self.trainer.state
        self.network, self.losses, self.optimizer = self.state.network, self.state.losses, self.state.optimizer
        self.lr = 2e-3
        self.asked: list[int] = []
        self.trainer.lr_at = self.rate
        self.state.ema = cast(Any, RecordingEma(self.network))

    def rate(self, step: int) -> float:
        self.asked.append(step)
        return self.lr * 0.99**step

    def epoch(self) -> dict[str, float]:
        values = self.trainer.train_epoch()
        self.state.end_epoch()
        return values


def test_the_losses_fall_over_epochs(prepared: Path) -> None:
    training = Training(prepared, weighting="fixed", epochs=12)
    values = [training.epoch() for _ in range(12)]
    for name in ("train/loss/total", "train/loss/identity"):
        curve = [epoch[name] for epoch in values]
        assert np.mean(curve[-3:]) < 0.9 * np.mean(curve[:3])


def test_the_metric_names_are_the_documented_ones(prepared: Path) -> None:
    training = Training(prepared)
    values = training.epoch()
    assert set(training.trainer.setup.info.trained) == set(ATTRIBUTES)
    tasks = ["identity", *ATTRIBUTES, *(f"adversarial_{task}" for task in ATTRIBUTES)]
    assert set(values) == {
        "train/loss/total",
        *(f"train/loss/{task}" for task in tasks),
        *(f"train/weight/{task}" for task in tasks),
        "train/lr",
        "train/images_per_second",
        "train/skipped_steps",
        "train/norm/mean",
        "train/norm/clamped",
        "train/norm/penalty",
    }
    assert all(isinstance(value, float) and np.isfinite(value) for value in values.values())
    assert values["train/images_per_second"] > 0
    assert 0 <= values["train/norm/clamped"] <= 1


def without_speed(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if name != "train/images_per_second"}


def test_two_trainings_with_one_seed_are_identical_and_with_another_are_not(prepared: Path) -> None:
    runs = [Training(prepared, seed) for seed in (1, 1, 2)]
    values = [[without_speed(run.epoch()) for _ in range(2)] for run in runs]
    assert values[0] == values[1]
    assert values[0] != values[2]
    first, second = (run.network.state_dict() for run in runs[:2])
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("weighting", ["fixed", "mgda"])
def test_the_gradient_in_bfloat16_is_close_to_that_in_float32(prepared: Path, weighting: str) -> None:
    gradients = []
    for precision in ("float32", "bfloat16"):
        trainer = make_trainer(make_config(prepared, channels=32, loss={"weighting": weighting}, precision=precision))
        batches = trainer.loader.epoch_indices(0)
        loss = trainer.forward_backward(trainer.loader.load(batches[0], 0, 0), is_first=True, batches_in_step=1)
        assert loss.total.dtype == torch.float32
        assert all(parameter.dtype == torch.float32 for parameter in trainer.parameters)
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in trainer.parameters if parameter.grad is not None]))
    exact, rounded = gradients
    cosine = torch.nn.functional.cosine_similarity(exact, rounded, dim=0)
    assert not torch.equal(exact, rounded)
    assert cosine > 0.97


def test_each_step_has_the_learning_rate_of_its_global_number(prepared: Path) -> None:
    training = Training(prepared)
    training.epoch()
    values = training.epoch()
    batches = len(training.trainer.loader.epoch_indices(0))
    assert batches == 4
    assert training.asked == list(range(2 * batches))
    assert values["train/lr"] == pytest.approx(training.lr * 0.99**7)


def test_the_learnt_loss_weights_get_the_rate_times_their_factor(prepared: Path) -> None:
    training = Training(prepared)
    values = training.epoch()
    for group in training.optimizer.param_groups:
        assert group["lr"] == pytest.approx(values["train/lr"] * group["lr_scale"])
    assert {group["lr_scale"] for group in training.optimizer.param_groups} == {1.0, 50.0}


def test_at_a_learning_rate_of_zero_only_statistics_change(prepared: Path) -> None:
    training = Training(prepared)
    training.lr = 0.0
    before = [parameter.detach().clone() for parameter in training.network.parameters()]
    training.epoch()
    assert all(torch.equal(a, b) for a, b in zip(before, training.network.parameters()))


def test_every_parameter_of_network_and_losses_changes(prepared: Path) -> None:
    training = Training(prepared)
    before = {name: parameter.detach().clone() for name, parameter in training.network.named_parameters()}
    weights, raw = training.losses.identity.weight.detach().clone(), training.losses.weighting.raw.detach().clone()  # type: ignore[operator,union-attr]
    training.epoch()
    still = {name for name, parameter in training.network.named_parameters() if torch.equal(before[name], parameter)}
    assert not still
    assert not torch.equal(weights, training.losses.identity.weight)
    assert (raw != training.losses.weighting.raw).all()  # type: ignore[union-attr]


def test_the_gradient_of_a_step_is_no_longer_than_the_clip(prepared: Path) -> None:
    """What is left in the gradients after the epoch is the last step's."""
    for clip, expected in ((0.01, True), (0.0, False)):
        training = Training(prepared, clip=clip)
        training.epoch()
        parameters = [*training.network.parameters(), *training.losses.parameters()]
        norm = torch.stack([parameter.grad.norm() for parameter in parameters if parameter.grad is not None]).norm()
        assert (norm.item() < 0.0101) is expected


class Toy:
    """The real trainer over a linear map in float64: batches of one to three rows, plain gradient descent."""

    device = torch.device("cpu")

    def __init__(self, sizes: list[int], accumulate: int, clip: float = 0, epochs: int = 3) -> None:
        rng = np.random.default_rng(5)
        self.inputs = [torch.from_numpy(rng.normal(size=(size, 3))) for size in sizes]
        self.targets = [torch.from_numpy(rng.normal(size=size)) for size in sizes]
        network, losses = ToyNetwork(), ToyLoss()
        self.linear = network.linear
        optimizer = torch.optim.SGD([{"params": list(network.parameters()), "lr_scale": 1.0}], lr=1.0, fused=True)
        ema, guard = cast(Any, RecordingEma(network)), NonFiniteGuard([network, losses], 3)
        self.state = TrainState(cast(Any, network), cast(Any, losses), optimizer, ema, guard, {})
        setup: Any = type("Setup", (), {"config": Config(train=TrainConfig(epochs=epochs, accumulate=accumulate))})
        self.trainer = Trainer(setup, cast(Any, self), self.state, cast(Any, self), cast(Any, None), lambda line: None)
        self.trainer.clip, self.trainer.lr_at = clip, self.rate
        self.asked: list[int] = []
        self.weights: list[np.ndarray] = []

    def epoch_indices(self, epoch: int) -> list[np.ndarray]:
        return [np.arange(len(rows)) for rows in self.inputs]

    def stream(self, batches: list[np.ndarray], epoch: int, start: int) -> Iterator[Batch]:
        for index in range(start, len(batches)):
            yield Batch({"x": self.inputs[index]}, {"y": self.targets[index]}, torch.ones(1), {})

    def save_if_due(self) -> None:
        self.weights.append(self.linear.weight.detach().numpy().copy())

    def rate(self, step: int) -> float:
        self.asked.append(step)
        return 0.1 / (step + 1)

    def epoch(self) -> dict[str, float]:
        values = self.trainer.train_epoch()
        self.state.end_epoch()
        return values


class ToyNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1, bias=False, dtype=torch.float64)
        nn.init.constant_(self.linear.weight, 0.5)

    def forward(self, maps: dict[str, Tensor], present: Tensor) -> Tensor:
        return self.linear(maps["x"])[:, 0]


class ToyLoss(nn.Module):
    """The mean square."""

    sharded = False

    def __init__(self) -> None:
        super().__init__()
        self.weighting = FixedWeighting({"y": 1.0})

    def forward(self, outputs: Tensor, targets: dict[str, Tensor], labelled: dict[str, Tensor]) -> LossOutput:
        loss = (outputs - targets["y"]).square().mean()
        return LossOutput(loss, {"y": loss}, {})

    def end_epoch(self, losses: dict[str, float], identity_penalty: float) -> None:
        pass


def descend(toy: Toy, accumulate: int, clip: float, epochs: int) -> tuple[list[np.ndarray], list[float]]:
    """The weights after each step, and the mean loss of the batches of each epoch, by the gradients' formula."""
    weight, weights, losses = np.full(3, 0.5), [], []
    pairs = [(x.numpy(), y.numpy()) for x, y in zip(toy.inputs, toy.targets)]
    for _ in range(epochs):
        seen: list[float] = []
        for start in range(0, len(pairs), accumulate):
            group = pairs[start : start + accumulate]
            seen += [np.mean((x @ weight - y) ** 2) for x, y in group]
            gradient = np.mean([2 * x.T @ (x @ weight - y) / len(x) for x, y in group], axis=0)
            if clip:
                gradient *= min(1, clip / (np.linalg.norm(gradient) + 1e-6))
            weight = weight - 0.1 / (len(weights) + 1) * gradient
            weights.append(weight)
        losses.append(float(np.mean(seen)))
    return weights, losses


@pytest.mark.parametrize("clip", [0, 0.3])
@pytest.mark.parametrize("accumulate", [1, 2, 3, 5, 7])
def test_a_step_follows_the_mean_of_the_gradients_of_its_batches(accumulate: int, clip: float) -> None:
    """Five batches of unequal size: the last step of an epoch has what is left."""
    toy = Toy([3, 1, 2, 3, 2], accumulate, clip)
    means = [toy.epoch() for _ in range(3)]
    weights, losses = descend(toy, accumulate, clip, 3)
    np.testing.assert_allclose(np.concatenate(toy.weights), weights, rtol=1e-12)
    np.testing.assert_allclose([mean["train/loss/total"] for mean in means], losses, rtol=1e-12)
    assert toy.asked == list(range(3 * math.ceil(5 / accumulate)))
    assert means[-1]["train/lr"] == 0.1 / len(toy.asked)


@pytest.mark.parametrize(("accumulate", "steps"), [(2, 2), (3, 2), (4, 1), (9, 1)])
def test_accumulating_takes_fewer_steps_and_logs_the_same_metrics(prepared: Path, accumulate: int, steps: int) -> None:
    training = Training(prepared, accumulate=accumulate)
    values = [training.epoch() for _ in range(2)]
    assert training.asked == training.state.ema.steps == list(range(2 * steps))
    assert set(values[0]) == set(Training(prepared).epoch())
    assert all(np.isfinite(value) for value in values[1].values())


def test_an_epoch_leaves_network_and_losses_in_training_mode(prepared: Path) -> None:
    training = Training(prepared)
    training.network.eval()
    training.losses.eval()
    training.epoch()
    assert training.network.training
    assert training.losses.training


def test_the_reversal_of_each_step_is_that_of_its_number(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(prepared)
    steps = len(training.trainer.loader.epoch_indices(0))
    seen: list[float] = []
    training.network.register_forward_pre_hook(lambda network, _: seen.append(network.reversal_alpha))
    monkeypatch.setattr("fr_ps.training.trainer.reversal_alpha", lambda step, **_: 0.1 * step)
    for _ in (0, 1):
        training.epoch()
    assert seen == [0.1 * step for step in range(2 * steps)]


def test_the_weighting_gets_the_mean_losses_of_each_epoch(prepared: Path) -> None:
    training = Training(prepared, weighting="dwa", epochs=3)
    values = [training.epoch() for _ in range(3)]
    tasks = ["identity", *ATTRIBUTES]
    first, second = (np.array([epoch[f"train/loss/{task}"] for task in tasks]) for epoch in values[:2])
    assert values[0]["train/norm/penalty"] > 1
    first[0] -= values[0]["train/norm/penalty"]  # which is in the identity loss
    second[0] -= values[1]["train/norm/penalty"]
    exponentials = np.exp(second / first / 2)
    expected = len(tasks) * exponentials / exponentials.sum()
    assert [values[2][f"train/weight/{task}"] for task in tasks] == pytest.approx(expected, rel=1e-4)
    assert [values[1][f"train/weight/{task}"] for task in tasks] == pytest.approx([1] * len(tasks))
    assert [values[2][f"train/weight/adversarial_{task}"] for task in ATTRIBUTES] == pytest.approx([0.1] * len(ATTRIBUTES))


def test_progress_counts_every_batch(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    advanced: list[int] = []
    monkeypatch.setattr(module, "progress", lambda *_: contextlib.nullcontext(advanced.append))
    Training(prepared, accumulate=3).epoch()
    assert advanced == [0, 3, 1]


class Synchronisations(TorchDispatchMode):
    """Records the operations after which the CPU waits for a GPU: a value is read, or the size of an output depends on data."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().removeprefix("aten::").split(".")[0]
        if name in self.WAITING:
            self.found.append("".join(traceback.format_stack(limit=9)))
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("weighting", ["fixed", "uncertainty", "dwa"])
@pytest.mark.parametrize(("identity_loss", "share"), [("magface", 1.0), ("arcface", 1.0), ("adaface", 1.0), ("magface", 0.5)])
def test_a_step_does_not_wait_for_the_device(prepared: Path, weighting: str, identity_loss: str, share: float) -> None:
    loss = {"weighting": weighting, "identity_loss": identity_loss, "contrastive": 0.5, "sampled_subject_share": share}
    trainer = make_trainer(make_config(prepared, loss=loss, ema=0.9))
    batches = list(trainer.loader.stream(trainer.loader.epoch_indices(0), 0))
    trainer.train_step(iter(batches[:1]), range(1))  # the optimizer allocates its state
    with Synchronisations() as counter:
        trainer.train_step(iter(batches[1:2]), range(1, 2))
    assert not counter.found, counter.found[0]


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_a_training_in_half_precision_learns_like_one_in_float32(prepared: Path, precision: str) -> None:
    losses = {}
    for name in ("float32", precision):
        trainer = make_trainer(make_config(prepared, precision=name))
        losses[name] = trainer.train_epoch()["train/loss/identity"]
        assert trainer.state.guard.skipped_in_epoch <= 4 * (name == "float16")  # the scale may begin too large
        assert all(torch.isfinite(parameter).all() for parameter in trainer.state.network.parameters())
    assert losses[precision] == pytest.approx(losses["float32"], rel=0.1)


def test_the_scale_of_float16_is_part_of_the_state(prepared: Path) -> None:
    trainer = make_trainer(make_config(prepared, precision="float16"))
    trainer.train_epoch()
    trainer.state.scaler.update(128.0)
    other = make_trainer(make_config(prepared, precision="float16"))
    other.state.load_state_dict(trainer.state.state_dict())
    assert other.state.scaler.get_scale() == 128.0


def test_a_compiled_network_trains_like_the_network(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = make_trainer(make_config(prepared)).train_epoch()["train/loss/total"]
    compiled: list[nn.Module] = []
    # Without code generation, which takes minutes: the tracing is what may fail for our modules.
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module: (compiled.append(module), real(module, backend="eager"))[1])
    trainer = make_trainer(make_config(prepared, compile=True))
    assert trainer.train_epoch()["train/loss/total"] == pytest.approx(expected, rel=1e-5)
    assert compiled == [trainer.state.network]
    assert not any("_orig_mod" in name for name in trainer.state.state_dict()["model"])
