"""After the last epoch: thresholds in the model folders, and the one test."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fr_ps.config import BatchConfig, Config, DataConfig, ModelConfig, TrainConfig
from fr_ps.data.dataset import open_dataset
from fr_ps.data.split_files import read_part
from fr_ps.evaluation.calibrate_thresholds import calibrate_thresholds
from fr_ps.models.folder import load_model
from fr_ps.models.inference import predict
from fr_ps.models.thresholds import read_thresholds
from fr_ps.tracking.run import Run
from fr_ps.training.train import train

CPU = torch.device("cpu")


def trained(prepared: Path, folder: Path, val_people: int = 2, test_people: int = 2, gallery: int = 0) -> Run:
    config = Config(
        data=DataConfig(root=str(prepared), val_people=val_people, test_people=test_people, gallery=gallery),
        batch=BatchConfig(people=2, sessions=2),
        model=ModelConfig(backbone="convnextv2_atto", channels=16, reduction=8),
        train=TrainConfig(epochs=2, watch=("val/identity/eer",)),
    )
    run = Run(folder)
    train(config, run, echo=lambda line: None)
    return run


def test_every_best_model_has_the_thresholds_of_its_own_answers_about_validation(prepared: Path, tmp_path: Path) -> None:
    run = trained(prepared, tmp_path)
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
    assert "test/identity/fnmr_at_val_far_0.1" in run.metric_history


def test_without_validation_there_are_no_thresholds_and_the_report_says_so(prepared: Path, tmp_path: Path) -> None:
    run = trained(prepared, tmp_path, val_people=0)
    assert read_thresholds(run.folder / "checkpoints" / "best") is None
    assert "the model has no thresholds from validation" in (run.folder / "report" / "report.html").read_text()


def test_without_a_test_there_are_thresholds_all_the_same(prepared: Path, tmp_path: Path) -> None:
    run = trained(prepared, tmp_path, test_people=0)
    assert read_thresholds(run.folder / "checkpoints" / "best") is not None
    assert not [name for name in run.metric_history if name.startswith("test/")]


def test_the_gallery_of_the_split_is_searched(prepared: Path, tmp_path: Path) -> None:
    run = trained(prepared, tmp_path, gallery=1)
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
