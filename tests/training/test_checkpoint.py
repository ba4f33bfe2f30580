"""Checkpoints on a real disk: intact, corrupt, and too large for it."""

import hashlib
import json
import pickle
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fr_ps.config import Config, LossConfig, ModelConfig, OptimConfig
from fr_ps.data.labels import ATTRIBUTES
from fr_ps.errors import InputError
from fr_ps.losses import build_losses
from fr_ps.models.folder import ModelInfo, read_info
from fr_ps.tracking.run_folder import RESUME_CHECKPOINTS
from fr_ps.training import checkpoint, checkpoint_manager
from fr_ps.training.checkpoint import CorruptCheckpoint, latest_checkpoint, load_latest, read_checkpoint
from fr_ps.training.checkpoint_manager import CheckpointManager
from fr_ps.training.divergence import NonFiniteGuard
from fr_ps.training.early_stopping import BestTracker
from fr_ps.training.optim import ModelEma, build_optimizer
from fr_ps.training.train_state import TrainState
from tests.models.small import CLASSES, make_network


def values(epoch: int) -> dict[str, Any]:
    """`state.json` of a training with one batch an epoch."""
    state = json.loads((Path(__file__).parents[1] / "old_files" / "state.json").read_text())
    del state["format"]
    return state | {"epoch": epoch}


def make_state(number: int, size: int = 4) -> dict[str, Any]:
    state = values(number)
    state["optimizer"]["0.step"] = torch.tensor(float(number))
    state["rng"]["cpu"] = torch.get_rng_state()
    model = {"a.weight": torch.full((size, 2), float(number)), "a.steps": torch.tensor(number)}
    return {"model": model} | state


INFO = ModelInfo({"albedo": ModelConfig()}, "concat", 48, {name: {"a": ["a"], "b": ["b"]} for name in ATTRIBUTES}, (), {})


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "write_config_and_split", lambda folder, setup: None)


def make_manager(folder: Path, synced: Callable[[], None] = lambda: None) -> Any:
    """A manager whose state is set by the test."""
    state = values(0)
    run: Any = SimpleNamespace(folder=folder, journal=SimpleNamespace(size=state["journal"], sync=synced))
    setup: Any = SimpleNamespace(config=Config(), info=INFO)
    return CheckpointManager(run, setup, cast(Any, SimpleNamespace()), state["surroundings"])


def write(folder: Path, *numbers: int, size: int = 4) -> None:
    with make_manager(folder) as manager:
        for number in numbers:
            manager.state.state_dict = partial(make_state, number, size)
            manager.save()


def same(first: Any, second: Any) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[name], second[name]) for name in first)
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


def test_a_checkpoint_is_read_back_as_written(tmp_path):
    write(tmp_path, 7)
    found = load_latest(tmp_path, pytest.fail)
    assert found is not None
    where, again = found
    assert where == tmp_path / RESUME_CHECKPOINTS / "000001"
    assert same(again, make_state(7))
    assert not list(tmp_path.rglob(".partial-*"))


def test_the_checksums_are_those_of_sha256sum(tmp_path):
    write(tmp_path, 7)
    done = subprocess.run(
        ["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path / RESUME_CHECKPOINTS / "000001", capture_output=True, text=True
    )
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 4


def test_the_last_two_checkpoints_are_kept_and_the_newest_is_loaded(tmp_path):
    write(tmp_path, 5, 6, 7)
    assert sorted(path.name for path in (tmp_path / RESUME_CHECKPOINTS).iterdir()) == ["000002", "000003"]
    found = load_latest(tmp_path, pytest.fail)
    assert found is not None
    assert same(found[1], make_state(7))
    assert latest_checkpoint(tmp_path) == str(tmp_path / RESUME_CHECKPOINTS / "000003")


def test_a_new_run_has_no_checkpoint(tmp_path):
    assert load_latest(tmp_path, pytest.fail) is None
    assert latest_checkpoint(tmp_path) == "none"


@pytest.mark.parametrize(
    "file", ["state.json", "training.safetensors", "model/model.safetensors", "model/model.json", "SHA256SUMS"]
)
@pytest.mark.parametrize("how", ["truncated", "a bit", "gone", "pickle"])
def test_a_damaged_checkpoint_is_moved_and_the_previous_one_loaded(tmp_path, file, how):
    write(tmp_path, 1, 2)
    path = tmp_path / RESUME_CHECKPOINTS / "000002" / file
    content = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        changed = bytearray(content)
        changed[len(changed) // 2] ^= 1
        path.write_bytes({"truncated": content[:-3], "a bit": bytes(changed), "pickle": pickle.dumps({"a": 1})}[how])
    before = {one: one.read_bytes() for one in (tmp_path / RESUME_CHECKPOINTS).rglob("*") if one.is_file()}
    lines: list[str] = []
    found = load_latest(tmp_path, lines.append)
    assert found is not None
    assert found[0].name == "000001"
    assert same(found[1], make_state(1))
    (line,) = lines
    assert "000002" in line
    assert "resuming from the checkpoint before, 000001" in line
    after = {one: one.read_bytes() for one in (tmp_path / RESUME_CHECKPOINTS).rglob("*") if one.is_file()}
    assert sorted(after.values()) == sorted(before.values())  # renamed, not overwritten
    write(tmp_path, 9)
    assert latest_checkpoint(tmp_path).endswith("000003")  # nor by the next one


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_bit_is_detected(tmp_path, data):
    if not (tmp_path / RESUME_CHECKPOINTS).exists():
        write(tmp_path, 3)
    folder = tmp_path / RESUME_CHECKPOINTS / "000001"
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(files))
    content = path.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(changed))
    try:
        with pytest.raises(CorruptCheckpoint):
            read_checkpoint(folder)
    finally:
        path.write_bytes(content)
    assert same(read_checkpoint(folder), make_state(3))


def test_a_changed_newline_of_the_checksums_is_detected(tmp_path):
    write(tmp_path, 3)
    path = tmp_path / RESUME_CHECKPOINTS / "000001" / "SHA256SUMS"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\x0b", 1))
    with pytest.raises(CorruptCheckpoint):
        read_checkpoint(path.parent)


class Bomb:
    """Runs something when it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


def test_a_pickle_with_a_valid_checksum_is_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, 1)
    folder = tmp_path / RESUME_CHECKPOINTS / "000001"
    torch.save({"a": Bomb()}, folder / "training.safetensors")
    subprocess.run("sha256sum state.json training.safetensors model/* > SHA256SUMS", shell=True, cwd=folder, check=True)
    with pytest.raises(InputError, match=r"not a checkpoint .*has no intact checkpoint left"):
        load_latest(tmp_path, pytest.fail)
    assert not (tmp_path / "exploded").exists()


def test_with_all_checkpoints_damaged_none_is_moved_and_an_error_is_raised(tmp_path):
    write(tmp_path, 1, 2)
    for name in ("000001", "000002"):
        (tmp_path / RESUME_CHECKPOINTS / name / "state.json").write_text("{")
    with pytest.raises(
        InputError, match=r"000002/state\.json: its checksum differs .*has no intact checkpoint left; begin a new"
    ):
        load_latest(tmp_path, pytest.fail)
    assert sorted(path.name for path in (tmp_path / RESUME_CHECKPOINTS).iterdir()) == ["000001", "000002"]


def test_a_newer_format_is_rejected_and_does_not_count_as_damaged(tmp_path):
    write(tmp_path, 1, 2)
    folder = tmp_path / RESUME_CHECKPOINTS / "000002"
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | {"format": 99}))
    subprocess.run("sha256sum state.json training.safetensors model/* > SHA256SUMS", shell=True, cwd=folder, check=True)
    with pytest.raises(InputError, match="format 99 is newer"):
        load_latest(tmp_path, pytest.fail)


def test_a_list_of_sums_that_leaves_its_folder_is_not_followed(tmp_path):
    write(tmp_path, 1)
    (tmp_path / "secret").write_text("x")
    sums = tmp_path / RESUME_CHECKPOINTS / "000001" / "SHA256SUMS"
    sums.write_text(sums.read_text() + f"{hashlib.sha256(b'x').hexdigest()}  ../../../secret\n")
    with pytest.raises(CorruptCheckpoint, match="not a list of checksums"):
        read_checkpoint(sums.parent)


def test_temporary_files_of_a_killed_writer_are_not_a_checkpoint(tmp_path):
    write(tmp_path, 1)
    shutil.copytree(tmp_path / RESUME_CHECKPOINTS / "000001", tmp_path / RESUME_CHECKPOINTS / ".partial-12345678-000002")
    found = load_latest(tmp_path, pytest.fail)
    assert found is not None
    assert found[0].name == "000001"
    assert not list((tmp_path / RESUME_CHECKPOINTS).glob(".partial-*"))


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    write(tmp_path, 1)
    bad = make_state(2)
    bad["model"]["a.weight"][1, 1] = torch.inf
    manager = make_manager(tmp_path)
    manager.state.state_dict = lambda: bad
    manager.save()
    with pytest.raises(InputError, match=r"NaN or infinite.*the last good checkpoint is .*000001; lower optim\.lr"):
        manager.wait()
    assert [path.name for path in (tmp_path / RESUME_CHECKPOINTS).iterdir()] == ["000001"]


def test_journal_and_model_are_on_disk_before_their_checkpoint_appears(tmp_path):
    seen = []
    manager = make_manager(tmp_path, synced=lambda: seen.append(("journal", latest_checkpoint(tmp_path))))
    manager.state.state_dict = partial(make_state, 1)
    with pytest.MonkeyPatch.context() as patch, manager:
        copy = checkpoint_manager.copy_model

        def copied(source: Path, target: Path) -> None:
            copy(source, target)
            seen.append((target.name, latest_checkpoint(tmp_path)))

        patch.setattr(checkpoint_manager, "copy_model", copied)
        manager.save([tmp_path / "checkpoints" / "best"])
    assert seen == [("journal", "none"), ("best", "none")]
    assert (tmp_path / "checkpoints/best/model.safetensors").is_file()


def test_free_space_is_checked_before_anything_is_written(small_disk):
    with pytest.raises(InputError, match=r"9\.\d MB needed, but the disk has 0\.\d MB left"):
        write(small_disk, 1, size=1_000_000)
    assert list((small_disk / RESUME_CHECKPOINTS).iterdir()) == []


def test_a_disk_that_fills_up_during_a_write_leaves_the_previous_checkpoint_complete(small_disk, monkeypatch):
    monkeypatch.setattr(checkpoint_manager, "_DISK_RESERVE", 0)  # the reserve is larger than this disk of 200 kB
    write(small_disk, 1)
    before = {path: path.read_bytes() for path in small_disk.rglob("*") if path.is_file()}
    monkeypatch.setattr(
        checkpoint_manager, "check_free_space", lambda folder, needed: None
    )  # as if others took the room afterwards
    with pytest.raises(InputError, match="the disk is full"):
        write(small_disk, 2, size=100_000)
    assert {path: path.read_bytes() for path in small_disk.rglob("*") if path.is_file()} == before
    found = load_latest(small_disk, pytest.fail)
    assert found is not None
    assert same(found[1], make_state(1))


def test_a_checkpoint_of_version_0_1_loads_and_is_written_again_byte_for_byte(tmp_path):
    """`old_files/checkpoint` was written within an epoch by commit c38f007, with every section of a state.

    Only `model.json` grows, by the settings of a network that were added since.
    """
    old = Path(__file__).parents[1] / "old_files" / "checkpoint"
    saved = read_checkpoint(old)
    assert {"model", "network", "losses", "means", "rng", "optimizer"} <= saved.keys()
    network = make_network(channels=8, reduction=112)
    counts = {task: torch.full((count,), 6) for task, count in CLASSES.items()}
    config = LossConfig(weighting="uncertainty", identity_loss="adaface")
    losses = build_losses(config, network.embedding_size, torch.full((3,), 2), counts, network.adversarial_attributes)
    optimizer = build_optimizer(OptimConfig(), [network, losses.identity], losses.weighting)
    tracker = BestTracker("val/identity/auc", 3)
    guard = NonFiniteGuard([network, losses], 10)
    state = TrainState(network, losses, optimizer, ModelEma(network, 0.9), guard, {tracker.metric: tracker})
    state.load_state_dict(saved)
    assert (state.epoch, state.batch, state.sessions_seen, state.seconds) == (1, 2, 12, 1.0)
    assert (tracker.best, tracker.best_epoch, state.best_metrics.values["val/identity/eer"]) == (0.75, 1, 0.25)
    assert state.meter.counts["loss/total"] == 2
    again = state.state_dict() | {key: saved[key] for key in ("surroundings", "journal")}
    setup: Any = SimpleNamespace(config=Config(), info=read_info(old / "model"))
    checkpoint.write_checkpoint(tmp_path, again, setup)
    for file in ("state.json", "training.safetensors", "model/model.safetensors"):
        assert (tmp_path / file).read_bytes() == (old / file).read_bytes(), file
    before, after = (json.loads((folder / "model" / "model.json").read_text()) for folder in (old, tmp_path))
    assert_contains(after, before)


def assert_contains(value: Any, part: Any) -> None:
    """`value` equals `part`, up to further keys of its dictionaries."""
    if isinstance(part, dict):
        for key in part:
            assert_contains(value[key], part[key])
    else:
        assert value == part
