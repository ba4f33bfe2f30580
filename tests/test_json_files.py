"""JSON files are checked against their type; errors name file and key."""

import json
import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fr_ps import json_files
from fr_ps.json_files import Milliseconds, NonNegativeInt, parse_json, read_json
from tests.conftest import AssertRejected

REMEDY = "restore it from a copy"


@dataclass(frozen=True)
class Point:
    name: str
    count: NonNegativeInt
    share: float = 0.5
    state: Literal["on", "off"] = "on"
    parts: tuple[str, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    points: list[Point]


def parse(text: str | bytes, kind: Any = Point) -> Any:
    return parse_json(text, kind, "file.json", REMEDY)


def test_a_file_becomes_its_type_and_keys_of_a_newer_version_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text('{"points": [{"name": "é\\n", "count": 3, "share": 1, "parts": ["a"], "new": {"x": [1]}}], "also": 1}')
    assert read_json(path, Table, REMEDY) == Table([Point("é\n", 3, 1.0, parts=("a",))])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as Notepad saves it
    assert read_json(path, Table, REMEDY).points[0].name == "é\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"name": 3, "count": 1}', "name: expected a valid string, found 3"),
        ('{"name": null, "count": 1}', "name: expected a valid string, found null"),
        ('{"name": "a"}', "count: missing"),
        ('{"name": "a", "count": true}', "count: expected a valid integer, found true"),
        ('{"name": "a", "count": 1.0}', "count: expected a valid integer, found 1.0"),
        ('{"name": "a", "count": "1"}', "count: expected a valid integer, found '1'"),
        ('{"name": "a", "count": -1}', "count: expected greater than or equal to 0, found -1"),
        ('{"name": "a", "count": 1, "state": "no"}', "state: expected 'on' or 'off', found 'no'"),
        ('{"name": "a", "count": 1, "parts": ["a", {}]}', "parts[1]: expected a valid string, found an object"),
        ('{"name": "a", "count": 1, "more": [1]}', "more: expected an object, found a list"),
        ("[]", "file.json: expected an object, found a list"),
        ('{"name": "a", "count": 1, "more": {"x": 9223372036854775808}}', "does not fit 64 bits"),
        ('{"name": "a", "count": -9223372036854775809}', "does not fit 64 bits"),
        ('{"name": "a", "count": 1, "more": {"x": %s}}' % ("9" * 5000), "does not fit 64 bits"),
        ('{"name": "a", "count": 1, "more": {"x": 1e400}}', "1e400 is too large"),
        ('{"name": "a", "count": 1, "share": NaN}', "NaN is not a number"),
        ('{"name": "a", "count": 1, "more": {"x": -Infinity}}', "-Infinity is not a number"),
        ('{"name": "a", "count": 1, "name": "b"}', "the key 'name' is repeated"),
        ('{"name": "a", "count": 1, "more": {"x\\u000a": 1, "x\\n": 2}}', "the key 'x\\n' is repeated"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"name": "a", "count": 1, "more": {"x": %s}}' % ("[" * 300 + "]" * 300), "recursion limit"),
        ('{"name": "a"', "not JSON"),
        ("", "not JSON"),
        (b'{"name": "\xff", "count": 1}', "byte 10 is not UTF-8"),
        ('{"name": "a", "count": 1}'.encode("utf-16"), "not UTF-8"),
    ],
)
def test_a_value_of_a_wrong_type_is_an_error_with_its_place(rejected: AssertRejected, text: str | bytes, words: str) -> None:
    start = time.monotonic()
    with rejected("file.json", words, REMEDY):
        parse(text)
    assert time.monotonic() - start < 1


def test_a_date_has_bounds(rejected: AssertRejected) -> None:
    assert parse("253402300799999", Milliseconds) == 253402300799999
    with rejected("expected less than 253402300800000"):
        parse("253402300800000", Milliseconds)


def test_a_newer_format_is_reported_before_other_errors(rejected: AssertRejected) -> None:
    @dataclass(frozen=True)
    class File:
        format: NonNegativeInt
        name: str

    assert parse_json('{"format": 2, "name": "a"}', File, "file.json", REMEDY, formats=range(1, 3)).name == "a"
    with rejected("file.json: format 3 is newer than this version of fr-ps supports (2)", "update fr-ps"):
        parse_json('{"format": 3, "title": "a"}', File, "file.json", REMEDY, formats=range(1, 3))
    with rejected("format: expected a valid integer, found '3'"):
        parse_json('{"format": "3"}', File, "file.json", REMEDY, formats=range(1, 3))
    with rejected("expected an object, found a list"):
        parse_json("[3]", File, "file.json", REMEDY, formats=range(1, 3))


def test_lone_surrogates_of_file_names_are_replaced() -> None:
    written = json.dumps({"name": "caf\udce9 \U0001f600 \\ud800", "count": 1})
    assert parse(written).name == "caf\ufffd \U0001f600 \\ud800"


def test_an_unreadable_file_is_one_line(tmp_path: Path, rejected: AssertRejected, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path) -> None:
        read_json(path, Point, REMEDY)

    with rejected(tmp_path / "absent", "no such file", REMEDY):
        read(tmp_path / "absent")
    with rejected(tmp_path, "regular file"):
        read(tmp_path)
    (tmp_path / "dangling").symlink_to("nowhere")
    with rejected("dangling", "no such file"):
        read(tmp_path / "dangling")
    (tmp_path / "loop").symlink_to("loop")
    with rejected("loop", "cannot be read", "symbolic links"):
        read(tmp_path / "loop")
    with rejected("cannot be read", "name too long"):
        read(tmp_path / ("n" * 300))
    with rejected("cannot be read"):
        read(tmp_path / "a\0b")
    (tmp_path / "file").write_text("{}")
    with rejected("file/below", "cannot be read"):
        read(tmp_path / "file" / "below")
    os.mkfifo(tmp_path / "pipe")
    with rejected("pipe", "regular file"):
        read(tmp_path / "pipe")
    with rejected("/dev/zero", "regular file"):
        read(Path("/dev/zero"))
    monkeypatch.setattr(json_files, "MAX_BYTES", 1000)
    (tmp_path / "large").write_text('{"name": "%s", "count": 1}' % ("a" * 1000))
    with rejected("large", "larger than 0.001 MB"):
        read(tmp_path / "large")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=9,
    )
)
def test_any_json_is_read_back_unless_a_number_is_out_of_range(value: Any) -> None:
    def is_plain(part: Any) -> bool:
        if isinstance(part, (list, dict)):
            return all(map(is_plain, part.values() if isinstance(part, dict) else part))
        return (math.isfinite(part) if isinstance(part, float) else -(2**63) <= part < 2**63) if _is_number(part) else True

    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        try:
            assert parse(text, Any) == value
            assert is_plain(value)
        except json_files.InputError:
            assert not is_plain(value)


def _is_number(part: Any) -> bool:
    return isinstance(part, (int, float)) and not isinstance(part, bool)


def test_pydantic_is_not_imported_before_a_file_is_read() -> None:
    code = "import sys, fr_ps.json_files, fr_ps.tracking.run_folder; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
