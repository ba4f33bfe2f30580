"""All that decides the future, copied and put back."""

import json

import numpy as np
import pytest
import torch

from fr_ps.config import AugmentConfig, BatchConfig, LossConfig, ModelConfig, OptimConfig
from fr_ps.data.dataset import Dataset, open_dataset
from fr_ps.evaluation.metrics import Metrics
from fr_ps.losses import build_losses
from fr_ps.models import build_network
from fr_ps.training.batch_loader import BatchLoader
from fr_ps.training.early_stopping import BestTracker
from fr_ps.training.ema import ModelEma
from fr_ps.training.guard import NonFiniteGuard
from fr_ps.training.optim import build_optimizer
from fr_ps.training.train_state import CheckpointData, TrainState
from fr_ps.training.trainer import train_epoch


@pytest.fixture(scope="module")
def dataset(prepared) -> Dataset:
    return open_dataset(prepared, ["albedo"])


class Enough(Exception):
    """The training was interrupted."""


def made(
    dataset: Dataset, channels: int = 16, ema: float = 0.9, optim: str = "adamw", **losses
) -> tuple[TrainState, BatchLoader]:
    torch.manual_seed(0)
    rows = np.arange(len(dataset.labels))
    feed = BatchLoader(dataset, rows, BatchConfig(people=3, sessions=2), AugmentConfig(), 0, torch.device("cpu"))
    classes = {task: len(groups) for task, groups in dataset.labels.classes.items()}
    network = build_network({"albedo": ModelConfig(channels=channels, reduction=8)}, "concat", classes, reversal_alpha=0.1)
    config = LossConfig(**losses)
    loss = build_losses(config, channels, feed.sessions_per_subject(), feed.class_counts(classes), network.adversarial_tasks)
    optimizer = build_optimizer(OptimConfig(name=optim), [network, loss.identity], loss.weighting)  # type: ignore[arg-type]
    selections = {"val/identity/auc": BestTracker("val/identity/auc", 3)}
    return TrainState(network, loss, optimizer, ModelEma(network, ema), NonFiniteGuard([network, loss], 10), selections), feed


def go(learner: TrainState, feed: BatchLoader, steps: int, epochs: int = 2, accumulate: int = 1) -> list[dict[str, float]]:
    """So many steps, over the ends of epochs; the values of the epochs that ended."""
    done: list[dict[str, float]] = []
    left = steps

    def stepped() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Enough

    while learner.epoch < epochs:
        try:
            values = train_epoch(
                learner,
                feed,
                rate=lambda step: 1e-3 * 0.9**step,
                reversal=lambda step: 0.01 * step,
                clip=5.0,
                accumulate=accumulate,
                stepped=stepped,
            )
        except Enough:
            return done
        learner.trackers["val/identity/auc"].update(Metrics({"val/identity/auc": 0.5 + 0.1 * learner.epoch}))
        learner.end_epoch()
        del values["train/images_per_second"]
        done.append(values)
    return done


def through_json(snapshot: CheckpointData) -> CheckpointData:
    return CheckpointData(snapshot.model, snapshot.tensors, json.loads(json.dumps(snapshot.values)))


def same(first: CheckpointData, second: CheckpointData) -> bool:
    mine, theirs = first.values | {"seconds": 0}, second.values | {"seconds": 0}
    tensors = [(first.model, second.model), (first.tensors, second.tensors)]
    return json.dumps(mine, sort_keys=True) == json.dumps(theirs, sort_keys=True) and all(
        one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one) for one, other in tensors
    )


FORMS = [
    {"weighting": "uncertainty"},
    {"weighting": "pcgrad", "identity_loss": "adaface"},
    {"weighting": "dwa", "ema": 0.0},
    {"weighting": "upgrad", "optim": "sgd"},
    {"weighting": "fixed", "attribute_loss": "cross_entropy", "ema": 0.0, "optim": "sgd"},
]


CASES = [(0, 4, 1), (0, 1, 2), (1, 1, 1), (1, 3, 2), (2, 6, 1), (3, 6, 1), (4, 4, 1)]


@pytest.mark.parametrize(("form", "stop", "accumulate"), [(FORMS[number], *rest) for number, *rest in CASES], ids=str)
def test_a_restored_training_goes_on_to_the_same_bits(dataset, form, stop, accumulate):
    """Of four batches an epoch; within the first, at the end of one, within the second, and with two batches a step."""
    straight, feed = made(dataset, **form)
    expected = go(straight, feed, 99, accumulate=accumulate)
    broken, feed = made(dataset, **form)
    before = go(broken, feed, stop, accumulate=accumulate)
    kept = through_json(broken.state_dict())
    torch.manual_seed(99)  # another process begins with other numbers and other weights
    resumed, feed = made(dataset, **form)
    torch.manual_seed(98)
    resumed.load_state_dict(kept, "here")
    assert (resumed.epoch, resumed.batch) == (broken.epoch, broken.batch)
    after = go(resumed, feed, 99, accumulate=accumulate)
    assert before + after == expected
    assert same(resumed.state_dict(), straight.state_dict())


def test_a_snapshot_is_not_changed_by_what_comes_after_it(dataset):
    learner, feed = made(dataset)
    go(learner, feed, 2)
    taken = learner.state_dict()
    kept = CheckpointData(
        {name: tensor.clone() for name, tensor in taken.model.items()},
        {name: tensor.clone() for name, tensor in taken.tensors.items()},
        json.loads(json.dumps(taken.values)),
    )
    go(learner, feed, 3)
    assert same(taken, kept)
    assert not same(learner.state_dict(), kept)


def test_what_the_settings_say_of_the_optimizer_is_taken_from_the_settings(dataset):
    learner, feed = made(dataset)
    go(learner, feed, 3)
    rates = [group["lr"] for group in learner.optimizer.param_groups]
    other, _ = made(dataset)
    for group in other.optimizer.param_groups:
        group["weight_decay"] = 0.125
    other.load_state_dict(learner.state_dict(), "here")
    assert {group["weight_decay"] for group in other.optimizer.param_groups} == {0.125}
    assert [group["lr"] for group in other.optimizer.param_groups] == rates


def test_a_metric_that_is_selected_by_anew_begins_without_a_best(dataset):
    learner, feed = made(dataset)
    go(learner, feed, 6)
    other, _ = made(dataset)
    other.trackers = {"val/identity/eer": BestTracker("val/identity/eer", 3)}
    other.load_state_dict(learner.state_dict(), "here")
    assert other.update_best(Metrics({"val/identity/eer": 0.4})) == ["val/identity/eer"]
    assert other.trackers["val/identity/eer"].best_epoch == 2


@pytest.mark.parametrize(("before", "after"), [(0.9, 0.0), (0.0, 0.9)])
def test_an_average_may_be_given_up_or_begun_and_the_trained_weights_stay(dataset, before, after):
    learner, feed = made(dataset, ema=before)
    go(learner, feed, 3)
    trained = {name: tensor.clone() for name, tensor in learner.network.state_dict().items()}
    other, feed = made(dataset, ema=after)
    other.load_state_dict(learner.state_dict(), "here")
    for network in (other.network, other.ema.network):
        assert all(torch.equal(tensor, trained[name]) for name, tensor in network.state_dict().items())
    go(other, feed, 2)


OTHERS = [{"channels": 24}, {"weighting": "dwa"}, {"optim": "sgd"}, {"identity_loss": "adaface"}]


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_a_checkpoint_of_something_else_is_refused_by_name(dataset, refused, other):
    learner, feed = made(dataset)
    go(learner, feed, 1)
    different, feed = made(dataset, **other)
    go(different, feed, 1)
    with refused("resume/000001", "is not of this training"):
        learner.load_state_dict(different.state_dict(), "runs/a/checkpoints/resume/000001")
