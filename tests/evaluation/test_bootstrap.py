"""Draws of people, and the intervals from them."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from fr_ps.evaluation import bootstrap as module
from fr_ps.evaluation.bootstrap import bootstrap_weights, confidence_interval


@given(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=20), st.integers(0, 99))
def test_every_draw_is_as_many_people_as_there_are_and_their_order_has_no_influence(names, seed):
    ids = np.array(names)
    draws = bootstrap_weights(ids, replicates=7, seed=seed)
    assert draws.weights.sum(axis=1).tolist() == [len(set(names))] * 7
    assert draws.subjects == len(set(names))
    turned = bootstrap_weights(ids[::-1], replicates=7, seed=seed)
    assert (turned.weights[:, turned.unit] == draws.weights[:, draws.unit][:, ::-1]).all()
    same = ids[:, None] == ids
    assert ((draws.unit[:, None] == draws.unit) == same).all()


def test_people_are_drawn_as_a_multinomial_says():
    draws = bootstrap_weights(np.arange(40), replicates=4000)
    assert draws.weights.mean() == pytest.approx(1)
    assert draws.weights.var(axis=0).mean() == pytest.approx(1 - 1 / 40, abs=0.02)
    assert (draws.weights == 0).mean() == pytest.approx((1 - 1 / 40) ** 40, abs=0.01)


def test_many_people_are_drawn_in_groups_of_about_one_size(monkeypatch):
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


def test_groups_tell_the_same_spread_as_people(monkeypatch):
    rng = np.random.default_rng(0)
    values = rng.standard_normal(3000)
    spreads = []
    for most in (3000, 300):
        monkeypatch.setattr(module, "MAX_UNITS", most)
        draws = bootstrap_weights(np.arange(3000), replicates=2000)
        spreads.append(float((draws.weighted_sums(values) / draws.weighted_sums(np.ones(3000))).std()))
    assert spreads[1] == pytest.approx(spreads[0], rel=0.12)


def test_totals_are_sums_of_the_sessions_as_they_were_drawn():
    ids = np.array(list("abcab"))
    draws = bootstrap_weights(ids, replicates=6)
    values = np.arange(10.0).reshape(5, 2)
    expected = draws.weights[:, draws.unit] @ values
    assert draws.weighted_sums(values) == pytest.approx(expected)
    assert draws.weighted_sums(values[:, 0]) == pytest.approx(expected[:, 0])
    some = np.array([4, 0])
    assert draws.select(some).weighted_sums(values[some]) == pytest.approx(draws.weights[:, draws.unit[some]] @ values[some])


def test_of_what_is_no_rate_the_interval_is_that_of_the_percentiles_of_what_is_defined():
    replicates = np.concatenate([np.linspace(-1, 3, 1001), [np.nan] * 10])
    assert confidence_interval(0.5, replicates) == pytest.approx((-0.9, 2.9))
    assert confidence_interval(0.5, np.array([np.nan, np.nan, np.nan, 0.5])) is None


@pytest.mark.parametrize("value", [0.03, 0.5, 0.97])
def test_the_interval_of_a_rate_is_symmetric_in_its_logit_and_wider_the_fewer_the_people(value):
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


def test_where_the_draws_lie_above_the_value_the_truth_is_looked_for_below_it():
    draws = 1 + 0.2 * np.random.default_rng(0).standard_normal(20000)
    low, high = confidence_interval(1 / (1 + math.exp(-0.9)), 1 / (1 + np.exp(-draws)), 1000)
    centre = (math.log(low / (1 - low)) + math.log(high / (1 - high))) / 2
    assert centre == pytest.approx(0.8, abs=0.01)


def test_draws_at_the_end_count_as_a_tenth_of_the_way_to_it():
    replicates = np.array([1.0] * 50 + [0.9] * 50)
    assert confidence_interval(0.95, replicates, 40) == confidence_interval(0.95, np.where(replicates == 1, 0.995, 0.9), 40)


def test_without_any_spread_a_rate_that_is_not_0_or_1_has_no_interval():
    assert confidence_interval(0.5, np.full(100, 0.5), 2) is None


@pytest.mark.parametrize("people", [1, 10, 60])
def test_where_no_error_was_seen_the_bound_is_that_of_the_rule_of_three(people):
    low, high = confidence_interval(0.0, np.zeros(100), people)
    assert low == 0
    assert (1 - high) ** people == pytest.approx(0.05)  # who errs so often shows no error among them in 5 % of the cases
    assert confidence_interval(1.0, np.ones(100), people) == pytest.approx((1 - high, 1))


def test_a_value_that_is_1_but_for_its_last_bit_is_bounded_like_1():
    assert confidence_interval(1 - 1e-16, np.full(100, 1 - 1e-16), 60) == confidence_interval(1.0, np.ones(100), 60)
    assert confidence_interval(0.9999999999999999, np.ones(100), 60) == confidence_interval(1.0, np.ones(100), 60)
