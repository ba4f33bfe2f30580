"""The one leakage check: which subjects or sessions of an evaluation a model was trained or selected on."""

from pathlib import Path

import pytest

from fr_ps.data.leakage import Overlap, leakage_notes, split_overlap
from fr_ps.data.split_files import SPLIT_FILE
from fr_ps.errors import InputError

SPLIT = """id,session,part
a,1,train
a,2,val
b,1,val
c,1,test
d,1,gallery
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / SPLIT_FILE).write_text(SPLIT)
    return tmp_path


@pytest.mark.parametrize(
    ("sessions", "by", "trained", "selected"),
    [
        ([("a", "1"), ("b", "1"), ("c", "1"), ("d", "1"), ("x", "1")], "session", {("a", "1")}, {("b", "1")}),
        ([("a", "2"), ("b", "9")], "session", set(), {("a", "2")}),
        ([("a", "9"), ("b", "9"), ("c", "9")], "subject", {("a",)}, {("b",)}),
        ([("a", "2")], "subject", {("a",)}, set()),  # trained wins: the subject is in both parts
        ([("c", "1"), ("d", "1")], "subject", set(), set()),
        ([], "subject", set(), set()),
    ],
)
def test_overlap_with_the_train_and_val_parts(model, sessions, by, trained, selected):
    assert split_overlap(model, sessions, by) == Overlap(frozenset(trained), frozenset(selected))


def test_without_split_csv_the_overlap_is_unknown(tmp_path):
    assert split_overlap(tmp_path, [("a", "1")], "subject") is None
    assert leakage_notes("A", None) == [f"the training subjects of A are unknown: its folder has no {SPLIT_FILE}"]


def test_a_damaged_split_is_rejected(model):
    (model / SPLIT_FILE).write_text(SPLIT + "e,1,tset\n")
    with pytest.raises(InputError, match="tset"):
        split_overlap(model, [("a", "1")], "subject")


def test_notes_count_subjects_and_name_the_model():
    assert leakage_notes("A", Overlap(frozenset(), frozenset())) == []
    trained, selected = leakage_notes("A", Overlap(frozenset({("a",), ("b",)}), frozenset({("c",)})))
    assert trained.startswith("A was trained on 2 of the test subjects")
    assert selected.startswith("checkpoint and thresholds of A were selected on 1 of the test subjects")
