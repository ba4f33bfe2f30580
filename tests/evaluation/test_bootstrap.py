"""Bootstrap over subjects: weights, intervals, and weighted metrics against scikit-learn."""

import math
import tracemalloc

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, recall_score, roc_auc_score

from fr_ps.evaluation import bootstrap as module
from fr_ps.evaluation.bootstrap import (
    BootstrapWeights,
    auc_and_average_precision,
    balanced_accuracy,
    bootstrap_weights,
    confidence_interval,
    unweighted,
)


@given(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=20), st.integers(0, 99))
def test_every_replicate_has_the_number_of_subjects_and_does_not_depend_on_their_order(names, seed):
    ids = np.array(names)
    draws = bootstrap_weights(ids, replicates=7, seed=seed)
    assert draws.weights.sum(axis=1).tolist() == [len(set(names))] * 7
    assert draws.subjects == len(set(names))
    turned = bootstrap_weights(ids[::-1], replicates=7, seed=seed)
    assert (turned.weights[:, turned.unit] == draws.weights[:, draws.unit][:, ::-1]).all()
    same = ids[:, None] == ids
    assert ((draws.unit[:, None] == draws.unit) == same).all()


def test_subjects_are_resampled_as_a_multinomial():
    draws = bootstrap_weights(np.arange(40), replicates=4000)
    assert draws.weights.mean() == pytest.approx(1)
    assert draws.weights.var(axis=0).mean() == pytest.approx(1 - 1 / 40, abs=0.02)
    assert (draws.weights == 0).mean() == pytest.approx((1 - 1 / 40) ** 40, abs=0.01)


def test_many_subjects_are_resampled_in_groups_of_similar_size(monkeypatch):
    monkeypatch.setattr(module, "MAX_UNITS", 10)
    ids = np.repeat(np.arange(33), 3)
    draws = bootstrap_weights(ids, replicates=5)
    assert draws.weights.shape == (5, 10)
    assert draws.subjects == 33
    groups = {person: set(draws.unit[ids == person].tolist()) for person in range(33)}
    assert all(len(group) == 1 for group in groups.values())
    sizes = np.bincount([next(iter(group)) for group in groups.values()])
    assert sizes.min() >= 3
    assert sizes.max() <= 4


def test_groups_of_subjects_give_the_same_spread(monkeypatch):
    rng = np.random.default_rng(0)
    values = rng.standard_normal(3000)
    spreads = []
    for most in (3000, 300):
        monkeypatch.setattr(module, "MAX_UNITS", most)
        draws = bootstrap_weights(np.arange(3000), replicates=2000)
        spreads.append(float((draws.weighted_sums(values) / draws.weighted_sums(np.ones(3000))).std()))
    assert spreads[1] == pytest.approx(spreads[0], rel=0.12)


def test_weighted_sums_count_sessions_as_often_as_they_were_drawn():
    ids = np.array(list("abcab"))
    draws = bootstrap_weights(ids, replicates=6)
    values = np.arange(10.0).reshape(5, 2)
    expected = draws.weights[:, draws.unit] @ values
    assert draws.weighted_sums(values) == pytest.approx(expected)
    assert draws.weighted_sums(values[:, 0]) == pytest.approx(expected[:, 0])
    rows = np.array([4, 0])
    assert draws.select(rows).weighted_sums(values[rows]) == pytest.approx(draws.weights[:, draws.unit[rows]] @ values[rows])


def test_a_value_without_bounds_has_the_percentile_interval_of_the_defined_replicates():
    replicates = np.concatenate([np.linspace(-1, 3, 1001), [np.nan] * 10])
    assert confidence_interval(0.5, replicates) == pytest.approx((-0.9, 2.9))
    assert confidence_interval(0.5, np.array([np.nan, np.nan, np.nan, 0.5])) is None


@pytest.mark.parametrize("value", [0.03, 0.5, 0.97])
def test_the_interval_of_a_rate_is_symmetric_in_its_logit_and_wider_with_fewer_subjects(value):
    middle = math.log(value / (1 - value))
    draws = 0.2 * np.random.default_rng(0).standard_normal(20000)
    draws += middle - draws.mean()
    replicates = 1 / (1 + np.exp(-draws))
    for people in (5, 50, 5000):
        low, high = confidence_interval(value, replicates, people)
        below, above = middle - math.log(low / (1 - low)), math.log(high / (1 - high)) - middle
        assert below == pytest.approx(above)
        expected = scipy.stats.t.ppf(0.975, people - 1) * 0.2 * math.sqrt(people / (people - 1))
        assert above == pytest.approx(expected, rel=0.02)


def test_the_interval_corrects_the_bias_of_the_replicates():
    draws = 1 + 0.2 * np.random.default_rng(0).standard_normal(20000)
    low, high = confidence_interval(1 / (1 + math.exp(-0.9)), 1 / (1 + np.exp(-draws)), 1000)
    centre = (math.log(low / (1 - low)) + math.log(high / (1 - high))) / 2
    assert centre == pytest.approx(0.8, abs=0.01)


def test_replicates_close_to_the_bound_are_clipped():
    replicates = np.array([1.0] * 50 + [0.9] * 50)
    assert confidence_interval(0.95, replicates, 40) == confidence_interval(0.95, np.where(replicates == 1, 0.995, 0.9), 40)


def test_without_any_spread_a_rate_that_is_not_0_or_1_has_no_interval():
    assert confidence_interval(0.5, np.full(100, 0.5), 2) is None


@pytest.mark.parametrize("people", [1, 10, 60])
def test_without_errors_the_bound_is_that_of_the_rule_of_three(people):
    low, high = confidence_interval(0.0, np.zeros(100), people)
    assert low == 0
    assert (1 - high) ** people == pytest.approx(0.05)  # at this error rate, no subject has an error with probability 5 %
    assert confidence_interval(1.0, np.ones(100), people) == pytest.approx((1 - high, 1))


def test_a_value_that_is_1_but_for_its_last_bit_is_bounded_like_1():
    assert confidence_interval(1 - 1e-16, np.full(100, 1 - 1e-16), 60) == confidence_interval(1.0, np.ones(100), 60)
    assert confidence_interval(0.9999999999999999, np.ones(100), 60) == confidence_interval(1.0, np.ones(100), 60)


def sample(seed: int, count: int, people: int, levels: int, classes: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, codes and subjects; few distinct scores, so that there are ties."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(classes, size=count)
    scores = (rng.integers(levels, size=count) + codes).astype(np.float32) / np.float32(levels + classes)
    return scores, codes, rng.integers(people, size=count).astype(str)


@given(seed=st.integers(0, 10**6), count=st.integers(1, 40), people=st.integers(1, 12), levels=st.sampled_from([1, 2, 5, 1000]))
def test_each_replicate_equals_scikit_learn_with_sample_weights_and_is_nan_without_both_classes(
    seed: int, count: int, people: int, levels: int
) -> None:
    scores, codes, ids = sample(seed, count, people, levels)
    draws = bootstrap_weights(ids, 8, seed)
    areas, precisions = auc_and_average_precision(scores, codes == 1, draws)
    recalls = balanced_accuracy(codes, (scores > 0.5).astype(int), 2, draws)
    assert areas.shape == precisions.shape == recalls.shape == (8,)
    for draw in range(8):
        weights = draws.weights[draw, draws.unit]
        if len(np.unique(codes[weights > 0])) < 2:
            assert np.isnan([areas[draw], precisions[draw], recalls[draw]]).all()
            continue
        assert areas[draw] == pytest.approx(roc_auc_score(codes, scores, sample_weight=weights))
        assert precisions[draw] == pytest.approx(average_precision_score(codes, scores, sample_weight=weights))
        recall = recall_score(codes, scores > 0.5, sample_weight=weights, average="macro", zero_division=0)
        assert recalls[draw] == pytest.approx(recall)


def test_a_replicate_is_the_metric_of_its_sessions_repeated() -> None:
    scores, codes, ids = sample(0, 30, 6, 4)
    draws = bootstrap_weights(ids, 20)
    areas, precisions = auc_and_average_precision(scores, codes == 1, draws)
    for draw in range(20):
        rows = np.repeat(np.arange(30), draws.weights[draw, draws.unit].astype(int))
        wins = [
            (a > b) + (a == b) / 2 for a in scores[rows][codes[rows] == 1] for b in scores[rows][codes[rows] == 0]
        ]  # every pair of a positive and a negative copy
        assert areas[draw] == pytest.approx(np.mean(wins))
        assert precisions[draw] == pytest.approx(
            auc_and_average_precision(scores[rows], codes[rows] == 1, unweighted(len(rows)))[1][0]
        )


def test_three_classes_have_the_mean_of_three_recalls_and_nan_where_one_of_them_is_missing() -> None:
    _, codes, ids = sample(1, 12, 9, 4, classes=3)
    chosen = np.random.default_rng(2).integers(3, size=12)
    draws = bootstrap_weights(ids, 200)
    found = balanced_accuracy(codes, chosen, 3, draws)
    for draw, weights in enumerate(draws.weights[:, draws.unit]):
        recalls = [
            np.average(chosen[codes == c] == c, weights=w) if (w := weights[codes == c]).any() else np.nan for c in range(3)
        ]
        assert found[draw] == pytest.approx(np.mean(recalls), nan_ok=True)
    assert 0 < np.isnan(found).sum() < 200


def test_unweighted_counts_every_session_once() -> None:
    values = np.arange(5.0)
    assert unweighted(5).weighted_sums(values).tolist() == [10.0]
    assert unweighted(5).weighted_sums(np.stack([values, values + 1], axis=1)).tolist() == [[10.0, 15.0]]


def test_a_perfect_inverted_and_constant_score_are_exactly_one_zero_and_one_half_in_every_replicate() -> None:
    codes = np.repeat([0, 1], 15)
    draws = bootstrap_weights(np.arange(30).astype(str), 50)
    positive = codes == 1
    areas, precisions = auc_and_average_precision(codes.astype(float), positive, draws)
    assert (areas == 1).all()
    assert (precisions == 1).all()
    assert (auc_and_average_precision(-codes.astype(float), positive, draws)[0] == 0).all()
    areas, precisions = auc_and_average_precision(np.zeros(30), positive, draws)
    assert areas == pytest.approx(np.full(50, 0.5))
    assert precisions == pytest.approx(draws.weighted_sums(positive.astype(float)) / 30)


def test_blocks_of_replicates_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, codes, ids = sample(3, 50, 20, 10)
    draws = bootstrap_weights(ids, 33)
    whole = auc_and_average_precision(scores, codes == 1, draws)
    monkeypatch.setattr(module, "_MAX_CELLS", 220)  # 4 replicates per block, and 1 in the last
    np.testing.assert_array_equal(auc_and_average_precision(scores, codes == 1, draws), whole)


def test_many_sessions_and_replicates_stay_under_200_mb() -> None:
    scores, codes, ids = sample(4, 20_000, 5000, 10**6)
    full = bootstrap_weights(ids, 1000)
    draws = BootstrapWeights(full.unit, full.weights[:200], full.subjects)  # more blocks need no more memory at a time
    tracemalloc.start()
    auc_and_average_precision(scores, codes == 1, draws)
    balanced_accuracy(codes, codes, 2, full)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6
