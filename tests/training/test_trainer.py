"""One epoch of the loop, on tiny real data."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fr_ps.config import AugmentConfig, BatchConfig, LossConfig, ModelConfig, OptimConfig
from fr_ps.data.dataset import Dataset, open_dataset
from fr_ps.data.labels import ATTRIBUTES
from fr_ps.losses import build_losses
from fr_ps.losses.weighting import FixedWeighting
from fr_ps.models import build_network
from fr_ps.training.batch_loader import BatchLoader
from fr_ps.training.guard import NonFiniteGuard
from fr_ps.training.optim import build_optimizer
from fr_ps.training.train_state import MeanMeter, TrainState
from fr_ps.training.trainer import train_epoch


@pytest.fixture(scope="module")
def dataset(prepared: Path) -> Dataset:
    return open_dataset(prepared, ["albedo"])


def learner(network: Any, losses: Any, optimizer: torch.optim.Optimizer, update: Callable[[int], None]) -> TrainState:
    """With `update` told of every good step."""
    return TrainState(network, losses, optimizer, cast(Any, Average(update)), NonFiniteGuard([network, losses], 3), {})


@dataclass
class Average:
    update: Callable[[int], None]


class Training:
    """All that an epoch needs, tiny."""

    def __init__(
        self,
        dataset: Dataset,
        seed: int = 0,
        weighting: str = "uncertainty",
        lr: float = 2e-3,
        clip: float = 5,
        accumulate: int = 1,
    ) -> None:
        torch.manual_seed(seed)
        batch, change = BatchConfig(people=3, sessions=2), AugmentConfig(rotation=0, crop=1, noise=0)
        self.feed = BatchLoader(dataset, np.arange(len(dataset.labels)), batch, change, seed, torch.device("cpu"))
        classes = {task: len(groups) for task, groups in dataset.labels.classes.items()}
        counts = self.feed.class_counts(classes)
        self.trained = list(counts)
        self.network = build_network({"albedo": ModelConfig(channels=32, reduction=8)}, "concat", classes, reversal_alpha=0.1)
        self.losses = build_losses(LossConfig(weighting=weighting), 32, self.feed.sessions_per_subject(), counts)  # type: ignore[arg-type]
        self.optimizer = build_optimizer(OptimConfig(lr=lr), [self.network, self.losses.identity], self.losses.weighting)
        self.lr, self.clip, self.accumulate = lr, clip, accumulate
        self.steps: list[int] = []
        self.stepped: list[int] = []
        self.learner = learner(self.network, self.losses, self.optimizer, self.stepped.append)
        self.done: list[int] = []

    def rate(self, step: int) -> float:
        self.steps.append(step)
        return self.lr * 0.99**step

    def reversal(self, step: int) -> float:
        return 0.1

    def epoch(self, epoch: int) -> dict[str, float]:
        assert self.learner.epoch == epoch
        values = train_epoch(
            self.learner,
            self.feed,
            rate=self.rate,
            reversal=self.reversal,
            clip=self.clip,
            accumulate=self.accumulate,
            advance=self.done.append,
        )
        self.learner.end_epoch()
        return values


def test_the_losses_fall_over_epochs(dataset: Dataset) -> None:
    training = Training(dataset, weighting="fixed")
    values = [training.epoch(epoch) for epoch in range(24)]
    for name in ("train/loss/total", "train/loss/identity"):
        curve = [epoch[name] for epoch in values]
        assert np.mean(curve[-6:]) < 0.9 * np.mean(curve[:6])


def test_the_names_are_those_of_the_design(dataset: Dataset) -> None:
    training = Training(dataset)
    values = training.epoch(0)
    assert set(training.trained) == set(ATTRIBUTES)
    tasks = ["identity", *ATTRIBUTES, *(f"adversarial_{task}" for task in ATTRIBUTES)]
    assert set(values) == {
        "train/loss/total",
        *(f"train/loss/{task}" for task in tasks),
        *(f"train/weight/{task}" for task in tasks),
        "train/lr",
        "train/images_per_second",
        "train/bad_steps",
        "train/norm/mean",
        "train/norm/clamped",
        "train/norm/penalty",
    }
    assert all(isinstance(value, float) and np.isfinite(value) for value in values.values())
    assert values["train/images_per_second"] > 0
    assert 0 <= values["train/norm/clamped"] <= 1


def without_speed(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if name != "train/images_per_second"}


def test_two_trainings_with_one_seed_are_identical_and_with_another_are_not(dataset: Dataset) -> None:
    runs = [Training(dataset, seed) for seed in (1, 1, 2)]
    values = [[without_speed(run.epoch(epoch)) for epoch in range(2)] for run in runs]
    assert values[0] == values[1]
    assert values[0] != values[2]
    first, second = (run.network.state_dict() for run in runs[:2])
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_rate_is_asked_for_every_step_counted_from_the_start_of_the_training(dataset: Dataset) -> None:
    training = Training(dataset)
    training.epoch(0)
    values = training.epoch(1)
    batches = len(training.feed.epoch_batches(0))
    assert batches == 4
    assert training.steps == list(range(2 * batches))
    assert training.done == [1] * 2 * batches
    assert values["train/lr"] == pytest.approx(training.lr * 0.99**7)


def test_the_learnt_loss_weights_get_the_rate_times_their_factor(dataset: Dataset) -> None:
    training = Training(dataset)
    values = training.epoch(0)
    for group in training.optimizer.param_groups:
        assert group["lr"] == pytest.approx(values["train/lr"] * group["factor"])
    assert {group["factor"] for group in training.optimizer.param_groups} == {1.0, OptimConfig().weighting_factor}


def test_at_a_rate_of_zero_nothing_but_statistics_moves(dataset: Dataset) -> None:
    training = Training(dataset, lr=0.001)
    training.lr = 0.0
    before = [parameter.detach().clone() for parameter in training.network.parameters()]
    training.epoch(0)
    assert all(torch.equal(a, b) for a, b in zip(before, training.network.parameters()))


def test_every_part_of_network_and_losses_learns(dataset: Dataset) -> None:
    training = Training(dataset)
    before = {name: parameter.detach().clone() for name, parameter in training.network.named_parameters()}
    weights, raw = training.losses.identity.weight.detach().clone(), training.losses.weighting.raw.detach().clone()  # type: ignore[operator,union-attr]
    training.epoch(0)
    still = {name for name, parameter in training.network.named_parameters() if torch.equal(before[name], parameter)}
    assert not still
    assert not torch.equal(weights, training.losses.identity.weight)
    assert (raw != training.losses.weighting.raw).all()  # type: ignore[union-attr]


def test_the_gradient_of_a_step_is_no_longer_than_the_clip(dataset: Dataset) -> None:
    """What is left in the gradients after the epoch is the last step's."""
    for clip, expected in ((0.01, True), (0.0, False)):
        training = Training(dataset, clip=clip)
        training.epoch(0)
        parameters = [*training.network.parameters(), *training.losses.parameters()]
        norm = torch.stack([parameter.grad.norm() for parameter in parameters if parameter.grad is not None]).norm()
        assert (norm.item() < 0.0101) is expected


class Toy:
    """The real loop over a linear map in float64: batches of one to three rows, plain gradient descent."""

    def __init__(self, sizes: list[int], accumulate: int, clip: float = 0) -> None:
        rng = np.random.default_rng(5)
        self.inputs = [torch.from_numpy(rng.normal(size=(size, 3))) for size in sizes]
        self.answers = [torch.from_numpy(rng.normal(size=size)) for size in sizes]
        self.network = ToyNetwork()
        self.losses = ToyLoss()
        self.optimizer = torch.optim.SGD([{"params": list(self.network.parameters()), "factor": 1.0}], lr=1.0)
        self.accumulate, self.clip = accumulate, clip
        self.asked: list[int] = []
        self.advanced: list[int] = []
        self.weights: list[np.ndarray] = []
        self.learner = learner(self.network, self.losses, self.optimizer, lambda step: None)

    def order(self, epoch: int) -> list[np.ndarray]:
        return [np.arange(len(rows)) for rows in self.inputs]

    def batch(self, chosen: np.ndarray, epoch: int, index: int) -> tuple[dict[str, Tensor], dict[str, Tensor], None]:
        return {"x": self.inputs[index]}, {"y": self.answers[index]}, None

    def rate(self, step: int) -> float:
        self.asked.append(step)
        return 0.1 / (step + 1)

    def epoch(self, epoch: int) -> dict[str, float]:
        self.learner.epoch = epoch
        values = train_epoch(
            self.learner,
            cast(Any, self),
            rate=self.rate,
            reversal=lambda step: 0.0,
            clip=self.clip,
            accumulate=self.accumulate,
            stepped=lambda: self.weights.append(self.network.linear.weight.detach().numpy().copy()),
            advance=self.advanced.append,
        )
        self.learner.end_epoch()
        return values


class ToyNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1, bias=False, dtype=torch.float64)
        nn.init.constant_(self.linear.weight, 0.5)

    def forward(self, maps: dict[str, Tensor], present: None) -> dict[str, Tensor]:
        return {"y": self.linear(maps["x"])[:, 0]}


class ToyLoss(nn.Module):
    """The mean square, beside what the loop asks of the losses."""

    def __init__(self) -> None:
        super().__init__()
        self.weighting = FixedWeighting({"y": 1.0})

    def forward(self, outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        loss = (outputs["y"] - targets["y"]).square().mean()
        return loss, {"y": loss.detach()}

    def end_epoch(self, means: dict[str, float]) -> None:
        pass

    def observe(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {}


def descend(toy: Toy, epochs: int) -> tuple[list[np.ndarray], list[float]]:
    """The weights after each step, and the mean loss of the batches of each epoch, by the gradients' formula."""
    weight, weights, losses = np.full(3, 0.5), [], []
    pairs = [(x.numpy(), y.numpy()) for x, y in zip(toy.inputs, toy.answers)]
    for _ in range(epochs):
        seen: list[float] = []
        for start in range(0, len(pairs), toy.accumulate):
            group = pairs[start : start + toy.accumulate]
            seen += [np.mean((x @ weight - y) ** 2) for x, y in group]
            gradient = np.mean([2 * x.T @ (x @ weight - y) / len(x) for x, y in group], axis=0)
            if toy.clip:
                gradient *= min(1, toy.clip / (np.linalg.norm(gradient) + 1e-6))
            weight = weight - 0.1 / (len(weights) + 1) * gradient
            weights.append(weight)
        losses.append(float(np.mean(seen)))
    return weights, losses


@pytest.mark.parametrize("clip", [0, 0.3])
@pytest.mark.parametrize("accumulate", [1, 2, 3, 5, 7])
def test_a_step_follows_the_mean_of_the_gradients_of_its_batches(accumulate: int, clip: float) -> None:
    """Five batches of unequal size: the last step of an epoch has what is left."""
    toy = Toy([3, 1, 2, 3, 2], accumulate, clip)
    means = [toy.epoch(epoch) for epoch in range(3)]
    weights, losses = descend(toy, 3)
    np.testing.assert_allclose(np.concatenate(toy.weights), weights, rtol=1e-12)
    np.testing.assert_allclose([mean["train/loss/total"] for mean in means], losses, rtol=1e-12)
    assert toy.asked == list(range(3 * math.ceil(5 / accumulate)))
    assert toy.advanced == [1] * 15
    assert means[-1]["train/lr"] == 0.1 / len(toy.asked)


@pytest.mark.parametrize(("accumulate", "steps"), [(2, 2), (3, 2), (4, 1), (9, 1)])
def test_accumulating_takes_fewer_steps_and_tells_the_same_metrics(dataset: Dataset, accumulate: int, steps: int) -> None:
    training = Training(dataset, accumulate=accumulate)
    values = [training.epoch(epoch) for epoch in range(2)]
    assert training.steps == training.stepped == list(range(2 * steps))
    assert training.done == [1] * 8
    assert set(values[0]) == set(Training(dataset).epoch(0))
    assert all(np.isfinite(value) for value in values[1].values())


def test_means_are_over_the_steps_that_had_the_name() -> None:
    means = MeanMeter()
    start = torch.tensor(1.0)
    means.update({"a": start, "b": torch.tensor(10.0)})
    means.update({"a": torch.tensor(2.0)})
    means.update({"a": torch.tensor(6.0), "b": torch.tensor(20.0)})
    assert means.compute() == {"a": 3.0, "b": 15.0}
    assert start == 1  # what was given is not summed into


def test_an_epoch_leaves_network_and_losses_training(dataset: Dataset) -> None:
    training = Training(dataset)
    training.network.eval()
    training.losses.eval()
    training.epoch(0)
    assert training.network.training
    assert training.losses.training


def test_the_reversal_of_each_step_is_that_of_its_number(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(dataset)
    steps = len(training.feed.epoch_batches(0))
    seen: list[float] = []
    training.network.register_forward_pre_hook(lambda network, _: seen.append(network.reversal))
    monkeypatch.setattr(training, "reversal_alpha", lambda step: 0.1 * step)
    for epoch in (0, 1):
        training.epoch(epoch)
    assert seen == [0.1 * step for step in range(2 * steps)]


def test_the_weighting_is_told_the_mean_losses_of_each_epoch(dataset: Dataset) -> None:
    training = Training(dataset, weighting="dwa")
    values = [training.epoch(epoch) for epoch in range(3)]
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
