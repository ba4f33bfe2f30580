"""Comparison of two model folders on the same sessions, and within groups."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from fr_ps.config import DataConfig, ModelConfig
from fr_ps.data.dataset import open_dataset
from fr_ps.data.labels import ATTRIBUTES, Labels, read_labels
from fr_ps.data.split_files import SPLIT_FILE, write_split
from fr_ps.data.splits import make_split
from fr_ps.evaluation.compare_models import ComparisonResult, compare_models, group_differences
from fr_ps.evaluation.evaluate_model import evaluate_model
from fr_ps.evaluation.evaluate_predictions import LabelledPredictions
from fr_ps.evaluation.inputs import EvaluationOptions, open_inputs
from fr_ps.models.folder import ModelInfo
from fr_ps.models.inference import Predictions
from fr_ps.tracking.run import Run
from tests.models.small import save_model

CPU = torch.device("cpu")
PARTS = DataConfig(val_people=1, test_people=3)


pytestmark = pytest.mark.usefixtures("undrawn", "few_replicates")


def make(prepared: Path, folder: Path, modality: str, seed: int) -> Path:
    """An untrained model of one modality with a split; the seed determines its weights."""
    dataset = open_dataset(prepared, [modality])
    config = ModelConfig(backbone="timm:test_resnet", channels=32, reduction=8)
    info = ModelInfo({modality: config}, "concat", 48, dataset.labels.classes, ATTRIBUTES, {"run": f"r{seed}"})
    torch.manual_seed(seed)
    network = info.build_network()
    split = make_split(dataset.labels, PARTS)
    save_model(folder, network, info)
    write_split(folder / SPLIT_FILE, dataset.labels, split)
    return folder


@pytest.fixture(scope="module")
def models(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return make(prepared, folder / "a", "albedo", 0), make(prepared, folder / "b", "normal", 1)


def compared(models: tuple[Path, Path], data: Path, out: Path, part: str | None = None) -> ComparisonResult:
    run = Run(out.parent / "run")
    inputs = [open_inputs(model, data, EvaluationOptions(part), CPU, models[0]) for model in models]
    return compare_models(inputs, out, run, batch=8)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comparison") / "out"


@pytest.fixture(scope="module")
def found(models: tuple[Path, Path], prepared: Path, out: Path) -> ComparisonResult:
    """A comparison on all rows, made once."""
    return compared(models, prepared, out)


def test_differences_are_those_between_the_two_evaluations(
    models: tuple[Path, Path], found: ComparisonResult, out: Path, prepared: Path, tmp_path: Path
) -> None:
    values = [
        evaluate_model(
            open_inputs(one, prepared, EvaluationOptions(), CPU), tmp_path / name, Run(tmp_path / f"run{name}"), batch=8
        )
        for one, name in zip(models, "ab")
    ]
    named = {one.name: one for one in found.differences}
    assert {"identity/auc", "identity/eer", "gender/auc", "probe/gender/auc"} <= set(named)
    for name, one in named.items():
        first, second = (evaluated.metrics.values[f"test/{name}"] for evaluated in values)
        assert (one.first, one.second) == (first, second)
    auc = named["identity/auc"]
    assert auc.low <= auc.value <= auc.high
    assert 0 < auc.p <= 1
    content = json.loads((out / "metrics.json").read_text())
    assert content["metrics"]["difference/identity/auc"] == auc.value
    assert content["intervals"]["difference/identity/auc"] == [auc.low, auc.high]
    assert content["metrics"]["a/identity/auc"] == auc.first
    # Once: only the figure of the identity metrics has error rates.
    assert (out / "report.html").read_text().count(
        "Error rates have the opposite sign here, so that albedo is better to the"
    ) == 1


def test_a_model_does_not_differ_from_itself(models: tuple[Path, Path], prepared: Path, tmp_path: Path) -> None:
    found = compared((models[0], models[0]), prepared, tmp_path / "out")
    for one in found.differences:
        assert one.value == 0
        assert one.better == "neither"
        assert np.isnan(one.p) or one.p == 1
    assert "no significant difference between the first model and the second model by identity AUC" in found.notes[0]


def test_leakage_is_a_warning(models: tuple[Path, Path], found: ComparisonResult, prepared: Path, tmp_path: Path) -> None:
    for name in ("albedo", "normal"):
        assert [line for line in found.notes if line.startswith(f"{name} was trained on 2")]
        assert [line for line in found.notes if line.startswith(f"checkpoint and thresholds of {name} were selected on 1")]
    unknown = tmp_path / "unknown"
    shutil.copytree(models[1], unknown)
    (unknown / SPLIT_FILE).unlink()
    found = compared((models[0], unknown), prepared, tmp_path / "third", "test")
    assert not [line for line in found.notes if "trained on" in line or "selected on" in line]
    assert [line for line in found.notes if line.startswith("the training subjects of normal are unknown")]


def test_data_without_a_map_of_a_model_are_rejected(models: tuple[Path, Path], prepared: Path, tmp_path: Path, rejected) -> None:  # type: ignore[no-untyped-def]
    data = tmp_path / "data"
    shutil.copytree(prepared, data)
    for file in data.rglob("normal.npy"):
        file.unlink()
    with rejected("normal", "24 such rows"):
        compared(models, data, tmp_path / "out")


def test_an_attribute_with_other_classes_is_not_compared(models: tuple[Path, Path], prepared: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(models[1], other)
    raw = json.loads((other / "model.json").read_text())
    raw["classes"]["facial_hair"] = {"none": ["none", "stubble"], "any": ["both", "moustache", "beard"]}
    (other / "model.json").write_text(json.dumps(raw))
    found = compared((models[0], other), prepared, tmp_path / "out")
    assert not [one for one in found.differences if "facial_hair" in one.name]
    assert [one for one in found.differences if one.name == "gender/auc"]
    assert [line for line in found.notes if "classes of albedo and normal differ: facial_hair" in line]


@pytest.fixture(scope="module")
def labels(prepared: Path) -> Labels:
    return read_labels(prepared / "labels.csv")


def noisy_predictions(labels: Labels, noise: float, seed: int) -> LabelledPredictions:
    """Predictions that separate the subjects; more noise separates them less."""
    rng = np.random.default_rng(seed)
    names, person = np.unique(labels.ids, return_inverse=True)
    embeddings = np.random.default_rng(0).normal(size=(len(names), 16))[person] + noise * rng.normal(size=(len(labels), 16))
    return LabelledPredictions(Predictions(embeddings.astype(np.float32), {}), labels)


def auc_among(one: LabelledPredictions, rows: np.ndarray) -> float:
    unit = one.predictions.embeddings[rows] / np.linalg.norm(one.predictions.embeddings[rows], axis=1, keepdims=True)
    first, second = np.triu_indices(len(rows), 1)
    ids = one.labels.ids[rows]
    return float(roc_auc_score(ids[first] == ids[second], (unit @ unit.T)[first, second]))


def test_a_group_difference_is_that_of_the_aucs_among_the_sessions_of_a_class(labels: Labels) -> None:
    first, second = noisy_predictions(labels, 1.0, 1), noisy_predictions(labels, 3.0, 3)
    found = {one.name: one for one in group_differences(first, second)}
    expected = {}
    for column, attribute in enumerate(ATTRIBUTES):
        for code, name in enumerate(labels.class_names(attribute)):
            rows = np.flatnonzero(labels.codes[:, column] == code)
            counts = np.unique(labels.ids[rows], return_counts=True)[1]
            if len(counts) >= 2 and counts.max() >= 2:
                expected[f"groups/{attribute}/{name}/identity/auc"] = auc_among(first, rows), auc_among(second, rows)
    assert set(found) == set(expected)
    for name, (one, other) in expected.items():
        assert (found[name].first, found[name].second) == pytest.approx((one, other), abs=1e-6)


def test_a_model_differs_from_itself_in_no_group(labels: Labels) -> None:
    one = noisy_predictions(labels, 2.0, 1)
    assert all(found.value == 0 and found.better == "neither" for found in group_differences(one, one))
