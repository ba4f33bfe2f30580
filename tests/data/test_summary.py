"""The summary tables of a data set, compared with pandas on the real tables."""

import numpy as np
import pandas as pd
import pytest

from fr_ps.config import DataConfig
from fr_ps.data.labels import Labels, read_labels
from fr_ps.data.splits import make_split
from fr_ps.data.summary import class_table, parts_table, quality_table, sessions_per_subject, subject_histogram, summary

POSITIVE = {
    "gender": ("male", lambda table: table.Gender == "male"),
    "spectacles": ("yes", lambda table: table.Spectacles == "yes"),
    "facial_hair": ("any", lambda table: table.Facial_Hair != "none"),
    "pose": ("turned", lambda table: table.Pose >= 3),
    "emotion": ("other", lambda table: table.Emotion != "blankstare"),
}


def table_of(tmp_path, *rows: str, header: str = "id,session,Gender,Spectacles,Facial_Hair,Pose,Emotion") -> Labels:
    path = tmp_path / "labels.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return read_labels(path)


def test_classes_are_counted_as_pandas_counts_them(photoface_labels):
    path = photoface_labels / "metadata.csv"
    table = pd.read_csv(path)
    got = class_table(read_labels(path)).set_index(["attribute", "class"])
    assert len(got) == 10
    for attribute, (name, positive) in POSITIVE.items():
        has = positive(table)
        assert got.loc[(attribute, name), "sessions"] == has.sum()
        assert got.loc[(attribute, name), "subjects"] == table.id[has].nunique()
        assert got.loc[(attribute, name), "share"] == f"{100 * has.mean():.1f}%"
        assert got.loc[attribute, "sessions"].sum() == len(table)


@pytest.mark.parametrize("name", ["label_encoded_dataset.csv", "final_dataset.csv", "train_set.csv", "gallery_set.csv"])
def test_every_encoding_of_the_real_tables_has_all_tables(name, photoface_labels):
    labels = read_labels(photoface_labels / name)
    (_, classes), (title, histogram) = summary(labels)
    assert classes.groupby("attribute").sessions.sum().eq(len(labels)).all()
    assert histogram.sessions.sum() == len(labels)
    assert str(pd.read_csv(photoface_labels / name, dtype=str).id.value_counts().iloc[0]) in title


def test_missing_labels_have_a_row_and_do_not_count_in_shares(tmp_path):
    labels = table_of(tmp_path, "a,1,male,,none,1,", "a,2,,,none,1,", "b,1,female,,none,1,", "c,1,male,,none,1,")
    rows = {(row[0], row[1]): row[2:] for row in class_table(labels).to_numpy().tolist()}
    assert rows["gender", "male"] == [2, 2, "66.7%"]
    assert rows["gender", "(missing)"] == [1, 1, ""]
    assert rows["emotion", "blankstare"] == [0, 0, ""]
    assert rows["emotion", "(missing)"] == [4, 3, ""]
    assert ("pose", "(missing)") not in rows


def test_the_histogram_has_every_subject_in_the_bin_of_its_sessions(photoface_labels):
    path = photoface_labels / "metadata.csv"
    counts = pd.read_csv(path).id.value_counts()
    got = subject_histogram(read_labels(path))
    assert got.subjects.sum() == len(counts)
    for name, subjects, sessions, bar in got.to_numpy().tolist():
        low, _, high = name.partition("-")
        inside = counts.between(int(low), int(high or low))
        assert (subjects, sessions) == (inside.sum(), counts[inside].sum())
        assert len(bar) == np.ceil(40 * subjects / got.subjects.max())
    assert got["sessions per subject"].tolist()[:4] == ["1", "2", "3-4", "5-8"]


def test_subjects_are_sorted_by_sessions_and_ties_by_name(tmp_path):
    labels = table_of(
        tmp_path, *(f"{subject},{session},male,no,none,1," for subject in "bac" for session in range(2)), "c,9,,,,,"
    )
    assert sessions_per_subject(labels).to_dict() == {"c": 3, "a": 2, "b": 2}
    assert sessions_per_subject(labels).index.tolist() == ["c", "a", "b"]


def test_quality_columns_show_their_spread_and_worst_sessions(tmp_path):
    values = np.random.default_rng(0).permutation(101) / 100
    rows = [f"p{index // 10},s{index},male,no,none,1,,{value},x" for index, value in enumerate(values)] + ["q,t,,,,,,,x"]
    header = "id,session,Gender,Spectacles,Facial_Hair,Pose,Emotion,quality_residual,Quality"
    labels = table_of(tmp_path, *rows, header=header)
    (row,) = quality_table(labels).to_numpy().tolist()
    assert row[:5] == ["quality_residual", "0.05", "0.5", "0.95", 1]
    worst = [int(np.flatnonzero(values == value)[0]) for value in (1, 0.99, 0.98)]
    assert [text.split(" ")[0] for text in row[5].split(", ")] == [f"p{index // 10}/s{index}" for index in worst]
    assert [title for title, _ in summary(labels)][-1] == "quality"


def test_the_parts_of_a_split_add_up_to_the_whole(photoface_labels):
    labels = read_labels(photoface_labels / "final_dataset.csv")
    split = make_split(labels, DataConfig(gallery=1))
    got = parts_table(labels, split).set_index(["attribute", "class"])
    assert got.columns.tolist() == ["train", "val", "test", "gallery"]
    sessions = got.map(lambda text: int(text.split(" ")[0]))
    assert sessions.loc[("", "all")].sum() == len(labels)
    whole = class_table(labels).set_index(["attribute", "class"]).sessions
    for key, count in whole.items():
        assert sessions.loc[key].sum() == count
    assert got.loc[("", "all"), "test"] == f"{len(split.test)} ({len(np.unique(labels.ids[split.test]))})"
