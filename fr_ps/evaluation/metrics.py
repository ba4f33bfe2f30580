"""Named numbers, where what is undefined is None with a reason and never a made-up value."""

from dataclasses import dataclass, field


@dataclass
class Metrics:
    """Metric names to values.

    Attributes:
        values: None where the metric is undefined on these data.
        reasons: why a value is None, or what to know about one that is not.
    """

    values: dict[str, float | None] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, value: float | None, reason: str = "") -> None:
        """Record one metric; an undefined one needs a reason."""
        assert value is not None or reason, name
        self.values[name] = value
        if reason:
            self.reasons[name] = reason

    def defined(self) -> dict[str, float]:
        """Those with a value."""
        return {name: value for name, value in self.values.items() if value is not None}

    def under(self, prefix: str) -> "Metrics":
        """The same with `prefix/` before every name."""
        return Metrics(
            {f"{prefix}/{name}": value for name, value in self.values.items()},
            {f"{prefix}/{name}": reason for name, reason in self.reasons.items()},
        )

    def joined(self, other: "Metrics") -> "Metrics":
        """These and those of `other`, which win where a name is in both."""
        return Metrics(self.values | other.values, self.reasons | other.reasons)

    def as_json(self) -> dict[str, dict]:
        """The content of metrics.json. Intervals come with resampling of people, and there are none yet."""
        return {"metrics": self.values, "reasons": self.reasons, "intervals": {}}
