"""Checks before the first trial: objectives that the validation set defines, searched settings that have an effect."""

import csv
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import yaml

from fr_ps.arguments import training_config
from fr_ps.cli import parse_command_line
from fr_ps.config import Config, DataConfig, SearchConfig, with_settings
from fr_ps.config.dependencies import unmet_condition
from fr_ps.config.search import StudyConfig
from fr_ps.data.dataset import open_dataset
from fr_ps.data.labels import ATTRIBUTES
from fr_ps.data.splits import make_split
from fr_ps.errors import InputError
from fr_ps.evaluation.evaluate_predictions import validation_metrics
from fr_ps.evaluation.metrics import Metrics, lower_is_better
from fr_ps.models.inference import Predictions
from fr_ps.search import launcher
from fr_ps.search.checks import check_data_and_objectives, require_effect
from fr_ps.search.space import params_to_settings
from fr_ps.search.space_parser import parse_space
from fr_ps.search.spec import StudySpec, build_study_spec
from tests.conftest import AssertRejected
from tests.tracking.conftest import no_settings, store  # noqa: F401

AUC = "val/identity/auc"
ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "experiments" / "search").glob("*.yaml"))
ADVERSARIAL = {"low": 0.01, "high": 1.0, "log": True}


def check(raw: Mapping[str, Any], **base: Any) -> None:
    settings = with_settings(Config(), {name.replace("__", "."): value for name, value in base.items()})
    require_effect(parse_space(raw, settings), settings)


REJECTED: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    "the shipped all.yaml as it was": (
        {"loss.weighting": ["fixed", "uncertainty", "upgrad", "pcgrad"], "loss.adversarial": ADVERSARIAL},
        {},
        ("space.loss.adversarial", "loss.weighting uncertainty", "write when: {loss.weighting: [fixed, upgrad, pcgrad]}"),
    ),
    "without effect in the base": (
        {"loss.adversarial": ADVERSARIAL},
        {},
        ("loss.weighting is not uncertainty", "remove it from the space, or change loss.weighting"),
    ),
    "an optimizer without momentum": (
        {"optim.name": ["adamw", "sgd"], "optim.momentum": [0.8, 0.9]},
        {},
        ("optim.name is sgd", "write when: {optim.name: [sgd]}"),
    ),
    "a when on another setting": (
        {
            "optim.name": ["adamw", "sgd"],
            "schedule.name": ["cosine", "constant"],
            "schedule.lowest": {"choices": [0.0, 1e-5], "when": {"optim.name": "sgd"}},
        },
        {},
        ("write when: {optim.name: [sgd], schedule.name: [cosine]}",),
    ),
    "a when that is too wide": (
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
    "a condition on a boolean": (
        {"model.fsm": [True, False], "model.reduction": [16, 64]},
        {},
        ("write when: {model.fsm: [true]}",),
    ),
    "one modality in some trials": (
        {"data.modalities": [["albedo"], ["albedo", "normal"]], "fusion.name": ["concat", "score"]},
        {},
        ("data.modalities names two or more", 'write when: {data.modalities: [["albedo", "normal"]]}'),
    ),
    "a range that starts at 0": (
        {"schedule.restart_epochs": {"low": 0, "high": 10, "step": 5}, "schedule.restart_factor": [1, 2]},
        {"schedule__name": "cosine"},
        ("schedule.restart_epochs is above 0", "search schedule.restart_epochs by choices"),
    ),
    "patience without validation": ({"train.patience": [2, 4]}, {"data__val_people": 0.0}, ("there is a validation set",)),
}


@pytest.mark.parametrize("case", REJECTED)
def test_a_setting_without_effect_is_an_error_with_the_when_to_write(case: str, rejected: AssertRejected) -> None:
    raw, base, words = REJECTED[case]
    with rejected(*words):
        check(raw, **base)


@pytest.mark.parametrize("case", REJECTED)
def test_the_remedy_in_the_message_is_accepted(case: str) -> None:
    raw, base, _ = REJECTED[case]
    with pytest.raises(InputError) as caught:
        check(raw, **base)
    found = re.search(r"space\.([\w.]+): .*write (when: .*)$", str(caught.value))
    if found:
        given = raw[found[1]]
        changed = {"choices": given} if isinstance(given, list) else dict(given)
        check(raw | {found[1]: changed | yaml.safe_load(found[2])}, **base)


def test_a_new_study_with_such_a_space_is_an_error_and_an_existing_one_resumes(
    store: object,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    rejected: AssertRejected,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = StudyConfig(name="s", storage="sqlite:///studies.db")
    spec = build_study_spec(SearchConfig(space={"loss.adversarial": ADVERSARIAL}, study=study), Config())
    monkeypatch.setattr(launcher, "check_data_and_objectives", lambda _spec: "digest")
    with rejected("space.loss.adversarial", "loss.weighting"):
        launcher.run_study(spec, 1)
    assert not Path("runs").exists()
    with monkeypatch.context() as patch:  # as version 0.1 created it
        patch.setattr(launcher, "require_effect", lambda _space, _base: None)
        created = launcher._open_or_create_search(spec, "digest", 1, Path("runs"))
    assert launcher._open_or_create_search(spec, "digest", 1, Path("runs")).run_info.id == created.run_info.id
    # A study of before, which has no digest of the split file.
    assert launcher._open_or_create_search(spec, "digest-parts", 1, Path("runs")).run_info.id == created.run_info.id
    with rejected("has other data or another split file", "digest digest, here other"):
        launcher._open_or_create_search(spec, "other-parts", 1, Path("runs"))
    printed = capsys.readouterr()
    assert (
        "note: this study resumes, but a new study with the same space would be rejected: space.loss.adversarial: has"
        in printed.out + printed.err
    )


def test_settings_that_always_have_an_effect_need_no_when() -> None:
    check({"optim.lr": ADVERSARIAL, "loss.scale": [30.0, 64.0], "train.ema": [0.0, 0.99]})
    check({"loss.weighting": ["fixed", "dwa"], "loss.adversarial": ADVERSARIAL})
    check({"loss.reversal": {"low": 0.0, "high": 1.0}, "loss.reversal_ramp": [True, False]})


def test_the_base_value_of_a_setting_counts_only_in_trials_that_do_not_sample_it(rejected: AssertRejected) -> None:
    weighting = ["fixed", "uncertainty"]
    space = {"loss.weighting": weighting, "loss.reversal": {"low": 0.1, "high": 1.0}}
    sampled = {"loss.adversarial": ADVERSARIAL | {"when": {"loss.weighting": "fixed"}}}
    check(space | sampled, loss__adversarial=0.0)  # 0 only where the weighting is uncertainty, which needs no loss.adversarial
    with rejected("space.loss.reversal", "some trials have loss.weighting fixed"):
        check(space, loss__adversarial=0.0)


def test_a_setting_whose_values_are_invalid_where_it_has_no_effect_is_an_error_too(rejected: AssertRejected) -> None:
    """With one modality, a dropout above 0 is invalid: such trials would end without training."""
    space = {"data.modalities": [["albedo"], ["albedo", "normal"]], "fusion.dropout": [0.1, 0.3]}
    with rejected("space.fusion.dropout", 'write when: {data.modalities: [["albedo", "normal"]]}'):
        check(space, data__modalities=("albedo", "normal"))


def test_many_values_of_the_setting_itself_do_not_hide_those_of_another_one(rejected: AssertRejected) -> None:
    space = {"model.adversaries": ["rest", "identity", "off"], "loss.reversal": [number / 6000 for number in range(6000)]}
    with rejected("space.loss.reversal", "model.adversaries off"):
        check(space)


def test_a_setting_is_checked_in_the_trials_of_each_value_of_its_grandparents(rejected: AssertRejected) -> None:
    space: dict[str, Any] = {
        "model.fsm": [True, False],
        "model.adversaries": {"choices": ["rest", "off"], "when": {"model.fsm": True}},
        "loss.adversarial": ADVERSARIAL | {"when": {"model.adversaries": "rest"}},
    }
    check(space, loss__weighting="fixed")
    with rejected("space.loss.adversarial", "model.adversaries off"):
        check(space | {"loss.adversarial": ADVERSARIAL}, loss__weighting="fixed")


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_in_the_shipped_studies_every_setting_of_every_trial_has_an_effect(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    arguments = parse_command_line(["search", "--config", str(file)])["search"]
    base = training_config(arguments)
    space = parse_space(arguments["space"], base)
    require_effect(space, base)
    # Another way: the draws of a random sampler.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(15):
        params = space.suggest(study.ask())
        config = with_settings(base, params_to_settings(params))
        assert [name for name in params if unmet_condition(config, name)] == []


def spec_of(root: Path, *objectives: str, **data: Any) -> StudySpec:
    directions: dict[str, Any] = {
        name: "minimize" if name.startswith("cost/") or lower_is_better(name) else "maximize" for name in objectives or (AUC,)
    }
    config = SearchConfig(space={"optim.lr": [0.1]}, objectives=directions, study=StudyConfig(name="s"))
    return build_study_spec(config, Config(data=DataConfig(**({"root": str(root), "val_people": 2, "test_people": 2} | data))))


def genders(root: Path) -> dict[str, str]:
    """Subject to gender, from the table."""
    with (root / "labels.csv").open() as file:
        return {row["id"]: row["Gender"] for row in csv.DictReader(file)}


def split_of(root: Path, file: Path, **parts: list[str]) -> str:
    """A split file with these subjects in each part."""
    with (root / "labels.csv").open() as table, file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["id", "session", "part"])
        for row in csv.DictReader(table):
            writer.writerows([row["id"], row["session"], part] for part, subjects in parts.items() if row["id"] in subjects)
    return str(file)


def test_a_split_without_validation_subjects_is_an_error(prepared: Path, tmp_path: Path, rejected: AssertRejected) -> None:
    with rejected("data.val_people is 0", "needs validation subjects"):
        check_data_and_objectives(spec_of(prepared, val_people=0))
    train_only = split_of(prepared, tmp_path / "split.csv", train=list(genders(prepared)))
    with rejected("data.val_people is 0", "needs validation subjects"):
        check_data_and_objectives(spec_of(prepared, split=train_only, val_people=0, test_people=0))


@pytest.mark.parametrize(
    "objectives", [["val/identity/auk"], [AUC, "val/gender/auk"], ["cost/latency", "val/identity/auk"]], ids=len
)
def test_an_unknown_objective_is_an_error_that_lists_the_metrics(
    prepared: Path, objectives: list[str], rejected: AssertRejected
) -> None:
    with rejected(f"objectives: {objectives[-1]!r} is not a metric", "val/identity/auc,", "val/gender/auc"):
        check_data_and_objectives(spec_of(prepared, *objectives))


def test_an_objective_of_a_single_class_is_an_error(prepared: Path, tmp_path: Path, rejected: AssertRejected) -> None:
    subjects = genders(prepared)
    female, male = ([name for name, gender in subjects.items() if gender == which] for which in ("female", "male"))
    assert min(len(female), len(male)) >= 3
    single = {
        "in validation": split_of(prepared, tmp_path / "val.csv", val=male[:2], train=[*female, *male[2:]]),
        "in training": split_of(prepared, tmp_path / "train.csv", val=[female[0], male[0]], train=male[1:]),
    }
    for where, split in single.items():
        with rejected(
            "objectives: val/gender/auc is undefined or has low support on the validation set", "expected another metric"
        ):
            check_data_and_objectives(spec_of(prepared, "val/gender/auc", split=split, test_people=0))
        assert check_data_and_objectives(spec_of(prepared, AUC, split=split, test_people=0)), where


@pytest.mark.parametrize("objective", [AUC, "val/identity/eer", "val/identity/rank1"])
def test_identity_is_undefined_for_one_subject(prepared: Path, objective: str, rejected: AssertRejected) -> None:
    with rejected(f"objectives: {objective} is undefined or has low support", "only one subject"):
        check_data_and_objectives(spec_of(prepared, "cost/parameters", objective, val_people=1))


def test_an_objective_with_low_support_is_an_error(prepared: Path, rejected: AssertRejected) -> None:
    """Two subjects with four sessions: 16 impostor pairs, 1.6 expected errors at a rate of 0.1."""
    with rejected(
        "objectives: val/identity/tar_at_far_0.1 is undefined or has low support", "low support: 1.6", "16 impostor pairs"
    ):
        check_data_and_objectives(spec_of(prepared, "val/identity/tar_at_far_0.1"))


def perfect(root: Path, spec: StudySpec) -> Metrics:
    """The validation metrics of a model without errors, on the same subjects."""
    dataset = open_dataset(root, ["albedo"])
    rows = make_split(dataset.labels, spec.base.data, dataset.left_out).val
    labels = dataset.labels.subset(rows)
    embeddings = np.eye(40)[np.unique(labels.ids, return_inverse=True)[1]]
    embeddings = embeddings + 0.01 * np.random.default_rng(1).normal(size=embeddings.shape)
    probabilities = {
        task: (0.9 * np.eye(len(labels.classes[task]))[labels.codes[:, column]] + 0.05).astype(np.float32)
        for column, task in enumerate(ATTRIBUTES)
    }
    return validation_metrics(Predictions(embeddings.astype(np.float32), probabilities), labels, ATTRIBUTES).with_prefix("val")


def test_the_accepted_objectives_are_those_that_a_real_validation_defines(prepared: Path, rejected: AssertRejected) -> None:
    metrics = perfect(prepared, spec_of(prepared))
    defined = {
        name
        for name, value in metrics.values.items()
        if value is not None and not metrics.reasons.get(name, "").startswith("low support")
    }
    assert {AUC, "val/gender/auc", "val/identity/eer"} <= defined < set(metrics.values)
    assert check_data_and_objectives(spec_of(prepared, *sorted(defined)))
    for name in metrics.values.keys() - defined:
        with rejected(f"objectives: {name} is undefined or has low support"):
            check_data_and_objectives(spec_of(prepared, name))


def test_costs_need_one_validation_subject_only(prepared: Path) -> None:
    assert check_data_and_objectives(spec_of(prepared, "cost/latency", "cost/parameters", val_people=1))


def test_the_digest_is_that_of_the_maps(prepared: Path, tmp_path: Path) -> None:
    digest = check_data_and_objectives(spec_of(prepared))
    assert digest == open_dataset(prepared, ["albedo"]).store.digest
    assert digest == check_data_and_objectives(spec_of(prepared, "val/gender/auc", val_people=3, test_people=0))
    copy = tmp_path / "copy"
    shutil.copytree(prepared, copy)
    assert check_data_and_objectives(spec_of(copy)) == digest
    subjects = list(genders(prepared))
    first, second = (
        split_of(prepared, tmp_path / f"{number}.csv", val=subjects[number : number + 2], train=subjects[4:]) for number in (0, 1)
    )
    of_splits = [check_data_and_objectives(spec_of(prepared, split=split, test_people=0)) for split in (first, second)]
    assert of_splits[0] != of_splits[1]
    assert [of_split.split("-")[0] for of_split in of_splits] == [digest, digest]
    other = tmp_path / "other"
    shutil.copytree(prepared, other, ignore=shutil.ignore_patterns(".*"))
    file = sorted(other.glob("data/*/*/albedo.npy"))[0]
    maps = np.load(file)
    maps.flat[0] += 0.25
    np.save(file, maps)
    assert check_data_and_objectives(spec_of(other)) != digest


def test_missing_data_are_an_error(tmp_path: Path, rejected: AssertRejected) -> None:
    with rejected(tmp_path / "none", "data.root"):
        check_data_and_objectives(spec_of(tmp_path / "none"))


def test_too_few_training_subjects_are_an_error(prepared: Path, rejected: AssertRejected) -> None:
    with rejected("data.val_people", "subjects to train on", "change them"):
        check_data_and_objectives(spec_of(prepared, val_people=3, test_people=3))
