"""The learning rate and the gradient reversal over the steps."""

import math
from itertools import pairwise

import pytest

from fr_ps.training.schedule import polynomial, reversal


def rates(steps: int, warmup: int, lr: float = 0.3, power: float = 1.0) -> list[float]:
    return [polynomial(step, steps=steps, warmup=warmup, lr=lr, power=power) for step in range(steps + 1)]


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 3.5])
def test_it_rises_in_equal_steps_to_the_full_rate_and_then_falls_by_the_power_to_zero(power: float) -> None:
    """The closed form, at places where it is easily said."""
    got = rates(110, 10, lr=0.3, power=power)
    assert got[:10] == pytest.approx([0.03 * step for step in range(1, 11)])
    assert got[10] == pytest.approx(0.3)
    assert got[35] == pytest.approx(0.3 * math.exp(power * math.log(0.75)))
    assert got[60] == pytest.approx(0.3 * 0.5**power)
    assert got[85] == pytest.approx(0.3 * 4**-power)
    assert got[110] == 0


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(("steps", "warmup"), [(100, 0), (100, 7), (100, 50), (3, 1), (2, 1), (1, 0)])
def test_it_never_exceeds_the_full_rate_reaches_it_and_falls_strictly_after(steps: int, warmup: int, power: float) -> None:
    got = rates(steps, warmup, power=power)
    assert max(got) == pytest.approx(0.3)
    assert got[warmup] == pytest.approx(0.3)
    assert all(before < after for before, after in pairwise(got[:warmup]))
    assert all(before > after for before, after in pairwise(got[warmup:]))
    assert all(rate > 0 for rate in got[:-1])
    assert got[-1] == 0


def test_the_first_step_of_a_warm_up_is_not_wasted() -> None:
    assert rates(10, 4)[0] == pytest.approx(0.075)


@pytest.mark.parametrize("warmup", [10, 25])
def test_a_warm_up_as_long_as_the_training_or_longer_only_rises(warmup: int) -> None:
    got = rates(10, warmup)[:10]
    assert all(before < after for before, after in pairwise(got))
    assert got[-1] == pytest.approx(0.3 * 10 / warmup)


def test_after_the_end_it_stays_zero() -> None:
    assert [polynomial(step, steps=10, warmup=2, lr=1, power=0.5) for step in (10, 11, 1000)] == [0, 0, 0]


def test_the_reversal_is_constant_or_rises_as_a_hyperbolic_tangent_of_the_progress() -> None:
    """2 / (1 + exp(-10 p)) - 1 = tanh(5 p)."""
    constant = [reversal(step, steps=50, alpha=0.3, ramp=False) for step in range(51)]
    ramped = [reversal(step, steps=50, alpha=0.3, ramp=True) for step in range(51)]
    assert constant == [0.3] * 51
    assert ramped == pytest.approx([0.3 * math.tanh(step / 10) for step in range(51)], abs=1e-12)
    assert ramped[0] == 0
    assert 0.2999 < ramped[-1] < 0.3
