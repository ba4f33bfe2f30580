"""The whole training, in process: what it promises about people, choice, seeds and labels."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import yaml

from fr_ps.config import (
    AugmentConfig,
    BatchConfig,
    Config,
    DataConfig,
    FusionConfig,
    ModelConfig,
    OptimConfig,
    PrepareConfig,
    ScheduleConfig,
    SyntheticConfig,
    TrainConfig,
)
from fr_ps.data.labels import ATTRIBUTES, COLUMNS
from fr_ps.data.prepare import prepare
from fr_ps.errors import InputError, OutOfMemoryError
from fr_ps.evaluation.evaluate_model import evaluate_model
from fr_ps.evaluation.inputs import EvaluationOptions, open_inputs
from fr_ps.evaluation.metrics import Metrics
from fr_ps.models.folder import load_model, read_info
from fr_ps.synthetic.captures import write_synthetic_captures
from fr_ps.tracking.listing import find_resumable_run
from fr_ps.tracking.run import Run
from fr_ps.tracking.run_folder import new_run_info
from fr_ps.training.divergence import DivergedError
from fr_ps.training.prepare import check_selected_metrics, prepare_training
from fr_ps.training.train import TrainResult, fit
from fr_ps.training.trainer import Trainer
from tests.training.runs import RecordingRun, read_split, run_training, small_config


@pytest.fixture(scope="module")
def trained(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainResult, RecordingRun, list[str]]:
    return run_training(small_config(prepared), tmp_path_factory.mktemp("runs") / "first")


def test_test_subjects_are_not_trained_on_and_every_session_has_a_part(trained, prepared):
    found = read_split(trained[1].folder)
    people = {part: {person for person, _ in sessions} for part, sessions in found.items()}
    assert not people["train"] & people["test"]
    assert not people["train"] & people["val"]
    assert not people["val"] & people["test"]
    with (prepared / "labels.csv").open() as file:
        assert set.union(*found.values()) == {(row["id"], row["session"]) for row in csv.DictReader(file)}


def test_a_run_leaves_settings_checkpoints_and_report(trained):
    _, run, _ = trained
    for name in (
        "config.yaml",
        "environment.txt",
        "checkpoints/last/model.safetensors",
        "checkpoints/best/model.safetensors",
        "report/metrics.json",
        "report/scores.parquet",
        "report/report.html",
        "report/roc.png",
        "report/losses.png",
    ):
        assert (run.folder / name).stat().st_size > 0, name
    assert run.settings["model/backbone"] == "timm:test_resnet"
    assert yaml.safe_load((run.folder / "config.yaml").read_text())["train"]["epochs"] == 2


def test_curves_have_one_point_per_epoch_and_the_documented_names(trained):
    _, run, _ = trained
    for name in ("train/loss/total", "train/loss/identity", "train/loss/gender", "train/loss/adversarial_gender", "train/lr"):
        assert [step for key, _, step in run.points if key == name] == [1, 2]
    for name in ("train/weight/identity", "train/images_per_second", "val/identity/auc"):
        assert [step for key, _, step in run.points if key == name] == [1, 2]
    assert len([step for key, _, step in run.points if key == "test/identity/auc"]) == 1


def test_the_metrics_of_the_report_are_those_of_the_result(trained):
    result, run, _ = trained
    written = json.loads((run.folder / "report/metrics.json").read_text())
    assert written["metrics"] == result.metrics.values
    assert written["reasons"] == result.metrics.reasons
    for name, value in written["metrics"].items():
        assert value is not None or written["reasons"][name], name


def test_the_best_checkpoint_reproduces_the_validation_metrics(trained, prepared):
    from fr_ps.data.dataset import open_dataset
    from fr_ps.data.split_files import read_part
    from fr_ps.evaluation.evaluate_predictions import validation_metrics
    from fr_ps.models.inference import predict

    result, run, _ = trained
    best = run.folder / "checkpoints/best"
    network, info = load_model(best, torch.device("cpu"))
    dataset = open_dataset(prepared, info.modalities, classes=info.classes)
    rows = read_part(best / "split.csv", "val", dataset.labels)
    again = validation_metrics(predict(network, dataset.store, rows, 64), dataset.labels.subset(rows), info.trained).with_prefix(
        "val"
    )
    assert again.values["val/identity/auc"] == pytest.approx(result.metrics.values["val/identity/auc"], abs=1e-6)


def test_the_resolved_settings_reproduce_the_weights(trained, tmp_path):
    from fr_ps.arguments import training_config
    from fr_ps.cli import parse_command_line

    _, run, _ = trained
    config = training_config(parse_command_line(["train", "--config", str(run.folder / "config.yaml")])["train"])
    _, again, _ = run_training(config, tmp_path / "again")
    first = (run.folder / "checkpoints/last/model.safetensors").read_bytes()
    assert (again.folder / "checkpoints/last/model.safetensors").read_bytes() == first


def test_another_seed_trains_other_weights(trained, tmp_path, prepared):
    _, run, _ = trained
    config = small_config(prepared, seed=1, epochs=1)
    config = replace(config, data=replace(config.data, val_people=0))
    _, other, _ = run_training(config, tmp_path / "other")
    assert (other.folder / "checkpoints/last/model.safetensors").read_bytes() != (
        run.folder / "checkpoints/last/model.safetensors"
    ).read_bytes()


def test_without_validation_and_test_all_subjects_are_trained_on_and_the_last_epoch_is_the_best(prepared, tmp_path):
    config = small_config(prepared)
    config = replace(config, data=replace(config.data, val_people=0, test_people=0))
    result, run, _ = run_training(config, tmp_path / "all")
    assert not read_split(run.folder)["val"] | read_split(run.folder)["test"]
    assert result.best_epoch == result.epochs_trained == 2
    assert result.metrics.values == {}
    last, best = (run.folder / f"checkpoints/{name}/model.safetensors" for name in ("last", "best"))
    assert last.read_bytes() == best.read_bytes()


def test_folds_test_every_subject_once(prepared, tmp_path):
    tested: list[str] = []
    for fold in range(3):
        config = small_config(prepared, epochs=1)
        config = replace(config, data=replace(config.data, val_people=0, folds=3, fold=fold))
        _, run, _ = run_training(config, tmp_path / str(fold))
        tested += sorted({person for person, _ in read_split(run.folder)["test"]})
    with (prepared / "labels.csv").open() as file:
        assert sorted(tested) == sorted({row["id"] for row in csv.DictReader(file)})


def test_early_stopping_ends_after_the_patience(prepared, tmp_path):
    config = small_config(prepared, epochs=6, patience=1)
    # Without learning nothing gets better after the first epoch.
    config = replace(config, data=replace(config.data, val_people=2), optim=OptimConfig(lr=1e-12, weight_decay=0))
    result, _, lines = run_training(config, tmp_path / "stopped")
    assert result.epochs_trained < 6
    assert any("early stopping" in line for line in lines)


def test_a_training_killed_while_it_reads_its_data_is_resumed_without_its_id(prepared, tmp_path, monkeypatch):
    new_run_info("one", "a name").write(tmp_path / "one")
    run = RecordingRun(tmp_path / "one")
    monkeypatch.setattr("fr_ps.training.train.prepare_training", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        fit(small_config(prepared), run, lambda _: None)
    run.set_status("KILLED")
    run.journal.close()
    assert find_resumable_run("", tmp_path) == tmp_path / "one"


def test_a_schedule_that_would_rise_is_rejected_before_the_run(prepared, rejected):
    config = replace(small_config(prepared), schedule=ScheduleConfig(name="cosine", lowest=0.5))
    with rejected("schedule.lowest is 0.5; expected at most optim.lr"):
        prepare_training(config, lambda _: None)


def test_the_selected_metric_is_checked_once_and_not_on_resume(prepared, rejected):
    config = small_config(prepared, select="val/identity/aucc")
    found = prepare_training(config, lambda _: None)
    with rejected("train.select is 'val/identity/aucc'; expected one of"):
        check_selected_metrics(found)
    check_selected_metrics(replace(found, has_checkpoint=True))


def test_fit_trains_the_same_weights_without_test_and_report(trained, prepared, tmp_path):
    result, run, _ = trained
    seen: list[tuple[int, float | None]] = []
    half = RecordingRun(tmp_path / "half")

    def on_epoch(epoch: int, found: Metrics) -> None:
        seen.append((epoch, found.values["val/identity/auc"]))

    fitted = fit(small_config(prepared), half, lambda _: None, on_epoch=on_epoch)
    assert [epoch for epoch, _ in seen] == [1, 2]
    assert dict(seen) == half.metric_history["val/identity/auc"] == run.metric_history["val/identity/auc"]
    assert fitted.state.best_epoch == result.best_epoch
    assert fitted.state.best_metrics.values == {name: x for name, x in result.metrics.values.items() if name.startswith("val/")}
    assert not (half.folder / "report").exists()
    assert not [name for name in half.metric_history if name.startswith("test/")]
    weights = [(one.folder / "checkpoints/best/model.safetensors").read_bytes() for one in (run, half)]
    assert weights[0] == weights[1]


def test_the_callback_can_end_a_training_and_a_resumed_one_calls_it_for_the_remaining_epochs(prepared, tmp_path):
    class Enough(Exception):
        pass

    seen: list[int] = []

    def end_after_two(epoch: int, _: Metrics) -> None:
        seen.append(epoch)
        if epoch == 2:
            raise Enough

    config = small_config(prepared, epochs=4)
    with pytest.raises(Enough):
        fit(config, RecordingRun(tmp_path / "run"), lambda _: None, on_epoch=end_after_two)
    assert (tmp_path / "run/checkpoints/resume").is_dir()
    fitted = fit(config, RecordingRun(tmp_path / "run"), lambda _: None, on_epoch=lambda epoch, _: seen.append(epoch))
    assert seen == [1, 2, 3, 4]
    assert fitted.state.epoch == 4
    # Once more, there is nothing left to train, and the result is the same at once.
    again = fit(config, RecordingRun(tmp_path / "run"), lambda _: None, on_epoch=lambda epoch, _: seen.append(epoch))
    assert seen == [1, 2, 3, 4]
    assert again.state.best_metrics.values == fitted.state.best_metrics.values


def test_a_diverged_training_ends_with_a_reason(prepared, tmp_path):
    config = small_config(prepared, epochs=3)
    config = replace(config, optim=OptimConfig(name="sgd", lr=1000, clip=0))
    with pytest.raises(DivergedError, match=r"NaN or infinite.*lower optim\.lr \(now 1000\)$"):
        run_training(config, tmp_path / "diverged")


def test_an_unknown_metric_to_select_on_lists_the_choices(prepared, tmp_path):
    with pytest.raises(InputError, match="val/identity/eer"):
        run_training(replace(small_config(prepared, select="val/identity/acc")), tmp_path / "unknown")


def test_one_validation_subject_cannot_be_selected_on_by_auc(prepared, tmp_path):
    config = small_config(prepared)
    config = replace(config, data=replace(config.data, val_people=1))
    with pytest.raises(InputError, match="only one subject"):
        run_training(config, tmp_path / "one")


def test_an_attribute_of_one_class_in_training_is_not_trained_and_undefined(prepared, tmp_path):
    root = relabelled(
        prepared, tmp_path / "data", lambda column, values: ["no"] * len(values) if column == "Spectacles" else values
    )
    result, run, lines = run_training(small_config(root, epochs=1), tmp_path / "run")
    assert "spectacles" not in read_info(run.folder / "checkpoints/best").trained
    assert result.metrics.values["test/spectacles/auc"] is None
    assert "not trained" in result.metrics.reasons["test/spectacles/auc"]
    assert not [name for name, _, _ in run.points if "spectacles" in name]
    assert any(line.startswith("spectacles: not trained") for line in lines)


def test_missing_labels_of_everything_train_identity_alone(prepared, tmp_path):
    root = relabelled(prepared, tmp_path / "data", lambda column, values: [""] * len(values))
    result, run, _ = run_training(small_config(root, epochs=1), tmp_path / "run")
    assert result.metrics.values["test/identity/auc"] is not None
    assert {name for name, _, _ in run.points if name.startswith("train/loss/")} == {"train/loss/total", "train/loss/identity"}


def relabelled(source: Path, target: Path, change) -> Path:
    """The prepared data set `source` with its label columns changed; the maps are shared."""
    target.mkdir()
    (target / "data").symlink_to(source / "data")
    with (source / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    for column in COLUMNS.values():
        for row, value in zip(rows, change(column, [row[column] for row in rows])):
            row[column] = value
    with (target / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return target


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    write_synthetic_captures(folder / "raw", people=24, sessions=6, seed=0, size=64)
    prepare(
        PrepareConfig(
            captures=str(folder / "raw/captures"), labels=str(folder / "raw/labels.csv"), out=str(folder / "set"), size=64
        )
    )
    return folder / "set"


def mean_attribute_auc(root: Path, folder: Path) -> float:
    config = Config(
        data=DataConfig(root=str(root), modalities=("normal",), val_people=0, test_people=10),
        augment=AugmentConfig(rotation=0, noise=0),
        batch=BatchConfig(people=7, sessions=3),
        model=ModelConfig(backbone="timm:test_resnet", channels=64, reduction=16),
        synthetic=SyntheticConfig(),
        train=TrainConfig(epochs=14),
    )
    result, _, _ = run_training(config, folder)
    return float(np.mean([result.metrics.values[f"test/{attribute}/auc"] for attribute in ATTRIBUTES]))


def test_true_labels_generalise_to_unseen_subjects_and_shuffled_ones_do_not(faces, tmp_path):
    rng = np.random.default_rng(0)
    shuffled = relabelled(faces, tmp_path / "shuffled", lambda column, values: rng.permutation(values).tolist())
    assert mean_attribute_auc(faces, tmp_path / "true") > 0.75
    assert 0.4 < mean_attribute_auc(shuffled, tmp_path / "random") < 0.6


@pytest.mark.parametrize(
    "settings",
    [
        {"fsm": False},
        {"adversaries": "off", "attribute_channels": 8},
        {"adversaries": "identity", "order": ("gender", "pose", "emotion", "facial_hair", "spectacles")},
    ],
    ids=str,
)
def test_every_form_of_the_network_trains_and_is_loaded(prepared, tmp_path, settings):
    config = small_config(prepared, epochs=1)
    config = replace(config, model=replace(config.model, **settings), loss=replace(config.loss, reversal_ramp=True))
    result, run, _ = run_training(config, tmp_path / "run")
    assert result.metrics.values["test/identity/auc"] is not None
    assert read_info(run.folder / "checkpoints" / "best").branches == {"albedo": config.model}
    adversarial = {name for name, _, _ in run.points if name.startswith("train/loss/adversarial")}
    assert bool(adversarial) == (settings.get("adversaries") == "identity")
    assert (run.folder / "report" / "adversarial.png").is_file() == bool(adversarial)


def test_a_training_starts_from_the_weights_of_another_and_reports_the_matched_tensors(trained, prepared, tmp_path):
    file = trained[1].folder / "checkpoints" / "best" / "model.safetensors"
    config = small_config(prepared, epochs=1)
    still = replace(config, model=replace(config.model, weights=str(file)), optim=OptimConfig(lr=1e-12, weight_decay=0))
    _, run, lines = run_training(still, tmp_path / "run")
    (line,) = [line for line in lines if line.startswith("weights: ")]
    assert "0 missing in the file, 0 unexpected in it, 0 of another shape" in line
    before, _ = load_model(file.parent, torch.device("cpu"))
    after, _ = load_model(run.folder / "checkpoints" / "best", torch.device("cpu"))
    for ours, theirs in zip(after.branches.parameters(), before.branches.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert yaml.safe_load((run.folder / "config.yaml").read_text())["model"]["weights"] == str(file.resolve())


def test_maps_too_small_for_the_backbone_are_rejected_before_the_first_step(tmp_path):
    write_synthetic_captures(tmp_path / "raw", people=6, sessions=2, seed=0, size=32)
    out = tmp_path / "set"
    prepare(
        PrepareConfig(captures=str(tmp_path / "raw/captures"), out=str(out), labels=str(tmp_path / "raw/labels.csv"), size=24)
    )
    with pytest.raises(InputError, match="24 px"):
        run_training(replace(small_config(out), model=ModelConfig(backbone="convnextv2_atto")), tmp_path / "run")


def fused(root: Path, modalities: tuple[str, ...], name: str, dropout: float, joint: str = "off") -> Config:
    config = small_config(root, epochs=1)
    config = replace(config, data=replace(config.data, modalities=modalities))
    return replace(config, fusion=FusionConfig(name=name, dropout=dropout, joint=joint))


TWO, THREE = ("albedo", "normal"), ("depth", "albedo", "normal")
ONLY = {
    TWO: {"only_albedo", "only_normal"},
    THREE: {"only_albedo", "only_normal", "only_depth", "only_depth_albedo", "only_depth_normal", "only_albedo_normal"},
}


@pytest.mark.parametrize(
    ("name", "modalities", "dropout", "joint"),
    [
        ("concat", TWO, 0.0, "off"),
        ("concat", THREE, 0.5, "off"),
        ("fc", TWO, 0.5, "off"),
        ("gated", THREE, 0.5, "off"),
        ("score", TWO, 0.0, "off"),
        ("concat", TWO, 0.5, "only"),
        ("score", TWO, 0.5, "also"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else str(value),
)
def test_every_fusion_trains_and_evaluate_repeats_the_metrics_of_its_report(prepared, tmp_path, name, modalities, dropout, joint):
    result, run, _ = run_training(fused(prepared, modalities, name, dropout, joint), tmp_path / "run")
    best = run.folder / "checkpoints" / "best"
    assert read_info(best).modalities == modalities
    assert read_info(best).fusion == name
    for part, more in (("val", set()), ("test", {"quality", "groups", "probe"})):
        groups = {metric.split("/")[1] for metric in result.metrics.values if metric.startswith(f"{part}/")}
        assert groups == {"identity", *ATTRIBUTES} | ONLY[modalities] | more
    assert "train/loss/adversarial_pose" in {point for point, _, _ in run.points}
    reported = json.loads((run.folder / "report" / "metrics.json").read_text())["metrics"]
    assert {"val/only_albedo/identity/auc", "test/only_albedo/identity/auc"} <= reported.keys()
    asked = EvaluationOptions("test")
    out = tmp_path / "out"
    inputs = open_inputs(best, prepared, asked, torch.device("cpu"))
    again = evaluate_model(inputs, out, Run(tmp_path), batch=64).metrics
    tested = {metric: value for metric, value in result.metrics.values.items() if metric.startswith("test/")}
    assert again.values.keys() == tested.keys()
    for metric, value in tested.items():
        assert again.values[metric] == (value if value is None else pytest.approx(value, abs=1e-6)), metric
    written = json.loads((run.folder / "report/metrics.json").read_text())
    assert written["metrics"] == result.metrics.values
    assert "Modality subsets" in (run.folder / "report/report.html").read_text()
    label = {"off": name, "only": "joint", "also": f"{name}+joint"}[joint]
    assert f"({label})" in (run.folder / "report/report.html").read_text()


def test_only_modality_dropout_changes_the_learnt_weights(prepared, tmp_path):
    weights = [
        run_training(fused(prepared, TWO, "concat", dropout), tmp_path / str(number))[1].folder
        for number, dropout in enumerate((0.5, 0.5, 0.0))
    ]
    first, second, without = ((folder / "checkpoints/last/model.safetensors").read_bytes() for folder in weights)
    assert first == second
    assert first != without


def test_one_modality_has_no_metrics_of_fewer_maps(trained):
    assert not [name for name in trained[0].metrics.values if "only_" in name]
    assert "Modality subsets" not in (trained[1].folder / "report/report.html").read_text()


def test_too_little_memory_of_the_device_names_the_settings_to_lower(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(Trainer, "train_step", fail)
    words = "cpu has too little memory.*lower batch.people or batch.sessions.*train.accumulate"
    with pytest.raises(OutOfMemoryError, match=words):
        run_training(small_config(prepared), tmp_path / "run")
