"""The short form of benchmarks/interval_coverage.py: coverage of the 95 % intervals on simulated subjects."""

import pytest
from interval_coverage import RESAMPLED, SCATTER, Intervals, coverage, intervals, simulate, true_values, width

SETTING = SCATTER["AUC 0.95"]
TRUE = {"auc": 0.9473, "eer": 0.1253}
"""Measured by the benchmark on 18,000 simulated subjects."""
POPULATIONS = 120


@pytest.fixture(scope="module")
def found() -> list[dict[str, Intervals]]:
    """Intervals of `POPULATIONS` populations of 50 subjects."""
    return [intervals(SETTING, people=50, draws=200, seed=seed, sessions=(3, 6)) for seed in range(1000, 1000 + POPULATIONS)]


def test_the_true_value_is_that_of_many_simulated_subjects():
    values = true_values(SETTING, seed=1, people=300)
    assert values["auc"] == pytest.approx(TRUE["auc"], abs=0.015)
    assert values["eer"] == pytest.approx(TRUE["eer"], abs=0.02)


def test_the_same_seed_gives_the_same_subjects():
    embeddings, ids = simulate(0, 20, SETTING)
    again, same = simulate(0, 20, SETTING)
    assert (embeddings == again).all()
    assert (ids == same).all()
    assert len(set(ids)) == 20


@pytest.mark.slow
@pytest.mark.parametrize("metric", TRUE)
def test_intervals_over_subjects_cover_the_true_value(metric, found):
    assert coverage([one["subjects"][metric] for one in found], TRUE[metric]) >= 0.86


@pytest.mark.slow
@pytest.mark.parametrize("metric", TRUE)
def test_intervals_over_pairs_are_much_narrower_and_miss_it(metric, found):
    by_unit = {unit: [one[unit][metric] for one in found] for unit in RESAMPLED}
    assert width(by_unit["pairs"]) < 0.7 * width(by_unit["subjects"])
    assert coverage(by_unit["pairs"], TRUE[metric]) < 0.8
