"""Whether one model is better than another on the same people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

from fr_ps.data.labels import ATTRIBUTES
from fr_ps.evaluation.bootstrap import CONFIDENCE
from fr_ps.evaluation.metrics import Metrics, lower_is_better
from fr_ps.report.table import Cell, Table

_ZERO = 1e-12


@dataclass(frozen=True)
class Difference:
    """Of a metric of two models, first minus second.

    Attributes:
        name: of the metric.
        first: its value for the first model.
        second: for the second.
        low: of the difference's interval at 95 %; NaN where people were not drawn, or the draws say nothing.
        high: of it.
        p: two-sided; NaN where there is no interval.
    """

    name: str
    first: float
    second: float
    low: float
    high: float
    p: float

    @property
    def value(self) -> float:
        """First minus second."""
        return self.first - self.second

    @property
    def interval_text(self) -> str:
        """Interval and p, for a sentence."""
        if np.isnan(self.p):
            return "without an interval: drawing people says nothing here"
        return f"[{self.low:+.4f}, {self.high:+.4f}], p {self.p:.3f}"

    @property
    def better(self) -> str:
        """Which is better with an interval that excludes no difference: first, second, or neither."""
        if not (self.low > 0 or self.high < 0):
            return "neither"
        return "first" if (self.low > 0) != lower_is_better(self.name) else "second"


def paired_differences(first: Metrics, second: Metrics, names: Sequence[str], subjects: int) -> list[Difference]:
    """Of those of `names` that both have, on the same sessions with the same draws of people.

    Each draw gives a difference, so that what both find hard falls out of it. With their standard deviation s, P people and
    Student's t with P - 1 degrees of freedom, the interval is value +- t s sqrt(P / (P - 1)), and p that of no difference: with a
    handful of people the draws' own percentiles would be sure too easily. There is neither where most draws are undefined, or
    all give the same difference: of two people, each draw that has impostors is these two.

    Args:
        first: of one model.
        second: of the other.
        names: of metrics.
        people: who were drawn; where a metric says that it is of fewer, as those of the rarer class, these count.
    """
    found = []
    for name in names:
        one, other = first.values.get(name), second.values.get(name)
        if one is None or other is None:
            continue
        low = high = p = float("nan")
        if name in first.replicates and name in second.replicates:
            least = min(subjects, *(its.subjects.get(name, subjects) for its in (first, second)))
            low, high, p = _difference_interval(one - other, first.replicates[name] - second.replicates[name], least)
        found.append(Difference(name, one, other, low, high, p))
    return found


def _difference_interval(value: float, replicates: np.ndarray, subjects: int) -> tuple[float, float, float]:
    """Low, high and p of a difference; NaN where drawing says nothing."""
    known = replicates[np.isfinite(replicates)]
    if 2 * len(known) <= len(replicates) or subjects < 2:
        return float("nan"), float("nan"), float("nan")
    error = float(known.std(ddof=1)) * np.sqrt(subjects / (subjects - 1))
    if error <= _ZERO:
        same = abs(value) <= _ZERO
        return (0.0, 0.0, 1.0) if same else (float("nan"), float("nan"), float("nan"))
    wide = t.ppf((1 + CONFIDENCE) / 2, subjects - 1) * error
    return float(value - wide), float(value + wide), float(2 * t.sf(abs(value) / error, subjects - 1))


HEADLINE_METRICS = ("identity/auc", "identity/auc_person_balanced", "identity/eer", "identity/rank1")


def headline_metrics(metrics: Metrics) -> list[str]:
    """What two models are compared by: identity's headlines and supported points, and each attribute's AUC, where defined."""
    points = [
        name
        for name, value in metrics.values.items()
        if name.startswith("identity/tar_at_far_") and value is not None and name not in metrics.reasons
    ]
    attributes = [name for name in metrics.values if name.split("/")[0] in ATTRIBUTES and name.endswith("/auc")]
    return [name for name in (*HEADLINE_METRICS, *points, *attributes) if metrics.values.get(name) is not None]


def difference_table(
    name: str, title: str, names: tuple[str, str], differences_by_label: Mapping[str, Sequence[Difference]], note: str = ""
) -> Table:
    """A row a difference, those of each label together.

    Args:
        name: of the table's file.
        title: of the table.
        names: of the first and the second model; the label's column comes first where there are several.
        found: label to differences; which is better is said only where the interval excludes no difference.
        note: below the table.
    """
    several = [] if len(differences_by_label) == 1 else ["against"]
    header = [*several, "metric", *names, "difference", "low", "high", "p", "better"]
    better = {"first": names[0], "second": names[1], "neither": None}
    rows: list[list[Cell]] = []
    for label, its in differences_by_label.items():
        for one in its:
            numbers = [one.first, one.second, one.value, *(None if np.isnan(x) else x for x in (one.low, one.high, one.p))]
            rows.append([*([label] if several else []), one.name, *numbers, better[one.better]])
    return Table(name, title, header, rows, note)
