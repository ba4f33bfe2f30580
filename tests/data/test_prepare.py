"""From captures to a prepared data set: right, whole, and done once."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fr_ps.config import PrepareConfig
from fr_ps.data.prepare import Outcome, prepare
from fr_ps.data.synthetic import write_captures
from fr_ps.errors import InputError

from ..photometric.surfaces import FOUR, render, sphere, to_8_bit


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    write_captures(folder, people=3, sessions=3, seed=0, size=40)
    return folder


@pytest.fixture
def raw(faces: Path, tmp_path: Path) -> Path:
    return shutil.copytree(faces, tmp_path / "raw")


def run(raw: Path, out: Path, **settings) -> list[Outcome]:
    chosen = {"captures": str(raw / "captures"), "labels": str(raw / "labels.csv"), "out": str(out), "size": 32} | settings
    return prepare(PrepareConfig(**chosen))


def content(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.suffix in (".npy", ".csv")}


def statuses(outcomes: list[Outcome]) -> dict[str, int]:
    return {status: sum(outcome.status == status for outcome in outcomes) for status in ("written", "kept", "skipped")}


def whole_sessions(out: Path) -> int:
    folders = [folder for folder in (out / "data").glob("*/*") if not folder.name.startswith(".")]
    for folder in folders:
        assert {path.name for path in folder.iterdir()} == {"albedo.npy", "normal.npy", "depth.npy", "prepared.json"}
        assert np.load(folder / "normal.npy").shape == (32, 32, 3)
    return len(folders)


def test_a_sphere_comes_out_as_a_sphere(tmp_path, write_capture):
    """Normals within 0.5 degrees, depth within 2 % of the radius, from 8-bit pictures to the files."""
    normal, depth, radius = sphere(64)
    write_capture(tmp_path / "captures/a/s", to_8_bit(0.9 * render(normal, FOUR)), FOUR)
    prepare(PrepareConfig(captures=str(tmp_path / "captures"), out=str(tmp_path / "out"), size=64))
    folder = tmp_path / "out/data/a/s"
    got = np.load(folder / "normal.npy")
    degrees = np.degrees(np.arccos(np.clip((got * normal).sum(axis=-1), -1, 1)))
    assert degrees.mean() < 0.5
    assert np.abs(np.load(folder / "depth.npy") - depth).max() < 0.02 * radius
    np.testing.assert_allclose(np.load(folder / "albedo.npy"), 0.9, rtol=0.02)
    for name, shape in (("albedo", (64, 64)), ("depth", (64, 64)), ("normal", (64, 64, 3))):
        array = np.load(folder / f"{name}.npy")
        assert (array.dtype, array.shape) == (np.float32, shape)


def test_labels_are_copied_with_all_their_columns(raw, tmp_path):
    text = (raw / "labels.csv").read_text().splitlines()
    (raw / "labels.csv").write_text(
        "\n".join([f"{line},{'Quality' if number == 0 else 'ok'}" for number, line in enumerate(text)])
    )
    assert statuses(run(raw, tmp_path / "out")) == {"written": 9, "kept": 0, "skipped": 0}
    with (tmp_path / "out/labels.csv").open() as file:
        written = list(csv.DictReader(file))
    with (raw / "labels.csv").open() as file:
        assert written == list(csv.DictReader(file))


def test_without_labels_every_attribute_is_empty(raw, tmp_path):
    run(raw, tmp_path / "out", labels=None)
    with (tmp_path / "out/labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    assert {row[name] for row in rows for name in ("Gender", "Spectacles", "Facial_Hair", "Pose", "Emotion")} == {""}


def test_running_again_keeps_what_is_there_and_redoes_what_changed(raw, tmp_path):
    out = tmp_path / "out"
    run(raw, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.npy")}
    assert statuses(run(raw, out)) == {"written": 0, "kept": 9, "skipped": 0}
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.npy")} == before
    shutil.copy(raw / "captures/S000/s00/im0.png", raw / "captures/S001/s01/im0.png")
    assert statuses(run(raw, out)) == {"written": 1, "kept": 8, "skipped": 0}
    assert statuses(run(raw, out, fit="pad")) == {"written": 9, "kept": 0, "skipped": 0}
    assert whole_sessions(out) == 9


def test_a_bad_session_ends_it_and_nothing_before_is_lost(raw, tmp_path, refused):
    out = tmp_path / "out"
    bad = raw / "captures/S001/s01/im2.png"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:200])
    with refused(bad, "S001/s01", "--on-bad skip"):
        run(raw, out)
    assert whole_sessions(out) == 4
    assert not (out / "labels.csv").exists()
    bad.write_bytes(whole)
    assert statuses(run(raw, out)) == {"written": 5, "kept": 4, "skipped": 0}
    run(raw, tmp_path / "at once")
    maps = {name: data for name, data in content(out).items() if name != "prepare.csv"}
    assert maps == {name: data for name, data in content(tmp_path / "at once").items() if name != "prepare.csv"}


def test_skipping_lists_every_bad_session_and_leaves_it_out_of_the_table(raw, tmp_path):
    (raw / "captures/S001/s01/im2.png").write_bytes(b"no picture")
    shutil.rmtree(raw / "captures/S002/s02")
    lines = (raw / "labels.csv").read_text().splitlines()
    (raw / "labels.csv").write_text("\n".join(line for line in lines if not line.startswith("S000,s00")))
    outcomes = run(raw, tmp_path / "out", on_bad="skip")
    skipped = {(outcome.id, outcome.session): outcome.reason for outcome in outcomes if outcome.status == "skipped"}
    assert set(skipped) == {("S000", "s00"), ("S001", "s01"), ("S002", "s02")}
    assert "im2.png" in skipped["S001", "s01"]
    assert "no capture" in skipped["S002", "s02"]
    assert "no row" in skipped["S000", "s00"]
    with (tmp_path / "out/labels.csv").open() as file:
        assert {(row["id"], row["session"]) for row in csv.DictReader(file)}.isdisjoint(skipped)
    with (tmp_path / "out/prepare.csv").open() as file:
        assert [tuple(row.values()) for row in csv.DictReader(file)] == [tuple(vars(outcome).values()) for outcome in outcomes]
    assert whole_sessions(tmp_path / "out") == 6


def test_a_row_without_a_capture_is_refused_before_anything_is_written(raw, tmp_path, refused):
    shutil.rmtree(raw / "captures/S002")
    with refused("labels.csv", "S002/s00", "3 such rows"):
        run(raw, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_when_every_session_is_bad_there_is_no_data_set(raw, tmp_path):
    for path in raw.rglob("im1.png"):
        path.unlink()
    with pytest.raises(InputError, match="no session could be prepared"):
        run(raw, tmp_path / "out", on_bad="skip")
    assert not (tmp_path / "out/labels.csv").exists()


def test_two_workers_write_what_one_writes(raw, tmp_path):
    run(raw, tmp_path / "one")
    run(raw, tmp_path / "two", workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_after_a_kill_in_the_middle_running_again_completes_it(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    write_captures(raw, people=30, sessions=5, seed=0, size=40)
    code = "import sys; from fr_ps.cli import main; sys.exit(main())"
    command = [
        sys.executable,
        "-c",
        code,
        "prepare",
        f"--captures={raw}/captures",
        f"--labels={raw}/labels.csv",
        f"--out={out}",
        "--size=32",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(out.glob("data/*/[!.]*/depth.npy"))) < 20 and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = whole_sessions(out)
    assert 20 <= done < 150, "killed in the middle"
    assert not (out / "labels.csv").exists()
    assert statuses(run(raw, out)) == {"written": 150 - done, "kept": done, "skipped": 0}
    run(raw, tmp_path / "at once")
    again, once = (
        {name: data for name, data in content(folder).items() if "/." not in name and name != "prepare.csv"}
        for folder in (out, tmp_path / "at once")
    )
    assert again == once
