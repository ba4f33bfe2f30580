"""Named numbers, where what is undefined is None with a reason and never a made-up value."""

from dataclasses import dataclass, field

import numpy as np

from fr_ps.evaluation.numbers.resample import interval


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
    people: dict[str, int] = field(default_factory=dict)

    def add(
        self, name: str, value: float | None, reason: str = "", replicates: np.ndarray | None = None, people: int = 0
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
            if people:
                self.people[name] = people
            if (found := interval(value, replicates, people)) is not None:
                self.intervals[name] = found

    def defined(self) -> dict[str, float]:
        """Those with a value."""
        return {name: value for name, value in self.values.items() if value is not None}

    def under(self, prefix: str) -> "Metrics":
        """The same with `prefix/` before every name."""
        return Metrics(*({f"{prefix}/{name}": value for name, value in its.items()} for its in self._parts()))

    def joined(self, other: "Metrics") -> "Metrics":
        """These and those of `other`, which win where a name is in both."""
        kept = [{name: value for name, value in its.items() if name not in other.values} for its in self._parts()]
        return Metrics(*(mine | its for mine, its in zip(kept, other._parts())))

    def only(self, names: set[str]) -> "Metrics":
        """Those of these names."""
        return Metrics(*({name: value for name, value in its.items() if name in names} for its in self._parts()))

    def as_json(self) -> dict[str, dict]:
        """The content of metrics.json."""
        return {
            "metrics": self.values,
            "reasons": self.reasons,
            "intervals": {name: list(found) for name, found in self.intervals.items()},
        }

    def _parts(self) -> tuple[dict, dict, dict, dict, dict]:
        return self.values, self.reasons, self.intervals, self.replicates, self.people
