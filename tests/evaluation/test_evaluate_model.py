"""A model folder scored on a prepared data set."""

import json
import shutil
from dataclasses import dataclass, replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from fr_ps.config import DataConfig, ModelConfig
from fr_ps.data.dataset import open_dataset
from fr_ps.data.labels import ATTRIBUTES
from fr_ps.data.split_files import SPLIT_FILE, write_split
from fr_ps.data.splits import make_split
from fr_ps.errors import InputError
from fr_ps.evaluation.attribute_baselines import fit_attribute_probe
from fr_ps.evaluation.dlib_baseline import reason_without_dlib
from fr_ps.evaluation.evaluate_model import EvaluationSummary, evaluate_model
from fr_ps.evaluation.inputs import EvaluationOptions, open_inputs
from fr_ps.evaluation.metrics import Metrics
from fr_ps.models.folder import ModelInfo, load_model
from fr_ps.models.inference import predict
from fr_ps.models.thresholds import THRESHOLDS_FILE, Thresholds, ValidationThreshold, write_thresholds
from fr_ps.tracking.run import Run
from tests.models.small import save_model

CPU = torch.device("cpu")
PARTS = DataConfig(val_people=1, test_people=2)


pytestmark = pytest.mark.usefixtures("undrawn", "few_replicates")


@pytest.fixture(scope="module")
def model(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model with a split."""
    dataset = open_dataset(prepared, ["albedo"])
    config = ModelConfig(backbone="timm:test_resnet", channels=32, reduction=8)
    info = ModelInfo({"albedo": config}, "concat", 48, dataset.labels.classes, ATTRIBUTES[1:], {"run": "r1"})
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "best"
    split = make_split(dataset.labels, PARTS)
    network = info.build_network()
    save_model(folder, network, info)
    write_split(folder / SPLIT_FILE, dataset.labels, split)
    return folder


class Recorder(Run):
    """A local run that records its metrics and data sets."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.points: dict[str, float] = {}
        self.profile: dict[str, int] = {}

    def log_metrics(self, values, step):  # type: ignore[no-untyped-def]
        self.points.update(values)

    def log_dataset(self, name, source, digest, profile, context):  # type: ignore[no-untyped-def]
        self.profile = dict(profile)


def score(model: Path, data: Path, out: Path, part: str | None = None, batch: int = 8, **asked: Any) -> tuple[Metrics, Recorder]:
    evaluated, run = evaluated_with(model, data, out, part, batch, **asked)
    return evaluated.metrics, run


def evaluated_with(
    model: Path, data: Path, out: Path, part: str | None = None, batch: int = 8, **asked: Any
) -> tuple[EvaluationSummary, Recorder]:
    run = Recorder(out.parent / "run")
    return evaluate_model(open_inputs(model, data, EvaluationOptions(part, **asked), CPU), out, run, batch=batch), run


@dataclass(frozen=True)
class Evaluated:
    """An evaluation of all rows, made once."""

    metrics: Metrics
    run: Recorder
    out: Path


@pytest.fixture(scope="module")
def plain(model: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    out = tmp_path_factory.mktemp("plain") / "out"
    return Evaluated(*score(model, prepared, out), out)


def test_every_row_is_scored_and_recorded_as_test(plain: Evaluated) -> None:
    metrics, run = plain.metrics, plain.run
    assert all(name.startswith("test/") for name in metrics.values)
    assert {"test/identity/auc", "test/identity/eer", "test/emotion/auc"} <= run.points.keys()
    assert run.points.items() < metrics.defined().items()
    assert run.profile["sessions"] == 24
    assert len(pd.read_parquet(plain.out / "scores.parquet")) == 24 * 23 // 2
    assert json.loads((plain.out / "metrics.json").read_text())["metrics"] == metrics.values
    assert "every row" in (plain.out / "report.html").read_text()
    assert metrics.values["test/gender/auc"] is None
    assert "not trained" in metrics.reasons["test/gender/auc"]


@pytest.mark.parametrize(("part", "people"), [("val", 1), ("test", 2)])
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


def test_the_metrics_do_not_depend_on_the_batch_size(plain: Evaluated, model: Path, prepared: Path, tmp_path: Path) -> None:
    metrics, _ = score(model, prepared, tmp_path / "out", batch=5)
    # The batch size changes the last bits of an embedding, which may swap two scores within 10^-6 of each other.
    assert metrics.defined() == pytest.approx(plain.metrics.defined(), abs=2e-3)


def test_an_unknown_part_is_rejected(model: Path, prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'tset'"):
        score(model, prepared, tmp_path / "out", "tset")
    assert not (tmp_path / "out").exists()


def test_a_part_that_the_data_lack_is_rejected(model: Path, prepared: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(prepared, other)
    lines = (other / "labels.csv").read_text().splitlines(keepends=True)
    labels = open_dataset(prepared, ["albedo"]).labels
    gone = labels.ids[make_split(labels, PARTS).test][0]
    (other / "labels.csv").write_text("".join([lines[0], *(line for line in lines[1:] if gone not in line.split(",")[:1])]))
    with pytest.raises(InputError, match="not in the data set"):
        score(model, other, tmp_path / "out", "test")


def test_maps_of_another_size_are_rejected_with_the_remedy(prepared: Path, model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    raw = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps(raw | {"size": 64}))
    with pytest.raises(InputError, match=r"48 px.*reads 64.*--size 64"):
        score(copy, prepared, tmp_path / "out")


def test_missing_data_or_models_are_rejected(prepared: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none"):
        score(model, tmp_path / "none", tmp_path / "out")
    with pytest.raises(InputError, match="none"):
        score(tmp_path / "none", prepared, tmp_path / "out")


def test_baselines_are_fitted_on_the_training_subjects_and_the_report_starts_with_the_verdict(
    model: Path, prepared: Path, tmp_path: Path
) -> None:
    evaluated, run = evaluated_with(model, prepared, tmp_path / "out", "test", baselines=True)
    values = evaluated.metrics.values
    fitted = ("pixels_albedo", "eigenfaces_albedo", "wccn_albedo", "wccn_albedo_normal", "wccn_albedo_normal_registered")
    for name in (*fitted, "wccn_albedo_normal_symmetric", "pixels_normal", "normals_10x10"):
        assert values[f"test/baseline_{name}/identity/auc"] is not None
        assert f"test/baseline_{name}/identity/auc" in evaluated.metrics.replicates
    assert not any("depth" in name for name in values)  # the model does not read it
    page = (tmp_path / "out" / "report.html").read_text()
    (verdict,) = [line for line in evaluated.notes if "linear baselines" in line]
    page = unescape(page).replace("\N{NO-BREAK SPACE}", " ")
    assert page.index("<p class=lead>Of ") < page.index(f"'>{verdict}</p>") < page.index("<img")
    table, _ = evaluated.tables
    rows = [dict(zip(table.header, row)) for row in table.rows]
    for row in rows:
        assert row["difference"] == pytest.approx(row["network"] - row["baseline"])  # type: ignore[operator]
    best = max((row for row in rows if row["metric"] == "identity/auc"), key=lambda row: row["baseline"])  # type: ignore[arg-type, return-value]
    assert str(best["against"]) in verdict
    assert run.points["test/identity/auc"] == values["test/identity/auc"]


def test_attributes_are_compared_with_linear_probes_on_the_training_subjects(model: Path, prepared: Path, tmp_path: Path) -> None:
    evaluated, _ = evaluated_with(model, prepared, tmp_path / "out", "test", baselines=True, jitter=True)
    values = evaluated.metrics.values
    dataset = open_dataset(prepared, ["albedo", "normal"])
    split = make_split(dataset.labels, PARTS)
    page = unescape((tmp_path / "out" / "report.html").read_text()).replace("\N{NO-BREAK SPACE}", " ")
    compared = 0
    for maps in (["albedo"], ["albedo", "normal"]):  # the model reads albedo
        probe = fit_attribute_probe(dataset, split.train, ATTRIBUTES[1:], maps)
        for jittered, prefix in ((False, ""), (True, "jittered_")):
            found = probe.predict(dataset, split.test, jittered=jittered)
            for attribute in ATTRIBUTES[1:]:
                codes = dataset.labels.codes[split.test, ATTRIBUTES.index(attribute)]
                name = f"test/{prefix}baseline_{probe.name}/{attribute}/auc"
                if attribute in probe.omitted or len(np.unique(codes)) < 2:
                    assert values[name] is None
                    assert evaluated.metrics.reasons[name] in page
                else:
                    assert values[name] == pytest.approx(roc_auc_score(codes, found[attribute][:, 1]))
                    compared += 1
        assert any(note.startswith("attributes: ") and f"{probe.name} in" in note for note in evaluated.notes)
    assert compared >= 8
    assert not any("probe" in name and "gender" in name for name in values if "baseline" in name)  # not trained
    assert [table.name for table in evaluated.tables][-2:] == ["attribute_baselines", "jittered_attribute_baselines"]
    verdicts = [note for note in evaluated.notes if "the linear baselines" in note]
    assert [verdict.startswith("on warped maps, the network ") for verdict in verdicts] == [False, True]
    assert page.index(f"'>{verdicts[0]}</p>") < page.index(f"'>{verdicts[1]}</p>") < page.index("<img")
    for name in ("attribute_baselines", "jittered_attribute_baselines"):
        table = pd.read_csv(tmp_path / "out" / "tables" / f"{name}.csv")
        np.testing.assert_allclose(table.network - table.probe, table.difference, atol=1e-9)


def test_baselines_need_the_training_subjects_and_their_maps(model: Path, prepared: Path, tmp_path: Path, rejected) -> None:  # type: ignore[no-untyped-def]
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    (copy / SPLIT_FILE).unlink()
    with rejected(SPLIT_FILE, "training subjects"):
        score(copy, prepared, tmp_path / "out", baselines=True)
    text = (model / SPLIT_FILE).read_text()
    (copy / SPLIT_FILE).write_text("".join(line for line in text.splitlines(keepends=True) if ",train" not in line))
    with rejected("no training session of the model"):
        score(copy, prepared, tmp_path / "out", baselines=True)


def test_the_training_subjects_may_be_in_another_data_set(model: Path, prepared: Path, tmp_path: Path, rejected) -> None:  # type: ignore[no-untyped-def]
    labels = open_dataset(prepared, ["albedo"]).labels
    split = make_split(labels, PARTS)
    tested = copy_of_subjects(prepared, tmp_path / "tested", set(labels.ids[split.test]))
    with rejected("no training session of the model", "--baselines-data"):
        score(model, tested, tmp_path / "out", baselines=True)
    with rejected("no training session of the model", "--baselines-data"):
        score(model, prepared, tmp_path / "out", baselines=True, baselines_data=tested)
    apart, _ = evaluated_with(model, tested, tmp_path / "out", baselines=True, baselines_data=prepared, jitter=True)
    together, _ = evaluated_with(model, prepared, tmp_path / "other", "test", baselines=True, jitter=True)
    names = [name for name in apart.metrics.values if "baseline_" in name]
    assert len(names) > 20
    for name in names:
        assert apart.metrics.values[name] == pytest.approx(together.metrics.values[name], abs=1e-6), name
    assert not any("baselines: fitted on" in note for note in apart.notes)


def test_training_subjects_that_the_baselines_lack_are_counted(model: Path, prepared: Path, tmp_path: Path) -> None:
    labels = open_dataset(prepared, ["albedo"]).labels
    train = make_split(labels, PARTS).train
    fewer = copy_of_subjects(prepared, tmp_path / "fewer", set(labels.ids[train][:1]) | set(labels.ids[train][-1:]))
    evaluated, _ = evaluated_with(model, prepared, tmp_path / "out", baselines=True, baselines_data=fewer)
    known = np.isin(labels.ids[train], [labels.ids[train][0], labels.ids[train][-1]]).sum()
    assert 0 < known < len(train)
    note = f"baselines: fitted on {known} of the model's {len(train)} training sessions; {fewer} lacks the others"
    assert note in evaluated.notes
    assert any(
        "trained on 3 of the test subjects" in note for note in evaluated.notes
    )  # leakage is reported as without baselines


def copy_of_subjects(data: Path, copy: Path, subjects: set[str]) -> Path:
    """A copy of a prepared data set that lists these subjects only."""
    shutil.copytree(data, copy)
    header, *lines = (copy / "labels.csv").read_text().splitlines(keepends=True)
    (copy / "labels.csv").write_text(header + "".join(line for line in lines if line.split(",")[0] in subjects))
    for folder in (copy / "data").iterdir():
        if folder.name not in subjects:
            shutil.rmtree(folder)
    return copy


def test_the_report_compares_dlib_or_gives_the_reason_why_not(model: Path, prepared: Path, tmp_path: Path) -> None:
    evaluated, _ = evaluated_with(model, prepared, tmp_path / "out", "test", baselines=True)
    table = evaluated.tables[0]
    reason = reason_without_dlib()
    compared = "test/baseline_dlib_albedo/identity/auc" in evaluated.metrics.values
    assert compared != bool(reason)
    assert ("dlib_albedo: " + reason in table.note) == bool(reason)
    (verdict,) = [note for note in evaluated.notes if note.startswith("the network ")]
    assert ("linear baselines and dlib" in verdict) == compared


def test_warped_maps_are_scored_beside_the_original_ones(plain: Evaluated, model: Path, prepared: Path, tmp_path: Path) -> None:
    evaluated, _ = evaluated_with(model, prepared, tmp_path / "out", jitter=True)
    values = evaluated.metrics.values
    assert values["test/jittered/identity/auc"] != values["test/identity/auc"]
    assert plain.metrics.values["test/identity/auc"] == values["test/identity/auc"]
    again, _ = score(model, prepared, tmp_path / "again", jitter=True, batch=5)
    assert again.values["test/jittered/identity/auc"] == pytest.approx(values["test/jittered/identity/auc"], abs=1e-6)
    (table,) = evaluated.tables
    assert [row[0] for row in table.rows][:2] == ["identity/auc", "identity/auc_person_balanced"]
    for attribute in ("spectacles", "pose"):
        assert f"{attribute}/auc" in [row[0] for row in table.rows]
        assert values[f"test/jittered/{attribute}/auc"] != values[f"test/{attribute}/auc"]
    assert "test/jittered/gender/auc" not in values  # not trained


def test_only_the_listed_pairs_are_verified(model: Path, prepared: Path, tmp_path: Path) -> None:
    labels = open_dataset(prepared, ["albedo"]).labels
    names = list(zip(labels.ids.tolist(), labels.sessions.tolist()))
    listed = [(0, 1), (4, 5), (0, 4), (1, 9), (2, 13)]
    lines = [",".join((*names[a], *names[b])) for a, b in listed]
    (tmp_path / "pairs.csv").write_text("\n".join(["id_a,session_a,id_b,session_b", *lines]) + "\n")
    metrics, _ = score(model, prepared, tmp_path / "out", pairs=tmp_path / "pairs.csv")
    table = pd.read_parquet(tmp_path / "out" / "scores.parquet")
    assert [",".join(row[:4]) for row in table.itertuples(index=False)] == lines
    assert metrics.values["test/identity/auc"] == pytest.approx(roc_auc_score(table.genuine, table.score))
    assert "2 genuine and 3 impostor pairs of a list" in (tmp_path / "out" / "report.html").read_text()


def test_the_report_warns_of_leakage(plain: Evaluated, model: Path, prepared: Path, tmp_path: Path) -> None:
    page = (plain.out / "report.html").read_text()
    assert "the model was trained on 3 of the test subjects" in page
    assert "thresholds of the model were selected on 1 of the test subjects" in page
    score(model, prepared, tmp_path / "test", "test")
    assert "the model was trained on none of the test subjects" in (tmp_path / "test" / "report.html").read_text()
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    (copy / SPLIT_FILE).unlink()
    score(copy, prepared, tmp_path / "unknown")
    assert "the training subjects of the model are unknown" in (tmp_path / "unknown" / "report.html").read_text()


def test_error_rates_at_the_thresholds_of_the_model_are_reported(
    plain: Evaluated, model: Path, prepared: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    write_thresholds(copy, Thresholds(4, 9, (ValidationThreshold(0.1, 0.97, 3, 30, ""),), {"spectacles": 0.4}))
    metrics, _ = score(copy, prepared, tmp_path / "out")
    table = pd.read_parquet(tmp_path / "out" / "scores.parquet")
    accepted = table.score >= 0.97
    assert metrics.values["test/identity/fmr_at_val_far_0.1"] == pytest.approx(accepted[~table.genuine].mean())
    assert metrics.values["test/identity/fnmr_at_val_far_0.1"] == pytest.approx(1 - accepted[table.genuine].mean())
    assert not any("at_val" in name for name in plain.metrics.values)
    (copy / THRESHOLDS_FILE).write_text("{}")
    with pytest.raises(InputError, match=r"thresholds\.json"):
        score(copy, prepared, tmp_path / "bad")


def test_the_test_part_is_searched_in_the_gallery_of_the_split(prepared: Path, model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    labels = open_dataset(prepared, ["albedo"]).labels
    split = make_split(labels, replace(PARTS, gallery=1))
    write_split(copy / SPLIT_FILE, labels, split)
    metrics, _ = score(copy, prepared, tmp_path / "out", "test")
    assert len(split.gallery) == 2
    dataset = open_dataset(prepared, ["albedo"])
    network, _info = load_model(copy, CPU)
    probes, enrolled = (predict(network, dataset.store, rows, 8).embeddings for rows in (split.test, split.gallery))
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (probes, enrolled)]
    best = (unit[0] @ unit[1].T).argmax(axis=1)
    expected = (labels.ids[split.gallery][best] == labels.ids[split.test]).mean()
    assert metrics.values["test/identity/rank1"] == pytest.approx(expected)


def test_nan_in_the_weights_is_rejected_in_one_line(prepared: Path, model: Path, tmp_path: Path) -> None:
    network, info = load_model(model, CPU)
    with torch.no_grad():
        network.log_gains["albedo"].fill_(float("nan"))
    save_model(tmp_path / "broken", network, info)
    with pytest.raises(InputError, match="holds NaN or infinity"):
        score(tmp_path / "broken", prepared, tmp_path / "out")
    assert not (tmp_path / "out").exists()
