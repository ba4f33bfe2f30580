"""Settings that would change nothing in some trials are refused with the `when` that they lack."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from fr_ps.arguments import training_config
from fr_ps.cli import parse_command_line
from fr_ps.config import Config, SearchConfig, with_settings
from fr_ps.config.dependencies import unmet_condition
from fr_ps.config.search import StudyConfig
from fr_ps.errors import InputError
from fr_ps.search import launcher
from fr_ps.search.checks import require_effect
from fr_ps.search.space import params_to_settings, parse_space
from fr_ps.search.spec import build_study_spec
from tests.conftest import AssertRejected
from tests.tracking.conftest import no_settings, store  # noqa: F401

ROOT = Path(__file__).parents[3]
STUDIES = sorted((ROOT / "experiments" / "search").glob("*.yaml"))
ADVERSARIAL = {"low": 0.01, "high": 1.0, "log": True}


def check(raw: Mapping[str, Any], **base: Any) -> None:
    settings = with_settings(Config(), {name.replace("__", "."): value for name, value in base.items()})
    require_effect(parse_space(raw, settings), settings)


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    "the shipped all.yaml as it was": (
        {"loss.weighting": ["fixed", "uncertainty", "upgrad", "pcgrad"], "loss.adversarial": ADVERSARIAL},
        {},
        ("space.loss.adversarial", "loss.weighting uncertainty", "write when: {loss.weighting: [fixed, upgrad, pcgrad]}"),
    ),
    "by the base alone": (
        {"loss.adversarial": ADVERSARIAL},
        {},
        ("loss.weighting is not uncertainty", "take it out of the space, or set loss.weighting otherwise"),
    ),
    "an optimizer without momentum": (
        {"optim.name": ["adamw", "sgd"], "optim.momentum": [0.8, 0.9]},
        {},
        ("optim.name is sgd", "write when: {optim.name: [sgd]}"),
    ),
    "a when of another setting": (
        {
            "optim.name": ["adamw", "sgd"],
            "schedule.name": ["cosine", "constant"],
            "schedule.lowest": {"choices": [0.0, 1e-5], "when": {"optim.name": "sgd"}},
        },
        {},
        ("write when: {optim.name: [sgd], schedule.name: [cosine]}",),
    ),
    "a when that guarantees less": (
        {
            "loss.weighting": ["fixed", "dwa", "cagrad"],
            "loss.cagrad_c": {"choices": [0.2, 0.4], "when": {"loss.weighting": ["dwa", "cagrad"]}},
        },
        {},
        ("loss.weighting dwa", "write when: {loss.weighting: [cagrad]}"),
    ),
    "the second of two conditions": (
        {"model.adversaries": ["rest", "off"], "loss.adversarial": ADVERSARIAL},
        {"loss__weighting": "fixed"},
        ("model.adversaries off", "write when: {model.adversaries: [rest]}"),
    ),
    "a condition on a truth": (
        {"model.fsm": [True, False], "model.reduction": [16, 64]},
        {},
        ("write when: {model.fsm: [true]}",),
    ),
    "one modality in some trials": (
        {"data.modalities": [["albedo"], ["albedo", "normal"]], "fusion.name": ["concat", "score"]},
        {},
        ("data.modalities names two or more", 'write when: {data.modalities: [["albedo", "normal"]]}'),
    ),
    "a whole range that begins at 0": (
        {"schedule.restart_epochs": {"low": 0, "high": 10, "step": 5}, "schedule.restart_factor": [1, 2]},
        {"schedule__name": "cosine"},
        ("schedule.restart_epochs is above 0", "search schedule.restart_epochs by choices"),
    ),
    "nobody to be patient for": ({"train.patience": [2, 4]}, {"data__val_people": 0.0}, ("somebody is validated on",)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_setting_without_effect_is_refused_with_what_to_write(case: str, refused: AssertRejected) -> None:
    raw, base, words = REFUSED[case]
    with refused(*words):
        check(raw, **base)


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_message_says_is_accepted(case: str) -> None:
    raw, base, _ = REFUSED[case]
    with pytest.raises(InputError) as caught:
        check(raw, **base)
    found = re.search(r"space\.([\w.]+): .*write (when: .*)$", str(caught.value))
    if found:
        given = raw[found[1]]
        changed = {"choices": given} if isinstance(given, list) else dict(given)
        check(raw | {found[1]: changed | yaml.safe_load(found[2])}, **base)


def test_a_new_study_with_such_a_space_is_refused_and_one_that_exists_goes_on(
    store: object,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    refused: AssertRejected,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = StudyConfig(name="s", storage="sqlite:///studies.db")
    search = build_study_spec(SearchConfig(space={"loss.adversarial": ADVERSARIAL}, study=study), Config())
    monkeypatch.setattr(launcher, "check_data", lambda _search: "digest")
    with refused("space.loss.adversarial", "loss.weighting"):
        launcher.run_study(search, 1)
    assert not Path("runs").exists()
    with monkeypatch.context() as patch:  # as version 0.1 began it
        patch.setattr(launcher, "require_effect", lambda _space, _base: None)
        begun = launcher._open_or_create_study(search, "digest", 1, Path("runs"))
    assert launcher._open_or_create_study(search, "digest", 1, Path("runs")).run_info.id == begun.run_info.id
    printed = capsys.readouterr()
    assert "note: space.loss.adversarial: has an effect only where" in printed.out + printed.err


def test_settings_that_always_have_an_effect_need_no_when() -> None:
    check({"optim.lr": ADVERSARIAL, "loss.scale": [30.0, 64.0], "train.ema": [0.0, 0.99]})
    check({"loss.weighting": ["fixed", "dwa"], "loss.adversarial": ADVERSARIAL})
    check({"loss.reversal": {"low": 0.0, "high": 1.0}, "loss.reversal_ramp": [True, False]})


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_in_the_shipped_studies_every_setting_of_every_trial_has_an_effect(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    arguments = parse_command_line(["search", "--config", str(file)])["search"]
    base = training_config(arguments)
    space = parse_space(arguments["space"], base)
    require_effect(space, base)
    # Independently of how spaces are checked: in what a random sampler draws.
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(60):
        params = space.suggest(study.ask())
        config = with_settings(base, params_to_settings(params))
        assert [name for name in params if unmet_condition(config, name)] == []
