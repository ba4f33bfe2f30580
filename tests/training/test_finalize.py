"""The end of a training: thresholds, the one test, the report, and the model cards."""

import html
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from markdown_it import MarkdownIt

from fr_ps.data.dataset import open_dataset
from fr_ps.data.labels import ATTRIBUTES
from fr_ps.data.preparation import FORMAT
from fr_ps.data.split_files import read_part
from fr_ps.evaluation.calibrate_thresholds import calibrate_thresholds
from fr_ps.models.folder import load_model, read_info
from fr_ps.models.inference import predict
from fr_ps.models.thresholds import read_thresholds
from fr_ps.tracking.journal import JOURNAL_FILE, read_events
from fr_ps.tracking.run import Run
from fr_ps.training.finalize import TrainResult, curves_figure, learning_rate_figure
from fr_ps.training.model_card import _class_line, _preparation_line
from fr_ps.training.train import train
from tests.foreign import MARKUP_LIKE_TEXTS
from tests.training.runs import RecordingRun, run_training, small_config

CPU = torch.device("cpu")


def finished(prepared: Path, folder: Path, epochs: int = 1, **data: Any) -> Run:
    config = small_config(prepared, epochs=epochs, watch=("val/identity/eer",))
    run = Run(folder)
    train(replace(config, data=replace(config.data, **data)), run, echo=lambda line: None)
    return run


def test_every_best_model_has_the_thresholds_of_its_own_validation_predictions(prepared: Path, tmp_path: Path) -> None:
    run = finished(prepared, tmp_path, epochs=2)
    dataset = open_dataset(prepared, ["albedo"])
    for name in ("best", "best_identity_eer"):
        folder = run.folder / "checkpoints" / name
        rows = read_part(folder / "split.csv", "val", dataset.labels)
        network, info = load_model(folder, CPU)
        expected = calibrate_thresholds(predict(network, dataset.store, rows, 64), dataset.labels.subset(rows), info.trained)
        found = read_thresholds(folder)
        assert found == expected
        assert (found.people, found.sessions) == (2, 8)
        assert [point.fmr for point in found.identity] == [0.1]  # of 16 impostor pairs, 1.6 may be accepted at 0.1
    assert read_thresholds(run.folder / "checkpoints" / "last") is None
    reported = json.loads((run.folder / "report" / "metrics.json").read_text())["metrics"]
    assert "test/identity/fnmr_at_val_far_0.1" in reported


def test_without_validation_there_are_no_thresholds_and_the_report_has_a_note(prepared: Path, tmp_path: Path) -> None:
    run = finished(prepared, tmp_path, val_people=0)
    assert read_thresholds(run.folder / "checkpoints" / "best") is None
    assert "the model has no thresholds from validation" in (run.folder / "report" / "report.html").read_text()


def test_without_a_test_there_are_thresholds(prepared: Path, tmp_path: Path) -> None:
    run = finished(prepared, tmp_path, test_people=0)
    assert read_thresholds(run.folder / "checkpoints" / "best") is not None
    assert not [name for name in run.metric_history if name.startswith("test/")]


def test_the_gallery_of_the_split_is_searched(prepared: Path, tmp_path: Path) -> None:
    run = finished(prepared, tmp_path, gallery=1)
    dataset = open_dataset(prepared, ["albedo"])
    folder = run.folder / "checkpoints" / "best"
    probes, enrolled = (read_part(folder / "split.csv", part, dataset.labels) for part in ("test", "gallery"))
    network, _ = load_model(folder, CPU)
    unit = []
    for rows in (probes, enrolled):
        embeddings = predict(network, dataset.store, rows, 64).embeddings
        unit.append(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True))
    right = dataset.labels.ids[enrolled][(unit[0] @ unit[1].T).argmax(axis=1)] == dataset.labels.ids[probes]
    ((_, rank1),) = run.metric_history["test/identity/rank1"].items()
    assert rank1 == pytest.approx(right.mean())


@pytest.fixture(scope="module")
def trained(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainResult, RecordingRun]:
    folder = tmp_path_factory.mktemp("ending") / "run"
    result, run, _ = run_training(small_config(prepared, epochs=3, watch=("val/gender/auc",)), folder)
    return result, run


def card(run: RecordingRun, name: str) -> str:
    return (run.folder / "checkpoints" / name / "README.md").read_text()


def test_the_model_card_describes_network_data_and_metrics(trained: tuple[TrainResult, RecordingRun]) -> None:
    result, run = trained
    text, info = card(run, "best"), read_info(run.folder / "checkpoints/best")
    assert text.startswith(f"# {info.backbones} on albedo\n")
    assert f"Run {run.id}." in text
    assert f"Epoch {result.best_epoch}, the best by val/identity/auc" in text
    assert info.provenance["data_digest"] in text
    assert "train 8 sessions of 2 subjects; val 8 sessions of 2 subjects; test 8 sessions of 2 subjects" in text
    assert "Tested on 2 subjects, 8 sessions, 12 genuine and 16 impostor pairs" in text
    for part in ("val", "test"):
        assert f"- {part}/identity/auc {result.metrics.values[f'{part}/identity/auc']:.4f}" in text
    for warning in result.warnings:
        assert f"Warning: {warning}" in text
    for attribute in ATTRIBUTES:
        line = next(line for line in text.splitlines() if line.startswith(f"- {attribute}: ") and "(" in line)
        assert ("not trained" in line) == (attribute not in info.trained)
    assert f"with format {FORMAT}, size 48, align auto, solver robust. All other settings have their defaults." in text
    thresholds = read_thresholds(run.folder / "checkpoints/best")
    assert thresholds
    for point in thresholds.identity:
        assert f"- FMR {point.fmr:g}: a cosine of {point.threshold:.4f}; {point.false_matches} of {point.impostors} " in text
    for attribute, value in thresholds.attributes.items():
        positive = list(info.classes[attribute])[1]  # type: ignore[index]
        assert f"- {attribute}: {positive} from a probability of {value:.4f}" in text
    assert "Its captures have 4 lights, a condition number of 1.5, 8 bits." in text


def test_the_model_card_shows_markup_like_text_unchanged() -> None:
    plan: Any = SimpleNamespace(
        info=SimpleNamespace(classes={"gender": {name: [name] for name in MARKUP_LIKE_TEXTS}}, trained=("gender",))
    )
    plan.info.preparation, plan.info.acquisition = {"prior": MARKUP_LIKE_TEXTS[0]}, None
    expected = "; ".join(f"{name} ({name})" for name in MARKUP_LIKE_TEXTS)
    parser = MarkdownIt("gfm-like", {"linkify": False})
    assert html.unescape(parser.render(_class_line(plan, "gender"))) == f"<ul>\n<li>gender: {expected}</li>\n</ul>\n"
    assert f"prior {MARKUP_LIKE_TEXTS[0]}." in parser.render(_preparation_line(plan))


def test_the_model_card_of_a_watched_metric_has_no_test_metrics(trained: tuple[TrainResult, RecordingRun]) -> None:
    _, run = trained
    text = card(run, "best_gender_auc")
    assert "the best by val/gender/auc" in text
    assert "val/identity/auc" in text
    assert "test/" not in text


def test_each_best_model_is_logged_with_its_epoch(trained: tuple[TrainResult, RecordingRun]) -> None:
    result, run = trained
    events = [event.data for _, event in read_events(run.folder / JOURNAL_FILE) if event.kind == "model"]
    assert [one["path"] for one in events] == ["checkpoints/best", "checkpoints/best_gender_auc"]
    assert events[0]["step"] == result.best_epoch
    watched = {epoch: value for name, value, epoch in run.points if name == "val/gender/auc"}
    assert watched[events[1]["step"]] == max(watched.values())


def test_the_model_records_the_preparation_of_its_maps(trained: tuple[TrainResult, RecordingRun]) -> None:
    info = read_info(trained[1].folder / "checkpoints/best")
    assert info.preparation["size"] == 48
    assert info.preparation["solver"] == "robust"
    assert info.acquisition is not None
    assert info.acquisition.lights == (4, 4)
    assert info.provenance["git_commit"]
    assert info.provenance["torch"]
    assert yaml.safe_load((trained[1].folder / "checkpoints/best/config.yaml").read_text())["train"]["epochs"] == 3


def test_curves_are_drawn_by_name_and_those_without_points_are_not() -> None:
    figure = curves_figure({"train/loss/a": {2: 1.0, 1: 3.0}}, "Losses", ["train/loss/a", "train/loss/b"], logarithmic=True)
    (line,) = figure.axes[0].lines
    assert line.get_label() == "loss/a"
    assert [list(values) for values in line.get_data()] == [[1, 2], [3.0, 1.0]]


def test_the_learning_rate_is_drawn_at_each_step_the_last_one_of_an_epoch_at_its_end() -> None:
    figure = learning_rate_figure(lambda step: 0.5 / (step + 1), {1: 0.125}, epochs=3, steps_per_epoch=4)
    (axes,) = figure.axes
    (line,) = axes.lines
    x, y = line.get_data()
    np.testing.assert_allclose(x, np.arange(1, 13) / 4)
    np.testing.assert_allclose(y, [0.5 / step for step in range(1, 13)])
    assert axes.get_xlim() == (0, 3)
    assert axes.get_ylim()[0] == 0


def test_the_learning_rate_before_a_resume_with_another_schedule_is_the_logged_one() -> None:
    figure = learning_rate_figure(lambda _step: 0.1, {1: 1.0, 2: 0.5, 3: 0.1}, epochs=3, steps_per_epoch=2)
    (line,) = figure.axes[0].lines
    assert [list(values) for values in line.get_data()] == [[1, 2, 2.5, 3], [1.0, 0.5, 0.1, 0.1]]
