"""Runs that `train --resume` rejects with one line and exit code 2, and leaves unchanged."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from fr_ps.cli import main
from fr_ps.tracking.run_lock import run_lock
from tests.conftest import MakeStore

ErrorLine = Callable[..., str]
TRAIN = ("train", "--config", "config.yaml")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, prepared: Path, make_store: MakeStore) -> Path:
    """A folder with a finished training of one epoch, in `runs`."""
    folder = tmp_path_factory.mktemp("whole")
    make_store(folder)
    settings = {
        "data": {"root": str(prepared), "val_people": 2, "test_people": 1},
        "batch": {"people": 3, "sessions": 2},
        "model": {"backbone": "timm:test_resnet", "channels": 16, "reduction": 8},
        "train": {"epochs": 1, "threads": 1},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_TRACKING_URI"):
            patch.delenv(name, raising=False)
        assert main([*TRAIN]) == 0
    return folder


@pytest.fixture
def interrupted(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of that run as it is before its last event, in another working folder."""
    (source,) = (whole / "runs").iterdir()
    folder = tmp_path / "runs" / source.name
    shutil.copytree(source, folder)
    shutil.copy(whole / "config.yaml", tmp_path)
    journal = folder / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    assert "FINISHED" in lines[-1]
    journal.write_text("".join(lines[:-1]))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def error_line(capfd: pytest.CaptureFixture[str]) -> ErrorLine:
    def run(*arguments: str) -> str:
        capfd.readouterr()
        assert main([*arguments]) == 2
        (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
        return line

    return run


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "owner.lock"}


def test_a_finished_run_is_rejected(whole: Path, monkeypatch: pytest.MonkeyPatch, error_line: ErrorLine) -> None:
    monkeypatch.chdir(whole)
    (run,) = (whole / "runs").iterdir()
    assert "is finished" in error_line("train", "--resume", run.name)


@pytest.mark.parametrize("change", ["model.channels 32", "train.select val/identity/eer", "optim.name sgd", "loss.branches true"])
def test_a_changed_setting_that_defines_the_training_is_rejected(interrupted: Path, error_line: ErrorLine, change: str) -> None:
    name, value = change.split()
    before = content(interrupted)
    found = error_line("train", "--resume", interrupted.name, "--allow-changed", f"--{name}", value)
    assert f"cannot change {name}" in found
    assert "leave it out, or begin a new run" in found
    assert content(interrupted) == before


def test_other_settings_need_allow_changed(interrupted: Path, error_line: ErrorLine) -> None:
    resume = ("train", "--resume", interrupted.name)
    assert "optim.lr 0.001 -> 0.0005" in error_line(*resume, "--optim.lr", "0.0005")
    assert "own settings" in error_line(*resume, "--config", "config.yaml")
    assert "needs --resume" in error_line(*TRAIN, "--allow-changed")
    config = interrupted / "config.yaml"
    config.write_text(config.read_text().replace("  lr: 0.001", "  lr: 0.5"))
    line = error_line(*resume)
    assert "optim.lr 0.001 -> 0.5" in line
    assert "give --allow-changed to resume with them, or restore the former ones" in line


def test_a_setting_that_an_earlier_version_lacked_has_its_default(interrupted: Path, error_line: ErrorLine) -> None:
    for file in interrupted.rglob("config.yaml"):
        file.write_text(re.sub(r"  bad_steps: \d+\n", "", file.read_text()))
    found = error_line("train", "--resume", interrupted.name, "--train.seed", "1")
    assert "train.seed 0 -> 1" in found
    assert "bad_steps" not in found


def test_a_missing_or_locked_run_and_one_without_a_training_are_rejected(
    interrupted: Path, error_line: ErrorLine, capfd: pytest.CaptureFixture[str]
) -> None:
    assert "no such run under" in error_line("train", "--resume", "20200101-000000-abcdef")
    with run_lock(interrupted):
        assert f"process {os.getpid()} on " in error_line("train", "--resume", interrupted.name)
        assert main(["runs"]) == 0
        (line,) = [line for line in capfd.readouterr().out.splitlines() if interrupted.name in line]
        assert "RUNNING" in line
    (interrupted / "config.yaml").unlink()
    assert "not a training" in error_line("train", "--resume", interrupted.name)


def test_the_run_that_resume_without_an_id_finds_is_printed(interrupted: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--resume", "--optim.lr", "0.5"]) == 2
    assert f"resuming run {interrupted.name}\n" in capfd.readouterr().out


def test_a_run_in_a_read_only_folder_is_rejected_and_unchanged(interrupted: Path, error_line: ErrorLine) -> None:
    folder = interrupted.parent
    done = subprocess.run(["mount", "--bind", str(folder), str(folder)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"a bind mount is not permitted here: {done.stderr.decode().strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        before = content(folder)
        assert "cannot be written" in error_line("train", "--resume", interrupted.name)
        assert "cannot be written" in error_line(*TRAIN)
        assert content(folder) == before
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_several_processes_are_rejected(interrupted: Path, error_line: ErrorLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    before = sorted(interrupted.parent.iterdir())
    assert "WORLD_SIZE is 2" in error_line(*TRAIN)
    assert sorted(interrupted.parent.iterdir()) == before
