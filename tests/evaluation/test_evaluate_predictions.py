"""All analyses together: sections, thresholds and warnings for different subjects, pairs and galleries."""

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score

from fr_ps.data.dataset import Dataset, open_dataset
from fr_ps.data.labels import ATTRIBUTES, DEFAULT_CLASSES, Labels
from fr_ps.evaluation.analyses.attributes import METRIC_NAMES
from fr_ps.evaluation.evaluate_predictions import EvaluationResult, LabelledPredictions, evaluate_predictions, validation_metrics
from fr_ps.evaluation.pairwise.pair_list import PairList
from fr_ps.evaluation.pairwise.ten_fold import draw_folds, ten_fold_accuracy
from fr_ps.models.inference import Predictions
from fr_ps.models.thresholds import Thresholds, ValidationThreshold
from fr_ps.report.table import Table
from tests.conftest import AssertRejected

SECTIONS = ["Verification", "Identification", "Attributes", "Quality", "Groups", "Embeddings", "Linear probes"]
ACCURACY = ("identity/accuracy_10fold", "identity/accuracy_10fold_se")
LOW = "low support: 4.5 expected false matches of 45 impostor pairs"
SUPPORTED = ValidationThreshold(0.01, 0.5, 40, 4000, "")


def scored(ids: list[str], labelled: bool = False, seed: int = 0) -> LabelledPredictions:
    """Sessions of subjects; centre and attributes of a subject depend only on its name."""
    rng, names = np.random.default_rng(seed), np.array(ids)
    centres = {name: np.random.default_rng(list(name.encode())).normal(size=12) for name in ids}
    embeddings = np.array([centres[name] for name in ids]) + 1.2 * rng.normal(size=(len(ids), 12))
    codes = np.full((len(ids), 5), -1, np.int8)
    if labelled:
        codes = np.array([np.random.default_rng(list(name.encode())).integers(0, 2, size=5) for name in ids], np.int8)
    positive = rng.uniform(0.01, 0.99, size=len(ids)).astype(np.float32)
    answers = Predictions(embeddings.astype(np.float32), dict.fromkeys(ATTRIBUTES, np.stack([1 - positive, positive], axis=1)))
    return LabelledPredictions(
        answers, Labels(names, np.array([f"s{i}" for i in range(len(ids))]), codes, DEFAULT_CLASSES, "raw", {})
    )


def people(count: int, sessions: int) -> list[str]:
    return [f"p{i:02d}" for i in range(count)] * sessions


def thresholds(*points: ValidationThreshold) -> Thresholds:
    return Thresholds(9, 30, points, {"gender": 0.4})


def cosines(rows: np.ndarray) -> np.ndarray:
    unit = rows.astype(float) / np.linalg.norm(rows.astype(float), axis=1, keepdims=True)
    return unit @ unit.T


def table(result: EvaluationResult, section: str, name: str) -> Table:
    (found,) = [one for one in result.sections[section].tables if one.name == name]
    return found


def threshold_and_source(result: EvaluationResult) -> tuple[float, str]:
    """The threshold of the section quality, which must be that of the section groups, and its source."""
    name, threshold, _, _, source = table(result, "Quality", "quality").rows[0]
    assert name == "threshold"
    if result.sections["Groups"].tables:
        assert any(str(source) in one.note for one in result.sections["Groups"].tables)
    return threshold, source  # type: ignore[return-value]


@pytest.fixture(scope="module")
def whole() -> EvaluationResult:
    return evaluate_predictions(scored(people(24, 4), labelled=True), ATTRIBUTES, thresholds(SUPPORTED))


def test_an_evaluation_draws_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a figure was drawn")

    monkeypatch.setattr(Figure, "__init__", fail)
    found = evaluate_predictions(scored(people(6, 2), labelled=True), ATTRIBUTES, None)
    assert found.sections["Verification"].figures
    with pytest.raises(AssertionError, match="a figure was drawn"):
        found.sections["Verification"].figures["roc"]()


def test_every_analysis_has_its_section(whole: EvaluationResult) -> None:
    assert list(whole.sections) == SECTIONS
    assert whole.sections["Embeddings"].figures
    for title in set(SECTIONS) - {"Embeddings"}:
        assert whole.sections[title].tables, title
        assert whole.sections[title].metrics.values, title
    assert all(whole.sections[title].figures for title in SECTIONS[:-1])
    assert {name.split("/")[0] for name in whole.metrics.values} == {"identity", *ATTRIBUTES, "quality", "groups", "probe"}


def test_the_metrics_are_those_of_all_sections_and_every_name_is_in_one_section(whole: EvaluationResult) -> None:
    names = [name for section in whole.sections.values() for name in section.metrics.values]
    assert sorted(names) == sorted(whole.metrics.values)
    files = [table.name for section in whole.sections.values() for table in section.tables]
    assert len(set(files)) == len(files)
    figures = [name for section in whole.sections.values() for name in section.figures]
    assert len(set(figures)) == len(figures)
    assert all(reason for reason in whole.metrics.reasons.values())


def test_headline_metrics_are_within_their_intervals(whole: EvaluationResult) -> None:
    for name in ("identity/auc", "identity/auc_person_balanced", "identity/eer", "identity/rank1", "gender/auc"):
        low, high = whole.metrics.intervals[name]
        assert low <= whole.metrics.values[name] <= high
        assert low < high
    assert whole.bootstrap.subjects == 24


def test_identity_metrics_equal_scikit_learn_and_a_loop(whole: EvaluationResult) -> None:
    ids, score = whole.tested.labels.ids, cosines(whole.tested.predictions.embeddings)
    first, second = np.triu_indices(len(ids), k=1)
    genuine = ids[first] == ids[second]
    assert whole.metrics.values["identity/auc"] == pytest.approx(roc_auc_score(genuine, score[first, second]), abs=1e-5)
    np.fill_diagonal(score, -2)
    nearest = ids[score.argmax(axis=1)]
    assert whole.metrics.values["identity/rank1"] == pytest.approx((nearest == ids).mean())
    folds = draw_folds(ids, first[genuine], second[genuine])
    same = ids[folds.first] == ids[folds.second]
    truth = ten_fold_accuracy(score[folds.first, folds.second], same, folds.fold).values
    assert [whole.metrics.values[name] for name in ACCURACY] == pytest.approx(list(truth.values()))


def test_the_thresholds_of_validation_are_applied(whole: EvaluationResult) -> None:
    ids, score = whole.tested.labels.ids, cosines(whole.tested.predictions.embeddings)
    first, second = np.triu_indices(len(ids), k=1)
    accepted, genuine = score[first, second] >= SUPPORTED.threshold, ids[first] == ids[second]
    assert whole.metrics.values["identity/fmr_at_val_far_0.01"] == pytest.approx(accepted[~genuine].mean())
    assert whole.metrics.values["identity/fnmr_at_val_far_0.01"] == pytest.approx((~accepted[genuine]).mean())
    attributes = table(whole, "Attributes", "attributes")
    rows = {row[0]: dict(zip(attributes.header, row)) for row in attributes.rows}
    assert (rows["gender"]["threshold"], rows["gender"]["threshold from"]) == (0.4, "validation")
    assert (rows["pose"]["threshold"], rows["pose"]["threshold from"]) == (None, "most probable class")


def test_the_same_predictions_give_the_same_metrics() -> None:
    one, again = (evaluate_predictions(scored(people(5, 3)), [], None).metrics for _ in range(2))
    assert one.values == again.values
    assert one.intervals == again.intervals


@pytest.mark.parametrize(
    ("ids", "why"),
    [
        (["a"] * 4, "no impostor pair: only one subject"),
        (["a", "b", "c", "d"], "no genuine pair: no subject has two sessions"),
        (["a"], "no pair: fewer than two sessions"),
    ],
    ids=["one person", "one session each", "one session"],
)
def test_without_verification_all_identity_metrics_are_undefined_with_the_reason(ids: list[str], why: str) -> None:
    found = evaluate_predictions(scored(ids, labelled=True), ATTRIBUTES, thresholds(SUPPORTED))
    assert list(found.sections) == SECTIONS
    metrics = found.metrics
    plain = evaluate_predictions(scored(ids, labelled=True), ATTRIBUTES, None).metrics
    for name in ("quality/edc_pauc", "groups/gender/fmr_ratio", "groups/pose/fnmr_ratio"):
        assert name in metrics.values  # a threshold from validation gives false non-matches without impostors
        assert plain.values[name] is None
        assert plain.reasons[name] == why
    for name in ("identity/auc", "identity/auc_person_balanced", "identity/eer", *ACCURACY):
        assert metrics.values[name] is None
        assert metrics.reasons[name] == why
    for name in ("identity/rank1", "identity/rank5"):
        assert metrics.values[name] is None
        assert metrics.reasons[name]
    assert f"verification is undefined: {why}" in found.warnings
    assert not [name for name in metrics.values if "at_val" in name or "tar_at" in name]
    assert metrics.values["gender/ece"] is not None


def test_untrained_tasks_are_undefined() -> None:
    metrics = evaluate_predictions(scored(people(6, 1), labelled=True), ["gender"], None).metrics
    assert metrics.values["spectacles/auc"] is None
    assert metrics.reasons["spectacles/auc"].startswith("not trained")
    assert metrics.values["gender/ece"] is not None


def test_probes_are_searched_in_the_gallery_and_only_the_test_sessions_are_verified() -> None:
    tested, gallery = scored(people(8, 2)), scored(["p00", "p00", "p01", "p02", "p03", "p04", "p05", "x", "y"], seed=1)
    found = evaluate_predictions(tested, [], None, gallery=gallery)
    assert found.gallery_search.probes.tolist() == list(range(16))
    assert found.gallery_search.gallery is not None
    assert found.gallery_search.gallery.tolist() == list(range(16, 25))
    rows = np.vstack([tested.predictions.embeddings, gallery.predictions.embeddings])
    score = cosines(rows)[:16, 16:]
    mated = np.isin(tested.labels.ids, gallery.labels.ids)
    correct = gallery.labels.ids[score.argmax(axis=1)] == tested.labels.ids
    assert mated.sum() == 12
    assert found.metrics.values["identity/rank1"] == pytest.approx(correct[mated].mean())
    alone = evaluate_predictions(tested, [], None)
    assert found.metrics.values["identity/auc"] == alone.metrics.values["identity/auc"]
    assert len(found.pair_scores.genuine_levels) == 8
    low, high = found.metrics.intervals["identity/rank1"]
    assert low <= correct[mated].mean() <= high
    assert "9 enrolled sessions of 8 subjects" in table(found, "Identification", "identification").note


def test_a_gallery_of_other_subjects_leaves_identification_undefined_with_the_reason() -> None:
    metrics = evaluate_predictions(scored(people(6, 2)), [], None, gallery=scored(["x", "y", "y"])).metrics
    assert metrics.values["identity/rank1"] is None
    assert "enrolled" in metrics.reasons["identity/rank1"]
    assert metrics.values["identity/auc"] is not None


def listed(tested: LabelledPredictions, fold: np.ndarray | None, count: int = 120) -> PairList:
    first, second = np.triu_indices(len(tested.labels), k=1)
    order = np.random.default_rng(0).permutation(len(first))
    genuine = tested.labels.ids[first] == tested.labels.ids[second]
    some = np.concatenate([order[genuine[order]][: count // 3], order[~genuine[order]][: count - count // 3]])
    return PairList(second[some], first[some], fold)


@pytest.mark.parametrize("fold", [None, np.zeros(120, int), np.arange(120) % 7], ids=["none", "one", "seven"])
def test_only_the_listed_pairs_are_verified_and_their_folds_are_those_of_the_accuracy(fold: np.ndarray | None) -> None:
    tested = scored(people(12, 5))
    pairs = listed(tested, fold)
    found = evaluate_predictions(tested, [], None, pair_list=pairs)
    score = cosines(tested.predictions.embeddings)[pairs.first, pairs.second]
    genuine = tested.labels.ids[pairs.first] == tested.labels.ids[pairs.second]
    assert found.metrics.values["identity/auc"] == pytest.approx(roc_auc_score(genuine, score), abs=1e-5)
    assert (len(found.pair_scores.genuine_levels), found.pair_scores.impostor_count) == (40, 80)
    assert found.pair_list is pairs
    values = [found.metrics.values[name] for name in ACCURACY]
    if fold is None or len(set(fold)) < 2:
        assert values == [None, None]
        assert all("no column fold" in found.metrics.reasons[name] for name in ACCURACY)
    else:
        assert values == pytest.approx(list(ten_fold_accuracy(score, genuine, fold).values.values()))


@pytest.mark.parametrize(("kind", "missing"), [(True, "impostor"), (False, "genuine")])
def test_a_list_without_genuine_or_impostor_pairs_is_undefined_and_the_reason_names_the_list(kind: bool, missing: str) -> None:
    tested = scored(people(6, 3))
    first, second = np.triu_indices(18, k=1)
    some = (tested.labels.ids[first] == tested.labels.ids[second]) == kind
    found = evaluate_predictions(tested, [], None, pair_list=PairList(first[some], second[some], None))
    assert found.metrics.values["identity/auc"] is None
    assert found.metrics.reasons["identity/auc"].startswith(f"no {missing} pair")
    assert "list" in found.metrics.reasons["identity/auc"]
    assert found.metrics.reasons[ACCURACY[0]] == found.metrics.reasons["identity/auc"]
    assert found.metrics.values["identity/rank1"] is not None


def test_below_twenty_subjects_with_two_sessions_the_accuracy_is_undefined_with_the_reason() -> None:
    metrics = evaluate_predictions(scored(people(19, 2)), [], None).metrics
    assert [metrics.values[name] for name in ACCURACY] == [None, None]
    assert "19 subjects" in metrics.reasons[ACCURACY[0]]
    assert evaluate_predictions(scored(people(20, 2)), [], None).metrics.values[ACCURACY[0]] is not None


def test_euclidean_distance_is_used_for_verification_and_quality_only_with_a_warning() -> None:
    tested = scored(people(10, 3))
    tested.predictions.embeddings[:] *= np.linspace(1, 4, 30, dtype=np.float32)[:, None]
    found = evaluate_predictions(tested, [], thresholds(SUPPORTED), measure="euclidean")
    assert list(found.sections) == SECTIONS
    assert found.metrics.values["groups/gender/fmr_ratio"] is None
    assert "by cosine" in found.metrics.reasons["groups/gender/fmr_ratio"]
    first, second = np.triu_indices(30, k=1)
    rows, ids = tested.predictions.embeddings.astype(float), tested.labels.ids
    truth = roc_auc_score(ids[first] == ids[second], -np.linalg.norm(rows[first] - rows[second], axis=1))
    assert found.metrics.values["identity/auc"] == pytest.approx(truth, abs=1e-5)
    assert any("Euclidean distance" in warning for warning in found.warnings)
    assert not [name for name in found.metrics.values if "at_val" in name]
    score = cosines(rows)
    np.fill_diagonal(score, -2)
    assert found.metrics.values["identity/rank1"] == pytest.approx((ids[score.argmax(axis=1)] == ids).mean())
    threshold, source = threshold_and_source(found)
    assert threshold < 0
    assert source.startswith("from these test sessions at FMR ")
    assert source.endswith("the thresholds from validation are cosines")


def test_below_fifty_subjects_there_is_a_warning() -> None:
    few, enough = (evaluate_predictions(scored(people(count, 1)), [], None).warnings for count in (49, 50))
    assert [warning.split(":")[0] for warning in few] == ["only 49 test subjects", "verification is undefined"]
    assert [warning.split(":")[0] for warning in enough] == ["verification is undefined"]


def test_few_distinct_scores_give_a_warning() -> None:
    """All embeddings but one are nearly equal; the opposite one prevents a comparison by differences, so their cosines tie."""
    good = scored(people(50, 3))
    common = good.predictions.embeddings + np.float32(1e5)
    common[0] *= -1
    collapsed = LabelledPredictions(Predictions(common, good.predictions.probabilities), good.labels)
    assert not any("distinct values" in warning for warning in evaluate_predictions(good, [], None).warnings)
    (warning,) = [one for one in evaluate_predictions(collapsed, [], None).warnings if "distinct values" in one]
    assert re.match(r"the 11175 verification scores have only \d+ distinct values", warning)


def test_the_global_threshold_is_the_strictest_of_validation_that_has_support() -> None:
    points = (ValidationThreshold(0.1, 0.2, 300, 4000, ""), SUPPORTED, ValidationThreshold(0.001, 0.7, 4, 4000, LOW))
    found = evaluate_predictions(scored(people(10, 3)), [], thresholds(*points))
    assert threshold_and_source(found) == (0.5, "from validation at FMR 0.01")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (None, "the model has no thresholds from validation"),
        (thresholds(ValidationThreshold(0.1, 0.9, 4, 45, LOW)), "validation has no threshold with support"),
    ],
    ids=["none", "low support"],
)
def test_without_a_threshold_from_validation_the_global_one_comes_from_the_test_sessions(
    given: Thresholds | None, why: str
) -> None:
    tested = scored(people(10, 3))
    threshold, source = threshold_and_source(evaluate_predictions(tested, [], given))
    assert source == f"from these test sessions at FMR 0.1, because {why}"
    score, ids = cosines(tested.predictions.embeddings), tested.labels.ids
    first, second = np.triu_indices(30, k=1)
    impostor = np.sort(score[first, second][ids[first] != ids[second]])
    assert len(impostor) == 405
    assert (impostor >= threshold).sum() == 40
    assert threshold == pytest.approx(impostor[-41], abs=3e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinite_predictions_are_rejected(rejected: AssertRejected, bad: float) -> None:
    tested = scored(people(4, 3), labelled=True)
    tested.predictions.embeddings[5, 2] = bad
    pairs = listed(tested, None, 6)
    for also in ({}, {"pair_list": pairs}, {"measure": "euclidean"}):
        with rejected("subject p01", "NaN or infinite"):
            evaluate_predictions(tested, ATTRIBUTES, None, **also)  # type: ignore[arg-type]
    tested = scored(people(4, 3), labelled=True)
    tested.predictions.probabilities["gender"][3] = bad
    with rejected("probability", "1 of 12 sessions"):
        evaluate_predictions(tested, ATTRIBUTES, None)


def test_nan_in_the_gallery_predictions_is_rejected(rejected: AssertRejected) -> None:
    gallery = scored(["a", "b"])
    gallery.predictions.embeddings[1, 2] = np.nan
    with rejected("subject b", "NaN or infinite"):
        evaluate_predictions(scored(["a", "b", "c"]), [], None, gallery=gallery)


# validation_metrics


@pytest.fixture(scope="module")
def dataset(prepared: Path) -> Dataset:
    return open_dataset(prepared, ["albedo"])


def test_validation_metrics_do_not_depend_on_the_order_of_the_rows() -> None:
    tested = scored(people(8, 3), labelled=True)
    order = np.random.default_rng(0).permutation(24)
    predictions = tested.predictions
    turned = Predictions(predictions.embeddings[order], {task: of[order] for task, of in predictions.probabilities.items()})
    first = validation_metrics(predictions, tested.labels, ATTRIBUTES)
    second = validation_metrics(turned, tested.labels.subset(order), ATTRIBUTES)
    assert second.values.keys() == first.values.keys()
    assert second.defined() == pytest.approx(first.defined(), abs=1e-6)


def oracle(dataset: Dataset, rows: np.ndarray) -> Predictions:
    """Predictions without an error."""
    labels = dataset.labels.subset(rows)
    people = np.unique(labels.ids, return_inverse=True)[1]
    return Predictions(
        np.eye(people.max() + 1, dtype=np.float32)[people],
        {
            task: np.eye(len(labels.class_names(task)), dtype=np.float32)[labels.codes[:, column]]
            for column, task in enumerate(ATTRIBUTES)
        },
    )


def test_all_defined_validation_metrics_of_an_oracle_are_perfect(dataset: Dataset) -> None:
    rows = np.arange(len(dataset.labels))
    found = validation_metrics(oracle(dataset, rows), dataset.labels, ATTRIBUTES)
    defined = found.defined()
    assert {"identity/auc", "identity/rank1", "identity/eer", "identity/auc_person_balanced", "gender/auc"} <= set(defined)
    assert "no variance" in found.reasons["identity/dprime"]  # 1 of all genuine pairs, 0 of all others
    assert all(value == (0 if name.endswith(("eer", "ece")) else 1) for name, value in defined.items())


def test_an_untrained_attribute_is_undefined_with_the_reason(dataset: Dataset) -> None:
    rows = np.arange(len(dataset.labels))
    found = validation_metrics(oracle(dataset, rows), dataset.labels, ["gender"])
    for task in ATTRIBUTES:
        for name in METRIC_NAMES:
            undefined = found.values[f"{task}/{name}"] is None
            assert undefined == (task != "gender")
            if undefined:
                assert "not trained" in found.reasons[f"{task}/{name}"]


@pytest.mark.parametrize("people", ["one", "singles"])
def test_without_genuine_or_impostor_pairs_all_of_identity_is_undefined_with_a_reason(dataset: Dataset, people: str) -> None:
    ids = dataset.labels.ids
    rows = np.flatnonzero(ids == ids[0]) if people == "one" else np.unique(ids, return_index=True)[1]
    found = validation_metrics(oracle(dataset, rows), dataset.labels.subset(rows), ATTRIBUTES)
    identity = {name: value for name, value in found.values.items() if name.startswith("identity/")}
    assert {"identity/auc", "identity/auc_person_balanced", "identity/eer", "identity/rank1"} <= set(identity)
    assert set(identity.values()) == {None}
    assert all(found.reasons[name] for name in identity)
