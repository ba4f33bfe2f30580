"""Metrics of a fused network with missing maps: those of a network that gets the available maps only."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from fr_ps.config import JOINT, Fusion, Modality, ModelConfig
from fr_ps.config.names import JointBranch
from fr_ps.data.dataset import Dataset, open_dataset
from fr_ps.data.labels import ATTRIBUTES
from fr_ps.evaluation.evaluate_model import evaluate_model
from fr_ps.evaluation.evaluate_predictions import validation_metrics
from fr_ps.evaluation.inputs import EvaluationOptions, open_inputs
from fr_ps.evaluation.metrics import Metrics
from fr_ps.evaluation.modality_subsets import modality_subsets, predict_with_subsets, subset_table
from fr_ps.evaluation.report import metric_table, terminal_table, write_report
from fr_ps.models import build_network
from fr_ps.models.folder import ModelInfo
from fr_ps.models.inference import Predictions, predict, predict_subsets
from fr_ps.models.network import FaceNetwork
from fr_ps.tracking.run import Run
from tests.models.small import save_model
from tests.pages import HtmlPage

ALL: tuple[Modality, ...] = ("albedo", "normal", "depth")
SUBSETS = [("albedo",), ("normal",), ("depth",), ("albedo", "normal"), ("albedo", "depth"), ("normal", "depth")]
ROWS = np.arange(24)
MODEL = ModelConfig(backbone="timm:test_resnet", channels=16, reduction=8)

pytestmark = pytest.mark.usefixtures("few_replicates", "undrawn")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset(prepared: Path) -> Dataset:
    return open_dataset(prepared, ALL)


def network(
    dataset: Dataset, fusion: Fusion = "gated", modalities: tuple[Modality, ...] = ALL, joint: JointBranch = "off"
) -> FaceNetwork:
    torch.manual_seed(0)
    classes = {attribute: len(groups) for attribute, groups in dataset.labels.classes.items()}
    branches = {"off": modalities, "only": (JOINT,), "also": (*modalities, JOINT)}[joint]
    made = build_network(dict.fromkeys(branches, MODEL), fusion, classes, joint=() if joint == "off" else modalities)
    with torch.no_grad():
        made({m: torch.from_numpy(array) for m, array in dataset.store.read(ROWS).items() if m in modalities})
    return made.eval()


def by_hand(made: FaceNetwork, dataset: Dataset, subset: tuple[str, ...]) -> Predictions:
    """Predictions of the network called with these maps only, in one batch."""
    maps = {m: torch.from_numpy(array) for m, array in dataset.store.read(ROWS).items() if m in subset}
    with torch.no_grad():
        outputs = made(maps)
    return Predictions(outputs.embedding.numpy(), {task: outputs.logits[task].softmax(dim=1).numpy() for task in ATTRIBUTES})


def test_subsets_are_all_proper_subsets_the_small_ones_first() -> None:
    assert modality_subsets(["albedo"]) == []
    assert modality_subsets(["normal", "albedo"]) == [("normal",), ("albedo",)]
    assert modality_subsets(ALL) == SUBSETS


@pytest.mark.parametrize(
    ("fusion", "joint"), [("concat", "off"), ("fc", "off"), ("gated", "off"), ("score", "off"), ("score", "also"), ("fc", "only")]
)
def test_the_metrics_of_a_subset_are_those_of_the_network_given_these_maps_only(
    dataset: Dataset, fusion: Fusion, joint: JointBranch
) -> None:
    made = network(dataset, fusion, joint=joint)
    _, found = predict_with_subsets(made, dataset.store, ROWS, dataset.labels, ATTRIBUTES, batch=10)
    expected = Metrics()
    for subset in SUBSETS:
        of_one = validation_metrics(by_hand(made, dataset, subset), dataset.labels, ATTRIBUTES)
        expected = expected.merge(of_one.with_prefix("only_" + "_".join(subset)))
    assert list(found.values) == list(expected.values)
    assert found.defined() == pytest.approx(expected.defined(), abs=1e-3)  # another batch size may swap two scores within 10^-6
    assert {found.values[f"only_{m}/identity/auc"] for m in ALL} != {found.values["only_albedo/identity/auc"]}


def test_a_single_modality_has_no_subsets(dataset: Dataset) -> None:
    made = network(dataset, modalities=("albedo",))
    assert predict_with_subsets(made, dataset.store, ROWS, dataset.labels, ATTRIBUTES, batch=10)[1] == Metrics()
    assert subset_table(example_metrics(subsets=False)).rows == []


def test_metric_names_are_valid_in_mlflow(dataset: Dataset) -> None:
    found = predict_with_subsets(network(dataset), dataset.store, ROWS, dataset.labels, ATTRIBUTES, batch=24)[1].with_prefix(
        "test"
    )
    assert "test/only_albedo_depth/identity/auc" in found.values
    assert all(re.fullmatch(r"[\w\-./: ]+", name, re.ASCII) for name in found.values)


def test_each_branch_reads_a_batch_once_for_all_subsets(dataset: Dataset) -> None:
    made = network(dataset)
    calls: list[str] = []
    for name, branch in made.branches.items():
        branch.register_forward_hook(lambda *_, name=name: calls.append(name))
    predict_subsets(made, dataset.store, ROWS, 10, [*SUBSETS, ALL])
    assert sorted(calls) == sorted(3 * list(ALL))  # 24 sessions: 10, 10, 4


def test_predictions_with_all_maps_do_not_depend_on_other_subsets(dataset: Dataset) -> None:
    made = network(dataset)
    whole, together = predict(made, dataset.store, ROWS, 10), predict_subsets(made, dataset.store, ROWS, 10, [("depth",), ALL])[1]
    np.testing.assert_array_equal(whole.embeddings, together.embeddings)


# The tables.


def example_metrics(subsets: bool = True) -> Metrics:
    metrics = Metrics()
    for part, shift in (("val", 0.0), ("test", 0.1)):
        for number, group in enumerate(["", *(["only_albedo/", "only_albedo_depth/"] if subsets else [])]):
            metrics.add(f"{part}/{group}identity/auc", 0.5 + shift + number / 100)
            metrics.add(f"{part}/{group}identity/eer", 0.25)
            metrics.add(f"{part}/{group}pose/auc", None, "the only class is frontal")
    return metrics


def test_the_table_has_a_row_per_part_and_subset_and_the_row_of_all_maps_last() -> None:
    table = subset_table(example_metrics())
    header, rows = table.header, table.rows
    assert header == ["AUC by maps", "", "identity", "identity EER", *ATTRIBUTES]
    assert [row[:4] for row in rows] == [
        ["val", "albedo", "0.5100", "0.2500"],
        ["val", "albedo + depth", "0.5200", "0.2500"],
        ["val", "all", "0.5000", "0.2500"],
        ["test", "albedo", "0.6100", "0.2500"],
        ["test", "albedo + depth", "0.6200", "0.2500"],
        ["test", "all", "0.6000", "0.2500"],
    ]
    assert {cell for row in rows for cell in row[4:]} == {"-"}


def test_the_main_table_has_the_metrics_with_all_maps_only() -> None:
    assert metric_table(example_metrics()) == metric_table(example_metrics(subsets=False))


def test_the_terminal_shows_the_table_below_the_metrics_if_there_are_subsets() -> None:
    plain = terminal_table(example_metrics(subsets=False))
    text = terminal_table(example_metrics())
    assert text.startswith(plain + "\n\n")
    rows = [line.split() for line in text.removeprefix(plain).splitlines() if line]
    assert rows[0][:3] == ["AUC", "by", "maps"]
    assert rows[3][:5] == ["val", "albedo", "+", "depth", "0.5200"]
    assert rows[-1][:4] == ["test", "all", "0.6000", "0.2500"]


def test_the_page_has_the_table_and_metrics_json_all_names(tmp_path: Path) -> None:
    metrics = example_metrics()
    write_report(tmp_path, "t", {"tested": "x"}, metrics, None)
    table = subset_table(metrics)
    reader = HtmlPage((tmp_path / "report.html").read_text())
    assert len(reader.tables) == 3
    subsets, main = reader.cells(0), reader.cells(1)
    assert subsets == [table.header, *table.rows]
    assert [row[0] for row in main] == ["metric", "identity/auc", "identity/eer"]
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["metrics"] == metrics.values
    assert content["reasons"] == metrics.reasons
    assert "val/only_albedo_depth/identity/auc" in content["metrics"]


def test_the_page_of_a_single_modality_has_no_table_of_subsets(tmp_path: Path) -> None:
    write_report(tmp_path, "t", {"tested": "x"}, example_metrics(subsets=False), None)
    text = (tmp_path / "report.html").read_text()
    assert len(HtmlPage(text).tables) == 2
    assert "Modality subsets" not in text


def test_an_evaluation_of_a_fused_model_reports_every_subset(dataset: Dataset, prepared: Path, tmp_path: Path) -> None:
    made = network(dataset, "concat")
    info = ModelInfo(dict.fromkeys(ALL, MODEL), "concat", 48, dataset.labels.classes, ATTRIBUTES, {})
    save_model(tmp_path / "model", made, info)
    run = Run(tmp_path / "run")
    inputs = open_inputs(tmp_path / "model", prepared, EvaluationOptions(), CPU)
    found = evaluate_model(inputs, tmp_path / "out", run, batch=7).metrics
    whole = validation_metrics(predict(made, dataset.store, ROWS, 24), dataset.labels, ATTRIBUTES)
    _, fewer = predict_with_subsets(made, dataset.store, ROWS, dataset.labels, ATTRIBUTES, 24)
    expected = whole.merge(fewer).with_prefix("test")
    assert found.select(set(expected.values)).defined() == pytest.approx(
        expected.defined(), abs=1e-3
    )  # another batch size may swap two scores within 10^-6
    assert {name for name in found.values if "only_" in name} == {name for name in expected.values if "only_" in name}
    assert json.loads((tmp_path / "out/metrics.json").read_text())["metrics"] == found.values
    page = (tmp_path / "out/report.html").read_text()
    assert "normal + depth" in page
    assert "on albedo, normal, depth" in page
