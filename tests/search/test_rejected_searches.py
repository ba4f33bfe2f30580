"""Searches that end with exit code 2 and one line before anything is trained."""

import json
import time

import optuna
import pytest

from tests.search.conftest import EPOCHS, OBJECTIVE, RejectedSearch
from tests.tracking import servers


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"space": {"optim.rate": [0.1]}}, ("optim.rate", "optim.lr")),
        ({"objectives": {OBJECTIVE: "minimize"}}, (f"objectives.{OBJECTIVE}", "minimize", "maximize")),
        ({"study": {"name": "bad", "storage": "sqlite:////nowhere/at/all.db"}}, ("study.storage", "/nowhere/at")),
        ({"sampler": {"name": "grid"}, "space": {"optim.lr": {"low": 0.1, "high": 0.2}}}, ("space.optim.lr", "grid", "step")),
        ({"pruner": {"epochs": EPOCHS}}, ("pruner.epochs", "train.epochs")),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_an_invalid_study_file_is_an_error_before_anything_is_created(
    rejected_search: RejectedSearch, settings: dict[str, object], words: tuple[str, ...]
) -> None:
    line = rejected_search(**settings)
    for word in words:
        assert word in line
    assert not list(rejected_search.folder.glob("runs/*"))
    assert not list(rejected_search.folder.glob("studies.db"))


def test_an_unreachable_database_is_an_error_without_its_password(rejected_search: RejectedSearch) -> None:
    port = servers.free_port()
    storage = f"postgresql+psycopg2://someone:secret@127.0.0.1:{port}/studies"
    line = rejected_search(study={"name": "bad", "storage": storage})
    assert "study.storage" in line
    assert str(port) in line
    assert "secret" not in line


def test_a_file_that_is_no_database_is_an_error(rejected_search: RejectedSearch) -> None:
    (rejected_search.folder / "other.db").write_text("no database " * 100)
    line = rejected_search(study={"name": "bad", "storage": f"sqlite:///{rejected_search.folder}/other.db"})
    assert "other.db" in line


def test_unreachable_mlflow_is_an_error_also_at_the_next_start(
    rejected_search: RejectedSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first start removes the study again. Otherwise the next one waits for its attributes."""
    monkeypatch.setattr("fr_ps.search.launcher._METADATA_TIMEOUT", 120.0)
    assert "MLFLOW_TRACKING_URI" in rejected_search()
    started = time.monotonic()
    rejected_search()
    assert time.monotonic() - started < 60


def test_a_study_of_another_program_is_an_error(rejected_search: RejectedSearch) -> None:
    study = optuna.create_study(storage=rejected_search.storage, study_name="bad", direction="maximize")
    study.tell(study.ask(), 0.5)
    line = rejected_search(trials=1)
    assert "'bad'" in line
    assert "study.name" in line


def test_a_study_with_another_direction_is_an_error(rejected_search: RejectedSearch) -> None:
    optuna.create_study(storage=rejected_search.storage, study_name="bad", direction="minimize")
    line = rejected_search()
    assert "minimize" in line
    assert "study.name" in line
