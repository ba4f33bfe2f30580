"""Steps whose numbers went bad, in real networks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fr_ps.config import AugmentConfig, BatchConfig, LossConfig, ModelConfig, OptimConfig
from fr_ps.data.dataset import Dataset, open_dataset
from fr_ps.errors import InputError
from fr_ps.losses import build_losses
from fr_ps.models import build_network
from fr_ps.training.batch_loader import BatchLoader
from fr_ps.training.ema import ModelEma
from fr_ps.training.guard import NonFiniteGuard, diagnose_nonfinite
from fr_ps.training.optim import build_optimizer
from fr_ps.training.train_state import TrainState
from fr_ps.training.trainer import train_epoch


@pytest.fixture(scope="module")
def dataset(prepared: Path) -> Dataset:
    return open_dataset(prepared, ["albedo"])


class Poisoned(BatchLoader):
    """Gives maps with a NaN, in the batches `bad`."""

    bad: tuple[int, ...] = ()

    def load(self, chosen, epoch, index):  # type: ignore[no-untyped-def]
        maps, targets, present = super().load(chosen, epoch, index)
        if index in self.bad:
            maps["albedo"][0, 0, 3, 3] = torch.nan
        return maps, targets, present


def training(dataset: Dataset, weighting: str, bad: tuple[int, ...], limit: int = 10) -> tuple[TrainState, Poisoned]:
    """With batch norm, AdaFace's statistics, an average, and a weighting: everything that a forward pass may spoil."""
    torch.manual_seed(0)
    feed = Poisoned(
        dataset, np.arange(len(dataset.labels)), BatchConfig(people=3, sessions=2), AugmentConfig(), 0, torch.device("cpu")
    )
    feed.bad = bad
    classes = {task: len(groups) for task, groups in dataset.labels.classes.items()}
    network = build_network(
        {"albedo": ModelConfig(backbone="miresnet18", channels=16, reduction=8)}, "concat", classes, reversal_alpha=0.1
    )
    config = LossConfig(weighting=weighting, identity_loss="adaface")  # type: ignore[arg-type]
    losses = build_losses(config, 16, feed.sessions_per_subject(), feed.class_counts(classes), network.adversarial_tasks)
    optimizer = build_optimizer(OptimConfig(), [network, losses.identity], losses.weighting)
    average = ModelEma(network, 0.9)
    return TrainState(network, losses, optimizer, average, NonFiniteGuard([network, losses], limit), {}), feed


def epoch(learner: TrainState, feed: BatchLoader, accumulate: int = 1, clip: float = 5.0) -> dict[str, float]:
    return train_epoch(
        learner,
        feed,
        rate=lambda step: 1e-3,
        reversal=lambda step: 0.1,
        clip=clip,
        accumulate=accumulate,
        good=lambda: "runs/a/checkpoints/resume/000003",
    )


def state(learner: TrainState) -> dict[str, Tensor]:
    snapshot = learner.state_dict()
    return {
        **{f"model.{name}": tensor for name, tensor in snapshot.model.items()},
        **{name: tensor for name, tensor in snapshot.tensors.items() if not name.startswith(("rng", "means"))},
    }


@pytest.mark.parametrize("weighting", ["uncertainty", "dwa", "upgrad", "mgda", "cagrad", "aligned_mtl", "pcgrad"])
@pytest.mark.parametrize("clip", [5.0, 0.0])
def test_a_bad_step_leaves_nothing_behind(dataset, weighting, clip):
    learner, feed = training(dataset, weighting, bad=(0, 1, 2, 3), limit=99)
    before = state(learner)
    values = epoch(learner, feed, clip=clip)
    after = state(learner)
    assert before.keys() == after.keys()
    for name in before:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=0, equal_nan=True)
    assert values["train/bad_steps"] == len(feed.epoch_batches(0)) == 4
    assert "train/loss/total" not in values  # nothing of a bad step is in the means, and a mean of nothing is absent


def test_the_steps_beside_a_bad_one_are_taken_and_counted(dataset):
    learner, feed = training(dataset, "uncertainty", bad=(1,))
    values = epoch(learner, feed)
    assert values["train/bad_steps"] == 1
    assert learner.guard.consecutive_skipped == 0
    assert all(np.isfinite(value) for value in values.values())
    assert all(torch.isfinite(tensor).all() for tensor in state(learner).values())
    assert learner.meter.counts["loss/total"] == 3
    learner.end_epoch()
    feed.bad = ()
    assert epoch(learner, feed)["train/bad_steps"] == 0


def test_a_step_of_several_batches_is_bad_with_one_of_them(dataset):
    learner, feed = training(dataset, "fixed", bad=(3,))
    assert epoch(learner, feed, accumulate=2)["train/bad_steps"] == 1
    assert learner.meter.counts["loss/total"] == 2


def test_too_many_in_a_row_name_task_sessions_and_checkpoint(dataset, refused):
    learner, feed = training(dataset, "fixed", bad=(1, 2, 3), limit=2)
    sessions = feed.session_names(feed.epoch_batches(0)[2])
    expected = ("2 steps in a row", "the loss of identity", "in epoch 1", sessions[0], sessions[5], "resume/000003", "optim.lr")
    with refused(*expected):
        epoch(learner, feed)


def test_of_several_batches_a_step_the_bad_ones_are_named(dataset, refused):
    learner, feed = training(dataset, "fixed", bad=(0,), limit=1)
    order = feed.epoch_batches(0)
    with refused("the loss of identity", feed.session_names(order[0])[0]), pytest.MonkeyPatch.context():
        epoch(learner, feed, accumulate=2)
    assert not set(feed.session_names(order[0])) >= set(feed.session_names(order[1]))


def test_bad_steps_that_are_not_in_a_row_do_not_end_it(dataset):
    learner, feed = training(dataset, "fixed", bad=(0, 2), limit=2)
    assert epoch(learner, feed)["train/bad_steps"] == 2


def test_the_task_is_found_whose_gradient_alone_is_bad(dataset):
    """A loss that is a number, and whose gradient is none: the root of 0."""
    learner, feed = training(dataset, "fixed", bad=())

    class Rooted(nn.Module):
        def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
            return (0 * logits).sum().sqrt()

    learner.losses.attributes["pose"] = Rooted()
    maps, targets, present = feed.load(feed.epoch_batches(0)[0], 0, 0)
    said = diagnose_nonfinite(learner.network, learner.losses, maps, targets, present)
    assert said == "the gradient of pose, adversarial_pose is NaN or infinite"
    learner.guard.max_consecutive = 1
    with pytest.raises(InputError, match="the gradient of pose, adversarial_pose is NaN or infinite"):
        epoch(learner, feed)
