"""Settings of a search: ranges and error messages."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from fr_ps.config import Config, SearchConfig, from_dict, to_dict, with_settings
from fr_ps.config.search import COST_OBJECTIVES, AfterConfig, BudgetConfig, PrunerConfig, SamplerConfig, StudyConfig
from tests.conftest import AssertRejected

SPACE = {"optim.lr": [0.1, 0.2]}


def search_of(**settings: Any) -> SearchConfig:
    return SearchConfig(**({"study": StudyConfig(name="s"), "space": SPACE} | settings))


@pytest.mark.parametrize(
    ("kind", "group", "values", "expected"),
    [
        (StudyConfig, "study", {"storage": "studies.db"}, "sqlite:///studies.db"),
        (StudyConfig, "study", {"storage": ""}, "database URI"),
        (StudyConfig, "study", {"seed": -1}, "0 to "),
        (StudyConfig, "study", {"heartbeat": 0}, "1 to "),
        (StudyConfig, "study", {"heartbeat": 1.5}, "whole number"),
        (SamplerConfig, "sampler", {"name": "TPE"}, "tpe, gp, cmaes, nsgaii, random, grid"),
        (SamplerConfig, "sampler", {"startup": 1}, "2 to "),
        (PrunerConfig, "pruner", {"name": "mean"}, "none, median, hyperband, successive_halving, wilcoxon"),
        (PrunerConfig, "pruner", {"startup": 0}, "1 to "),
        (PrunerConfig, "pruner", {"epochs": 0}, "1 to "),
        (PrunerConfig, "pruner", {"reduction": 1}, "2 to "),
        (BudgetConfig, "budget", {"trials": 0}, "1 to "),
        (BudgetConfig, "budget", {"hours": -0.5}, "0 to "),
        (BudgetConfig, "budget", {"hours": math.inf}, "finite"),
        (BudgetConfig, "budget", {"epochs": -1}, "0 to "),
        (AfterConfig, "after", {"seeds": -1}, "0 to "),
        (AfterConfig, "after", {"register": "best", "seeds": 0}, "after.seeds is 0"),
    ],
    ids=str,
)
def test_a_setting_out_of_range_is_rejected_by_its_key_and_value(
    kind: Callable[..., Any], group: str, values: dict[str, Any], expected: str, rejected: AssertRejected
) -> None:
    key, value = next(iter(values.items()))
    with rejected(f"{group}.{key} is {value!r}; expected ", expected):
        kind(**values)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (StudyConfig, {"seed": 0, "heartbeat": 1, "storage": "postgresql+psycopg2://u:p@h/d"}),
        (SamplerConfig, {"startup": 2}),
        (PrunerConfig, {"startup": 1, "epochs": 1, "reduction": 2}),
        (BudgetConfig, {"trials": 1, "hours": 0, "epochs": 0}),
        (BudgetConfig, {"hours": 0.25}),
        (AfterConfig, {"seeds": 0}),
        (AfterConfig, {"seeds": 1, "register": "best"}),
    ],
    ids=str,
)
def test_the_ends_of_the_ranges_are_accepted(kind: Callable[..., Any], values: dict[str, Any]) -> None:
    made = kind(**values)
    assert {key: getattr(made, key) for key in values} == values


def test_a_search_needs_a_name_a_space_and_an_objective(rejected: AssertRejected) -> None:
    with rejected("study.name is ''", "a name"):
        SearchConfig(space=SPACE)
    with rejected("space is {}", "optim.lr"):
        search_of(space={})
    with rejected("objectives is {}", "val/identity/auc"):
        search_of(objectives={})
    assert search_of().objectives == {"val/identity/auc": "maximize"}


@pytest.mark.parametrize(
    "metric", ["test/identity/auc", "identity/auc", "train/loss", "cost/memory", "cost/", "val", "VAL/auc", ""]
)
def test_only_validation_and_costs_are_objectives(metric: str, rejected: AssertRejected) -> None:
    for objectives in ({metric: "maximize"}, {"val/identity/auc": "maximize", metric: "minimize"}):
        with rejected("objectives", repr(metric), "val/ (never test/)", *COST_OBJECTIVES):
            search_of(objectives=objectives)


@pytest.mark.parametrize("direction", ["max", "MAXIMIZE", "", None, True])
def test_a_direction_is_one_of_two(direction: Any, rejected: AssertRejected) -> None:
    with rejected("objectives.val/identity/auc", repr(direction), "maximize or minimize"):
        search_of(objectives={"val/identity/auc": direction})


@pytest.mark.parametrize("cost", COST_OBJECTIVES)
def test_a_cost_is_minimized(cost: str, rejected: AssertRejected) -> None:
    assert search_of(objectives={cost: "minimize"}).objectives == {cost: "minimize"}
    with rejected(f"objectives.{cost} is 'maximize'", "minimize"):
        search_of(objectives={cost: "maximize"})


def test_settings_by_name_are_those_of_the_config_and_all_else_stays() -> None:
    base = Config(name="n", device="cpu")
    found = with_settings(base, {"optim.lr": 0.5, "optim.clip": 1.0, "data.modalities": ["normal", "depth"], "model.fsm": False})
    assert (found.optim.lr, found.optim.clip, found.data.modalities, found.model.fsm) == (0.5, 1.0, ("normal", "depth"), False)
    back = {"optim.lr": base.optim.lr, "optim.clip": base.optim.clip, "data.modalities": ["albedo"], "model.fsm": True}
    assert with_settings(found, back) == base
    assert with_settings(base, {}) == base


def test_settings_are_checked_together(rejected: AssertRejected) -> None:
    with rejected("loss.label_smoothing", "cross_entropy"):
        with_settings(Config(), {"loss.label_smoothing": 0.1})
    found = with_settings(Config(), {"loss.label_smoothing": 0.1, "loss.attribute_loss": "cross_entropy"})
    assert found.loss.label_smoothing == 0.1
    with rejected("fusion.dropout", "data.modalities"):
        with_settings(Config(), {"fusion.dropout": 0.5})
    assert with_settings(Config(), {"fusion.dropout": 0.5, "data.modalities": ["albedo", "depth"]}).fusion.dropout == 0.5


@pytest.mark.parametrize("name", ["optim.lrr", "optimm.lr", "lr", "optim", "name", "", ".", "optim.", ".lr", "optim.lr.x"])
def test_an_unknown_setting_is_an_error(name: str, rejected: AssertRejected) -> None:
    with rejected(f"setting is {name!r}", "optim.lr"):
        with_settings(Config(), {name: 1})


@pytest.mark.parametrize("value", ["albedo", 3, None, {"albedo": 1}], ids=str)
def test_a_list_setting_takes_no_single_value(value: Any, rejected: AssertRejected) -> None:
    with rejected(f"data.modalities is {value!r}", "a list"):
        with_settings(Config(), {"data.modalities": value})
    assert with_settings(Config(), {"data.modalities": ("albedo", "depth")}).data.modalities == ("albedo", "depth")


def test_a_config_is_read_back() -> None:
    settings = {
        "data.modalities": ["albedo", "depth"],
        "data.limits": {"quality_residual": 0.1},
        "fusion.branches": {"albedo": "RUN"},
        "fusion.frozen": True,
        "loss.class_weights": {"gender": [1.0, 2.0]},
        "train.watch": ["val/identity/eer"],
    }
    config = with_settings(Config(name="n", device="cpu"), settings)
    assert from_dict(to_dict(config)) == config
    assert from_dict({}) == Config()


def test_an_unknown_setting_in_a_dict_is_an_error(rejected: AssertRejected) -> None:
    tree = to_dict(Config())
    with rejected("setting is 'optim.lrr'", "optim.lr"):
        from_dict(tree | {"optim": {"lrr": 1}})
    with rejected("optim.lr is -1", "above 0"):
        from_dict(tree | {"optim": {"lr": -1}})
