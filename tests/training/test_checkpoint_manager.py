"""Trainings that are interrupted somewhere and gone on with, in process, beside ones that are not."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fr_ps.config import Config, FusionConfig, LossConfig, ScheduleConfig
from fr_ps.errors import InputError
from fr_ps.tracking.run import Run
from fr_ps.training import checkpoint_manager
from fr_ps.training.batch_loader import BatchLoader
from fr_ps.training.checkpoint_manager import CheckpointManager
from fr_ps.training.train import train
from tests.training.runs import run_training, small_config

RESUME = Path("checkpoints") / "resume"
THREADS = Path("/proc/self/task")


class Interruption(Exception):
    """An unexpected error."""


def configured(prepared: Path, **settings) -> Config:
    config = small_config(prepared, epochs=3, ema=0.9, checkpoint_steps=1, watch=("val/identity/eer",), **settings)
    config = replace(config, data=replace(config.data, val_people=2, test_people=1))
    return replace(config, loss=LossConfig(weighting="pcgrad"))


def interrupted(config: Config, folder: Path, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train until so many batches were read."""
    read, batches = BatchLoader.load, []

    def batch(self, chosen, epoch, index):  # type: ignore[no-untyped-def]
        if len(batches) == after:
            raise Interruption
        batches.append(index)
        return read(self, chosen, epoch, index)

    with monkeypatch.context() as patch:
        patch.setattr(BatchLoader, "load", batch)
        with pytest.raises(Interruption):
            run_training(config, folder)


def weights(folder: Path) -> dict[str, bytes]:
    return {
        name: (folder / f"checkpoints/{name}/model.safetensors").read_bytes() for name in ("last", "best", "best_identity_eer")
    }


def curves(folder: Path) -> dict[str, dict[int, float]]:
    found = dict(Run(folder).metric_history)
    del found["train/images_per_second"]
    return found


def journal(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(prepared, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    run_training(configured(prepared), folder)
    return folder


def test_checkpoints_are_those_of_steps_epochs_and_watched_metrics(whole):
    assert len(list((whole / RESUME).iterdir())) == 2
    assert len(weights(whole)) == 3
    sent = {event["data"]["folder"] for event in journal(whole) if event["kind"] == "artifact"}
    assert {"checkpoints/last", "checkpoints/best", "checkpoints/best_identity_eer"} <= sent
    assert not [name for name in sent if "resume" in name]


@pytest.mark.parametrize("after", [1, 2, 3, 4, 5])
def test_a_resumed_training_equals_an_uninterrupted_one(whole, prepared, tmp_path, monkeypatch, after):
    """Two batches an epoch: the interruptions fall within epochs and at their ends."""
    folder = tmp_path / "run"
    interrupted(configured(prepared), folder, after, monkeypatch)
    _, _, lines = run_training(configured(prepared), folder)
    assert any(line.startswith("resuming from ") for line in lines)
    assert not any("can differ from an uninterrupted" in line for line in lines)
    assert weights(folder) == weights(whole)
    assert curves(folder) == curves(whole)
    steps = [point for event in journal(folder) if event["kind"] == "metrics" for point in _points(event)]
    assert len(steps) == len(set(steps))
    assert json.loads((folder / "report/metrics.json").read_text()) == json.loads((whole / "report/metrics.json").read_text())
    params = [name for event in journal(folder) if event["kind"] == "params" for name in event["data"]]
    assert len(params) == len(set(params))


def test_a_resumed_fusion_with_all_random_and_stateful_settings_is_bitwise_equal(prepared, tmp_path, monkeypatch):
    config = small_config(prepared, epochs=3, ema=0.9, checkpoint_steps=1, accumulate=2, watch=("val/identity/eer",))
    config = replace(
        config,
        data=replace(config.data, val_people=2, test_people=1, modalities=("albedo", "normal")),
        batch=replace(config.batch, people=1, balance="class", attribute="gender"),
        fusion=FusionConfig(name="gated", dropout=0.4),
        loss=LossConfig(weighting="upgrad", identity_loss="adaface", reversal_ramp=True),
        schedule=ScheduleConfig(name="cosine", restart_epochs=1.5),
    )
    run_training(config, tmp_path / "straight")
    interrupted(config, tmp_path / "run", 8, monkeypatch)
    _, _, lines = run_training(config, tmp_path / "run")
    assert any(line.startswith("resuming") and ", batch" in line for line in lines), [line for line in lines if "resum" in line]
    assert weights(tmp_path / "run") == weights(tmp_path / "straight")
    assert curves(tmp_path / "run") == curves(tmp_path / "straight")


def _points(event: dict) -> list[tuple[str, int]]:
    return [(name, event["data"]["step"]) for name in event["data"]["values"]]


def test_a_damaged_last_checkpoint_repeats_only_the_steps_since_the_previous_one(whole, prepared, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    interrupted(configured(prepared), folder, 5, monkeypatch)
    last = max((folder / RESUME).iterdir())
    content = bytearray((last / "training.safetensors").read_bytes())
    content[1000] ^= 4
    (last / "training.safetensors").write_bytes(bytes(content))
    _, _, lines = run_training(configured(prepared), folder)
    assert any("resuming from the checkpoint before" in line for line in lines)
    assert weights(folder) == weights(whole)
    assert curves(folder) == curves(whole)
    assert (last.with_name(f"{last.name}.damaged") / "training.safetensors").read_bytes() == bytes(content)


def test_resuming_without_a_checkpoint_restarts_and_keeps_the_logged_points(whole, prepared, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    config = configured(prepared)
    interrupted(config, folder, 5, monkeypatch)
    before = journal(folder)
    shutil.rmtree(folder / "checkpoints")
    _, _, lines = run_training(config, folder)
    assert any("no checkpoint yet" in line for line in lines)
    assert weights(folder) == weights(whole)
    assert curves(folder) == curves(whole)
    assert journal(folder)[: len(before)] == before


def test_a_run_killed_after_its_last_epoch_resumes_with_the_test(whole, prepared, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    from fr_ps.training import finalize

    def died(*_):  # type: ignore[no-untyped-def]
        raise Interruption

    with monkeypatch.context() as patch:
        patch.setattr(finalize, "evaluate_best", died)
        with pytest.raises(Interruption):
            run_training(configured(prepared), folder)
    result, _, lines = run_training(configured(prepared), folder)
    assert not any(line.startswith("epoch ") for line in lines)
    assert result.epochs_trained == 3
    assert curves(folder) == curves(whole)
    assert weights(folder) == weights(whole)


def test_a_signal_after_the_last_step_stops_before_the_test(whole, prepared, tmp_path, monkeypatch):
    from fr_ps.training import checkpoint_manager

    folder = tmp_path / "run"
    ended = checkpoint_manager.CheckpointManager.save_epoch

    def asked(self, better):  # type: ignore[no-untyped-def]
        ended(self, better)
        if self.state.epoch == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_manager.CheckpointManager, "save_epoch", asked)
        with pytest.raises(SystemExit):
            run_training(configured(prepared), folder)
    assert not (folder / "report").exists()
    run_training(configured(prepared), folder)
    assert weights(folder) == weights(whole)
    assert curves(folder) == curves(whole)


def test_a_resumed_training_continues_the_patience_count(prepared, tmp_path, monkeypatch):
    config = configured(prepared, patience=2)
    config = replace(config, train=replace(config.train, epochs=20))
    straight, _, _ = run_training(config, tmp_path / "straight")
    assert straight.epochs_trained < 20
    interrupted(config, tmp_path / "run", 2 * straight.epochs_trained - 1, monkeypatch)  # in the epoch that uses the patience up
    resumed, _, lines = run_training(config, tmp_path / "run")
    assert (resumed.epochs_trained, resumed.best_epoch) == (straight.epochs_trained, straight.best_epoch)
    assert any("early stopping: 2 epochs without a better" in line for line in lines)


def test_checkpoints_are_also_written_at_time_intervals(prepared, tmp_path, monkeypatch):
    for minutes, expected in ((1e-9, 6 + 3), (0.0, 3)):
        config = small_config(prepared, epochs=3, checkpoint_minutes=minutes)
        _, run, _ = run_training(config, tmp_path / str(minutes))
        assert int(max((run.folder / RESUME).iterdir()).name) == expected, minutes


def test_other_data_are_rejected_unless_changes_are_allowed(prepared, tmp_path, monkeypatch, rejected):
    root = tmp_path / "data"
    shutil.copytree(prepared, root)
    config = configured(root)
    interrupted(config, tmp_path / "run", 3, monkeypatch)
    table = (root / "labels.csv").read_text()
    (root / "labels.csv").write_text(table.replace(",yes,", ",no,", 1))
    with rejected(str(root), "the data changed", "--allow-changed"):
        run_training(config, tmp_path / "run")
    run, lines = Run(tmp_path / "run"), list[str]()
    train(config, run, lines.append, allow_changed=True)
    assert any(line.startswith("the result can differ from an uninterrupted training: data ") for line in lines)
    (tag,) = [event["data"] for event in journal(run.folder) if event["kind"] == "tags" and "fr_ps.resumed.1.1" in event["data"]]
    assert tag["fr_ps.resumed.1.1"].startswith("data ")


def test_another_precision_is_reported_and_checkpoints_without_one_are_of_float32(prepared, tmp_path, monkeypatch):
    """Checkpoints of earlier versions have no precision."""
    environment = checkpoint_manager.describe_environment
    with monkeypatch.context() as earlier:
        earlier.setattr(
            "fr_ps.training.train.describe_environment",
            lambda *arguments: {key: value for key, value in environment(*arguments).items() if key != "precision"},
        )
        for name in ("same", "other"):
            interrupted(configured(prepared), tmp_path / name, 3, monkeypatch)
    _, _, lines = run_training(configured(prepared), tmp_path / "same")
    assert not any("can differ from an uninterrupted" in line for line in lines)
    config = configured(prepared)
    _, _, lines = run_training(replace(config, train=replace(config.train, precision="bfloat16")), tmp_path / "other")
    assert any("can differ from an uninterrupted training: precision float32 -> bfloat16" in line for line in lines)


def test_another_number_of_threads_is_reported(prepared, tmp_path, monkeypatch):
    config = configured(prepared)
    interrupted(config, tmp_path / "run", 3, monkeypatch)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    _, _, lines = run_training(config, tmp_path / "run")
    assert any("can differ from an uninterrupted" in line and "threads" in line and "-> 77" in line for line in lines)


def test_another_architecture_is_rejected_even_where_changes_are_allowed(prepared, tmp_path, monkeypatch, rejected):
    config = configured(prepared)
    interrupted(config, tmp_path / "run", 3, monkeypatch)
    before = {path: path.read_bytes() for path in (tmp_path / "run/checkpoints").rglob("*") if path.is_file()}
    other = replace(config, model=replace(config.model, channels=24))
    with rejected("resume/0", "another architecture"):
        train(other, Run(tmp_path / "run"), lambda line: None, allow_changed=True)
    assert {path: path.read_bytes() for path in (tmp_path / "run/checkpoints").rglob("*") if path.is_file()} == before


def test_another_number_of_batches_restarts_the_epoch(prepared, tmp_path, monkeypatch):
    config = configured(prepared)
    interrupted(config, tmp_path / "run", 3, monkeypatch)
    other = replace(config, batch=replace(config.batch, people=2))
    lines: list[str] = []
    change = {"batch/people": "3 -> 2"}
    result = train(other, Run(tmp_path / "run"), lines.append, allow_changed=True, changed_settings=change)
    assert any("restarting the current epoch" in line for line in lines)
    tags = [event["data"] for event in journal(tmp_path / "run") if event["kind"] == "tags"]
    assert {"fr_ps.changed.batch/people": "3 -> 2"} in tags
    assert result.epochs_trained == 3


def test_a_full_disk_ends_the_training_with_the_previous_checkpoint_complete(whole, prepared, tmp_path, monkeypatch):
    from fr_ps.training import checkpoint_manager

    written = []

    def full(folder: Path, needed: int) -> None:
        if len(written) == 3:
            raise InputError(f"{folder}: the disk is full")
        written.append(needed)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_manager, "check_free_space", full)
        with pytest.raises(InputError, match="the disk is full"):
            run_training(configured(prepared), tmp_path / "run")
    _, _, lines = run_training(configured(prepared), tmp_path / "run")
    assert any(line.startswith("resuming from ") for line in lines)
    assert weights(tmp_path / "run") == weights(whole)


@pytest.mark.skipif(not THREADS.is_dir(), reason="the system has no /proc/self/task")
def test_writing_a_checkpoint_starts_no_threads_of_openmp(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More OpenMP threads than cores slow down every step after it."""
    write, started = CheckpointManager._write, []

    def count_threads(*arguments: Any) -> None:
        before = len(list(THREADS.iterdir()))
        write(*arguments)
        started.append(len(list(THREADS.iterdir())) - before)

    monkeypatch.setattr(CheckpointManager, "_write", count_threads)
    config, threads = small_config(prepared, epochs=1), torch.get_num_threads()
    try:
        run_training(replace(config, train=replace(config.train, threads=2)), tmp_path / "run")
    finally:
        torch.set_num_threads(threads)
    assert started == [0]
