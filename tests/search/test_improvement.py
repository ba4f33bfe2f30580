"""The improvement over the base, against numpy: means over seeds, bootstrap intervals over subjects, noise between seeds."""

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats

from fr_ps.evaluation.differences import paired_differences
from fr_ps.evaluation.metrics import Metrics
from fr_ps.search.improvement import Improvement, compare_seeds

SUBJECTS, REPLICATES = 40, 200
AUC, EER, OBJECTIVE = "identity/auc", "identity/eer", "gender/balanced_accuracy"


def seed_metrics(values: dict[str, float | None], spread: float, rng: np.random.Generator, subject_noise: np.ndarray) -> Metrics:
    """Metrics of one seed. Their replicates have the noise of the subjects, and a noise of their own."""
    metrics = Metrics()
    for name, value in values.items():
        replicates = None if value is None else value + subject_noise + spread * rng.normal(size=REPLICATES)
        metrics.add(name, value, "" if value is not None else "undefined", replicates)
    return metrics


def best_and_base(
    best: list[float], base: list[float], spread: float = 0.001, name: str = AUC, seed: int = 0
) -> tuple[list[Metrics], list[Metrics]]:
    """Seeds of the best settings and of the base with these values of one metric."""
    rng = np.random.default_rng(seed)
    subject_noise = 0.02 * rng.normal(size=REPLICATES)
    return tuple([seed_metrics({name: value}, spread, rng, subject_noise) for value in values] for values in (best, base))  # type: ignore[return-value]


def improvement_of(best: list[float], base: list[float], spread: float = 0.001, name: str = AUC) -> Improvement:
    return compare_seeds(*best_and_base(best, base, spread, name), f"val/{name}", SUBJECTS)


def test_the_improvement_is_the_difference_of_the_means_with_a_paired_interval() -> None:
    best, base = best_and_base([0.91, 0.93, 0.95], [0.90, 0.89, 0.94])
    improvement = compare_seeds(best, base, f"val/{AUC}", SUBJECTS)
    (one,) = improvement.differences
    assert (one.name, improvement.seeds, improvement.subjects) == (AUC, 3, SUBJECTS)
    assert (one.first, one.second) == (pytest.approx(0.93), pytest.approx(0.91))
    assert one.value == pytest.approx(0.02)
    replicates = [np.stack([metrics.replicates[AUC] for metrics in seeds]).mean(axis=0) for seeds in (best, base)]
    error = np.std(replicates[0] - replicates[1], ddof=1) * math.sqrt(SUBJECTS / (SUBJECTS - 1))
    half_width = scipy.stats.t.ppf(0.975, SUBJECTS - 1) * error
    assert (one.low, one.high) == (pytest.approx(0.02 - half_width), pytest.approx(0.02 + half_width))
    means = [Metrics({AUC: value}, {}, {}, {AUC: each}) for value, each in zip((one.first, one.second), replicates)]
    (expected,) = paired_differences(*means, [AUC], SUBJECTS)
    assert (one.low, one.high, one.p) == (pytest.approx(expected.low), pytest.approx(expected.high), pytest.approx(expected.p))


def test_the_common_variance_of_subjects_cancels_in_the_interval() -> None:
    """Otherwise it would be as wide as the spread over subjects, 0.02."""
    (one,) = improvement_of([0.91, 0.93], [0.90, 0.89], spread=0.0005).differences
    assert one.high - one.low < 0.005


@pytest.mark.parametrize("name", [AUC, OBJECTIVE])
@pytest.mark.parametrize(
    ("best", "base"),
    [([0.9, 0.8], [0.7, 0.75]), ([0.9, 0.8, 0.95], [0.7, 0.75, 0.6]), ([0.5, 0.5, 0.5, 0.5], [0.1, 0.2, 0.3, 0.4])],
    ids=len,
)
def test_the_seed_error_is_the_standard_error_of_the_difference(name: str, best: list[float], base: list[float]) -> None:
    variances = [sum((value - sum(seeds) / len(seeds)) ** 2 for value in seeds) / (len(seeds) - 1) for seeds in (best, base)]
    assert improvement_of(best, base, name=name).seed_error[name] == pytest.approx(math.sqrt(sum(variances) / len(best)))


def test_the_seed_error_of_arms_with_different_numbers_of_seeds() -> None:
    best, base = [0.9, 0.8, 0.95], [0.7, 0.75]
    expected = math.sqrt(np.var(best, ddof=1) / 3 + np.var(base, ddof=1) / 2)
    assert improvement_of(best, base).seed_error[AUC] == pytest.approx(expected)


BETTER, WORSE, SAME, MAYBE = (
    "are better than the base",
    "are worse than the base",
    "are not measurably better than the base",
    "perhaps only by the random seed",
)


@pytest.mark.parametrize(
    ("best", "base", "spread", "name", "verdict"),
    [
        ([0.95, 0.951, 0.949], [0.90, 0.901, 0.899], 0.001, AUC, BETTER),
        ([0.90, 0.901, 0.899], [0.95, 0.951, 0.949], 0.001, AUC, WORSE),
        ([0.05, 0.051, 0.049], [0.10, 0.101, 0.099], 0.001, EER, BETTER),
        ([0.10, 0.101, 0.099], [0.05, 0.051, 0.049], 0.001, EER, WORSE),
        ([0.95, 0.951, 0.949], [0.90, 0.901, 0.899], 0.2, AUC, SAME),
        ([0.98, 0.90, 0.92], [0.87, 0.94, 0.92], 0.001, AUC, MAYBE),
        ([0.87, 0.94, 0.92], [0.98, 0.90, 0.92], 0.001, AUC, MAYBE),
        ([0.95], [0.90], 0.001, AUC, MAYBE),
        ([0.95], [0.90], 0.2, AUC, SAME),
    ],
    ids=[
        "better",
        "worse",
        "a lower rate",
        "a higher rate",
        "subjects",
        "seeds",
        "seeds the other way",
        "one seed",
        "one seed, subjects",
    ],
)
def test_the_verdict_is_better_or_worse_only_beyond_interval_and_seed_noise(
    best: list[float], base: list[float], spread: float, name: str, verdict: str
) -> None:
    summary = improvement_of(best, base, spread, name).summary()
    assert [one for one in (BETTER, WORSE, SAME, MAYBE) if one in summary] == [verdict]
    expected = f"{name} {np.mean(best):.4f} and {np.mean(base):.4f}, difference {np.mean(best) - np.mean(base):+.4f}"
    assert expected in summary
    assert ("seed noise unknown with one seed" in summary) == (len(best) == 1)
    assert "\n" not in summary


def test_two_standard_errors_between_seeds_are_the_limit() -> None:
    """For two seeds at distance d in each arm the error is d / sqrt(2)."""
    gap = 0.02 / math.sqrt(2)
    base = [0.90, 0.92]
    assert MAYBE in improvement_of([value + 1.95 * gap for value in base], base).summary()
    assert BETTER in improvement_of([value + 2.05 * gap for value in base], base).summary()


def seeds_of(*values_of_seeds: dict[str, float | None], spread: float = 0.001) -> list[Metrics]:
    rng = np.random.default_rng(1)
    subject_noise = 0.01 * np.random.default_rng(2).normal(size=REPLICATES)
    return [seed_metrics(values, spread, rng, subject_noise) for values in values_of_seeds]


def test_the_objective_comes_first_then_the_headline_metrics() -> None:
    values: dict[str, float | None] = {AUC: 0.9, EER: 0.1, "gender/auc": 0.8, OBJECTIVE: 0.7, "pose/accuracy": 0.6}
    one, other = seeds_of(values, values), seeds_of(values, values)
    assert [each.name for each in compare_seeds(one, other, f"val/{OBJECTIVE}", SUBJECTS).differences] == [
        OBJECTIVE,
        AUC,
        EER,
        "gender/auc",
    ]
    assert [each.name for each in compare_seeds(one, other, f"val/{EER}", SUBJECTS).differences] == [EER, AUC, "gender/auc"]
    assert [each.name for each in compare_seeds(one, other, "", SUBJECTS).differences] == [AUC, EER, "gender/auc"]
    assert [each.name for each in compare_seeds(one, other, "cost/latency", SUBJECTS).differences] == [AUC, EER, "gender/auc"]


@pytest.mark.parametrize("where", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_metric_that_is_undefined_for_one_seed_is_left_out(where: tuple[int, int]) -> None:
    whole: dict[str, float | None] = {AUC: 0.9, EER: 0.1, OBJECTIVE: 0.7}
    values = [[dict(whole), dict(whole)], [dict(whole), dict(whole)]]
    values[where[0]][where[1]] |= {EER: None, OBJECTIVE: None}
    improvement = compare_seeds(seeds_of(*values[0]), seeds_of(*values[1]), f"val/{OBJECTIVE}", SUBJECTS)
    assert [one.name for one in improvement.differences] == [AUC]
    assert set(improvement.seed_error) == {AUC}
    assert AUC in improvement.summary()


def test_without_a_defined_metric_the_summary_says_so() -> None:
    nothing: dict[str, float | None] = {AUC: None, EER: None}
    improvement = compare_seeds(seeds_of(nothing, nothing), seeds_of(nothing, nothing), f"val/{AUC}", SUBJECTS)
    assert improvement.differences == []
    assert "no metric is defined" in improvement.summary()


def test_a_metric_without_replicates_has_no_interval_and_no_verdict() -> None:
    best, base = ([Metrics({AUC: value}) for value in values] for values in ([0.95, 0.96], [0.5, 0.51]))
    improvement = compare_seeds(best, base, f"val/{AUC}", SUBJECTS)
    assert all(
        math.isnan(number)
        for number in (improvement.differences[0].low, improvement.differences[0].high, improvement.differences[0].p)
    )
    assert improvement.outcome == "unknown"
    assert "is unknown, as there is no interval" in improvement.summary()
    assert improvement.table().rows[0][4:6] == [None, None]


def test_a_replicate_that_is_undefined_for_one_seed_is_left_out() -> None:
    best, base = best_and_base([0.91, 0.93], [0.90, 0.89])
    best[1].replicates[AUC][:30] = np.nan
    (one,) = compare_seeds(best, base, "", SUBJECTS).differences
    replicates = [np.mean([metrics.replicates[AUC] for metrics in seeds], axis=0)[30:] for seeds in (best, base)]
    half_width = (
        scipy.stats.t.ppf(0.975, SUBJECTS - 1)
        * np.std(replicates[0] - replicates[1], ddof=1)
        * math.sqrt(SUBJECTS / (SUBJECTS - 1))
    )
    assert one.high - one.value == pytest.approx(half_width)


def test_a_metric_of_fewer_subjects_has_a_wider_interval() -> None:
    best, base = best_and_base([0.91, 0.93], [0.90, 0.89])
    half_width: list[Any] = []
    for subjects in (SUBJECTS, 5):
        for metrics in (*best, *base):
            metrics.subjects[AUC] = subjects
        (one,) = compare_seeds(best, base, "", SUBJECTS).differences
        half_width.append(one.high - one.value)
    ratio = scipy.stats.t.ppf(0.975, 4) / scipy.stats.t.ppf(0.975, 39) * math.sqrt(5 / 4) / math.sqrt(40 / 39)
    assert half_width[1] / half_width[0] == pytest.approx(ratio)


def test_the_table_has_a_row_for_each_metric_and_empty_cells_for_unknown_errors() -> None:
    improvement = improvement_of([0.95], [0.90])
    table = improvement.table()
    assert list(table.header) == ["metric", "best", "base", "difference", "low", "high", "seed error"]
    (row,) = table.rows
    one = improvement.differences[0]
    assert row == [AUC, one.first, one.second, one.value, one.low, one.high, None]
    assert "1 seeds each" in table.note
    assert f"{SUBJECTS} test subjects" in table.note
    assert improvement_of([0.95, 0.96], [0.9, 0.9]).table().rows[0][6] == pytest.approx(0.005)


def test_the_metrics_of_the_run_start_with_the_first_gain_and_its_interval() -> None:
    values: dict[str, float | None] = {AUC: 0.9, EER: 0.1}
    improvement = compare_seeds(seeds_of(values, values), seeds_of(values, values), "", SUBJECTS)
    names = [f"test/{AUC}", f"gain/{AUC}", f"gain_low/{AUC}", f"gain_high/{AUC}", f"gain/{EER}"]
    assert list(improvement.tracked_metrics()) == names
    one = improvement.differences[0]
    assert list(improvement.tracked_metrics().values())[:4] == [one.first, one.value, one.low, one.high]
    without = compare_seeds([Metrics({AUC: 0.9})], [Metrics({AUC: 0.8})], "", SUBJECTS).tracked_metrics()
    assert list(without) == [f"test/{AUC}", f"gain/{AUC}"]
