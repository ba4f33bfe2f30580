"""Ten-fold accuracy against loops over every threshold, and its folds."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fr_ps.evaluation.pairwise.ten_fold import (
    FOLDS,
    MAX_PAIRS_PER_FOLD,
    METRIC_NAMES,
    Folds,
    _best_threshold,
    draw_folds,
    ten_fold_accuracy,
)

Pair = tuple[float, bool, int]


def by_loops(pairs: list[Pair]) -> tuple[float, float]:
    """Mean and standard error of the folds' accuracies, each at the smallest threshold that is best in the other folds."""
    accuracies = []
    for fold in sorted({number for _, _, number in pairs}):
        others = [(score, same) for score, same, number in pairs if number != fold]
        most, chosen = -1, math.nan
        distinct = sorted({score for score, _ in others})
        for threshold in [-math.inf, *((a + b) / 2 for a, b in itertools.pairwise(distinct)), math.inf]:
            correct = sum((score >= threshold) == same for score, same in others)
            if correct > most:
                most, chosen = correct, threshold
        in_fold = [(score >= chosen) == same for score, same, number in pairs if number == fold]
        accuracies.append(sum(in_fold) / len(in_fold))
    mean = sum(accuracies) / len(accuracies)
    variance = sum((accuracy - mean) ** 2 for accuracy in accuracies) / (len(accuracies) - 1)
    return mean, math.sqrt(variance) / math.sqrt(len(accuracies))


def values(score: np.ndarray, genuine: np.ndarray, fold: np.ndarray) -> tuple[float | None, ...]:
    found = ten_fold_accuracy(score, genuine, fold).values
    return tuple(found[name] for name in METRIC_NAMES)


@st.composite
def scored(draw: st.DrawFn) -> list[Pair]:
    """Pairs with many ties in two or more folds of any size; some folds have only genuine or only impostor pairs."""
    first = [draw(st.tuples(st.integers(-3, 3), st.booleans(), st.just(fold))) for fold in (0, 1)]
    rest = draw(st.lists(st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 4)), max_size=25))
    return [(score / 3, same, fold) for score, same, fold in draw(st.permutations([*first, *rest]))]


@given(scored())
def test_accuracy_and_its_standard_error_are_those_of_loops(pairs: list[Pair]) -> None:
    score, genuine, fold = (np.array(part) for part in zip(*pairs))
    assert values(score, genuine, fold) == pytest.approx(by_loops(pairs), abs=1e-12)


def test_the_standard_error_is_the_deviation_of_the_folds_divided_by_the_root_of_their_number() -> None:
    """Of ten folds with 10 pairs, which all share the best threshold 0.5, five have no error and five have one."""
    fold = np.repeat(np.arange(10), 10)
    genuine = np.tile([True, False], 50)
    score = np.where(genuine, 1.0, 0.0)
    score[(fold % 2 == 0) & (np.arange(100) % 10 == 0)] = 0.0
    accuracy, error = values(score, genuine, fold)
    assert accuracy == pytest.approx(0.95)
    assert error == pytest.approx(0.05 * math.sqrt(10 / 9) / math.sqrt(10))


def test_the_threshold_of_a_fold_is_not_chosen_on_it() -> None:
    """Each fold is separable, but at different thresholds."""
    score, genuine = np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, True, False, True])
    assert values(score, genuine, np.array([0, 0, 1, 1]))[0] == pytest.approx(0.5)


def test_perfect_inverted_and_random_scores_have_their_known_accuracy() -> None:
    rng = np.random.default_rng(0)
    genuine, fold = np.tile([True, False], 2000), np.repeat(np.arange(10), 400)
    assert values(genuine * 1.0, genuine, fold) == (1, 0)
    assert values(-1.0 * genuine, genuine, fold) == (0.5, 0)
    assert values(rng.normal(size=4000), genuine, fold)[0] == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("sign", [1, -1])
def test_scores_separated_by_a_wide_gap_have_accuracy_1(sign: int) -> None:
    """With thresholds at scores instead of midpoints, the mean accuracy over 200 seeds was 0.9982, and never 1."""
    genuine, fold = np.tile([True, False], 300), np.repeat(np.arange(10), 60)
    for seed in range(200):
        rng = np.random.default_rng(seed)
        score = sign * np.where(genuine == (sign > 0), rng.uniform(0.6, 1, 600), rng.uniform(-0.2, 0.4, 600))
        assert values(score, genuine, fold) == (1, 0)


def test_the_threshold_is_the_middle_of_the_gap() -> None:
    genuine = np.array([False, False, True, True])
    assert _best_threshold(np.array([0.1, 0.2, 0.6, 0.9]), genuine) == pytest.approx(0.4)
    assert _best_threshold(np.array([0.1, 0.2, 0.6, 0.9]), ~genuine) == -np.inf
    neighbours = np.array([0.5, np.nextafter(0.5, 1)])
    assert _best_threshold(neighbours, np.array([False, True])) == neighbours[1]


def test_fold_numbers_may_be_any_integers() -> None:
    rng = np.random.default_rng(1)
    score, genuine, fold = rng.normal(size=60), rng.random(60) < 0.5, np.repeat(np.arange(3), 20)
    assert values(score, genuine, np.array([7, -2, 40])[fold]) == pytest.approx(values(score, genuine, fold))


def genuine_pairs(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.triu_indices(len(ids), k=1)
    same = ids[first] == ids[second]
    return first[same], second[same]


def sessions_of(people: int, singles: int, seed: int) -> np.ndarray:
    """Subjects with 2 to 6 sessions and subjects with one, in any order."""
    rng = np.random.default_rng(seed)
    several = np.repeat([f"p{i}" for i in range(people)], rng.integers(2, 7, size=people))
    return rng.permutation(np.concatenate([several, [f"single{i}" for i in range(singles)]]))


def by_pair(folds: Folds) -> list[tuple[int, int, int]]:
    ends = np.sort(np.stack([folds.first, folds.second], axis=1), axis=1)
    return [(one, other, fold) for (one, other), fold in zip(ends.tolist(), folds.fold.tolist())]


@given(st.integers(20, 45), st.integers(0, 10), st.integers(0, 99))
def test_folds_are_subject_disjoint_with_as_many_impostor_as_genuine_pairs(people: int, singles: int, seed: int) -> None:
    ids = sessions_of(people, singles, seed)
    folds = draw_folds(ids, *genuine_pairs(ids), seed)
    assert folds.undefined_reason == ""
    fold_of: dict[str, int] = {}
    balance = [0] * FOLDS
    for one, other, fold in by_pair(folds):
        for row in (one, other):
            assert fold_of.setdefault(ids[row], fold) == fold
        balance[fold] += 1 if ids[one] == ids[other] else -1
    assert balance == [0] * FOLDS
    assert set(fold_of.values()) == set(range(FOLDS))
    assert len({pair[:2] for pair in by_pair(folds)}) == len(folds.fold)
    assert not any(name.startswith("single") for name in fold_of)


def test_subjects_are_spread_evenly_over_the_folds_and_a_fold_has_at_most_as_many_pairs_as_in_lfw() -> None:
    ids = np.repeat([f"p{i}" for i in range(43)], 20)
    folds = draw_folds(ids, *genuine_pairs(ids))
    people = [len(np.unique(ids[folds.first[folds.fold == fold]])) for fold in range(FOLDS)]
    assert sorted(people) == [4] * 7 + [5] * 3
    assert np.bincount(folds.fold).tolist() == [2 * MAX_PAIRS_PER_FOLD] * FOLDS


def test_the_folds_are_a_function_of_the_seed() -> None:
    ids = sessions_of(30, 5, 0)
    pairs = genuine_pairs(ids)
    assert by_pair(draw_folds(ids, *pairs, seed=3)) == by_pair(draw_folds(ids, *pairs, seed=3))
    assert by_pair(draw_folds(ids, *pairs, seed=3)) != by_pair(draw_folds(ids, *pairs, seed=4))


def test_below_twenty_subjects_with_two_sessions_there_are_no_folds() -> None:
    ids = sessions_of(19, 30, 0)
    folds = draw_folds(ids, *genuine_pairs(ids))
    assert folds.undefined_reason.startswith("only 19 subjects have two sessions or more")
    assert "20" in folds.undefined_reason
    assert len(folds.first) == len(folds.second) == len(folds.fold) == 0
