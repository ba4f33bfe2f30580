"""Splits: protocols, folds, stratification, gallery, and predefined files."""

import hashlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fr_ps.config import DataConfig
from fr_ps.data.labels import Labels, read_labels
from fr_ps.data.split_files import PARTS, Split, write_split
from fr_ps.data.splits import describe_split, make_split
from fr_ps.errors import InputError

CLASSES = {"gender": {"female": ["f"], "male": ["m"]}, "pose": {"frontal": ["1"], "turned": ["3"]}}


def labels_of(counts: list[int]) -> Labels:
    ids = np.array([f"p{subject}" for subject, count in enumerate(counts) for _ in range(count)])
    sessions = np.array([f"s{session}" for count in counts for session in range(count)])
    return Labels(ids, sessions, np.zeros((len(ids), 5), dtype=np.int8), CLASSES, "raw", {"id": ids, "session": sessions})


def subjects(labels: Labels, rows: np.ndarray) -> set[str]:
    return set(labels.ids[rows].tolist())


def keys(labels: Labels, rows: np.ndarray) -> set[tuple[str, str]]:
    return set(zip(labels.ids[rows].tolist(), labels.sessions[rows].tolist()))


counts = st.lists(st.integers(1, 12), min_size=6, max_size=25)
shares = st.sampled_from([0, 0.1, 0.2, 0.3, 1, 2])


@given(counts, shares, shares, st.integers(0, 2), st.integers(0, 5), st.sampled_from(["subject_disjoint", "session_disjoint"]))
def test_every_row_is_in_one_part_and_the_protocol_holds(sizes, val, test, gallery, seed, protocol):
    labels = labels_of(sizes)
    config = DataConfig(val_people=val, test_people=test, split_seed=seed, protocol=protocol, gallery=gallery)
    try:
        split = make_split(labels, config)
    except InputError:
        return
    rows = np.concatenate([getattr(split, part) for part in PARTS])
    assert sorted(rows.tolist()) == list(range(len(labels)))
    train = subjects(labels, split.train)
    if protocol == "subject_disjoint":
        assert not train & subjects(labels, split.val)
        assert not train & subjects(labels, np.concatenate([split.test, split.gallery]))
        assert not subjects(labels, split.val) & subjects(labels, split.test)
    else:
        assert train == set(labels.ids.tolist())


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"test_people": 3}, "data.test_people 3"),
        ({"folds": 3}, "data.folds 3"),
        ({"split": "split.csv"}, "data.split split.csv"),
    ],
)
def test_the_settings_that_leave_no_subjects_to_train_on_are_named(settings, named, tmp_path, monkeypatch, rejected):
    labels = labels_of([3, 3, 3, 3, 3])
    monkeypatch.chdir(tmp_path)
    write_split(tmp_path / "split.csv", labels, Split(np.arange(9), np.arange(0), np.arange(9, 15), np.arange(0)))
    with rejected(f"{named} and data.val_people 2 leave fewer than two of 5 subjects to train on"):
        make_split(labels, DataConfig(val_people=2, **settings))


@pytest.mark.parametrize("protocol", ["subject_disjoint", "session_disjoint"])
def test_folds_test_everything_once(protocol):
    labels = labels_of([4, 6, 8, 5, 9, 7, 4])
    tested = [
        make_split(labels, DataConfig(folds=3, fold=fold, val_people=0, protocol=protocol)).test
        for fold in range(3)  # type: ignore[arg-type]
    ]
    assert sorted(np.concatenate(tested).tolist()) == list(range(len(labels)))
    if protocol == "subject_disjoint":
        owners = [subjects(labels, rows) for rows in tested]
        assert sum(map(len, owners)) == 7
    else:
        assert max(map(len, tested)) - min(map(len, tested)) <= 1


def test_counts_and_shares_of_subjects():
    labels = labels_of([3] * 20)
    for val, test, expected in ((4, 6, (10, 4, 6)), (0.25, 0.1, (13, 5, 2)), (0, 0, (20, 0, 0))):
        split = make_split(labels, DataConfig(val_people=val, test_people=test))
        assert tuple(len(subjects(labels, getattr(split, part))) for part in PARTS[:3]) == expected


def test_a_count_is_of_sessions_per_subject():
    labels = labels_of([6] * 5)
    split = make_split(labels, DataConfig(val_people=2, test_people=2, protocol="session_disjoint"))
    for rows in (split.val, split.test):
        assert np.unique(labels.ids[rows], return_counts=True)[1].tolist() == [2] * 5


def test_a_share_of_few_sessions_carries_over():
    labels = labels_of([4] * 50)
    split = make_split(labels, DataConfig(val_people=0, test_people=0.35, protocol="session_disjoint"))
    assert len(split.test) == pytest.approx(0.35 * 200, abs=1)


def test_the_split_depends_on_the_seed_and_not_on_the_order_of_rows():
    labels = labels_of([12] * 30)
    first, again, other = (make_split(labels, DataConfig(split_seed=seed)) for seed in (1, 1, 2))
    assert subjects(labels, first.test) == subjects(labels, again.test) != subjects(labels, other.test)
    shuffled = labels.subset(np.random.default_rng(0).permutation(len(labels)))
    assert subjects(shuffled, make_split(shuffled, DataConfig(split_seed=1)).test) == subjects(labels, first.test)
    by_session = DataConfig(protocol="session_disjoint")
    assert keys(shuffled, make_split(shuffled, by_session).test) == keys(labels, make_split(labels, by_session).test)
    enrolled = DataConfig(gallery=1)
    assert keys(shuffled, make_split(shuffled, enrolled).gallery) == keys(labels, make_split(labels, enrolled).gallery)


@pytest.mark.parametrize(
    ("sizes", "settings_", "word"),
    [
        ([1] * 10, {}, "genuine pair"),
        ([3] * 10, {"test_people": 10}, "10 subjects in total"),
        ([3] * 10, {"test_people": 0.01}, "which is 0 of 10 subjects"),
        ([3] * 10, {"test_people": 5, "val_people": 4}, "train"),
        ([3] * 10, {"folds": 11}, "folds"),
        ([2] * 6, {"protocol": "session_disjoint", "test_people": 1}, "genuine pair"),
        ([3] * 10, {"gallery": 3}, "data.gallery is 3"),
        ([3] * 10, {"gallery": 1, "test_people": 0}, "data.gallery is 1"),
    ],
)
def test_a_split_that_cannot_be_scored_or_trained_is_rejected(sizes, settings_, word):
    with pytest.raises(InputError, match=word):
        make_split(labels_of(sizes), DataConfig(**settings_))


@pytest.mark.parametrize("protocol", ["subject_disjoint", "session_disjoint"])
def test_the_real_long_tail_can_be_split(protocol, photoface_labels):
    labels = read_labels(photoface_labels / "metadata.csv")
    split = make_split(labels, DataConfig(protocol=protocol))
    assert min(len(split.train), len(split.val), len(split.test)) > 300


BOTH_TABLES = pytest.mark.parametrize("name", ["metadata.csv", "final_dataset.csv"])


def shares_apart(labels: Labels, parts: list[np.ndarray]) -> float:
    """Mean difference between the class shares of the parts and of the whole table."""
    whole = labels.codes.mean(axis=0)
    return float(np.mean([np.abs(labels.codes[rows].mean(axis=0) - whole) for rows in parts]))


def plain_draw(labels: Labels, protocol: str, seed: int) -> list[np.ndarray]:
    """Parts of 60, 20 and 20 % of subjects, or of sessions, by chance alone."""
    groups = labels.ids if protocol == "subject_disjoint" else np.arange(len(labels)).astype(str)
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    fifth = round(0.2 * len(names))
    return [np.flatnonzero(np.isin(groups, part)) for part in np.split(names, [fifth, 2 * fifth])]


@BOTH_TABLES
@pytest.mark.parametrize(("protocol", "factor"), [("subject_disjoint", 0.2), ("session_disjoint", 0.6)])
def test_class_shares_are_closer_to_the_whole_than_by_chance_and_rare_poses_are_everywhere(
    name, protocol, factor, photoface_labels
):
    labels = read_labels(photoface_labels / name)
    turned = labels.codes[:, 3] == 1
    ours, chance = [], []
    for seed in range(8):
        split = make_split(labels, DataConfig(split_seed=seed, protocol=protocol))
        parts = [split.train, split.val, split.test]
        ours.append(shares_apart(labels, parts))
        chance.append(shares_apart(labels, plain_draw(labels, protocol, seed)))
        assert min(int(turned[rows].sum()) for rows in parts) >= 0.12 * turned.sum()
        assert describe_split(labels, split) == []
        assert [len(rows) / len(labels) for rows in parts] == pytest.approx([0.6, 0.2, 0.2], abs=0.02)
    assert np.mean(ours) < factor * np.mean(chance)


@BOTH_TABLES
@pytest.mark.parametrize("protocol", ["subject_disjoint", "session_disjoint"])
def test_folds_of_the_real_tables_resemble_each_other(name, protocol, photoface_labels):
    labels = read_labels(photoface_labels / name)
    turned = labels.codes[:, 3] == 1
    tested = [make_split(labels, DataConfig(folds=5, fold=fold, val_people=0, protocol=protocol)).test for fold in range(5)]
    rows = np.concatenate(tested)
    assert len(set(rows.tolist())) == len(rows)
    assert min(int(turned[rows].sum()) for rows in tested) >= 0.12 * turned.sum()
    assert shares_apart(labels, tested) < 0.02


def test_the_gallery_takes_the_given_number_of_sessions_of_each_test_subject_with_more():
    labels = labels_of([1, 2, 3, 4, 5, 6] * 4)
    plain, split = (make_split(labels, DataConfig(gallery=gallery, test_people=12)) for gallery in (0, 2))
    np.testing.assert_array_equal(split.train, plain.train)
    np.testing.assert_array_equal(np.sort(np.concatenate([split.test, split.gallery])), plain.test)
    for subject in subjects(labels, plain.test):
        sessions = int((labels.ids == subject).sum())
        assert int((labels.ids[split.gallery] == subject).sum()) == (2 if sessions > 2 else 0)


def test_notes_count_the_test_subjects_outside_the_gallery():
    labels = labels_of([2, 3, 4] * 8)
    split = make_split(labels, DataConfig(gallery=2, test_people=12))
    tested, enrolled = subjects(labels, split.test), subjects(labels, split.gallery)
    assert 0 < len(enrolled) < len(tested) == 12
    assert f"not in the gallery: {12 - len(enrolled)} of 12 subjects of the test part" in describe_split(labels, split)
    everybody = make_split(labels, DataConfig(gallery=1, test_people=12))
    for notes in (describe_split(labels, everybody), describe_split(labels, make_split(labels, DataConfig(test_people=12)))):
        assert not [note for note in notes if "gallery" in note]


@pytest.mark.parametrize(("sessions", "gallery"), [(2, 1), (3, 2), (4, 3)])
def test_a_gallery_that_leaves_no_genuine_pair_is_rejected(sessions, gallery, rejected):
    labels = labels_of([sessions] * 20)
    with rejected(f"data.gallery is {gallery}", "test part", f"none has {gallery + 2}", "lower it"):
        make_split(labels, DataConfig(gallery=gallery))
    assert len(make_split(labels, DataConfig(gallery=gallery - 1)).test) == 4 * (sessions - gallery + 1)


def test_the_gallery_has_its_share_of_the_classes(photoface_labels):
    labels = read_labels(photoface_labels / "metadata.csv")
    split = make_split(labels, DataConfig(gallery=1, test_people=0.4))
    emotion = labels.codes[:, 4]
    of_enrolled = np.isin(labels.ids, labels.ids[split.gallery])
    counts = pd.Series(emotion[of_enrolled]).groupby(labels.ids[of_enrolled]).mean()
    assert emotion[split.gallery].mean() == pytest.approx(counts.mean(), abs=0.05)


def test_notes_name_each_class_that_a_part_lacks_and_rows_in_no_part():
    labels = labels_of([2] * 6)
    labels.codes[:, 0] = -1
    labels.codes[:6, 0] = 1
    labels.codes[[1, 3], 3] = 1
    split = Split(np.arange(4), np.array([4, 5]), np.array([6, 7, 8]))
    assert describe_split(labels, split) == [
        "not stratified: no session of test has gender male (6 sessions of 3 subjects have it)",
        "not stratified: no session of val and test has pose turned (2 sessions of 2 subjects have it)",
        "in no part: 3 sessions of 2 subjects",
    ]


def in_file(path, labels: Labels, **parts: list[int]) -> DataConfig:
    rows = {part: np.array(parts.get(part, []), dtype=int) for part in PARTS}
    write_split(path, labels, Split(**rows))
    return DataConfig(split=str(path))


def test_parts_that_are_read_are_used_as_they_are(tmp_path):
    labels = labels_of([3] * 8)
    config = in_file(tmp_path / "split.csv", labels, train=list(range(9)), val=[9, 10], test=[12, 13, 14], gallery=[15])
    split = make_split(labels, replace(config, gallery=1))
    assert split.train.tolist() == list(range(9))
    assert (split.val.tolist(), split.test.tolist(), split.gallery.tolist()) == ([9, 10], [12, 13, 14], [15])
    assert describe_split(labels, split) == [
        "not in the gallery: 1 of 1 subjects of the test part",
        "in no part: 9 sessions of 4 subjects",
    ]


@pytest.mark.parametrize("protocol", ["subject_disjoint", "session_disjoint"])
def test_validation_is_drawn_from_the_train_part_of_files_without_one(protocol, photoface_labels):
    labels = read_labels(photoface_labels / "label_encoded_dataset.csv")
    config = DataConfig(split=str(photoface_labels), protocol=protocol, val_people=0.25)
    split = make_split(labels, config)
    assert len(split.train) + len(split.val) == 1876
    assert (len(split.test), len(split.gallery)) == (469, 469)
    train, val = subjects(labels, split.train), subjects(labels, split.val)
    if protocol == "subject_disjoint":
        assert (len(train), len(val)) == (262 - 66, 66)
        assert not train & val
    else:
        assert len(train) == 262
        assert len(split.val) == pytest.approx(0.25 * 1876, rel=0.02)
    assert len(make_split(labels, replace(config, val_people=0)).val) == 0


def test_a_gallery_is_drawn_from_the_test_part_of_files_without_one(tmp_path):
    labels = labels_of([3] * 8)
    config = in_file(tmp_path / "split.csv", labels, train=list(range(12)), test=list(range(12, 24)))
    split = make_split(labels, replace(config, gallery=1, val_people=0))
    assert (len(split.test), len(split.gallery)) == (8, 4)


def test_files_that_violate_the_protocol_are_rejected_and_name_a_subject(tmp_path, rejected):
    labels = labels_of([3] * 8)
    config = in_file(tmp_path / "split.csv", labels, train=list(range(8)), test=[8, 9, 10, 11], val=[12, 13])
    with rejected(tmp_path / "split.csv", "p2", "1 such subjects", "data.protocol=session_disjoint"):
        make_split(labels, config)
    assert len(make_split(labels, replace(config, protocol="session_disjoint")).test) == 4
    shared = in_file(tmp_path / "split.csv", labels, train=[0, 1, 3, 4], test=[6, 7], gallery=[8], val=[9, 10])
    assert len(make_split(labels, shared).gallery) == 1  # test and gallery are of the same subjects
    with rejected("p3", "1 such subjects"):
        make_split(labels, in_file(tmp_path / "split.csv", labels, train=[0, 1, 3, 4], test=[6, 7], gallery=[11], val=[9, 10]))


def test_files_of_other_data_are_rejected(tmp_path, rejected):
    labels = labels_of([3] * 8)
    config = in_file(tmp_path / "split.csv", labels, test=[1, 2])
    with rejected(tmp_path / "split.csv", "train part"):
        make_split(labels, config)


def random_labels(subjects: int, *, labelled: bool) -> Labels:
    """One to eight sessions a subject, in random order, with random labels or with one label."""
    rng = np.random.default_rng(7)
    sizes = rng.integers(1, 9, subjects)
    labels = labels_of(sizes.tolist())
    codes = rng.integers(-1, 2, (len(labels), 5)).astype(np.int8) * labelled
    return replace(labels, codes=codes).subset(rng.permutation(len(labels)))


@pytest.mark.parametrize(
    ("labelled", "settings_", "expected"),
    [
        (True, {}, "b1f01758bb0fb013"),
        (True, {"gallery": 1, "test_people": 0.45, "split_seed": 4}, "ac4e351a9e84c760"),
        (True, {"folds": 5, "fold": 2, "val_people": 0.1}, "14e523144191a34f"),
        (True, {"protocol": "session_disjoint"}, "d33cf3dab3287d39"),
        (True, {"protocol": "session_disjoint", "gallery": 1, "test_people": 0.45, "split_seed": 4}, "d27cc1764f3c91f4"),
        (False, {}, "978a2836ac110eae"),
        (False, {"gallery": 1, "split_seed": 3}, "e1ef4431c4a00708"),
        (False, {"folds": 5, "fold": 2, "val_people": 0.1}, "6735830f6b9e4631"),
        (False, {"protocol": "session_disjoint"}, "018c895fe9fe1ea5"),
    ],
)
def test_the_split_of_a_table_and_a_seed_never_changes(labelled, settings_, expected):
    labels = random_labels(700, labelled=labelled)
    split = make_split(labels, DataConfig(**settings_))
    part_of = np.full(len(labels), -1, dtype=np.int8)
    for index, part in enumerate(PARTS):
        part_of[getattr(split, part)] = index
    assert hashlib.sha256(part_of.tobytes()).hexdigest()[:16] == expected
