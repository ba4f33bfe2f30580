"""The space: invalid ones, the values of trials and grids, against a second computation."""

import datetime
import itertools
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fr_ps.arguments import training_config
from fr_ps.cli import parse_command_line
from fr_ps.config import Config, FusionConfig, to_dict, with_settings
from fr_ps.search.space import MAX_GRID, Dimension, Space, params_to_settings, value_text
from fr_ps.search.space_parser import parse_space
from tests.conftest import AssertRejected

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "experiments" / "search").glob("*.yaml"))
LR = {"low": 0.001, "high": 0.1}


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def space_of(raw: Mapping[str, Any], base: Config | None = None) -> Space:
    return parse_space(raw, base or Config())


def suggestions(space: Space, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """The settings of random trials of a real study."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    found = []
    for _ in range(count):
        trial = study.ask()
        found.append(space.suggest(trial))
        assert trial.params == found[-1]
    return found


def study_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Space, Config]:
    """Space and base of a study file, as the command line reads them."""
    monkeypatch.chdir(ROOT)
    arguments = parse_command_line(["search", "--config", str(file)])["search"]
    base = training_config(arguments)
    return parse_space(arguments["space"], base), base


REJECTED: dict[str, tuple[dict[Any, Any], tuple[str, ...]]] = {
    "a misspelt setting": ({"optim.lrr": [1]}, ("'optim.lrr'", "optim.lr,", "optim.weight_decay")),
    "a misspelt group": ({"optm.lr": [1]}, ("'optm.lr'", "optim,", "schedule")),
    "no group": ({"lr": [1]}, ("'lr'", "GROUP.NAME", "optim")),
    "a group alone": ({"optim": [1]}, ("'optim'", "GROUP.NAME")),
    "a group in a group": ({"optim": {"lr": [1]}}, ("'optim'", "GROUP.NAME")),
    "a group and a dot": ({"optim.": [1]}, ("'optim.'", "optim.lr")),
    "no choice of the setting": ({"optim.name": ["adamw", "adam"]}, ("space.optim.name", "adam", "adamw, sgd")),
    "a number below what the setting takes": ({"optim.lr": [0.1, 0.0]}, ("space.optim.lr", "0.0", "above 0")),
    "a low end that the setting rejects": ({"optim.lr": {"low": 0, "high": 1}}, ("space.optim.lr: low", "above 0")),
    "a high end that the setting rejects": ({"train.ema": {"low": 0, "high": 1}}, ("space.train.ema: high", "below 1")),
    "a bound that the base rejects": (
        {"model.reduction": {"low": 8, "high": 1024}},
        ("space.model.reduction: high 1024", "channels"),
    ),
    "no whole number": ({"model.channels": [64, 64.5]}, ("space.model.channels", "64.5", "whole number")),
    "low above high": ({"optim.lr": {"low": 2, "high": 1}}, ("space.optim.lr", "low 2", "high 1")),
    "a logarithm of zero": ({"optim.clip": {"low": 0, "high": 1, "log": True}}, ("space.optim.clip", "low", "above 0", "log")),
    "a logarithm of less": ({"optim.clip": {"low": -1, "high": 1, "log": True}}, ("space.optim.clip", "low", "above 0")),
    "log that is a word": ({"optim.lr": LR | {"log": "yes"}}, ("space.optim.lr", "log is 'yes'", "true or false")),
    "steps of a logarithm": ({"optim.lr": LR | {"log": True, "step": 0.1}}, ("space.optim.lr", "step", "log")),
    "no step": ({"optim.lr": LR | {"step": 0}}, ("space.optim.lr", "step is 0", "above 0")),
    "a step back": ({"optim.lr": LR | {"step": -0.1}}, ("space.optim.lr", "step is -0.1")),
    "half a step": ({"model.channels": {"low": 8, "high": 64, "step": 0.5}}, ("space.model.channels: step", "whole number")),
    "a range of text": ({"optim.name": {"low": 0, "high": 1}}, ("space.optim.name", "range", "choices")),
    "a range of true and false": ({"model.fsm": {"low": 0, "high": 1}}, ("space.model.fsm", "choices")),
    "a range of maps": ({"data.modalities": {"low": 0, "high": 1}}, ("space.data.modalities", "choices")),
    "a range of a mapping": ({"loss.class_weights": {"low": 0, "high": 1}}, ("space.loss.class_weights", "choices")),
    "no high": ({"optim.lr": {"low": 1}}, ("space.optim.lr", "high")),
    "no low": ({"optim.lr": {"high": 1}}, ("space.optim.lr", "low")),
    "an end that is a word": ({"optim.lr": {"low": "fast", "high": 1}}, ("space.optim.lr: low is 'fast'", "number")),
    "an end that is true": ({"optim.lr": {"low": True, "high": 2}}, ("space.optim.lr: low is True", "number")),
    "an end that is not finite": ({"optim.lr": {"low": 1, "high": float("inf")}}, ("space.optim.lr: high is inf", "number")),
    "a fraction of whole numbers": (
        {"model.channels": {"low": 8, "high": 9.5}},
        ("space.model.channels: high is 9.5", "whole number"),
    ),
    "nothing": ({"optim.lr": None}, ("space.optim.lr is None", "list of choices")),
    "a number": ({"optim.lr": 3}, ("space.optim.lr is 3", "list of choices")),
    "no choices": ({"optim.lr": []}, ("space.optim.lr: choices is []", "one or more")),
    "choices that are no list": ({"optim.lr": {"choices": 0.1}}, ("space.optim.lr: choices is 0.1", "list")),
    "an empty choice": ({"optim.lr": [0.1, None]}, ("space.optim.lr", "empty")),
    "a choice twice": ({"optim.lr": [0.1, 0.2, 0.1]}, ("space.optim.lr", "duplicate")),
    "a list twice": ({"data.modalities": [["albedo"], ["albedo"]]}, ("space.data.modalities", "duplicate")),
    "a list that the setting rejects": ({"data.modalities": [["albedo", "albedo"]]}, ("space.data.modalities", "each once")),
    "choices and a range": ({"optim.lr": LR | {"choices": [0.1]}}, ("space.optim.lr", "choices", "low")),
    "an unknown key": ({"optim.lr": LR | {"lg": True}}, ("space.optim.lr", "'lg'", "log")),
    "a condition on a setting outside the space": (
        {"optim.momentum": {"choices": [0.1], "when": {"optim.name": "sgd"}}},
        ("space.optim.momentum", "optim.name", "not in the space"),
    ),
    "a condition that is no choice": (
        {"optim.name": ["adamw", "sgd"], "optim.momentum": {"choices": [0.1], "when": {"optim.name": "sgdd"}}},
        ("space.optim.momentum", "when.optim.name", "'sgdd'", "adamw, sgd"),
    ),
    "a condition on a range": (
        {"optim.lr": LR, "optim.clip": {"choices": [1], "when": {"optim.lr": 0.01}}},
        ("space.optim.clip", "optim.lr", "range"),
    ),
    "a condition that can never hold": (
        {
            "optim.name": ["adamw", "sgd"],
            "optim.clip": {"choices": [1], "when": {"optim.name": "sgd"}},
            "optim.momentum": {"choices": [0.1], "when": {"optim.name": "adamw", "optim.clip": 1}},
        },
        ("space.optim.momentum", "never hold"),
    ),
    "a condition that is a list": ({"optim.clip": {"choices": [1], "when": ["sgd"]}}, ("space.optim.clip", "when is ['sgd']")),
    "a condition that is empty": ({"optim.clip": {"choices": [1], "when": None}}, ("space.optim.clip", "when is None")),
    "a condition on itself": ({"optim.clip": {"choices": [1], "when": {"optim.clip": 1}}}, ("space.optim.clip", "when")),
    "conditions on each other": (
        {"optim.clip": {"choices": [1], "when": {"train.ema": 0}}, "train.ema": {"choices": [0], "when": {"optim.clip": 1}}},
        ("space.optim.clip", "when", "cycle (optim.clip -> train.ema -> optim.clip)"),
    ),
    "a condition on a cycle": (
        {
            "optim.lr": {"choices": [1], "when": {"optim.clip": 1}},
            "optim.clip": {"choices": [1], "when": {"train.ema": 0}},
            "train.ema": {"choices": [0], "when": {"optim.clip": 1}},
        },
        ("space.optim.clip", "when", "cycle (optim.clip -> train.ema -> optim.clip)"),
    ),
    "a condition without values": (
        {"optim.name": ["adamw", "sgd"], "optim.lr": LR | {"when": {"optim.name": []}}},
        ("space.optim.lr", "when.optim.name is []"),
    ),
    "a condition on a condition on a setting outside the space": (
        {"optim.lr": LR | {"when": {"optim.clip": 1}}, "optim.clip": {"choices": [1], "when": {"optim.name": "sgd"}}},
        ("space.optim.clip", "optim.name", "not in the space"),
    ),
    "a whole number that no database holds": ({"model.channels": {"low": 8, "high": 10**20}}, ("space.model.channels: high",)),
    "a setting that is a number": ({1: [1]}, ("space: 1", "GROUP.NAME")),
    "a number twice, once without a fraction": ({"train.ema": [0, 0.0]}, ("space.train.ema", "duplicate")),
    "a number twice, once as text": ({"train.ema": [0.001, "1e-3"]}, ("space.train.ema", "duplicate")),
    "a date": ({"model.weights": [datetime.date(2026, 1, 1)]}, ("space.model.weights", "2026", "a text")),
    "maps instead of lists of them": ({"data.modalities": ["albedo", "normal"]}, ("space.data.modalities", "albedo", "[albedo]")),
} | {
    f"forbidden, {name}": ({name: [1]}, (f"space.{name}", "cannot be searched"))
    for name in (
        *("name", "device", "data.root", "data.test_people", "data.val_people", "data.split_seed", "data.fold", "data.only"),
        *("data.limits", "data.classes", "synthetic.seed", "synthetic.people", "train.seed", "train.select", "train.watch"),
    )
}


@pytest.mark.parametrize("name", REJECTED)
def test_an_invalid_space_is_an_error_that_names_the_setting_and_the_remedy(name: str, rejected: AssertRejected) -> None:
    raw, words = REJECTED[name]
    with rejected(*words):
        space_of(raw)


def test_a_text_that_begins_with_a_bracket_stays_a_text() -> None:
    assert params_to_settings(suggestions(space_of({"model.weights": ["[old]/w.pth"]}), 1)[0]) == {"model.weights": "[old]/w.pth"}


def test_a_bound_that_yaml_parses_as_text_is_a_number() -> None:
    raw = yaml.safe_load("{optim.lr: {low: 1e-4, high: 1E-2, log: true}, optim.clip: {low: 0, high: 1e1, step: 5e-1}}")
    assert isinstance(raw["optim.lr"]["low"], str)
    rate, clip = space_of(raw).dimensions
    assert (rate.low, rate.high, clip.high, clip.step) == (0.0001, 0.01, 10, 0.5)


def test_a_choice_that_yaml_parses_as_text_is_a_number() -> None:
    got = suggestions(space_of(yaml.safe_load("{optim.lr: [1e-4, 1e-3]}")), 20)
    assert {params["optim.lr"] for params in got} == {0.0001, 0.001}


def test_a_condition_that_yaml_parses_as_text_is_a_number() -> None:
    raw = yaml.safe_load("{optim.lr: [1e-3, 1e-2], optim.clip: {choices: [1, 2], when: {optim.lr: [1e-3]}}}")
    assert len(space_of(raw).grid()) == 3


SMOOTHED = {"choices": [0.0, 0.1]}
"""Choices of loss.label_smoothing; 0.1 is valid only with cross entropy."""


def test_a_choice_that_is_valid_only_under_its_condition_is_accepted_with_it(rejected: AssertRejected) -> None:
    losses = {"loss.attribute_loss": ["focal", "cross_entropy"]}
    with rejected("space.loss.label_smoothing", "0.1", "cross_entropy"):
        space_of(losses | {"loss.label_smoothing": SMOOTHED})
    with rejected("space.loss.label_smoothing", "0.1", "cross_entropy"):
        space_of(losses | {"loss.label_smoothing": SMOOTHED | {"when": {"loss.attribute_loss": "focal"}}})
    for values in ("cross_entropy", ["cross_entropy"], ["focal", "cross_entropy"]):
        space = space_of(losses | {"loss.label_smoothing": SMOOTHED | {"when": {"loss.attribute_loss": values}}})
        assert [one.name for one in space.dimensions] == ["loss.attribute_loss", "loss.label_smoothing"]


@pytest.mark.parametrize(
    "above",
    [
        ["cross_entropy"],
        ["focal", "cross_entropy"],
    ],
    ids=["the only one", "one of two"],
)
def test_a_choice_that_is_valid_only_under_the_condition_of_its_condition_is_accepted(above: list[str]) -> None:
    raw = {
        "loss.label_smoothing": SMOOTHED | {"when": {"optim.name": "sgd"}},
        "optim.name": {"choices": ["adamw", "sgd"], "when": {"loss.attribute_loss": above}},
        "loss.attribute_loss": ["focal", "cross_entropy"],
    }
    assert [one.name for one in space_of(raw).dimensions] == ["loss.attribute_loss", "optim.name", "loss.label_smoothing"]


def test_a_choice_that_is_valid_only_where_its_dimension_does_not_exist_is_an_error(rejected: AssertRejected) -> None:
    """No trial has both cross entropy and sgd."""
    raw = {
        "loss.attribute_loss": ["focal", "cross_entropy"],
        "optim.name": {"choices": ["adamw", "sgd"], "when": {"loss.attribute_loss": "focal"}},
        "loss.label_smoothing": {
            "choices": [0.1],
            "when": {"optim.name": "sgd", "loss.attribute_loss": ["focal", "cross_entropy"]},
        },
    }
    with rejected("space.loss.label_smoothing", "0.1"):
        space_of(raw)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"low": 16, "high": 20}, {16, 17, 18, 19, 20}),
        ({"low": 16, "high": 64, "step": 16}, {16, 32, 48, 64}),
        ({"low": 16, "high": 18, "log": True}, {16, 17, 18}),
        ({"low": 16, "high": 16}, {16}),
        ([16, 24], {16, 24}),
    ],
    ids=str,
)
def test_integer_settings_get_integers(given: Any, expected: set[int]) -> None:
    values = [params["model.channels"] for params in suggestions(space_of({"model.channels": given}), 100)]
    assert all(type(value) is int for value in values)
    assert set(values) == expected


def test_a_number_is_within_its_range_on_its_steps_and_uniform_on_its_axis() -> None:
    raw = {
        "optim.lr": {"low": 1e-4, "high": 1e-1, "log": True},
        "optim.weight_decay": {"low": 0, "high": 1},
        "optim.clip": {"low": 1, "high": 3, "step": 0.5},
        "batch.people": {"low": 1, "high": 10000, "log": True},
    }
    got = suggestions(space_of(raw), 300)
    assert all(1e-4 <= params["optim.lr"] <= 1e-1 and 0 <= params["optim.weight_decay"] <= 1 for params in got)
    assert {params["optim.clip"] for params in got} == {1.0, 1.5, 2.0, 2.5, 3.0}
    for name, middle in (("optim.lr", 10**-2.5), ("optim.weight_decay", 0.5), ("batch.people", 100)):
        assert 110 < sum(params[name] < middle for params in got) < 190


def test_lists_stay_lists_and_become_tuples_in_the_settings() -> None:
    lists = [["albedo", "normal"], ["depth", "normal"]]
    weights: list[dict[str, list[float]]] = [{}, {"gender": [1, 2]}]
    space = space_of({"data.modalities": lists, "loss.class_weights": weights})
    for params in suggestions(space, 20):
        assert all(isinstance(value, str) for value in params.values())  # Optuna keeps no lists
        found = params_to_settings(json.loads(json.dumps(params)))
        assert found["data.modalities"] in lists
        assert found["loss.class_weights"] in weights
        config = with_settings(Config(), found)
        assert config.data.modalities == tuple(found["data.modalities"])
        assert config.loss.class_weights == found["loss.class_weights"]


def test_a_condition_may_hold_lists() -> None:
    raw = {
        "data.modalities": [["albedo"], ["albedo", "normal"]],
        "fusion.dropout": {"choices": [0.5], "when": {"data.modalities": [["albedo", "normal"]]}},
    }
    space = space_of(raw)
    assert space.grid() == [
        {"data.modalities": '["albedo"]'},
        {"data.modalities": '["albedo", "normal"]', "fusion.dropout": 0.5},
    ]
    for params in space.grid():
        with_settings(Config(), params_to_settings(params))


def test_a_choice_that_is_invalid_with_the_base_is_an_error(rejected: AssertRejected) -> None:
    base = with_settings(Config(), {"data.modalities": ["albedo", "normal"], "fusion.dropout": 0.3})
    assert base.fusion == FusionConfig(dropout=0.3)
    with rejected("space.data.modalities", "fusion.dropout"):
        space_of({"data.modalities": [["albedo", "normal"], ["depth"]]}, base)


# Generated spaces. Expected: setting to its values and to its condition, the values of other settings with which it exists.

Expected = dict[str, tuple[list[Any], dict[str, list[Any]]]]
TEXTS = {
    "optim.name": ["adamw", "sgd"],
    "schedule.name": ["polynomial", "cosine", "constant"],
    "model.fsm": [True, False],
    "loss.person_weights": ["none", "soft", "original"],
    "batch.balance": ["none", "identity", "class"],
    "data.modalities": [["albedo"], ["normal"], ["albedo", "depth"]],
}
NUMBERS = ("optim.lr", "optim.weight_decay", "loss.attribute", "schedule.power")
WHOLE = ("batch.people", "train.accumulate", "train.patience")


@st.composite
def spaces(draw: st.DrawFn) -> tuple[dict[str, Any], Expected]:
    """A space of a study file, and its values and conditions."""
    names = draw(st.lists(st.sampled_from([*TEXTS, *NUMBERS, *WHOLE]), min_size=1, max_size=5, unique=True))
    raw: dict[str, Any] = {}
    expected: Expected = {}
    for name in names:
        given, values = draw(_values(name))
        parents = {parent: choices for parent, (choices, _) in expected.items() if "choices" in raw[parent]}
        when = draw(_condition(parents))
        raw[name] = given | ({"when": when} if when else {})
        expected[name] = (values, when)
    # A setting that is in no trial is rejected.
    assume({name for params in reachable(expected) for name, _ in params} == set(expected))
    return {name: raw[name] for name in draw(st.permutations(names))}, expected


@st.composite
def _values(draw: st.DrawFn, name: str) -> tuple[dict[str, Any], list[Any]]:
    if name in TEXTS:
        choices = draw(st.lists(st.sampled_from(TEXTS[name]), min_size=1, max_size=3, unique_by=str))
        return {"choices": choices}, choices
    low, step, count = draw(st.integers(8, 20)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    tenth = 1 if name in WHOLE else 10
    values = [(low + step * i) / tenth if tenth > 1 else low + step * i for i in range(count)]
    if draw(st.booleans()):
        return {"choices": values}, values
    return {"low": values[0], "high": values[-1], "step": step / tenth if tenth > 1 else step}, values


@st.composite
def _condition(draw: st.DrawFn, choices: dict[str, list[Any]]) -> dict[str, list[Any]]:
    parents = draw(st.lists(st.sampled_from(sorted(choices)), max_size=2, unique=True)) if choices else []
    return {parent: draw(st.lists(st.sampled_from(choices[parent]), min_size=1, unique_by=str)) for parent in parents}


def rounded(value: Any) -> Any:
    """A value without the rounding error of its arithmetic."""
    return json.dumps(value) if isinstance(value, list) else round(value, 9) if isinstance(value, float) else value


def combination(params: Mapping[str, Any]) -> frozenset[tuple[str, Any]]:
    return frozenset((name, rounded(value)) for name, value in params.items())


def reachable(expected: Expected) -> set[frozenset[tuple[str, Any]]]:
    """All combinations in which a setting has a value exactly where its condition holds."""
    absent = object()
    found = set()
    for combined in itertools.product(*([*values, absent] for values, _ in expected.values())):
        params = dict(zip(expected, combined))
        consistent = all(
            (params[name] is not absent) == all(any(params[parent] is one for one in values) for parent, values in when.items())
            for name, (_, when) in expected.items()
        )
        if consistent:
            found.add(combination({name: value for name, value in params.items() if value is not absent}))
    return found


@settings(max_examples=60, deadline=None)
@given(spaces())
def test_a_grid_has_every_reachable_combination_once(given: tuple[dict[str, Any], Expected]) -> None:
    raw, expected = given
    grid = [combination(params) for params in space_of(raw).grid()]
    assert len(set(grid)) == len(grid)
    assert set(grid) == reachable(expected)


@settings(max_examples=30, deadline=None)
@given(spaces(), st.integers(0, 2**32 - 1))
def test_a_trial_has_a_reachable_combination_that_is_valid(given: tuple[dict[str, Any], Expected], seed: int) -> None:
    raw, expected = given
    possible = reachable(expected)
    for params in suggestions(space_of(raw), 3, seed):
        assert combination(params) in possible
        config = with_settings(Config(), params_to_settings(params))
        for name, value in params_to_settings(params).items():
            group, leaf = name.split(".")
            assert getattr(getattr(config, group), leaf) == (tuple(value) if isinstance(value, list) else value)


@settings(max_examples=30, deadline=None)
@given(spaces(), st.randoms(use_true_random=False))
def test_a_space_is_the_same_in_any_order_of_its_keys_and_after_storage(
    given: tuple[dict[str, Any], Expected], random: Any
) -> None:
    raw, _ = given

    def shuffled(tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        return {key: shuffled(tree[key]) for key in random.sample(list(tree), len(tree))}

    described = space_of(raw).definition()
    assert json.dumps(space_of(shuffled(raw)).definition()) == json.dumps(described)  # as text it stands in MLflow's params
    assert json.loads(json.dumps(described)) == described


def test_the_order_of_a_grid_does_not_depend_on_the_order_of_the_keys() -> None:
    """The index of a slot selects the combination, and spaces in another order of keys are equal."""
    one, other = ({"optim.clip": [1, 2], "train.ema": [0.0, 0.9]}, {"train.ema": [0.0, 0.9], "optim.clip": [1, 2]})
    assert space_of(one).definition() == space_of(other).definition()
    assert space_of(one).grid() == space_of(other).grid()


def test_a_setting_exists_only_where_its_condition_and_those_of_its_parents_hold() -> None:
    raw = {
        "train.ema": {"choices": [0.9], "when": {"optim.momentum": 0.5}},
        "optim.momentum": {"choices": [0.5, 0.9], "when": {"optim.name": "sgd", "model.fsm": True}},
        "optim.name": ["adamw", "sgd"],
        "model.fsm": [True, False],
    }
    assert {combination(params) for params in space_of(raw).grid()} == {
        frozenset({("optim.name", "adamw"), ("model.fsm", True)}),
        frozenset({("optim.name", "adamw"), ("model.fsm", False)}),
        frozenset({("optim.name", "sgd"), ("model.fsm", False)}),
        frozenset({("optim.name", "sgd"), ("model.fsm", True), ("optim.momentum", 0.5), ("train.ema", 0.9)}),
        frozenset({("optim.name", "sgd"), ("model.fsm", True), ("optim.momentum", 0.9)}),
    }


def test_the_values_of_a_grid_end_with_the_range() -> None:
    raw = {
        "optim.clip": {"low": 1, "high": 2, "step": 0.3},
        "batch.people": {"low": 3, "high": 5},
        "train.epochs": {"low": 1, "high": 6, "step": 2},
    }
    found = space_of(raw).grid()
    assert sorted({round(params["optim.clip"], 9) for params in found}) == [1, 1.3, 1.6, 1.9]
    assert sorted({params["batch.people"] for params in found}) == [3, 4, 5]
    assert sorted({params["train.epochs"] for params in found}) == [1, 3, 5]
    assert all(type(params[name]) is int for params in found for name in ("batch.people", "train.epochs"))


def test_no_value_of_a_grid_is_above_the_range() -> None:
    assert max(params["fusion.dropout"] for params in space_of(GRID_OF_DROPOUT, FUSED).grid()) <= 0.3


FUSED = with_settings(Config(), {"data.modalities": ["albedo", "normal"]})
GRID_OF_DROPOUT = {"fusion.dropout": {"low": 0.0, "high": 0.3, "step": 0.1}}


@pytest.mark.parametrize(
    "given",
    [{"low": 0.1, "high": 1}, {"low": 0.1, "high": 1, "log": True}],
    ids=["any number", "a logarithm"],
)
def test_a_grid_over_a_range_without_step_is_an_error(given: dict[str, Any], rejected: AssertRejected) -> None:
    with rejected("space.optim.lr", "step", "choices"):
        space_of({"optim.lr": given}).grid()
    with rejected("space.batch.people", "step"):
        space_of({"batch.people": {"low": 2, "high": 9, "log": True}}).grid()


def changed(raw: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    copy = json.loads(json.dumps(raw))
    change(copy)
    return copy


WHOLE_SPACE: dict[str, Any] = {
    "schedule.name": {"choices": ["cosine", "constant"]},
    "schedule.lowest": {"low": 1, "high": 4, "step": 1, "when": {"schedule.name": ["cosine"]}},
    "optim.lr": {"low": 1, "high": 4, "log": True},
    "schedule.restart_epochs": {"choices": [0, 5]},
}


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw["schedule.lowest"].update(low=1.0, high=4.0, step=1.0),
        lambda raw: raw["optim.lr"].update(high=4.0),
        lambda raw: raw["schedule.lowest"].update(when={"schedule.name": "cosine"}),
        lambda raw: raw.update({"schedule.name": ["cosine", "constant"]}),
        lambda raw: raw["schedule.lowest"].update(log=False),
        lambda raw: raw["schedule.restart_epochs"].update(choices=[0.0, 5]),
    ],
    ids=["1.0 for 1", "4.0 for 4", "a value for a list of it", "a list for choices", "what is the default", "a choice 0.0 for 0"],
)
def test_equal_spaces_have_equal_json(change: Callable[[dict[str, Any]], object]) -> None:
    assert json.dumps(space_of(changed(WHOLE_SPACE, change)).definition()) == json.dumps(space_of(WHOLE_SPACE).definition())


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.pop("optim.lr"),
        lambda raw: raw.update({"optim.clip": [1]}),
        lambda raw: raw["optim.lr"].update(high=4.5),
        lambda raw: raw["optim.lr"].update(low=0.5),
        lambda raw: raw["optim.lr"].pop("log"),
        lambda raw: raw["schedule.lowest"].update(step=0.5),
        lambda raw: raw["schedule.lowest"].pop("step"),
        lambda raw: raw["schedule.lowest"].pop("when"),
        lambda raw: raw["schedule.lowest"].update(when={"schedule.name": "constant"}),
        lambda raw: raw["schedule.name"]["choices"].append("polynomial"),
        lambda raw: raw["schedule.name"]["choices"].reverse(),  # Optuna keeps the place of a choice, not the choice
    ],
    ids=["gone", "new", "high", "low", "log", "step", "no step", "no condition", "another condition", "a choice more", "order"],
)
def test_different_spaces_have_different_json(change: Callable[[dict[str, Any]], object]) -> None:
    assert space_of(changed(WHOLE_SPACE, change)).definition() != space_of(WHOLE_SPACE).definition()


def test_the_project_ships_studies() -> None:
    assert {file.stem for file in STUDIES} >= {"backbone", "weighting", "schedule", "all", "fusion"}


@pytest.mark.parametrize("file", STUDIES, ids=lambda path: path.stem)
def test_every_suggestion_of_a_shipped_study_is_valid(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space, base = study_file(file, monkeypatch)
    got = suggestions(space, 100)
    for params in got:
        found = to_dict(with_settings(base, params_to_settings(params)))
        assert {name: found[name.split(".")[0]][name.split(".")[1]] for name in params} == params_to_settings(params)
    assert set().union(*got) == {one.name for one in space.dimensions}


def test_a_grid_with_too_many_combinations_is_an_error_before_it_is_built(rejected: AssertRejected) -> None:
    started = time.monotonic()
    with rejected("space.optim.lr", "step 1e-07", str(MAX_GRID)):
        parse_space({"optim.lr": {"low": 0.1, "high": 1.0, "step": 1e-7}}, Config()).grid()
    many = {"low": 0.1, "high": 0.9, "step": 0.001}
    with rejected("space: a grid", str(MAX_GRID), "801"):
        parse_space({"optim.lr": many, "augment.flip": many}, Config()).grid()
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.008952123, "0.008952"), (7, "7"), (True, "True"), ('["albedo", "depth"]', "albedo+depth"), ("[", "[")],
)
def test_a_setting_as_text(value: Any, text: str) -> None:
    assert value_text(value) == text


@pytest.mark.parametrize(
    ("dimension", "text"),
    [
        (Dimension("a", low=0.001, high=0.1, log=True), "0.001 to 0.1, logarithmic"),
        (Dimension("a", low=0.0, high=3.0, step=0.5), "0 to 3, step 0.5"),
        (Dimension("a", low=2.0, high=8.0, integer=True), "2 to 8"),
        (Dimension("a", ('["albedo"]', '["albedo", "normal"]')), "albedo, albedo+normal"),
        (Dimension("a", (0, 5), when={"b": ("x", "y"), "c": (True,)}), "0, 5; if b is x or y and c is True"),
    ],
)
def test_a_dimension_as_text(dimension: Dimension, text: str) -> None:
    assert dimension.text == text
