"""Weights from counts."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from fr_ps.losses.classification import (
    balanced_alpha,
    balanced_weights,
    gamma_from_counts,
    original_person_weights,
    soft_person_weights,
)


@pytest.mark.parametrize(("counts", "expected"), [([30, 70], [0.7, 0.3]), ([1, 999], [0.999, 0.001]), ([5, 5], [0.5, 0.5])])
def test_of_two_classes_each_weighs_the_frequency_of_the_other(counts: list[int], expected: list[float]) -> None:
    torch.testing.assert_close(balanced_alpha(torch.tensor(counts)), torch.tensor(expected))


def test_the_classes_weigh_the_same_together_whatever_their_counts() -> None:
    counts = torch.tensor([3, 50, 700, 11])
    alpha = balanced_alpha(counts)
    assert alpha.sum().item() == pytest.approx(1)
    torch.testing.assert_close(alpha * counts, torch.full((4,), float((alpha * counts).mean())))


def test_an_absent_class_weighs_nothing() -> None:
    torch.testing.assert_close(balanced_alpha(torch.tensor([10, 0, 30])), torch.tensor([0.75, 0.0, 0.25]))
    torch.testing.assert_close(balanced_weights(torch.tensor([10, 0, 30])), torch.tensor([2.0, 0.0, 2 / 3]))
    assert gamma_from_counts(torch.tensor([10, 0, 10])).tolist() == [0, 0, 0]


@settings(deadline=None)
@given(st.lists(st.integers(1, 300), min_size=2, max_size=6))
def test_balanced_weights_are_those_of_scikit_learn(counts: list[int]) -> None:
    samples = np.repeat(np.arange(len(counts)), counts)
    expected = compute_class_weight("balanced", classes=np.arange(len(counts)), y=samples)
    np.testing.assert_allclose(balanced_weights(torch.tensor(counts)).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("alpha", "gamma"),
    [
        ((0.916, 0.084), (2, 0)),
        ((0.28, 0.72), (0, 1)),
        ((0.3, 0.7), (0, 1)),
        ((0.0263, 0.9737), (0, 2.5)),
        ((0.232, 0.768), (0, 1)),
    ],
    ids=["gender", "spectacles", "facial_hair", "pose", "emotion"],
)
def test_gamma_from_counts_is_close_to_the_values_of_the_original(alpha: tuple[float, float], gamma: tuple[int, int]) -> None:
    counts = torch.tensor([round(1e4 * alpha[1]), round(1e4 * alpha[0])])  # its alpha is the other class's frequency
    got = gamma_from_counts(counts).tolist()
    assert got == pytest.approx(gamma, abs=0.35)
    assert min(got) == 0
    assert max(got) == pytest.approx(math.sqrt(math.log2(max(alpha) / min(alpha))), rel=1e-3)


def test_equal_numbers_of_sessions_weigh_1() -> None:
    for weights in (soft_person_weights, original_person_weights):
        torch.testing.assert_close(weights(torch.tensor([4, 4, 4])), torch.ones(3))


def test_the_originals_weights_run_from_1_down_to_three_tenths() -> None:
    torch.testing.assert_close(original_person_weights(torch.tensor([7, 8])), torch.tensor([1.0, 0.3]))
    sessions = np.array([1, 3, 4, 21])
    rarity = 1 - sessions / sessions.sum()
    expected = 0.3 + 0.7 * (rarity - rarity.min()) / (rarity.max() - rarity.min())
    np.testing.assert_allclose(original_person_weights(torch.from_numpy(sessions)).numpy(), expected, rtol=1e-6)


def test_the_soft_weights_of_7_and_8_sessions_differ_little() -> None:
    torch.testing.assert_close(soft_person_weights(torch.tensor([7, 8, 28])), torch.tensor([1.0, math.sqrt(7 / 8), 0.5]))
