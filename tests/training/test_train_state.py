"""The state of a training: saved and restored, it continues to the same bits."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fr_ps.config import Config, OptimConfig
from fr_ps.evaluation.metrics import Metrics
from fr_ps.training.early_stopping import BestTracker
from fr_ps.training.train_state import MeanMeter, TrainState, restore_rng, rng_state
from fr_ps.training.trainer import Trainer
from tests.training.runs import make_config, make_trainer

AUC = "val/identity/auc"


class Interruption(Exception):
    """The training is interrupted."""


def configured(prepared: Path, ema: float = 0.9, optim: str = "adamw", channels: int = 16, **losses: Any) -> Config:
    config = make_config(prepared, channels=channels, ema=ema, patience=3, loss={"reversal_ramp": True} | losses)
    data = replace(config.data, modalities=("albedo", "normal") if losses.get("branches") else ("albedo",))
    return replace(config, data=data, optim=OptimConfig(name=optim))  # type: ignore[arg-type]


def advance(trainer: Trainer, steps: int) -> list[dict[str, float]]:
    """Train so many steps, across the ends of epochs; the metrics of the epochs that ended."""
    finished: list[dict[str, float]] = []
    left = steps
    state = trainer.state

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Interruption

    trainer.checkpoints.save_if_due = count  # type: ignore[method-assign]
    while state.epoch < trainer.epochs:
        try:
            values = trainer.train_epoch()
        except Interruption:
            return finished
        state.trackers[AUC].update(Metrics({AUC: 0.5 + 0.1 * state.epoch}))
        state.end_epoch()
        del values["train/images_per_second"]
        finished.append(values)
    return finished


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    """As a checkpoint holds it: tensors as they are, the rest as JSON."""
    if isinstance(state, dict):
        return {name: through_json(value) for name, value in state.items()}
    return state if isinstance(state, torch.Tensor) else json.loads(json.dumps(state))


def same(first: Any, second: Any) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[name], second[name]) for name in first if name != "seconds")
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    return json.dumps(first) == json.dumps(second)


FORMS: list[dict[str, Any]] = [
    {"weighting": "uncertainty"},
    {"weighting": "pcgrad", "identity_loss": "adaface"},
    {"weighting": "dwa", "ema": 0.0},
    {"weighting": "upgrad", "optim": "sgd"},
    {"weighting": "fixed", "attribute_loss": "cross_entropy", "ema": 0.0, "optim": "sgd"},
    {"weighting": "uncertainty", "identity_loss": "adaface", "branches": True, "contrastive": 0.5},
]
CASES = [(0, 4, 1), (0, 1, 2), (1, 1, 1), (1, 3, 2), (2, 6, 1), (3, 6, 1), (4, 4, 1), (5, 3, 1), (5, 1, 2)]


@pytest.mark.parametrize(("form", "stop", "accumulate"), [(FORMS[number], *rest) for number, *rest in CASES], ids=str)
def test_a_restored_training_continues_to_the_same_bits(prepared: Path, form: dict[str, Any], stop: int, accumulate: int) -> None:
    """Four batches an epoch: within the first epoch, at its end, within the second, and with two batches a step."""
    config = configured(prepared, **form)

    def start() -> Trainer:
        trainer = make_trainer(config)
        trainer.accumulate, trainer.steps_per_epoch = accumulate, 4 // accumulate
        return trainer

    straight = start()
    expected = advance(straight, 99)
    broken = start()
    before = advance(broken, stop)
    kept = through_json(broken.state.state_dict())
    torch.manual_seed(99)  # another process starts with other random numbers
    resumed = start()
    torch.manual_seed(98)
    resumed.state.load_state_dict(kept)
    assert (resumed.state.epoch, resumed.state.batch) == (broken.state.epoch, broken.state.batch)
    assert before + advance(resumed, 99) == expected
    assert same(resumed.state.state_dict(), straight.state.state_dict())


def test_later_steps_do_not_change_a_state_dict(prepared: Path) -> None:
    trainer = make_trainer(configured(prepared))
    advance(trainer, 2)
    taken = trainer.state.state_dict()
    kept = through_json({name: _clone(value) for name, value in taken.items()})
    advance(trainer, 3)
    assert same(taken, kept)
    assert not same(trainer.state.state_dict(), kept)


def _clone(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _clone(part) for name, part in value.items()}
    return value.clone() if isinstance(value, torch.Tensor) else value


def test_weight_decay_follows_the_settings_and_not_the_checkpoint(prepared: Path) -> None:
    trainer, other = make_trainer(configured(prepared)), make_trainer(configured(prepared))
    advance(trainer, 3)
    rates = [group["lr"] for group in trainer.state.optimizer.param_groups]
    for group in other.state.optimizer.param_groups:
        group["weight_decay"] = 0.125
    other.state.load_state_dict(trainer.state.state_dict())
    assert {group["weight_decay"] for group in other.state.optimizer.param_groups} == {0.125}
    assert [group["lr"] for group in other.state.optimizer.param_groups] == rates


def test_a_metric_that_was_not_tracked_starts_without_a_best(prepared: Path) -> None:
    trainer, other = make_trainer(configured(prepared)), make_trainer(configured(prepared))
    advance(trainer, 6)
    other.state.trackers = {"val/identity/eer": BestTracker("val/identity/eer", 3)}
    other.state.load_state_dict(trainer.state.state_dict())
    assert other.state.update_best(Metrics({"val/identity/eer": 0.4})) == ["val/identity/eer"]
    assert other.state.trackers["val/identity/eer"].best_epoch == 2


@pytest.mark.parametrize(("before", "after"), [(0.9, 0.0), (0.0, 0.9)])
def test_a_resumed_training_may_drop_or_begin_the_average_and_keeps_its_weights(
    prepared: Path, before: float, after: float
) -> None:
    trainer, other = make_trainer(configured(prepared, ema=before)), make_trainer(configured(prepared, ema=after))
    advance(trainer, 3)
    trained = {name: tensor.clone() for name, tensor in trainer.state.network.state_dict().items()}
    other.state.load_state_dict(trainer.state.state_dict())
    for network in (other.state.network, other.state.ema.network):
        assert all(torch.equal(tensor, trained[name]) for name, tensor in network.state_dict().items())
    advance(other, 2)


OTHERS: list[dict[str, Any]] = [{"channels": 24}, {"weighting": "dwa"}, {"optim": "sgd"}, {"identity_loss": "adaface"}]


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_the_state_of_another_training_is_rejected(prepared: Path, other: dict[str, Any]) -> None:
    trainer, different = make_trainer(configured(prepared)), make_trainer(configured(prepared, **other))
    advance(different, 1)
    with pytest.raises((RuntimeError, ValueError, KeyError)):
        trainer.state.load_state_dict(different.state.state_dict())


def test_means_are_over_the_batches_that_had_the_name() -> None:
    meter, counted = MeanMeter(), torch.tensor(True)
    start = torch.tensor(1.0)
    meter.update({"a": start, "b": torch.tensor(10.0)}, counted)
    meter.update({"a": torch.tensor(2.0)}, counted)
    meter.update({"a": torch.tensor(6.0), "b": torch.tensor(20.0)}, counted)
    meter.update({"a": torch.tensor(torch.nan), "c": torch.tensor(1.0)}, ~counted)
    assert meter.compute() == {"a": 3.0, "b": 15.0}
    assert meter.counts == {"a": 3, "b": 2}
    assert start == 1  # the meter does not sum into its inputs


def test_the_best_epoch_is_the_last_one_without_validation(prepared: Path) -> None:
    state: TrainState = make_trainer(configured(prepared)).state
    state.epoch = 4
    assert state.best_epoch == 4
    state.update_best(Metrics({AUC: 0.5}))
    assert state.best_epoch == 1


def draw() -> list[float]:
    return [torch.rand(3).sum().item(), torch.randn(1).item(), np.random.normal(), np.random.rand(), random.gauss(0, 1)]  # noqa: NPY002


def test_every_generator_continues_after_json() -> None:
    torch.manual_seed(3)
    np.random.seed(4)  # noqa: NPY002
    random.seed(5)
    draw()  # an odd number of normals: the generators keep the second of a pair
    kept = through_json(rng_state())
    expected = [draw() for _ in range(3)]
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    assert draw() != expected[0]
    restore_rng(kept)
    assert [draw() for _ in range(3)] == expected


def test_the_generator_of_a_missing_gpu_is_skipped() -> None:
    restore_rng(rng_state() | {"cuda.7": torch.zeros(16, dtype=torch.uint8)})
