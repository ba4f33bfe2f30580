"""The moving average of the weights: what it is, and that it is what a training validates, saves and tests."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fr_ps.config import BatchConfig, Config, DataConfig, ModelConfig, TrainConfig
from fr_ps.models.folder import load_model
from fr_ps.tracking.run import Run
from fr_ps.training import finalize
from fr_ps.training import train as module
from fr_ps.training.ema import ModelEma


class Network(nn.Module):
    """A weight and a BN, which has averages and an integer count of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 3, dtype=torch.float64)
        self.norm = nn.BatchNorm1d(3, dtype=torch.float64)

    def move(self, rng: np.random.Generator) -> None:
        """As a step would: other weights, other statistics, a batch more."""
        with torch.no_grad():
            for tensor in self.state_dict().values():
                if tensor.is_floating_point():
                    tensor.copy_(torch.from_numpy(rng.normal(size=tuple(tensor.shape))))
        self.norm.num_batches_tracked += 1


def state(network: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_it_is_the_recurrence_with_a_decay_that_grows_to_its_setting(decay: float) -> None:
    rng = np.random.default_rng(0)
    network: Any = Network()
    average = ModelEma(network, decay)
    expected = state(network)
    for step in range(200):
        network.move(rng)
        average.update(step)
        d = min(decay, 1 - 1 / np.cbrt(float(step + 1)) ** 2)
        for name, value in state(network).items():
            expected[name] = value if value.dtype.kind == "i" else d * expected[name] + (1 - d) * value
        got = state(average.network)
        assert got.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(got[name], value, rtol=1e-10, atol=1e-12, err_msg=f"{name} after step {step}")
    assert average.network.norm.num_batches_tracked == 200  # type: ignore[union-attr]
    assert average.network.norm.num_batches_tracked.dtype == torch.int64  # type: ignore[union-attr]
    assert (got["norm.running_mean"] != state(network)["norm.running_mean"]).all()


def test_the_trained_network_is_untouched_and_stays_in_training() -> None:
    network: Any = Network()
    before = state(network)
    average = ModelEma(network, 0.9)
    for step in range(3):
        average.update(step)
    assert all((before[name] == value).all() for name, value in state(network).items())
    assert network.training
    assert not average.network.training
    ours = {tensor.data_ptr() for tensor in network.state_dict().values()}
    assert not ours & {tensor.data_ptr() for tensor in average.network.state_dict().values()}


def test_without_a_decay_it_is_the_trained_network_itself() -> None:
    network: Any = Network()
    average = ModelEma(network, 0)
    average.update(0)
    assert average.network is network


def test_the_averaged_weights_and_the_step_are_all_of_its_state() -> None:
    """So that a training can be resumed from a checkpoint of them."""
    rng = np.random.default_rng(1)
    network: Any = Network()
    through, first = ModelEma(network, 0.9), ModelEma(network, 0.9)
    for step in range(5):
        network.move(rng)
        through.update(step)
        first.update(step)
    resumed = ModelEma(network, 0.9)
    resumed.network.load_state_dict(first.network.state_dict())
    for step in range(5, 10):
        network.move(rng)
        through.update(step)
        resumed.update(step)
    wanted = state(through.network)
    assert all((wanted[name] == value).all() for name, value in state(resumed.network).items())


def test_timm_is_imported_only_where_there_is_an_average() -> None:
    code = (
        "import sys; from torch import nn; from fr_ps.training.ema import WeightAverage; "
        "WeightAverage(nn.Linear(1, 1), 0); print('timm' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


class Recorded(ModelEma):
    """An average that remembers the averaged weights after each step."""

    def __init__(self, trained: Any, decay: float) -> None:
        super().__init__(trained, decay)
        self.states: list[dict[str, Tensor]] = []

    def update(self, step: int) -> None:
        super().update(step)
        self.states.append(copied(self.network))


def copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_what_is_validated_saved_and_tested_is_the_average(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Recorded] = []
    scored: list[dict[str, Tensor]] = []
    answer, answers_and_subsets = module.predict, finalize.predict_with_subsets

    def average_of(trained: Any, decay: float) -> Recorded:
        made.append(Recorded(trained, decay))
        return made[-1]

    def remember(network: Any, *args: Any, **kwargs: Any) -> Any:
        scored.append(copied(network))
        return answer(network, *args, **kwargs)

    def remember_test(network: Any, *args: Any, **kwargs: Any) -> Any:
        scored.append(copied(network))
        return answers_and_subsets(network, *args, **kwargs)

    monkeypatch.setattr(module, "ModelEma", average_of)
    monkeypatch.setattr(module, "predict", remember)
    monkeypatch.setattr(finalize, "predict_with_subsets", remember_test)
    config = Config(
        data=DataConfig(root=str(prepared), val_people=2, test_people=2),
        batch=BatchConfig(people=2, sessions=2),
        model=ModelConfig(backbone="miresnet18", channels=16, reduction=8),
        train=TrainConfig(epochs=3, ema=0.9),
    )
    result = module.train(config, Run(tmp_path), echo=lambda line: None)
    (average,) = made
    assert len(average.states) == 6  # eight sessions, four a batch, three epochs
    ends = average.states[1::2]
    best = ends[result.best_epoch - 1]
    # Each epoch's validation, the thresholds of the best, and its test.
    assert len(scored) == 5
    assert all(same(got, wanted) for got, wanted in zip(scored, [*ends, best, best]))
    for name, wanted in (("last", ends[-1]), ("best", best)):
        saved, _ = load_model(tmp_path / "checkpoints" / name, torch.device("cpu"))
        assert same(copied(saved), wanted)
    assert not same(copied(average.source), ends[-1])
