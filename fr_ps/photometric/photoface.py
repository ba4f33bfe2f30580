"""Photoface's text files: `LightSource.m` (lights), `metadata.txt` (landmarks), `metadataII.txt` (attributes)."""

import re
from io import TextIOWrapper
from pathlib import Path

import numpy as np

from fr_ps.config import LightAxes
from fr_ps.errors import InputError
from fr_ps.files import open_regular
from fr_ps.photometric.lights import MIN_LIGHTS, parse_degrees, parse_number

LIGHT_SOURCE_FILE = "LightSource.m"
LANDMARKS_FILE = "metadata.txt"
ATTRIBUTES_FILE = "metadataII.txt"

LANDMARKS = (
    "left_eye_outer",
    "left_eye_inner",
    "forehead",
    "right_eye_inner",
    "right_eye_outer",
    "nose_left",
    "nose_tip",
    "nose_right",
    "mouth_left",
    "mouth_right",
    "chin",
)
"""In the order of the file. Left and right are those of the picture, not of the subject."""
_MIRRORED_PAIRS = ((0, 4), (1, 3), (5, 7), (8, 9))

ATTRIBUTES = ("Gender", "Spectacles", "Facial_Hair", "Pose", "Quality", "Occlusion", "Emotion")


def read_light_source(path: Path, axes: LightAxes = "xy") -> np.ndarray:
    """The (k, 3) unit vectors toward the lights in the bracketed matrix `[z a; z a; ...]` of zenith and azimuth in degrees.

    Zenith Z and azimuth A give the direction (sin Z cos A, sin Z sin A, cos Z). That convention is not verified; `axes`
    assigns the first two components to axes and signs: "-xy" negates x, "yx" swaps the two, and with "y-x" the first is y
    and the second -x.

    Text outside the brackets, comments (%) and line continuations (...) are ignored.

    Raises:
        InputError: the file is missing, has no matrix or more than one, fewer than three rows, a row without two columns,
            or text that is not a number; names the line.
    """
    rows = _matrix_rows(path)
    for line, row in rows:
        if len(row) != 2:
            raise InputError(f"{path}: line {line}: {len(row)} columns in a row of the matrix; expected zenith and azimuth")
    if len(rows) < MIN_LIGHTS:
        raise InputError(f"{path}: the matrix has {len(rows)} rows; expected one row per light, at least three")
    angles = [[parse_degrees(text, f"{path}: line {line}: an angle") for text in row] for line, row in rows]
    zenith, azimuth = np.radians(np.array(angles)).T
    lights = np.empty((len(rows), 3))
    lights[:, 2] = np.cos(zenith)
    for component, axis in zip((np.cos(azimuth), np.sin(azimuth)), re.findall("-?[xy]", axes)):
        lights[:, "xy".index(axis[-1])] = np.sin(zenith) * (-component if axis[0] == "-" else component)
    return lights


def read_landmarks(path: Path) -> np.ndarray:
    """The (11, 2) landmarks in the order of `LANDMARKS`: x right and y down in pixels from the picture's top left corner.

    Numbers are separated by white space, commas or semicolons, as x y x y ... in any number of lines or as a line of x and
    a line of y; comments begin with # or %. Left and right are assigned by x, whatever their order in the file.

    Raises:
        InputError: the file is missing, has not 22 numbers, or a line splits a point; names the line.
    """
    lines = _tokenized_lines(path)
    counts = [len(tokens) for _, tokens in lines]
    count = len(LANDMARKS)
    numbers = [
        parse_number(token, f"{path}: line {line}: a coordinate", "a number") for line, tokens in lines for token in tokens
    ]
    by_axis = counts == [count, count]
    for (line, _), found in zip(lines, counts):
        if found % 2 and not by_axis:
            raise InputError(f"{path}: line {line}: {found} numbers; expected pairs of x and y")
    if len(numbers) != 2 * count:
        last = f"line {lines[-1][0]}: " if lines else ""
        raise InputError(f"{path}: {last}{len(numbers) // 2} landmarks up to here; expected {count}: {', '.join(LANDMARKS)}")
    points = np.array(numbers).reshape(2, count).T if by_axis else np.array(numbers).reshape(count, 2)
    for left, right in _MIRRORED_PAIRS:
        if points[left, 0] > points[right, 0]:
            points[[left, right]] = points[[right, left]]
    return points


def read_attributes(path: Path) -> dict[str, str]:
    """The seven comma-separated values by their names in `ATTRIBUTES`; an empty value is an empty string.

    Raises:
        InputError: the file is missing, has more than one line, or not seven values; names the line.
    """
    lines = [(number, line) for number, line in _lines_without_comments(path, "[#%]") if line.strip()]
    if len(lines) != 1:
        where = f"line {lines[1][0]}: more than one line" if lines else "empty"
        raise InputError(f"{path}: {where}; expected one line of {','.join(ATTRIBUTES)}")
    number, line = lines[0]
    values = [value.strip() for value in line.split(",")]
    if len(values) != len(ATTRIBUTES):
        raise InputError(f"{path}: line {number}: {len(values)} values; expected {len(ATTRIBUTES)}: {','.join(ATTRIBUTES)}")
    return dict(zip(ATTRIBUTES, values))


def _matrix_rows(path: Path) -> list[tuple[int, list[str]]]:
    """The line and the cells of each row of the one bracketed matrix in a MATLAB file, without empty rows."""
    text = ""
    for _, line in _lines_without_comments(path, "%"):
        code, continued, _ = line.partition("...")
        # A continued line ends in a form feed: white space within a row, but counted as a line.
        text += code + ("\f" if continued else "\n")
    matrices = list(re.finditer(r"\[([^][]*)\]", text))
    if len(matrices) != 1:
        expected = "expected one, [zenith azimuth; zenith azimuth; ...] in degrees"
        raise InputError(f"{path}: {len(matrices)} bracketed matrices; {expected}")
    rows = []
    for row in re.finditer(r"[^\s;,][^\n;]*", matrices[0][1]):
        before = text[: matrices[0].start(1) + row.start()]
        rows.append((1 + before.count("\n") + before.count("\f"), re.findall(r"[^,\s]+", row[0])))
    return rows


def _tokenized_lines(path: Path) -> list[tuple[int, list[str]]]:
    """Number and tokens of each line that is not empty."""
    split = [(number, re.findall(r"[^,;\s]+", line)) for number, line in _lines_without_comments(path, "[#%]")]
    return [(number, tokens) for number, tokens in split if tokens]


def _lines_without_comments(path: Path, comment: str) -> list[tuple[int, str]]:
    """Number and text of each line, without its comment.

    Bytes that are not UTF-8 (a degree sign in a comment) are replaced; where a number is expected, they are rejected later.
    """
    try:
        with TextIOWrapper(open_regular(path), encoding="utf-8-sig", errors="replace") as file:
            text = file.read()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; copy it from the data set as distributed") from None
    except OSError as error:
        raise InputError(f"{path}: unreadable ({error.strerror}); check its permissions or copy it again") from None
    return [(number, re.split(comment, line, maxsplit=1)[0]) for number, line in enumerate(text.split("\n"), start=1)]
