"""Verification in each draw of people, against scikit-learn with a weight a pair."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from fr_ps.evaluation.bootstrap import BootstrapWeights, bootstrap_weights
from fr_ps.evaluation.pairwise import verification as module
from fr_ps.evaluation.pairwise.pairs import AllPairs
from fr_ps.evaluation.pairwise.roc import compute_roc, equal_error_rate
from fr_ps.evaluation.pairwise.verification import add_bootstrap_intervals, bootstrap_rates, verification_metrics


def people(count: int, sessions: tuple[int, int], noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of people of whom some are harder to know, each with a number of sessions in a range."""
    rng = np.random.default_rng(seed)
    ids, rows = [], []
    for person in range(count):
        centre, spread = rng.standard_normal(32), noise * rng.uniform(0.5, 1.5)
        for _ in range(rng.integers(sessions[0], sessions[1] + 1)):
            ids.append(f"p{person:03d}")
            rows.append(centre + spread * rng.standard_normal(32))
    order = rng.permutation(len(ids))
    return np.array(rows, np.float32)[order], np.array(ids)[order]


def by_scikit_learn(embeddings: np.ndarray, ids: np.ndarray, draws: BootstrapWeights) -> dict[str, np.ndarray]:
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    first, second = np.triu_indices(len(ids), k=1)
    score, genuine = (unit @ unit.T)[first, second], ids[first] == ids[second]
    weight = draws.weights[:, draws.unit]
    pairs_of = {name: int((genuine & (ids[first] == name)).sum()) for name in set(ids)}
    share = np.array([1 / max(pairs_of[name], 1) for name in ids[first]])
    found: dict[str, list[float]] = {"auc": [], "auc_person_balanced": [], "eer": [], "tar_at_far_0.1": [], "tar_at_far_0.01": []}
    for w in weight:
        of_pair = np.where(genuine, w[first], w[first] * w[second])
        found["auc"].append(roc_auc_score(genuine, score, sample_weight=of_pair))
        found["auc_person_balanced"].append(roc_auc_score(genuine, score, sample_weight=of_pair * np.where(genuine, share, 1)))
        far, tar, _ = roc_curve(genuine, score, sample_weight=of_pair, drop_intermediate=False)
        found["eer"].append(equal_error_rate(far, tar))
        for point in (0.1, 0.01):
            found[f"tar_at_far_{point:g}"].append(tar[far <= point + 1e-12].max())
    return {name: np.array(values) for name, values in found.items()}


def by_us(embeddings: np.ndarray, ids: np.ndarray, draws: BootstrapWeights) -> dict[str, np.ndarray]:
    pairs = AllPairs(embeddings, ids, bootstrap=draws)
    comparisons = pairs.score()
    return add_bootstrap_intervals(
        verification_metrics(comparisons), comparisons, *bootstrap_rates(pairs, comparisons, [])
    ).replicates


def test_with_few_scores_every_draw_is_what_scikit_learn_says():
    embeddings, ids = people(8, (1, 4), 1.0)
    draws = bootstrap_weights(ids, replicates=40)
    mine, theirs = by_us(embeddings, ids, draws), by_scikit_learn(embeddings, ids, draws)
    for name, values in theirs.items():
        if name in mine:
            assert mine[name] == pytest.approx(values, abs=1e-6), name


def test_with_many_scores_every_draw_is_nearly_what_scikit_learn_says_and_the_spread_is_the_same():
    embeddings, ids = people(60, (1, 8), 1.2)
    draws = bootstrap_weights(ids, replicates=40)
    mine, theirs = by_us(embeddings, ids, draws), by_scikit_learn(embeddings, ids, draws)
    for name, values in theirs.items():
        spread = values.std()
        assert np.abs(mine[name] - values).mean() < 0.1 * spread, name
        assert mine[name].std() == pytest.approx(spread, rel=0.1), name


def test_nobody_drawn_twice_or_left_out_gives_the_value_itself(monkeypatch):
    embeddings, ids = people(30, (2, 5), 1.2)
    ones = BootstrapWeights(np.unique(ids, return_inverse=True)[1], np.ones((1, 30), np.float32), 30)
    for exact in (10**9, 50):
        monkeypatch.setattr(module, "MAX_EXACT_THRESHOLDS", exact)
        values = verification_metrics(AllPairs(embeddings, ids).score()).values
        for name, found in by_us(embeddings, ids, ones).items():
            assert found == pytest.approx([values[name]], abs=1e-9), name


def test_a_draw_without_a_genuine_pair_is_undefined_in_it():
    ids = np.array(["a", "a", "b", "c"])
    weights = np.array([[0, 2, 1], [1, 1, 1]], np.float32)
    found = by_us(
        np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32),
        ids,
        BootstrapWeights(np.array([0, 0, 1, 2]), weights, 3),
    )
    assert np.isnan(found["auc"][0])
    assert np.isfinite(found["auc"][1])


def test_fixed_thresholds_are_among_those_whose_rates_are_known():
    embeddings, ids = people(40, (2, 6), 1.2)
    pairs = AllPairs(embeddings, ids, bootstrap=bootstrap_weights(ids, replicates=5))
    comparisons = pairs.score()
    drawn, undrawn = bootstrap_rates(pairs, comparisons, [1_234_567])
    fmr, fnmr = undrawn.at_threshold(1_234_567)
    above = comparisons.impostor_counts[comparisons.impostor_levels >= 1_234_567].sum()
    assert fmr == pytest.approx([above / comparisons.impostor_count])
    assert fnmr == pytest.approx([(comparisons.genuine_levels < 1_234_567).mean()])
    curve = compute_roc(comparisons)
    assert drawn.fmr[:, 0].tolist() == [0] * 5
    assert drawn.fmr[:, -1] == pytest.approx(1)
    assert curve.fmr[-1] == 1
