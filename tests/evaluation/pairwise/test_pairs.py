"""All pairs without holding them, against loops over every pair."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from fr_ps.errors import InputError
from fr_ps.evaluation.bootstrap import BootstrapWeights, bootstrap_weights
from fr_ps.evaluation.pairwise import pairs
from fr_ps.evaluation.pairwise.pairs import AllPairs, ListedPairs, PairScores
from fr_ps.evaluation.pairwise.roc import compute_roc, roc_auc
from fr_ps.evaluation.pairwise.similarity import LEVELS, STEPS

Impostors = dict[int, int]


@st.composite
def sets(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of -1 and 1, 16 long, whose cosines are exact and often equal, of a few subjects in any order."""
    ids = draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=12))
    kinds = draw(st.lists(st.integers(0, 4), min_size=len(ids), max_size=len(ids)))
    rows = np.random.default_rng(draw(st.integers(0, 9))).choice([-1.0, 1.0], size=(5, 16)).astype(np.float32)
    return rows[kinds], np.array(ids)


def by_loops(embeddings: np.ndarray, ids: np.ndarray) -> tuple[Impostors, list[tuple[int, int, int]]]:
    """How many impostor pairs have each key, and the genuine pairs with theirs."""
    impostors: Impostors = {}
    genuine = []
    for i, j in itertools.combinations(range(len(ids)), 2):
        a, b = embeddings[i].astype(float), embeddings[j].astype(float)
        key = int(np.floor((a @ b / np.sqrt((a @ a) * (b @ b)) + 1) * STEPS + 0.5))
        if ids[i] == ids[j]:
            genuine.append((i, j, key))
        else:
            impostors[key] = impostors.get(key, 0) + 1
    return impostors, genuine


def found(comparisons: PairScores) -> tuple[Impostors, list[tuple[int, int, int]]]:
    impostors = dict(zip(comparisons.impostor_levels.tolist(), comparisons.impostor_counts.tolist()))
    ends = np.sort(np.stack([comparisons.genuine_first, comparisons.genuine_second], axis=1), axis=1)
    return impostors, sorted((*pair, key) for pair, key in zip(ends.tolist(), comparisons.genuine_levels.tolist()))  # type: ignore[misc]


@given(sets())
def test_every_pair_is_counted_once_with_its_key(drawn):
    embeddings, ids = drawn
    assert found(AllPairs(embeddings, ids).score()) == by_loops(embeddings, ids)


@pytest.mark.parametrize("threads", [1, 2])
def test_blocks_of_any_size_on_any_threads_give_the_same(monkeypatch, threads):
    rng = np.random.default_rng(0)
    embeddings = rng.choice([-1.0, 1.0], size=(90, 64)).astype(np.float32)
    ids = rng.choice(list("abcdefgh"), size=90)
    whole = by_loops(embeddings, ids)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for rows, columns in ((7, 13), (16, 16), (90, 8), (200, 200)):
            monkeypatch.setattr(pairs, "BLOCK_ROWS", rows)
            monkeypatch.setattr(pairs, "BLOCK_COLUMNS", columns)
            assert found(AllPairs(embeddings, ids).score()) == whole
    finally:
        torch.set_num_threads(before)


def test_more_pairs_than_keys_are_counted_in_a_table_and_give_the_same():
    rng = np.random.default_rng(1)
    embeddings = rng.standard_normal((2100, 4)).astype(np.float32)
    ids = np.array([f"p{i % 300:03d}" for i in range(2100)])
    comparisons = AllPairs(embeddings, ids).score()
    assert LEVELS < 2100 * 2099 // 2
    first, second = np.triu_indices(2100, k=1)
    listed = ListedPairs(embeddings, ids, first, second).score()
    assert comparisons.impostor_count == listed.impostor_count
    assert len(comparisons.genuine_levels) == len(listed.genuine_levels) == 300 * 21
    mine, theirs = (np.repeat(one.impostor_levels, one.impostor_counts) for one in (comparisons, listed))
    assert np.abs(mine - theirs).max() <= 1  # a product of another shape may round to the neighbouring step


def test_the_euclidean_score_is_minus_the_distance():
    rng = np.random.default_rng(2)
    embeddings = (rng.standard_normal((30, 8)) * rng.uniform(1, 20, size=(30, 1)) + 100).astype(np.float32)
    ids = np.array(list("abcde") * 6)
    comparisons = AllPairs(embeddings, ids, "euclidean").score()
    truth = np.linalg.norm(embeddings[comparisons.genuine_first].astype(float) - embeddings[comparisons.genuine_second], axis=1)
    assert comparisons.scale.scores(comparisons.genuine_levels) == pytest.approx(-truth, abs=0.02 * comparisons.scale.radius)
    order = np.argsort(truth)
    assert (np.diff(comparisons.genuine_levels[order]) <= 1).all()


def with_offset(offset: float, people: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Noisy embeddings of subjects with 5 sessions, with a common part of `offset` times their spread."""
    rng = np.random.default_rng(0)
    own = np.repeat(rng.normal(size=(people, 64)), 5, axis=0) + 2 * rng.normal(size=(5 * people, 64))
    common = rng.normal(size=64)
    common *= offset * np.sqrt(own.var(axis=0).sum()) / np.linalg.norm(common)
    return (own + common).astype(np.float32), np.repeat([f"p{person}" for person in range(people)], 5)


@pytest.mark.parametrize("offset", [0, 1, 10, 100, 1000, 10_000])
def test_the_area_is_that_of_float64_however_much_the_embeddings_have_in_common(offset):
    """A collapsed embedding, all cosines near 1, had an area of 0.5 as all its pairs had one key."""
    embeddings, ids = with_offset(offset)
    unit = embeddings.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    one, other = np.triu_indices(len(ids), k=1)
    # Minus half the squared distance orders as the cosine does, without its rounding near 1.
    truth = roc_auc_score(ids[one] == ids[other], -np.square(unit[one] - unit[other]).sum(axis=1))
    comparisons = AllPairs(embeddings, ids).score()
    listed = ListedPairs(embeddings, ids, one, other).score()
    assert 0.7 < truth < 0.95
    assert roc_auc(compute_roc(comparisons)) == pytest.approx(truth, abs=1e-5)
    assert roc_auc(compute_roc(listed)) == pytest.approx(truth, abs=1e-5)
    cosines = (unit[comparisons.genuine_first] * unit[comparisons.genuine_second]).sum(axis=1)
    scale = comparisons.scale
    assert scale.scores(comparisons.genuine_levels) == pytest.approx(cosines, abs=2e-6 * scale.radius**2 + 1e-15)
    keys = np.unique(np.random.default_rng(3).integers(0, LEVELS, size=2000))
    assert [scale.threshold_level(float(score)) for score in scale.scores(keys)] == keys.tolist()


def test_equal_embeddings_of_all_subjects_have_an_area_of_one_half():
    row = np.random.default_rng(1).normal(size=(1, 64)).astype(np.float32)
    comparisons = AllPairs(np.repeat(row, 40, axis=0), np.repeat(list("abcdefgh"), 5)).score()
    assert roc_auc(compute_roc(comparisons)) == 0.5
    assert comparisons.scale.scores(comparisons.genuine_levels) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("measure", ["cosine", "euclidean"])
def test_a_threshold_converted_to_a_score_and_back_is_the_same_level(measure):
    rng = np.random.default_rng(3)
    scale = AllPairs(rng.standard_normal((9, 5)).astype(np.float32), np.array(list("aabbccdde")), measure).score().scale
    keys = np.unique(rng.integers(0, LEVELS, size=2000))
    assert [scale.threshold_level(float(score)) for score in scale.scores(keys)] == keys.tolist()


@given(sets(), st.integers(0, 5))
def test_a_pair_weighs_as_often_as_both_subjects_were_resampled(drawn, seed):
    embeddings, ids = drawn
    draws = bootstrap_weights(ids, replicates=4, seed=seed)
    nodes = np.unique(np.random.default_rng(seed).integers(0, LEVELS, size=6))
    first, second = np.triu_indices(len(ids), k=1)
    truth = np.zeros((4, len(nodes) + 1))
    for i, j in zip(first, second):
        if ids[i] != ids[j]:
            a, b = embeddings[i].astype(float), embeddings[j].astype(float)
            key = int(np.floor((a @ b / np.sqrt((a @ a) * (b @ b)) + 1) * STEPS + 0.5))
            weight = draws.weights[:, draws.unit[i]] * draws.weights[:, draws.unit[j]]
            truth[:, (nodes <= key).sum()] += weight
    assert np.array_equal(AllPairs(embeddings, ids, bootstrap=draws).impostor_weights(nodes), truth)
    assert np.array_equal(ListedPairs(embeddings, ids, first, second, bootstrap=draws).impostor_weights(nodes), truth)


def test_subjects_of_a_group_are_resampled_together_and_are_impostors_of_each_other():
    rng = np.random.default_rng(4)
    embeddings = rng.choice([-1.0, 1.0], size=(40, 16)).astype(np.float32)
    ids = np.array([f"p{i // 2:02d}" for i in range(40)])
    group = np.array([int(name[1:]) % 7 for name in ids])
    draws = BootstrapWeights(group, rng.integers(0, 3, size=(3, 7)).astype(np.float32), 20)
    total = AllPairs(embeddings, ids, bootstrap=draws).impostor_weights(np.array([STEPS]))
    weight = draws.weights[:, group]
    pairs = [(i, j) for i, j in itertools.combinations(range(40), 2) if ids[i] != ids[j]]
    assert total.sum(axis=1) == pytest.approx(sum(weight[:, i] * weight[:, j] for i, j in pairs))


def test_a_nan_embedding_is_rejected(rejected):
    embeddings = np.ones((3, 4), np.float32)
    embeddings[1, 2] = np.nan
    with rejected("subject b", "NaN"):
        AllPairs(embeddings, np.array(["a", "b", "c"]))


def test_the_reason_for_undefined_verification():
    embeddings = np.eye(3, 4, dtype=np.float32)
    assert "only one subject" in AllPairs(embeddings, np.array(["a", "a", "a"])).score().undefined_reason
    assert "no subject has two sessions" in AllPairs(embeddings, np.array(["a", "b", "c"])).score().undefined_reason
    assert "fewer than two sessions" in AllPairs(embeddings[:1], np.array(["a"])).score().undefined_reason
    assert AllPairs(embeddings, np.array(["a", "a", "c"])).score().undefined_reason == ""


def test_embeddings_of_length_0_have_the_cosine_0_with_all():
    comparisons = AllPairs(np.zeros((3, 4), np.float32), np.array(["a", "a", "b"])).score()
    assert comparisons.scale.scores(comparisons.genuine_levels).tolist() == [0]
    assert comparisons.scale.scores(comparisons.impostor_levels).tolist() == [0]


def test_listed_pairs_reject_an_infinite_embedding():
    with pytest.raises(InputError, match="NaN or infinite"):
        ListedPairs(np.full((2, 2), np.inf, np.float32), np.array(["a", "b"]), np.array([0]), np.array([1]))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("noise", [0.0, 1e-6, 1e-5])
def test_products_that_are_some_last_bits_beyond_1_lose_no_pair(seed, noise):
    rng = np.random.default_rng(seed)
    embeddings = (rng.standard_normal(256) + noise * rng.standard_normal((18, 256))).astype(np.float32)
    embeddings *= rng.uniform(0.1, 10, size=(18, 1)).astype(np.float32)
    ids = np.repeat(list("abcdef"), 3)
    first, second = np.triu_indices(18, k=1)
    for measure in ("cosine", "euclidean"):
        draws = bootstrap_weights(ids, replicates=3)
        for one in (AllPairs(embeddings, ids, measure, draws), ListedPairs(embeddings, ids, first, second, measure, draws)):
            comparisons = one.score()
            assert (comparisons.impostor_count, len(comparisons.genuine_levels)) == (135, 18)
            assert comparisons.impostor_levels.max() < LEVELS
            assert compute_roc(comparisons).fmr[-1] == 1
            assert (one.impostor_weights(np.array([STEPS])).sum(axis=1) > 0).all()
