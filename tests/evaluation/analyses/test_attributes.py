"""Attribute metrics against scikit-learn and by loops; the best threshold against all others."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, balanced_accuracy_score, confusion_matrix, roc_auc_score

from fr_ps.data.labels import ATTRIBUTES, DEFAULT_CLASSES, Labels
from fr_ps.errors import InputError
from fr_ps.evaluation.analyses.attributes import (
    METRIC_NAMES,
    all_attribute_metrics,
    attribute_metrics,
    attributes_section,
    best_threshold,
)
from fr_ps.evaluation.bootstrap import bootstrap_weights

TWO, THREE = ["none", "any"], ["low", "middle", "high"]


def sample(classes: int, count: int = 60, signal: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(classes)
    codes = rng.permutation(np.arange(count) % classes)
    raw = np.exp(rng.normal(size=(count, classes)) + signal * np.eye(classes)[codes])
    return (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32), codes


def by_loops_auc(scores: np.ndarray, positive: np.ndarray) -> float:
    wins = [(p > n) + (p == n) / 2 for p in scores[positive] for n in scores[~positive]]
    return float(np.mean(wins))


def by_loops_ece(confidence: np.ndarray, correct: np.ndarray) -> float:
    bins = np.ceil(confidence.astype(float) * 10)
    return sum(np.mean(bins == b) * abs(np.mean((confidence - correct)[bins == b])) for b in np.unique(bins))


def test_metrics_of_two_classes_equal_scikit_learn_for_the_second_class() -> None:
    probabilities, codes = sample(2)
    values = attribute_metrics(probabilities, codes, TWO).values
    score = probabilities[:, 1]
    assert values["auc"] == pytest.approx(roc_auc_score(codes, score))
    assert values["auc"] == pytest.approx(by_loops_auc(score, codes == 1))
    assert values["average_precision"] == pytest.approx(average_precision_score(codes, score))
    assert values["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(codes, score > 0.5))
    assert values["ece"] == pytest.approx(by_loops_ece(score, codes))
    assert set(values) == set(METRIC_NAMES)


@pytest.mark.parametrize("place", [0, 10, 30, 59])
def test_a_probability_at_the_threshold_is_positive(place: int) -> None:
    probabilities, codes = sample(2)
    threshold = float(probabilities[place, 1])
    found = attribute_metrics(probabilities, codes, TWO, threshold).values
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(codes, probabilities[:, 1] >= threshold))
    assert found | {"balanced_accuracy": 0} == attribute_metrics(probabilities, codes, TWO).values | {"balanced_accuracy": 0}


def test_a_threshold_between_neighbouring_float32_separates_them() -> None:
    low = np.float32(0.3)
    score = np.array([low, np.nextafter(low, np.float32(1))])
    for scores in (score, score + np.spacing(low)):  # in one of the two, the midpoint rounds down to the lower score
        threshold = best_threshold(scores, np.array([0, 1]))
        found = attribute_metrics(np.stack([1 - scores, scores], axis=1), np.array([0, 1]), TWO, threshold)
        assert found.values["balanced_accuracy"] == 1


def test_balanced_accuracy_is_the_mean_of_the_classes_recalls() -> None:
    probabilities, codes = sample(2)
    codes = np.where(np.arange(60) < 45, codes, 0)
    recalls = [np.mean(probabilities[codes == code].argmax(axis=1) == code) for code in (0, 1)]
    assert attribute_metrics(probabilities, codes, TWO).values["balanced_accuracy"] == pytest.approx(np.mean(recalls))


def test_metrics_of_three_classes_are_one_vs_rest_means_and_use_no_threshold() -> None:
    probabilities, codes = sample(3)
    values = attribute_metrics(probabilities, codes, THREE, threshold=0.9).values
    aucs = [by_loops_auc(probabilities[:, code], codes == code) for code in range(3)]
    precisions = [average_precision_score(codes == code, probabilities[:, code]) for code in range(3)]
    chosen = probabilities.argmax(axis=1)
    assert values["auc"] == pytest.approx(np.mean(aucs))
    assert values["average_precision"] == pytest.approx(np.mean(precisions))
    assert values["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(codes, chosen))
    assert values["ece"] == pytest.approx(by_loops_ece(probabilities.max(axis=1), chosen == codes))


def test_inverted_scores_give_one_minus_the_auc() -> None:
    probabilities, codes = sample(2)
    auc = attribute_metrics(probabilities, codes, TWO).values["auc"]
    inverted = attribute_metrics(1 - probabilities, codes, TWO).values["auc"]
    assert auc is not None
    assert auc > 0.7
    assert inverted == pytest.approx(1 - auc, abs=1e-6)


def test_uninformative_scores_give_one_half_even_if_most_predictions_are_right() -> None:
    codes = np.array([0] * 95 + [1] * 5)
    values = attribute_metrics(np.tile(np.array([0.9, 0.1], dtype=np.float32), (100, 1)), codes, TWO).values
    assert values["auc"] == 0.5
    assert values["balanced_accuracy"] == 0.5
    assert values["average_precision"] == pytest.approx(0.05)
    assert values["ece"] == pytest.approx(0.05)


def test_missing_labels_are_left_out() -> None:
    probabilities, codes = sample(2)
    with_missing = np.where(np.arange(60) % 3 == 0, -1, codes)
    known = with_missing >= 0
    assert attribute_metrics(probabilities, with_missing, TWO) == attribute_metrics(probabilities[known], codes[known], TWO)
    assert attribute_metrics(probabilities, with_missing, TWO) != attribute_metrics(probabilities, codes, TWO)


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
def test_with_a_missing_class_only_calibration_is_defined_and_the_reason_names_the_present_classes(
    codes: list[int], names: list[str], words: list[str]
) -> None:
    probabilities = np.full((3, len(names)), 1 / len(names), dtype=np.float32)
    for draws in (None, bootstrap_weights(np.arange(3), 20)):
        metrics = attribute_metrics(probabilities, np.array(codes), names, bootstrap=draws)
        undefined = {name for name, value in metrics.values.items() if value is None}
        assert undefined == set(METRIC_NAMES) - ({"ece"} if max(codes) >= 0 else set())
        for name in undefined:
            assert all(word in metrics.reasons[name] for word in words)
        assert not metrics.replicates


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_is_rejected_with_a_remedy(bad: float) -> None:
    probabilities, codes = sample(2)
    probabilities[3, 1] = bad
    with pytest.raises(InputError, match=r"of none or any is NaN or infinite in 1 of 60 sessions; train with a lower optim\.lr"):
        attribute_metrics(probabilities, codes, TWO)
    with pytest.raises(InputError, match=r"1 of 60 sessions; train with a lower optim\.lr"):
        best_threshold(probabilities[:, 1], codes)


@pytest.mark.parametrize(("classes", "threshold"), [(2, None), (2, 0.4), (3, None)])
def test_each_replicate_is_the_metric_of_its_sessions_repeated(classes: int, threshold: float | None) -> None:
    probabilities, codes = sample(classes)
    probabilities, names = probabilities.round(1), THREE[:classes]  # with ties
    codes = np.where(np.arange(60) % 7 == 0, -1, codes)
    draws = bootstrap_weights(np.arange(60) // 10, 40)  # 6 subjects
    found = attribute_metrics(probabilities, codes, names, threshold, draws)
    assert found.values == attribute_metrics(probabilities, codes, names, threshold).values
    for draw, weights in enumerate(draws.weights[:, draws.unit]):
        rows = np.repeat(np.arange(60), weights.astype(int))
        alone = attribute_metrics(probabilities[rows], codes[rows], names, threshold).values
        for name in found.replicates:
            expected = np.nan if alone[name] is None else alone[name]
            assert found.replicates[name][draw] == pytest.approx(expected, nan_ok=True)


def test_a_replicate_without_a_class_is_nan_and_calibration_has_no_replicates() -> None:
    probabilities, codes = sample(2)
    codes = np.where(np.arange(60) < 10, codes, 0)
    draws = bootstrap_weights(np.arange(60) // 10, 40)
    found = attribute_metrics(probabilities, codes, TWO, bootstrap=draws).replicates
    missing = draws.weights[:, 0] == 0
    assert 0 < missing.sum() < 40
    assert set(found) == set(METRIC_NAMES) - {"ece"}
    for replicates in found.values():
        assert (np.isnan(replicates) == missing).all()


def test_the_bound_of_a_perfect_model_comes_from_the_subjects_of_the_rarest_class() -> None:
    codes = np.repeat([0, 1], [80, 20])
    draws = bootstrap_weights(np.arange(100) // 2)  # 40 and 10 subjects
    found = attribute_metrics(np.eye(2)[codes], codes, TWO, bootstrap=draws)
    for name in ("auc", "balanced_accuracy", "average_precision"):
        assert found.values[name] == 1
        assert found.intervals[name] == pytest.approx((0.05 ** (1 / 10), 1))


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(-1, 1)), min_size=1, max_size=40))
def test_the_best_threshold_has_the_highest_balanced_accuracy_and_of_ties_is_the_nearest_to_one_half(
    sessions: list[tuple[int, int]],
) -> None:
    scores = np.array([score for score, _ in sessions], dtype=np.float32) / np.float32(12)
    codes = np.array([code for _, code in sessions])
    found = best_threshold(scores, codes)
    scores, codes = scores[codes >= 0].astype(float), codes[codes >= 0]
    distinct = sorted(set(scores))
    if len(set(codes)) < 2 or len(distinct) < 2:
        assert found is None
        return
    accuracy = {(a + b) / 2: balanced_accuracy_score(codes, scores >= (a + b) / 2) for a, b in pairwise(distinct)}
    best = [threshold for threshold, value in accuracy.items() if value > max(accuracy.values()) - 1e-9]
    assert found in accuracy
    assert accuracy[found] == pytest.approx(max(accuracy.values()))
    assert abs(found - 0.5) == min(abs(threshold - 0.5) for threshold in best)


def test_perfect_scores_are_separated_midway_between_the_classes() -> None:
    assert best_threshold(np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1])) == pytest.approx(0.5)
    assert best_threshold(np.array([0.01, 0.02, 0.04]), np.array([0, 0, 1])) == pytest.approx(0.03)


def test_a_rare_class_weighs_as_much_as_a_frequent_one() -> None:
    """At 0.75 two predictions are wrong, at 0.25 five, but 0.75 misses half of the rare class."""
    scores = np.array([0.0] * 90 + [0.5] * 5 + [0.5] * 2 + [1.0] * 2)
    assert best_threshold(scores, np.array([0] * 95 + [1] * 4)) == 0.25


def test_neighbouring_float64_are_separated() -> None:
    high = np.nextafter(0.3, 1)
    for low in (0.3, high):
        found = best_threshold(np.array([low, np.nextafter(low, 1)]), np.array([0, 1]))
        assert found is not None
        assert low < found <= np.nextafter(low, 1)


@pytest.mark.parametrize("codes", [[0, 0, 0], [1, 1, 1], [1, -1, 1], [-1, -1, -1]], ids=str)
def test_without_both_classes_there_is_no_threshold(codes: list[int]) -> None:
    assert best_threshold(np.array([0.2, 0.4, 0.6]), np.array(codes)) is None


def test_with_equal_scores_there_is_no_threshold() -> None:
    assert best_threshold(np.full(4, 0.7), np.array([0, 1, 0, 1])) is None


def people_with_labels() -> tuple[dict[str, np.ndarray], Labels]:
    """10 subjects with 4 sessions: gender, three classes of emotion, one class of hair; pose for some sessions, no spectacles."""
    rng = np.random.default_rng(0)
    classes = DEFAULT_CLASSES | {"emotion": {"calm": ["a"], "glad": ["b"], "sad": ["c"]}}
    codes = np.full((40, 5), -1, dtype=np.int8)
    codes[:, ATTRIBUTES.index("gender")] = np.repeat([0, 1], [12, 28])
    codes[:, ATTRIBUTES.index("emotion")] = np.arange(40) % 3
    codes[:, ATTRIBUTES.index("facial_hair")] = 0
    codes[5:25, ATTRIBUTES.index("pose")] = np.arange(20) % 2
    ids, sessions = np.repeat([f"P{k}" for k in range(10)], 4), np.tile(["a", "b", "c", "d"], 10)
    probabilities = {task: rng.dirichlet(np.ones(len(classes[task])), 40).astype(np.float32) for task in ATTRIBUTES}
    return probabilities, Labels(ids, sessions, codes, classes, "raw", {})


def test_the_section_has_the_metrics_of_every_attribute_and_the_reason_for_an_untrained_one() -> None:
    probabilities, labels = people_with_labels()
    draws = bootstrap_weights(labels.ids, 50)
    trained = ["gender", "emotion", "facial_hair", "pose"]
    probabilities["spectacles"][:] = np.nan  # not used
    metrics = attributes_section(probabilities, labels, {"gender": 0.3}, trained, draws).metrics
    assert list(metrics.values) == [f"{task}/{name}" for task in ATTRIBUTES for name in METRIC_NAMES]
    again = all_attribute_metrics(probabilities, labels, {"gender": 0.3}, trained, draws)
    assert (metrics.as_json(), set(metrics.replicates)) == (again.as_json(), set(again.replicates))
    for name in METRIC_NAMES:
        assert metrics.values[f"spectacles/{name}"] is None
        assert metrics.reasons[f"spectacles/{name}"].startswith("not trained: fewer than two classes in the training part")
    column = ATTRIBUTES.index("gender")
    gender = attribute_metrics(probabilities["gender"], labels.codes[:, column], ["female", "male"], 0.3, draws)
    for name in METRIC_NAMES:
        assert metrics.values[f"gender/{name}"] == gender.values[name]
        assert metrics.intervals.get(f"gender/{name}") == gender.intervals.get(name)
    assert metrics.values["facial_hair/auc"] is None
    assert "none" in metrics.reasons["facial_hair/auc"]


def test_the_table_has_subjects_and_thresholds() -> None:
    probabilities, labels = people_with_labels()
    found = attributes_section(probabilities, labels, {"gender": 0.3, "emotion": 0.3}, ["gender", "emotion", "pose"])
    table = found.tables[0]
    assert table.name == "attributes"
    rows = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}
    assert list(rows) == [task.replace("_", " ") for task in ATTRIBUTES]
    assert [rows["gender"][name] for name in table.header[1:5]] == [40, "female 3, male 7", 0.3, "validation"]
    assert [rows["pose"][name] for name in table.header[1:5]] == [20, "frontal 5, turned 6", None, "most probable class"]
    assert [rows["emotion"][name] for name in table.header[2:5]] == ["calm 10, glad 10, sad 10", None, "most probable class"]
    assert list(rows["spectacles"].values()) == ["spectacles", 0, "no 0, yes 0", *[None] * 6]
    assert rows["gender"]["AUC"] == found.metrics.values["gender/auc"]
    assert rows["gender"]["average precision"] == found.metrics.values["gender/average_precision"]
    assert rows["gender"]["balanced accuracy"] == found.metrics.values["gender/balanced_accuracy"]
    assert rows["gender"]["ECE"] == found.metrics.values["gender/ece"]


def test_confusion_matrices_equal_scikit_learn_at_the_threshold_and_a_class_without_sessions_has_no_shares() -> None:
    probabilities, labels = people_with_labels()
    found = attributes_section(probabilities, labels, {"gender": 0.3}, ["gender", "emotion", "facial_hair", "spectacles"])
    tables = {table.name: table for table in found.tables[1:]}
    assert set(tables) == {"confusion_gender", "confusion_emotion", "confusion_facial_hair"}
    gender, emotion = (labels.codes[:, ATTRIBUTES.index(task)] for task in ("gender", "emotion"))
    for name, expected in {
        "gender": confusion_matrix(gender, probabilities["gender"][:, 1] >= 0.3),
        "emotion": confusion_matrix(emotion, probabilities["emotion"].argmax(axis=1)),
    }.items():
        rows, classes = tables[f"confusion_{name}"].rows, len(expected)
        assert [list(row[1 : classes + 1]) for row in rows] == expected.tolist()
        assert [list(row[classes + 1 :]) for row in rows] == (expected / expected.sum(axis=1, keepdims=True)).tolist()
        assert len(tables[f"confusion_{name}"].header) == 2 * classes + 1
    assert [row[0] for row in tables["confusion_gender"].rows] == ["female", "male"]
    assert list(tables["confusion_facial_hair"].rows[1]) == ["any", 0, 0, None, None]


def test_reliability_diagrams_are_those_of_trained_attributes_with_labels() -> None:
    probabilities, labels = people_with_labels()
    found = attributes_section(probabilities, labels, {}, ["gender", "emotion", "spectacles"])
    assert set(found.figures) == {f"{kind}_{name}" for kind in ("confusion", "reliability") for name in ("gender", "emotion")}
    for task in ("gender", "emotion"):
        assert f"{found.metrics.values[f'{task}/ece']:.3f}" in found.figures[f"reliability_{task}"]().axes[0].get_title("left")
