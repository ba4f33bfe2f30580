"""Verification metrics against loops over every pair, and their replicates against weighted scikit-learn."""

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from fr_ps.evaluation.bootstrap import BootstrapWeights, bootstrap_weights
from fr_ps.evaluation.metrics import LOW_SUPPORT, Metrics
from fr_ps.evaluation.pairwise import verification as module
from fr_ps.evaluation.pairwise.pairs import AllPairs, PairScores
from fr_ps.evaluation.pairwise.roc import FMR_POINTS, compute_roc, default_operating_point, equal_error_rate
from fr_ps.evaluation.pairwise.similarity import STEPS, ScoreScale
from fr_ps.evaluation.pairwise.verification import (
    add_bootstrap_intervals,
    bootstrap_rates,
    verification_metrics,
    verification_with_band,
    verification_with_intervals,
)
from fr_ps.evaluation.pairwise.verification_report import verification_section
from fr_ps.models.thresholds import Thresholds, ValidationThreshold

Scored = list[tuple[float, bool]]


def pair_scores_of(scores: np.ndarray, genuine: np.ndarray, owner: np.ndarray) -> PairScores:
    """Pair scores with these (m,) scores; `owner` is the (m,) subject of the first session."""
    levels = np.round((scores + 8) * STEPS / 8).astype(np.int64)
    impostor_levels, counts = np.unique(levels[~genuine], return_counts=True)
    own = np.arange(int(genuine.sum()))
    return PairScores(
        ScoreScale("cosine"),
        np.unique(owner[genuine], return_inverse=True)[1],
        impostor_levels,
        counts,
        own,
        own,
        levels[genuine],
    )


def pairs_of(scores: np.ndarray, ids: list[int]) -> tuple[PairScores, Scored]:
    """Pair scores with these (n, n) scores instead of cosines, and a list of the scores."""
    first, second = np.triu_indices(len(ids), k=1)
    people = np.array(ids)
    genuine, score = people[first] == people[second], np.round(scores[first, second] * STEPS) / STEPS
    return pair_scores_of(score, genuine, people[first]), list(zip(score.tolist(), genuine.tolist()))


@st.composite
def tables(draw: st.DrawFn) -> tuple[np.ndarray, list[int]]:
    """Scores on a coarse grid, so that there are many ties, of a few sessions of a few subjects."""
    ids = draw(st.lists(st.integers(0, 3), min_size=2, max_size=9))
    count = len(ids) * (len(ids) - 1) // 2
    values = draw(st.lists(st.integers(-4, 4), min_size=count, max_size=count))
    scores = np.zeros((len(ids), len(ids)))
    scores[np.triu_indices(len(ids), k=1)] = np.array(values) / 4
    return scores, ids


def rates(pairs: Scored, threshold: float) -> tuple[float, float]:
    """FMR and TMR if a score of at least `threshold` is accepted."""
    genuine, impostor = [s for s, g in pairs if g], [s for s, g in pairs if not g]
    return sum(s >= threshold for s in impostor) / len(impostor), sum(s >= threshold for s in genuine) / len(genuine)


def by_loops_auc(genuine: list[float], impostor: list[float], weights: list[float] | None = None) -> float:
    """The share of correctly ordered (genuine, impostor) scores, ties counting half."""
    weights = weights or [1.0] * len(genuine)
    won = sum(w * ((g > i) + (g == i) / 2) for (g, w), i in itertools.product(zip(genuine, weights), impostor))
    return won / (sum(weights) * len(impostor))


def by_bisection_eer(pairs: Scored) -> float:
    """The FMR where FMR = 1 - TMR on the polyline through the (FMR, TMR) of every threshold."""
    corners = [rates(pairs, threshold) for threshold in [math.inf, *sorted({s for s, _ in pairs}, reverse=True)]]

    def at(place: float) -> tuple[float, float]:
        index = min(int(place), len(corners) - 2)
        share = place - index
        return tuple(a + share * (b - a) for a, b in zip(corners[index], corners[index + 1]))  # type: ignore[return-value]

    low, high = 0.0, float(len(corners) - 1)
    for _ in range(60):
        middle = (low + high) / 2
        fmr, tmr = at(middle)
        low, high = (low, middle) if fmr >= 1 - tmr else (middle, high)
    return at(high)[0]


def by_loops_tmr(pairs: Scored, fmr: float) -> float:
    """The TMR at the smallest threshold with an FMR of at most `fmr`; above the largest score nothing is accepted."""
    for threshold in [*sorted({s for s, _ in pairs}), math.inf]:
        if rates(pairs, threshold)[0] <= fmr:
            return rates(pairs, threshold)[1]
    raise AssertionError("infinity accepts nothing")


@given(tables())
def test_auc_eer_and_subject_balanced_auc_are_those_of_loops(table: tuple[np.ndarray, list[int]]) -> None:
    pair_scores, scored = pairs_of(*table)
    assume(not pair_scores.undefined_reason)
    values = verification_metrics(pair_scores).values
    genuine, impostor = [score for score, same in scored if same], [score for score, same in scored if not same]
    assert values["auc"] == pytest.approx(by_loops_auc(genuine, impostor), abs=1e-9)
    assert values["eer"] == pytest.approx(by_bisection_eer(scored), abs=1e-9)
    of_person = defaultdict(list)
    for row, (score, same) in zip(np.triu_indices(len(table[1]), k=1)[0], scored):
        if same:
            of_person[table[1][row]].append(score)
    each = [by_loops_auc(scores, impostor) for scores in of_person.values()]
    assert values["auc_person_balanced"] == pytest.approx(sum(each) / len(each), abs=1e-9)


@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 10, 1000]))
def test_the_true_match_rate_is_that_of_the_smallest_threshold_with_at_most_the_fmr(seed: int, grid: int) -> None:
    """Sets of 8 to 21 sessions, with few and with many ties."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 5, size=int(rng.integers(8, 22))).tolist()
    scores = np.round(rng.normal(size=(len(ids), len(ids))) * grid) / grid + np.equal.outer(ids, ids)
    pair_scores, scored = pairs_of(scores, ids)
    impostors = pair_scores.impostor_count
    assume(not pair_scores.undefined_reason)
    values = verification_metrics(pair_scores).values
    for fmr in FMR_POINTS:
        name = f"tar_at_far_{fmr:g}"
        assert (name in values) == (impostors >= round(1 / fmr))
        if name in values:
            assert values[name] == pytest.approx(by_loops_tmr(scored, fmr), abs=1e-12)


@pytest.mark.parametrize("impostors", [10, 20, 30, 70, 100, 1000])
def test_a_threshold_may_reach_the_fmr_exactly(impostors: int) -> None:
    """Of n impostor pairs, n / 10 false matches are an FMR of at most 0.1, whatever the rounding."""
    score = np.concatenate([np.arange(impostors), np.arange(impostors) + 0.5]) / impostors
    genuine = np.arange(2 * impostors) >= impostors
    values = verification_metrics(pair_scores_of(score, genuine, np.zeros(2 * impostors))).values
    assert values["tar_at_far_0.1"] == pytest.approx((impostors // 10 + 1) / impostors)


def faces(people: int, sessions: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    ids = np.repeat([f"p{i}" for i in range(people)], sessions)
    centres = np.repeat(rng.normal(size=(people, 64)), sessions, axis=0)
    return (centres + spread * rng.normal(size=centres.shape)).astype(np.float32), ids


def test_a_perfect_model_is_perfect() -> None:
    values = verification_metrics(AllPairs(*faces(20, 4, 0.05)).score()).values
    assert (values["auc"], values["auc_person_balanced"], values["eer"]) == (1, 1, 0)
    assert values["tar_at_far_0.01"] == 1


def test_an_inverted_perfect_model_is_always_wrong() -> None:
    scores = -np.where(np.equal.outer(np.arange(20) // 4, np.arange(20) // 4), 0.9, 0.1)
    values = verification_metrics(pairs_of(scores, (np.arange(20) // 4).tolist())[0]).values
    assert (values["auc"], values["auc_person_balanced"], values["eer"]) == (0, 0, 1)
    assert values["tar_at_far_0.1"] == 0


def test_a_random_model_is_near_one_half() -> None:
    embeddings, ids = faces(30, 5, 0.0)
    noise = np.random.default_rng(1).normal(size=embeddings.shape)
    values = verification_metrics(AllPairs(noise, ids).score()).values
    assert values["auc"] == pytest.approx(0.5, abs=0.06)
    assert values["auc_person_balanced"] == pytest.approx(0.5, abs=0.08)
    assert values["eer"] == pytest.approx(0.5, abs=0.06)
    assert values["dprime"] == pytest.approx(0, abs=0.2)
    assert values["tar_at_far_0.1"] == pytest.approx(0.1, abs=0.06)


def test_a_subject_with_many_sessions_does_not_dominate_the_balanced_auc() -> None:
    """One subject with 20 sessions and perfect scores, and four subjects with 2 sessions and only false non-matches."""
    ids = [0] * 20 + [1, 1, 2, 2, 3, 3, 4, 4]
    same = np.equal.outer(ids, ids)
    scores = np.where(same, 1.0, 0.5)
    for row in range(20, 28):
        scores[row, 20:] = np.where(same[row, 20:], 0.0, 0.5)
    values = verification_metrics(pairs_of(scores, ids)[0]).values
    assert values["auc"] == pytest.approx(190 / 194)
    assert values["auc_person_balanced"] == pytest.approx(1 / 5)


def test_all_pairs_equal_scikit_learn_on_their_cosines() -> None:
    embeddings, ids = faces(12, 5, 6.0)
    unit = embeddings.astype(float) / np.linalg.norm(embeddings.astype(float), axis=1, keepdims=True)
    first, second = np.triu_indices(len(ids), k=1)
    score, genuine = (unit @ unit.T)[first, second], ids[first] == ids[second]
    values = verification_metrics(AllPairs(embeddings, ids).score()).values
    assert values["auc"] == pytest.approx(roc_auc_score(genuine, score), abs=1e-5)
    fmr, tmr, _ = roc_curve(genuine, score, drop_intermediate=False)
    for point in (0.1, 0.01):
        assert values[f"tar_at_far_{point:g}"] == pytest.approx(tmr[fmr <= point].max())
    between = (score[genuine].mean() - score[~genuine].mean()) / math.sqrt((score[genuine].var() + score[~genuine].var()) / 2)
    assert values["dprime"] == pytest.approx(between, abs=1e-4)


def with_impostors(count: int) -> Metrics:
    score = np.linspace(0, 1, count + 1)
    return verification_metrics(pair_scores_of(score, np.arange(count + 1) == count, np.zeros(count + 1)))


@pytest.mark.parametrize("fmr", [0.1, 0.01, 0.001, 0.0001])
def test_an_fmr_point_needs_one_expected_false_match_and_is_low_support_below_thirty(fmr: float) -> None:
    name = f"tar_at_far_{fmr:g}"
    one = round(1 / fmr)
    assert name not in with_impostors(one - 1).values
    assert name in with_impostors(one).values
    assert "low support" in with_impostors(one).reasons[name]
    assert "low support" in with_impostors(LOW_SUPPORT * one - 1).reasons[name]
    assert name in with_impostors(LOW_SUPPORT * one).values
    assert name not in with_impostors(LOW_SUPPORT * one).reasons


@pytest.mark.parametrize(
    ("ids", "reason"),
    [(["a", "b", "c"], "no genuine pair"), (["a", "a", "a"], "no impostor pair"), (["a"], "no pair")],
    ids=["singles", "one person", "one session"],
)
def test_without_genuine_or_impostor_pairs_all_is_undefined_with_the_reason(ids: list[str], reason: str) -> None:
    pairs = AllPairs(np.eye(3, dtype=np.float32)[: len(ids)], np.array(ids), bootstrap=bootstrap_weights(np.array(ids)))
    pair_scores, metrics = verification_with_intervals(pairs, None)
    assert {"auc", "auc_person_balanced", "eer"} <= set(metrics.values)
    assert set(metrics.values.values()) == {None}
    assert all(metrics.reasons[name].startswith(reason) for name in metrics.values)
    assert not metrics.intervals
    assert not verification_section(pair_scores, metrics, None).tables


def test_equal_errors_between_two_thresholds_are_interpolated() -> None:
    assert equal_error_rate(np.array([0.0, 0.0, 0.4, 1.0]), np.array([0.0, 0.8, 0.8, 1.0])) == pytest.approx(0.2)
    assert equal_error_rate(np.array([0.0, 1.0]), np.array([0.0, 1.0])) == pytest.approx(0.5)


def test_the_default_operating_point_is_the_strictest_with_support_or_else_the_one_nearest_to_the_eer() -> None:
    pair_scores = AllPairs(*faces(20, 4, 6.0)).score()
    point = default_operating_point(pair_scores, compute_roc(pair_scores))
    assert pair_scores.impostor_count == 80 * 79 / 2 - 20 * 6
    assert point.target_fmr == 0.01  # 30.4 expected false matches; at 0.001 there are 3
    few = AllPairs(*faces(5, 2, 6.0)).score()  # 40 impostor pairs: 4 expected at 0.1
    point = default_operating_point(few, compute_roc(few))
    assert abs(point.fmr - point.fnmr) <= 1 / 5
    assert point.target_fmr == pytest.approx(point.fmr)


def test_error_rates_at_the_thresholds_from_validation_are_reported() -> None:
    embeddings, ids = faces(20, 4, 6.0)
    pairs = AllPairs(embeddings, ids, bootstrap=bootstrap_weights(ids))
    threshold = 0.25
    operating = ValidationThreshold(0.01, threshold, 9, 900, "low support: 9.0 expected false matches of 900 impostor pairs")
    thresholds = Thresholds(15, 45, (operating,), {})
    pair_scores, metrics = verification_with_intervals(pairs, thresholds)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    first, second = np.triu_indices(len(ids), k=1)
    accepted, genuine = (unit @ unit.T)[first, second] >= threshold, ids[first] == ids[second]
    assert metrics.values["fmr_at_val_far_0.01"] == pytest.approx(accepted[~genuine].mean())
    assert metrics.values["fnmr_at_val_far_0.01"] == pytest.approx((~accepted)[genuine].mean())
    low, high = metrics.intervals["fnmr_at_val_far_0.01"]
    assert low <= metrics.values["fnmr_at_val_far_0.01"] <= high
    assert metrics.reasons["fmr_at_val_far_0.01"].startswith("on validation, low support")
    tables = {table.name: table for table in verification_section(pair_scores, metrics, thresholds).tables}
    (row,) = tables["validation_thresholds"].rows
    named = dict(zip(tables["validation_thresholds"].header, row))
    assert named["false matches"] == accepted[~genuine].sum()
    assert named["false non-matches"] == (~accepted)[genuine].sum()
    assert named["subjects rejected"] == len({ids[i] for i in first[genuine & ~accepted]})
    assert named["of subjects"] == 20


def test_the_table_of_operating_points_agrees_with_the_metrics_and_has_fnmr_intervals() -> None:
    embeddings, ids = faces(20, 4, 6.0)
    pair_scores, metrics = verification_with_intervals(AllPairs(embeddings, ids, bootstrap=bootstrap_weights(ids)), None)
    section = verification_section(pair_scores, metrics, None)
    (table,) = section.tables
    for row in table.rows:
        named = dict(zip(table.header, row))
        name = f"tar_at_far_{named['target FMR']}"
        low, high = metrics.intervals[name]
        assert (named["FNMR"], named["low"], named["high"]) == pytest.approx((1 - metrics.values[name], 1 - high, 1 - low))  # type: ignore[operator]
        assert named["FMR"] <= float(named["target FMR"])
        assert (named["support"] == "low") == (name in metrics.reasons)
    assert set(section.figures) == {"roc", "det", "scores"}
    assert "identity/auc" in section.metrics.intervals


def test_euclidean_distance_does_not_use_thresholds_that_are_cosines() -> None:
    embeddings, ids = faces(12, 3, 3.0)
    thresholds = Thresholds(9, 9, (ValidationThreshold(0.1, 0.5, 9, 90, ""),), {})
    metrics = verification_with_intervals(AllPairs(embeddings, ids, "euclidean", bootstrap_weights(ids)), thresholds)[1]
    assert not [name for name in metrics.values if "at_val" in name]
    assert metrics.values["auc"] is not None


def people(count: int, sessions: tuple[int, int], noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of subjects with different spread and number of sessions."""
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
        fmr, tmr, _ = roc_curve(genuine, score, sample_weight=of_pair, drop_intermediate=False)
        found["eer"].append(equal_error_rate(fmr, tmr))
        for point in (0.1, 0.01):
            found[f"tar_at_far_{point:g}"].append(tmr[fmr <= point + 1e-12].max())
    return {name: np.array(values) for name, values in found.items()}


def by_us(embeddings: np.ndarray, ids: np.ndarray, draws: BootstrapWeights) -> dict[str, np.ndarray]:
    pairs = AllPairs(embeddings, ids, bootstrap=draws)
    pair_scores = pairs.score()
    return add_bootstrap_intervals(
        verification_metrics(pair_scores), pair_scores, *bootstrap_rates(pairs, pair_scores, [])
    ).replicates


def test_with_few_scores_every_replicate_equals_scikit_learn():
    embeddings, ids = people(8, (1, 4), 1.0)
    draws = bootstrap_weights(ids, replicates=40)
    mine, theirs = by_us(embeddings, ids, draws), by_scikit_learn(embeddings, ids, draws)
    for name, values in theirs.items():
        if name in mine:
            assert mine[name] == pytest.approx(values, abs=1e-6), name


def test_with_many_scores_every_replicate_is_close_to_scikit_learn_with_the_same_spread():
    embeddings, ids = people(60, (1, 8), 1.2)
    draws = bootstrap_weights(ids, replicates=40)
    mine, theirs = by_us(embeddings, ids, draws), by_scikit_learn(embeddings, ids, draws)
    for name, values in theirs.items():
        spread = values.std()
        assert np.abs(mine[name] - values).mean() < 0.1 * spread, name
        assert mine[name].std() == pytest.approx(spread, rel=0.1), name


def test_the_replicate_with_every_subject_once_gives_the_metric(monkeypatch):
    embeddings, ids = people(30, (2, 5), 1.2)
    ones = BootstrapWeights(np.unique(ids, return_inverse=True)[1], np.ones((1, 30), np.float32), 30)
    for exact in (10**9, 50):
        monkeypatch.setattr(module, "MAX_EXACT_THRESHOLDS", exact)
        values = verification_metrics(AllPairs(embeddings, ids).score()).values
        for name, found in by_us(embeddings, ids, ones).items():
            assert found == pytest.approx([values[name]], abs=1e-9), name


def test_a_replicate_without_a_genuine_pair_is_undefined_in_it():
    ids = np.array(["a", "a", "b", "c"])
    weights = np.array([[0, 2, 1], [1, 1, 1]], np.float32)
    found = by_us(
        np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32),
        ids,
        BootstrapWeights(np.array([0, 0, 1, 2]), weights, 3),
    )
    assert np.isnan(found["auc"][0])
    assert np.isfinite(found["auc"][1])


def test_extra_thresholds_are_among_those_of_the_replicates():
    embeddings, ids = people(40, (2, 6), 1.2)
    pairs = AllPairs(embeddings, ids, bootstrap=bootstrap_weights(ids, replicates=5))
    pair_scores = pairs.score()
    drawn, undrawn = bootstrap_rates(pairs, pair_scores, [1_234_567])
    fmr, fnmr = undrawn.at_threshold(1_234_567)
    above = pair_scores.impostor_counts[pair_scores.impostor_levels >= 1_234_567].sum()
    assert fmr == pytest.approx([above / pair_scores.impostor_count])
    assert fnmr == pytest.approx([(pair_scores.genuine_levels < 1_234_567).mean()])
    curve = compute_roc(pair_scores)
    assert drawn.fmr[:, 0].tolist() == [0] * 5
    assert drawn.fmr[:, -1] == pytest.approx(1)
    assert curve.fmr[-1] == 1


def test_the_band_of_the_roc_has_the_intervals_of_the_operating_points() -> None:
    rng = np.random.default_rng(0)
    ids = np.repeat([f"p{i:02d}" for i in range(12)], 5)
    embeddings = (np.repeat(rng.normal(size=(12, 8)), 5, axis=0) + rng.normal(size=(60, 8))).astype(np.float32)
    _, metrics, band = verification_with_band(AllPairs(embeddings, ids, bootstrap=bootstrap_weights(ids)), None)
    assert band is not None
    low, high = metrics.intervals["tar_at_far_0.1"]
    assert np.interp(0.1, band.fmr, band.low) == pytest.approx(low, abs=0.03)
    assert np.interp(0.1, band.fmr, band.high) == pytest.approx(high, abs=0.03)
    assert np.isnan(band.low[-1])  # at FMR 1 every genuine pair is accepted, whatever the subjects
    assert np.isnan(band.high[-1])
