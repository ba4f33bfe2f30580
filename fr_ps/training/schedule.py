"""Learning rate and gradient reversal as pure functions of the step; a resumed training needs no state for them."""

import math
from collections.abc import Callable

from fr_ps.config import ScheduleConfig
from fr_ps.config.checks import check_setting


def learning_rate(config: ScheduleConfig, *, lr: float, epochs: int, steps: int) -> Callable[[int], float]:
    """The learning rate as a function of the optimizer step, counted from 0.

    Linear warm-up: its last step has the peak rate `lr`. The next step is the first one of the schedule `config.name`, also at
    the peak rate.

    Args:
        config: the schedule.
        lr: peak learning rate.
        epochs: number of epochs.
        steps: optimizer steps per epoch.

    Raises:
        InputError: as in `check_lowest_rate`.
    """
    check_lowest_rate(config, lr=lr)
    warmup = round(steps * config.warmup_epochs)
    left = max(steps * epochs - warmup, 1)
    cycle = max(round(steps * config.restart_epochs), 1)

    def rate(step: int) -> float:
        if step < warmup:
            return lr * ((step + 1) / warmup)
        done = step - warmup
        if config.name == "constant":
            return lr
        if config.name == "polynomial":
            return polynomial(done / left, lr=lr, power=config.power)
        progress = cycle_progress(done, first=cycle, factor=config.restart_factor) if config.restart_epochs else done / left
        return cosine(progress, lr=lr, lowest=config.lowest)

    return rate


def check_lowest_rate(config: ScheduleConfig, *, lr: float) -> None:
    """Reject a cosine schedule that would rise.

    Raises:
        InputError: `lowest` is above the peak rate `lr`.
    """
    falls = config.name != "cosine" or config.lowest <= lr
    check_setting(falls, "schedule.lowest", config.lowest, f"at most optim.lr ({lr:g})")


def warmup_note(config: ScheduleConfig, *, lr: float, epochs: int) -> str:
    """A warning if the warm-up is longer than `epochs`, so that the rate never reaches `lr`; else empty."""
    if config.warmup_epochs <= epochs:
        return ""
    reached = lr * epochs / config.warmup_epochs
    return (
        f"schedule.warmup_epochs ({config.warmup_epochs:g}) is longer than the training (train.epochs {epochs}): the learning "
        f"rate reaches {reached:g} instead of optim.lr ({lr:g})"
    )


def polynomial(progress: float, *, lr: float, power: float) -> float:
    """lr (1 - progress)^power; 0 from progress 1 on."""
    return lr * max(1 - progress, 0.0) ** power


def cosine(progress: float, *, lr: float, lowest: float) -> float:
    """Cosine decay from `lr` at progress 0 to `lowest` at 1, constant beyond.

    Loshchilov, Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, equation 5, written so that it
    is exactly `lr` at 0 and that rounding never makes it more.
    """
    return lr - (lr - lowest) * (1 - math.cos(math.pi * min(progress, 1.0))) / 2


def cycle_progress(step: int, *, first: int, factor: int) -> float:
    """Progress of `step` within its cycle, in [0, 1). Cycle i (from 0) has `first` * `factor`^i steps.

    `first` is the paper's T_0, `factor` its T_mult.
    """
    length = first
    if factor > 1:
        while step >= length:
            step -= length
            length *= factor
    return step % length / length


def reversal_alpha(step: int, *, steps: int, alpha: float, ramp: bool) -> float:
    """Alpha of the gradient reversal: constant, or with `ramp` times 2 / (1 + exp(-10 p)) - 1 over the progress p.

    p = step / steps. The ramp starts at 0, so that untrained discriminators do not disturb the features. Ganin et al.,
    "Domain-Adversarial Training of Neural Networks", JMLR 2016.

    Args:
        step: optimizer step, from 0.
        steps: optimizer steps of the whole training.
        alpha: value at the end.
        ramp: whether to ramp up.
    """
    return alpha * (2 / (1 + math.exp(-10 * step / steps)) - 1) if ramp else alpha
