"""The labels table, with small tables and with the real Photoface tables."""

import csv
from pathlib import Path

import numpy as np
import pytest

from fr_ps.data.labels import ATTRIBUTES, MISSING, read_labels
from fr_ps.errors import InputError

HEADER = "id,session,Gender,Spectacles,Facial_Hair,Pose,Emotion"


def table(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "labels.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def column(labels, attribute: str) -> list[int]:
    return labels.codes[:, ATTRIBUTES.index(attribute)].tolist()


def test_raw_values_become_the_classes_of_the_original(tmp_path):
    rows = [
        f"a,{p},male,yes,{hair},{p},{emotion}"
        for p, hair, emotion in zip(
            "12345",
            ["none", "stubble", "both", "moustache", "beard"],
            ["blankstare", "positive", "negative", "emoOther", "blankstare"],
        )
    ]
    labels = read_labels(table(tmp_path, *rows, "b,1,female,no,none,1,blankstare"))
    assert labels.encoding == "raw"
    assert column(labels, "gender") == [1, 1, 1, 1, 1, 0]
    assert column(labels, "spectacles") == [1, 1, 1, 1, 1, 0]
    assert column(labels, "facial_hair") == [0, 1, 1, 1, 1, 0]
    assert column(labels, "pose") == [0, 0, 1, 1, 1, 0]
    assert column(labels, "emotion") == [0, 1, 1, 1, 0, 0]
    assert labels.class_names("gender") == ["female", "male"]


def test_an_empty_cell_is_missing_and_further_columns_are_kept(tmp_path):
    labels = read_labels(table(tmp_path, "a,1,,,,,,ok", "a,2,male,,,3,,blur", header=HEADER + ",Quality"))
    assert column(labels, "gender") == [MISSING, 1]
    assert column(labels, "pose") == [MISSING, 1]
    assert column(labels, "emotion") == [MISSING, MISSING]
    assert labels.columns["Quality"].tolist() == ["ok", "blur"]
    assert labels.subset(np.array([1])).columns["Quality"].tolist() == ["blur"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("../x,1,male,no,none,1,blankstare", ["row 3", "id", "'../x'"]),
        ("a,b/c,male,no,none,1,blankstare", ["row 3", "session", "'b/c'"]),
        (",1,male,no,none,1,blankstare", ["row 3", "id"]),
        ("a,1,male,no,none,1,happy", ["row 3", "Emotion", "'happy'", "blankstare"]),
        ("a,1,male,no,none,6,blankstare", ["row 3", "Pose", "'6'"]),
        ("z,z,male,no,none,1,blankstare", ["row 3", "z/z", "row 2"]),
    ],
)
def test_a_bad_row_is_rejected_by_number_and_column(row, words, tmp_path, rejected):
    path = table(tmp_path, "z,z,male,no,none,1,blankstare", row)
    with pytest.raises(InputError) as caught:
        read_labels(path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_a_missing_column_and_an_empty_table_are_rejected(tmp_path):
    with pytest.raises(InputError, match="no column Emotion"):
        read_labels(table(tmp_path, "a,1,male,no,none,1", header=HEADER.removesuffix(",Emotion")))
    with pytest.raises(InputError, match="no rows"):
        read_labels(table(tmp_path))


def test_values_in_the_notation_of_other_programs_are_read(tmp_path):
    rows = ["a,1,Male,True,None,1.0,BlankStare", "a,2,FEMALE,false,Beard,3.0,emoother", "a,3,,,,,"]
    labels = read_labels(table(tmp_path, *rows))
    assert labels.encoding == "raw"
    assert labels.codes.tolist() == [[1, 1, 0, 0, 0], [0, 0, 1, 1, 1], [MISSING] * 5]
    assert labels.columns["Gender"].tolist() == ["Male", "FEMALE", ""]


@pytest.mark.parametrize("one", ["1", "1.0", "1.00", "True", "TRUE", "true"])
@pytest.mark.parametrize("zero", ["0", "0.0", "False"])
def test_codes_in_the_notation_of_other_programs_are_read(one, zero, tmp_path):
    labels = read_labels(table(tmp_path, f"a,1,{one},{zero},{one},{one},{zero}", f"a,2,{zero},,{one},{zero},{one}"))
    assert labels.encoding == "encoded"
    assert labels.codes.tolist() == [[1, 0, 1, 1, 0], [0, MISSING, 1, 0, 1]]


def test_a_reduced_table_is_recognised_with_decimals(tmp_path):
    labels = read_labels(table(tmp_path, "a,1,Male,no,none,1.0,blankstare", "a,2,male,no,none,2.0,positive"))
    assert labels.encoding == "reduced"
    assert column(labels, "pose") == [0, 1]


@pytest.mark.parametrize("cell", ["true", "1.5", "x1.0", "0"])
def test_booleans_and_other_numbers_are_not_poses(cell, tmp_path, rejected):
    with rejected("row 2", "Pose", repr(cell)):
        read_labels(table(tmp_path, f"a,1,male,no,none,{cell},blankstare"))


def test_classes_that_differ_by_case_alone_are_kept_apart(tmp_path, rejected):
    classes = {"emotion": {"small": ["x"], "large": ["X"]}}
    assert column(read_labels(table(tmp_path, "a,1,male,no,none,1,X", "a,2,male,no,none,1,x"), classes=classes), "emotion") == [
        1,
        0,
    ]


def test_three_classes_of_emotion(tmp_path):
    classes = {"emotion": {"blank": ["blankstare"], "happy": ["positive"], "rest": ["negative", "emoOther"]}}
    rows = [f"a,{i},male,no,none,1,{emotion}" for i, emotion in enumerate(["positive", "blankstare", "negative", "emoOther"])]
    labels = read_labels(table(tmp_path, *rows), classes=classes)
    assert column(labels, "emotion") == [1, 0, 2, 2]
    assert labels.class_names("emotion") == ["blank", "happy", "rest"]
    with pytest.raises(InputError, match="encoded"):
        read_labels(table(tmp_path, "a,1,1,0,0,0,1"), classes=classes)


@pytest.mark.parametrize("groups", [{"all": ["blankstare"]}, {"a": ["positive"], "b": ["positive"]}])
def test_classes_that_distinguish_nothing_are_rejected(groups, tmp_path):
    with pytest.raises(InputError, match=r"data\.classes\.emotion"):
        read_labels(table(tmp_path, "a,1,male,no,none,1,positive"), classes={"emotion": groups})


def test_the_encoding_can_be_set(tmp_path):
    path = table(tmp_path, "a,1,male,no,none,2,blankstare", "a,2,male,no,none,1,blankstare")
    assert column(read_labels(path), "pose") == [1, 0]  # looks reduced
    assert column(read_labels(path, "raw"), "pose") == [0, 0]
    with pytest.raises(InputError, match="encoded labels"):
        read_labels(path, "encoded")


def test_the_real_tables_are_recognised_and_agree(photoface_labels):
    raw = read_labels(photoface_labels / "metadata.csv")
    reduced = read_labels(photoface_labels / "final_dataset.csv")
    encoded = read_labels(photoface_labels / "label_encoded_dataset.csv")
    assert (raw.encoding, reduced.encoding, encoded.encoding) == ("raw", "reduced", "encoded")
    assert (len(raw), len(reduced), len(encoded)) == (3159, 2814, 2814)
    assert sum(column(raw, "pose")) == 137
    assert sum(column(reduced, "pose")) == 74
    np.testing.assert_array_equal(reduced.ids, encoded.ids)
    np.testing.assert_array_equal(reduced.sessions, encoded.sessions)
    np.testing.assert_array_equal(reduced.codes, encoded.codes)


def test_raw_codes_are_those_of_the_original_encoding_where_both_have_the_session(photoface_labels):
    raw, encoded = (read_labels(photoface_labels / name) for name in ("metadata.csv", "label_encoded_dataset.csv"))
    with (photoface_labels / "label_encoded_dataset.csv").open() as file:
        assert [int(row["Gender"]) for row in csv.DictReader(file)] == column(encoded, "gender")
    where = {key: index for index, key in enumerate(zip(raw.ids, raw.sessions))}
    rows = np.array([where[key] for key in zip(encoded.ids, encoded.sessions)])
    np.testing.assert_array_equal(raw.codes[rows], encoded.codes)


def test_subjects_are_numbered_as_numpy_numbers_them(tmp_path):
    ids = ["10", "é", "b", "B", "10", "a", "é", "9", "A b"]
    labels = read_labels(table(tmp_path, *(f"{name},{row},,,,," for row, name in enumerate(ids))))
    subjects, subject_of = np.unique(labels.ids, return_inverse=True)
    assert labels.subjects.tolist() == subjects.tolist()
    assert labels.subject_of.tolist() == subject_of.tolist()
    assert labels.count_subjects() == 7
    assert labels.count_subjects(np.array([0, 4, 5])) == 2
    assert labels.sorted_rows().tolist() == np.lexsort((labels.sessions, labels.ids)).tolist()
