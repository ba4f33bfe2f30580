"""Photoface's text files: any layout of the same numbers is read, and errors name the line."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fr_ps.config import LightAxes
from fr_ps.photometric.photoface import ATTRIBUTES, LANDMARKS, read_attributes, read_landmarks, read_light_source

ANGLES = [(50.0, 130.0), (52.5, 40.0), (38.0, 215.0), (40.25, -35.0)]
MATRIX = "[50 130; 52.5 40; 38 215; 40.25 -35]"
POINTS = np.array(
    [(20, 30), (30, 31), (45, 12), (60, 31), (70, 30), (38, 55), (45, 54), (52, 55), (33, 70), (57, 70), (45, 90.5)]
)
LINE_ENDS = ("\n", "\r\n", "\r")
BYTE_ORDER_MARK = "\ufeff"
Read = Callable[[Path], object]


def directions(angles: Sequence[tuple[float, float]]) -> np.ndarray:
    zenith, azimuth = np.radians(angles).T
    return np.stack([np.sin(zenith) * np.cos(azimuth), np.sin(zenith) * np.sin(azimuth), np.cos(zenith)], axis=1)


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., np.ndarray]:
    """Reads `text` from a file with the given line ends."""
    path = tmp_path_factory.mktemp("photoface") / "file"

    def written(reader: Callable[..., np.ndarray], text: str, end: str = "\n", *rest: object) -> np.ndarray:
        path.write_bytes(text.replace("\n", end).encode())
        return reader(path, *rest)

    return written


def test_zenith_and_azimuth_are_a_direction(read) -> None:
    np.testing.assert_allclose(read(read_light_source, MATRIX), directions(ANGLES), atol=1e-12)
    x, y, z, _ = read(read_light_source, "[90 0; 90 90; 0 77; 1 1]")
    np.testing.assert_allclose([x, y, z], np.eye(3), atol=1e-12)


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ("xy", lambda a, b: (a, b)),
        ("-xy", lambda a, b: (-a, b)),
        ("x-y", lambda a, b: (a, -b)),
        ("-x-y", lambda a, b: (-a, -b)),
        ("yx", lambda a, b: (b, a)),
        ("-yx", lambda a, b: (b, -a)),
        ("y-x", lambda a, b: (-b, a)),
        ("-y-x", lambda a, b: (-b, -a)),
    ],
)
def test_axes_assign_the_first_two_components(axes: LightAxes, expected, read) -> None:
    first, second, z = directions(ANGLES).T
    lights = read(read_light_source, MATRIX, "\n", axes)
    np.testing.assert_allclose(lights.T, [*expected(first, second), z], atol=1e-12)


blank = st.text(" \t", max_size=3)
comment = st.sampled_from(["", "% light [1 2; 3 4]", "%", "% 50°, ... and so on"])
separator = st.builds("{}{}{}".format, blank, st.sampled_from([" ", ",", "\t", " ...\n", "... more to come [\n "]), blank)
row_end = st.builds(
    "{}{}{}".format, blank, st.sampled_from([";", "\n", ";\n", "\n\n", "\n % 9 9\n"]), st.builds("{}{}".format, blank, comment)
)


@given(data=st.data(), end=st.sampled_from(LINE_ENDS), mark=st.sampled_from(["", BYTE_ORDER_MARK]))
def test_any_matlab_layout_of_the_matrix_reads_alike(data: st.DataObject, end: str, mark: str, read) -> None:
    text = mark + data.draw(st.sampled_from(["", "% lights\n", "clear all;\nN = 4;\n", "\n\n"]))
    text += (
        data.draw(st.sampled_from(["", "LightSource = ", "LightSource=...\n"]))
        + "["
        + data.draw(st.sampled_from(["", "\n", " "]))
    )
    for k, (zenith, azimuth) in enumerate(ANGLES):
        form = data.draw(st.sampled_from(["{:g}", "{:+.4f}", "{:.6e}"]))
        ending = data.draw(row_end) if k < 3 else data.draw(st.sampled_from(["", ";", "\n", " ;\n"]))
        # A comment runs to the end of its line.
        text += form.format(zenith) + data.draw(separator) + form.format(azimuth) + ending + ("\n" if "%" in ending else "")
    text += "]" + data.draw(st.sampled_from(["", ";", "';\nx = 3;\n", "\n% end", " % transposed later"]))
    np.testing.assert_allclose(read(read_light_source, text, end), directions(ANGLES), atol=1e-6)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["0 bracketed"]),
        ("50 130; 52 40; 38 215", ["0 bracketed"]),
        ("L = [50 130; 52 40; 38 215", ["0 bracketed"]),
        ("% [50 130; 52 40; 38 215]", ["0 bracketed"]),
        (f"L = {MATRIX};\nM = {MATRIX};", ["2 bracketed"]),
        ("L = [50 130; 52 40]", ["2 rows"]),
        ("L = []", ["0 rows"]),
        ("L = [50 130\n52 40\n38 215 1\n40 35]", ["line 3", "3 columns"]),
        ("L = [\n\n50 130\n52\n38 215]", ["line 4", "1 columns"]),
        ("L = [50 52 38 40; 130 40 215 35]", ["line 1", "4 columns"]),
        ("L = [50 130\n52 4O\n38 215]", ["line 2", "'4O'"]),
        ("L = [50 130 ...\n; 52 nan\n38 215]", ["line 2", "'nan'"]),
        ("L = [50 130; 52 1e999; 38 215]", ["line 1", "'1e999'"]),
        ("L = [50 130; 52 90-5; 38 215]", ["line 1", "'90-5'"]),
    ],
)
def test_an_invalid_matrix_is_rejected_by_line(text: str, words: list[str], tmp_path: Path, rejected) -> None:
    path = tmp_path / "LightSource.m"
    path.write_text(text)
    with rejected(path, *words):
        read_light_source(path)


def point_lines(x: float, y: float) -> str:
    return f"{x:g} {y:g}\n"


def test_landmarks_come_in_photofaces_order(read) -> None:
    points = read(read_landmarks, "".join(point_lines(*point) for point in POINTS))
    np.testing.assert_array_equal(points, POINTS)
    assert len(LANDMARKS) == 11
    assert points[LANDMARKS.index("chin"), 1] == points[:, 1].max()
    assert points[LANDMARKS.index("forehead"), 1] == points[:, 1].min()


@given(data=st.data(), end=st.sampled_from(LINE_ENDS), mark=st.sampled_from(["", BYTE_ORDER_MARK]))
def test_any_layout_of_the_landmarks_reads_alike(data: st.DataObject, end: str, mark: str, read) -> None:
    gap = st.builds("{}{}{}".format, blank, st.sampled_from([" ", ",", "\t", ";"]), blank)
    line_end = st.sampled_from(["\n", "\n\n", " \n", ",\n", "  # a comment, 1 2\n", "% 3\n", "\n# 4 5\n"])
    by_axis = data.draw(st.booleans())
    text = mark + data.draw(st.sampled_from(["", "\n", "# x y\n"]))
    for k, number in enumerate((POINTS.T if by_axis else POINTS).ravel()):
        last = k == 21 or (k == 10 if by_axis else k % 2 == 1 and data.draw(st.booleans()))
        text += data.draw(st.sampled_from(["{:g}", "{:.3f}", "{:.5e}"])).format(number) + data.draw(line_end if last else gap)
    np.testing.assert_allclose(read(read_landmarks, text, end), POINTS)


def test_left_and_right_are_assigned_by_x(read) -> None:
    of_the_person = POINTS[[4, 3, 2, 1, 0, 7, 6, 5, 9, 8, 10]]
    np.testing.assert_array_equal(read(read_landmarks, "".join(point_lines(*point) for point in of_the_person)), POINTS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: lines[:9], ["line 9", "9 landmarks", "expected 11"]),
        (lambda lines: [*lines, "1 2\n"], ["line 12", "12 landmarks", "expected 11"]),
        (lambda lines: [], ["0 landmarks"]),
        (lambda lines: [*lines[:4], "70\n", *lines[5:]], ["line 5", "1 numbers"]),
        (lambda lines: ["\n", "# x y\n", *lines[:4], "70 3O\n", *lines[5:]], ["line 7", "'3O'"]),
        (lambda lines: [*lines[:10], "45 nan\n"], ["line 11", "'nan'"]),
        (lambda lines: [f"{k} {line}" for k, line in enumerate(lines)], ["line 1", "3 numbers"]),
    ],
)
def test_another_number_of_points_is_rejected_by_line(change, words: list[str], tmp_path: Path, rejected) -> None:
    path = tmp_path / "metadata.txt"
    path.write_text("".join(change([point_lines(*point) for point in POINTS])))
    with rejected(path, *words):
        read_landmarks(path)


@pytest.mark.parametrize("end", ["", *LINE_ENDS])
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("male,no,none,1,ok,,blankstare", ["male", "no", "none", "1", "ok", "", "blankstare"]),
        ("female , yes,none, 3,blur,-hair-other\t,emoOther ", ["female", "yes", "none", "3", "blur", "-hair-other", "emoOther"]),
        (BYTE_ORDER_MARK + "\n% gender, ...\n,,,,,,# all unknown", [""] * 7),
    ],
)
def test_attributes_are_seven_values(line: str, expected: list[str], end: str, read) -> None:
    assert read(read_attributes, line + "\n" * bool(end), end or "\n") == dict(zip(ATTRIBUTES, expected))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("male,no,none,1,ok,blankstare", ["line 1", "6 values"]),
        ("\nmale,no,none,1,ok,,blankstare,x", ["line 2", "8 values"]),
        ("male no none 1 ok none blankstare", ["line 1", "1 values"]),
        ("male,no,none,1,ok,,blankstare\nmale,no,none,1,ok,,blankstare", ["line 2"]),
        ("\n# nothing\n", ["empty"]),
    ],
)
def test_attributes_of_another_number_are_rejected(text: str, words: list[str], tmp_path: Path, rejected) -> None:
    path = tmp_path / "metadataII.txt"
    path.write_text(text)
    with rejected(path, *words):
        read_attributes(path)


@pytest.mark.parametrize("reader", [read_light_source, read_landmarks, read_attributes])
def test_a_missing_file_a_folder_and_no_text_are_rejected(reader: Read, tmp_path: Path, rejected) -> None:
    with rejected(tmp_path / "missing"):
        reader(tmp_path / "missing")
    with rejected(tmp_path):
        reader(tmp_path)
    (tmp_path / "bytes").write_bytes(bytes(range(256)) * 3)
    with rejected(tmp_path / "bytes"):
        reader(tmp_path / "bytes")
