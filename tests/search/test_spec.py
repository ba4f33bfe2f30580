"""The specification of a study: validated, sent to workers as JSON, compared when a study resumes."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fr_ps.arguments import training_config
from fr_ps.cli import parse_command_line
from fr_ps.config import Config, SearchConfig, TrainConfig, with_settings
from fr_ps.config.search import AfterConfig, BudgetConfig, PrunerConfig, SamplerConfig, StudyConfig
from fr_ps.search.spec import StudySpec, build_study_spec, first_metric, require_same_definition, spec_from_json
from tests.conftest import AssertRejected

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "experiments" / "search").glob("*.yaml"))
SPACE: dict[str, Any] = {
    "optim.lr": {"low": 0.001, "high": 0.1, "log": True},
    "optim.name": ["adamw", "sgd"],
    "optim.momentum": {"choices": [0.5, 0.9], "when": {"optim.name": "sgd"}},
}


def spec_of(start: Config | None = None, **config: Any) -> StudySpec:
    return build_study_spec(SearchConfig(**({"study": StudyConfig(name="s"), "space": SPACE} | config)), start or Config())


def shipped(file: Path, monkeypatch: pytest.MonkeyPatch) -> StudySpec:
    """The specification of a study file, as the command line builds it."""
    monkeypatch.chdir(ROOT)
    arguments = parse_command_line(["search", "--config", str(file)])["search"]
    names = ("base", "space", "objectives", "study", "sampler", "pruner", "budget", "after")
    return build_study_spec(SearchConfig(**{name: arguments[name] for name in names}), training_config(arguments))


MINIMIZED = [
    *("val/identity/eer", "val/gender/ece", "val/identity/fnmr_at_fmr_0.01", "val/identity/fmr_at_fnmr_0.1"),
    "val/identity/fnir_at_fpir_0.1",
]
MAXIMIZED = ["val/identity/auc", "val/identity/tar_at_far_0.01", "val/identity/rank1", "val/emotion/balanced_accuracy"]


@pytest.mark.parametrize("metric", [*MINIMIZED, *MAXIMIZED])
def test_an_objective_in_the_wrong_direction_is_an_error(metric: str, rejected: AssertRejected) -> None:
    good, bad = ("minimize", "maximize") if metric in MINIMIZED else ("maximize", "minimize")
    assert spec_of(objectives={metric: good}).objectives == [metric]
    with rejected(f"objectives.{metric}", bad, f"expected {good}"):
        spec_of(objectives={metric: bad})
    with rejected(f"objectives.{metric}", bad):
        spec_of(objectives={"cost/latency": "minimize", "val/identity/auc": "maximize"} | {metric: bad})


@pytest.mark.parametrize(
    ("objectives", "selected"),
    [
        ({"val/identity/eer": "minimize"}, "val/identity/eer"),
        ({"val/gender/auc": "maximize", "val/identity/auc": "maximize"}, "val/gender/auc"),
        ({"cost/latency": "minimize", "val/identity/eer": "minimize", "val/gender/auc": "maximize"}, "val/identity/eer"),
        ({"cost/parameters": "minimize"}, "val/identity/rank1"),
    ],
    ids=lambda value: str(list(value) if isinstance(value, dict) else value),
)
def test_the_first_metric_selects_the_best_epoch(objectives: dict[str, Any], selected: str) -> None:
    base = Config(train=TrainConfig(select="val/identity/rank1", epochs=7))
    spec = spec_of(base, objectives=objectives)
    assert spec.base == replace(base, train=replace(base.train, select=selected))
    assert first_metric(spec.config) == ("" if selected == base.train.select else selected)
    assert spec.objectives == list(objectives)


def test_a_space_that_is_invalid_with_the_base_is_an_error(rejected: AssertRejected) -> None:
    with rejected("space.model.reduction", "1024", "model.channels"):
        spec_of(space={"model.reduction": [8, 1024]})
    assert spec_of(with_settings(Config(), {"model.channels": 1024}), space={"model.reduction": [8, 1024]})


def test_a_grid_has_at_most_its_combinations_and_needs_steps(rejected: AssertRejected) -> None:
    grid = {"sampler": SamplerConfig(name="grid"), "budget": BudgetConfig(trials=20)}
    with rejected("space.optim.lr", "grid", "step"):
        spec_of(**grid)
    stepped = SPACE | {"optim.lr": {"low": 0.1, "high": 0.3, "step": 0.1}}
    assert spec_of(**grid, space=stepped).max_trials == 3 * (1 + 2)
    assert spec_of(**grid | {"budget": BudgetConfig(trials=4)}, space=stepped).max_trials == 4
    other = spec_of(**grid | {"sampler": SamplerConfig(name="random")}, space=stepped)
    assert (other.max_trials, other.grid) == (20, [])


def test_a_sampler_for_one_objective_with_two_is_an_error(rejected: AssertRejected) -> None:
    objectives = {"val/identity/auc": "maximize", "cost/parameters": "minimize"}
    with rejected("sampler.name", "cmaes"):
        spec_of(objectives=objectives, sampler=SamplerConfig(name="cmaes"))


@pytest.mark.parametrize(
    ("space", "epochs"),
    [
        ({}, 7),
        ({"train.epochs": [3, 12, 9]}, 12),
        ({"train.epochs": {"low": 2, "high": 5}}, 5),
        ({"train.epochs": [1]}, 1),
        (
            {"schedule.name": ["cosine", "constant"], "train.epochs": {"choices": [1, 2], "when": {"schedule.name": ["cosine"]}}},
            7,
        ),
    ],
    ids=str,
)
def test_the_largest_number_of_epochs_is_that_of_the_base_or_of_the_space(space: dict[str, Any], epochs: int) -> None:
    assert spec_of(Config(train=TrainConfig(epochs=7)), space=SPACE | space).max_epochs == epochs


@pytest.mark.parametrize("file", STUDIES, ids=lambda path: path.stem)
def test_a_shipped_study_survives_json(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = shipped(file, monkeypatch)
    received = json.loads(json.dumps(spec.as_json()))
    monkeypatch.chdir("/")
    again = spec_from_json(received)
    assert again == spec
    assert again.definition() == spec.definition()
    assert (again.max_trials, again.max_epochs, again.objectives) == (spec.max_trials, spec.max_epochs, spec.objectives)
    require_same_definition(spec.config.study.name, json.loads(json.dumps(spec.definition())), again.definition())


def test_every_setting_survives_json() -> None:
    base = with_settings(
        Config(name="n", device="cpu"),
        {
            "data.modalities": ["albedo", "depth"],
            "data.only": {"Quality": ["ok"]},
            "fusion.branches": {"albedo": "RUN"},
            "loss.class_weights": {"gender": [1.0, 2.0]},
            "model.order": ["gender", "pose", "emotion", "facial_hair", "spectacles"],
            "train.watch": ["val/identity/eer"],
        },
    )
    spec = spec_of(
        base,
        space=SPACE | {"data.modalities": [["albedo", "depth"], ["albedo", "normal"]]},
        objectives={"cost/latency": "minimize", "val/identity/eer": "minimize"},
        study=StudyConfig(name="s", storage="postgresql+psycopg2://u:p@h/d", seed=3, heartbeat=1),
        sampler=SamplerConfig(name="nsgaii", startup=3),
        pruner=PrunerConfig(name="wilcoxon", startup=2, epochs=5, reduction=4),
        budget=BudgetConfig(trials=3, hours=0.5, epochs=100),
        after=AfterConfig(seeds=5, register="best"),
        base="somewhere.yaml",
    )
    assert spec_from_json(json.loads(json.dumps(spec.as_json()))) == spec


def without(part: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name != key}


OTHERS: dict[str, tuple[Callable[[], StudySpec], tuple[str, ...]]] = {
    "another setting": (
        lambda: spec_of(with_settings(Config(), {"train.accumulate": 2, "schedule.power": 3})),
        ("different base", "schedule.power is 1.0 in the study and 3 here"),  # the first of the two differences
    ),
    "a metric more": (
        lambda: spec_of(objectives={"val/identity/auc": "maximize", "val/identity/eer": "minimize"}),
        ("objectives", "val/identity/eer is absent in the study and minimize here"),
    ),
    "another metric, and all else": (
        lambda: spec_of(
            Config(train=TrainConfig(epochs=3)), objectives={"cost/latency": "minimize"}, space={"optim.clip": [1, 2]}
        ),
        ("objectives", "val/identity/auc is maximize in the study and absent here"),
    ),
    "a setting less, and another base": (
        lambda: spec_of(Config(train=TrainConfig(epochs=3)), space=without(SPACE, "optim.lr")),
        ("space", "optim.lr is", "in the study and absent here"),
    ),
    "a setting more": (
        lambda: spec_of(space=SPACE | {"optim.clip": [1, 2]}),
        ("space", "optim.clip is absent in the study and", "'1', '2'"),
    ),
    "another range": (
        lambda: spec_of(space=SPACE | {"optim.lr": {"low": 0.001, "high": 0.2, "log": True}}),
        ("space", "optim.lr", "0.1]", "0.2]"),
    ),
    "another condition": (
        lambda: spec_of(space=SPACE | {"optim.lr": SPACE["optim.lr"] | {"when": {"optim.name": "sgd"}}}),
        ("space", "optim.lr", "sgd"),
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_resumed_study_with_another_definition_is_an_error_that_names_the_first_difference(
    name: str, rejected: AssertRejected
) -> None:
    make, words = OTHERS[name]
    stored = json.loads(json.dumps(spec_of().definition()))
    with rejected("study 'mine'", *words, "another study.name"):
        require_same_definition("mine", stored, make().definition())


@pytest.mark.parametrize(
    "names",
    [
        ["val/identity/auc", "val/gender/auc"],
        ["val/identity/auc", "cost/parameters", "cost/latency"],
    ],
    ids=["metrics", "costs"],
)
def test_a_resumed_study_with_its_objectives_in_another_order_is_an_error(names: list[str], rejected: AssertRejected) -> None:
    """The database stores values by position. `open_study` rejects other directions."""
    directions = {name: "maximize" if name in MAXIMIZED or name == "val/gender/auc" else "minimize" for name in names}
    stored = spec_of(objectives=directions).definition()
    other = (
        {name: directions[name] for name in [names[0], *names[:0:-1]]} if len(names) > 2 else dict(reversed(directions.items()))
    )
    assert list(other.values()) == list(directions.values())
    with rejected("another study.name"):
        require_same_definition("s", json.loads(json.dumps(stored)), spec_of(objectives=other).definition())


LOCAL: dict[str, Any] = {
    "data.root": "elsewhere",
    "train.threads": 3,
    "train.checkpoint_minutes": 1.0,
    "train.system_metrics": True,
}


@pytest.mark.parametrize("name", [*LOCAL, "device", "name"])
def test_machine_settings_may_differ(name: str) -> None:
    base = with_settings(Config(), {name: LOCAL[name]}) if name in LOCAL else replace(Config(), **{name: "cpu"})
    assert base != Config()
    require_same_definition("s", json.loads(json.dumps(spec_of().definition())), spec_of(base).definition())


def test_a_setting_of_a_later_version_has_its_default_in_an_older_study(rejected: AssertRejected) -> None:
    stored = json.loads(json.dumps(spec_of().definition()))
    del stored["base"]["train.accumulate"]
    require_same_definition("mine", stored, spec_of().definition())
    with rejected("train.accumulate is 1 in the study and 2 here"):
        require_same_definition("mine", stored, spec_of(with_settings(Config(), {"train.accumulate": 2})).definition())


def test_sampler_pruner_and_budget_may_change() -> None:
    other = spec_of(
        sampler=SamplerConfig(name="random"),
        pruner=PrunerConfig(name="none"),
        budget=BudgetConfig(trials=99, hours=1),
        study=StudyConfig(name="s", storage="sqlite:///elsewhere.db", seed=9, heartbeat=1),
        base="another.yaml",
    )
    require_same_definition("s", json.loads(json.dumps(spec_of().definition())), other.definition())


@pytest.mark.parametrize("what", ["space", "base"])
def test_a_definition_does_not_depend_on_the_notation_of_numbers(what: str) -> None:
    written = {"space": {"optim.clip": {"low": 1, "high": 2}}, "base": 1}
    otherwise = {"space": {"optim.clip": {"high": 2.0, "low": 1.0}}, "base": 1.0}
    stored, now = (
        spec_of(with_settings(Config(), {"schedule.power": given["base"]}), space=given["space"]).definition()
        for given in (written, otherwise)
    )
    require_same_definition("s", json.loads(json.dumps(stored)), now)
    assert stored[what] == now[what]


def test_a_removed_setting_of_an_older_study_must_have_the_value_of_the_constant(rejected: AssertRejected) -> None:
    stored = json.loads(json.dumps(spec_of().definition()))
    stored["base"] |= {"optim.weighting_factor": 50.0, "loss.adaface_h": 0.333}
    require_same_definition("s", stored, spec_of().definition())
    stored["base"]["optim.weighting_factor"] = 20.0
    with rejected("study 's': optim.weighting_factor is 20.0", "always 50.0"):
        require_same_definition("s", stored, spec_of().definition())
