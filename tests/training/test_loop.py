"""One epoch of the loop, on tiny real data."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fr_ps.config import AugmentConfig, BatchConfig, LossConfig, ModelConfig, OptimConfig
from fr_ps.data.dataset import Dataset, open_dataset
from fr_ps.data.labels import ATTRIBUTES
from fr_ps.losses import build_losses
from fr_ps.models import build_network
from fr_ps.training.feed import Feed
from fr_ps.training.loop import Means, train_epoch
from fr_ps.training.optim import build_optimizer


@pytest.fixture(scope="module")
def dataset(prepared: Path) -> Dataset:
    return open_dataset(prepared, ["albedo"])


class Training:
    """All that an epoch needs, tiny."""

    def __init__(
        self, dataset: Dataset, seed: int = 0, weighting: str = "uncertainty", lr: float = 2e-3, clip: float = 5
    ) -> None:
        torch.manual_seed(seed)
        batch, change = BatchConfig(people=3, sessions=2), AugmentConfig(rotation=0, crop=1, noise=0)
        self.feed = Feed(dataset, np.arange(len(dataset.labels)), batch, change, seed, torch.device("cpu"))
        classes = {task: len(groups) for task, groups in dataset.labels.classes.items()}
        counts = self.feed.class_counts(classes)
        self.trained = list(counts)
        self.network = build_network(ModelConfig(channels=32, reduction=8), ["albedo"], classes, reversal=0.1)
        self.losses = build_losses(LossConfig(weighting=weighting), 32, self.feed.person_counts(), counts)  # type: ignore[arg-type]
        self.optimizer = build_optimizer(OptimConfig(lr=lr), [self.network, self.losses.identity], self.losses.weighting)
        self.lr, self.clip = lr, clip
        self.steps: list[int] = []
        self.done: list[int] = []

    def rate(self, step: int) -> float:
        self.steps.append(step)
        return self.lr * 0.99**step

    def reversal(self, step: int) -> float:
        return 0.1

    def epoch(self, epoch: int) -> dict[str, float]:
        return train_epoch(
            self.network,
            self.losses,
            self.optimizer,
            self.feed,
            epoch=epoch,
            rate=self.rate,
            reversal=self.reversal,
            clip=self.clip,
            advance=self.done.append,
        )


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
        "train/norm/mean",
        "train/norm/clamped",
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
    batches = len(training.feed.order(0))
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


def test_means_are_over_the_steps_that_had_the_name() -> None:
    means = Means()
    start = torch.tensor(1.0)
    means.add({"a": start, "b": torch.tensor(10.0)})
    means.add({"a": torch.tensor(2.0)})
    means.add({"a": torch.tensor(6.0), "b": torch.tensor(20.0)})
    assert means.read() == {"a": 3.0, "b": 15.0}
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
    steps = len(training.feed.order(0))
    seen: list[float] = []
    training.network.register_forward_pre_hook(lambda network, _: seen.append(network.reversal))
    monkeypatch.setattr(training, "reversal", lambda step: 0.1 * step)
    for epoch in (0, 1):
        training.epoch(epoch)
    assert seen == [0.1 * step for step in range(2 * steps)]


def test_the_weighting_is_told_the_mean_losses_of_each_epoch(dataset: Dataset) -> None:
    training = Training(dataset, weighting="dwa")
    values = [training.epoch(epoch) for epoch in range(3)]
    tasks = ["identity", *ATTRIBUTES]
    first, second = (np.array([epoch[f"train/loss/{task}"] for task in tasks]) for epoch in values[:2])
    exponentials = np.exp(second / first / 2)
    expected = len(tasks) * exponentials / exponentials.sum()
    assert [values[2][f"train/weight/{task}"] for task in tasks] == pytest.approx(expected, rel=1e-4)
    assert [values[1][f"train/weight/{task}"] for task in tasks] == pytest.approx([1] * len(tasks))
    assert [values[2][f"train/weight/adversarial_{task}"] for task in ATTRIBUTES] == pytest.approx([0.1] * len(ATTRIBUTES))
