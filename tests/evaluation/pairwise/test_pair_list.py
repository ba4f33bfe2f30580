"""Pair lists: read back as written, and rejected with file, row and remedy."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fr_ps.data.labels import DEFAULT_CLASSES, Labels
from fr_ps.errors import InputError
from fr_ps.evaluation.pairwise.pair_list import COLUMNS, FOLD, read_pairs
from fr_ps.tables import format_csv
from tests.conftest import AssertRejected

HEADER = "id_a,session_a,id_b,session_b\n"


def labels_of(keys: list[tuple[str, str]]) -> Labels:
    ids, sessions = (np.array(part, dtype=str) for part in zip(*keys))
    return Labels(ids, sessions, np.zeros((len(keys), 5), np.int8), DEFAULT_CLASSES, "raw", {})


LABELS = labels_of([("B01", "q1"), ("B01", "q2"), ("B02", "q1"), ("B02", "q2"), ("B03", "q1")])

names = st.text(alphabet="ab1 ,;\"'é-_", min_size=1, max_size=4).map(str.strip).filter(bool)


@st.composite
def lists(draw: st.DrawFn) -> tuple[list[tuple[str, str]], list[tuple[int, int]], list[str] | None, list[str]]:
    """Sessions, pairs of them in any order, sometimes folds, and the columns in any order."""
    keys = draw(st.lists(st.tuples(names, names), min_size=2, max_size=6, unique=True))
    rows = st.integers(0, len(keys) - 1)
    pairs = st.tuples(rows, rows).filter(lambda pair: pair[0] != pair[1])
    found = draw(st.lists(pairs, min_size=1, max_size=9, unique_by=lambda pair: (min(pair), max(pair))))
    folds = draw(st.none() | st.lists(names, min_size=len(found), max_size=len(found)))
    columns = draw(st.permutations([*COLUMNS, "remark", *([FOLD] if folds else [])]))
    return keys, found, folds, columns


@given(lists())
def test_a_written_list_is_read_back(tmp_path_factory: pytest.TempPathFactory, drawn) -> None:
    keys, pairs, folds, columns = drawn
    rows = []
    for number, (one, other) in enumerate(pairs):
        cells = dict(zip(COLUMNS, (*keys[one], *keys[other]))) | {"remark": "x", FOLD: folds[number] if folds else ""}
        rows.append([cells[column] for column in columns])
    path = tmp_path_factory.getbasetemp() / "pairs.csv"
    path.write_text(format_csv(columns, rows))
    found = read_pairs(path, labels_of(keys))
    assert list(zip(found.first.tolist(), found.second.tolist())) == pairs
    assert (found.fold is None) == (folds is None)
    if folds:
        assert found.fold is not None
        same = [[one == other for one in folds] for other in folds]
        assert (np.equal.outer(found.fold, found.fold) == same).all()


def test_the_rows_are_those_of_the_labels_that_are_scored(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(HEADER + "B03,q1,B01,q2\nB01,q1,B01,q2\n")
    part = LABELS.subset(np.array([4, 1, 0]))
    found = read_pairs(path, part)
    assert (found.first.tolist(), found.second.tolist()) == ([0, 2], [1, 1])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id_a,session_a,id_b\nB01,q1,B02\n", ["no column session_b", "id_a,session_a,id_b,session_b"]),
        ("id,session\nB01,q1\n", ["no column id_a"]),
        (HEADER + "B01,q1,B02,q1\nB01,q1,B99,q1\n", ["row 3", "B99/q1", "5 scored sessions"]),
        (HEADER + "B01,q7,B02,q1\n", ["row 2", "B01/q7"]),
        (HEADER + "b01,q1,B02,q1\n", ["row 2", "b01/q1"]),
        (HEADER + "B01,,B02,q1\n", ["row 2", "B01/"]),
        (HEADER + "B02,q1,B01,q1\n\nB01,q2,B01,q2\n", ["row 4", "B01/q2", "paired with itself"]),
        (HEADER + "B01,q1,B02,q1\nB01,q1,B02,q2\nB01,q1,B02,q1\n", ["row 4", "duplicate of row 2"]),
        (HEADER + "B01,q1,B02,q1\nB02,q1,B01,q1\n", ["row 3", "duplicate of row 2"]),
        (HEADER, ["no rows"]),
        ("id_a,session_a,id_b,session_b,fold\nB01,q1,B02,q1,1\nB01,q1,B02,q2,\n", ["row 3", "fold"]),
    ],
    ids=["column", "all columns", "person", "session", "case", "empty cell", "itself", "twice", "reversed", "no rows", "fold"],
)
def test_a_bad_list_is_rejected_with_its_file_row_and_remedy(
    tmp_path: Path, rejected: AssertRejected, text: str, words: list[str]
) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(text)
    with rejected(path, *words):
        read_pairs(path, LABELS)


@pytest.mark.parametrize("text", [None, "", HEADER + "B01,q1,B02\n", HEADER + "B01,q1,B02,q1,more\n", 'id_a,"session_a\n'])
def test_a_file_without_a_table_is_rejected_by_its_name(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "pairs.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=r"pairs\.csv: ") as caught:
        read_pairs(path, LABELS)
    assert "\n" not in str(caught.value)
