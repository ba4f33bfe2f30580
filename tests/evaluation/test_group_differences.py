"""Differences within the classes of an attribute, against scikit-learn on the same sessions."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fr_ps.data.labels import ATTRIBUTES, Labels, read_labels
from fr_ps.evaluation.compare_models import group_differences
from fr_ps.evaluation.evaluate_predictions import LabelledPredictions
from fr_ps.models.inference import Predictions


@pytest.fixture(scope="module")
def labels(prepared: Path) -> Labels:
    return read_labels(prepared / "labels.csv")


def scored(labels: Labels, noise: float, seed: int) -> LabelledPredictions:
    """People apart from each other, with so much noise."""
    rng = np.random.default_rng(seed)
    names, person = np.unique(labels.ids, return_inverse=True)
    embeddings = np.random.default_rng(0).normal(size=(len(names), 16))[person] + noise * rng.normal(size=(len(labels), 16))
    return LabelledPredictions(Predictions(embeddings.astype(np.float32), {}), labels)


def auc(one: LabelledPredictions, rows: np.ndarray) -> float:
    unit = one.predictions.embeddings[rows] / np.linalg.norm(one.predictions.embeddings[rows], axis=1, keepdims=True)
    first, second = np.triu_indices(len(rows), 1)
    ids = one.labels.ids[rows]
    return float(roc_auc_score(ids[first] == ids[second], (unit @ unit.T)[first, second]))


def test_each_is_the_difference_of_the_aucs_among_the_sessions_of_a_class(labels: Labels) -> None:
    first, second = scored(labels, 1.0, 1), scored(labels, 3.0, 3)
    found = {one.name: one for one in group_differences(first, second)}
    expected = {}
    for column, attribute in enumerate(ATTRIBUTES):
        for code, name in enumerate(labels.class_names(attribute)):
            rows = np.flatnonzero(labels.codes[:, column] == code)
            counts = np.unique(labels.ids[rows], return_counts=True)[1]
            if len(counts) >= 2 and counts.max() >= 2:
                expected[f"groups/{attribute}/{name}/identity/auc"] = auc(first, rows), auc(second, rows)
    assert set(found) == set(expected)
    for name, (one, other) in expected.items():
        assert (found[name].first, found[name].second) == pytest.approx((one, other), abs=1e-6)


def test_a_model_differs_from_itself_in_no_group(labels: Labels) -> None:
    one = scored(labels, 2.0, 1)
    assert all(found.value == 0 and found.better == "neither" for found in group_differences(one, one))
