"""Errors by class, against loops over every pair of sessions."""

import math
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fr_ps.data.labels import ATTRIBUTES, DEFAULT_CLASSES, Labels
from fr_ps.errors import InputError
from fr_ps.evaluation.analyses import groups
from fr_ps.evaluation.analyses.groups import GroupCounts, group_counts, group_section
from fr_ps.evaluation.bootstrap import BootstrapWeights, bootstrap_weights
from fr_ps.evaluation.metrics import ReportSection
from fr_ps.evaluation.pairwise.similarity import similarity_scorer

CLASSES = (2, 3)
MATRICES = ("impostors", "false_matches", "genuine", "false_non_matches")


def accepted(one: np.ndarray, other: np.ndarray, threshold: float) -> bool:
    """True if the cosine reaches the threshold; computed in float64 and rounded to steps of 2^-20."""
    cosine = float(one @ other) / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-12)
    return math.floor(cosine * 2**20 + 0.5) >= math.ceil(threshold * 2**20 - 1e-6)


def by_loops(
    embeddings: np.ndarray, ids: np.ndarray, codes: np.ndarray, classes: int, threshold: float, weights: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """The four matrices of one attribute; a session counts as often as its subject was drawn, and a copy is no impostor."""
    weights = np.ones(len(ids)) if weights is None else weights
    counts = {name: np.zeros((classes, classes)) for name in MATRICES}
    for i in range(len(ids)):
        for j in range(i):
            if min(codes[i], codes[j]) < 0:
                continue
            same, match = ids[i] == ids[j], accepted(embeddings[i], embeddings[j], threshold)
            cells = {(codes[i], codes[j]), (codes[j], codes[i])}
            for cell in cells:
                weight = weights[i] if same else weights[i] * weights[j]
                counts["genuine" if same else "impostors"][cell] += weight
                counts["false_non_matches"][cell] += weight * (same and not match)
                counts["false_matches"][cell] += weight * (match and not same)
    return counts


@st.composite
def sessions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A few embeddings of small whole numbers: many cosines are equal, and some embeddings are zero."""
    count = draw(st.integers(1, 10))
    embeddings = draw(st.lists(st.tuples(*[st.integers(-2, 2)] * 2), min_size=count, max_size=count))
    ids = draw(st.lists(st.sampled_from("dacb"), min_size=count, max_size=count))
    codes = [draw(st.lists(st.integers(-1, most - 1), min_size=count, max_size=count)) for most in CLASSES]
    return np.array(embeddings, dtype=np.float32), np.array(ids), np.array(codes, dtype=np.int8).T


def assert_same(one: list[GroupCounts], other: list[GroupCounts]) -> None:
    for counts, expected in zip(one, other, strict=True):
        for field in fields(GroupCounts):
            np.testing.assert_array_equal(getattr(counts, field.name), getattr(expected, field.name), field.name)


@given(sessions(), st.sampled_from([-1.0, -0.5, 0.0, 0.6, 0.8, 1.0]))
def test_the_counts_are_those_of_loops_over_every_pair(data: tuple[np.ndarray, np.ndarray, np.ndarray], threshold: float) -> None:
    embeddings, ids, codes = data
    assume(similarity_scorer(embeddings, ids).scale.radius == 1)  # else a cosine at the threshold itself may round to either side
    for column, counts in enumerate(group_counts(embeddings, ids, codes, CLASSES, threshold)):
        expected = by_loops(embeddings, ids, codes[:, column], CLASSES[column], threshold)
        for name in MATRICES:
            np.testing.assert_array_equal(getattr(counts, name), expected[name], name)
        for code in range(CLASSES[column]):
            of_class = ids[codes[:, column] == code]
            number = np.unique(of_class, return_counts=True)[1]
            assert (counts.sessions[code], counts.subjects[code]) == (len(of_class), len(number))
            assert counts.mated_subjects[code] == (number > 1).sum()


@given(sessions(), st.integers(0, 99), st.integers(1, 4))
def test_a_replicate_weighs_genuine_pairs_w_i_and_impostor_pairs_w_i_w_j_for_any_units(
    data: tuple[np.ndarray, np.ndarray, np.ndarray], seed: int, units: int
) -> None:
    embeddings, ids, codes = data
    rng = np.random.default_rng(seed)
    unit = rng.permutation(4)[np.unique(ids, return_inverse=True)[1]] % units
    weights = rng.integers(0, 4, (5, units)).astype(np.float32)
    draws = BootstrapWeights(unit, weights, len(np.unique(ids)))
    for column, counts in enumerate(group_counts(embeddings, ids, codes, CLASSES, 0.6, draws)):
        for drawn, fmr, fnmr in zip(weights[:, unit], *counts.rates(weights), strict=True):
            expected = by_loops(embeddings, ids, codes[:, column], CLASSES[column], 0.6, drawn)
            for found, errors, trials in ((fmr, "false_matches", "impostors"), (fnmr, "false_non_matches", "genuine")):
                with np.errstate(invalid="ignore"):
                    np.testing.assert_allclose(found, (expected[errors] / expected[trials]).diagonal(), atol=1e-6)


def example(people: int = 40, each: int = 5, seed: int = 0, noise: float = 0.8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    ids = np.repeat([f"p{person:03d}" for person in rng.permutation(people)], each)
    means = np.repeat(rng.normal(size=(people, 6)), each, axis=0)
    embeddings = (means + noise * rng.normal(size=means.shape)).astype(np.float32)
    order = rng.permutation(len(ids))
    codes = np.stack([rng.integers(-1, most, len(ids)) for most in CLASSES], axis=1).astype(np.int8)
    return embeddings[order], ids[order], codes


def test_the_size_of_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, ids, codes = example()
    draws = bootstrap_weights(ids, replicates=3)
    whole = group_counts(embeddings, ids, codes, CLASSES, 0.5, draws)
    assert all(counts.false_matches.all() and counts.false_non_matches.all() for counts in whole)
    for block, columns in ((1, 512), (7, 512), (64, 5), (512, 16), (33, 33)):
        monkeypatch.setattr(groups, "BLOCK_COLUMNS", columns)
        assert_same(group_counts(embeddings, ids, codes, CLASSES, 0.5, draws, block), whole)


def test_the_order_of_the_sessions_changes_nothing() -> None:
    embeddings, ids, codes = example()
    order = np.random.default_rng(1).permutation(len(ids))
    original = group_counts(embeddings, ids, codes, CLASSES, 0.5, bootstrap_weights(ids, replicates=3))
    shuffled = group_counts(
        embeddings[order], ids[order], codes[order], CLASSES, 0.5, bootstrap_weights(ids[order], replicates=3)
    )
    assert_same(original, shuffled)


def test_the_replicate_with_every_subject_once_gives_the_rates_of_the_counts() -> None:
    embeddings, ids, codes = example()
    for counts in group_counts(embeddings, ids, codes, CLASSES, 0.5, bootstrap_weights(ids, replicates=2)):
        fmr, fnmr = counts.rates(np.ones((1, 40), np.float32))
        np.testing.assert_allclose(fmr[0], (counts.false_matches / counts.impostors).diagonal())
        np.testing.assert_allclose(fnmr[0], (counts.false_non_matches / counts.genuine).diagonal())


def test_without_sessions_there_are_no_pairs() -> None:
    (counts,) = group_counts(np.zeros((0, 3), np.float32), np.empty(0, str), np.zeros((0, 1), np.int8), [2], 0.5)
    assert not counts.impostors.any()
    assert np.isnan(counts.rates(np.ones((1, 1), np.float32))).all()


def labels_of(ids: np.ndarray, **codes: np.ndarray) -> Labels:
    """Labels with these attributes; all others are missing."""
    table = np.stack([codes.get(attribute, np.full(len(ids), -1)) for attribute in ATTRIBUTES], axis=1).astype(np.int8)
    return Labels(ids, np.arange(len(ids)).astype(str), table, DEFAULT_CLASSES, "raw", {"id": ids})


def cells(section: ReportSection, name: str) -> list[dict[str, object]]:
    (table,) = [table for table in section.tables if table.name == name]
    assert all(len(row) == len(table.header) for row in table.rows)
    return [dict(zip(table.header, row)) for row in table.rows]


def test_the_section_has_the_rates_of_the_classes_with_intervals_and_the_ratio_of_the_worst_to_the_best() -> None:
    embeddings, ids, _ = example(people=80)
    person = np.unique(ids, return_inverse=True)[1]
    labels = labels_of(ids, gender=person % 2, emotion=np.arange(len(ids)) % 3 - 1)
    # One class is harder: its subjects are closer to each other and its sessions differ more.
    women = (person % 2 == 0)[:, None]
    rng = np.random.default_rng(0)
    embeddings = np.where(women, embeddings + 0.8 + rng.normal(size=embeddings.shape), embeddings).astype(np.float32)
    draws = bootstrap_weights(ids, replicates=300)
    section = group_section(embeddings, labels, 0.7, "validation", draws)
    for column, attribute in ((0, "gender"), (4, "emotion")):
        expected = by_loops(embeddings, ids, labels.codes[:, column], 2, 0.7)
        rows = [row for row in cells(section, "groups") if row["attribute"] == attribute]
        assert [row["class"] for row in rows] == labels.class_names(attribute)  # type: ignore[arg-type]
        for code, row in enumerate(rows):
            assert row["sessions"] == (labels.codes[:, column] == code).sum()
            assert row["subjects"] == len(np.unique(ids[labels.codes[:, column] == code]))
            for rate, errors, trials in (
                ("FMR", "false_matches", "impostors"),
                ("FNMR", "false_non_matches", "genuine"),
            ):
                assert row[rate] == expected[errors][code, code] / expected[trials][code, code]
                assert row[f"{rate} low"] < row[rate] < row[f"{rate} high"]  # type: ignore[operator]
            assert row["false matches"] == expected["false_matches"][code, code]
            assert row["of genuine pairs"] == expected["genuine"][code, code]
        (across,) = [row for row in cells(section, "cross_groups") if row["attribute"] == attribute]
        assert (across["class"], across["other class"]) == tuple(labels.class_names(attribute))  # type: ignore[arg-type]
        assert across["false matches"] == expected["false_matches"][0, 1]
        assert across["FMR"] == expected["false_matches"][0, 1] / expected["impostors"][0, 1]
        for rate in ("FMR", "FNMR"):
            both = sorted(row[rate] for row in rows)  # type: ignore[type-var]
            assert section.metrics.values[f"groups/{attribute}/{rate.lower()}_ratio"] == pytest.approx(both[1] / both[0])  # type: ignore[operator]
    low, high = section.metrics.intervals["groups/gender/fnmr_ratio"]
    assert 1 < low < section.metrics.values["groups/gender/fnmr_ratio"] < high  # type: ignore[operator]
    low, high = section.metrics.intervals["groups/emotion/fnmr_ratio"]
    assert low < 1 < high
    assert not section.metrics.reasons.keys() & {"groups/gender/fmr_ratio", "groups/gender/fnmr_ratio"}
    assert "cosine 0.7000 (validation)" in section.tables[0].note
    assert set(section.figures) == {"groups"}


def test_a_ratio_without_two_classes_or_without_an_error_in_the_best_one_is_undefined() -> None:
    axes = np.eye(4, dtype=np.float32)
    ids = np.array(["a", "a", "b", "b", "c", "c", "d", "d"])
    # a and b match each other, c and d match no other subject; there is no false non-match.
    embeddings = axes[[0, 0, 0, 0, 1, 1, 2, 2]]
    gender, emotion = np.array([0, 0, 0, 0, 1, 1, 1, 1]), np.array([0, 0, 0, 0, 0, 0, 1, 1])
    labels = labels_of(ids, gender=gender, emotion=emotion, pose=np.zeros(8), facial_hair=np.array([0, 0, 0, -1, -1, -1, -1, -1]))
    section = group_section(embeddings, labels, 0.5, "test", bootstrap_weights(ids, replicates=200))
    values, reasons = section.metrics.values, section.metrics.reasons
    assert set(values) == {f"groups/{attribute}/{rate}_ratio" for attribute in ATTRIBUTES for rate in ("fmr", "fnmr")}
    assert set(values.values()) == {None}
    assert reasons["groups/gender/fmr_ratio"] == (
        "the best class has no false match: 0 of 4 impostor pairs of 'male', 4 of 4 impostor pairs of 'female'"
    )
    assert reasons["groups/pose/fmr_ratio"] == "only class 'frontal' has impostor pairs"
    assert reasons["groups/emotion/fmr_ratio"] == "only class 'blankstare' has impostor pairs"
    assert reasons["groups/spectacles/fnmr_ratio"] == "no class has genuine pairs"
    rows = {(row["attribute"], row["class"]): row for row in cells(section, "groups")}
    assert rows["emotion", "other"]["FMR"] is None  # one subject
    assert rows["emotion", "other"]["FNMR"] == 0
    assert (rows["gender", "female"]["FMR"], rows["gender", "male"]["FMR"]) == (1, 0)
    # No error among two subjects bounds the rate at 1 - 0.05^(1 / 2).
    assert rows["gender", "male"]["FNMR high"] == pytest.approx(1 - 0.05**0.5)
    assert rows["facial_hair", "none"]["subjects"] == 2
    assert rows["facial_hair", "none"]["FNMR high"] == pytest.approx(0.95)  # one of them has one session
    assert ("pose", "turned") not in rows


def test_fewer_than_30_errors_are_low_support() -> None:
    embeddings, ids, _ = example(people=12)
    labels = labels_of(ids, gender=np.unique(ids, return_inverse=True)[1] % 2)
    section = group_section(embeddings, labels, 0.8, "test", None)
    name = "groups/gender/fmr_ratio"
    assert section.metrics.values[name] is not None
    assert section.metrics.reasons[name].startswith("low support: ")
    assert not section.metrics.intervals
    assert all(row["FMR low"] is None for row in cells(section, "groups"))


def test_classes_with_the_same_rate_have_the_ratio_1_and_an_interval_around_it() -> None:
    embeddings, ids, _ = example(people=40)
    embeddings, ids = np.tile(embeddings, (2, 1)), np.concatenate([ids, np.char.add("q", ids)])
    labels = labels_of(ids, gender=np.arange(len(ids)) // (len(ids) // 2))
    metrics = group_section(embeddings, labels, 0.6, "test", bootstrap_weights(ids, replicates=200)).metrics
    assert metrics.values["groups/gender/fmr_ratio"] == 1
    low, high = metrics.intervals["groups/gender/fmr_ratio"]
    assert low < 0.95
    assert high > 1.05


def test_a_ratio_of_classes_in_which_all_are_errors_has_no_interval() -> None:
    embeddings, ids, _ = example(people=40)
    labels = labels_of(ids, gender=np.unique(ids, return_inverse=True)[1] % 2)
    metrics = group_section(embeddings, labels, 1.0, "test", bootstrap_weights(ids, replicates=50)).metrics
    assert metrics.values["groups/gender/fnmr_ratio"] == 1
    assert "groups/gender/fnmr_ratio" not in metrics.intervals


def test_without_labels_there_is_no_row_and_no_figure() -> None:
    embeddings, ids, _ = example(people=4)
    section = group_section(embeddings, labels_of(ids), 0.5, "test", bootstrap_weights(ids, replicates=20))
    assert cells(section, "groups") == cells(section, "cross_groups") == []
    assert not section.figures
    assert set(section.metrics.values.values()) == {None}


def test_a_nan_embedding_is_rejected() -> None:
    embeddings, ids, codes = example(people=4)
    embeddings[3, 1] = np.nan
    with pytest.raises(InputError, match=ids[3]):
        group_counts(embeddings, ids, codes, CLASSES, 0.5)
