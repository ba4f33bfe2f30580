"""Named metric values. An undefined metric is None with a reason, never a placeholder number."""

from dataclasses import dataclass, field

import numpy as np

from fr_ps.evaluation.bootstrap import confidence_interval
from fr_ps.report.table import DrawFigure, Table

LOW_SUPPORT = 30
"""A rate with fewer expected errors than this is marked low support: too uncertain for selection and headlines."""
LOW_SUPPORT_REASON = "low support"
"""Start of the reason of such a metric."""
LOWER_IS_BETTER = ("eer", "ece")
"""Last parts of metric names where lower is better; further ones start with one of `_ERROR_RATES`."""
_ERROR_RATES = ("fnir_at_", "fmr_at_", "fnmr_at_")


def lower_is_better(name: str) -> bool:
    """True if a lower value of the metric `name` is better."""
    last = name.rsplit("/", 1)[-1]
    return last in LOWER_IS_BETTER or last.startswith(_ERROR_RATES)


@dataclass
class Metrics:
    """Metric values by name.

    Attributes:
        values: None where the metric is undefined on these data.
        reasons: why a value is None, or a remark on a value.
        intervals: (low, high), the 95 % bootstrap confidence interval over subjects.
        replicates: (B,) value in each bootstrap replicate, NaN where undefined. Metrics of the same subjects have the same
            draw of subjects at the same index.
        subjects: number of subjects behind a rate; absent if the metric is not a rate.
    """

    values: dict[str, float | None] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    replicates: dict[str, np.ndarray] = field(default_factory=dict)
    subjects: dict[str, int] = field(default_factory=dict)

    def add(
        self, name: str, value: float | None, reason: str = "", replicates: np.ndarray | None = None, subjects: int = 0
    ) -> None:
        """Add one metric, with its confidence interval if there are replicates.

        Args:
            name: metric name.
            value: None: undefined.
            reason: why the value is None (required), or a remark on it.
            replicates: (B,) value in each bootstrap replicate; None: no interval.
            subjects: number of subjects behind a rate; 0: the value is not a rate (see `confidence_interval`).
        """
        assert value is not None or reason, name
        self.values[name] = value
        if reason:
            self.reasons[name] = reason
        if value is not None and replicates is not None:
            self.replicates[name] = replicates
            if subjects:
                self.subjects[name] = subjects
            if (interval := confidence_interval(value, replicates, subjects)) is not None:
                self.intervals[name] = interval

    def defined(self) -> dict[str, float]:
        """The metrics that have a value."""
        return {name: value for name, value in self.values.items() if value is not None}

    def is_low_support(self, name: str) -> bool:
        """True if the metric rests on fewer than `LOW_SUPPORT` expected errors."""
        return self.reasons.get(name, "").startswith(LOW_SUPPORT_REASON)

    def with_prefix(self, prefix: str) -> "Metrics":
        """A copy with `prefix/` before every name."""
        return Metrics(*({f"{prefix}/{name}": value for name, value in values.items()} for values in self._fields()))

    def merge(self, *others: "Metrics") -> "Metrics":
        """A copy with the metrics of `others` added; the last one wins where a name is in several."""
        merged = Metrics(*(dict(old) for old in self._fields()))
        for other in others:
            for old, new in zip(merged._fields(), other._fields()):
                for name in other.values:
                    old.pop(name, None)
                old.update(new)
        return merged

    def select(self, names: set[str]) -> "Metrics":
        """A copy with these names only."""
        return Metrics(*({name: value for name, value in values.items() if name in names} for values in self._fields()))

    def as_json(self) -> dict[str, dict]:
        """The content of metrics.json."""
        return {
            "metrics": self.values,
            "reasons": self.reasons,
            "intervals": {name: list(interval) for name, interval in self.intervals.items()},
        }

    def _fields(self) -> tuple[dict, dict, dict, dict, dict]:
        return self.values, self.reasons, self.intervals, self.replicates, self.subjects


@dataclass
class ReportSection:
    """Result of one analysis: metrics, tables and figures.

    Attributes:
        metrics: named as in metrics.json, without the split part (`identity/auc`).
        tables: tables of the report.
        figures: PNG file name without its suffix, to the function that draws the figure; `write_report` calls it.
        captions: name of a figure to the text below it on the page.
    """

    metrics: Metrics = field(default_factory=Metrics)
    tables: list[Table] = field(default_factory=list)
    figures: dict[str, DrawFigure] = field(default_factory=dict)
    captions: dict[str, str] = field(default_factory=dict)
