"""Verification against loops over every pair."""

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fr_ps.errors import InputError
from fr_ps.evaluation.metrics import Metrics
from fr_ps.evaluation.verification import FAR_POINTS, LOW_SUPPORT, Pairs, all_pairs, equal_error_rate, rank1, verification

Scored = list[tuple[float, bool]]


def pairs_of(scores: np.ndarray, ids: list[int]) -> Pairs:
    """Pairs with given (n, n) scores instead of cosines."""
    first, second = np.triu_indices(len(ids), k=1)
    people = np.unique(ids, return_inverse=True)[1]
    return Pairs(first, second, scores[first, second].astype(np.float32), people[first] == people[second], people[first])


@st.composite
def tables(draw: st.DrawFn) -> tuple[np.ndarray, list[int]]:
    """Scores on a coarse grid, so that there are many ties, of a few sessions of a few people."""
    ids = draw(st.lists(st.integers(0, 3), min_size=2, max_size=9))
    count = len(ids) * (len(ids) - 1) // 2
    values = draw(st.lists(st.integers(-4, 4), min_size=count, max_size=count))
    scores = np.zeros((len(ids), len(ids)))
    scores[np.triu_indices(len(ids), k=1)] = np.array(values) / 4
    return scores, ids


def scored(pairs: Pairs) -> Scored:
    return list(zip(pairs.score.tolist(), pairs.genuine.tolist()))


def rates(pairs: Scored, threshold: float) -> tuple[float, float]:
    """FAR and TAR if a score of at least `threshold` is accepted."""
    genuine, impostor = [s for s, g in pairs if g], [s for s, g in pairs if not g]
    return sum(s >= threshold for s in impostor) / len(impostor), sum(s >= threshold for s in genuine) / len(genuine)


def by_loops_auc(genuine: list[float], impostor: list[float], weights: list[float] | None = None) -> float:
    """The share of (genuine, impostor) comparisons that are right, a tie being half."""
    weights = weights or [1.0] * len(genuine)
    won = sum(w * ((g > i) + (g == i) / 2) for (g, w), i in itertools.product(zip(genuine, weights), impostor))
    return won / (sum(weights) * len(impostor))


def by_bisection_eer(pairs: Scored) -> float:
    """Walks the polyline through the (FAR, TAR) of every threshold to where FAR = 1 - TAR."""
    corners = [rates(pairs, threshold) for threshold in [math.inf, *sorted({s for s, _ in pairs}, reverse=True)]]

    def at(place: float) -> tuple[float, float]:
        index = min(int(place), len(corners) - 2)
        share = place - index
        return tuple(a + share * (b - a) for a, b in zip(corners[index], corners[index + 1]))  # type: ignore[return-value]

    low, high = 0.0, float(len(corners) - 1)
    for _ in range(60):
        middle = (low + high) / 2
        far, tar = at(middle)
        low, high = (low, middle) if far >= 1 - tar else (middle, high)
    return at(high)[0]


def by_loops_tar(pairs: Scored, far: float) -> float:
    """At the smallest threshold whose FAR is at most `far`; beyond the largest score nothing is accepted."""
    for threshold in [*sorted({s for s, _ in pairs}), math.inf]:
        if rates(pairs, threshold)[0] <= far:
            return rates(pairs, threshold)[1]
    raise AssertionError("infinity accepts nothing")


@settings(max_examples=150, deadline=None)
@given(tables())
def test_auc_eer_and_person_balanced_auc_are_those_of_loops(table: tuple[np.ndarray, list[int]]) -> None:
    pairs = pairs_of(*table)
    assume(pairs.genuine.any() and not pairs.genuine.all())
    values = verification(pairs).values
    genuine, impostor = pairs.score[pairs.genuine].tolist(), pairs.score[~pairs.genuine].tolist()
    assert values["auc"] == pytest.approx(by_loops_auc(genuine, impostor), abs=1e-9)
    assert values["eer"] == pytest.approx(by_bisection_eer(scored(pairs)), abs=1e-9)
    of_person = defaultdict(list)
    for row, (score, same) in zip(pairs.first, scored(pairs)):
        if same:
            of_person[table[1][row]].append(score)
    each = [by_loops_auc(scores, impostor) for scores in of_person.values()]
    assert values["auc_person_balanced"] == pytest.approx(sum(each) / len(each), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 10, 1000]))
def test_the_true_accept_rate_is_that_of_the_smallest_threshold_that_keeps_the_false_accept_rate(seed: int, grid: int) -> None:
    """Ten impostor pairs and more, with few and with many ties."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 5, size=int(rng.integers(8, 22))).tolist()
    pairs = pairs_of(np.round(rng.normal(size=(len(ids), len(ids))) * grid) / grid + np.equal.outer(ids, ids), ids)
    impostors = int((~pairs.genuine).sum())
    assume(pairs.genuine.any() and impostors)
    values = verification(pairs).values
    for far in FAR_POINTS:
        name = f"tar_at_far_{far:g}"
        assert (name in values) == (impostors >= round(1 / far))
        if name in values:
            assert values[name] == pytest.approx(by_loops_tar(scored(pairs), far), abs=1e-12)


@pytest.mark.parametrize("impostors", [10, 20, 30, 70, 100, 1000])
def test_a_false_accept_rate_that_the_pairs_meet_exactly_is_met(impostors: int) -> None:
    """Of n impostors, n / 10 false accepts are a FAR of 0.1, not more, whatever the rounding."""
    score = np.concatenate([np.arange(impostors), np.arange(impostors) + 0.5]).astype(np.float32)
    genuine = np.arange(2 * impostors) >= impostors
    zeros = np.zeros(2 * impostors, dtype=int)
    values = verification(Pairs(zeros, zeros, score, genuine, zeros)).values
    assert values["tar_at_far_0.1"] == pytest.approx((impostors // 10 + 1) / impostors)


def by_loops_rank1(scores: np.ndarray, ids: list[int]) -> float | None:
    symmetric = scores + scores.T  # one of the two is zero
    right = asked = 0
    for i, person in enumerate(ids):
        mates = [symmetric[i, j] for j in range(len(ids)) if j != i and ids[j] == person]
        others = [symmetric[i, j] for j in range(len(ids)) if ids[j] != person]
        if mates:
            asked += 1
            right += not others or max(mates) > max(others)
    return right / asked if asked else None


@settings(max_examples=150, deadline=None)
@given(tables())
def test_rank1_is_that_of_loops_where_a_tie_is_an_error_and_singles_are_not_asked(table: tuple[np.ndarray, list[int]]) -> None:
    scores, ids = table
    assume(len(set(ids)) > 1)
    scores = np.triu(scores, k=1)
    expected = by_loops_rank1(scores, ids)
    share = rank1(pairs_of(scores, ids), len(ids))
    assert (share is None) == (expected is None)
    if share is not None:
        assert share == pytest.approx(expected)


def faces(people: int, sessions: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    ids = np.repeat([f"p{i}" for i in range(people)], sessions)
    centres = np.repeat(rng.normal(size=(people, 64)), sessions, axis=0)
    return (centres + spread * rng.normal(size=centres.shape)).astype(np.float32), ids


def test_a_perfect_model_is_perfect() -> None:
    embeddings, ids = faces(20, 4, 0.05)
    values = verification(all_pairs(embeddings, ids)).values
    assert (values["auc"], values["auc_person_balanced"], values["eer"]) == (1, 1, 0)
    assert values["tar_at_far_0.01"] == 1
    assert rank1(all_pairs(embeddings, ids), len(ids)) == 1


def test_a_perfect_model_inverted_is_perfectly_wrong() -> None:
    pairs = all_pairs(*faces(20, 4, 0.05))
    pairs = Pairs(pairs.first, pairs.second, -pairs.score, pairs.genuine, pairs.person)
    values = verification(pairs).values
    assert (values["auc"], values["auc_person_balanced"], values["eer"]) == (0, 0, 1)
    assert values["tar_at_far_0.1"] == 0
    assert rank1(pairs, 80) == 0


def test_a_random_model_is_near_one_half() -> None:
    embeddings, ids = faces(30, 5, 0.0)
    noise = np.random.default_rng(1).normal(size=embeddings.shape)
    values = verification(all_pairs(noise, ids)).values
    assert values["auc"] == pytest.approx(0.5, abs=0.06)
    assert values["auc_person_balanced"] == pytest.approx(0.5, abs=0.08)
    assert values["eer"] == pytest.approx(0.5, abs=0.06)
    assert values["tar_at_far_0.1"] == pytest.approx(0.1, abs=0.06)


def test_a_person_with_many_sessions_does_not_rule_the_balanced_auc() -> None:
    """One person with 20 sessions who is always recognised, four with 2 who never are."""
    ids = [0] * 20 + [1, 1, 2, 2, 3, 3, 4, 4]
    same = np.equal.outer(ids, ids)
    scores = np.where(same, 1.0, 0.5)
    for row in range(20, 28):
        scores[row, 20:] = np.where(same[row, 20:], 0.0, 0.5)
    values = verification(pairs_of(scores, ids)).values
    assert values["auc"] == pytest.approx(190 / 194)
    assert values["auc_person_balanced"] == pytest.approx(1 / 5)


def test_the_cosines_are_those_of_a_loop_and_each_pair_is_there_once() -> None:
    embeddings, ids = faces(4, 3, 1.0)
    pairs = all_pairs(embeddings * np.logspace(-3, 3, 12)[:, None], ids)
    assert len(pairs.score) == 12 * 11 // 2
    assert {frozenset((a, b)) for a, b in zip(pairs.first.tolist(), pairs.second.tolist())} == {
        frozenset(pair) for pair in itertools.combinations(range(12), 2)
    }
    for a, b, score, genuine, person in zip(pairs.first, pairs.second, pairs.score, pairs.genuine, pairs.person):
        x, y = embeddings[a].astype(float), embeddings[b].astype(float)
        assert score == pytest.approx(x @ y / math.sqrt((x @ x) * (y @ y)), abs=1e-5)
        assert genuine == (ids[a] == ids[b])
        assert sorted(set(ids))[person] == ids[a]


def test_a_zero_embedding_is_like_nobody() -> None:
    pairs = all_pairs(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=np.float32), np.array(["a", "a", "b"]))
    assert pairs.score.tolist() == [0, 0, 0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_embedding_that_is_not_finite_is_no_score(bad: float) -> None:
    embeddings, ids = faces(3, 2, 0.1)
    embeddings[4, 7] = bad
    with pytest.raises(InputError, match="session of p2 "):
        all_pairs(embeddings, ids)


def with_impostors(count: int) -> Metrics:
    score = np.linspace(0, 1, count + 1, dtype=np.float32)
    zeros = np.zeros(count + 1, dtype=int)
    return verification(Pairs(zeros, zeros, score, np.arange(count + 1) == count, zeros))


@pytest.mark.parametrize("far", [0.1, 0.01, 0.001, 0.0001])
def test_a_far_point_needs_one_expected_error_and_is_marked_below_thirty(far: float) -> None:
    name = f"tar_at_far_{far:g}"
    one = round(1 / far)
    assert name not in with_impostors(one - 1).values
    assert name in with_impostors(one).values
    assert "low support" in with_impostors(one).reasons[name]
    assert "low support" in with_impostors(LOW_SUPPORT * one - 1).reasons[name]
    assert name in with_impostors(LOW_SUPPORT * one).values
    assert name not in with_impostors(LOW_SUPPORT * one).reasons


@pytest.mark.parametrize(
    ("ids", "reason"),
    [(["a", "b", "c"], "no genuine pair"), (["a", "a", "a"], "no impostor pair"), (["a"], "no genuine pair")],
    ids=["singles", "one person", "one session"],
)
def test_without_genuine_or_impostor_pairs_all_is_undefined_with_the_reason(ids: list[str], reason: str) -> None:
    metrics = verification(all_pairs(np.eye(3, dtype=np.float32)[: len(ids)], np.array(ids)))
    assert {"auc", "auc_person_balanced", "eer"} <= set(metrics.values)
    assert set(metrics.values.values()) == {None}
    assert all(metrics.reasons[name].startswith(reason) for name in metrics.values)


def test_rank1_of_singles_is_undefined() -> None:
    assert rank1(all_pairs(np.eye(3, dtype=np.float32), np.array(["a", "b", "c"])), 3) is None


def test_rank1_of_one_person_is_undefined_as_there_is_nobody_to_be_taken_for() -> None:
    assert rank1(all_pairs(np.eye(3, dtype=np.float32), np.array(["a", "a", "a"])), 3) is None


def test_equal_errors_between_two_thresholds_are_interpolated() -> None:
    assert equal_error_rate(np.array([0.0, 0.0, 0.4, 1.0]), np.array([0.0, 0.8, 0.8, 1.0])) == pytest.approx(0.2)
    assert equal_error_rate(np.array([0.0, 1.0]), np.array([0.0, 1.0])) == pytest.approx(0.5)
