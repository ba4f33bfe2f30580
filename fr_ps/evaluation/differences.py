"""Paired differences of the metrics of two models on the same subjects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

from fr_ps.data.labels import ATTRIBUTES
from fr_ps.evaluation.bootstrap import CONFIDENCE
from fr_ps.evaluation.metrics import Metrics, lower_is_better
from fr_ps.report.table import Cell, Table

ROUNDING_ERROR = 1e-12


@dataclass(frozen=True)
class Difference:
    """Difference of a metric between two models, first minus second.

    Attributes:
        name: metric name.
        first: value of the first model.
        second: value of the second model.
        low: lower bound of the 95 % confidence interval of the difference; NaN without an interval.
        high: upper bound.
        p: two-sided p-value; NaN without an interval.
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
    def has_interval(self) -> bool:
        """Whether the interval is defined."""
        return not np.isnan(self.low)

    @property
    def interval_text(self) -> str:
        """Interval and p-value as text."""
        if np.isnan(self.p):
            return "(no interval: too few subjects, or bootstrap replicates that are undefined or all equal)"
        return f"[{self.low:+.4f}, {self.high:+.4f}], p {self.p:.3f}"

    @property
    def better(self) -> str:
        """The better model, `first` or `second`, if the interval excludes 0; else `neither`."""
        if not (self.low > 0 or self.high < 0):
            return "neither"
        return "first" if (self.low > 0) != lower_is_better(self.name) else "second"


def paired_differences(first: Metrics, second: Metrics, names: Sequence[str], subjects: int) -> list[Difference]:
    """Differences of the metrics `names` that both models have, on the same sessions and bootstrap replicates.

    Each replicate gives a difference, in which the difficulty of its subjects cancels. s is the standard deviation of these
    differences, P the number of subjects, and t Student's quantile with P - 1 degrees of freedom. The interval is
    value +- t s sqrt(P / (P - 1)), and p tests for no difference. The percentiles of the replicates would be too narrow for few
    subjects. An interval is cut at -1 and 1: the metrics are rates. There is no interval if most replicates are undefined, or if
    all give the same difference (with two subjects, a replicate has impostor pairs only if it has both).

    Args:
        first: metrics of the first model.
        second: metrics of the second model.
        names: metrics to compare.
        subjects: number of resampled subjects; a metric of fewer subjects, such as that of a rare class, uses its own number.
    """
    differences = []
    for name in names:
        value_a, value_b = first.values.get(name), second.values.get(name)
        if value_a is None or value_b is None:
            continue
        low = high = p = float("nan")
        if name in first.replicates and name in second.replicates:
            fewest = min(subjects, *(metrics.subjects.get(name, subjects) for metrics in (first, second)))
            low, high, p = _difference_interval(value_a - value_b, first.replicates[name] - second.replicates[name], fewest)
            low, high = max(low, -1.0), min(high, 1.0)  # NaN stays
        differences.append(Difference(name, value_a, value_b, low, high, p))
    return differences


def _difference_interval(value: float, replicates: np.ndarray, subjects: int) -> tuple[float, float, float]:
    """Low, high and p of a difference; NaN without an interval."""
    known = replicates[np.isfinite(replicates)]
    if 2 * len(known) <= len(replicates) or subjects < 2:
        return float("nan"), float("nan"), float("nan")
    error = float(known.std(ddof=1)) * np.sqrt(subjects / (subjects - 1))
    if error <= ROUNDING_ERROR:
        same = abs(value) <= ROUNDING_ERROR
        return (0.0, 0.0, 1.0) if same else (float("nan"), float("nan"), float("nan"))
    margin = t.ppf((1 + CONFIDENCE) / 2, subjects - 1) * error
    return float(value - margin), float(value + margin), float(2 * t.sf(abs(value) / error, subjects - 1))


HEADLINE_METRICS = ("identity/auc", "identity/auc_person_balanced", "identity/eer", "identity/rank1")


def headline_metrics(metrics: Metrics) -> list[str]:
    """The defined metrics for a comparison: identity headlines, supported operating points, AUC of each attribute."""
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
    """A table with a row per difference, grouped by label.

    Args:
        name: CSV file name without its suffix.
        title: table title.
        names: names of the first and the second model.
        differences_by_label: label to differences; several labels get a column of their own.
        note: explanation below the table.
    """
    label_column = [] if len(differences_by_label) == 1 else ["against"]
    header = [*label_column, "metric", *names, "difference", "low", "high", "p", "better"]
    better = {"first": names[0], "second": names[1], "neither": None}
    rows: list[list[Cell]] = []
    for label, differences in differences_by_label.items():
        for row in differences:
            numbers = [row.first, row.second, row.value, *(None if np.isnan(x) else x for x in (row.low, row.high, row.p))]
            rows.append([*([label] if label_column else []), row.name, *numbers, better[row.better]])
    return Table(name, title, header, rows, note)
