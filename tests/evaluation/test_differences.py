"""Paired differences of two models on the same replicates, against scikit-learn and by simulation."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest
from sklearn.metrics import roc_auc_score

from fr_ps.evaluation.bootstrap import bootstrap_weights
from fr_ps.evaluation.differences import Difference, difference_table, headline_metrics, paired_differences
from fr_ps.evaluation.metrics import Metrics, lower_is_better
from fr_ps.evaluation.pairwise.pairs import AllPairs
from fr_ps.evaluation.pairwise.verification import verification_with_intervals

NAN = float("nan")


def metrics_of(values: np.ndarray, value: float = 0.5, name: str = "auc") -> Metrics:
    return Metrics({name: value}, {}, {}, {name: np.asarray(values, dtype=float)})


def difference_of(first: np.ndarray, second: np.ndarray, people: int = 60) -> Difference:
    """The difference of two metrics with these replicates."""
    value = (
        float(np.nanmean(np.where(np.isfinite(first - second), first - second, NAN)))
        if np.isfinite(first - second).any()
        else 0.1
    )
    (found,) = paired_differences(metrics_of(first, 0.5 + value), metrics_of(second), ["auc"], people)
    return found


def by_t(value: float, drawn: np.ndarray, people: int) -> tuple[float, float, float]:
    error = np.std(drawn, ddof=1) * math.sqrt(people / (people - 1))
    wide = scipy.stats.t.ppf(0.975, people - 1) * error
    return value - wide, value + wide, 2 * scipy.stats.t.cdf(-abs(value) / error, people - 1)


def test_the_difference_of_two_models_is_that_of_scikit_learn_in_every_replicate() -> None:
    rng = np.random.default_rng(0)
    ids = np.repeat([f"p{i}" for i in range(15)], 2)
    centres = np.repeat(rng.normal(size=(15, 16)), 2, axis=0)
    models = [(centres + noise * rng.normal(size=centres.shape)).astype(np.float32) for noise in (1.0, 1.4)]
    draws = bootstrap_weights(ids, replicates=40)
    first, second = np.triu_indices(30, k=1)
    genuine, weight = ids[first] == ids[second], draws.weights[:, draws.unit]
    metrics, truth = [], []
    for embeddings in models:
        metrics.append(verification_with_intervals(AllPairs(embeddings, ids, bootstrap=draws), None)[1])
        unit = embeddings.astype(float) / np.linalg.norm(embeddings.astype(float), axis=1, keepdims=True)
        score = (unit @ unit.T)[first, second]
        of_pairs = [np.where(genuine, w[first], w[first] * w[second]) for w in weight]
        truth.append([roc_auc_score(genuine, score, sample_weight=w) for w in [np.ones(len(score)), *of_pairs]])
    (found,) = paired_differences(metrics[0], metrics[1], ["auc"], 15)
    value, *drawn = np.subtract(*truth)
    assert found.value == pytest.approx(value, abs=1e-5)
    assert (found.low, found.high, found.p) == pytest.approx(by_t(value, np.array(drawn), 15), abs=1e-3)


def test_a_difference_uses_the_same_replicates() -> None:
    rng = np.random.default_rng(1)
    second = rng.normal(size=200)
    found = difference_of(second + 0.01 + 0.001 * rng.normal(size=200), second)
    assert 0 < found.low < 0.01 < found.high < 0.02
    assert found.p < 1e-6


@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2)), min_size=3, max_size=60))
def test_p_is_a_probability_above_0_and_the_same_whichever_model_is_first(pairs: list[tuple[int, int]]) -> None:
    first, second = (np.array(part) for part in zip(*pairs))
    found, turned = difference_of(first, second), difference_of(second, first)
    if math.isnan(found.p):
        assert len(set(first - second)) == 1
        assert first[0] != second[0]
        assert math.isnan(turned.p)
        return
    assert 0 < found.p <= 1
    assert turned.p == pytest.approx(found.p)
    assert found.better == ("neither" if found.p >= 0.05 else "first" if found.value > 0 else "second")
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


def test_p_is_uniform_where_there_is_no_difference_and_small_where_there_is_one() -> None:
    """Two models with the same or different mean scores on 60 subjects; the metric is the mean score."""
    rng = np.random.default_rng(2)

    def p(shift: float) -> float:
        draws = bootstrap_weights(np.arange(60), replicates=300, seed=int(rng.integers(2**31)))
        shared = rng.normal(size=60)
        own = shared[:, None] + rng.normal(size=(60, 2)) + [shift, 0]
        drawn = draws.weighted_sums(own) / draws.weighted_sums(np.ones(60))[:, None]
        return difference_of(drawn[:, 0], drawn[:, 1]).p

    null = np.array([p(0) for _ in range(400)])
    assert kstest(null, "uniform").pvalue > 0.01
    assert (null <= 0.05).mean() == pytest.approx(0.05, abs=0.03)
    assert np.median([p(1) for _ in range(20)]) < 0.01


def test_undefined_replicates_are_left_out() -> None:
    first = np.array([NAN, 0.5, 0.7, 0.9, 0.6, 0.8])
    second = np.array([0.1, NAN, 0.6, 0.6, 0.5, 0.9])
    found = difference_of(first, second)
    assert (found.low, found.high, found.p) == pytest.approx(by_t(0.1, np.array([0.1, 0.3, 0.1, -0.1]), 60))


def test_fewer_subjects_give_wider_intervals() -> None:
    drawn = 0.02 + 0.01 * np.random.default_rng(0).standard_normal(4000)
    few, many = difference_of(drawn, np.zeros(4000), 6), difference_of(drawn, np.zeros(4000), 600)
    assert few.better == "neither"
    assert many.better == "first"
    assert few.p > many.p
    assert math.isnan(difference_of(drawn, np.zeros(4000), 1).p)


def test_replicates_without_spread_give_no_interval_and_no_winner() -> None:
    """With two subjects a replicate has impostor pairs only if it has both; in the other cases most replicates are undefined."""
    ids = np.repeat(["a", "b"], 4)
    rng = np.random.default_rng(0)
    draws = bootstrap_weights(ids)
    models = [np.repeat(np.eye(2, 8), 4, axis=0) + noise * rng.normal(size=(8, 8)) for noise in (0.1, 1.0)]
    first, second = (
        verification_with_intervals(AllPairs(embeddings.astype(np.float32), ids, bootstrap=draws), None)[1]
        for embeddings in models
    )
    (found,) = paired_differences(first, second, ["auc"], 2)
    assert found.value > 0.1
    for without_interval in (
        found,
        difference_of(np.array([NAN, NAN, NAN, 0.9, 0.8]), np.full(5, 0.5)),
        difference_of(np.full(4, NAN), np.ones(4)),
    ):
        assert math.isnan(without_interval.low)
        assert math.isnan(without_interval.high)
        assert math.isnan(without_interval.p)
        assert without_interval.better == "neither"


def test_a_model_is_not_better_than_itself() -> None:
    found = difference_of(np.linspace(0.5, 0.9, 50), np.linspace(0.5, 0.9, 50))
    assert (found.value, found.low, found.high, found.p, found.better) == (0, 0, 0, 1, "neither")


def test_only_common_metrics_are_compared_and_without_replicates_there_is_no_interval() -> None:
    first, second = Metrics(), Metrics()
    for metrics, value, spread in ((first, 0.9, 0.02), (second, 0.7, 0.01)):
        metrics.add("drawn", value, replicates=np.linspace(value - spread, value + spread, 9))
        metrics.add("not_drawn", value)
    first.add("undefined_in_one", 0.5)
    second.add("undefined_in_one", None, "why")
    first.add("of_one", 0.5)
    first.add("drawn_for_one", 0.5, replicates=np.linspace(0, 1, 9))
    second.add("drawn_for_one", 0.4)
    found = paired_differences(first, second, ["not_drawn", "undefined_in_one", "of_one", "of_none", "drawn_for_one", "drawn"], 9)
    assert [one.name for one in found] == ["not_drawn", "drawn_for_one", "drawn"]
    assert [math.isnan(one.low) and math.isnan(one.high) and math.isnan(one.p) for one in found] == [True, True, False]
    assert [one.better for one in found] == ["neither", "neither", "first"]
    assert found[0].value == pytest.approx(0.2)


LOWER = ["identity/eer", "eer", "test/gender/ece", "identity/fnir_at_fpir_0.1", "fmr_at_val_far_0.01", "x/fnmr_at_val_far_0.1"]
HIGHER = ["identity/auc", "identity/auc_person_balanced", "identity/tar_at_far_0.01", "identity/rank1", "accuracy_10fold"]


@pytest.mark.parametrize(("name", "lower"), [*((name, True) for name in LOWER), *((name, False) for name in HIGHER)])
def test_the_better_model_has_the_higher_value_or_the_lower_error(name: str, lower: bool) -> None:
    assert lower_is_better(name) is lower
    more, less = ("second", "first") if lower else ("first", "second")
    assert Difference(name, 0.4, 0.3, 0.05, 0.15, 0.01).better == more
    assert Difference(name, 0.3, 0.4, -0.15, -0.05, 0.01).better == less
    for low, high in ((-0.05, 0.15), (0, 0.1), (-0.1, 0), (NAN, NAN)):
        assert Difference(name, 0.35, 0.3, low, high, 0.3).better == "neither"


def test_models_are_compared_by_headlines_supported_points_and_the_aucs_of_attributes() -> None:
    metrics = Metrics()
    metrics.add("gender/auc", 0.8)
    metrics.add("gender/balanced_accuracy", 0.8)
    metrics.add("pose/auc", None, "the only class is frontal")
    metrics.add("identity/tar_at_far_0.1", 0.9)
    metrics.add("identity/tar_at_far_0.01", 0.7, "low support: 3.1 expected")
    metrics.add("identity/fmr_at_val_far_0.1", 0.1)
    metrics.add("identity/rank1", 0.9)
    metrics.add("identity/auc", 0.9)
    metrics.add("identity/eer", None, "why")
    metrics.add("probe/gender/auc", 0.6)
    assert headline_metrics(metrics) == ["identity/auc", "identity/rank1", "identity/tar_at_far_0.1", "gender/auc"]
    assert headline_metrics(Metrics()) == []


def test_the_table_has_a_row_per_difference_and_no_interval_without_replicates() -> None:
    drawn, other = Difference("auc", 0.75, 0.5, 0.125, 0.375, 0.01), Difference("eer", 0.25, 0.5, NAN, NAN, NAN)
    table = difference_table("file", "Title", ("A", "B"), {"": [drawn, other]}, "note")
    assert (table.name, table.title, table.note) == ("file", "Title", "note")
    assert list(table.header) == ["metric", "A", "B", "difference", "low", "high", "p", "better"]
    assert table.rows == [["auc", 0.75, 0.5, 0.25, 0.125, 0.375, 0.01, "A"], ["eer", 0.25, 0.5, -0.25, None, None, None, None]]
    errors = Difference("eer", 0.75, 0.5, 0.125, 0.375, 0.01)
    both = difference_table("file", "Title", ("A", "B"), {"pixels": [drawn], "wccn": [errors, other]})
    assert list(both.header) == ["against", "metric", "A", "B", "difference", "low", "high", "p", "better"]
    assert [[*row[:2], row[-1]] for row in both.rows] == [["pixels", "auc", "A"], ["wccn", "eer", "B"], ["wccn", "eer", None]]
    assert {len(row) for row in both.rows} == {9}


def test_a_metric_of_a_rarer_class_uses_its_number_of_subjects() -> None:
    """One of ten subjects is in the rarer class: there is no interval."""
    drawn = 0.7 + 0.01 * np.random.default_rng(0).standard_normal(500)
    first, second = Metrics(), Metrics()
    first.add("gender/auc", 0.7, replicates=drawn, subjects=1)
    second.add("gender/auc", 0.5, replicates=np.linspace(0.49, 0.51, 500), subjects=1)
    (found,) = paired_differences(first, second, ["gender/auc"], 10)
    assert math.isnan(found.p)
    assert found.better == "neither"
    for metrics in (first, second):
        metrics.subjects["gender/auc"] = 6
    (found,) = paired_differences(first, second, ["gender/auc"], 10)
    assert found.better == "first"


def test_an_interval_is_cut_at_the_possible_range() -> None:
    """Two AUCs differ by 1 at most; few subjects would give a wider interval."""
    drawn = np.random.default_rng(0).uniform(0, 1, 500)
    found = difference_of(drawn, np.random.default_rng(1).uniform(0, 1, 500), people=3)
    assert (found.low, found.high) == (-1, 1)
