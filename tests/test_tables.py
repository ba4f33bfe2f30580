"""Reading CSV variants, and writing CSV."""

import csv
import io
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fr_ps.errors import InputError
from fr_ps.tables import escape_formula, format_csv, read_csv_rows, read_session_rows, suggest_session, to_nfc

TABLE = "id,session,note,x\n001,a,two words,0.5\n002,b,,-1.25\n"
ROWS = [
    (2, {"id": "001", "session": "a", "note": "two words", "x": "0.5"}),
    (3, {"id": "002", "session": "b", "note": "", "x": "-1.25"}),
]
EUROPEAN = TABLE.replace(",", ";").replace(".", ",")
FORMS = {
    "commas": TABLE.encode(),
    "with a mark": b"\xef\xbb\xbf" + TABLE.encode(),
    "semicolons": TABLE.replace(",", ";").encode(),
    "tabs": TABLE.replace(",", "\t").encode(),
    "decimal commas": EUROPEAN.encode(),
    "decimal commas and tabs": TABLE.replace(",", "\t").replace(".", ",").encode(),
    "decimal commas in quotes": TABLE.replace("0.5", '"0,5"').replace("-1.25", '"-1,25"').encode(),
    "UTF-16": EUROPEAN.encode("utf-16"),
    "UTF-16, big end first": b"\xfe\xff" + EUROPEAN.encode("utf-16-be"),
    "UTF-32": TABLE.encode("utf-32"),
    "Windows line ends": TABLE.replace("\n", "\r\n").encode(),
}


def written(tmp_path: Path, content: str | bytes) -> Path:
    (tmp_path / "t.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    return tmp_path / "t.csv"


@pytest.mark.parametrize("form", FORMS)
def test_a_table_is_read_whichever_program_wrote_it(form, tmp_path):
    assert read_csv_rows(written(tmp_path, FORMS[form])) == (["id", "session", "note", "x"], ROWS)


def test_rows_keep_their_number_and_lose_their_white_space(tmp_path):
    path = written(tmp_path, b'\xef\xbb\xbfa , b\r\n\r\n 1,2 \r\n"x, y",\r\n')
    assert read_csv_rows(path) == (["a", "b"], [(3, {"a": "1", "b": "2"}), (4, {"a": "x, y", "b": ""})])


def test_a_table_that_is_not_there_or_is_a_folder_is_rejected(tmp_path, rejected):
    for path in (tmp_path / "none.csv", tmp_path):
        with rejected(path):
            read_csv_rows(path)


def test_excels_separator_line_is_used(tmp_path):
    _, rows = read_csv_rows(written(tmp_path, "sep=|\r\na|b\r\n1|2,5\r\n"))
    assert rows == [(3, {"a": "1", "b": "2.5"})]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        # The rows decide where the header has more than one separator.
        ("a;b,c\n1;2,x\n", [{"a;b": "1;2", "c": "x"}]),
        ("a;b;c, with words\n1;2;x\n", [{"a": "1", "b": "2", "c, with words": "x"}]),
        ('a;"b;c"\n1;2\n', [{"a": "1", "b;c": "2"}]),
        ("a\n1\n", [{"a": "1"}]),
        # Names, lists and what may be thousands keep their commas.
        ('id;x\n1,5;"1,234"\n', [{"id": "1,5", "x": "1.234"}]),
        ('a,x\n1,"1,234"\n2,"12,345"\n', [{"a": "1", "x": "1,234"}, {"a": "2", "x": "12,345"}]),
        ('a,x\n1,"1,234"\n2,"0,5"\n', [{"a": "1", "x": "1.234"}, {"a": "2", "x": "0.5"}]),
        ("a;x\n1;0,5\n2;dark\n", [{"a": "1", "x": "0,5"}, {"a": "2", "x": "dark"}]),
        ("a;x\n1;0,5\n2;1.5\n", [{"a": "1", "x": "0,5"}, {"a": "2", "x": "1.5"}]),
        ("a;x\n1;0,5\n2;\n3;7\n", [{"a": "1", "x": "0.5"}, {"a": "2", "x": ""}, {"a": "3", "x": "7"}]),
    ],
)
def test_only_what_is_unambiguous_is_converted(text, rows, tmp_path):
    assert [row for _, row in read_csv_rows(written(tmp_path, text))[1]] == rows


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["empty"]),
        (b"\n\n", ["empty"]),
        (b"\xef\xbb\xbf", ["empty"]),
        (b"a,a\n1,2\n", ["row 1", "repeated"]),
        (b"a,b\n1\n", ["row 2", "1 cells, but the header has 2"]),
        (b"a;b\n1;2;3\n", ["row 2", "3 cells, but the header has 2"]),
        (b"\xff\xfe\x00", ["UTF-16", "save it as CSV UTF-8"]),
        (TABLE.encode("utf-16-le"), ["UTF-16 without a byte order mark", "save it as CSV UTF-8"]),
        ("a,b\n1,é\n".encode("latin-1"), ["row 2", "save it as CSV UTF-8"]),
        (b'a,b\n"1,2\n', ["save it as CSV again"]),
    ],
)
def test_an_unreadable_table_is_an_error_with_the_cause(content, words, tmp_path, rejected):
    with rejected("t.csv", *words):
        read_csv_rows(written(tmp_path, content))


def test_a_missing_column_is_an_error_with_the_columns_found(tmp_path, rejected):
    with rejected("no column id", "commas, semicolons or tabs", "found 1 columns: id|session"):
        read_session_rows(written(tmp_path, "id|session\n1|2\n"), ())


def test_names_come_in_the_composed_form(tmp_path):
    name = unicodedata.normalize("NFD", "Ánh")
    assert name != "Ánh"
    _, rows = read_session_rows(written(tmp_path, f"id,session\n{name},s\n"), ())
    assert list(rows) == [("Ánh", "s")]


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (("1", "a"), "lost the leading zeros of '001'"),
        (("1.0", "a"), "the number '001'"),
        (("001", "A"), "upper and lower case; write a"),
        (("2", "07"), "lost the leading zeros of '002'"),
        (("3", "a"), ""),
        (("01x", "a"), ""),
    ],
)
def test_a_name_changed_by_a_spreadsheet_is_recognised(key, words):
    cause = suggest_session(key, [("001", "a"), ("002", "007")])
    assert words in cause
    assert bool(cause) == bool(words)


@pytest.mark.parametrize(
    "cell", ["=1+1", "+x", "-x", "@sum", "-2+3", "'=1+1", "''@x", "=", "-", "'", "\t=1", "\rx", "-0.5", "+1e-3", "x=1"]
)
def test_a_formula_is_quoted_and_read_back(cell, tmp_path):
    text = format_csv(["a", "b"], [[cell, "end"]])
    stored = list(csv.reader(io.StringIO(text, newline="")))[1][0]
    if len(stored) > 1 and not re.fullmatch(r"-0\.5|\+1e-3", stored):
        assert stored[0] not in "=+-@\t\r\n"
    _, rows = read_csv_rows(written(tmp_path, text))
    assert rows == [(2, {"a": cell.replace("\r", "\n"), "b": "end"})]


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), st.text("'=+-@\t\r\n,;.05e", min_size=1))
def test_any_text_is_read_back_up_to_outer_white_space_and_unicode_form(tmp_path_factory, one, other):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(format_csv(["id", "session", "x"], [[one, other, "end"]]).encode())
    (row,) = [row for _, row in read_csv_rows(path)[1]]
    for cell, found in ((one, row["id"]), (other, row["session"])):
        assert found.strip() == to_nfc(cell.replace("\r\n", "\n").replace("\r", "\n")).strip()


def test_numbers_and_empty_cells_stay():
    assert [escape_formula(cell) for cell in (-0.5, -3, "-0.5", "-7.87e-04", None, True, "")] == [
        -0.5,
        -3,
        "-0.5",
        "-7.87e-04",
        None,
        True,
        "",
    ]


@given(st.binary(max_size=60))
def test_any_bytes_are_a_table_or_an_error_in_one_line(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "bytes.csv"
    path.write_bytes(content)
    line = ""
    try:
        header, rows = read_csv_rows(path)
    except InputError as error:
        line = str(error)
    else:
        assert all(list(row) == header for _, row in rows)
    assert "\n" not in line
