"""Scores of all pairs in blocks, against loops over every pair."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from fr_ps.device import full_float32
from fr_ps.errors import InputError
from fr_ps.evaluation.bootstrap import BootstrapWeights, bootstrap_weights
from fr_ps.evaluation.pairwise import pairs
from fr_ps.evaluation.pairwise.pairs import AllPairs, ListedPairs, PairScores
from fr_ps.evaluation.pairwise.roc import compute_roc, roc_auc
from fr_ps.evaluation.pairwise.similarity import LEVELS, STEPS

Impostors = dict[int, int]


@st.composite
def sets(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of 16 values -1 or 1, whose cosines are exact and often equal; and a few subjects in any order."""
    ids = draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=12))
    kinds = draw(st.lists(st.integers(0, 4), min_size=len(ids), max_size=len(ids)))
    rows = np.random.default_rng(draw(st.integers(0, 9))).choice([-1.0, 1.0], size=(5, 16)).astype(np.float32)
    return rows[kinds], np.array(ids)


def by_loops(embeddings: np.ndarray, ids: np.ndarray) -> tuple[Impostors, list[tuple[int, int, int]]]:
    """The number of impostor pairs at each level, and the genuine pairs with their levels."""
    impostors: Impostors = {}
    genuine = []
    for i, j in itertools.combinations(range(len(ids)), 2):
        a, b = embeddings[i].astype(float), embeddings[j].astype(float)
        level = int(np.floor((a @ b / np.sqrt((a @ a) * (b @ b)) + 1) * STEPS + 0.5))
        if ids[i] == ids[j]:
            genuine.append((i, j, level))
        else:
            impostors[level] = impostors.get(level, 0) + 1
    return impostors, genuine


def counts_of(pair_scores: PairScores) -> tuple[Impostors, list[tuple[int, int, int]]]:
    impostors = dict(zip(pair_scores.impostor_levels.tolist(), pair_scores.impostor_counts.tolist()))
    ends = np.sort(np.stack([pair_scores.genuine_first, pair_scores.genuine_second], axis=1), axis=1)
    return impostors, sorted((*pair, level) for pair, level in zip(ends.tolist(), pair_scores.genuine_levels.tolist()))  # type: ignore[misc]


@given(sets())
def test_every_pair_is_counted_once_with_its_level(drawn):
    embeddings, ids = drawn
    assert counts_of(AllPairs(embeddings, ids).score()) == by_loops(embeddings, ids)


@pytest.mark.parametrize("threads", [1, 2])
def test_blocks_of_any_size_on_any_number_of_threads_give_the_same_scores(monkeypatch, threads):
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
            assert counts_of(AllPairs(embeddings, ids).score()) == whole
    finally:
        torch.set_num_threads(before)


def test_more_pairs_than_levels_are_counted_in_a_histogram_with_the_same_result():
    rng = np.random.default_rng(1)
    embeddings = rng.standard_normal((2100, 4)).astype(np.float32)
    ids = np.array([f"p{i % 300:03d}" for i in range(2100)])
    pair_scores = AllPairs(embeddings, ids).score()
    assert LEVELS < 2100 * 2099 // 2
    first, second = np.triu_indices(2100, k=1)
    listed = ListedPairs(embeddings, ids, first, second).score()
    assert pair_scores.impostor_count == listed.impostor_count
    assert len(pair_scores.genuine_levels) == len(listed.genuine_levels) == 300 * 21
    blockwise, one_by_one = (np.repeat(one.impostor_levels, one.impostor_counts) for one in (pair_scores, listed))
    assert np.abs(blockwise - one_by_one).max() <= 1  # a product of another shape may round to the neighbouring level


DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("count", [300, 2100])  # sorted levels, and a histogram
def test_every_device_counts_exact_products_as_numpy_does(device, count):
    rng = np.random.default_rng(5)
    embeddings = rng.choice([-1.0, 1.0], size=(count, 64)).astype(np.float32)
    ids = rng.permutation(np.arange(count) % (count // 3))
    levels = np.floor((embeddings @ embeddings.T / 64 + 1) * STEPS + 0.5).astype(np.int64)
    first, second = np.triu_indices(count, k=1)
    impostor = ids[first] != ids[second]
    draws = bootstrap_weights(ids, replicates=3)
    one = AllPairs(embeddings, ids, bootstrap=draws, device=torch.device(device))
    pair_scores = one.score()
    expected = np.bincount(levels[first, second][impostor], minlength=LEVELS)
    assert np.array_equal(pair_scores.impostor_levels, np.flatnonzero(expected))
    assert np.array_equal(pair_scores.impostor_counts, expected[expected > 0])
    assert len(pair_scores.genuine_levels) == (~impostor).sum()
    assert np.array_equal(pair_scores.genuine_levels, levels[pair_scores.genuine_first, pair_scores.genuine_second])
    thresholds = np.array([STEPS // 2, STEPS, STEPS + STEPS // 4])
    listed = ListedPairs(embeddings, ids, first, second, bootstrap=draws)
    assert np.array_equal(one.impostor_weights(thresholds), listed.impostor_weights(thresholds))


@pytest.mark.parametrize("device", DEVICES)
def test_products_are_in_full_float32_even_if_training_allows_less(device):
    rng = np.random.default_rng(6)
    embeddings = rng.standard_normal((120, 64)).astype(np.float32)
    ids = np.arange(120) % 40
    expected = counts_of(AllPairs(embeddings, ids, device=torch.device(device)).score())
    try:
        torch.backends.cuda.matmul.allow_tf32 = True
        found = counts_of(AllPairs(embeddings, ids, device=torch.device(device)).score())
        assert torch.backends.cuda.matmul.allow_tf32
        with full_float32():
            assert not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    assert found == expected


def test_the_euclidean_score_is_minus_the_distance():
    rng = np.random.default_rng(2)
    embeddings = (rng.standard_normal((30, 8)) * rng.uniform(1, 20, size=(30, 1)) + 100).astype(np.float32)
    ids = np.array(list("abcde") * 6)
    pair_scores = AllPairs(embeddings, ids, "euclidean").score()
    expected = np.linalg.norm(
        embeddings[pair_scores.genuine_first].astype(float) - embeddings[pair_scores.genuine_second], axis=1
    )
    assert pair_scores.scale.scores(pair_scores.genuine_levels) == pytest.approx(-expected, abs=0.02 * pair_scores.scale.radius)
    order = np.argsort(expected)
    assert (np.diff(pair_scores.genuine_levels[order]) <= 1).all()


def with_offset(offset: float, people: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Noisy embeddings of subjects with 5 sessions, all shifted by `offset` times their spread."""
    rng = np.random.default_rng(0)
    own = np.repeat(rng.normal(size=(people, 64)), 5, axis=0) + 2 * rng.normal(size=(5 * people, 64))
    common = rng.normal(size=64)
    common *= offset * np.sqrt(own.var(axis=0).sum()) / np.linalg.norm(common)
    return (own + common).astype(np.float32), np.repeat([f"p{person}" for person in range(people)], 5)


@pytest.mark.parametrize("offset", [0, 1, 10, 100, 1000, 10_000])
def test_the_auc_is_that_of_float64_even_if_embeddings_share_a_large_offset(offset):
    """With a large offset all cosines are near 1: compared directly, all pairs would be at one level and the AUC 0.5."""
    embeddings, ids = with_offset(offset)
    unit = embeddings.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    one, other = np.triu_indices(len(ids), k=1)
    # Minus half the squared distance orders as the cosine does, without its rounding near 1.
    expected = roc_auc_score(ids[one] == ids[other], -np.square(unit[one] - unit[other]).sum(axis=1))
    pair_scores = AllPairs(embeddings, ids).score()
    listed = ListedPairs(embeddings, ids, one, other).score()
    assert 0.7 < expected < 0.95
    assert roc_auc(compute_roc(pair_scores)) == pytest.approx(expected, abs=1e-5)
    assert roc_auc(compute_roc(listed)) == pytest.approx(expected, abs=1e-5)
    cosines = (unit[pair_scores.genuine_first] * unit[pair_scores.genuine_second]).sum(axis=1)
    scale = pair_scores.scale
    assert scale.scores(pair_scores.genuine_levels) == pytest.approx(cosines, abs=2e-6 * scale.radius**2 + 1e-15)
    levels = np.unique(np.random.default_rng(3).integers(0, LEVELS, size=2000))
    assert [scale.threshold_level(float(score)) for score in scale.scores(levels)] == levels.tolist()


def test_equal_embeddings_of_all_subjects_have_an_auc_of_one_half():
    row = np.random.default_rng(1).normal(size=(1, 64)).astype(np.float32)
    pair_scores = AllPairs(np.repeat(row, 40, axis=0), np.repeat(list("abcdefgh"), 5)).score()
    assert roc_auc(compute_roc(pair_scores)) == 0.5
    assert pair_scores.scale.scores(pair_scores.genuine_levels) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("measure", ["cosine", "euclidean"])
def test_a_threshold_converted_to_a_score_and_back_is_the_same_level(measure):
    rng = np.random.default_rng(3)
    scale = AllPairs(rng.standard_normal((9, 5)).astype(np.float32), np.array(list("aabbccdde")), measure).score().scale
    levels = np.unique(rng.integers(0, LEVELS, size=2000))
    assert [scale.threshold_level(float(score)) for score in scale.scores(levels)] == levels.tolist()


@given(sets(), st.integers(0, 5))
def test_the_weight_of_an_impostor_pair_is_the_product_of_the_draws_of_its_subjects(drawn, seed):
    embeddings, ids = drawn
    draws = bootstrap_weights(ids, replicates=4, seed=seed)
    thresholds = np.unique(np.random.default_rng(seed).integers(0, LEVELS, size=6))
    first, second = np.triu_indices(len(ids), k=1)
    expected = np.zeros((4, len(thresholds) + 1))
    for i, j in zip(first, second):
        if ids[i] != ids[j]:
            a, b = embeddings[i].astype(float), embeddings[j].astype(float)
            level = int(np.floor((a @ b / np.sqrt((a @ a) * (b @ b)) + 1) * STEPS + 0.5))
            weight = draws.weights[:, draws.unit[i]] * draws.weights[:, draws.unit[j]]
            expected[:, (thresholds <= level).sum()] += weight
    assert np.array_equal(AllPairs(embeddings, ids, bootstrap=draws).impostor_weights(thresholds), expected)
    assert np.array_equal(ListedPairs(embeddings, ids, first, second, bootstrap=draws).impostor_weights(thresholds), expected)


def test_subjects_of_a_unit_are_resampled_together_and_are_impostors_of_each_other():
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
    pair_scores = AllPairs(np.zeros((3, 4), np.float32), np.array(["a", "a", "b"])).score()
    assert pair_scores.scale.scores(pair_scores.genuine_levels).tolist() == [0]
    assert pair_scores.scale.scores(pair_scores.impostor_levels).tolist() == [0]


def test_listed_pairs_reject_an_infinite_embedding():
    with pytest.raises(InputError, match="NaN or infinite"):
        ListedPairs(np.full((2, 2), np.inf, np.float32), np.array(["a", "b"]), np.array([0]), np.array([1]))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("noise", [0.0, 1e-6, 1e-5])
def test_no_pair_is_lost_if_products_are_a_few_last_bits_above_1(seed, noise):
    rng = np.random.default_rng(seed)
    embeddings = (rng.standard_normal(256) + noise * rng.standard_normal((18, 256))).astype(np.float32)
    embeddings *= rng.uniform(0.1, 10, size=(18, 1)).astype(np.float32)
    ids = np.repeat(list("abcdef"), 3)
    first, second = np.triu_indices(18, k=1)
    for measure in ("cosine", "euclidean"):
        draws = bootstrap_weights(ids, replicates=3)
        for one in (AllPairs(embeddings, ids, measure, draws), ListedPairs(embeddings, ids, first, second, measure, draws)):
            pair_scores = one.score()
            assert (pair_scores.impostor_count, len(pair_scores.genuine_levels)) == (135, 18)
            assert pair_scores.impostor_levels.max() < LEVELS
            assert compute_roc(pair_scores).fmr[-1] == 1
            assert (one.impostor_weights(np.array([STEPS])).sum(axis=1) > 0).all()
