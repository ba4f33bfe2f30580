"""The labels table: who and which session, and the classes of the five attributes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fr_ps.config import Attribute, LabelForm
from fr_ps.errors import InputError
from fr_ps.tables import read_session_rows

Classes = Mapping[Attribute, Mapping[str, Sequence[str]]]
"""Attribute to class name to the raw values of that class; of two classes, the second is the positive one."""

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
"""Of the raw values, as the original project has them."""

_BOOLEANS = ("false", "true")
_BOOLEAN_LABELS = (("0", "1"), ("no", "yes"))
"""The pairs of labels that truth values stand for, in a column that has both."""
_REDUCED_POSE = {"frontal": ["1"], "turned": ["2"]}


@dataclass(frozen=True)
class Labels:
    """One row a session.

    Attributes:
        ids: (n,) str.
        sessions: (n,) str.
        codes: (n, 5) int8, the class of each attribute in the order of `ATTRIBUTES`, -1 where it is unknown.
        classes: the class names and raw values behind the codes.
        form: how the table was coded.
        columns: every column of the table by name, as it stands there.
    """

    ids: np.ndarray
    sessions: np.ndarray
    codes: np.ndarray
    classes: Classes
    encoding: str
    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.ids)

    def class_names(self, attribute: Attribute) -> list[str]:
        """Of one attribute, in the order of the codes."""
        return list(self.classes[attribute])

    def sorted_rows(self) -> np.ndarray:
        """(n,) the rows sorted by id and session: what a draw starts from, so that the table's order has no influence."""
        return np.lexsort((self.sessions, self.ids))

    def subset(self, rows: np.ndarray) -> "Labels":
        """The labels of some rows, by index."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        return Labels(self.ids[rows], self.sessions[rows], self.codes[rows], self.classes, self.encoding, columns)


def read_labels(path: Path, encoding: LabelForm = "auto", classes: Classes | None = None) -> Labels:
    """The labels table at `path`, every value checked.

    Case is ignored, `1.0` is 1, and `True` and `False` are 1 and 0, or yes and no.

    Args:
        path: CSV with the columns id, session, Gender, Spectacles, Facial_Hair, Pose, Emotion; further ones are kept.
        form: how the attributes are coded; `auto` takes encoded when every filled cell is 0 or 1, reduced (the original's
            final_dataset.csv) when Gender is text and Pose takes 1 and 2 only, 2 being the turned one, else raw.
        classes: classes of raw values that replace the default ones of their attributes.

    Raises:
        InputError: a missing column, an id or session that is no plain name or stands twice, or an unknown value; names
            the file, row and column.
    """
    header, by_session = read_session_rows(path, list(COLUMNS.values()))
    rows = list(by_session.values())
    if not rows:
        raise InputError(f"{path}: no rows below the header")
    merged = _complete_classes(classes or {})
    taken = _detect_encoding([row for _, row in rows]) if encoding == "auto" else encoding
    codes = np.empty((len(rows), len(ATTRIBUTES)), dtype=np.int8)
    for index, (attribute, column) in enumerate(COLUMNS.items()):
        meaning = _value_codes(attribute, taken, merged)
        for line, (number, row) in enumerate(rows):
            code = _encode(row[column], meaning)
            if code is None:
                choices = ", ".join(value for value in meaning if value)
                raise InputError(
                    f"{path}: row {number}: {column} is {row[column]!r}; expected one of {choices}, or empty ({taken} labels)"
                )
            codes[line, index] = code
    columns = {name: np.array([row[name] for _, row in rows], dtype=str) for name in header}
    return Labels(columns["id"], columns["session"], codes, merged, taken, columns)


def check_raw_values(cells: Mapping[str, str], where: str) -> None:
    """Refuse cells, by column name, that are no raw values of Photoface; an empty one is a missing label.

    Raises:
        InputError: names `where` they stand, the column and the choices.
    """
    for attribute, column in COLUMNS.items():
        meaning = _value_codes(attribute, "raw", DEFAULT_CLASSES)
        if _encode(cells[column], meaning) is None:
            choices = ", ".join(value for value in meaning if value)
            raise InputError(f"{where}: {column} is {cells[column]!r}; expected one of {choices}, or nothing")


def _complete_classes(classes: Classes) -> Classes:
    for attribute, groups in classes.items():
        if len(groups) < 2:
            raise InputError(f"data.classes.{attribute} has {len(groups)} class; expected two or more")
        values = [value for group in groups.values() for value in group]
        if len(set(values)) != len(values):
            raise InputError(f"data.classes.{attribute}: a raw value stands in two classes")
    return {attribute: classes.get(attribute, DEFAULT_CLASSES[attribute]) for attribute in ATTRIBUTES}


def _detect_encoding(rows: list[dict[str, str]]) -> LabelForm:
    filled = {name: {_normalize_value(row[name]) for row in rows if row[name]} for name in COLUMNS.values()}
    codes = {"0", "1", *_BOOLEANS}
    if any(filled.values()) and all(values <= codes for values in filled.values()):
        return "encoded"
    if filled["Gender"] and not filled["Gender"] <= codes and filled["Pose"] == {"1", "2"}:
        return "reduced"
    return "raw"


def _normalize_value(value: str) -> str:
    """A label without what other programs change of it: in lower case, and `1.0` as 1."""
    return re.sub(r"(?<=\d)\.0+$", "", value.casefold())


def _encode(value: str, codes: Mapping[str, int]) -> int | None:
    """The class code of a cell: of the very value, else of the one that is like it, if all such have one code; else None."""
    if value in codes:
        return codes[value]
    plain = _normalize_value(value)
    alike = {code for known, code in codes.items() if _normalize_value(known) == plain}
    if not alike and plain in _BOOLEANS:
        alike = {codes[pair[_BOOLEANS.index(plain)]] for pair in _BOOLEAN_LABELS if codes.keys() >= {*pair}}
    return alike.pop() if len(alike) == 1 else None


def _value_codes(attribute: Attribute, encoding: str, classes: Classes) -> dict[str, int]:
    """Value of a cell to class code."""
    groups = classes[attribute]
    if encoding != "raw" and len(groups) != 2:
        raise InputError(
            f"data.classes.{attribute} has {len(groups)} classes, but {encoding} labels tell only two apart; use raw labels"
        )
    if encoding == "encoded":
        return {"": MISSING, "0": 0, "1": 1}
    if encoding == "reduced" and attribute == "pose":
        groups = _REDUCED_POSE
    return {"": MISSING} | {value: code for code, group in enumerate(groups.values()) for value in group}
