"""Weights of the losses: fixed, and learnt up to their analytic fixed point."""

import math

import pytest
import torch

from fr_ps.losses.weighting import FixedWeighting, UncertaintyWeighting


def descend(weighting: UncertaintyWeighting, losses: dict[str, float], steps: int, lr: float = 0.05, adam: bool = True) -> None:
    kind = torch.optim.AdamW if adam else torch.optim.SGD
    optimizer = kind(weighting.parameters(), lr=lr, weight_decay=0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        weighting({task: torch.tensor(value) for task, value in losses.items()}).backward()
        optimizer.step()


def test_fixed_weights_give_the_weighted_sum_of_the_tasks_that_are_there() -> None:
    weighting = FixedWeighting({"a": 2.0, "b": 0.5, "c": 100.0})
    losses = {"b": torch.tensor(3.0, requires_grad=True), "a": torch.tensor(5.0, requires_grad=True)}
    total = weighting(losses)
    total.backward()
    assert total.item() == 2 * 5 + 0.5 * 3
    assert losses["a"].grad == 2
    assert losses["b"].grad == 0.5
    assert {task: float(weight) for task, weight in weighting.weights().items()} == {"a": 2.0, "b": 0.5, "c": 100.0}
    assert list(weighting.parameters()) == []


def test_learnt_weights_start_at_one() -> None:
    weighting = UncertaintyWeighting(["a", "b"])
    assert all(float(weight) == pytest.approx(1, abs=1e-6) for weight in weighting.weights().values())
    assert weighting({"a": torch.tensor(3.0), "b": torch.tensor(0.5)}).item() == pytest.approx(3.5, abs=1e-5)


def test_the_total_is_the_formula_of_the_paper() -> None:
    weighting = UncertaintyWeighting(["a", "b"])
    with torch.no_grad():
        weighting.raw += torch.tensor([0.7, -0.4])
    s = {task: -math.log(float(weight)) for task, weight in weighting.weights().items()}
    losses = {"b": 2.5, "a": 0.3}
    expected = sum(math.exp(-s[task]) * value + s[task] / 2 for task, value in losses.items())
    assert weighting({task: torch.tensor(value) for task, value in losses.items()}).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("adam", [True, False], ids=["adam", "sgd"])
def test_on_constant_losses_the_weights_go_to_one_over_twice_the_loss(adam: bool) -> None:
    losses = {"large": 8.0, "one": 1.0, "small": 0.2}
    weighting = UncertaintyWeighting(list(losses))
    descend(weighting, losses, 800, lr=0.05 if adam else 0.5, adam=adam)
    for task, weight in weighting.weights().items():
        assert 1 / (2 * losses[task]) < UncertaintyWeighting.LARGEST
        assert float(weight) == pytest.approx(1 / (2 * losses[task]), rel=0.02)


def test_a_vanishing_loss_does_not_take_over_and_can_come_back() -> None:
    weighting = UncertaintyWeighting(["a"])
    descend(weighting, {"a": 0.0}, 1500)
    assert 4.5 < float(weighting.weights()["a"]) <= UncertaintyWeighting.LARGEST * (1 + 1e-6)
    descend(weighting, {"a": 2.0}, 1500)
    assert float(weighting.weights()["a"]) == pytest.approx(0.25, rel=0.05)


def test_a_task_that_is_not_in_the_batch_gets_no_gradient() -> None:
    weighting = UncertaintyWeighting(["a", "b", "c"])
    weighting({"c": torch.tensor(3.0), "a": torch.tensor(2.0)}).backward()
    assert weighting.raw.grad is not None
    assert weighting.raw.grad[1] == 0
    assert (weighting.raw.grad[[0, 2]] != 0).all()


def test_a_task_that_is_not_in_any_batch_keeps_its_weight() -> None:
    weighting = UncertaintyWeighting(["a", "b"])
    descend(weighting, {"a": 9.0}, 50)
    assert float(weighting.weights()["b"]) == pytest.approx(1, abs=1e-6)
    assert float(weighting.weights()["a"]) < 0.5


def test_the_losses_get_the_gradient_of_their_weight() -> None:
    weighting = UncertaintyWeighting(["a", "b"])
    descend(weighting, {"a": 4.0, "b": 0.3}, 100)
    losses = {task: torch.tensor(1.0, requires_grad=True) for task in ("a", "b")}
    weighting(losses).backward()
    for task, weight in weighting.weights().items():
        assert not weight.requires_grad
        assert losses[task].grad is not None
        torch.testing.assert_close(losses[task].grad, weight)


def test_an_unknown_task_is_not_silently_left_out() -> None:
    for weighting in (FixedWeighting({"a": 1.0}), UncertaintyWeighting(["a"])):
        with pytest.raises((KeyError, ValueError)):
            weighting({"a": torch.tensor(1.0), "typo": torch.tensor(1.0)})
