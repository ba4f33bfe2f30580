"""Named numbers, where what is undefined is None with a reason and never a made-up value."""

from dataclasses import dataclass, field

import numpy as np

from fr_ps.evaluation.bootstrap import confidence_interval


@dataclass
class Metrics:
    """Metric names to values.

    Attributes:
        values: None where the metric is undefined on these data.
        reasons: why a value is None, or what to know about one that is not.
        intervals: (low, high) of those that people were resampled for, at 95 %.
        people: whom those that are rates are of.
        replicates: (B,) the values of these in each draw of people, NaN where undefined in it; on the same people, the same
            place in two of them is the same draw.
    """

    values: dict[str, float | None] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    replicates: dict[str, np.ndarray] = field(default_factory=dict)
    subjects: dict[str, int] = field(default_factory=dict)

    def add(
        self, name: str, value: float | None, reason: str = "", replicates: np.ndarray | None = None, subjects: int = 0
    ) -> None:
        """Record one metric; an undefined one needs a reason.

        Args:
            name: of the metric.
            value: of it.
            reason: why it is undefined, or what to know about it.
            people: whom those that are rates are of.
        replicates: (B,) of it in each draw of people; None: no interval.
            people: whom a rate is of; 0: the value is no rate (`interval`).
        """
        assert value is not None or reason, name
        self.values[name] = value
        if reason:
            self.reasons[name] = reason
        if value is not None and replicates is not None:
            self.replicates[name] = replicates
            if subjects:
                self.subjects[name] = subjects
            if (found := confidence_interval(value, replicates, subjects)) is not None:
                self.intervals[name] = found

    def defined(self) -> dict[str, float]:
        """Those with a value."""
        return {name: value for name, value in self.values.items() if value is not None}

    def with_prefix(self, prefix: str) -> "Metrics":
        """The same with `prefix/` before every name."""
        return Metrics(*({f"{prefix}/{name}": value for name, value in its.items()} for its in self._fields()))

    def merge(self, other: "Metrics") -> "Metrics":
        """These and those of `other`, which win where a name is in both."""
        kept = [{name: value for name, value in its.items() if name not in other.values} for its in self._fields()]
        return Metrics(*(mine | its for mine, its in zip(kept, other._fields())))

    def select(self, names: set[str]) -> "Metrics":
        """Those of these names."""
        return Metrics(*({name: value for name, value in its.items() if name in names} for its in self._fields()))

    def as_json(self) -> dict[str, dict]:
        """The content of metrics.json."""
        return {
            "metrics": self.values,
            "reasons": self.reasons,
            "intervals": {name: list(found) for name, found in self.intervals.items()},
        }

    def _fields(self) -> tuple[dict, dict, dict, dict, dict]:
        return self.values, self.reasons, self.intervals, self.replicates, self.subjects
