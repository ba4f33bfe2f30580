"""By how much the best settings beat those of the base on the test people, and how much of that is noise between seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fr_ps.evaluation.differences import Difference, headline_metrics, paired_differences
from fr_ps.evaluation.evaluate_model import open_model_dataset, split_rows
from fr_ps.evaluation.evaluate_predictions import LabelledPredictions, evaluate_predictions
from fr_ps.evaluation.metrics import Metrics
from fr_ps.models.folder import load_model
from fr_ps.models.inference import predict
from fr_ps.models.thresholds import read_thresholds
from fr_ps.progress import OnProgress
from fr_ps.report.table import Table
from fr_ps.search.final_runs import FinalRuns
from fr_ps.tracking.layout import BEST_CHECKPOINT


@dataclass(frozen=True)
class Improvement:
    """The best settings against those of the base.

    Attributes:
        found: best minus base, of the means over seeds; the interval and p are from drawing people.
        noise: metric to the standard error of that difference that comes from the seeds; NaN where there is one seed.
        seeds: of each.
        people: that were tested.
    """

    differences: list[Difference]
    seed_error: dict[str, float]
    seeds: int
    subjects: int

    def table(self) -> Table:
        """A row a metric."""
        rows = [
            [
                one.name,
                one.first,
                one.second,
                one.value,
                *(_finite_or_none(x) for x in (one.low, one.high, self.seed_error[one.name])),
            ]
            for one in self.differences
        ]
        header = ["metric", "best", "base", "difference", "low", "high", "error of seeds"]
        note = (
            f"Means over {self.seeds} seeds each, on {self.subjects} test people. Low and high: 95 %, from the same draws of "
            "people for both; error of seeds: standard error of the difference between seeds."
        )
        return Table("gain", "Best settings against the base, on test people", header, rows, note)

    def summary(self) -> str:
        """Whether the first metric is better by more than people and seeds explain, in a sentence."""
        if not self.differences:
            return "how much better than the base the best is cannot be told: nothing is defined on the test people"
        one = self.differences[0]
        noise = self.seed_error[one.name]
        seeds = f"{noise:.4f} is the standard error between seeds" if np.isfinite(noise) else "one seed tells no noise"
        numbers = f"{one.name} {one.first:.4f} against {one.second:.4f}, {one.value:+.4f} {one.interval_text}; {seeds}"
        beyond_seeds = np.isfinite(noise) and abs(one.value) > 2 * noise
        better = {"first": "is better than", "second": "is WORSE than", "neither": "is not measurably better than"}[one.better]
        if one.better != "neither" and not beyond_seeds:
            better = "may be no more than noise between seeds away from"
        return f"the best {better} the base: {numbers}"


def measure_improvement(
    final_runs: FinalRuns, objective: str, data: Path, device: torch.device, batch: int, advance: OnProgress
) -> Improvement:
    """Score all of them on the same test people.

    Args:
        finals: trainings with the same split.
        objective: metric under val/ whose counterpart on test is told first; empty: none.
        data: the prepared data set.
        device: to compute on.
        batch: sessions a batch.
        advance: called with each model that is scored.

    Raises:
        InputError: a model or the data cannot be read.
    """
    arms = []
    for folders in (final_runs.best, final_runs.base):
        arm = []
        for folder in folders:
            arm.append(_test_metrics(folder / BEST_CHECKPOINT, data, device, batch))
            advance(1)
        arms.append(arm)
    people = arms[0][0][1]
    return compare_seeds([metrics for metrics, _ in arms[0]], [metrics for metrics, _ in arms[1]], objective, people)


def compare_seeds(best: Sequence[Metrics], base: Sequence[Metrics], objective: str, subjects: int) -> Improvement:
    """Means over seeds, their differences with intervals from people, and the noise between seeds.

    Args:
        best: of each seed, with draws of the same people in the same places.
        base: the same.
        objective: metric under val/ that is told first.
        people: that were tested.
    """
    names = [name for name in headline_metrics(best[0]) if all(one.values.get(name) is not None for one in (*best, *base))]
    first = objective.removeprefix("val/")
    if first in best[0].values and first not in names:
        names.append(first)
    names.sort(key=lambda name: name != first)
    found = paired_differences(_seed_mean(best, names), _seed_mean(base, names), names, subjects)
    return Improvement(found, {one.name: _seed_error(best, base, one.name) for one in found}, len(best), subjects)


def _seed_mean(arm: Sequence[Metrics], names: Sequence[str]) -> Metrics:
    """Of each metric, the mean of the seeds, in each draw of people too."""
    mean = Metrics(subjects=dict(arm[0].subjects))
    for name in names:
        values = [one.values.get(name) for one in arm]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            continue
        mean.values[name] = float(np.mean(known))
        if all(name in one.replicates for one in arm):
            mean.replicates[name] = np.mean([one.replicates[name] for one in arm], axis=0)
    return mean


def _seed_error(best: Sequence[Metrics], base: Sequence[Metrics], name: str) -> float:
    """Standard error of the difference of the two means over seeds: sqrt(s1^2 / n1 + s2^2 / n2)."""
    if min(len(best), len(base)) < 2:
        return float("nan")
    arms = [[one.values[name] for one in arm] for arm in (best, base)]
    return float(np.sqrt(sum(np.var(np.array(arm, dtype=float), ddof=1) / len(arm) for arm in arms)))


def _test_metrics(model: Path, data: Path, device: torch.device, batch: int) -> tuple[Metrics, int]:
    network, info = load_model(model, device)
    dataset = open_model_dataset(info, data)
    rows = split_rows(dataset, model, "test")
    labels = dataset.labels.subset(rows)
    assessment = evaluate_predictions(
        LabelledPredictions(predict(network, dataset.store, rows, batch), labels), info.trained, read_thresholds(model)
    )
    return assessment.metrics, assessment.bootstrap.subjects


def _finite_or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
