"""Learning rate and gradient reversal as pure functions of the step."""

import math


def polynomial(step: int, *, steps: int, warmup: int, lr: float, power: float) -> float:
    """Linear warm-up over the first `warmup` steps to `lr`, then lr (1 - progress)^power, 0 after the last of `steps`.

    Step `warmup - 1` has the full rate; `progress` goes from 0 there to 1 at `steps`.
    """
    if step < warmup:
        return lr * (step + 1) / warmup
    progress = (step - warmup) / max(steps - warmup, 1)
    return lr * max(1 - progress, 0.0) ** power


def reversal(step: int, *, steps: int, alpha: float, ramp: bool) -> float:
    """Alpha of the gradient reversal: constant, or with `ramp` times 2 / (1 + exp(-10 p)) - 1 over the progress p.

    p goes from 0 at the first step to 1 after the last of `steps`, so that discriminators that know nothing yet do not
    disturb the features. Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 2016.
    """
    return alpha * (2 / (1 + math.exp(-10 * step / steps)) - 1) if ramp else alpha
