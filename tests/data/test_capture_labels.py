"""The captures to prepare and their labels."""

import unicodedata
from pathlib import Path

import pytest

from fr_ps.config import PrepareConfig
from fr_ps.data.capture_labels import CaptureLabels, read_capture_labels
from fr_ps.errors import InputError
from fr_ps.photometric.sources import list_sources
from tests.conftest import AssertRejected

HEADER = "id,session,Gender,Spectacles,Facial_Hair,Pose,Emotion"
ATTRIBUTES = ("Gender", "Spectacles", "Facial_Hair", "Pose", "Quality", "Occlusion", "Emotion")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Empty folders of three sessions of two subjects, without labels. Pictures are not read here."""
    for key in ("a/s1", "a/s2", "b/s1"):
        (tmp_path / "captures" / key).mkdir(parents=True)
    return tmp_path


def write_attributes(root: Path, key: str, text: str) -> None:
    (root / "captures" / key / "metadataII.txt").write_text(text)


def read(root: Path, table: str | None = None, **settings) -> CaptureLabels:
    if table is not None:
        (root / "labels.csv").write_text(table)
        settings["labels"] = str(root / "labels.csv")
    config = PrepareConfig(captures=str(root / "captures"), out=str(root / "out"), **settings)
    return read_capture_labels(config, list_sources(root / "captures"))


def test_rows_without_leading_zeros_are_rejected_with_the_row_and_the_cause(tmp_path: Path, rejected: AssertRejected) -> None:
    (tmp_path / "captures/001/a").mkdir(parents=True)
    table = f"{HEADER}\n1,a,male,no,none,1,blankstare\n"
    with rejected("labels.csv: row 2: 1/a has no capture", "lost the leading zeros of '001'"):
        read(tmp_path, table)
    with rejected("labels.csv: none of its rows has a capture", "lost the leading zeros of '001'"):
        read(tmp_path, table, on_bad="skip")


def test_names_and_folders_match_in_any_unicode_form(tmp_path: Path) -> None:
    (tmp_path / "captures" / unicodedata.normalize("NFD", "Ánh") / "a").mkdir(parents=True)
    labels = read(tmp_path, f"{HEADER}\n{unicodedata.normalize('NFC', 'Ánh')},a,male,no,none,1,blankstare\n")
    assert list(labels.rows) == [("Ánh", "a")]


def test_without_labels_every_attribute_of_a_capture_is_empty(root: Path) -> None:
    labels = read(root)
    assert labels.header == HEADER.split(",")
    assert list(labels.rows) == [("a", "s1"), ("a", "s2"), ("b", "s1")]
    assert labels.rows["a", "s2"] == dict.fromkeys(HEADER.split(","), "") | {"id": "a", "session": "s2"}
    assert not labels.rejected
    assert not labels.unlabelled  # only sessions without labels among labelled ones count


def test_photoface_attributes_are_read_and_missing_ones_are_unknown(root: Path) -> None:
    write_attributes(root, "a/s1", "male, yes,stubble,2,ok,,positive\r\n")
    write_attributes(root, "b/s1", "female,no,none,1,blur,hair,\n")
    labels = read(root)
    assert labels.header == ["id", "session", *ATTRIBUTES]
    assert labels.rows["a", "s1"] == dict(
        zip(labels.header, ("a", "s1", "male", "yes", "stubble", "2", "ok", "", "positive"), strict=True)
    )
    assert labels.rows["a", "s2"] == dict.fromkeys(labels.header, "") | {"id": "a", "session": "s2"}
    assert labels.rows["b", "s1"]["Emotion"] == ""
    assert labels.rows["b", "s1"]["Occlusion"] == "hair"
    assert labels.unlabelled == [("a", "s2")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("man,no,none,1,ok,,blankstare\n", ["Gender", "'man'", "female, male"]),
        ("male,no,none,6,ok,,blankstare\n", ["Pose", "'6'", "1, 2, 3, 4, 5"]),
        ("male,no,none,1,ok,,glad\n", ["Emotion", "'glad'", "blankstare"]),
        ("male,no,none,1,ok\n", ["line 1", "5 values", "7"]),
        ("", ["empty"]),
    ],
)
def test_a_bad_attribute_value_fails_or_skips_the_session(
    root: Path, text: str, words: list[str], rejected: AssertRejected
) -> None:
    write_attributes(root, "a/s1", "male,no,none,1,ok,,blankstare\n")
    write_attributes(root, "a/s2", text)
    with rejected("a/s2/metadataII.txt", *words, "--on-bad skip"):
        read(root)
    labels = read(root, on_bad="skip")
    assert list(labels.rows) == [("a", "s1"), ("b", "s1")]
    assert list(labels.rejected) == [("a", "s2")]
    for word in words:
        assert word in labels.rejected["a", "s2"]


def test_quality_and_occlusion_may_have_any_value(root: Path) -> None:
    write_attributes(root, "a/s1", "male,no,none,1,so-so,a lock of hair,blankstare\n")
    assert read(root).rows["a", "s1"]["Quality"] == "so-so"


def test_a_table_has_priority_over_photoface_attributes_and_keeps_its_order_and_columns(root: Path) -> None:
    write_attributes(root, "a/s1", "nonsense")
    table = f"{HEADER},Note\nb,s1,male,no,none,1,blankstare,x\na,s2,,,,,, \na,s1,female,yes,none,5,negative,z\n"
    labels = read(root, table)
    assert labels.header == [*HEADER.split(","), "Note"]
    assert list(labels.rows) == [("b", "s1"), ("a", "s2"), ("a", "s1")]
    assert labels.rows["b", "s1"]["Note"] == "x"
    assert labels.rows["a", "s2"] == dict.fromkeys(labels.header, "") | {"id": "a", "session": "s2"}


def test_a_capture_without_a_row_is_left_out_with_either_on_bad(root: Path) -> None:
    labels = read(root, f"{HEADER}\na,s1,male,no,none,1,blankstare\n")
    assert list(labels.rows) == [("a", "s1")]
    assert set(labels.rejected) == {("a", "s2"), ("b", "s1")}
    assert all("no row in" in reason and "labels.csv" in reason for reason in labels.rejected.values())


def test_a_row_without_a_capture_fails_or_is_left_out(root: Path, rejected: AssertRejected) -> None:
    table = f"{HEADER}\na,s1,male,no,none,1,blankstare\nc,s1,male,no,none,1,blankstare\nc,s2,male,no,none,1,blankstare\n"
    with rejected("labels.csv", "c/s1", "2 such rows", "--on-bad skip"):
        read(root, table)
    labels = read(root, table, on_bad="skip")
    assert list(labels.rows) == [("a", "s1")]
    assert "no capture in" in labels.rejected["c", "s2"]
    assert set(labels.rejected) == {("c", "s1"), ("c", "s2"), ("a", "s2"), ("b", "s1")}


def test_a_table_of_other_subjects_is_rejected_even_with_on_bad_skip(root: Path, rejected: AssertRejected) -> None:
    with rejected("labels.csv", "none of its rows has a capture"):
        read(root, f"{HEADER}\nx,s1,male,no,none,1,blankstare\n", on_bad="skip")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("id,session,Gender\na,s1,male\n", ["no column Spectacles"]),
        (f"{HEADER}\na,s1,man,no,none,1,blankstare\n", ["row 2", "Gender", "man"]),
        (f"{HEADER}\na,s1,male,no,none,1,blankstare\na,s1,male,no,none,1,blankstare\n", ["row 3", "a/s1"]),
        (f"{HEADER}\n", ["no rows"]),
    ],
)
def test_a_bad_table_is_rejected(root: Path, table: str, words: list[str]) -> None:
    with pytest.raises(InputError, match=words[0]) as caught:
        read(root, table, on_bad="skip")
    for word in ("labels.csv", *words):
        assert word in str(caught.value)
