"""What is seen before the first trial: whether the validation part can tell which trial is better."""

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fr_ps.config import Config, DataConfig, SearchConfig
from fr_ps.config.search import StudyConfig
from fr_ps.data.dataset import open_dataset
from fr_ps.data.labels import ATTRIBUTES
from fr_ps.data.splits import make_split
from fr_ps.evaluation.differences import lower_is_better
from fr_ps.evaluation.metrics import Metrics
from fr_ps.models.inference import Predictions, validation_metrics
from fr_ps.search.spec import StudySpec, build_study_spec
from fr_ps.search.study.preflight import check_data
from tests.conftest import AssertRejected

AUC = "val/identity/auc"


def search_of(root: Path, *objectives: str, **data: Any) -> StudySpec:
    wanted: dict[str, Any] = {
        name: "minimize" if name.startswith("cost/") or lower_is_better(name) else "maximize" for name in objectives or (AUC,)
    }
    config = SearchConfig(space={"optim.lr": [0.1]}, objectives=wanted, study=StudyConfig(name="s"))
    return build_study_spec(config, Config(data=DataConfig(**({"root": str(root), "val_people": 2, "test_people": 2} | data))))


def genders(root: Path) -> dict[str, str]:
    """Person to gender, as the table has it."""
    with (root / "labels.csv").open() as file:
        return {row["id"]: row["Gender"] for row in csv.DictReader(file)}


def split_of(root: Path, file: Path, **parts: list[str]) -> str:
    """A file in which people are in these parts."""
    with (root / "labels.csv").open() as table, file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["id", "session", "part"])
        for row in csv.DictReader(table):
            writer.writerows([row["id"], row["session"], part] for part, people in parts.items() if row["id"] in people)
    return str(file)


def test_nobody_to_validate_on_is_refused(prepared: Path, tmp_path: Path, refused: AssertRejected) -> None:
    with refused("data.val_people is 0", "nobody is validated on"):
        check_data(search_of(prepared, val_people=0))
    everybody = split_of(prepared, tmp_path / "split.csv", train=list(genders(prepared)))
    with refused("data.val_people is 0", "nobody is validated on"):
        check_data(search_of(prepared, split=everybody, val_people=0, test_people=0))


@pytest.mark.parametrize(
    "objectives", [["val/identity/auk"], [AUC, "val/gender/auk"], ["cost/latency", "val/identity/auk"]], ids=len
)
def test_an_objective_that_is_no_metric_is_refused_with_those_that_are(
    prepared: Path, objectives: list[str], refused: AssertRejected
) -> None:
    with refused(f"objectives: {objectives[-1]!r} is no metric", "val/identity/auc,", "val/gender/auc"):
        check_data(search_of(prepared, *objectives))


def test_an_objective_of_a_class_that_is_alone_is_refused(prepared: Path, tmp_path: Path, refused: AssertRejected) -> None:
    people = genders(prepared)
    female, male = ([name for name, gender in people.items() if gender == which] for which in ("female", "male"))
    assert min(len(female), len(male)) >= 3
    alone = {
        "in validation": split_of(prepared, tmp_path / "val.csv", val=male[:2], train=[*female, *male[2:]]),
        "in training": split_of(prepared, tmp_path / "train.csv", val=[female[0], male[0]], train=male[1:]),
    }
    for where, split in alone.items():
        with refused("objectives: val/gender/auc decides nothing on the validation part", "expected another metric"):
            check_data(search_of(prepared, "val/gender/auc", split=split, test_people=0))
        assert check_data(search_of(prepared, AUC, split=split, test_people=0)), where


@pytest.mark.parametrize("objective", [AUC, "val/identity/eer", "val/identity/rank1"])
def test_one_person_alone_tells_nothing_of_identity(prepared: Path, objective: str, refused: AssertRejected) -> None:
    with refused(f"objectives: {objective} decides nothing", "one person only"):
        check_data(search_of(prepared, "cost/parameters", objective, val_people=1))


def test_an_objective_that_rests_on_too_few_errors_is_refused(prepared: Path, refused: AssertRejected) -> None:
    """Two people of four sessions: 16 impostor pairs, of which a rate of 0.1 is 1.6."""
    with refused("objectives: val/identity/tar_at_far_0.1 decides nothing", "low support: 1.6", "16 impostor pairs"):
        check_data(search_of(prepared, "val/identity/tar_at_far_0.1"))


def perfect(root: Path, search: StudySpec) -> Metrics:
    """The validation of a model that is always right, on the same people."""
    dataset = open_dataset(root, ["albedo"])
    rows = make_split(dataset.labels, search.base.data, dataset.left_out).val
    labels = dataset.labels.subset(rows)
    embeddings = np.eye(40)[np.unique(labels.ids, return_inverse=True)[1]]
    embeddings = embeddings + 0.01 * np.random.default_rng(1).normal(size=embeddings.shape)
    chances = {
        task: (0.9 * np.eye(len(labels.classes[task]))[labels.codes[:, column]] + 0.05).astype(np.float32)
        for column, task in enumerate(ATTRIBUTES)
    }
    return validation_metrics(Predictions(embeddings.astype(np.float32), chances), labels, ATTRIBUTES).with_prefix("val")


def test_what_is_accepted_is_what_a_real_validation_defines(prepared: Path, refused: AssertRejected) -> None:
    metrics = perfect(prepared, search_of(prepared))
    defined = {
        name
        for name, value in metrics.values.items()
        if value is not None and not metrics.reasons.get(name, "").startswith("low support")
    }
    assert {AUC, "val/gender/auc", "val/identity/eer"} <= defined < set(metrics.values)
    assert check_data(search_of(prepared, *sorted(defined)))
    for name in metrics.values.keys() - defined:
        with refused(f"objectives: {name} decides nothing"):
            check_data(search_of(prepared, name))


def test_costs_need_nobody_who_is_told_apart(prepared: Path) -> None:
    assert check_data(search_of(prepared, "cost/latency", "cost/parameters", val_people=1))


def test_the_digest_is_that_of_the_maps(prepared: Path, tmp_path: Path) -> None:
    digest = check_data(search_of(prepared))
    assert digest == open_dataset(prepared, ["albedo"]).store.digest
    assert digest == check_data(search_of(prepared, "val/gender/auc", val_people=3, test_people=0))
    copy = tmp_path / "copy"
    shutil.copytree(prepared, copy)
    assert check_data(search_of(copy)) == digest
    other = tmp_path / "other"
    shutil.copytree(prepared, other, ignore=shutil.ignore_patterns(".*"))
    file = sorted(other.glob("data/*/*/albedo.npy"))[0]
    maps = np.load(file)
    maps.flat[0] += 0.25
    np.save(file, maps)
    assert check_data(search_of(other)) != digest


def test_data_that_are_not_there_are_refused(tmp_path: Path, refused: AssertRejected) -> None:
    with refused(tmp_path / "none", "data.root"):
        check_data(search_of(tmp_path / "none"))


def test_too_few_people_to_train_on_are_refused(prepared: Path, refused: AssertRejected) -> None:
    with refused("data.val_people", "people to train on", "lower them"):
        check_data(search_of(prepared, val_people=3, test_people=3))
