"""The labels table: id and session of each row, and the classes of the five attributes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fr_ps.config import Attribute, LabelForm
from fr_ps.errors import InputError
from fr_ps.tables import SessionKey, Table, read_session_table

Classes = Mapping[Attribute, Mapping[str, Sequence[str]]]
"""Attribute to class name to the raw values of that class. Of two classes, the second is the positive one."""

COLUMNS: dict[Attribute, str] = {
    "gender": "Gender",
    "spectacles": "Spectacles",
    "facial_hair": "Facial_Hair",
    "pose": "Pose",
    "emotion": "Emotion",
}
ATTRIBUTES = tuple(COLUMNS)
MISSING = -1

DEFAULT_CLASSES: Classes = {
    "gender": {"female": ["female"], "male": ["male"]},
    "spectacles": {"no": ["no"], "yes": ["yes"]},
    "facial_hair": {"none": ["none"], "any": ["stubble", "both", "moustache", "beard"]},
    "pose": {"frontal": ["1", "2"], "turned": ["3", "4", "5"]},
    "emotion": {"blankstare": ["blankstare"], "other": ["positive", "negative", "emoOther"]},
}
"""The classes of the original project."""

_BOOLEANS = ("false", "true")
_BOOLEAN_LABELS = (("0", "1"), ("no", "yes"))
"""The pairs of labels that false and true may stand for, if both are values of the attribute."""
_REDUCED_POSE = {"frontal": ["1"], "turned": ["2"]}


@dataclass(frozen=True)
class Labels:
    """The labels of n sessions.

    Attributes:
        ids: (n,) str, the subject of each session.
        sessions: (n,) str.
        codes: (n, 5) int8, the class of each attribute in the order of `ATTRIBUTES`, -1 if unknown.
        classes: the class names and raw values behind the codes.
        encoding: of the table: `raw`, `reduced` or `encoded`.
        columns: every column of the table by name, unchanged.
    """

    ids: np.ndarray
    sessions: np.ndarray
    codes: np.ndarray
    classes: Classes
    encoding: str
    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.ids)

    def row_keys(self) -> list[SessionKey]:
        """(id, session) of each row."""
        return list(zip(self.ids.tolist(), self.sessions.tolist()))

    def session_names(self) -> list[str]:
        """`id/session` of each row."""
        return ["/".join(key) for key in self.row_keys()]

    def class_names(self, attribute: Attribute) -> list[str]:
        """The class names of one attribute, in the order of the codes."""
        return list(self.classes[attribute])

    def sorted_rows(self) -> np.ndarray:
        """(n,) the rows sorted by id and session, to make random draws independent of the order of the table."""
        return np.lexsort((_unique_strings(self.sessions)[1], self.subject_of))

    @property
    def subjects(self) -> np.ndarray:
        """(subjects,) str, the different ids, sorted."""
        return self._unique_ids[0]

    @property
    def subject_of(self) -> np.ndarray:
        """(n,) int, the index of each session's id in `subjects`; comparing these is faster than comparing ids."""
        return self._unique_ids[1]

    @cached_property
    def _unique_ids(self) -> tuple[np.ndarray, np.ndarray]:
        return _unique_strings(self.ids)

    def count_subjects(self, rows: np.ndarray | slice = slice(None)) -> int:
        """The number of subjects of some rows; by default, of all."""
        return len(np.unique(self.subject_of[rows]))

    def subset(self, rows: np.ndarray) -> "Labels":
        """The labels of some rows, given by index."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        return Labels(self.ids[rows], self.sessions[rows], self.codes[rows], self.classes, self.encoding, columns)


def _unique_strings(strings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`np.unique(strings, return_inverse=True)`, by a hash table instead of sorting all of them."""
    listed = strings.tolist()
    unique = sorted(set(listed))
    place = {string: index for index, string in enumerate(unique)}
    return np.array(unique, dtype=strings.dtype), np.fromiter(map(place.__getitem__, listed), np.intp, len(listed))


def read_labels(path: Path, encoding: LabelForm = "auto", classes: Classes | None = None) -> Labels:
    """The labels table at `path`, with every value checked.

    Case is ignored, `1.0` is 1, and `True` and `False` are read as 1 and 0, or as yes and no, whichever the attribute has.

    Args:
        path: CSV with the columns id, session, Gender, Spectacles, Facial_Hair, Pose, Emotion; further columns are kept.
        encoding: of the attributes. `auto` detects it: `encoded` if every filled cell is 0 or 1; `reduced` (the original
            project's final_dataset.csv) if Gender is text and the values of Pose are 1 and 2, both present (2 is `turned`);
            else `raw`.
        classes: classes of raw values that replace the default ones of their attributes.

    Raises:
        InputError: a missing column, an id or session that is not a plain name, two rows of one session, or an unknown value;
            names the file, row and column.
    """
    table = read_session_table(path, list(COLUMNS.values()))
    if not table.numbers:
        raise InputError(f"{path}: no rows below the header")
    merged = _complete_classes(classes or {})
    detected = _detect_encoding(table) if encoding == "auto" else encoding
    codes = np.empty((len(table.numbers), len(ATTRIBUTES)), dtype=np.int8)
    for index, (attribute, column) in enumerate(COLUMNS.items()):
        codes[:, index] = _encode_column(path, table, column, _value_codes(attribute, detected, merged), detected)
    columns = {name: np.array(cells, dtype=str) for name, cells in table.columns.items()}
    return Labels(columns["id"], columns["session"], codes, merged, detected, columns)


def _encode_column(path: Path, table: Table, column: str, value_codes: Mapping[str, int], encoding: str) -> np.ndarray:
    """(n,) int8, the class code of each cell of a column. Each distinct value is encoded only once.

    Raises:
        InputError: a cell has no code; names the first such row.
    """
    cells = table.columns[column]
    code_of = {cell: _encode(cell, value_codes) for cell in set(cells)}
    if None in code_of.values():
        number, cell = next((number, cell) for number, cell in zip(table.numbers, cells) if code_of[cell] is None)
        choices = ", ".join(filter(None, value_codes))
        raise InputError(f"{path}: row {number}: {column} is {cell!r}; expected one of {choices}, or empty ({encoding} labels)")
    return np.array([code_of[cell] for cell in cells], dtype=np.int8)


def check_raw_values(cells: Mapping[str, str], where: str) -> None:
    """Reject `cells` (column name to cell) that are not raw values of Photoface. A cell may be empty: a missing label.

    Raises:
        InputError: the message begins with `where` and names the column and the choices.
    """
    for attribute, column in COLUMNS.items():
        value_codes = _value_codes(attribute, "raw", DEFAULT_CLASSES)
        if _encode(cells[column], value_codes) is None:
            choices = ", ".join(filter(None, value_codes))
            raise InputError(f"{where}: {column} is {cells[column]!r}; expected one of {choices}, or an empty cell")


def _complete_classes(classes: Classes) -> Classes:
    for attribute, groups in classes.items():
        if len(groups) < 2:
            raise InputError(f"data.classes.{attribute} has {len(groups)} class; expected two or more")
        values = [value for group in groups.values() for value in group]
        if len(set(values)) != len(values):
            raise InputError(f"data.classes.{attribute}: a raw value is in two classes; remove it from one of them")
    return {attribute: classes.get(attribute, DEFAULT_CLASSES[attribute]) for attribute in ATTRIBUTES}


def _detect_encoding(table: Table) -> LabelForm:
    filled = {name: {_normalize_value(cell) for cell in set(table.columns[name]) if cell} for name in COLUMNS.values()}
    codes = {"0", "1", *_BOOLEANS}
    if any(filled.values()) and all(values <= codes for values in filled.values()):
        return "encoded"
    if filled["Gender"] and not filled["Gender"] <= codes and filled["Pose"] == {"1", "2"}:
        return "reduced"
    return "raw"


def _normalize_value(value: str) -> str:
    """A cell in lower case, with `1.0` as 1, as spreadsheets may have changed both."""
    return re.sub(r"(?<=\d)\.0+$", "", value.casefold())


def _encode(value: str, codes: Mapping[str, int]) -> int | None:
    """The class code of a cell: of the exact value, else of the normalised value, if that is unambiguous; else None."""
    if value in codes:
        return codes[value]
    normalized = _normalize_value(value)
    matches = {code for known, code in codes.items() if _normalize_value(known) == normalized}
    if not matches and normalized in _BOOLEANS:
        matches = {codes[pair[_BOOLEANS.index(normalized)]] for pair in _BOOLEAN_LABELS if codes.keys() >= {*pair}}
    return matches.pop() if len(matches) == 1 else None


def _value_codes(attribute: Attribute, encoding: str, classes: Classes) -> dict[str, int]:
    """The class code of each value that a cell may have."""
    groups = classes[attribute]
    if encoding != "raw" and len(groups) != 2:
        raise InputError(
            f"data.classes.{attribute} has {len(groups)} classes, but {encoding} labels distinguish only two; use raw labels"
        )
    if encoding == "encoded":
        return {"": MISSING, "0": 0, "1": 1}
    if encoding == "reduced" and attribute == "pose":
        groups = _REDUCED_POSE
    return {"": MISSING} | {value: code for code, group in enumerate(groups.values()) for value in group}
