"""Stratified allocation of subjects and sessions to parts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fr_ps.data.stratify import SessionAllocator, allocate_subjects, combined_labels, count_strata


def long_tail(subjects: int, labels: int, seed: int) -> np.ndarray:
    """(subjects, labels) numbers of sessions: few subjects have most of them, and some labels are rare."""
    rng = np.random.default_rng(seed)
    counts = np.ceil(rng.pareto(0.8, subjects) + 0.5).clip(max=subjects).astype(int)
    shares = rng.dirichlet([5, 2, 1, 0.2][:labels])
    return np.stack([rng.multinomial(count, rng.dirichlet(20 * shares)) for count in counts])


def distance(counts: np.ndarray, part: np.ndarray, sizes: list[int]) -> float:
    """Share of the sessions that must change parts for every part to have its share of every label."""
    got = np.stack([counts[part == index].sum(axis=0) for index in range(len(sizes))])
    expected = np.array(sizes)[:, None] / len(counts) * counts.sum(axis=0)
    return float(np.abs(got - expected).sum() / 2 / counts.sum())


@given(st.lists(st.integers(1, 15), min_size=1, max_size=5), st.integers(1, 4), st.integers(0, 9))
def test_parts_have_exactly_their_size(sizes, labels, seed):
    counts = long_tail(sum(sizes), labels, seed)
    part = allocate_subjects(counts, sizes, np.random.default_rng(seed))
    assert np.bincount(part, minlength=len(sizes)).tolist() == sizes


def test_parts_are_closer_to_the_whole_than_those_of_a_random_draw():
    sizes = [120, 40, 40]
    ours, plain = [], []
    for seed in range(20):
        counts = long_tail(200, 4, seed)
        ours.append(distance(counts, allocate_subjects(counts, sizes, np.random.default_rng(seed)), sizes))
        plain.append(distance(counts, np.random.default_rng(seed).permutation(np.repeat([0, 1, 2], sizes)), sizes))
    assert np.mean(ours) < 0.3 * np.mean(plain)


def test_every_subject_can_be_in_every_part():
    counts = long_tail(200, 4, 0)
    largest = int(counts.sum(axis=1).argmax())
    tested = np.stack([allocate_subjects(counts, [160, 40], np.random.default_rng(seed)) == 1 for seed in range(60)])
    together = np.mean([np.mean(a[b]) for a in tested for b in tested if a is not b])
    assert 0.15 < together < 0.3  # 0.2 by chance
    assert 0.03 < tested[:, largest].mean() < 0.6


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=12), min_size=1, max_size=20), st.integers(2, 4))
def test_every_slot_of_every_subject_is_filled_once(subjects, parts):
    allocator = SessionAllocator(parts, np.bincount(np.concatenate(subjects), minlength=4))
    for index, combined in enumerate(subjects):
        slots = (index + np.arange(len(combined))) % parts
        part = allocator.allocate(np.array(combined), slots)
        assert sorted(part.tolist()) == sorted(slots.tolist())


def test_each_part_gets_its_share_of_every_label_with_different_subjects():
    rng = np.random.default_rng(0)
    subjects = [rng.choice(4, size=rng.integers(4, 20), p=[0.6, 0.3, 0.08, 0.02]) for _ in range(200)]
    totals = np.bincount(np.concatenate(subjects), minlength=4)
    allocator = SessionAllocator(4, totals)
    given = np.zeros((4, 4), dtype=int)
    for combined in subjects:
        part = allocator.allocate(combined, (rng.integers(4) + np.arange(len(combined))) % 4)
        np.add.at(given, (part, combined), 1)
    assert (np.abs(given - totals / 4) <= np.maximum(4, 0.03 * totals)).all()


def test_strata_are_combined_labels_and_single_classes():
    codes = np.array([[0, 1], [1, 1], [0, 1], [-1, 0]], dtype=np.int8)
    counts = count_strata(codes, np.array([0, 0, 1, 1]))
    # Combined: (-1, 0), (0, 1), (1, 1); then the first attribute: -1, 0, 1; then the second: 0, 1.
    assert counts.tolist() == [[0, 1, 1, 0, 1, 1, 0, 2], [1, 1, 0, 1, 1, 0, 1, 1]]


def test_combined_labels_are_equal_exactly_where_codes_are():
    codes = np.array([[0, 1], [1, 0], [0, 1], [-1, 1], [1, 0]], dtype=np.int8)
    got = combined_labels(codes)
    assert got.shape == (5,)
    for a in range(5):
        for b in range(5):
            assert (got[a] == got[b]) == (codes[a].tolist() == codes[b].tolist())


def plain_allocation(counts: np.ndarray, sizes: list[int], rng: np.random.Generator) -> np.ndarray:
    """`allocate_subjects` without anything kept between swaps."""
    total, share = counts.sum(axis=0), np.array(sizes) / len(counts)
    part = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    excess = np.stack([counts[part == index].sum(axis=0) for index in range(len(sizes))]) - share[:, None] * total
    for subject in rng.permutation(len(counts)):
        others = rng.choice(len(counts), min(len(counts), 500), replace=False)
        here, there = part[subject], part[others]
        gain = counts[others] - counts[subject]
        change = ((excess[here] + gain) ** 2 - excess[here] ** 2) / (share[here] * total)
        change += ((excess[there] - gain) ** 2 - excess[there] ** 2) / (share[there, None] * total)
        cost = np.where(there == here, 0, change.sum(axis=1))
        best = np.argmin(cost)
        if cost[best] < -1e-9:
            excess[here] += gain[best]
            excess[there[best]] -= gain[best]
            part[subject], part[others[best]] = there[best], here
    return part


@pytest.mark.parametrize(("labels", "most"), [(1, 3), (3, 2), (4, 40)])
def test_known_costs_give_the_same_allocation_as_computing_each(labels, most):
    for seed in range(5):
        counts = np.random.default_rng(seed).integers(0, most, (700, labels)).astype(float) + np.eye(labels)[0]
        sizes = [400, 200, 100]
        found, expected = (one(counts, sizes, np.random.default_rng(seed)) for one in (allocate_subjects, plain_allocation))
        np.testing.assert_array_equal(found, expected)
