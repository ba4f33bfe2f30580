"""CSV tables: reads the variants of spreadsheets, and writes cells that a spreadsheet does not run as formulas."""

import codecs
import csv
import io
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fr_ps.errors import InputError, one_line
from fr_ps.files import check_path_component, is_plain_name, read_bytes

SessionKey = tuple[str, str]
"""id and session."""

_MAX_BYTES = 256_000_000
_SEPARATORS = ",;\t"
_ENCODINGS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte order mark to encoding; longer marks first, as one is a prefix of another."""
_EXCEL_SEPARATOR = re.compile(r'"?sep=(.)"?(?=\r?\n|\r|$)', re.IGNORECASE)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}", re.ASCII)
_NAME_COLUMNS = frozenset({"id", "session", "id_a", "session_a", "id_b", "session_b", "part", "fold", "image"})
"""Columns of names, whose commas are not decimal commas."""
_FORMULA = re.compile(r"'*[=+\-@\t\n]\s*\S")
"""Text that a spreadsheet reads as a formula, after any number of quotes."""
_FORMULA_STARTS = tuple("'=+-@\t\n")
_QUOTED_FORMULA = re.compile(r"'+[=+\-@\t\n]\s*\S")


def format_csv(header: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """The text of a CSV file, with `escape_formula` applied to all cells."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(escape_formula, header))
    writer.writerows(map(escape_formula, row) for row in rows)
    return text.getvalue()


def escape_formula(cell: object) -> object:
    """A cell for writing: text that starts like a formula, and is not a number, gets a leading quote (').

    `read_csv_rows` removes the quote. A carriage return becomes a newline, as `csv` does not quote it.
    """
    if not isinstance(cell, str):
        return cell
    if "\r" in cell:
        cell = cell.replace("\r\n", "\n").replace("\r", "\n")
    if cell[:1] not in _FORMULA_STARTS:  # nearly all cells, in a third of the time
        return cell
    return "'" + cell if _FORMULA.match(cell) and not NUMBER.fullmatch(cell) else cell


def to_nfc(text: str) -> str:
    """The text in Unicode's composed form (NFC). Folder names from a Mac may be decomposed."""
    return unicodedata.normalize("NFC", text)


@dataclass(frozen=True)
class Table:
    """The cells of a CSV file by column, which takes a fraction of the time and memory of a dictionary a row.

    Attributes:
        header: the column names.
        numbers: (n,) the row number of each row in the file.
        columns: column name to its n cells, in the order of the header.
    """

    header: list[str]
    numbers: list[int]
    columns: dict[str, list[str]]

    def rows(self) -> list[tuple[int, dict[str, str]]]:
        """Row number, and cells by column, of each row."""
        return [(number, dict(zip(self.header, cells))) for number, cells in zip(self.numbers, zip(*self.columns.values()))]


def read_table(path: Path) -> Table:
    """Read a CSV file.

    The separator is a comma, semicolon or tab, whichever fits header and rows. The encoding is UTF-8 or that of a byte order
    mark; the text is converted to NFC. White space around cells is removed. Decimal commas in columns of numbers become
    points.

    Raises:
        InputError: the file is missing, empty or not text, or a row is longer or shorter than the header.
    """
    text = to_nfc(_read_text(path))
    try:
        separator, numbers, rows = _split_rows(text)
    except csv.Error as error:
        raise InputError(f"{path}: not a readable CSV file ({one_line(error)}); save it as CSV again") from None
    if not rows:
        raise InputError(f"{path}: empty; expected a header row")
    header = rows[0]
    if len(set(header)) != len(header):
        raise InputError(f"{path}: row 1: repeated column name ({', '.join(header)}); rename one of them")
    for number, row in zip(numbers, rows):
        if len(row) != len(header):
            raise InputError(f"{path}: row {number}: {len(row)} cells, but the header has {len(header)}; expected as many")
    columns = {name: [row[place] for row in rows[1:]] for place, name in enumerate(header)}
    columns = {name: cells if name in _NAME_COLUMNS else _normalize_decimals(cells, separator) for name, cells in columns.items()}
    return Table(header, numbers[1:], columns)


def read_csv_rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Read a CSV file: the column names, and the rows as (row number in the file, cells by column).

    Raises:
        InputError: as `read_table`.
    """
    table = read_table(path)
    return table.header, table.rows()


def read_session_table(path: Path, columns: Sequence[str]) -> Table:
    """Read a CSV file with one row per session.

    Args:
        path: of the file.
        columns: required columns beside id and session.

    Raises:
        InputError: as `read_table`; also for a missing column, an invalid id or session, or a repeated session.
    """
    table = read_table(path)
    check_columns(path, table.header, ("id", "session", *columns))
    ids, sessions = table.columns["id"], table.columns["session"]
    if len(set(map("/".join, zip(ids, sessions)))) < len(ids) or not all(map(is_plain_name, {*ids, *sessions})):
        _reject_first_bad_session(path, table)
    return table


def _reject_first_bad_session(path: Path, table: Table) -> None:
    """Raise the error of the first row whose id or session is invalid, or whose session is in an earlier row."""
    row_of: dict[SessionKey, int] = {}
    for number, *key in zip(table.numbers, table.columns["id"], table.columns["session"]):
        where = f"{path}: row {number}"
        subject, session = (check_path_component(name, f"{where}: {column}") for name, column in zip(key, ("id", "session")))
        if (subject, session) in row_of:
            raise InputError(f"{where}: {subject}/{session} is also in row {row_of[subject, session]}; remove one of them")
        row_of[subject, session] = number


def read_session_rows(path: Path, columns: Sequence[str]) -> tuple[list[str], dict[SessionKey, tuple[int, dict[str, str]]]]:
    """Read a CSV file with one row per session: the column names, and (id, session) to row number and cells.

    Raises:
        InputError: as `read_session_table`.
    """
    table = read_session_table(path, columns)
    return table.header, dict(zip(zip(table.columns["id"], table.columns["session"]), table.rows()))


def check_columns(path: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    """Check that a table has all `columns`.

    Raises:
        InputError: names the first missing column, the required columns, and those of the table.
    """
    missing = [name for name in columns if name not in header]
    if missing:
        raise InputError(
            f"{path}: no column {missing[0]}; the header must have {','.join(columns)}, separated by commas, semicolons or tabs; "
            f"found {len(header)} columns: {', '.join(header)}"
        )


def suggest_session(key: SessionKey, known: Collection[SessionKey]) -> str:
    """A hint at the session of `known` that `key` probably means: they differ only in case, leading zeros or `.0`; else empty."""
    for other in sorted(known):
        if key == other or tuple(map(_normalize, key)) != tuple(map(_normalize, other)):
            continue
        mine, theirs = next((mine, theirs) for mine, theirs in zip(key, other) if mine != theirs)
        if mine.casefold() == theirs.casefold():
            return f"{'/'.join(other)} exists: the names differ in upper and lower case; write {theirs}"
        how = "has the number" if mine.endswith(".0") else "lost the leading zeros of"
        return f"{'/'.join(other)} exists: the table {how} {theirs!r}, as spreadsheets do; write {theirs}, in a text column"
    return ""


def _normalize(name: str) -> str:
    """A name in the form in which `suggest_session` compares: no leading zeros, no `.0`, lower case."""
    return re.sub(r"^0+(?=.)|(?<=\d)\.0+$", "", name.casefold())


def _read_text(path: Path) -> str:
    content = read_bytes(path, _MAX_BYTES, "name a CSV file")
    encoding = next((name for mark, name in _ENCODINGS.items() if content.startswith(mark)), "utf-8-sig")
    if encoding == "utf-8-sig" and b"\0" in content[:1000]:
        raise InputError(f"{path}: not text, or UTF-16 without a byte order mark; save it as CSV UTF-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}: row {row}: not {encoding.removesuffix('-sig').upper()} text; save it as CSV UTF-8") from None


def _split_rows(text: str) -> tuple[str, list[int], list[list[str]]]:
    """The best separator, and the row numbers and stripped cells of the rows that are not empty.

    The order of preference: all rows have as many cells as the header; more columns; comma, semicolon, tab.

    Raises:
        csv.Error: an open quote, or another error of the format.
    """
    if stated := _EXCEL_SEPARATOR.match(text):
        return stated[1], *_parse_rows(text[stated.end() :], stated[1])
    header = text.lstrip().partition("\n")[0]
    found = []
    last_error = csv.Error("no rows")
    for separator in [one for one in _SEPARATORS if one in header] or [","]:
        try:
            numbers, rows = _parse_rows(text, separator)
        except csv.Error as error:
            last_error = error
            continue
        width = len(rows[0]) if rows else 0
        found.append((all(len(row) == width for row in rows), width, separator, numbers, rows))
    if not found:
        raise last_error
    _, _, separator, numbers, rows = max(found, key=lambda one: one[:2])
    return separator, numbers, rows


def _parse_rows(text: str, separator: str) -> tuple[list[int], list[list[str]]]:
    rows = [list(map(str.strip, row)) for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)]
    if "'" in text:
        rows = [[_unescape_formula(cell) for cell in row] for row in rows]
    numbers = [number for number, row in enumerate(rows, start=1) if any(row)]
    return numbers, [rows[number - 1] for number in numbers]


def _unescape_formula(cell: str) -> str:
    return cell[1:] if _QUOTED_FORMULA.match(cell) else cell


def _normalize_decimals(cells: list[str], separator: str) -> list[str]:
    """The cells of a column, with points for decimal commas if all cells are numbers.

    In files with comma separators, a column whose commas may all separate thousands (1,234) stays unchanged.
    """
    values = set(cells)
    with_comma = [cell for cell in values if "," in cell and _DECIMAL_COMMA.fullmatch(cell)]
    rest = values.difference(with_comma, [""])
    if not with_comma or (separator == "," and all(map(_THOUSANDS.fullmatch, with_comma))):
        return cells
    if any("." in cell or not NUMBER.fullmatch(cell) for cell in rest):
        return cells
    return [cell.replace(",", ".") for cell in cells]
