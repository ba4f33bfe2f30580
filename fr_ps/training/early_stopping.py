"""Which epoch is the best so far, and when to stop waiting for a better one."""

from typing import Any

from fr_ps.errors import InputError
from fr_ps.evaluation.metrics import Metrics, lower_is_better


class BestTracker:
    """Follows one validation metric.

    Args:
        metric: its name; lower is better for an `eer` or `ece`, higher for everything else.
        patience: epochs without a better value after which `exhausted` is true; 0 for never.
        setting: that named the metric.
    """

    def __init__(self, metric: str, patience: int = 0, setting: str = "train.select") -> None:
        self.metric, self.patience, self.setting = metric, patience, setting
        self.lower_is_better = lower_is_better(metric)
        self.best: float | None = None
        self.best_epoch = 0
        self.epoch = 0

    def update(self, metrics: Metrics) -> bool:
        """Take the next epoch's metrics; whether it is the best so far.

        Raises:
            InputError: there is no such metric, or on the validation part it is undefined or has too little support.
        """
        if self.metric not in metrics.values:
            raise InputError(f"{self.setting} is {self.metric!r}; expected one of {', '.join(sorted(metrics.values))}")
        value = metrics.values[self.metric]
        if value is None:
            reason = metrics.reasons[self.metric]
            raise InputError(
                f"{self.setting} is {self.metric!r}, which is undefined on the validation part ({reason}); select another"
            )
        if metrics.is_low_support(self.metric):
            raise InputError(
                f"{self.setting} is {self.metric!r}, which may not decide on the validation part "
                f"({metrics.reasons[self.metric]}); select another, or validate on more people"
            )
        self.epoch += 1
        better = self.best is None or (value < self.best if self.lower_is_better else value > self.best)
        if better:
            self.best, self.best_epoch = value, self.epoch
        return better

    @property
    def should_stop(self) -> bool:
        """Whether the patience is used up."""
        return self.patience > 0 and self.epoch - self.best_epoch >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """What is known so far, as JSON holds it."""
        return {"best": self.best, "best_epoch": self.best_epoch, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.best, self.best_epoch, self.epoch = state["best"], state["best_epoch"], state["epoch"]
