"""Who is in which part."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fr_ps.config import DataConfig
from fr_ps.data.labels import Labels, read_labels
from fr_ps.data.splits import PARTS, make_split, read_part, write_split
from fr_ps.errors import InputError


def labels_of(counts: list[int]) -> Labels:
    ids = np.array([f"p{person}" for person, count in enumerate(counts) for _ in range(count)])
    sessions = np.array([f"s{session}" for count in counts for session in range(count)])
    return Labels(ids, sessions, np.zeros((len(ids), 5), dtype=np.int8), {}, "raw", {"id": ids, "session": sessions})


def people(labels: Labels, rows: np.ndarray) -> set[str]:
    return set(labels.ids[rows].tolist())


counts = st.lists(st.integers(1, 12), min_size=6, max_size=25)
shares = st.sampled_from([0, 0.1, 0.2, 0.3, 1, 2])


@settings(deadline=None)
@given(counts, shares, shares, st.integers(0, 5), st.sampled_from(["subject_disjoint", "session_disjoint"]))
def test_every_row_is_in_one_part_and_the_protocol_holds(sizes, val, test, seed, protocol):
    labels = labels_of(sizes)
    try:
        split = make_split(labels, DataConfig(val_people=val, test_people=test, split_seed=seed, protocol=protocol))
    except InputError:
        return
    rows = np.concatenate([split.train, split.val, split.test])
    assert sorted(rows.tolist()) == list(range(len(labels)))
    train = people(labels, split.train)
    if protocol == "subject_disjoint":
        assert not train & people(labels, split.val)
        assert not train & people(labels, split.test)
        assert not people(labels, split.val) & people(labels, split.test)
    else:
        assert train == set(labels.ids.tolist())


@pytest.mark.parametrize("protocol", ["subject_disjoint", "session_disjoint"])
def test_folds_test_everything_once(protocol):
    labels = labels_of([4, 6, 8, 5, 9, 7, 4])
    tested = [
        make_split(labels, DataConfig(folds=3, fold=fold, val_people=0, protocol=protocol)).test
        for fold in range(3)  # type: ignore[arg-type]
    ]
    assert sorted(np.concatenate(tested).tolist()) == list(range(len(labels)))
    if protocol == "subject_disjoint":
        owners = [people(labels, rows) for rows in tested]
        assert sum(map(len, owners)) == 7
    else:
        assert max(map(len, tested)) - min(map(len, tested)) <= 1


def test_counts_and_shares_of_people():
    labels = labels_of([3] * 20)
    for val, test, expected in ((4, 6, (10, 4, 6)), (0.25, 0.1, (13, 5, 2)), (0, 0, (20, 0, 0))):
        split = make_split(labels, DataConfig(val_people=val, test_people=test))
        assert tuple(len(people(labels, getattr(split, part))) for part in PARTS) == expected


def test_a_count_of_sessions_is_a_persons():
    labels = labels_of([6] * 5)
    split = make_split(labels, DataConfig(val_people=2, test_people=2, protocol="session_disjoint"))
    for rows in (split.val, split.test):
        assert np.unique(labels.ids[rows], return_counts=True)[1].tolist() == [2] * 5


def test_a_share_of_few_sessions_is_carried_over_instead_of_lost():
    labels = labels_of([4] * 50)
    split = make_split(labels, DataConfig(val_people=0, test_people=0.35, protocol="session_disjoint"))
    assert len(split.test) == pytest.approx(0.35 * 200, abs=1)


def test_the_seed_decides_and_the_order_of_rows_does_not():
    labels = labels_of([4] * 30)
    first, again, other = (make_split(labels, DataConfig(split_seed=seed)) for seed in (1, 1, 2))
    assert people(labels, first.test) == people(labels, again.test) != people(labels, other.test)
    shuffled = labels.take(np.random.default_rng(0).permutation(len(labels)))
    assert people(shuffled, make_split(shuffled, DataConfig(split_seed=1)).test) == people(labels, first.test)


@pytest.mark.parametrize(
    ("sizes", "settings_", "word"),
    [
        ([1] * 10, {}, "genuine pair"),
        ([3] * 10, {"test_people": 10}, "10 people in all"),
        ([3] * 10, {"test_people": 0.01}, "nobody"),
        ([3] * 10, {"test_people": 5, "val_people": 4}, "train"),
        ([3] * 10, {"folds": 11}, "folds"),
        ([2] * 6, {"protocol": "session_disjoint", "test_people": 1}, "genuine pair"),
    ],
)
def test_a_split_that_cannot_be_scored_or_trained_is_refused(sizes, settings_, word):
    with pytest.raises(InputError, match=word):
        make_split(labels_of(sizes), DataConfig(**settings_))


def test_a_split_comes_back_from_its_file(tmp_path):
    labels = labels_of([4] * 10)
    split = make_split(labels, DataConfig())
    write_split(tmp_path / "split.csv", labels, split)
    for part in PARTS:
        np.testing.assert_array_equal(read_part(tmp_path / "split.csv", part, labels), getattr(split, part))
    with pytest.raises(InputError, match="nobody"):
        read_part(tmp_path / "split.csv", "tset", labels)
    with pytest.raises(InputError, match="not in the data set"):
        read_part(tmp_path / "split.csv", "test", labels.take(split.train))


@pytest.mark.parametrize("protocol", ["subject_disjoint", "session_disjoint"])
def test_the_real_long_tail_can_be_split(protocol, photoface_labels):
    labels = read_labels(photoface_labels / "metadata.csv")
    split = make_split(labels, DataConfig(protocol=protocol))
    assert min(len(split.train), len(split.val), len(split.test)) > 300
