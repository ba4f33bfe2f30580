"""Weighted metrics of many draws at once against scikit-learn's, draw by draw."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, recall_score, roc_auc_score

from fr_ps.evaluation import bootstrap as module
from fr_ps.evaluation.bootstrap import (
    BootstrapWeights,
    auc_and_average_precision,
    balanced_accuracy,
    bootstrap_weights,
    unweighted,
)


def sample(seed: int, count: int, people: int, levels: int, classes: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, codes and people; so few levels of the score that there are ties."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(classes, size=count)
    scores = (rng.integers(levels, size=count) + codes).astype(np.float32) / np.float32(levels + classes)
    return scores, codes, rng.integers(people, size=count).astype(str)


@given(seed=st.integers(0, 10**6), count=st.integers(1, 40), people=st.integers(1, 12), levels=st.sampled_from([1, 2, 5, 1000]))
def test_each_draw_is_scikit_learns_with_sample_weights_and_nan_without_both_classes(
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


def test_a_draw_is_the_metric_of_its_sessions_written_out_as_often_as_they_were_drawn() -> None:
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


def test_once_counts_every_session_once() -> None:
    values = np.arange(5.0)
    assert unweighted(5).weighted_sums(values).tolist() == [10.0]
    assert unweighted(5).weighted_sums(np.stack([values, values + 1], axis=1)).tolist() == [[10.0, 15.0]]


def test_a_perfect_an_inverted_and_a_constant_score_are_exactly_one_zero_and_one_half_in_every_draw() -> None:
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


def test_blocks_of_draws_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, codes, ids = sample(3, 50, 20, 10)
    draws = bootstrap_weights(ids, 33)
    whole = auc_and_average_precision(scores, codes == 1, draws)
    monkeypatch.setattr(module, "_MAX_CELLS", 220)  # 4 draws at a time, and 1 in the last block
    np.testing.assert_array_equal(auc_and_average_precision(scores, codes == 1, draws), whole)


def test_many_sessions_and_draws_stay_under_200_mb() -> None:
    scores, codes, ids = sample(4, 20_000, 5000, 10**6)
    full = bootstrap_weights(ids, 1000)
    draws = BootstrapWeights(full.unit, full.weights[:200], full.subjects)  # twice that many blocks would hold no more at once
    tracemalloc.start()
    auc_and_average_precision(scores, codes == 1, draws)
    balanced_accuracy(codes, codes, 2, full)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6
