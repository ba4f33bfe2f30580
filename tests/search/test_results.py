"""Results of a study: the best trial, its settings as a file for `train`, tables, a study file without secrets."""

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import TrialState, create_trial

from fr_ps.arguments import training_config
from fr_ps.cli import parse_command_line
from fr_ps.config import Config, SearchConfig, with_absolute_paths, with_settings
from fr_ps.config.search import AfterConfig, BudgetConfig, StudyConfig
from fr_ps.report.table import table_text
from fr_ps.search.results import (
    WIDTH,
    best_config,
    best_first,
    best_trial,
    duration_text,
    fitted_settings_table,
    settings_table,
    state_counts,
    trial_table,
    trials_line,
    write_results,
)
from fr_ps.search.spec import StudySpec, build_study_spec
from fr_ps.search.trial_queue import EPOCHS, MLFLOW_RUN, OUTCOME, REASON, RUN

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
STORAGE = "postgresql+psycopg2://someone:secret@host/studies"
SPACE: dict[str, Any] = {
    "optim.lr": {"low": 0.001, "high": 0.1},
    "schedule.name": ["cosine", "constant"],
    "schedule.lowest": {"choices": [0.0, 0.0001], "when": {"schedule.name": "cosine"}},
    "data.modalities": [["albedo"], ["albedo", "normal"]],
    "batch.people": {"low": 2, "high": 8},
}
BASE = with_settings(
    Config(name="base", device="cpu"), {"train.epochs": 7, "data.root": "here", "data.only": {"Quality": ["ok"]}}
)
ONE, TWO = {"val/identity/auc": "maximize"}, {"val/identity/eer": "minimize", "cost/latency": "minimize"}


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def spec_of(objectives: dict[str, Any] | None = None) -> StudySpec:
    study = StudyConfig(name="mine", storage=STORAGE, seed=3, heartbeat=2)
    return build_study_spec(
        SearchConfig(space=SPACE, objectives=objectives or ONE, study=study, budget=BudgetConfig(trials=9)), BASE
    )


def params_of(lr: float, cosine: bool = True) -> dict[str, Any]:
    found = {"optim.lr": lr, "schedule.name": "cosine" if cosine else "constant"}
    return (
        found | ({"schedule.lowest": 0.0001} if cosine else {}) | {"data.modalities": '["albedo", "normal"]', "batch.people": 5}
    )


def add(
    study: optuna.Study, spec: StudySpec, state: TrialState, values: Sequence[float] = (), lr: float = 0.01, **attributes: Any
) -> None:
    """Add a trial with settings that a real study suggests."""
    other = optuna.create_study()
    other.enqueue_trial(params_of(lr, cosine=attributes.pop("cosine", True)))
    asked = other.ask()
    spec.space.suggest(asked)
    given = {"params": asked.params, "distributions": asked.distributions, "user_attrs": attributes}
    study.add_trial(create_trial(state=state, values=list(values) or None, **given))


def mixed(spec: StudySpec) -> optuna.Study:
    """One objective; trials: complete, pruned, failed, killed, complete, running, waiting."""
    study = optuna.create_study(study_name="mine", direction="maximize")
    add(study, spec, TrialState.COMPLETE, [0.8], 0.01, run="r0", mlflow_run="m0", epochs=7, outcome="complete")
    add(study, spec, TrialState.PRUNED, [0.7], 0.02, run="r1", epochs=2, outcome="pruned", reason="by median after epoch 2")
    add(study, spec, TrialState.FAIL, (), 0.03, run="r2", epochs=1, outcome="failed", reason="KeyError: x")
    add(study, spec, TrialState.FAIL, (), 0.04, run="r3")
    add(study, spec, TrialState.COMPLETE, [0.9], 0.05, run="r4", mlflow_run="m4", epochs=7, outcome="complete", cosine=False)
    add(study, spec, TrialState.RUNNING, (), 0.06, run="r5")
    study.add_trial(create_trial(state=TrialState.WAITING))
    return study


def two_sided(spec: StudySpec) -> optuna.Study:
    study = optuna.create_study(study_name="mine", directions=["minimize", "minimize"])
    for values in ([0.3, 5.0], [0.1, 20.0], [0.2, 25.0], [0.2, 10.0]):  # the third is worse than the second in both
        add(study, spec, TrialState.COMPLETE, values, 0.001 * values[1], outcome="complete", epochs=7)
    add(study, spec, TrialState.FAIL, (), 0.03, outcome="failed", reason="KeyError: x")
    add(study, spec, TrialState.PRUNED, (), 0.04, outcome="pruned", reason="infeasible settings: memory")
    return study


def test_the_attribute_names_of_the_database() -> None:
    assert (OUTCOME, REASON, RUN, MLFLOW_RUN, EPOCHS) == ("outcome", "reason", "run", "mlflow_run", "epochs")


def test_the_table_has_every_started_trial() -> None:
    spec = spec_of()
    table = trial_table(spec, mixed(spec))
    assert list(table.header) == [
        *[
            "trial",
            "state",
            "val/identity/auc",
            "optim.lr",
            "schedule.name",
            "data.modalities",
            "batch.people",
            "schedule.lowest",
        ],
        *["epochs", "reason", "run"],
    ]
    albedo_normal = '["albedo", "normal"]'
    assert table.rows == [
        [0, "complete", 0.8, 0.01, "cosine", albedo_normal, 5, 0.0001, 7, "", "m0"],
        [1, "pruned", 0.7, 0.02, "cosine", albedo_normal, 5, 0.0001, 2, "by median after epoch 2", "r1"],
        [2, "failed", None, 0.03, "cosine", albedo_normal, 5, 0.0001, 1, "KeyError: x", "r2"],
        [3, "killed", None, 0.04, "cosine", albedo_normal, 5, 0.0001, None, "", "r3"],
        [4, "complete", 0.9, 0.05, "constant", albedo_normal, 5, None, 7, "", "m4"],
        [5, "running", None, 0.06, "cosine", albedo_normal, 5, 0.0001, None, "", "r5"],
    ]


def order(study: optuna.Study) -> list[int]:
    started = [trial for trial in study.get_trials() if trial.state != TrialState.WAITING]
    return [trial.number for trial in best_first(study, started)]


def test_complete_trials_come_before_pruned_ones_and_the_front_first() -> None:
    assert order(mixed(spec_of())) == [4, 0, 1, 2, 3, 5]
    assert order(two_sided(spec_of(TWO))) == [1, 3, 0, 2, 5, 4]


def test_the_settings_of_trials_stand_beside_those_of_the_base_by_importance() -> None:
    spec = spec_of()
    trials = mixed(spec).get_trials()
    table = settings_table(spec, [trials[4], trials[0]], {"batch.people": 0.75, "optim.lr": 0.2})
    assert list(table.header) == ["setting", "trial 4", "trial 0", "base", "importance"]
    assert table.rows == [
        ["val/identity/auc", "0.9000", "0.8000", "", ""],
        ["batch.people", "5", "5", str(BASE.batch.people), "0.75"],
        ["optim.lr", "0.05", "0.01", str(BASE.optim.lr), "0.20"],
        ["schedule.name", "constant", "cosine", "polynomial", "-"],
        ["data.modalities", "albedo+normal", "albedo+normal", "albedo", "-"],
        ["schedule.lowest", "-", "0.0001", "-", "-"],  # without effect in trial 4 and in the base, which are not cosine
    ]


@pytest.mark.parametrize("trials", [0, 1, 12])
def test_the_table_of_settings_fits_the_terminal(trials: int) -> None:
    spec = spec_of()
    study = optuna.create_study(direction="maximize")
    for number in range(trials):
        add(study, spec, TrialState.COMPLETE, [0.5 + number / 100], 0.0123)
    table = fitted_settings_table(spec, study, {})
    text = table_text(table)
    assert max(map(len, text.splitlines())) <= WIDTH
    columns = [name for name in table.header if name.startswith("trial")]
    assert columns == [f"trial {number}" for number in range(trials - 1, -1, -1)][: len(columns)]
    assert len(columns) >= min(trials, 3)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (125, "2 min 5 s"),
        (12_000, "3 h 20 min"),
    ],
)
def test_a_duration_has_its_largest_sensible_unit(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_the_trials_are_counted_by_state() -> None:
    expected = {"complete": 2, "pruned": 1, "failed": 1, "killed": 1, "running": 1, "waiting": 1}
    assert state_counts(mixed(spec_of())) == expected


def test_a_line_counts_the_trials_and_has_the_median_time_of_a_complete_one() -> None:
    study = optuna.create_study()
    assert trials_line(study) == "trials: none"
    for seconds in (3, 60, 7):
        trial = create_trial(value=0.5)
        assert trial.datetime_start
        trial.datetime_complete = trial.datetime_start + timedelta(seconds=seconds)
        study.add_trial(trial)
    study.add_trial(create_trial(state=TrialState.PRUNED))
    assert trials_line(study) == "trials: 3 complete, 1 pruned; 7.0 s a complete trial (median)"


def test_the_best_trial_is_the_earliest_and_of_a_front_the_best_by_the_first_objective() -> None:
    spec = spec_of()
    study = mixed(spec)
    best = best_trial(study)
    assert best is not None
    assert best.number == 4
    add(study, spec, TrialState.COMPLETE, [0.9], 0.07)
    assert best_trial(study) == best
    front = best_trial(two_sided(spec_of(TWO)))
    assert front is not None
    assert front.number == 1
    other = optuna.create_study(directions=["maximize", "minimize"])
    for values in ([0.3, 5.0], [0.5, 20.0], [0.5, 20.0], [0.4, 1.0]):
        add(other, spec, TrialState.COMPLETE, values)
    front = best_trial(other)
    assert front is not None
    assert front.number == 1


@pytest.mark.parametrize("directions", [["maximize"], ["minimize", "maximize"]], ids=len)
def test_without_a_complete_trial_there_is_no_best_trial_but_an_order(directions: list[str]) -> None:
    spec = spec_of(ONE if len(directions) == 1 else TWO)
    study = optuna.create_study(directions=directions)
    assert best_trial(study) is None
    assert order(study) == []
    add(study, spec, TrialState.FAIL, (), outcome="failed")
    add(study, spec, TrialState.PRUNED, (), outcome="pruned")
    assert best_trial(study) is None
    assert order(study) == [1, 0]


def test_train_reads_best_yaml_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of()
    study = mixed(spec)
    write_results(spec, study, tmp_path)
    best = best_trial(study)
    assert best is not None
    expected = with_absolute_paths(best_config(spec, best))
    monkeypatch.chdir("/")
    got = training_config(parse_command_line(["train", "--config", str(tmp_path / "best.yaml")])["train"])
    assert got == expected
    assert got.optim.lr == 0.05
    assert got.schedule == replace(BASE.schedule, name="constant")
    assert got.data.modalities == ("albedo", "normal")
    assert got.data.only == {"Quality": ["ok"]}
    assert (got.batch.people, got.train.epochs, got.train.select) == (5, 7, "val/identity/auc")
    assert Path(got.data.root).is_absolute()


def test_trials_csv_has_every_started_trial(tmp_path: Path) -> None:
    spec = spec_of()
    study = mixed(spec)
    write_results(spec, study, tmp_path)
    with (tmp_path / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["complete", "pruned", "failed", "killed", "complete", "running"]
    assert [row["val/identity/auc"] for row in rows] == ["0.8", "0.7", "", "", "0.9", ""]
    assert [row["schedule.lowest"] for row in rows] == ["0.0001"] * 4 + ["", "0.0001"]
    assert json.loads(rows[0]["data.modalities"]) == ["albedo", "normal"]
    assert rows[2]["reason"] == "KeyError: x"


def test_the_study_file_repeats_the_search_and_has_no_password(tmp_path: Path) -> None:
    spec = spec_of(TWO)
    spec = replace(spec, config=replace(spec.config, after=AfterConfig(seeds=2), base="somewhere.yaml"))
    write_results(spec, two_sided(spec), tmp_path)
    for file in tmp_path.iterdir():
        assert "secret" not in file.read_text()
    assert "storage" not in yaml.safe_load((tmp_path / "study.yaml").read_text())["study"]
    arguments = parse_command_line(["search", "--config", str(tmp_path / "study.yaml")])["search"]
    names = ("base", "space", "objectives", "study", "sampler", "pruner", "budget", "after")
    again = build_study_spec(SearchConfig(**{name: arguments[name] for name in names}), training_config(arguments))
    storage = StudyConfig(name="mine", seed=3, heartbeat=2)
    assert again == replace(spec, config=replace(spec.config, study=storage, base=""))
    assert again.definition() == spec.definition()


def test_without_a_complete_trial_there_is_no_best_file(tmp_path: Path) -> None:
    spec = spec_of()
    study = optuna.create_study(direction="maximize")
    add(study, spec, TrialState.FAIL, (), outcome="failed", reason="KeyError: x")
    write_results(spec, study, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"study.yaml", "trials.csv"}
    assert "KeyError: x" in (tmp_path / "trials.csv").read_text()


def test_a_resumed_study_writes_its_best_file_again(tmp_path: Path) -> None:
    spec = spec_of()
    study = mixed(spec)
    write_results(spec, study, tmp_path)
    add(study, spec, TrialState.COMPLETE, [0.95], 0.09)
    write_results(spec, study, tmp_path)
    assert yaml.safe_load((tmp_path / "best.yaml").read_text())["optim"]["lr"] == 0.09
