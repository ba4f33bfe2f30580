"""What a training leaves: models that say what they are, and are handed to the run."""

import html
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from fr_ps.data.labels import ATTRIBUTES
from fr_ps.models.folder import read_info
from fr_ps.tracking.journal import JOURNAL_FILE, read_events
from fr_ps.training.model_card import _class_line, _preparation_line
from fr_ps.training.train import TrainResult
from tests.foreign import MARKUP_LIKE_TEXTS
from tests.training.runs import RecordingRun, run_training, small_config


@pytest.fixture(scope="module")
def trained(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainResult, RecordingRun]:
    folder = tmp_path_factory.mktemp("ending") / "run"
    result, run, _ = run_training(small_config(prepared, epochs=3, watch=("val/gender/auc",)), folder)
    return result, run


def card(run: RecordingRun, name: str) -> str:
    return (run.folder / "checkpoints" / name / "README.md").read_text()


def test_the_card_of_the_best_model_says_what_it_is_and_how_good_on_whom(trained: tuple[TrainResult, RecordingRun]) -> None:
    result, run = trained
    text, info = card(run, "best"), read_info(run.folder / "checkpoints/best")
    assert text.startswith(f"# {info.backbones} on albedo\n")
    assert f"Run {run.id}." in text
    assert f"Epoch {result.best_epoch}, the best by val/identity/auc" in text
    assert info.provenance["data_digest"] in text
    assert "train 8 sessions of 2 people; val 8 sessions of 2 people; test 8 sessions of 2 people" in text
    assert "Tested on 2 subjects, 8 sessions, 12 genuine and 16 impostor pairs" in text
    for part in ("val", "test"):
        assert f"- {part}/identity/auc {result.metrics.values[f'{part}/identity/auc']:.4f}" in text
    for warning in result.warnings:
        assert f"Mind: {warning}" in text
    for attribute in ATTRIBUTES:
        line = next(line for line in text.splitlines() if line.startswith(f"- {attribute}: ") and "(" in line)
        assert ("not trained" in line) == (attribute not in info.trained)
    assert "solver robust" in text


def test_the_card_shows_foreign_text_as_it_is() -> None:
    plan: Any = SimpleNamespace(
        info=SimpleNamespace(classes={"gender": {name: [name] for name in MARKUP_LIKE_TEXTS}}, trained=("gender",))
    )
    plan.info.preparation = {"prior": MARKUP_LIKE_TEXTS[0]}
    told = "; ".join(f"{name} ({name})" for name in MARKUP_LIKE_TEXTS)
    parser = MarkdownIt("gfm-like", {"linkify": False})
    assert html.unescape(parser.render(_class_line(plan, "gender"))) == f"<ul>\n<li>gender: {told}</li>\n</ul>\n"
    assert f"prior {MARKUP_LIKE_TEXTS[0]}." in parser.render(_preparation_line(plan))


def test_that_of_a_watched_metric_has_no_test_which_it_never_had(trained: tuple[TrainResult, RecordingRun]) -> None:
    _, run = trained
    text = card(run, "best_gender_auc")
    assert "the best by val/gender/auc" in text
    assert "val/identity/auc" in text
    assert "test/" not in text


def test_each_is_handed_to_the_run_with_its_epoch(trained: tuple[TrainResult, RecordingRun]) -> None:
    result, run = trained
    events = [event.data for _, event in read_events(run.folder / JOURNAL_FILE) if event.kind == "model"]
    assert [one["path"] for one in events] == ["checkpoints/best", "checkpoints/best_gender_auc"]
    assert events[0]["step"] == result.best_epoch
    watched = {epoch: value for name, value, epoch in run.points if name == "val/gender/auc"}
    assert watched[events[1]["step"]] == max(watched.values())


def test_the_model_knows_how_its_maps_were_made(trained: tuple[TrainResult, RecordingRun]) -> None:
    info = read_info(trained[1].folder / "checkpoints/best")
    assert info.preparation["size"] == 48
    assert info.preparation["solver"] == "robust"
    assert info.provenance["git_commit"]
    assert info.provenance["torch"]
    assert yaml.safe_load((trained[1].folder / "checkpoints/best/config.yaml").read_text())["train"]["epochs"] == 3
