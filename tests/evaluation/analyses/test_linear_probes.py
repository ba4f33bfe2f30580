"""Linear probes against leave-one-subject-out fits of scikit-learn, and against chance."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import LeaveOneGroupOut, StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler, normalize

from fr_ps.data.labels import ATTRIBUTES, DEFAULT_CLASSES, Labels
from fr_ps.evaluation.analyses import linear_probes
from fr_ps.evaluation.analyses.linear_probes import (
    PENALTIES,
    PERMUTATIONS,
    LinearProbeResult,
    _folds,
    _permuted,
    linear_probe,
    linear_probe_section,
)
from tests.conftest import AssertRejected

GENDERS = ["female", "male"]


def faces(people: int, sessions: int, channels: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings that separate subjects, and the subject of each."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), sessions)
    embeddings = rng.normal(size=(people, channels))[person] + 0.5 * rng.normal(size=(len(person), channels))
    return embeddings.astype(np.float32), np.array([f"p{number:03d}" for number in person])


def subject_codes(ids: np.ndarray, seed: int = 0) -> np.ndarray:
    """Codes of two classes, the same for all sessions of a subject; each class has half of the subjects."""
    names, person = np.unique(ids, return_inverse=True)
    return (np.random.default_rng(seed).permutation(len(names)) < len(names) // 2).astype(np.int8)[person]


def table(ids: np.ndarray, **codes: np.ndarray) -> Labels:
    sessions = np.array([f"s{row:04d}" for row in range(len(ids))])
    columns = [codes.get(name, np.full(len(ids), -1)) for name in ATTRIBUTES]
    return Labels(ids, sessions, np.stack(columns, axis=1).astype(np.int8), DEFAULT_CLASSES, "raw", {})


def by_refitting(embeddings: np.ndarray, codes: np.ndarray, ids: np.ndarray, classes: int, seed: int) -> float:
    """The AUC of the probe, with scikit-learn fits for every penalty and left-out subject."""
    aucs = []
    folds = min(5, *(len(set(ids[codes == code])) for code in range(classes)))
    for code in [1] if classes == 2 else range(classes):
        target = (codes == code).astype(float)
        weighted, pairs = 0.0, 0
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        for fitted, scored in splitter.split(codes, codes, ids):
            scaler = StandardScaler().fit(normalize(embeddings[fitted].astype(float)))
            known, new = (scaler.transform(normalize(embeddings[rows].astype(float))) for rows in (fitted, scored))
            centred = target[fitted] - target[fitted].mean()
            models = [Ridge(penalty * len(fitted), fit_intercept=False) for penalty in PENALTIES]
            errors = [
                sum(
                    np.sum((centred[out] - model.fit(known[rest], centred[rest]).predict(known[out])) ** 2)
                    for rest, out in LeaveOneGroupOut().split(known, centred, ids[fitted])
                )
                for model in models
            ]
            scores = models[int(np.argmin(errors))].fit(known, centred).predict(new).round(9)
            count = int(target[scored].sum()) * int((1 - target[scored]).sum())
            if count:
                weighted += count * roc_auc_score(target[scored], scores)
                pairs += count
        aucs.append(weighted / pairs)
    return float(np.mean(aucs))


@pytest.mark.parametrize(("channels", "classes"), [(4, 2), (60, 2), (60, 3)])
def test_auc_equals_that_of_probes_refitted_without_each_subject(channels: int, classes: int) -> None:
    rng = np.random.default_rng(channels + classes)
    ids = np.repeat([f"p{number:02d}" for number in range(11)], rng.integers(1, 5, size=11))
    names, person = np.unique(ids, return_inverse=True)
    codes = rng.integers(0, classes, size=len(ids))
    embeddings = rng.normal(size=(len(names), channels))[person] + rng.normal(size=(len(ids), channels))
    embeddings[:, :2] += codes[:, None] / 2
    for first, second in ((0, 1), (10, 20), (22, 5)):
        embeddings[first] = embeddings[second]  # ties
    found = linear_probe(embeddings, codes, ids, ["a", "b", "c"][:classes], seed=3)
    assert found.auc == pytest.approx(by_refitting(embeddings, codes, ids, classes, 3), abs=1e-12)


@pytest.mark.parametrize("varying", [False, True])
def test_random_labels_are_at_chance_and_their_p_value_is_uniform(varying: bool) -> None:
    aucs, means, p_values = [], [], []
    for seed in range(60):
        embeddings, ids = faces(20, 3, 8, seed)
        codes = subject_codes(ids, seed)
        if varying:  # as spectacles: some subjects always wear them, some never, some sometimes
            rng = np.random.default_rng(seed)
            codes = (rng.random(len(ids)) < np.repeat(rng.beta(0.5, 0.5, size=20), 3)).astype(int)
        found = linear_probe(embeddings, codes, ids, GENDERS, seed)
        assert found.auc is not None
        aucs.append(found.auc)
        means.append(found.chance_mean)
        p_values.append(found.p_value)
    for values in (aucs, means):
        assert abs(np.mean(values) - 0.5) < 4 * np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(means) - 0.5) < 0.01
    assert np.mean(np.array(p_values) <= 0.1) <= 0.2  # 0.1 expected, of 60
    assert 0.35 < np.mean(np.array(p_values) <= 0.5) < 0.65


def test_an_attribute_in_one_channel_is_predicted_perfectly() -> None:
    embeddings, ids = faces(20, 3, 16)
    codes = subject_codes(ids)
    embeddings[:, 5] = 20.0 * codes - 10
    found = linear_probe(embeddings, codes, ids, GENDERS)
    assert found.auc == 1
    assert found.subjects == (10, 10)
    assert found.chance_95 is not None
    assert found.chance_95 < 0.9
    assert found.p_value == 1 / (PERMUTATIONS + 1)


def test_the_auc_of_three_classes_is_the_one_vs_rest_mean() -> None:
    ids = np.repeat([f"p{number:02d}" for number in range(30)], 4)
    codes = np.repeat(np.arange(30) % 3, 4)
    found = linear_probe(np.eye(2)[(codes == 2).astype(int)], codes, ids, ["a", "b", "c"])
    # The third class is separated from the others, which tie: of their pairs with negatives, half are correct and half tie.
    assert found.auc == pytest.approx((1 + 0.75 + 0.75) / 3)
    assert found.subjects == (10, 10, 10)


def test_subject_specific_information_does_not_help_on_other_subjects() -> None:
    ids = np.repeat([f"p{number:02d}" for number in range(12)], 4)
    found = linear_probe(np.repeat(np.eye(12), 4, axis=0), subject_codes(ids), ids, GENDERS)
    assert found.auc == 0.5
    assert found.p_value == 1


def test_equal_embeddings_tie() -> None:
    _, ids = faces(10, 3, 1)
    found = linear_probe(np.full((30, 7), 0.1, dtype=np.float32), subject_codes(ids), ids, GENDERS)
    assert found.auc == found.chance_mean == found.chance_95 == 0.5
    assert found.p_value == 1


def test_length_has_no_influence_and_unknown_labels_are_left_out() -> None:
    embeddings, ids = faces(12, 4, 8)
    codes = subject_codes(ids)
    codes[::5] = -1
    codes[:4] = -1
    whole = linear_probe(embeddings, codes, ids, GENDERS)
    known = codes >= 0
    longer = 2.0 ** np.random.default_rng(0).integers(-3, 4, size=(len(ids), 1)).astype(np.float32) * embeddings
    part = linear_probe(longer[known], codes[known], ids[known], GENDERS)
    assert sum(whole.subjects) == 11
    assert part.auc == whole.auc
    assert np.array_equal(part.chance, whole.chance)


def test_permuted_labels_are_those_of_another_subject_of_the_fold() -> None:
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(30), 4)
    codes = rng.integers(0, 3, size=len(person))
    shuffle = rng.permutation(len(person))
    person, codes = person[shuffle], codes[shuffle]
    fold = _folds(codes, person, 5, 0)
    drawn = _permuted(codes, person, fold, rng)
    assert drawn.shape == (len(person), PERMUTATIONS)

    def labels_in_fold(column: np.ndarray, number: int) -> list[tuple[int, ...]]:
        """The sorted labels of each subject of a fold."""
        subjects = np.unique(person[fold == number])
        return [tuple(sorted(column[person == subject].tolist())) for subject in subjects]

    moved = 0
    for column, number in itertools.product(drawn.T, range(5)):
        assert sorted(labels_in_fold(column, number)) == sorted(labels_in_fold(codes, number))
        moved += labels_in_fold(column, number) != labels_in_fold(codes, number)
    assert moved > 400  # of 500
    assert len(np.unique(drawn, axis=1).T) == PERMUTATIONS


def test_permuted_labels_are_cut_or_repeated_for_unequal_numbers_of_sessions() -> None:
    person = np.repeat([0, 1], [2, 5])
    codes = np.array([0, 1, 2, 3, 4, 5, 6])
    drawn = _permuted(codes, person, np.zeros(7, dtype=int), np.random.default_rng(0))
    exchanged = drawn[:, drawn[0] > 1]
    assert 20 < exchanged.shape[1] < 80
    for column in exchanged.T:
        assert len(set(column[:2].tolist())) == 2
        assert set(column[:2].tolist()) <= {2, 3, 4, 5, 6}
        assert sorted(column[2:].tolist()) in ([0, 0, 0, 1, 1], [0, 0, 1, 1, 1])
    unchanged = drawn[:, drawn[0] < 2]
    assert (np.sort(unchanged, axis=0) == codes[:, None]).all()


def test_labels_that_are_constant_within_subjects_stay_so() -> None:
    rng = np.random.default_rng(1)
    person = np.repeat(np.arange(20), rng.integers(1, 9, size=20))
    codes = (rng.random(20) < 0.5).astype(int)[person]
    for column in _permuted(codes, person, _folds(codes, person, 4, 0), rng).T:
        assert all(len(set(column[person == one].tolist())) == 1 for one in range(20))


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(-1, 2)), min_size=1, max_size=25), st.integers(1, 5))
def test_any_small_table_gives_numbers_in_range_or_a_reason(rows: list[tuple[int, int]], channels: int) -> None:
    person, codes = (np.array(column) for column in zip(*rows))
    embeddings = np.random.default_rng(channels).integers(-1, 2, size=(len(rows), channels)).astype(np.float32)
    found = linear_probe(embeddings, codes, person.astype(str), ["a", "b", "c"])
    if found.auc is None:
        assert found.reason
        assert found.chance_mean is found.chance_95 is found.p_value is None
    else:
        assert min(found.subjects) >= 2
        assert not found.reason
        assert 0 <= found.auc <= 1
        assert ((found.chance >= 0) & (found.chance <= 1)).all()
        assert found.p_value is not None
        assert 1 / (PERMUTATIONS + 1) <= found.p_value <= 1


def test_two_subjects_of_each_class_are_enough() -> None:
    ids = np.repeat(["a", "b", "c", "d"], 3)
    codes = np.repeat([0, 0, 1, 1], 3)
    found = linear_probe(np.eye(2)[codes], codes, ids, GENDERS)
    assert found.auc == 1
    assert found.p_value is not None
    assert found.p_value > 0.1  # there are only four permutations


def test_the_p_value_counts_permutations_at_least_as_good_and_the_labels_themselves() -> None:
    found = LinearProbeResult((5, 5), 0.7, np.array([0.4, 0.7, 0.6, 0.9]))
    assert found.p_value == 3 / 5
    assert found.chance_mean == pytest.approx(0.65)
    assert found.chance_95 == pytest.approx(0.7 + 0.85 * 0.2)  # between the third and fourth of four


def test_the_section_has_every_attribute_with_reasons_for_undefined_ones() -> None:
    embeddings, ids = faces(12, 4, 8)
    one_person = np.where(ids == "p003", 1, 0)
    labels = table(
        ids, gender=subject_codes(ids), spectacles=np.zeros(len(ids)), facial_hair=one_person, pose=np.arange(len(ids)) % 2
    )
    found = linear_probe_section(embeddings, labels)
    metrics = found.metrics
    assert list(metrics.values) == [f"probe/{task}/{name}" for task in ATTRIBUTES for name in ("auc", "chance_auc_95")]
    assert set(metrics.defined()) == {f"probe/{task}/{name}" for task in ("gender", "pose") for name in ("auc", "chance_auc_95")}
    assert metrics.reasons["probe/emotion/auc"] == "no labels"
    assert metrics.reasons["probe/spectacles/chance_auc_95"].endswith("yes has 0")
    assert metrics.reasons["probe/facial_hair/auc"].endswith("any has 1")
    [shown] = found.tables
    assert shown.name == "probes"
    assert all(len(row) == len(shown.header) for row in shown.rows)
    gender = next(row for row in shown.rows if row[0] == "gender")
    assert gender[1] == "female 6, male 6"
    assert gender[2] == metrics.values["probe/gender/auc"]
    assert gender[4] == metrics.values["probe/gender/chance_auc_95"]
    assert next(row for row in shown.rows if row[0] == "emotion")[2:] == [None] * 4


def test_the_order_of_rows_has_no_influence_and_the_seed_has() -> None:
    embeddings, ids = faces(12, 4, 8)
    labels = table(ids, gender=subject_codes(ids))
    order = np.random.default_rng(0).permutation(len(ids))
    first = linear_probe_section(embeddings, labels).metrics.values
    assert linear_probe_section(embeddings[order], labels.subset(order)).metrics.values == first
    assert linear_probe_section(embeddings, labels, seed=1).metrics.values != first


def test_many_sessions_are_sampled_by_subject_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_probes, "MAX_SESSIONS", 60)
    embeddings, ids = faces(40, 4, 8)
    [shown] = linear_probe_section(embeddings, table(ids, gender=subject_codes(ids))).tables
    assert "A random sample of 60 of up to 160 labelled sessions, by subject, is used." in shown.note
    counts = [int(word.split()[1]) for word in str(shown.rows[0][1]).split(", ")]
    assert sum(counts) == 15
    assert sum(linear_probe(embeddings, subject_codes(ids), ids, GENDERS, seed=1).subjects) == 15


def test_a_bad_embedding_is_rejected(rejected: AssertRejected) -> None:
    embeddings, ids = faces(12, 4, 8)
    embeddings[9, 3] = np.nan
    with rejected("p002", "NaN"):
        linear_probe(embeddings, subject_codes(ids), ids, GENDERS)
