"""The best epoch so far by a validation metric, and early stopping."""

from typing import Any

from fr_ps.errors import InputError
from fr_ps.evaluation.metrics import Metrics, lower_is_better


class BestTracker:
    """Tracks one validation metric.

    Args:
        metric: name of the metric; `lower_is_better` gives its direction.
        patience: epochs without a better value after which `should_stop` is true; 0: never.
        setting: setting that names the metric, for messages.
    """

    def __init__(self, metric: str, patience: int = 0, setting: str = "train.select") -> None:
        self.metric, self.patience, self.setting = metric, patience, setting
        self.lower_is_better = lower_is_better(metric)
        self.best: float | None = None
        self.best_epoch = 0
        self.epoch = 0

    def update(self, metrics: Metrics) -> bool:
        """Add the metrics of the next epoch; returns whether it is the best so far.

        Raises:
            InputError: the metric is missing, undefined on the validation part, or has too little support.
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
                f"{self.setting} is {self.metric!r}, which has too little support on the validation part "
                f"({metrics.reasons[self.metric]}); select another metric, or raise data.val_people"
            )
        self.epoch += 1
        better = self.best is None or (value < self.best if self.lower_is_better else value > self.best)
        if better:
            self.best, self.best_epoch = value, self.epoch
        return better

    @property
    def should_stop(self) -> bool:
        """Whether the last `patience` epochs brought no better value."""
        return self.patience > 0 and self.epoch - self.best_epoch >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """The state, as JSON values."""
        return {"best": self.best, "best_epoch": self.best_epoch, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.best, self.best_epoch, self.epoch = state["best"], state["best_epoch"], state["epoch"]
