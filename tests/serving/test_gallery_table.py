"""The table of a gallery: the reader of unedited tables against the reader of any table."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fr_ps.errors import InputError
from fr_ps.files import check_path_component
from fr_ps.serving import gallery_table as module
from fr_ps.serving.gallery_table import COLUMNS, format_table, make_table, parse_table
from tests.conftest import AssertRejected


def is_name(text: str) -> bool:
    try:
        return bool(check_path_component(text, "")) and text == text.strip()
    except InputError:
        return False


NAMES = st.one_of(
    st.sampled_from(["NA", "nan", "1", "007", "=1+x", "-3", "a b", "Nguyễn", "unknown x"]), st.text(max_size=4)
).filter(is_name)


@given(st.lists(st.tuples(NAMES, NAMES), max_size=6, unique=True), st.integers(0, 2**40))
def test_a_written_table_is_read_back_alike_by_both_readers(
    tmp_path_factory: pytest.TempPathFactory, keys: list[tuple[str, str]], row: int
) -> None:
    count = len(keys)
    table = make_table(
        [subject for subject, _ in keys],
        [session for _, session in keys],
        range(row, row + count),
        [12.5] * count,
        ["2026-11-29 10:00:00"] * count,
        ["0123456789abcdef"] * count,
        range(2, count + 2),
    )
    path = tmp_path_factory.getbasetemp() / "people.csv"
    path.write_text(format_table(table), newline="")
    edited, plain = outcome(lambda: module._parse_edited_table(path)), module._parse_plain_table(format_table(table))
    if plain is not None:
        pd.testing.assert_frame_equal(plain, edited)


def outcome(read) -> pd.DataFrame | str:  # type: ignore[no-untyped-def]
    try:
        return read()
    except InputError as error:
        return str(error)


ROWS = "anna,s1,0,21.5000,2026-11-29 10:00:00,0123456789abcdef\nben,s1,1,22.0000,2026-11-29 10:00:00,0123456789abcdef\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("anna,", "anna;"),
        ("anna", '"anna"'),
        ("anna", "'=anna"),
        ("anna", " anna"),
        ("anna", "anna "),
        ("anna", "../anna"),
        ("anna", ".anna"),
        ("anna", "an\x07na"),
        ("anna", "ben"),
        ("anna", "Nguye\u0302\u0303n"),
        ("21.5000", "nan"),
        ("21.5000", "21,5"),
        (",0,", ",-1,"),
        (",0,", ",٣,"),
        (",0123456789abcdef\n", "\n"),
        ("id,session", "session,id"),
        ("checksum", "note"),
        ("ben,s1,1,", "ben,s1,1,1,"),
    ],
)
def test_an_edited_table_takes_the_reader_of_any_table(tmp_path: Path, old: str, new: str) -> None:
    text = (",".join(COLUMNS) + "\n" + ROWS).replace(old, new, 1)
    assert module._parse_plain_table(text) is None


def test_an_unedited_table_of_a_million_rows_takes_the_fast_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer rows here: a thousand."""
    monkeypatch.setattr(module, "_parse_edited_table", lambda path: pytest.fail("the slow reader"))
    rows = [f"S{row // 2},s{row % 2},{row},21.5000,2026-11-29 10:00:00,{row:016x}\n" for row in range(1000)]
    table = parse_table(Path("people.csv"), ",".join(COLUMNS) + "\n" + "".join(rows))
    assert table["row"].tolist() == list(range(1000))
    assert table["id"].iloc[-1] == "S499"
    assert table["number"].iloc[-1] == 1001


def test_a_row_beyond_64_bits_is_outside_of_any_gallery(tmp_path: Path, rejected: AssertRejected) -> None:
    from fr_ps.serving.enrolment import enroll
    from fr_ps.serving.gallery import read_gallery

    enroll(tmp_path / "g", "a" * 64, [("anna", "s1")], np.ones((1, 4), np.float32))
    people = tmp_path / "g" / "people.csv"
    people.write_text(people.read_text().replace("s1,0,", f"s1,{10**30},"))
    with rejected(people, "row 2", "used twice or not in"):
        read_gallery(tmp_path / "g")
