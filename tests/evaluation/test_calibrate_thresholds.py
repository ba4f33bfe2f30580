"""Thresholds calibrated on validation, against loops over every score."""

import math
from pathlib import Path

import numpy as np
import pytest

from fr_ps.data.labels import ATTRIBUTES, DEFAULT_CLASSES, Labels
from fr_ps.evaluation.calibrate_thresholds import calibrate_thresholds
from fr_ps.evaluation.metrics import LOW_SUPPORT
from fr_ps.evaluation.pairwise.pairs import AllPairs
from fr_ps.evaluation.pairwise.roc import FMR_POINTS
from fr_ps.evaluation.pairwise.similarity import STEPS
from fr_ps.models.inference import Predictions
from fr_ps.models.thresholds import Thresholds, read_thresholds, write_thresholds
from tests.conftest import AssertRejected

THREE = {"blankstare": ["blankstare"], "positive": ["positive"], "negative": ["negative", "emoOther"]}


def example(people: int = 20, sessions: int = 4, noise: float = 1.0, seed: int = 0) -> tuple[Predictions, Labels]:
    """Predictions and labels. Emotion has three classes, the others two; all poses are of one class; some labels are missing."""
    rng = np.random.default_rng(seed)
    count = people * sessions
    ids = rng.permutation(np.repeat([f"p{i:02d}" for i in range(people)], sessions))
    person = np.unique(ids, return_inverse=True)[1]
    codes = rng.integers(-1, 2, size=(count, len(ATTRIBUTES))).astype(np.int8)
    codes[:, ATTRIBUTES.index("pose")] = 0
    labels = Labels(ids, np.array([f"s{i}" for i in range(count)]), codes, {**DEFAULT_CLASSES, "emotion": THREE}, "raw", {})
    centres = rng.normal(size=(people, 16))[person]
    probabilities = {}
    for column, attribute in enumerate(ATTRIBUTES):
        positive = np.clip(0.4 + 0.1 * codes[:, column] + 0.2 * rng.normal(size=count), 0.01, 0.99).round(2)
        shares = (1 - positive, positive) if attribute != "emotion" else (1 - positive, positive / 2, positive / 2)
        probabilities[attribute] = np.stack(shares, axis=1).astype(np.float32)
    embeddings = (centres + noise * rng.normal(size=centres.shape)).astype(np.float32)
    return Predictions(embeddings, probabilities), labels


def calibrated(people: int = 20, sessions: int = 4) -> Thresholds:
    return calibrate_thresholds(*example(people, sessions), ATTRIBUTES)


def impostor_scores(predictions: Predictions, labels: Labels) -> np.ndarray:
    """Float64 cosines of the impostor pairs, growing."""
    rows = predictions.embeddings.astype(float)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    first, second = np.triu_indices(len(rows), k=1)
    return np.sort((rows @ rows.T)[first, second][labels.ids[first] != labels.ids[second]])


@pytest.mark.parametrize(("people", "sessions"), [(20, 4), (6, 3), (30, 10)])
def test_every_identity_threshold_is_the_smallest_with_at_most_its_fmr(people: int, sessions: int) -> None:
    predictions, labels = example(people, sessions)
    scores = impostor_scores(predictions, labels)
    found = calibrate_thresholds(predictions, labels, ATTRIBUTES).identity
    assert [point.fmr for point in found] == [rate for rate in FMR_POINTS if rate * len(scores) >= 1]
    for point in found:
        allowed = math.floor(point.fmr * len(scores) + 1e-9)
        first_too_many = scores[-allowed - 1]
        assert first_too_many < point.threshold <= first_too_many + 3 / STEPS
        assert point.false_matches == (scores >= point.threshold).sum() == allowed
        assert point.impostors == len(scores)
        assert (point.support == "") == (point.fmr * len(scores) >= LOW_SUPPORT)


def test_with_tied_scores_a_threshold_may_have_fewer_false_matches_than_allowed() -> None:
    """All 16 impostor pairs of two subjects have the cosine 0: at FMR 0.1 none may match."""
    predictions, labels = example(2, 4)
    person = np.unique(labels.ids, return_inverse=True)[1]
    (point,) = calibrate_thresholds(
        Predictions(np.eye(2, 3, dtype=np.float32)[person], predictions.probabilities), labels, ()
    ).identity
    assert (point.fmr, point.false_matches, point.impostors) == (0.1, 0, 16)
    assert 0 < point.threshold <= 2 / STEPS


def balanced_accuracy(probabilities: np.ndarray, codes: np.ndarray, threshold: float) -> float:
    positive = probabilities.astype(float) >= threshold
    return (positive[codes == 1].mean() + (~positive)[codes == 0].mean()) / 2


@pytest.mark.parametrize("attribute", ["gender", "spectacles", "facial_hair"])
def test_the_threshold_of_an_attribute_has_the_highest_balanced_accuracy(attribute: str) -> None:
    predictions, labels = example()
    codes, probabilities = labels.codes[:, ATTRIBUTES.index(attribute)], predictions.probabilities[attribute][:, 1]
    best = max(balanced_accuracy(probabilities, codes, threshold) for threshold in np.arange(0, 1.005, 0.005) + 0.0025)
    assert balanced_accuracy(probabilities, codes, calibrated().attributes[attribute]) == pytest.approx(best)


def test_attributes_with_three_classes_or_with_labels_of_one_class_have_no_threshold() -> None:
    assert set(calibrated().attributes) == {"gender", "spectacles", "facial_hair"}


def test_attributes_that_were_not_trained_have_no_threshold() -> None:
    assert set(calibrate_thresholds(*example(), ["gender", "pose"]).attributes) == {"gender"}
    assert calibrate_thresholds(*example(), []).attributes == {}


def test_validation_subjects_and_sessions_are_counted() -> None:
    assert (calibrated(11, 3).people, calibrated(11, 3).sessions) == (11, 33)


@pytest.mark.parametrize(("people", "sessions"), [(9, 1), (1, 9), (1, 1)])
def test_without_genuine_or_impostor_pairs_only_attributes_have_thresholds(people: int, sessions: int) -> None:
    found = calibrated(people, sessions)
    assert found.identity == ()
    assert ("gender" in found.attributes) == (people * sessions > 1)
    assert found.strictest is None


def test_a_stored_threshold_gives_the_same_false_matches(tmp_path: Path) -> None:
    predictions, labels = example()
    thresholds = calibrate_thresholds(predictions, labels, ATTRIBUTES)
    write_thresholds(tmp_path, thresholds)
    assert read_thresholds(tmp_path) == thresholds
    pair_scores = AllPairs(predictions.embeddings, labels.ids).score()
    for point in thresholds.identity:
        level = pair_scores.scale.threshold_level(point.threshold)
        assert pair_scores.impostor_counts[pair_scores.impostor_levels >= level].sum() == point.false_matches


def test_nan_and_infinite_predictions_are_rejected(rejected: AssertRejected) -> None:
    predictions, labels = example()
    predictions.embeddings[3, 1] = np.nan
    with rejected(f"subject {labels.ids[3]}", "NaN"):
        calibrate_thresholds(predictions, labels, [])
    predictions, labels = example()
    predictions.probabilities["gender"][3] = np.inf
    with rejected("NaN or infinite in 1 of 80 sessions"):
        calibrate_thresholds(predictions, labels, ATTRIBUTES)
