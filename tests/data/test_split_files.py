"""Split files: split.csv, and those of the original project."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fr_ps.data.labels import Labels, read_labels
from fr_ps.data.split_files import PARTS, Split, read_part, read_split, write_split
from fr_ps.errors import InputError


def labels_of(subjects: int = 5, sessions: int = 4) -> Labels:
    ids = np.repeat([f"p{subject}" for subject in range(subjects)], sessions)
    names = np.tile([f"s{session}" for session in range(sessions)], subjects)
    return Labels(ids, names, np.zeros((len(ids), 5), dtype=np.int8), {}, "raw", {"id": ids, "session": names})


SPLIT = Split(np.arange(8), np.arange(8, 12), np.array([12, 13, 16, 17]), np.array([14, 18]))


def text_file(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(rows) + "\n")
    return path


def test_a_split_survives_its_file(tmp_path):
    labels = labels_of()
    write_split(tmp_path / "split.csv", labels, SPLIT)
    table = pd.read_csv(tmp_path / "split.csv")
    assert table.groupby("part").size().to_dict() == {"train": 8, "val": 4, "test": 4, "gallery": 2}
    shuffled = labels.subset(np.random.default_rng(0).permutation(len(labels)))
    again, moved = read_split(tmp_path / "split.csv", labels), read_split(tmp_path / "split.csv", shuffled)
    for part in PARTS:
        np.testing.assert_array_equal(getattr(again, part), getattr(SPLIT, part))
        np.testing.assert_array_equal(read_part(tmp_path / "split.csv", part, labels), getattr(SPLIT, part))
        rows = getattr(moved, part)
        assert set(zip(shuffled.ids[rows], shuffled.sessions[rows])) == set(
            zip(labels.ids[getattr(SPLIT, part)], labels.sessions[getattr(SPLIT, part)])
        )
        assert rows.tolist() == sorted(rows.tolist())
    with pytest.raises(InputError, match="'tset' of that run is empty"):
        read_part(tmp_path / "split.csv", "tset", labels)
    with pytest.raises(InputError, match="not in the data set"):
        read_part(tmp_path / "split.csv", "test", labels.subset(SPLIT.train))


def test_the_tables_of_the_original_are_read(photoface_labels):
    labels = read_labels(photoface_labels / "label_encoded_dataset.csv")
    split = read_split(photoface_labels, labels)
    subjects = {part: set(labels.ids[getattr(split, part)]) for part in PARTS}
    assert [len(getattr(split, part)) for part in PARTS] == [1876, 0, 469, 469]
    assert [len(subjects[part]) for part in PARTS] == [262, 0, 108, 105]
    assert len(subjects["test"] & subjects["gallery"]) == 63
    for part in ("train", "test", "gallery"):
        table = pd.read_csv(photoface_labels / f"{part}_set.csv", dtype=str)
        rows = getattr(split, part)
        assert set(zip(labels.ids[rows], labels.sessions[rows])) == set(zip(table.id, table.session))


def test_the_originals_gallery_may_be_absent_but_not_its_test(tmp_path):
    labels = labels_of()
    text_file(tmp_path / "train_set.csv", "id,session,Gender", "p0,s0,1", "p1,s0,0")
    with pytest.raises(InputError, match=r"test_set\.csv"):
        read_split(tmp_path, labels)
    text_file(tmp_path / "test_set.csv", "id,session,Gender", "p2,s0,1")
    split = read_split(tmp_path, labels)
    assert (split.train.tolist(), split.test.tolist(), split.gallery.tolist()) == ([0, 4], [8], [])


def test_files_may_name_left_out_sessions_but_no_unknown_ones(tmp_path, rejected):
    labels = labels_of()
    path = text_file(tmp_path / "split.csv", "id,session,part", "p0,s0,train", "p9,s0,test", "p9,s1,test", "p1,s0,test")
    with rejected(path, "p9/s0", "test", "2 such sessions of 4"):
        read_split(path, labels)
    with rejected("p9/s1", "1 such"):
        read_split(path, labels, [("p9", "s0")])
    split = read_split(path, labels, [("p9", "s0"), ("p9", "s1")])
    assert (split.train.tolist(), split.test.tolist()) == ([0], [4])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["id,session,part", "p0,s0,tarin"], ["row 2", "'tarin'", "train, val, test, gallery"]),
        (["id,session,part", "p0,s0,train", "p0,s0,test"], ["row 3", "p0/s0", "already in the part train"]),
        (["id,session", "p0,s0"], ["no column part"]),
        (["id,part", "p0,train"], ["no column session"]),
    ],
)
def test_a_bad_file_is_rejected_by_name(rows, words, tmp_path, rejected):
    path = text_file(tmp_path / "split.csv", *rows)
    with rejected(path, *words):
        read_split(path, labels_of())


def test_a_session_in_two_of_the_originals_tables_is_rejected(tmp_path, rejected):
    text_file(tmp_path / "train_set.csv", "id,session", "p0,s0")
    path = text_file(tmp_path / "test_set.csv", "id,session", "p1,s0", "p0,s0")
    with rejected(path, "row 3", "p0/s0", "already in the part train"):
        read_split(tmp_path, labels_of())


def test_a_missing_split_is_rejected(tmp_path, rejected):
    with rejected(tmp_path / "nowhere.csv", "data.split"):
        read_split(tmp_path / "nowhere.csv", labels_of())
