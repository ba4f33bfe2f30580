"""Settings from YAML files: text stays as written, and errors name file, line and key."""

import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fr_ps.config.yaml_files import MAX_BYTES, MAX_VALUES, parse_search_space, parse_settings, read_settings
from fr_ps.errors import InputError
from tests.conftest import AssertRejected


@pytest.mark.parametrize(
    "written", ["off", "no", "on", "Yes", "null", "~", "2026-11-28", "007", "1e5", "0x10", "12:30", ".nan", "1_0"]
)
def test_text_stays_as_written(written: str) -> None:
    text = (
        f"name: {written}\nmodel: {{adversaries: {written}, order: [{written}, pose]}}\ndata: {{only: {{Pose: [{written}]}}}}\n"
    )
    assert parse_settings(text, "a.yaml") == {
        "name": written,
        "model": {"adversaries": written, "order": [written, "pose"]},
        "data": {"only": {"Pose": [written]}},
    }
    assert parse_settings(f"data.split: {written}\nstudy.name: {written}", "a.yaml") == {
        "data.split": written,
        "study.name": written,
    }


@pytest.mark.parametrize("written", ["''", "!!str", "!!int ''", "!!bool ''"])
def test_an_empty_text_is_a_value(written: str) -> None:
    assert parse_settings(f"name: {written}", "a.yaml") == {"name": ""}


def test_keys_are_text() -> None:
    text = "data: {classes: {spectacles: {no: [no], 1: [yes]}}, limits: {2026-11-28: 1}}"
    assert parse_settings(text, "a.yaml")["data"] == {
        "classes": {"spectacles": {"no": ["no"], "1": ["yes"]}},
        "limits": {"2026-11-28": 1},
    }


def test_numbers_and_booleans_are_those_of_yaml() -> None:
    text = "train: {epochs: 3, ema: 0.9}\nmodel: {fsm: off}\nloss: {focal_gamma: 2, class_weights: {gender: [1, 0.5]}}\n"
    assert parse_settings(text, "a.yaml") == {
        "train": {"epochs": 3, "ema": 0.9},
        "model": {"fsm": False},
        "loss": {"focal_gamma": 2, "class_weights": {"gender": [1, 0.5]}},
    }
    assert parse_settings("loss: {focal_gamma: counts}", "a.yaml") == {"loss": {"focal_gamma": "counts"}}


SPACE = """
model.adversaries: [off, rest]
model.fsm: [on, off]
optim.lr: {low: 0.1, high: 1}
model.order: [[pose, gender]]
model.reduction: {choices: [8, 16], when: {model.adversaries: off}}
batch.people: {choices: [4], when: {model.adversaries: [off, rest]}}
"""


def test_choices_and_conditions_have_the_type_of_their_setting() -> None:
    expected = {
        "model.adversaries": ["off", "rest"],
        "model.fsm": [True, False],
        "optim.lr": {"low": 0.1, "high": 1},
        "model.order": [["pose", "gender"]],
        "model.reduction": {"choices": [8, 16], "when": {"model.adversaries": "off"}},
        "batch.people": {"choices": [4], "when": {"model.adversaries": ["off", "rest"]}},
    }
    assert parse_search_space(SPACE) == expected
    assert parse_settings("space:\n" + SPACE.replace("\nm", "\n  m").replace("\no", "\n  o").replace("\nb", "\n  b"), "a") == {
        "space": expected
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data:\n  folds: 2\n  root:\nname: x", ("line 3", "data.root is empty")),
        ("data:", ("line 1", "data is empty")),
        ("optim: {lr: null}", ("line 1", "optim.lr is null")),
        ("space: {optim.lr: [1, ~]}", ("line 1", "space.optim.lr is ~")),
        ("objectives:\n  val/identity/auc:", ("line 2", "objectives.val/identity/auc is empty")),
        ("data: {root: a}\noptim: {lr: 1}\ndata: {folds: 3}", ("line 3", "data is repeated", "line 1")),
        ("train:\n  epochs: 1\n  epochs: 2", ("line 3", "epochs is repeated", "line 2")),
        ("? [a]\n: b", ("line 1", "a key is a list")),
        ("data: &x {root: *x}", ("contains itself",)),
        ("data: {root: !!python/object:os.system x}", ("line 1", "python/object")),
        ("data: !mine {root: x}", ("line 1", "!mine")),
        ("optim: {lr: !!int ''}", ("line 1", "'' does not fit its tag tag:yaml.org,2002:int; remove the tag")),
        ("train: {ema: !!bool x}", ("line 1", "'x' does not fit its tag tag:yaml.org,2002:bool")),
        ("schedule: {lowest: !!timestamp x}", ("line 1", "'x' does not fit its tag tag:yaml.org,2002:timestamp")),
        (f"train: {{seed: {'1' * 5000}}}", ("line 1", "train.seed")),
        ('data: {root: "a\\0b"}', ("line 1", "data.root", "null character")),
        ("[1, 2]", ("list found",)),
        ("data: {", ("not readable as YAML",)),
        (f"name: {'[' * 5000}{']' * 5000}", ("line 1", "levels deep")),
        ("name: [" + "x," * 3 * MAX_VALUES + "]", ("values",)),
    ],
    ids=lambda value: str(value)[:30],
)
def test_invalid_settings_are_errors_with_file_row_and_key(text: str, words: tuple[str, ...], rejected: AssertRejected) -> None:
    with rejected("a.yaml", *words):
        parse_settings(text, "a.yaml")


def test_every_use_of_an_alias_counts_as_a_value(rejected: AssertRejected) -> None:
    assert parse_settings("data: {limits: &a {b: 1}}\nx: *a", "a.yaml")["x"] == {"b": 1}
    levels = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9 if i else ['1'] * 9)}]" for i in range(12)]
    merges = ["m0: &m0 {a: 1}", *(f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}" for i in range(1, 12))]
    for lines in (levels, merges):
        start = time.monotonic()
        with rejected("a.yaml", str(MAX_VALUES)):
            parse_settings("\n".join(lines), "a.yaml")
        assert time.monotonic() - start < 5


def test_merged_keys_are_settings() -> None:
    assert parse_settings("data: {<<: {root: q}, folds: 2}", "a.yaml") == {"data": {"root": "q", "folds": 2}}


def test_unreadable_files_are_errors(tmp_path: Path, rejected: AssertRejected) -> None:
    (tmp_path / "large.yaml").write_text("#" * MAX_BYTES + "#")
    (tmp_path / "latin.yaml").write_bytes("name: ü".encode("latin-1"))
    for name in ("nothing.yaml", "large.yaml", "latin.yaml", "n" * 300):
        with pytest.raises(InputError, match=name[:20]):
            read_settings(tmp_path / name)
    for path in (tmp_path, Path("/dev/zero")):
        with rejected(path):
            read_settings(path)


def test_an_empty_file_has_no_settings(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_settings(tmp_path / "empty.yaml") == {}


def error_of(text: str) -> str:
    """The error line of the settings; empty without an error."""
    try:
        parse_settings(text, "a.yaml")
    except InputError as error:
        return str(error)
    return ""


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["name", "data", "space", "train", "x", "objectives"]), VALUES, max_size=3))
def test_any_yaml_is_read_or_an_error(tree: dict[str, Any]) -> None:
    assert "\n" not in error_of(yaml.safe_dump(tree))


@given(st.text("a:{}[]&*!<-#\n \"'|>?%@,0.", max_size=40))
def test_any_text_is_read_or_an_error(text: str) -> None:
    assert "\n" not in error_of(text)
