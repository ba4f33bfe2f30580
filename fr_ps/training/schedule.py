"""Learning rate as a pure function of the step."""


def polynomial(step: int, *, steps: int, warmup: int, lr: float, power: float) -> float:
    """Linear warm-up over the first `warmup` steps to `lr`, then lr (1 - progress)^power, 0 after the last of `steps`.

    Step `warmup - 1` has the full rate; `progress` goes from 0 there to 1 at `steps`.
    """
    if step < warmup:
        return lr * (step + 1) / warmup
    progress = (step - warmup) / max(steps - warmup, 1)
    return lr * max(1 - progress, 0.0) ** power
