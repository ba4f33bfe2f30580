"""Weights of the losses: fixed, learnt up to their analytic fixed point, and from the pace of the epochs."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fr_ps.losses.weighting import DynamicWeightAverage, FixedWeighting, UncertaintyWeighting, Weighting


def descend(
    weighting: UncertaintyWeighting,
    losses: dict[str, float],
    steps: int,
    lr: float = 0.05,
    adam: bool = True,
    penalties: dict[str, float] | None = None,
) -> None:
    kind = torch.optim.AdamW if adam else torch.optim.SGD
    optimizer = kind(weighting.parameters(), lr=lr, weight_decay=0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        constant = {task: torch.tensor(value) for task, value in (penalties or {}).items()}
        weighting({task: torch.tensor(value) for task, value in losses.items()}, (), constant).backward()
        optimizer.step()


def test_fixed_weights_give_the_weighted_sum_of_the_present_tasks() -> None:
    weighting = FixedWeighting({"a": 2.0, "b": 0.5, "c": 100.0})
    losses = {"b": torch.tensor(3.0, requires_grad=True), "a": torch.tensor(5.0, requires_grad=True)}
    total = weighting(losses, ())
    total.backward()
    assert total.item() == 2 * 5 + 0.5 * 3
    assert losses["a"].grad == 2
    assert losses["b"].grad == 0.5
    assert {task: float(weight) for task, weight in weighting.weights().items()} == {"a": 2.0, "b": 0.5, "c": 100.0}
    assert list(weighting.parameters()) == []


def test_learnt_weights_start_at_one() -> None:
    weighting = UncertaintyWeighting(["a", "b"])
    assert all(float(weight) == pytest.approx(1, abs=1e-6) for weight in weighting.weights().values())
    assert weighting({"a": torch.tensor(3.0), "b": torch.tensor(0.5)}, ()).item() == pytest.approx(3.5, abs=1e-5)


def test_the_total_is_the_formula_of_the_paper() -> None:
    weighting = UncertaintyWeighting(["a", "b"])
    with torch.no_grad():
        weighting.raw += torch.tensor([0.7, -0.4])
    s = {task: -math.log(float(weight)) for task, weight in weighting.weights().items()}
    losses = {"b": 2.5, "a": 0.3}
    expected = sum(math.exp(-s[task]) * value + s[task] / 2 for task, value in losses.items())
    total = weighting({task: torch.tensor(value) for task, value in losses.items()}, ())
    assert total.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("adam", [True, False], ids=["adam", "sgd"])
def test_on_constant_losses_the_weights_go_to_one_over_twice_the_loss(adam: bool) -> None:
    losses = {"large": 8.0, "one": 1.0, "small": 0.2}
    weighting = UncertaintyWeighting(list(losses))
    descend(weighting, losses, 800, lr=0.05 if adam else 0.5, adam=adam)
    for task, weight in weighting.weights().items():
        assert 1 / (2 * losses[task]) < UncertaintyWeighting.MAX_WEIGHT
        assert float(weight) == pytest.approx(1 / (2 * losses[task]), rel=0.02)


@settings(deadline=None)
@given(st.lists(st.floats(0.11, 1e3), min_size=1, max_size=5))
def test_at_the_analytic_fixed_point_the_weights_are_constant(values: list[float]) -> None:
    """d/ds (exp(-s) L + s / 2) = 0 at s = log(2 L), where the total is the sum of (1 + log(2 L)) / 2."""
    losses = {str(index): torch.tensor(value, dtype=torch.float64) for index, value in enumerate(values)}
    weighting = UncertaintyWeighting(list(losses)).double()
    with torch.no_grad():
        s = torch.stack(list(losses.values())).mul(2).log()
        weighting.raw.copy_(torch.expm1(s + math.log(UncertaintyWeighting.MAX_WEIGHT)).log())
    total = weighting(losses, ())
    total.backward()
    assert total.item() == pytest.approx(sum((1 + math.log(2 * value)) / 2 for value in values), rel=1e-6, abs=1e-6)
    assert weighting.raw.grad is not None
    assert weighting.raw.grad.abs().max().item() < 1e-6


def test_the_weight_of_a_vanishing_loss_is_bounded_and_recovers() -> None:
    weighting = UncertaintyWeighting(["a"])
    descend(weighting, {"a": 0.0}, 1500)
    assert 4.5 < float(weighting.weights()["a"]) <= UncertaintyWeighting.MAX_WEIGHT * (1 + 1e-6)
    descend(weighting, {"a": 2.0}, 1500)
    assert float(weighting.weights()["a"]) == pytest.approx(0.25, rel=0.05)


def test_a_task_that_is_not_in_the_batch_gets_no_gradient() -> None:
    weighting = UncertaintyWeighting(["a", "b", "c"])
    weighting({"c": torch.tensor(3.0), "a": torch.tensor(2.0)}, ()).backward()
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
    weighting(losses, ()).backward()
    for task, weight in weighting.weights().items():
        assert not weight.requires_grad
        assert losses[task].grad is not None
        torch.testing.assert_close(losses[task].grad, weight)


def test_an_unknown_task_is_an_error() -> None:
    for weighting in (FixedWeighting({"a": 1.0}), UncertaintyWeighting(["a"]), DynamicWeightAverage(["a"], {}, 2.0)):
        with pytest.raises((KeyError, ValueError)):
            weighting({"a": torch.tensor(1.0), "typo": torch.tensor(1.0)}, ())


def dynamic(*epochs: dict[str, float], temperature: float = 2.0) -> DynamicWeightAverage:
    weighting = DynamicWeightAverage(["a", "b", "c"], {"adversarial_a": 0.1}, temperature)
    for means in epochs:
        weighting.end_epoch(means)
    return weighting


def of_tasks(weighting: Weighting) -> list[float]:
    return [float(weighting.weights()[task]) for task in ("a", "b", "c")]


positive = st.floats(1e-3, 1e3)


@settings(deadline=None)
@given(st.lists(st.tuples(positive, positive), min_size=3, max_size=3), st.floats(0.5, 10))
def test_dynamic_weights_are_the_formula_of_the_paper(epochs: list[tuple[float, float]], temperature: float) -> None:
    before, last = ({task: pair[which] for task, pair in zip("abc", epochs)} for which in (0, 1))
    got = of_tasks(dynamic({"a": 7.0, "b": 7.0, "c": 7.0}, before, last, temperature=temperature))
    ratio = np.array([last[task] / before[task] for task in "abc"]) / temperature
    exponentials = np.exp(ratio - ratio.max())
    assert got == pytest.approx(3 * exponentials / exponentials.sum(), rel=1e-3, abs=1e-5)
    assert sum(got) == pytest.approx(3, rel=1e-5)


def test_a_worked_example_of_dynamic_weights() -> None:
    """Ratios 1, 1/2 and 3/4 at T = 1/4: 3 e^4, 3 e^2 and 3 e^3 over e^4 + e^2 + e^3."""
    got = of_tasks(dynamic({"a": 2.0, "b": 8.0, "c": 4.0}, {"a": 2.0, "b": 4.0, "c": 3.0}, temperature=0.25))
    assert got == pytest.approx([1.995722, 0.270092, 0.734185], abs=1e-5)


def test_dynamic_weights_are_equal_in_the_first_two_epochs() -> None:
    assert of_tasks(dynamic()) == [1, 1, 1]
    assert of_tasks(dynamic({"a": 5.0, "b": 1.0, "c": 0.1})) == [1, 1, 1]


def test_a_task_without_a_loss_in_an_epoch_keeps_its_last_two() -> None:
    with_gap = dynamic({"a": 5.0, "b": 4.0, "c": 2.0}, {"a": 4.0, "b": 2.0, "c": 2.0}, {"a": 3.0, "c": 1.0})
    without = dynamic({"a": 4.0, "b": 4.0, "c": 2.0}, {"a": 3.0, "b": 2.0, "c": 1.0})
    assert of_tasks(with_gap) == of_tasks(without)


def test_losses_of_0_give_finite_dynamic_weights() -> None:
    assert of_tasks(dynamic(*[{"a": 0.0, "b": 0.0, "c": 0.0}] * 2)) == [1, 1, 1]
    assert sum(of_tasks(dynamic({"a": 0.0, "b": 1.0, "c": 1.0}, {"a": 1.0, "b": 1.0, "c": 1.0}))) == pytest.approx(3)


def test_adversaries_keep_their_weight_and_do_not_affect_dynamic_weights() -> None:
    tasks = [{"a": 2.0, "b": 2.0, "c": 2.0}, {"a": 1.0, "b": 2.0, "c": 2.0}]
    weighting = dynamic(*(means | {"adversarial_a": 1.0 + 9 * index} for index, means in enumerate(tasks)))
    assert of_tasks(weighting) == of_tasks(dynamic(*tasks))
    assert float(weighting.weights()["adversarial_a"]) == pytest.approx(0.1)


def test_the_total_of_dynamic_weights_is_the_weighted_sum_and_gives_the_losses_their_weights() -> None:
    weighting = dynamic({"a": 2.0, "b": 8.0, "c": 4.0}, {"a": 2.0, "b": 4.0, "c": 3.0})
    losses = {task: torch.tensor(value, requires_grad=True) for task, value in {"c": 3.0, "a": 5.0, "adversarial_a": 7.0}.items()}
    total = weighting(losses, ())
    total.backward()
    weights = weighting.weights()
    assert total.item() == pytest.approx(sum(float(weights[task]) * loss.item() for task, loss in losses.items()))
    for task, loss in losses.items():
        torch.testing.assert_close(loss.grad, weights[task])


def test_the_state_holds_the_losses_that_dynamic_weights_need() -> None:
    weighting = dynamic({"a": 2.0, "b": 8.0, "c": 4.0}, {"a": 2.0, "b": 4.0, "c": 3.0})
    resumed = dynamic()
    resumed.load_state_dict(weighting.state_dict())
    assert of_tasks(resumed) == of_tasks(weighting)
    for one in (resumed, weighting):
        one.end_epoch({"a": 1.0, "b": 4.0, "c": 1.0})
    assert of_tasks(resumed) == of_tasks(weighting) != [1, 1, 1]


class Conflict:
    """Two tasks that pull a point to opposite sides and both downwards: half its squared distance to (1, 0) and (-1, 0),
    plus a half, times a scale each."""

    def __init__(self, scales: tuple[float, float] = (1.0, 1.0)) -> None:
        self.point = torch.nn.Parameter(torch.tensor([0.0, 0.4]))
        self.scales = scales

    def losses(self) -> dict[str, torch.Tensor]:
        ends = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        distances = (self.point - ends).square().sum(dim=1)
        return {task: scale * (distance + 1) / 2 for task, scale, distance in zip("ab", self.scales, distances)}

    def train(self, weighting: Weighting, steps: int = 60) -> list[float]:
        """By how much each loss has fallen."""
        before = [loss.item() for loss in self.losses().values()]
        optimizer = torch.optim.SGD([self.point, *weighting.parameters()], lr=0.02)
        for _ in range(steps):
            optimizer.zero_grad()
            losses = self.losses()
            weighting(losses, ()).backward()
            optimizer.step()
            weighting.end_epoch({task: loss.item() for task, loss in losses.items()})
        return [start - loss.item() for start, loss in zip(before, self.losses().values())]


def test_the_gradients_of_the_two_tasks_conflict() -> None:
    task = Conflict()
    first, second = (torch.autograd.grad(task.losses()[name], task.point)[0] for name in "ab")
    assert torch.nn.functional.cosine_similarity(first, second, dim=0) < -0.5


@pytest.mark.parametrize(
    "weighting",
    [FixedWeighting({"a": 1.0, "b": 1.0}), UncertaintyWeighting(["a", "b"]), DynamicWeightAverage(["a", "b"], {}, 2.0)],
    ids=lambda weighting: type(weighting).__name__,
)
def test_of_two_tasks_with_equal_gradients_in_conflict_both_losses_fall(weighting: Weighting) -> None:
    """w_a g_a + w_b g_b goes along both gradients where w_a |g_a| and w_b |g_b| are about equal."""
    assert min(Conflict().train(weighting)) > 0.02


def test_uncertainty_at_its_fixed_point_balances_losses_of_different_scale() -> None:
    """There the weights are 1 / (2 L), and g / L does not know the scale of L."""
    scales = (8.0, 0.5)
    weighting = UncertaintyWeighting(["a", "b"])
    descend(weighting, {task: loss.item() for task, loss in Conflict(scales).losses().items()}, 1500)
    assert min(Conflict(scales).train(weighting)) > 0.01
    assert min(Conflict(scales).train(FixedWeighting({"a": 1.0, "b": 1.0}))) < -0.1


def test_uncertainty_is_learnt_from_the_loss_without_the_penalty() -> None:
    """Of a loss of 2.01 a penalty of 1.81 leaves a difficulty of 0.2: the weight goes to 1 / 0.4 instead of 1 / 4.02."""
    weighting = UncertaintyWeighting(["a", "b"])
    descend(weighting, {"a": 2.01, "b": 2.01}, 800, penalties={"a": 1.81})
    weights = weighting.weights()
    assert float(weights["a"]) == pytest.approx(1 / (2 * 0.2), rel=0.02)
    assert float(weights["b"]) == pytest.approx(1 / (2 * 2.01), rel=0.02)


def test_a_penalty_has_the_weight_of_its_loss() -> None:
    weighting = UncertaintyWeighting(["a"])
    descend(weighting, {"a": 4.0}, 100)
    loss = torch.tensor(3.0, requires_grad=True)
    plain, total = weighting({"a": loss}, ()), weighting({"a": loss}, (), {"a": torch.tensor(1.8)})
    total.backward()
    assert total.item() == pytest.approx(plain.item(), rel=1e-6)
    torch.testing.assert_close(loss.grad, weighting.weights()["a"])
