"""Learning rate and gradient reversal as pure functions of the step; a resumed training computes them from its step."""

import math
from collections.abc import Callable

from fr_ps.config import ScheduleConfig
from fr_ps.config.checks import check_setting


def build_schedule(config: ScheduleConfig, *, lr: float, epochs: int, steps_per_epoch: int) -> Callable[[int], float]:
    """A function from the optimizer step, counted from 0, to its learning rate.

    The last step of the linear warm-up and the first step of the curve `config.name` after it both have the peak rate `lr`.

    Args:
        config: the schedule.
        lr: peak learning rate.
        epochs: number of epochs.
        steps_per_epoch: optimizer steps per epoch.
    """
    warmup_steps = round(steps_per_epoch * config.warmup_epochs)
    decay_steps = max(steps_per_epoch * epochs - warmup_steps, 1)
    first_cycle = max(round(steps_per_epoch * config.restart_epochs), 1)

    def lr_at(step: int) -> float:
        if step < warmup_steps:
            return lr * ((step + 1) / warmup_steps)
        if config.name == "constant":
            return lr
        decay_step = step - warmup_steps
        progress = decay_step / decay_steps
        if config.name == "polynomial":
            return polynomial(progress, lr=lr, power=config.power)
        if config.restart_epochs:
            progress = cycle_progress(decay_step, first=first_cycle, factor=config.restart_factor)
        return cosine(progress, lr=lr, lowest=config.lowest)

    return lr_at


def check_lowest_rate(config: ScheduleConfig, *, lr: float) -> None:
    """Reject a cosine schedule whose cycles would end above their peak.

    `Config` does not check this: the base settings of a search may break the rule, as long as the settings of each trial satisfy
    it.

    Raises:
        InputError: `lowest` is above the peak rate `lr`.
    """
    valid = config.name != "cosine" or config.lowest <= lr
    check_setting(valid, "schedule.lowest", config.lowest, f"at most optim.lr ({lr:g})")


def warmup_note(config: ScheduleConfig, *, lr: float, epochs: int, steps_per_epoch: int) -> str:
    """A warning if the warm-up has more steps than the training, so that the rate never reaches `lr`; else empty."""
    steps = epochs * steps_per_epoch
    if round(steps_per_epoch * config.warmup_epochs) <= steps:
        return ""
    reached = build_schedule(config, lr=lr, epochs=epochs, steps_per_epoch=steps_per_epoch)(steps - 1)
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
    is exactly `lr` at 0 and rounding never makes it larger.
    """
    return lr - (lr - lowest) * (1 - math.cos(math.pi * min(progress, 1.0))) / 2


def cycle_progress(step: int, *, first: int, factor: int) -> float:
    """Progress of `step` within its cycle, in [0, 1). Cycle i (from 0) has `first` * `factor`^i steps.

    `first` is the paper's T_0, `factor` its T_mult.
    """
    if factor == 1:
        return step % first / first
    length = first
    while step >= length:
        step -= length
        length *= factor
    return step / length


def reversal_alpha(step: int, *, total_steps: int, alpha: float, ramp: bool) -> float:
    """Alpha of the gradient reversal: constant, or with `ramp` multiplied by 2 / (1 + exp(-10 p)) - 1 at the progress p.

    p = step / total_steps. The ramp starts at 0, so that untrained discriminators do not disturb the features. Ganin et al.,
    "Domain-Adversarial Training of Neural Networks", JMLR 2016.

    Args:
        step: optimizer step, from 0.
        total_steps: optimizer steps of the whole training.
        alpha: final value.
        ramp: whether to ramp up.
    """
    return alpha * (2 / (1 + math.exp(-10 * step / total_steps)) - 1) if ramp else alpha
