"""Checkpoints on a real disk, whole, damaged and too large for it."""

import hashlib
import json
import pickle
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fr_ps.errors import InputError
from fr_ps.files import atomic_folder
from fr_ps.models.folder import write_tensors
from fr_ps.tracking.layout import RESUME_CHECKPOINTS
from fr_ps.training.checkpoint import CheckpointWriter, CorruptCheckpoint, latest_name, load_latest, read_checkpoint
from fr_ps.training.train_state import CheckpointData


def snapshot(number: int, size: int = 4) -> CheckpointData:
    model = {"a.weight": torch.full((size, 2), float(number)), "a.steps": torch.tensor(number)}
    return CheckpointData(
        model, {"optimizer.0.step": torch.tensor(float(number)), "rng.cpu": torch.get_rng_state()}, values(number)
    )


def values(epoch: int) -> dict[str, Any]:
    """As of a training with one batch an epoch."""
    state = json.loads((Path(__file__).parents[1] / "old_files" / "state.json").read_text())
    del state["format"]
    return state | {"epoch": epoch}


def save_model(folder: Path, tensors: dict[str, Tensor]) -> None:
    with atomic_folder(folder) as temporary:
        write_tensors(temporary / "model.safetensors", tensors)
        (temporary / "model.json").write_text("{}")


def write(run: Path, *numbers: int, size: int = 4) -> None:
    writer = CheckpointWriter(run, save_model)
    try:
        for number in numbers:
            writer.write(snapshot(number, size), lambda model: None)
        writer.wait()
    finally:
        writer.close()


def same(first: CheckpointData, second: CheckpointData) -> bool:
    return first.values == second.values and all(
        mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
        for mine, theirs in ((first.model, second.model), (first.tensors, second.tensors))
    )


def test_what_is_written_comes_back(tmp_path):
    write(tmp_path, 7)
    found = load_latest(tmp_path, pytest.fail)
    assert found is not None
    where, again = found
    assert where == tmp_path / RESUME_CHECKPOINTS / "000001"
    assert same(again, snapshot(7))
    assert not list(tmp_path.rglob(".partial-*"))


def test_the_sums_are_those_of_the_tool_that_everybody_has(tmp_path):
    write(tmp_path, 7)
    done = subprocess.run(
        ["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path / RESUME_CHECKPOINTS / "000001", capture_output=True, text=True
    )
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 4


def test_the_last_two_are_kept_and_the_newest_is_taken(tmp_path):
    write(tmp_path, 5, 6, 7)
    assert sorted(path.name for path in (tmp_path / RESUME_CHECKPOINTS).iterdir()) == ["000002", "000003"]
    found = load_latest(tmp_path, pytest.fail)
    assert found is not None
    assert found[1].values == values(7)
    assert latest_name(tmp_path) == str(tmp_path / RESUME_CHECKPOINTS / "000003")


def test_there_is_none_in_a_new_run(tmp_path):
    assert load_latest(tmp_path, pytest.fail) is None
    assert latest_name(tmp_path) == "none"


@pytest.mark.parametrize(
    "file", ["state.json", "training.safetensors", "model/model.safetensors", "model/model.json", "SHA256SUMS"]
)
@pytest.mark.parametrize("how", ["truncated", "a bit", "gone", "pickle"])
def test_a_damaged_one_is_put_aside_for_the_one_before(tmp_path, file, how):
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
    assert same(found[1], snapshot(1))
    (line,) = lines
    assert "000002" in line
    assert "going on from the one before, 000001" in line
    after = {one: one.read_bytes() for one in (tmp_path / RESUME_CHECKPOINTS).rglob("*") if one.is_file()}
    assert sorted(after.values()) == sorted(before.values())  # put aside, not overwritten
    write(tmp_path, 9)
    assert latest_name(tmp_path).endswith("000003")  # nor by what comes


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_bit_anywhere_is_noticed(tmp_path, data):
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
    assert same(read_checkpoint(folder), snapshot(3))


class Bomb:
    """Runs something when it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


def test_a_pickle_with_a_right_checksum_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, 1)
    folder = tmp_path / RESUME_CHECKPOINTS / "000001"
    torch.save({"a": Bomb()}, folder / "training.safetensors")
    subprocess.run("sha256sum state.json training.safetensors model/* > SHA256SUMS", shell=True, cwd=folder, check=True)
    with pytest.raises(InputError, match=r"not a checkpoint .*no whole checkpoint is left"):
        load_latest(tmp_path, pytest.fail)
    assert not (tmp_path / "exploded").exists()


def test_where_all_are_damaged_nothing_is_moved_and_it_says_so(tmp_path):
    write(tmp_path, 1, 2)
    for name in ("000001", "000002"):
        (tmp_path / RESUME_CHECKPOINTS / name / "state.json").write_text("{")
    with pytest.raises(
        InputError, match=r"000002/state\.json: is not what was written .*no whole checkpoint is left.*; begin a new"
    ):
        load_latest(tmp_path, pytest.fail)
    assert sorted(path.name for path in (tmp_path / RESUME_CHECKPOINTS).iterdir()) == ["000001", "000002"]


def test_a_newer_format_is_refused_and_not_taken_for_damage(tmp_path):
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
    with pytest.raises(CorruptCheckpoint, match="no list of checksums"):
        read_checkpoint(sums.parent)


def test_remains_of_a_killed_writer_are_no_checkpoint(tmp_path):
    write(tmp_path, 1)
    shutil.copytree(tmp_path / RESUME_CHECKPOINTS / "000001", tmp_path / RESUME_CHECKPOINTS / ".partial-12345678-000002")
    found = load_latest(tmp_path, pytest.fail)
    assert found is not None
    assert found[0].name == "000001"
    assert not list((tmp_path / RESUME_CHECKPOINTS).glob(".partial-*"))


def test_weights_that_are_no_numbers_are_not_written(tmp_path):
    write(tmp_path, 1)
    bad = snapshot(2)
    bad.model["a.weight"][1, 1] = torch.inf
    writer = CheckpointWriter(tmp_path, save_model)
    writer.write(bad, lambda model: None)
    with pytest.raises(InputError, match=r"NaN or infinite .*the last good checkpoint is .*000001; lower optim\.lr"):
        writer.wait()
    writer.close()
    assert [path.name for path in (tmp_path / RESUME_CHECKPOINTS).iterdir()] == ["000001"]


def test_a_model_is_published_before_its_checkpoint_counts(tmp_path):
    seen = []
    writer = CheckpointWriter(tmp_path, save_model)
    writer.write(snapshot(1), lambda model: seen.append(((model / "model.safetensors").is_file(), latest_name(tmp_path))))
    writer.wait()
    writer.close()
    assert seen == [(True, "none")]


def test_space_is_asked_for_before_anything_is_written(small_disk):
    with pytest.raises(InputError, match=r"the disk has 0\.\d MB left, and 9\.\d MB are to be written"):
        write(small_disk, 1, size=1_000_000)
    assert list((small_disk / RESUME_CHECKPOINTS).iterdir()) == []


def test_a_disk_that_fills_up_on_the_way_leaves_the_earlier_one_whole(small_disk, monkeypatch):
    from fr_ps.training import checkpoint

    monkeypatch.setattr(checkpoint, "_DISK_RESERVE", 0)  # on 200 kB the spare megabyte would refuse everything
    write(small_disk, 1)
    before = {path: path.read_bytes() for path in small_disk.rglob("*") if path.is_file()}
    monkeypatch.setattr(checkpoint, "check_free_space", lambda folder, needed: None)  # as if others took the room afterwards
    with pytest.raises(InputError, match="the disk is full"):
        write(small_disk, 2, size=100_000)
    assert {path: path.read_bytes() for path in small_disk.rglob("*") if path.is_file()} == before
    found = load_latest(small_disk, pytest.fail)
    assert found is not None
    assert found[1].values == values(1)
