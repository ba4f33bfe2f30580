"""Thresholds of a model folder: written, read back, and rejected if damaged."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fr_ps.models.thresholds import THRESHOLDS_FILE, Thresholds, ValidationThreshold, read_thresholds, write_thresholds
from tests.conftest import AssertRejected

LOW = "low support: 4.5 expected false matches of 45 impostor pairs"
EXAMPLE = Thresholds(
    people=7,
    sessions=31,
    identity=(ValidationThreshold(0.1, 0.25, 40, 400, ""), ValidationThreshold(0.01, 0.5, 4, 400, LOW)),
    attributes={"gender": 0.375},
)

counts = st.integers(0, 10**12)
points = st.builds(
    ValidationThreshold, st.floats(0, 1), st.floats(-1, 1), counts, counts, st.sampled_from(["", LOW, 'a "quoted" line\nand é'])
)
attributes = st.dictionaries(st.sampled_from(["gender", "pose"]), st.floats(0, 1))


@given(st.builds(Thresholds, counts, counts, st.lists(points, max_size=4).map(tuple), attributes))
def test_thresholds_are_read_back_to_the_last_bit(tmp_path_factory: pytest.TempPathFactory, given: Thresholds) -> None:
    folder = tmp_path_factory.getbasetemp() / "thresholds"
    write_thresholds(folder, given)
    assert read_thresholds(folder) == given


def test_a_model_without_the_file_has_none(tmp_path: Path) -> None:
    assert read_thresholds(tmp_path) is None
    assert read_thresholds(tmp_path / "no folder") is None


def written(folder: Path) -> dict:
    write_thresholds(folder, EXAMPLE)
    return json.loads((folder / THRESHOLDS_FILE).read_text())


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"thresholds"', '{"people": 1}', '{"metrics": {}, "reasons": {}}'])
def test_another_file_is_rejected_by_its_name(tmp_path: Path, rejected: AssertRejected, text: str) -> None:
    (tmp_path / THRESHOLDS_FILE).write_text(text)
    with rejected(tmp_path / THRESHOLDS_FILE, "expected the thresholds of a model"):
        read_thresholds(tmp_path)


def test_a_truncated_or_binary_file_is_rejected_by_its_name(tmp_path: Path, rejected: AssertRejected) -> None:
    file = tmp_path / THRESHOLDS_FILE
    text = json.dumps(written(tmp_path)).encode()
    for damaged in (text[: len(text) // 2], b"\xff\xfe" + text, b"\0" * 100):
        file.write_bytes(damaged)
        with rejected(file):
            read_thresholds(tmp_path)


@pytest.mark.parametrize("key", ["people", "sessions", "identity", "attributes"])
@pytest.mark.parametrize("value", [None, "many", [3], float("nan"), float("inf")])
def test_a_value_of_another_type_is_rejected_by_the_file_name(
    tmp_path: Path, rejected: AssertRejected, key: str, value: object
) -> None:
    (tmp_path / THRESHOLDS_FILE).write_text(json.dumps(written(tmp_path) | {key: value}))
    with rejected(tmp_path / THRESHOLDS_FILE):
        read_thresholds(tmp_path)


@pytest.mark.parametrize("key", ["people", "sessions", "identity", "attributes"])
def test_a_missing_key_is_rejected_by_the_file_name(tmp_path: Path, rejected: AssertRejected, key: str) -> None:
    raw = written(tmp_path)
    del raw[key]
    (tmp_path / THRESHOLDS_FILE).write_text(json.dumps(raw))
    with rejected(tmp_path / THRESHOLDS_FILE, key):
        read_thresholds(tmp_path)


@pytest.mark.parametrize("value", [None, "high", [], float("nan"), float("-inf")])
def test_a_threshold_that_is_not_a_number_is_rejected_by_the_file_name(
    tmp_path: Path, rejected: AssertRejected, value: object
) -> None:
    raw = written(tmp_path)
    raw["identity"][1]["threshold"] = value
    (tmp_path / THRESHOLDS_FILE).write_text(json.dumps(raw))
    with rejected(tmp_path / THRESHOLDS_FILE):
        read_thresholds(tmp_path)
    raw = written(tmp_path)
    raw["attributes"]["gender"] = value
    (tmp_path / THRESHOLDS_FILE).write_text(json.dumps(raw))
    with rejected(tmp_path / THRESHOLDS_FILE):
        read_thresholds(tmp_path)


def test_a_folder_in_place_of_the_file_is_rejected_by_its_name(tmp_path: Path, rejected: AssertRejected) -> None:
    (tmp_path / THRESHOLDS_FILE).mkdir()
    with rejected(tmp_path / THRESHOLDS_FILE):
        read_thresholds(tmp_path)


def of_supports(*supports: str) -> Thresholds:
    points = tuple(
        ValidationThreshold(10.0**-place, 0.1 * place, 9, 90, support) for place, support in enumerate(supports, start=1)
    )
    return Thresholds(3, 9, points, {})


def test_the_strictest_is_that_of_the_smallest_rate_with_support() -> None:
    assert of_supports("", "", LOW).strictest == ValidationThreshold(0.01, 0.2, 9, 90, "")
    assert of_supports("", "", "").strictest == ValidationThreshold(0.001, pytest.approx(0.3), 9, 90, "")
    assert of_supports(LOW).strictest is None
    assert of_supports().strictest is None


def test_a_rate_uses_the_largest_calibrated_one_not_above_it(rejected: AssertRejected) -> None:
    given = Thresholds(
        3, 9, tuple(ValidationThreshold(fmr, 1 - fmr, 1, 10, why) for fmr, why in ((0.1, ""), (0.01, ""), (0.001, "few"))), {}
    )
    for wanted, fmr in ((0.5, 0.1), (0.1, 0.1), (0.05, 0.01), (0.01, 0.01), (0.001, 0.001)):
        assert given.for_fmr(wanted).fmr == fmr
    assert given.for_fmr(None).fmr == 0.01  # the smallest with support
    with rejected("--fmr 0.0001", "3 validation subjects", "lowest false match rate that the validation set supports: 0.001"):
        given.for_fmr(0.0001)
    with rejected("no genuine or no impostor pairs"):
        Thresholds(1, 2, (), {}).for_fmr(None)
