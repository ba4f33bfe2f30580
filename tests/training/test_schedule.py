"""The learning rate and the gradient reversal over the steps."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LRScheduler, PolynomialLR

from fr_ps.config import ScheduleConfig
from fr_ps.training.schedule import build_schedule, check_lowest_rate, reversal_alpha, warmup_note
from tests.conftest import AssertRejected


def rates(count: int, lr: float = 0.3, epochs: int = 1, steps: int = 100, **settings: Any) -> list[float]:
    """The rates of the first `count` steps of a training."""
    rate = build_schedule(ScheduleConfig(**settings), lr=lr, epochs=epochs, steps_per_epoch=steps)
    return [rate(step) for step in range(count)]


def torch_rates(count: int, lr: float, kind: type[LRScheduler], **settings: Any) -> list[float]:
    """What a scheduler of torch sets over the same steps."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler: Any = kind(optimizer, **settings)
    got = []
    for _ in range(count):
        got.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return got


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 3.5])
def test_the_polynomial_rises_in_equal_steps_to_the_full_rate_and_then_falls_by_the_power_to_zero(power: float) -> None:
    """The closed form, at steps where it is simple."""
    got = rates(111, epochs=11, steps=10, power=power)
    assert got[:10] == pytest.approx([0.03 * step for step in range(1, 11)])
    assert got[10] == pytest.approx(0.3)
    assert got[35] == pytest.approx(0.3 * math.exp(power * math.log(0.75)))
    assert got[60] == pytest.approx(0.3 * 0.5**power)
    assert got[85] == pytest.approx(0.3 * 4**-power)
    assert got[110] == 0


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(("steps", "warmup"), [(100, 0), (100, 7), (100, 50), (3, 1), (2, 1), (1, 0)])
def test_the_polynomial_reaches_the_full_rate_and_falls_strictly_after(steps: int, warmup: int, power: float) -> None:
    got = rates(steps + 1, steps=steps, warmup_epochs=warmup / steps, power=power)
    assert max(got) == got[warmup] == 0.3
    assert all(before < after for before, after in pairwise(got[:warmup]))
    assert all(before > after for before, after in pairwise(got[warmup:]))
    assert all(rate > 0 for rate in got[:-1])
    assert got[-1] == 0


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_the_polynomial_is_that_of_torch(power: float) -> None:
    theirs = torch_rates(81, 0.3, PolynomialLR, total_iters=80, power=power)
    assert rates(81, epochs=4, steps=20, warmup_epochs=0, power=power) == pytest.approx(theirs, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("lowest", [0.0, 1e-4, 0.05])
@pytest.mark.parametrize(("epochs", "first", "factor"), [(1.0, 10, 1), (1.0, 10, 2), (0.7, 7, 3), (0.1, 1, 2), (2.5, 25, 1)])
def test_the_cosine_with_warm_restarts_is_that_of_torch(epochs: float, first: int, factor: int, lowest: float) -> None:
    theirs = torch_rates(300, 0.3, CosineAnnealingWarmRestarts, T_0=first, T_mult=factor, eta_min=lowest)
    settings = {"name": "cosine", "restart_epochs": epochs, "restart_factor": factor, "lowest": lowest}
    assert rates(300, epochs=30, steps=10, warmup_epochs=0, **settings) == pytest.approx(theirs, rel=1e-9, abs=1e-15)
    warmed = rates(325, epochs=30, steps=10, warmup_epochs=2.5, **settings)
    assert warmed[:25] == pytest.approx(np.arange(1, 26) * 0.3 / 25)
    assert warmed[25:] == pytest.approx(theirs, rel=1e-9, abs=1e-15)


def test_a_cosine_without_restarts_is_one_cycle_over_what_is_left_and_stays_at_the_lowest_rate() -> None:
    """lowest + (lr - lowest) cos^2(pi p / 2): another form of the half cosine."""
    got = rates(200, epochs=12, steps=10, name="cosine", warmup_epochs=2, lowest=0.01)
    progress = np.arange(101, dtype=np.float64) / 100
    assert got[:20] == pytest.approx(np.linspace(0.015, 0.3, 20))
    assert got[20:121] == pytest.approx(0.01 + 0.29 * np.cos(np.pi / 2 * progress) ** 2, rel=1e-12)
    assert got[120:] == pytest.approx([0.01] * 80)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_each_restart_is_at_the_full_rate_after_a_step_near_the_lowest(factor: int) -> None:
    got = rates(2000, epochs=20, name="cosine", warmup_epochs=0.3, restart_epochs=0.5, restart_factor=factor, lowest=0.02)
    starts = [30 + 50 * sum(factor**cycle for cycle in range(count)) for count in range(6)]
    for start, end in pairwise(start for start in starts if start < 2000):
        assert got[start] == 0.3
        assert all(before > after for before, after in pairwise(got[start:end]))
        assert got[(start + end) // 2] == pytest.approx(0.16, abs=0.01)  # half way in time, half way in rate
        assert 0.02 < got[end - 1] < 0.0205


def test_a_constant_rate_stays_after_the_warm_up() -> None:
    got = rates(500, name="constant", warmup_epochs=0.04)
    assert got[:4] == pytest.approx([0.075, 0.15, 0.225, 0.3])
    assert got[4:] == [0.3] * 496


SCHEDULES = st.builds(
    ScheduleConfig,
    name=st.sampled_from(["polynomial", "cosine", "constant"]),
    warmup_epochs=st.floats(0, 8),
    power=st.floats(0.1, 5),
    restart_epochs=st.just(0.0) | st.floats(1e-6, 6),
    restart_factor=st.integers(1, 4),
    lowest=st.floats(0, 1e-4),
)


@given(config=SCHEDULES, lr=st.floats(1e-4, 10), epochs=st.integers(1, 8), steps=st.integers(1, 30), step=st.integers(0, 10**9))
def test_no_schedule_is_ever_above_the_full_rate_or_negative(
    config: ScheduleConfig, lr: float, epochs: int, steps: int, step: int
) -> None:
    rate = build_schedule(config, lr=lr, epochs=epochs, steps_per_epoch=steps)
    got = [rate(each) for each in range(epochs * steps + 3)]
    assert all(0 <= each <= lr for each in [*got, rate(step)])
    assert all(each > 0 for each in got[: epochs * steps])
    assert got == [rate(each) for each in range(epochs * steps + 3)]  # of the step alone, not of those before


@given(config=SCHEDULES, lr=st.floats(1e-4, 10), epochs=st.integers(1, 8), steps=st.integers(1, 30))
def test_a_warm_up_ends_at_the_full_rate_at_which_the_schedule_begins(
    config: ScheduleConfig, lr: float, epochs: int, steps: int
) -> None:
    rate = build_schedule(config, lr=lr, epochs=epochs, steps_per_epoch=steps)
    warmup = round(config.warmup_epochs * steps)
    assert [rate(step) for step in range(warmup)] == pytest.approx([lr * step / warmup for step in range(1, warmup + 1)])
    assert rate(warmup) == lr


@pytest.mark.parametrize("name", ["polynomial", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [10, 25])
def test_a_warm_up_as_long_as_the_training_or_longer_only_rises(name: str, warmup: int) -> None:
    got = rates(10, steps=10, name=name, warmup_epochs=warmup / 10)
    assert all(before < after for before, after in pairwise(got))
    assert got[-1] == pytest.approx(0.3 * 10 / warmup)


def test_after_the_end_the_polynomial_stays_zero() -> None:
    rate = build_schedule(ScheduleConfig(warmup_epochs=0.2, power=0.5), lr=1, epochs=1, steps_per_epoch=10)
    assert [rate(step) for step in (10, 11, 1000)] == [0, 0, 0]


def test_the_reversal_is_constant_or_rises_as_a_hyperbolic_tangent_of_the_progress() -> None:
    """2 / (1 + exp(-10 p)) - 1 = tanh(5 p)."""
    constant = [reversal_alpha(step, total_steps=50, alpha=0.3, ramp=False) for step in range(51)]
    ramped = [reversal_alpha(step, total_steps=50, alpha=0.3, ramp=True) for step in range(51)]
    assert constant == [0.3] * 51
    assert ramped == pytest.approx([0.3 * math.tanh(step / 10) for step in range(51)], abs=1e-12)
    assert ramped[0] == 0
    assert 0.2999 < ramped[-1] < 0.3


def test_a_warm_up_that_outlasts_the_training_is_noted_with_the_rate_that_is_reached() -> None:
    config = ScheduleConfig(warmup_epochs=5)
    note = warmup_note(config, lr=0.01, epochs=2, steps_per_epoch=10)
    assert "schedule.warmup_epochs (5)" in note
    assert "reaches 0.004 instead of optim.lr (0.01)" in note
    assert warmup_note(config, lr=0.01, epochs=5, steps_per_epoch=10) == ""


def test_a_warm_up_that_is_longer_by_less_than_a_step_reaches_the_rate() -> None:
    config = ScheduleConfig(warmup_epochs=1.1)
    assert build_schedule(config, lr=0.01, epochs=1, steps_per_epoch=4)(3) == 0.01
    assert warmup_note(config, lr=0.01, epochs=1, steps_per_epoch=4) == ""


def test_a_cosine_that_would_rise_is_rejected_where_it_is_used(rejected: AssertRejected) -> None:
    above = ScheduleConfig(name="cosine", lowest=0.01)
    with rejected("schedule.lowest is 0.01; expected at most optim.lr (0.001)"):
        check_lowest_rate(above, lr=0.001)
    check_lowest_rate(above, lr=0.01)
    check_lowest_rate(ScheduleConfig(name="polynomial", lowest=0.01), lr=0.001)
