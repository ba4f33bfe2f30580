"""Improvement of the best settings over those of the base on the test subjects, with the noise between seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from fr_ps.evaluation.differences import Difference, headline_metrics, paired_differences
from fr_ps.evaluation.evaluate_predictions import LabelledPredictions, evaluate_predictions
from fr_ps.evaluation.inputs import open_model_dataset, split_rows
from fr_ps.evaluation.metrics import Metrics
from fr_ps.models.folder import load_model
from fr_ps.models.inference import predict
from fr_ps.models.thresholds import read_thresholds
from fr_ps.progress import OnProgress
from fr_ps.report.table import Table
from fr_ps.search.final_runs import FinalRuns
from fr_ps.tracking.run_folder import BEST_CHECKPOINT


@dataclass(frozen=True)
class Improvement:
    """The best settings compared with those of the base.

    Attributes:
        differences: best minus base, of the means over seeds; interval and p-value from a bootstrap over subjects.
        seed_error: metric to the standard error of that difference between seeds; NaN with one seed.
        seeds: number of seeds of each.
        subjects: number of test subjects.
    """

    differences: list[Difference]
    seed_error: dict[str, float]
    seeds: int
    subjects: int

    def table(self) -> Table:
        """One row for each metric."""
        rows = [
            [
                difference.name,
                difference.first,
                difference.second,
                difference.value,
                *map(_finite_or_none, (difference.low, difference.high, self.seed_error[difference.name])),
            ]
            for difference in self.differences
        ]
        header = ["metric", "best", "base", "difference", "low", "high", "seed error"]
        note = (
            f"Means over {self.seeds} seeds each, on {self.subjects} test subjects. Low and high: 95 % bootstrap confidence "
            "interval over subjects, paired; seed error: standard error of the difference between seeds."
        )
        return Table("gain", "Best settings and base settings on the test subjects", header, rows, note)

    def tracked_metrics(self) -> dict[str, float]:
        """The metrics of the study's run in the order of its table.

        First the test value of the best settings (mean over seeds), its difference from the base and the interval; then the
        other differences.
        """
        found: dict[str, float] = {}
        for one in self.differences[:1]:
            found = {f"test/{one.name}": one.first, f"gain/{one.name}": one.value}
            found |= {f"gain_low/{one.name}": one.low, f"gain_high/{one.name}": one.high}
        found |= {f"gain/{one.name}": one.value for one in self.differences}
        return {name: value for name, value in found.items() if np.isfinite(value)}

    @property
    def outcome(self) -> Literal["better", "worse", "neither", "seeds", "unknown"]:
        """Whether the best settings improve the first metric beyond bootstrap interval and seed noise.

        neither: the interval includes zero; seeds: it excludes zero, but the difference is at most twice its standard error
        between seeds, or that error is unknown; unknown: there is no interval, or no metric.
        """
        if not self.differences or not np.isfinite(self.differences[0].low):
            return "unknown"
        one = self.differences[0]
        if one.better == "neither":
            return "neither"
        if not abs(one.value) > 2 * self.seed_error[one.name]:  # also where the error is NaN
            return "seeds"
        return "better" if one.better == "first" else "worse"

    def conclusion(self) -> str:
        """The outcome without its numbers."""
        if not self.differences:
            return "the best settings cannot be compared with the base settings: no metric is defined on the test subjects"
        return {
            "better": "the best settings are better than the base settings",
            "worse": "the best settings are worse than the base settings",
            "neither": "the best settings are not measurably better than the base settings",
            "seeds": "the best settings differ from the base settings, perhaps only by the random seed",
            "unknown": "whether the best settings are better than the base settings is unknown, as there is no interval",
        }[self.outcome]

    def summary(self) -> str:
        """The outcome with its numbers in a sentence."""
        if not self.differences:
            return self.conclusion()
        one = self.differences[0]
        error = self.seed_error[one.name]
        noise = f"standard error between seeds {error:.4f}" if np.isfinite(error) else "seed noise unknown with one seed"
        numbers = f"{one.name} {one.first:.4f} and {one.second:.4f}, difference {one.value:+.4f} {one.interval_text}; {noise}"
        return f"{self.conclusion()}: {numbers}"


def measure_improvement(
    final_runs: FinalRuns, objective: str, data: Path, device: torch.device, batch: int, advance: OnProgress
) -> Improvement:
    """Score all final runs on the same test subjects.

    Args:
        final_runs: trainings with the same split.
        objective: metric under val/ whose counterpart on test comes first; empty: none.
        data: the prepared data set.
        device: for the networks.
        batch: sessions in a batch.
        advance: called for each scored model.

    Raises:
        InputError: a model or the data are unreadable.
    """
    scored = []
    for folder in (*final_runs.best, *final_runs.base):
        scored.append(_test_metrics(folder / BEST_CHECKPOINT, data, device, batch))
        advance(1)
    metrics = [metrics for metrics, _ in scored]
    seeds = len(final_runs.best)
    return compare_seeds(metrics[:seeds], metrics[seeds:], objective, scored[0][1])


def compare_seeds(best: Sequence[Metrics], base: Sequence[Metrics], objective: str, subjects: int) -> Improvement:
    """Means over seeds, their differences with bootstrap intervals over subjects, and the noise between seeds.

    Args:
        best: metrics for each seed, with replicates of the same bootstrap.
        base: likewise, for the settings of the base.
        objective: metric under val/ whose counterpart on test comes first; empty: none.
        subjects: number of test subjects.
    """
    first = objective.removeprefix("val/")
    candidates = [first, *(name for name in headline_metrics(best[0]) if name != first)]
    names = [name for name in candidates if all(metrics.values.get(name) is not None for metrics in (*best, *base))]
    differences = paired_differences(_seed_mean(best, names), _seed_mean(base, names), names, subjects)
    return Improvement(differences, {name: _seed_error(best, base, name) for name in names}, len(best), subjects)


def _seed_mean(seeds: Sequence[Metrics], names: Sequence[str]) -> Metrics:
    """The mean over seeds of each metric, and of each of its bootstrap replicates."""
    mean = Metrics(subjects=dict(seeds[0].subjects))
    for name in names:
        mean.values[name] = float(np.mean(_values(seeds, name)))
        if all(name in metrics.replicates for metrics in seeds):
            mean.replicates[name] = np.mean([metrics.replicates[name] for metrics in seeds], axis=0)
    return mean


def _seed_error(best: Sequence[Metrics], base: Sequence[Metrics], name: str) -> float:
    """Standard error of the difference of the two means over seeds: sqrt(s1^2 / n1 + s2^2 / n2)."""
    if min(len(best), len(base)) < 2:
        return float("nan")
    return float(np.sqrt(sum(np.var(_values(seeds, name), ddof=1) / len(seeds) for seeds in (best, base))))


def _values(seeds: Sequence[Metrics], name: str) -> np.ndarray:
    return np.array([metrics.values[name] for metrics in seeds], dtype=float)


def _test_metrics(model: Path, data: Path, device: torch.device, batch: int) -> tuple[Metrics, int]:
    """The metrics of a model on its test subjects, and the number of these subjects."""
    network, info = load_model(model, device)
    dataset = open_model_dataset(info, data)
    rows = split_rows(dataset, model, "test")
    labels = dataset.labels.subset(rows)
    result = evaluate_predictions(
        LabelledPredictions(predict(network, dataset.store, rows, batch), labels), info.trained, read_thresholds(model)
    )
    return result.metrics, result.bootstrap.subjects


def _finite_or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
