"""A model folder scored on a prepared data set."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fr_ps.config import DataConfig, ModelConfig
from fr_ps.data.dataset import open_dataset
from fr_ps.data.labels import ATTRIBUTES
from fr_ps.data.split_files import SPLIT_FILE, write_split
from fr_ps.data.splits import make_split
from fr_ps.errors import InputError
from fr_ps.evaluation.evaluate import evaluate_folder
from fr_ps.evaluation.metrics import Metrics
from fr_ps.models import build_network
from fr_ps.models.folder import ModelInfo, save_model
from fr_ps.tracking.run import Run

CPU = torch.device("cpu")
PARTS = DataConfig(val_people=1, test_people=2)


@pytest.fixture(scope="module")
def model(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained, which is enough to be scored."""
    dataset = open_dataset(prepared, ["albedo"])
    config = ModelConfig(backbone="convnextv2_atto", channels=32, reduction=8)
    info = ModelInfo({"albedo": config}, "concat", 48, dataset.labels.classes, ATTRIBUTES[1:], {"run": "r1"})
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "best"
    split = make_split(dataset.labels, PARTS)
    network = build_network(info.branches, info.fusion, info.class_counts())
    save_model(folder, network, info, also=lambda new: write_split(new / SPLIT_FILE, dataset.labels, split))
    return folder


class Recorder(Run):
    """A local run that remembers its metrics and data sets."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.points: dict[str, float] = {}
        self.profile: dict[str, int] = {}

    def metrics(self, values, step):  # type: ignore[no-untyped-def]
        self.points.update(values)

    def dataset(self, name, source, digest, profile, context):  # type: ignore[no-untyped-def]
        self.profile = dict(profile)


def score(model: Path, data: Path, out: Path, part: str | None = None, batch: int = 8) -> tuple[Metrics, Recorder]:
    run = Recorder(out.parent / "run")
    return evaluate_folder(model, data, out, run, part=part, device=CPU, batch=batch), run


def test_every_row_is_scored_and_recorded_as_test(model: Path, prepared: Path, tmp_path: Path) -> None:
    metrics, run = score(model, prepared, tmp_path / "out")
    assert all(name.startswith("test/") for name in metrics.values)
    assert run.points == metrics.defined()
    assert run.profile["sessions"] == 24
    assert len(pd.read_parquet(tmp_path / "out" / "scores.parquet")) == 24 * 23 // 2
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["metrics"] == metrics.values
    assert "every row" in (tmp_path / "out" / "report.html").read_text()
    assert metrics.values["test/gender/auc"] is None
    assert "not trained" in metrics.reasons["test/gender/auc"]


@pytest.mark.parametrize(("part", "people"), [("train", 3), ("val", 1), ("test", 2)])
def test_a_part_of_the_models_own_split_is_scored_under_its_name(
    model: Path, prepared: Path, tmp_path: Path, part: str, people: int
) -> None:
    metrics, _ = score(model, prepared, tmp_path / "out", part)
    assert all(name.startswith(f"{part}/") for name in metrics.values)
    labels = open_dataset(prepared, ["albedo"]).labels
    expected = set(np.unique(labels.ids[getattr(make_split(labels, PARTS), part)]))
    table = pd.read_parquet(tmp_path / "out" / "scores.parquet")
    assert set(table.id_a) | set(table.id_b) == expected
    assert len(expected) == people


def test_the_metrics_do_not_depend_on_the_batch(model: Path, prepared: Path, tmp_path: Path) -> None:
    first, second = (score(model, prepared, tmp_path / f"out{batch}", batch=batch)[0].defined() for batch in (5, 24))
    assert first == pytest.approx(second, abs=1e-6)


def test_an_unknown_part_is_refused(model: Path, prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'tset'"):
        score(model, prepared, tmp_path / "out", "tset")
    assert not (tmp_path / "out").exists()


def test_a_part_of_other_data_than_the_models_is_refused(model: Path, prepared: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(prepared, other)
    lines = (other / "labels.csv").read_text().splitlines(keepends=True)
    labels = open_dataset(prepared, ["albedo"]).labels
    gone = labels.ids[make_split(labels, PARTS).test][0]
    (other / "labels.csv").write_text("".join([lines[0], *(line for line in lines[1:] if gone not in line.split(",")[:1])]))
    with pytest.raises(InputError, match="not in the data set"):
        score(model, other, tmp_path / "out", "test")


def test_maps_of_another_size_than_the_models_are_refused_with_the_remedy(prepared: Path, model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    raw = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps(raw | {"size": 64}))
    with pytest.raises(InputError, match=r"48 px.*reads 64.*--size 64"):
        score(copy, prepared, tmp_path / "out")


def test_data_or_models_that_are_not_there_are_refused(prepared: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none"):
        score(model, tmp_path / "none", tmp_path / "out")
    with pytest.raises(InputError, match="none"):
        score(tmp_path / "none", prepared, tmp_path / "out")
