"""Attribute metrics against scikit-learn, and that they can fail."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from fr_ps.evaluation.attributes import NAMES, attribute_metrics

TWO, THREE = ["none", "any"], ["low", "middle", "high"]


def sample(classes: int, count: int = 60, signal: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(classes)
    codes = rng.permutation(np.arange(count) % classes)
    raw = np.exp(rng.normal(size=(count, classes)) + signal * np.eye(classes)[codes])
    return (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32), codes


def by_loops_auc(scores: np.ndarray, positive: np.ndarray) -> float:
    wins = [(p > n) + (p == n) / 2 for p in scores[positive] for n in scores[~positive]]
    return float(np.mean(wins))


def test_two_classes_are_scikit_learns_of_the_second_class() -> None:
    probabilities, codes = sample(2)
    values = attribute_metrics(probabilities, codes, TWO).values
    score = probabilities[:, 1]
    assert values["auc"] == pytest.approx(roc_auc_score(codes, score))
    assert values["auc"] == pytest.approx(by_loops_auc(score, codes == 1))
    assert values["average_precision"] == pytest.approx(average_precision_score(codes, score))
    assert values["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(codes, score > 0.5))
    assert set(values) == set(NAMES)


def test_balanced_accuracy_is_the_mean_of_the_classes_recalls() -> None:
    probabilities, codes = sample(2)
    codes = np.where(np.arange(60) < 45, codes, 0)
    recalls = [np.mean(probabilities[codes == code].argmax(axis=1) == code) for code in (0, 1)]
    assert attribute_metrics(probabilities, codes, TWO).values["balanced_accuracy"] == pytest.approx(np.mean(recalls))


def test_three_classes_are_the_mean_of_each_against_the_rest() -> None:
    probabilities, codes = sample(3)
    values = attribute_metrics(probabilities, codes, THREE).values
    aucs = [by_loops_auc(probabilities[:, code], codes == code) for code in range(3)]
    precisions = [average_precision_score(codes == code, probabilities[:, code]) for code in range(3)]
    assert values["auc"] == pytest.approx(np.mean(aucs))
    assert values["average_precision"] == pytest.approx(np.mean(precisions))
    assert values["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(codes, probabilities.argmax(axis=1)))


def test_inverted_scores_give_one_minus_the_auc() -> None:
    probabilities, codes = sample(2)
    auc = attribute_metrics(probabilities, codes, TWO).values["auc"]
    inverted = attribute_metrics(1 - probabilities, codes, TWO).values["auc"]
    assert auc is not None
    assert auc > 0.7
    assert inverted == pytest.approx(1 - auc, abs=1e-6)


def test_scores_without_information_give_one_half_even_if_most_answers_are_right() -> None:
    """The original's AUC is 1 here."""
    codes = np.array([0] * 95 + [1] * 5)
    values = attribute_metrics(np.tile(np.array([0.9, 0.1], dtype=np.float32), (100, 1)), codes, TWO).values
    assert values["auc"] == 0.5
    assert values["balanced_accuracy"] == 0.5
    assert values["average_precision"] == pytest.approx(0.05)


def test_missing_labels_are_left_out() -> None:
    probabilities, codes = sample(2)
    some = np.where(np.arange(60) % 3 == 0, -1, codes)
    known = some >= 0
    assert attribute_metrics(probabilities, some, TWO) == attribute_metrics(probabilities[known], codes[known], TWO)
    assert attribute_metrics(probabilities, some, TWO) != attribute_metrics(probabilities, codes, TWO)


@pytest.mark.parametrize(
    ("codes", "names", "words"),
    [
        ([0, 0, 0], TWO, ["only class", "none"]),
        ([1, 1, -1], TWO, ["only class", "any"]),
        ([-1, -1, -1], TWO, ["no labels"]),
        ([0, 2, 0], THREE, ["only classes", "low, high"]),
    ],
    ids=str,
)
def test_without_every_class_all_is_undefined_with_a_reason_that_names_those_there(
    codes: list[int], names: list[str], words: list[str]
) -> None:
    probabilities = np.full((3, len(names)), 1 / len(names), dtype=np.float32)
    metrics = attribute_metrics(probabilities, np.array(codes), names)
    assert metrics.values == dict.fromkeys(NAMES)
    for name in NAMES:
        assert all(word in metrics.reasons[name] for word in words)
