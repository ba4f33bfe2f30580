"""From captures to a prepared data set: correct maps, complete sessions, no repeated work."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import IO, get_args

import numpy as np
import pytest
from PIL import Image

from fr_ps.cli import main
from fr_ps.config import LightAxes, PrepareConfig
from fr_ps.data import prepare_report
from fr_ps.data.preparation import capture_to_maps
from fr_ps.data.prepare import prepare
from fr_ps.data.prepare_report import SessionResult, orientation_warning, response_warning, summary_rows, white_level_warning
from fr_ps.errors import InputError
from fr_ps.photometric.align import landmark_error, landmark_frame
from fr_ps.photometric.captures import read_capture
from fr_ps.photometric.frame import Frame, fit_frame
from fr_ps.photometric.maps import compute_maps
from fr_ps.photometric.quality import MEASURES
from fr_ps.progress import OnProgress, no_progress
from fr_ps.synthetic.captures import write_synthetic_captures
from fr_ps.synthetic.scene import render_session
from fr_ps.synthetic.view import WIDE

from ..photometric.surfaces import FOUR, SEVEN, render, sphere, to_8_bit


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Captures in the layout of Photoface: whole heads, landmarks, attributes."""
    folder = tmp_path_factory.mktemp("heads")
    write_synthetic_captures(folder, people=3, sessions=3, seed=0, size=64, layout="photoface")
    return folder


@pytest.fixture
def photoface(heads: Path, tmp_path: Path) -> Path:
    return shutil.copytree(heads, tmp_path / "photoface")


def run_photoface(root: Path, out: Path, **settings) -> list[SessionResult]:
    return prepare(PrepareConfig(**{"captures": str(root), "out": str(out), "size": 32} | settings))


def record(out: Path, key: str) -> dict:
    return json.loads((out / "data" / key / "prepared.json").read_text())["done"]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def without_quality(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name: cell for name, cell in row.items() if not name.startswith("quality_")} for row in rows]


def skipped(outcomes: list[SessionResult]) -> dict[str, str]:
    return {f"{outcome.id}/{outcome.session}": outcome.reason for outcome in outcomes if outcome.status == "skipped"}


def keep_one_subject(raw: Path) -> None:
    """Remove all captures and labels except the three sessions of S002."""
    for subject in ("S000", "S001"):
        shutil.rmtree(raw / "captures" / subject)
    rows = [line for line in (raw / "labels.csv").read_text().splitlines() if line[:4] not in ("S000", "S001")]
    (raw / "labels.csv").write_text("\n".join(rows))


def run(raw: Path, out: Path, advance: OnProgress = no_progress, **settings) -> list[SessionResult]:
    chosen = {"captures": str(raw / "captures"), "labels": str(raw / "labels.csv"), "out": str(out), "size": 32} | settings
    return prepare(PrepareConfig(**chosen), advance)


def content(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.suffix in (".npy", ".csv")}


def statuses(outcomes: list[SessionResult]) -> dict[str, int]:
    return {status: sum(outcome.status == status for outcome in outcomes) for status in ("written", "kept", "skipped")}


def whole_sessions(out: Path) -> int:
    folders = [folder for folder in (out / "data").glob("*/*") if not folder.name.startswith(".")]
    for folder in folders:
        maps = {"albedo.npy", "normal.npy", "depth.npy", "confidence.npy"}
        assert {path.name for path in folder.iterdir()} == maps | {"pictures.npy", "prepared.json"}
        assert {name: np.load(folder / name).shape for name in maps} == dict.fromkeys(maps, (32, 32)) | {
            "normal.npy": (32, 32, 3)
        }
        assert json.loads((folder / "prepared.json").read_text())["done"]["quality"]
    return len(folders)


def test_a_sphere_is_reconstructed(tmp_path, write_capture):
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
    assert np.load(folder / "confidence.npy").min() > 0.9
    for name, shape in (("albedo", (64, 64)), ("depth", (64, 64)), ("normal", (64, 64, 3)), ("confidence", (64, 64))):
        array = np.load(folder / f"{name}.npy")
        assert (array.dtype, array.shape) == (np.float32, shape)


def test_lights_are_of_the_upright_picture(tmp_path, write_capture):
    """Pictures that are stored rotated by 90 degrees, with an orientation tag."""
    normal, _, _ = sphere(64)
    folder = tmp_path / "captures/a/s"
    write_capture(folder, to_8_bit(0.9 * render(normal, FOUR)), FOUR)
    for path in folder.glob("*.png"):
        with Image.open(path) as image:
            stored, exif = image.transpose(Image.Transpose.ROTATE_90), Image.Exif()
        exif[274] = 6
        stored.save(path, exif=exif)
    prepare(PrepareConfig(captures=str(tmp_path / "captures"), out=str(tmp_path / "out"), size=64))
    got = np.load(tmp_path / "out/data/a/s/normal.npy")
    assert np.degrees(np.arccos(np.clip((got * normal).sum(axis=-1), -1, 1))).mean() < 0.5


def test_12_bits_in_files_of_16_that_are_over_exposed_are_found_saturated(tmp_path, write_capture):
    normal, _, _ = sphere(64)
    stored = np.minimum(np.rint(1.1 * 4095 * render(normal, FOUR)), 4095).astype(np.uint16)
    write_capture(tmp_path / "captures/a/s", stored, FOUR)
    share = (stored == 4095).mean()
    assert 0.01 < share < 0.2
    scaled, saturated = [], []
    for level in (None, 4095):
        config = PrepareConfig(captures=str(tmp_path / "captures"), out=str(tmp_path / "out"), size=64, white_level=level)
        (outcome,) = prepare(config)
        scaled.append(np.load(tmp_path / "out/data/a/s/albedo.npy"))
        saturated.append(float(table(tmp_path / "out/labels.csv")[0]["quality_saturated"]))
        warning = white_level_warning([outcome])
        assert "set --white-level 4095," in warning if level is None else warning is None
    assert saturated == pytest.approx([share, share], abs=1e-5)
    np.testing.assert_allclose(scaled[1], scaled[0] * 65535 / 4095, rtol=1e-3)
    assert np.median(scaled[1]) == pytest.approx(1.1, abs=0.02)


@pytest.mark.parametrize("shift", [0, 4])
def test_12_bits_in_the_upper_or_lower_bits_of_16_get_the_advice(shift, tmp_path, write_capture):
    normal, _, _ = sphere(64)
    stored = np.minimum(np.rint(1.1 * 4095 * render(normal, FOUR)), 4095).astype(np.uint16)
    write_capture(tmp_path / "captures/a/s", stored << shift, FOUR)
    (outcome,) = prepare(PrepareConfig(captures=str(tmp_path / "captures"), out=str(tmp_path / "out"), size=64))
    assert f"set --white-level {4095 << shift}," in white_level_warning([outcome])
    if shift:  # the scale is right without it
        assert np.median(np.load(tmp_path / "out/data/a/s/albedo.npy")) == pytest.approx(1.1, abs=0.02)


def test_jpeg_files_taken_as_linear_get_a_warning(tmp_path, write_capture):
    normal, _, _ = sphere(64)
    folder = tmp_path / "captures/a/s"
    write_capture(folder, to_8_bit(0.9 * render(normal, FOUR)), FOUR)
    for response, warned in (("linear", True), ("srgb", False)):
        for path in folder.glob("*.png"):
            with Image.open(path) as image:
                image.save(path.with_suffix(".jpg"), quality=100)
            path.unlink()
        table_of_lights = folder / "lights.csv"
        table_of_lights.write_text(table_of_lights.read_text().replace(".png", ".jpg"))
        config = PrepareConfig(captures=str(tmp_path / "captures"), out=str(tmp_path / "out"), size=64, response=response)
        for _ in ("written", "kept"):
            warning = response_warning(prepare(config), response)
            assert ("--response srgb" in warning) if warned else warning is None


def test_labels_are_copied_with_all_their_columns(raw, tmp_path):
    text = (raw / "labels.csv").read_text().splitlines()
    (raw / "labels.csv").write_text(
        "\n".join([f"{line},{'Quality' if number == 0 else 'ok'}" for number, line in enumerate(text)])
    )
    assert statuses(run(raw, tmp_path / "out")) == {"written": 9, "kept": 0, "skipped": 0}
    written = table(tmp_path / "out/labels.csv")
    assert without_quality(written) == table(raw / "labels.csv")
    assert list(written[0])[-6:] == ["Quality", *(f"quality_{measure}" for measure in MEASURES)]


def test_the_table_contains_the_quality_of_each_session(raw, tmp_path):
    dimmed = raw / "captures/S001/s01/im2.png"
    with Image.open(dimmed) as image:
        image.point(lambda value: 0.4 * value).save(dimmed)
    run(raw, tmp_path / "out")
    rows = {f"{row['id']}/{row['session']}": row for row in table(tmp_path / "out/labels.csv")}
    for key, row in rows.items():
        quality = record(tmp_path / "out", key)["quality"]
        assert {measure: float(row[f"quality_{measure}"]) for measure in MEASURES} == pytest.approx(quality, abs=5.1e-6)
    assert max(rows, key=lambda key: float(rows[key]["quality_imbalance"])) == "S001/s01"


def test_quality_columns_of_the_table_are_replaced(raw, tmp_path):
    run(raw, tmp_path / "first")
    again = run(raw, tmp_path / "second", labels=str(tmp_path / "first/labels.csv"))
    assert statuses(again)["written"] == 9
    assert (tmp_path / "second/labels.csv").read_bytes() == (tmp_path / "first/labels.csv").read_bytes()


def test_without_labels_every_attribute_is_empty(raw, tmp_path):
    run(raw, tmp_path / "out", labels=None)
    rows = table(tmp_path / "out/labels.csv")
    assert len(rows) == 9
    assert {row[name] for row in rows for name in ("Gender", "Spectacles", "Facial_Hair", "Pose", "Emotion")} == {""}


def test_running_again_keeps_unchanged_sessions_and_redoes_changed_ones(raw, tmp_path):
    out = tmp_path / "out"
    run(raw, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.npy")}
    assert statuses(run(raw, out)) == {"written": 0, "kept": 9, "skipped": 0}
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.npy")} == before
    shutil.copy(raw / "captures/S000/s00/im0.png", raw / "captures/S001/s01/im0.png")
    assert statuses(run(raw, out)) == {"written": 1, "kept": 8, "skipped": 0}
    assert statuses(run(raw, out, fit="pad")) == {"written": 9, "kept": 0, "skipped": 0}
    assert whole_sessions(out) == 9


def test_a_changed_file_of_lights_above_the_sessions_prepares_them_again(raw, tmp_path):
    lights = (raw / "captures/S000/s00/lights.csv").read_text()
    for file in raw.glob("captures/*/*/lights.csv"):
        file.unlink()
    shared = raw / "captures/lights.csv"
    shared.write_text(lights)
    config = PrepareConfig(captures=str(raw / "captures"), out=str(tmp_path / "out"), size=32)
    sessions = len(prepare(config))
    assert statuses(prepare(config)) == {"written": 0, "kept": sessions, "skipped": 0}
    (raw / "captures/labels.csv").write_text("another table")
    assert statuses(prepare(config))["kept"] == sessions
    shared.write_text(lights + "\n")
    assert statuses(prepare(config)) == {"written": sessions, "kept": 0, "skipped": 0}


def test_sessions_that_an_earlier_version_prepared_are_kept(raw, tmp_path):
    """Its record lacks the settings that did not exist."""
    config = PrepareConfig(captures=str(raw / "captures"), out=str(tmp_path / "out"), size=32)
    sessions = len(prepare(config))
    for file in tmp_path.glob("out/data/*/*/prepared.json"):
        record = json.loads(file.read_text())
        for name in ("mask", "black_level", "response", "ambient"):
            del record["made_from"]["settings"][name]
        file.write_text(json.dumps(record))
    assert statuses(prepare(config)) == {"written": 0, "kept": sessions, "skipped": 0}
    assert statuses(prepare(replace(config, response="2.2"))) == {"written": sessions, "kept": 0, "skipped": 0}


def test_sessions_of_many_lights_that_an_earlier_version_weighted_are_prepared_again(tmp_path, write_capture):
    eight = (*SEVEN, (0, -30))
    for name, angles in (("four", FOUR), ("eight", eight)):
        write_capture(tmp_path / "captures/a" / name, to_8_bit(0.8 * render(sphere(32)[0], angles)), angles)
    config = PrepareConfig(captures=str(tmp_path / "captures"), out=str(tmp_path / "out"), size=32)
    prepare(config)
    for file in tmp_path.glob("out/data/*/*/prepared.json"):
        earlier = json.loads(file.read_text())
        assert earlier["done"].pop("many_lights_format", None) == (None if file.parent.name == "four" else 2)
        file.write_text(json.dumps(earlier))
    assert statuses(prepare(config)) == {"written": 1, "kept": 1, "skipped": 0}
    assert statuses(prepare(config)) == {"written": 0, "kept": 2, "skipped": 0}


def test_a_failed_light_is_left_out_recorded_and_reported(tmp_path, write_capture, capsys):
    pictures = to_8_bit(0.8 * render(sphere(32)[0], FOUR))
    write_capture(tmp_path / "captures/a/good", pictures, FOUR)
    write_capture(tmp_path / "captures/a/three", pictures[1:], FOUR[1:])
    pictures[0] //= 40
    write_capture(tmp_path / "captures/a/failed", pictures, FOUR)
    main(["prepare", "--captures", f"{tmp_path}/captures", "--out", f"{tmp_path}/out", "--size", "32"])
    printed = capsys.readouterr().out
    assert "warning: sessions with a failed light: 1, e.g. a/failed (almost black image: im0.png); their maps" in printed
    done = record(tmp_path / "out", "a/failed")
    assert done["failed"] == ["im0.png"]
    assert (done["acquisition"]["lights"], done["acquisition"]["failed"]) == (3, 1)
    assert "failed" not in record(tmp_path / "out", "a/good")
    for name in ("albedo", "normal"):
        failed, three = (np.load(tmp_path / f"out/data/a/{session}/{name}.npy") for session in ("failed", "three"))
        np.testing.assert_array_equal(failed, three)
    with (tmp_path / "out/labels.csv").open() as file:
        imbalances = {row["session"]: float(row["quality_imbalance"]) for row in csv.DictReader(file)}
    assert imbalances.pop("failed") == 1
    assert max(imbalances.values()) < 0.02


def test_a_session_whose_pictures_were_removed_is_prepared_again(tmp_path, write_capture):
    write_capture(tmp_path / "captures/a/four", to_8_bit(0.8 * render(sphere(32)[0], FOUR)), FOUR)
    config = PrepareConfig(captures=str(tmp_path / "captures"), out=str(tmp_path / "out"), size=32)
    prepare(config)
    assert statuses(prepare(config)) == {"written": 0, "kept": 1, "skipped": 0}
    (tmp_path / "out/data/a/four/pictures.npy").unlink()
    assert statuses(prepare(config)) == {"written": 1, "kept": 0, "skipped": 0}
    assert (tmp_path / "out/data/a/four/pictures.npy").exists()


def test_the_standard_error_of_the_normals_is_written_where_it_is_defined(tmp_path, write_capture):
    normal, _, _ = sphere(64)
    for name, angles in (("four", FOUR), ("seven", SEVEN)):
        pictures = to_8_bit(0.8 * render(normal, angles) + np.random.default_rng(0).normal(0, 0.01, (len(angles), 64, 64)))
        write_capture(tmp_path / "captures/a" / name, pictures, angles)
    config = PrepareConfig(captures=str(tmp_path / "captures"), out=str(tmp_path / "out"), size=64)
    prepare(config)
    folder = tmp_path / "out/data/a/seven"
    assert not (tmp_path / "out/data/a/four/normal_error.npy").exists()
    assert "normal_error" not in record(tmp_path / "out", "a/four")
    found = np.load(folder / "normal_error.npy")
    assert (found.dtype, found.shape) == (np.float32, (64, 64))
    angles = np.degrees(np.arccos(np.clip((np.load(folder / "normal.npy") * normal).sum(axis=-1), -1, 1)))
    assert np.sqrt(np.mean(found**2)) == pytest.approx(np.sqrt(np.mean(angles**2)), rel=0.25)
    assert record(tmp_path / "out", "a/seven")["normal_error"] == pytest.approx(float(np.median(found)))
    assert statuses(prepare(config)) == {"written": 0, "kept": 2, "skipped": 0}
    (folder / "normal_error.npy").unlink()
    assert statuses(prepare(config)) == {"written": 1, "kept": 1, "skipped": 0}, "a map of the record was removed"


def test_a_bad_session_fails_and_earlier_sessions_are_kept(raw, tmp_path, rejected):
    out = tmp_path / "out"
    bad = raw / "captures/S001/s01/im2.png"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:200])
    with rejected(bad, "S001/s01", "--on-bad skip"):
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
    reasons = skipped(outcomes)
    assert set(reasons) == {"S000/s00", "S001/s01", "S002/s02"}
    assert "im2.png" in reasons["S001/s01"]
    assert "no capture" in reasons["S002/s02"]
    assert "no row" in reasons["S000/s00"]
    assert {f"{row['id']}/{row['session']}" for row in table(tmp_path / "out/labels.csv")}.isdisjoint(reasons)
    for row, outcome in zip(table(tmp_path / "out/prepare.csv"), outcomes, strict=True):
        assert list(row) == ["id", "session", "status", "aligned_by", "reason"]
        assert (row["id"], row["session"], row["status"], row["reason"]) == (
            outcome.id,
            outcome.session,
            outcome.status,
            outcome.reason,
        )
        assert row["aligned_by"] == ("" if outcome.status == "skipped" else "none")
    assert whole_sessions(tmp_path / "out") == 6


def test_a_row_without_a_capture_is_rejected_before_anything_is_written(raw, tmp_path, rejected):
    shutil.rmtree(raw / "captures/S002")
    with rejected("labels.csv", "S002/s00", "3 such rows"):
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


@pytest.mark.parametrize("workers", [1, 2])
def test_progress_counts_every_session_once_and_by_its_pictures(workers, raw, tmp_path):
    (raw / "captures/S001/s01/im0.png").unlink()
    calls = []
    outcomes = run(raw, tmp_path / "out", calls.append, workers=workers, on_bad="skip")
    assert sum(calls) == pytest.approx(len(outcomes))
    assert workers > 1 or len(calls) > 2 * len(outcomes)


@pytest.mark.parametrize("fault", ["cut off", "removed"])
def test_a_damaged_map_is_made_again(raw, tmp_path, fault):
    out = tmp_path / "out"
    run(raw, out)
    whole = content(out)
    path = out / "data/S001/s01/albedo.npy"
    path.write_bytes(path.read_bytes()[:500]) if fault == "cut off" else path.unlink()
    assert statuses(run(raw, out)) == {"written": 1, "kept": 8, "skipped": 0}
    assert {name: data for name, data in content(out).items() if name != "prepare.csv"} == {
        name: data for name, data in whole.items() if name != "prepare.csv"
    }


def test_a_data_set_of_mixed_settings_is_not_finished(raw, tmp_path, rejected):
    out = tmp_path / "out"
    run(raw, out)
    (raw / "captures/S001/s01/im2.png").write_bytes(b"no picture")
    with rejected("im2.png"):
        run(raw, out, solver="least_squares")
    assert not (out / "labels.csv").exists()


def test_temporary_files_of_a_killed_run_are_removed(raw, tmp_path):
    remains = tmp_path / "out/data/S000/.partial-deadbeef-s00"
    remains.mkdir(parents=True)
    (remains / "albedo.npy").write_bytes(b"half")
    run(raw, tmp_path / "out")
    assert not remains.exists()


def test_a_box_without_a_capture_is_rejected_or_ignored(raw, tmp_path, rejected):
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("id,session,left,top,right,bottom\nS0X0,s00,2,2,30,30\n")
    with rejected(boxes, "S0X0/s00", "--on-bad skip"):
        run(raw, tmp_path / "out", boxes=str(boxes))
    assert statuses(run(raw, tmp_path / "out", boxes=str(boxes), on_bad="skip"))["written"] == 9


def test_two_sessions_of_one_name_are_rejected_or_listed(raw, tmp_path, rejected):
    shutil.copytree(raw / "captures/S001/s01", raw / "captures/S001/S01")
    shutil.copytree(raw / "captures/S002", raw / "captures/s002")
    with rejected("'S002' and 's002'"):
        run(raw, tmp_path / "out")
    outcomes = run(raw, tmp_path / "out", on_bad="skip", labels=None)
    assert statuses(outcomes) == {"written": 5, "kept": 0, "skipped": 4}
    skipped = {(outcome.id, outcome.session) for outcome in outcomes if outcome.status == "skipped"}
    assert skipped == {("S002", ""), ("s002", ""), ("S001", "s01"), ("S001", "S01")}


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_an_out_that_is_a_file_is_rejected(raw, tmp_path, place, rejected):
    (tmp_path / "file").write_text("")
    with rejected("file", "choose another place"):
        run(raw, tmp_path / place)


def test_a_user_column_is_kept_whatever_its_prefix(raw, tmp_path):
    lines = (raw / "labels.csv").read_text().splitlines()
    (raw / "labels.csv").write_text("\n".join([lines[0] + ",quality_note", *(line + ",fine" for line in lines[1:])]))
    run(raw, tmp_path / "out")
    with (tmp_path / "out/labels.csv").open() as file:
        assert {row["quality_note"] for row in csv.DictReader(file)} == {"fine"}


@pytest.mark.slow
def test_running_again_after_a_kill_completes_the_data_set(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    write_synthetic_captures(raw, people=30, sessions=5, seed=0, size=40)
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


def test_the_record_beside_the_maps_suffices_to_reproduce_them(photoface, tmp_path):
    out = tmp_path / "out"
    outcomes = run_photoface(photoface, out)
    for outcome in outcomes:
        key = f"{outcome.id}/{outcome.session}"
        done = record(out, key)
        assert done == outcome.details
        assert done["aligned_by"] == "landmarks"
        capture = read_capture(photoface / key)
        to = Frame(**done["frame"])
        assert to == landmark_frame(capture.landmarks, 32)
        assert done["landmark_error"] == pytest.approx(landmark_error(capture.landmarks, to))
        assert done["landmark_error"] < 3
        maps = compute_maps(capture, to)
        for name in ("albedo", "normal", "depth", "confidence"):
            np.testing.assert_array_equal(np.load(out / "data" / key / f"{name}.npy"), getattr(maps, name))
        assert done["quality"] == maps.quality
        assert (done["intensities"], done["ambient"]) == ([1, 1, 1, 1], 0)
        assert done["convexity"][0][0] > 0


def test_a_photoface_folder_needs_no_further_settings(photoface, tmp_path):
    out = tmp_path / "out"
    assert statuses(run_photoface(photoface, out)) == {"written": 9, "kept": 0, "skipped": 0}
    assert whole_sessions(out) == 9
    rows = without_quality(table(out / "labels.csv"))
    assert [(row["id"], row["session"]) for row in rows] == [(f"S{p:03}", f"s{s:02}") for p in range(3) for s in range(3)]
    for row in rows:
        scene = render_session(0, int(row["id"][1:]), int(row["session"][1:]), 64, WIDE)
        assert {name: row[name] for name in scene.labels} == scene.labels
        assert (row["Quality"], row["Occlusion"]) == ("ok", "")
    assert statuses(run_photoface(photoface, out)) == {"written": 0, "kept": 9, "skipped": 0}


def test_landmarks_align_faces(photoface, tmp_path):
    spread = {}
    for align in ("landmarks", "none"):
        run_photoface(photoface, tmp_path / align, align=align)
        normals = np.array([np.load(path) for path in sorted((tmp_path / align / "data").glob("*/*/normal.npy"))])
        spread[align] = normals[:, 8:24, 8:24].std(axis=0).mean()
    assert spread["landmarks"] < 0.9 * spread["none"]


def test_a_session_without_landmarks_uses_the_whole_picture_unless_they_are_required(photoface, tmp_path, rejected):
    (photoface / "S001/s01/metadata.txt").unlink()
    outcomes = run_photoface(photoface, tmp_path / "auto")
    assert [outcome.details["aligned_by"] for outcome in outcomes] == ["landmarks"] * 4 + ["none"] + ["landmarks"] * 4
    counts = dict(summary_rows(outcomes)[0])
    assert counts == {"written": 9, "kept": 0, "skipped": 0, "aligned by landmarks": 8, "whole picture": 1}
    with rejected("S001/s01/metadata.txt", "no such file", "--on-bad skip"):
        run_photoface(photoface, tmp_path / "strict", align="landmarks")
    outcomes = run_photoface(photoface, tmp_path / "strict", align="landmarks", on_bad="skip")
    assert list(skipped(outcomes)) == ["S001/s01"]


def test_sessions_without_labels_among_others_are_counted_and_one_is_named(photoface, tmp_path):
    for key in ("S001/s01", "S002/s00"):
        (photoface / key / "metadataII.txt").unlink()
    (photoface / "S000/s00/im0.bmp").unlink()
    (photoface / "S000/s00/metadataII.txt").unlink()
    outcomes = run_photoface(photoface, tmp_path / "out", on_bad="skip")
    assert ["without labels, e.g. S001/s01 (no metadataII.txt)", 2] in summary_rows(outcomes)[0]
    for path in photoface.glob("*/*/metadataII.txt"):
        path.unlink()
    counts = dict(summary_rows(run_photoface(photoface, tmp_path / "out", on_bad="skip"))[0])
    assert not [name for name in counts if "labels" in name]


def test_boxes_crop_the_sessions_that_they_name(raw, tmp_path, rejected):
    boxes, out = tmp_path / "boxes.csv", tmp_path / "out"
    boxes.write_text("id,session,left,top,right,bottom\nS000,s01,4,2,36,34\nS002,s00,0,0,20,10\n")
    outcomes = run(raw, out, boxes=str(boxes), fit="pad")
    ways = {f"{outcome.id}/{outcome.session}": outcome.details["aligned_by"] for outcome in outcomes}
    assert {key for key, way in ways.items() if way == "boxes"} == {"S000/s01", "S002/s00"}
    assert set(ways.values()) == {"boxes", "none"}
    assert ["cropped to a box", 2] in summary_rows(outcomes)[0]
    maps = compute_maps(read_capture(raw / "captures/S002/s00"), fit_frame((0, 0, 20, 10), 32, "pad"))
    np.testing.assert_array_equal(np.load(out / "data/S002/s00/normal.npy"), maps.normal)
    assert (np.load(out / "data/S002/s00/confidence.npy")[:8] == 0).all()

    boxes.write_text("id,session,left,top,right,bottom\nS000,s01,4,2,36,34\nS002,s00,0,0,20,11\n")
    assert statuses(run(raw, out, boxes=str(boxes), fit="pad")) == {"written": 1, "kept": 8, "skipped": 0}
    with rejected("S000/s00", "no row in the table of boxes"):
        run(raw, out, boxes=str(boxes), align="boxes")
    only = run(raw, tmp_path / "only", boxes=str(boxes), align="boxes", on_bad="skip")
    assert statuses(only) == {"written": 2, "kept": 0, "skipped": 7}
    boxes.write_text("id,session,left,top,right,bottom\nS000,s01,4,2,41,34\n")
    with rejected("S000/s01", "40 x 40", "--on-bad skip"):
        run(raw, out, boxes=str(boxes))


def test_a_prior_is_part_of_the_record(raw, tmp_path, rejected):
    keep_one_subject(raw)
    out, prior = tmp_path / "out", tmp_path / "mean.npy"
    settings = {"solver": "integrable", "prior": str(prior)}
    with rejected("mean.npy", "no such mean face"):
        run(raw, out, **settings)
    np.save(prior, np.zeros((40, 40, 3), dtype=np.float32))
    with rejected("mean.npy", "40 x 40", "--size 32"):
        run(raw, out, **settings)
    assert not out.exists()

    run(raw, tmp_path / "without", solver="integrable")
    flat = np.zeros((32, 32, 3), dtype=np.float32)
    flat[..., 2] = 0.9
    np.save(prior, flat)
    assert statuses(run(raw, out, **settings))["written"] == 3
    key = "data/S002/s00/normal.npy"
    steepness = [np.load(folder / key)[..., 2].mean() for folder in (tmp_path / "without", out)]
    assert steepness[0] < steepness[1], "a flat prior makes faces flatter"

    shutil.copy(prior, tmp_path / "copy.npy")
    assert statuses(run(raw, out, solver="integrable", prior=str(tmp_path / "copy.npy")))["kept"] == 3
    flat[0, 0, 2] = 0.8
    np.save(prior, flat)
    assert statuses(run(raw, out, **settings))["written"] == 3
    assert statuses(run(raw, out, solver="integrable"))["written"] == 3


CHANGES = [
    {"solver": "least_squares"},
    {"integration": "frankot_chellappa"},
    {"size": 24},
    {"fit": "stretch"},
    {"align": "none"},
    {"estimate_intensities": True},
    {"max_condition": 9.0},
    {"white_level": 250},
]


def test_a_changed_setting_prepares_again(raw, tmp_path):
    keep_one_subject(raw)
    run(raw, tmp_path / "out")
    for change in CHANGES:
        assert statuses(run(raw, tmp_path / "out", **change)) == {"written": 3, "kept": 0, "skipped": 0}, change
    assert statuses(run(raw, tmp_path / "out", **CHANGES[-1])) == {"written": 0, "kept": 3, "skipped": 0}


def test_unobservable_ambient_light_is_a_bad_session(raw, tmp_path, rejected):
    with rejected("ambient", "--estimate-ambient false", "S000/s00"):
        run(raw, tmp_path / "out", estimate_ambient=True)


FLIPS = {"xy": "xy", "-xy": "mirrored in x", "x-y": "mirrored in y", "-x-y": "concave"}
EXCHANGED = {"yx": "yx", "y-x": "mirrored in x", "-yx": "mirrored in y", "-y-x": "concave"}


def turn_light_source(folder: Path) -> None:
    """Rewrite the lights with exchanged x and y: an azimuth from the other axis."""
    lights = read_capture(folder).lights
    angles = np.degrees([np.arccos(lights[:, 2]), np.arctan2(lights[:, 0], lights[:, 1])]).T
    matrix = "; ".join(f"{zenith:.6f} {azimuth:.6f}" for zenith, azimuth in angles)
    (folder / "LightSource.m").write_text(f"L = [{matrix}];\n")


@pytest.fixture(scope="module")
def axes_results(heads: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], list[SessionResult]]:
    """The results of four sessions by (written_as, light_axes), without writing a data set."""
    roots = {"xy": heads, "yx": shutil.copytree(heads, tmp_path_factory.mktemp("turned") / "heads")}
    for folder in roots["yx"].glob("*/*"):
        turn_light_source(folder)

    @cache
    def results(written_as: str, axes: str) -> list[SessionResult]:
        config = PrepareConfig(captures="", out="", size=32, light_axes=axes)
        folders = sorted(roots[written_as].glob("S00[01]/s0[01]"))
        return [
            SessionResult(folder.parent.name, folder.name, "written", details=capture_to_maps(folder, config, None, None)[1])
            for folder in folders
        ]

    return results


@pytest.mark.parametrize("axes", get_args(LightAxes))
@pytest.mark.parametrize("written_as", ["xy", "yx"])
def test_following_the_warnings_leads_to_the_right_setting(axes_results, axes, written_as):
    tried = axes
    for _ in range(3):
        warning = orientation_warning(axes_results(written_as, tried), tried)
        if warning is None:
            break
        assert warning.startswith("warning: ")
        assert "\n" not in warning
        tried = re.search(r"--light-axes=(\S+)", warning)[1]
    assert (warning, tried) == (None, written_as)


@pytest.mark.parametrize(("axes", "shape"), [*FLIPS.items(), *EXCHANGED.items()])
def test_flipped_lights_give_a_warning_with_the_shape_and_the_right_setting(axes_results, axes, shape):
    right = "xy" if axes in FLIPS else "yx"
    warning = orientation_warning(axes_results(right, axes), axes)
    if axes == right:
        assert warning is None
    else:
        assert f"appear {shape}:" in warning
        assert f"--light-axes={right} " in warning


def test_other_light_axes_prepare_again(photoface, tmp_path):
    wrong = run_photoface(photoface, tmp_path / "out", light_axes="-xy")
    assert "--light-axes=xy " in orientation_warning(wrong, "-xy")
    right = run_photoface(photoface, tmp_path / "out")
    assert statuses(right) == {"written": 9, "kept": 0, "skipped": 0}
    assert orientation_warning(right, "xy") is None


def test_records_without_a_layout_get_the_remedy_of_both_early_layouts(axes_results):
    def without_layout(result: SessionResult) -> SessionResult:
        return replace(result, details={name: value for name, value in result.details.items() if name != "layout"})

    warning = orientation_warning([without_layout(result) for result in axes_results("xy", "yx")], "yx")
    assert "--light-axes=xy instead of yx; in lights.csv exchange x and y (of angles: replace them by x,y,z)" in warning


def test_without_prepared_sessions_there_is_no_orientation_warning():
    assert orientation_warning([SessionResult("a", "s", "skipped", "why")], "xy") is None
    assert orientation_warning([], "xy") is None


def truncate(folder: Path) -> None:
    path = folder / "im1.bmp"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def wrong_size_of_matrix(folder: Path) -> None:
    (folder / "LightSource.m").write_text("L = [30 45; 30 135; 30 225];\n")


FAULTS = {
    "truncated BMP": (truncate, ["im1.bmp", "not a readable image"]),
    "no LightSource.m": (lambda folder: (folder / "LightSource.m").unlink(), ["no file of lights"]),
    "matrix of the wrong size": (wrong_size_of_matrix, ["3 lights", "im3.bmp"]),
    "light behind": (
        lambda folder: (folder / "LightSource.m").write_text("L = [30 45; 95 135; 30 225; 30 315];\n"),
        ["LightSource.m", "light 2 of 4", "behind the picture plane"],
    ),
    "landmarks outside": (
        lambda folder: (folder / "metadata.txt").write_text("30 20\n" * 10 + "30 65\n"),
        ["metadata.txt", "chin", "outside the picture of 64 x 64"],
    ),
    "too few landmarks": (
        lambda folder: (folder / "metadata.txt").write_text("30 20\n" * 10),
        ["metadata.txt", "10 landmarks"],
    ),
    "landmarks that are one point": (
        lambda folder: (folder / "metadata.txt").write_text("30 20\n" * 11),
        ["metadata.txt", "one point"],
    ),
    "bad attribute": (
        lambda folder: (folder / "metadataII.txt").write_text("male,no,none,9,ok,,blankstare\n"),
        ["metadataII.txt", "Pose", "'9'"],
    ),
    "image missing": (lambda folder: (folder / "im2.bmp").unlink(), ["im0.bmp, im1.bmp, im3.bmp"]),
    "link to nothing": (
        lambda folder: ((folder / "im2.bmp").unlink(), (folder / "im2.bmp").symlink_to("gone")),
        ["im2.bmp", "no such image"],
    ),
}


@pytest.mark.parametrize("fault", ["truncated BMP", "bad attribute"])
def test_a_bad_session_fails(photoface, tmp_path, fault, rejected):
    spoil, words = FAULTS[fault]
    spoil(photoface / "S001/s01")
    with rejected("S001/s01", *words, "--on-bad skip"):
        run_photoface(photoface, tmp_path / "out")
    assert not (tmp_path / "out/labels.csv").exists()


def test_bad_sessions_are_skipped_and_listed(photoface, tmp_path):
    for fault, (spoil, _) in FAULTS.items():
        spoil(shutil.copytree(photoface / "S000/s00", photoface / "S003" / fault))
    out = tmp_path / "out"
    outcomes = run_photoface(photoface, out, on_bad="skip")
    reasons = skipped(outcomes)
    assert sorted(reasons) == sorted(f"S003/{fault}" for fault in FAULTS)
    for fault, (_, words) in FAULTS.items():
        for word in (f"S003/{fault}", *words):
            assert word in reasons[f"S003/{fault}"]
    assert whole_sessions(out) == 9
    assert {row["id"] for row in table(out / "labels.csv")} == {"S000", "S001", "S002"}
    listed = [row for row in table(out / "prepare.csv") if row["status"] == "skipped"]
    assert {f"{row['id']}/{row['session']}": row["reason"] for row in listed} == reasons
    assert summary_rows(outcomes)[1:] == ([[*key.split("/"), reason] for key, reason in reasons.items()], 0)


def test_an_unused_broken_link_is_ignored(raw, tmp_path):
    (raw / "captures/S001/s01/notes.txt").symlink_to("gone")
    assert statuses(run(raw, tmp_path / "out"))["written"] == 9


def test_further_skipped_sessions_are_only_counted():
    outcomes = [SessionResult("a", f"s{number}", "skipped", "why") for number in range(14)]
    counts, shown, more = summary_rows(outcomes, limit=10)
    assert counts == [["written", 0], ["kept", 0], ["skipped", 14]]
    assert (len(shown), more) == (10, 4)
    assert summary_rows(outcomes[:10])[2] == 0


def test_an_unreadable_session_folder_fails_or_is_skipped(raw, tmp_path, monkeypatch, capsys, other_user):
    closed = tmp_path / "raw/captures/S001/s01"
    for folder in (tmp_path, *raw.rglob("*/"), raw):
        folder.chmod(0o777)
    closed.chmod(0)
    monkeypatch.chdir(tmp_path)
    command = ["prepare", "--captures=raw/captures", "--out=out", "--size=32"]
    for out in ("warm", "captures/warm"):  # imports, as root, what another user may not be able to read
        main(["prepare", "--captures=raw/captures", f"--out=raw/{out}", "--size=16"])
    capsys.readouterr()
    with other_user():
        assert main(command) == 2
    assert "raw/captures/S001/s01: unreadable folder (Permission denied)" in (error := capsys.readouterr().err)
    assert "--on-bad skip" in error
    with other_user():
        assert main([*command, "--on-bad=skip"]) == 0
    closed.chmod(0o755)
    reasons = {f"{row['id']}/{row['session']}": row["reason"] for row in table(tmp_path / "out/prepare.csv") if row["reason"]}
    assert list(reasons) == ["S001/s01"]
    assert "Permission denied" in reasons["S001/s01"]
    assert whole_sessions(tmp_path / "out") == 8


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_leaves_complete_sessions_and_a_later_run_does_the_rest(raw, small_disk, tmp_path, rejected, workers):
    out = small_disk / "out"
    with rejected(out, "the disk is full", "run again"):
        run(raw, out, workers=workers)
    done = whole_sessions(out)
    assert 1 <= done < 9, "full in the middle"
    assert not (out / "labels.csv").exists()
    assert not [path for path in out.rglob("*") if path.name.startswith(".partial-")]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.npy")}
    with rejected("the disk is full"):
        run(raw, out, workers=workers)
    assert {path: path.stat().st_mtime_ns for path in before} == before

    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    again = statuses(run(raw, out, workers=workers))
    assert again["kept"] >= done
    assert again["written"] == 9 - again["kept"] > 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    run(raw, tmp_path / "at once")
    maps, at_once = (
        {name: data for name, data in content(folder).items() if name != "prepare.csv"} for folder in (out, tmp_path / "at once")
    )
    assert maps == at_once


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("captures", "out"),
    [
        ("data", "."),
        ("data/set", "."),
        ("captures", "captures"),
        ("captures", "captures/prepared"),
        ("captures", "link/prepared"),
        ("link", "captures/../captures/prepared"),
        ("captures", "elsewhere"),
    ],
)
def test_captures_and_output_that_overlap_are_rejected_and_untouched(raw, tmp_path, rejected, monkeypatch, captures, out):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / ("captures" if captures == "link" else captures)
    place.parent.mkdir(exist_ok=True)
    shutil.copytree(raw / "captures", place)
    (tmp_path / "link").symlink_to("captures")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/data").symlink_to("../captures")
    before = everything(tmp_path)
    for overwrite in (False, True):
        with rejected("captures", "inside the"):
            prepare(PrepareConfig(captures=captures, out=out, size=32, overwrite=overwrite))
    assert everything(tmp_path) == before


def test_captures_beside_the_data_folder_do_not_overlap(raw, tmp_path):
    outcomes = prepare(PrepareConfig(captures=str(raw / "captures"), out=str(raw), size=32, overwrite=True))
    assert statuses(outcomes)["written"] == 9


@pytest.mark.parametrize("there", ["foreign maps", "a file", "a link to the captures"])
def test_a_foreign_session_folder_is_rejected_and_untouched(raw, tmp_path, rejected, there):
    out = tmp_path / "out"
    target = out / "data/S001/s01"
    target.parent.mkdir(parents=True)
    if there == "a file":
        target.write_text("x")
    elif there == "a link to the captures":
        target.symlink_to(raw / "captures/S001/s01")
    else:
        target.mkdir()
        (target / "albedo_map_new_crop.exr.npy").write_text("x")
    before = everything(tmp_path)
    for on_bad in ("fail", "skip"):
        with rejected("S001/s01"):
            run(raw, out, on_bad=on_bad, overwrite=True)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("on_bad", ["fail", "skip"])
def test_a_session_folder_with_a_further_file_is_rejected_and_untouched(raw, tmp_path, rejected, on_bad):
    out = tmp_path / "out"
    run(raw, out)
    note = out / "data/S002/s02/notes.txt"  # in the last session
    note.write_text("x")
    assert statuses(run(raw, out))["kept"] == 9
    before = everything(out)
    with rejected("S002/s02/notes.txt", "move it away"):
        run(raw, out, solver="least_squares", overwrite=True, on_bad=on_bad)
    assert everything(out) == before
    note.unlink()
    (out / "data/S001/s01/.DS_Store").write_text("x")
    assert statuses(run(raw, out, solver="least_squares")) == {"written": 9, "kept": 0, "skipped": 0}


def test_a_data_set_with_mixed_settings_after_a_failure_is_completed_by_another_run(raw, tmp_path, rejected):
    out = tmp_path / "out"
    run(raw, out)
    before = content(out)
    picture = raw / "captures/S002/s02/im2.png"
    good = picture.read_bytes()
    picture.write_bytes(b"no picture")
    with rejected("S002/s02"):
        run(raw, out, solver="least_squares")
    assert not (out / "labels.csv").exists()  # maps of two settings are no data set
    picture.write_bytes(good)
    assert statuses(run(raw, out))["written"] == 9
    assert content(out) == before


@pytest.mark.parametrize("link", ["the same path", "a hard link", "a symbolic link", "prepare.csv"])
@pytest.mark.parametrize("on_bad", ["fail", "skip"])
def test_a_table_that_is_the_output_is_rejected_and_untouched(raw, tmp_path, rejected, link, on_bad):
    (raw / "captures/S001/s01/im2.png").write_bytes(b"no picture")
    out, labels = raw, raw / "labels.csv"
    if link == "prepare.csv":
        labels = labels.rename(raw / "prepare.csv")
    elif link != "the same path":
        out = tmp_path / "out"
        out.mkdir()
        os.link(labels, out / "labels.csv") if link == "a hard link" else (out / "labels.csv").symlink_to(labels)
    before = everything(tmp_path)
    for overwrite in (False, True):
        with rejected(labels.name, "the input --labels"):
            run(raw, out, labels=str(labels), on_bad=on_bad, overwrite=overwrite)
    assert everything(tmp_path) == before


def test_a_foreign_or_edited_table_is_replaced_only_with_overwrite(raw, tmp_path, rejected):
    out = tmp_path / "out"
    run(raw, out, labels=None)
    run(raw, out, labels=None)
    written = (out / "labels.csv").read_bytes()
    by_hand = written.replace(b"S000,s00,,", b"S000,s00,male,")
    assert by_hand != written
    (out / "labels.csv").write_bytes(by_hand)
    with rejected("labels.csv", "changed since", "--overwrite true"):
        run(raw, out, labels=None, solver="least_squares")
    assert (out / "labels.csv").read_bytes() == by_hand
    run(raw, out, labels=None, overwrite=True)
    assert (out / "labels.csv").read_bytes() == written


def test_tables_are_recognised_with_any_cache(raw, tmp_path, monkeypatch):
    out = tmp_path / "out"
    for name in ("first", "second"):
        monkeypatch.setenv("FR_PS_CACHE", str(tmp_path / name))
        run(raw, out)
    written = (out / "labels.csv").read_bytes()
    run(raw, shutil.move(out, tmp_path / "moved"), labels=None)  # other labels
    assert (tmp_path / "moved/labels.csv").read_bytes() != written


@pytest.mark.parametrize("edit", ["nothing", "a label", "a column", "a row less", "a report of its own"])
def test_unedited_tables_of_an_older_version_are_replaced(raw, tmp_path, rejected, edit):
    out = tmp_path / "out"
    run(raw, out, labels=None)
    (out / ".prepare.sha256").unlink()
    labels, report = out / "labels.csv", out / "prepare.csv"
    header, first, *rest = labels.read_text().splitlines()
    edited = {
        "nothing": [header, first, *rest],
        "a label": [header, first.replace("S000,s00,,", "S000,s00,male,"), *rest],
        "a column": [f"{header},note", *(f"{line}," for line in (first, *rest))],
        "a row less": [header, *rest],
        "a report of its own": [header, first, *rest],
    }[edit]
    labels.write_text("".join(f"{line}\n" for line in edited))
    if edit == "a report of its own":
        report.write_text("id,session,remark\n")
    before = everything(out)
    if edit == "nothing":
        assert statuses(run(raw, out, labels=None))["kept"] == 9
        return
    with rejected("prepare.csv" if edit == "a report of its own" else "labels.csv", "--overwrite true"):
        run(raw, out, labels=None, solver="least_squares")
    assert everything(out) == before


def test_a_kill_between_checksum_and_table_leaves_a_table_that_is_still_replaced(raw, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run(raw, out)
    real = prepare_report.write_atomic

    def dying(path: Path, write: Callable[[IO[bytes]], object]) -> None:
        if path.name == "labels.csv":
            raise KeyboardInterrupt
        real(path, write)

    with monkeypatch.context() as patch:
        patch.setattr(prepare_report, "write_atomic", dying)
        with pytest.raises(KeyboardInterrupt):
            run(raw, out, labels=None)
    assert statuses(run(raw, out, labels=None))["kept"] == 9


def test_a_foreign_lock_file_keeps_its_content(raw, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.lock").write_text("theirs")
    run(raw, tmp_path / "out")
    assert (tmp_path / "out/.lock").read_text() == "theirs"
