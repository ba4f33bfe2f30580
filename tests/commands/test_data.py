"""`fr-ps data`: printed output, files and exit codes."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fr_ps.cli import main
from fr_ps.config import DataConfig
from fr_ps.data.labels import read_labels
from fr_ps.data.split_files import PARTS, read_split
from fr_ps.data.splits import make_split


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_summary_of_a_data_set_prints_tables_and_writes_a_contact_sheet_into_it(here, prepared, run_command):
    shutil.copytree(prepared, "set")
    out = run_command("data", "summary", "--data.root=set")
    assert "24 sessions of 6 subjects, raw labels" in out
    assert re.search(r"gender +male +\d+ +\d+ +\d+\.\d%", out)
    assert re.search(r"3-4 +6 +24 +#{40}", out)
    assert out.strip().endswith("contact sheet: set/contact_sheet.png, 6 sessions")
    with Image.open("set/contact_sheet.png") as image:
        assert image.format == "PNG"
    again = run_command("data", "summary", "--data.root=set")
    assert again.strip().endswith("contact sheet: set/contact_sheet.png, 6 sessions, replaces the previous one")
    run_command("data", "summary", "--data.root=set", "--out=sheets/sheet.png", "--data.only", "{id: [S001, S003]}")
    with Image.open("sheets/sheet.png") as small, Image.open("set/contact_sheet.png") as whole:
        assert small.height < whole.height


def test_the_contact_sheet_of_a_read_only_data_set_is_written_beside(here, prepared, run_command, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    out = run_command("data", "summary", f"--data.root={prepared}")
    assert out.strip().endswith("contact sheet: prepared_contact_sheet.png, 6 sessions")
    assert Path("prepared_contact_sheet.png").is_file()


def test_the_contact_sheet_of_the_built_in_faces_is_written_into_the_current_folder(here, run_command):
    out = run_command("data", "summary", "--synthetic.people=3", "--synthetic.sessions=2", "--synthetic.size=32")
    assert "\ncontact sheet: synthetic_contact_sheet.png, 3 sessions" in out
    assert Path("synthetic_contact_sheet.png").is_file()


def test_summary_shows_a_class_with_a_long_name(here, prepared, run_command):
    name = "x" * 90
    classes = f"{{emotion: {{{name}: [blankstare], other: [positive, negative, emoOther]}}}}"
    shown = run_command("data", "summary", f"--data.root={prepared}", "--out=sheet.png", "--data.classes", classes)
    assert re.search(rf"emotion +{name} +\d+ +\d+ +\d+", shown)


@pytest.mark.parametrize("command", ["summary --out={}.png", "split --out={}.csv", "mean --out={}.npy"])
def test_no_output_among_the_maps_or_the_split_files(here, prepared, command_error, command):
    shutil.copytree(prepared, "set")
    Path("lists").mkdir()
    for place in ("set/data/S001/new", "set/data/new"):
        assert "inside the input data.root" in command_error("data", *command.format(place).split(), "--data.root=set")
    given = ["data", *command.format("lists/new").split(), "--data.root=set", "--data.split=lists"]
    assert "lists" in command_error(*given)
    assert not list(Path().rglob("new*"))


def test_summary_prints_its_tables_before_it_rejects_a_foreign_file(here, prepared, capsys):
    Path("sheet.png").write_bytes(b"theirs")
    assert main(["data", "summary", "--data.root", str(prepared), "--out=sheet.png"]) == 2
    shown = capsys.readouterr()
    assert re.search(r"gender +male +\d+ ", shown.out)
    assert "sheet.png: already exists" in shown.err
    assert Path("sheet.png").read_bytes() == b"theirs"


def test_summary_of_a_table_without_maps_reports_that(here, photoface_labels, run_command):
    out = run_command("data", "summary", f"--data.root={photoface_labels / 'metadata.csv'}")
    assert "3159 sessions of 441 subjects, raw labels" in out
    assert re.search(r"pose +turned +137 ", out)
    assert "no contact sheet" in out
    assert not list(here.glob("*.png"))


def test_summary_shows_quality_and_omits_sessions_above_the_limit(here, prepared, run_command):
    root = shutil.copytree(prepared, here / "set")
    table = pd.read_csv(root / "labels.csv", dtype=str)
    table["quality_residual"] = [str(0.01 * row) for row in range(len(table))]
    table.to_csv(root / "labels.csv", index=False)
    assert re.search(
        r"quality_residual +0\.0115 +0\.115 +0\.218 +0 +S005/s03 0\.23", run_command("data", "summary", "--data.root=set")
    )
    out = run_command("data", "summary", "--data.root=set", "--data.limits.quality_residual=0.15")
    assert "16 sessions of 4 subjects" in out
    assert "left out: 8 sessions: quality_residual above 0.15" in out
    tables = [line for line in out.splitlines() if line.startswith(("quality", " ", "-"))]
    assert max(map(len, tables)) <= 100


SHOWN = {"session.png", "session.html", "surface.ply", "surface.obj", "normals.png"}


def test_show_writes_pictures_a_page_and_the_surface(here, prepared, run_command):
    captures = prepared.parent / "captures"
    out = run_command("data", "show", "S001/s02", f"--data.root={prepared}", f"--captures={captures}")
    assert "normals.png: OpenGL convention: red x right, green y up" in out
    assert out.strip().endswith("S001/s02: S001_s02 (session.png, session.html, surface.ply, surface.obj, normals.png)")
    folder = Path("S001_s02")
    assert {path.name for path in folder.iterdir()} == SHOWN
    page = (folder / "session.html").read_text()
    assert page.count("light 4: azimuth -35°, elevation -20°") == 2  # alternative text and caption
    assert re.search(r"residual: \d+\.\d\s%; white is 20\s%", page)
    with Image.open(folder / "session.png") as sheet, Image.open(folder / "normals.png") as normals:
        assert sheet.format == "PNG"
        expected = np.load(prepared / "data/S001/s02/normal.npy")
        assert np.abs(np.asarray(normals) / 127.5 - 1 - expected).max() < 1 / 127


def test_show_without_captures_says_what_is_missing_and_replaces_its_own_files_only(here, prepared, run_command, command_error):
    given = ["data", "show", "S001/s02", f"--data.root={prepared}", "--out=shown"]
    out = run_command(*given, "--normal-map=directx")
    assert "without recorded pictures and residual: no captures were named (--captures)" in out
    assert "normals.png: DirectX convention: red x right, green y down" in out
    assert "residual: " not in Path("shown/session.html").read_text().replace("no residual: no captures", "")
    assert "OpenGL" in run_command(*given)
    Path("shown/surface.obj").write_text("mine")
    before = {name: (Path("shown") / name).read_bytes() for name in SHOWN}
    assert "shown/surface.obj: already exists" in command_error(*given, "--normal-map=directx")
    assert before == {name: (Path("shown") / name).read_bytes() for name in SHOWN}
    run_command(*given, "--overwrite")
    assert Path("shown/surface.obj").read_text().startswith("# S001/s02")


@pytest.mark.parametrize("old", [False, True])
def test_show_writes_nothing_into_its_inputs(here, prepared, old, command_error):
    captures = prepared.parent / "captures"
    root = shutil.copytree(prepared / "data" if old else prepared, "set")  # the original project has no folder data
    if old:
        shutil.copy(prepared / "labels.csv", root)
    maps = Path("set") if old else Path("set/data")
    Path("link").symlink_to(maps / "S001")
    before = sorted(Path().rglob("*"))
    given = ["data", "show", "S001/s02", "--data.root=set"]
    for out in (maps, maps / "S001/s02", maps / "S001/new/folder", "link/s02"):
        assert f"{out}: inside the input data.root {maps}" in command_error(*given, f"--out={out}")
    inside = captures / "S001/s02"
    assert "inside the input --captures" in command_error(*given, f"--captures={captures}", f"--out={inside}")
    assert sorted(Path().rglob("*")) == before
    assert not (inside / "session.png").exists()


def test_show_rejects_a_session_that_is_not_there(here, prepared, command_error):
    where = f"--data.root={prepared}"
    assert "S001/s02 exists" in command_error("data", "show", "s001/s02", where)
    assert "missing SESSION" in command_error("data", "show", where)
    assert "maps are required" in command_error("data", "show", "S001/s02", f"--data.root={prepared}/labels.csv")
    assert not list(Path().iterdir())


def test_check_of_valid_maps_reports_no_bad_file(here, prepared, run_command):
    assert "all 72 maps are valid (albedo, normal, depth)" in run_command("data", "check", f"--data.root={prepared}")


def test_check_lists_every_bad_file_and_exits_with_code_2(here, prepared, capsys):
    root = shutil.copytree(prepared, here / "set")
    (root / "data/S000/s01/depth.npy").unlink()
    np.save(root / "data/S002/s00/albedo.npy", np.full((48, 48), np.nan))
    lines = (root / "labels.csv").read_text().splitlines()
    (root / "labels.csv").write_text("\n".join(lines[:-1]) + "\n")
    assert main(["data", "check", "--data.root=set"]) == 2
    out, err = capsys.readouterr()
    assert re.search(r"set/data/S000/s01/depth\.npy +no such file", out)
    assert re.search(r"set/data/S002/s00/albedo\.npy +NaN or infinity", out)
    assert "ignored: 1 session folders without a row" in out
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "2 bad files of 69" in errors[0]


def test_split_writes_what_a_training_draws(here, photoface_labels, run_command):
    path = photoface_labels / "final_dataset.csv"
    flags = ["--data.gallery=1", "--data.split_seed=3", "--data.protocol=subject_disjoint"]
    out = run_command("data", "split", f"--data.root={path}", *flags, "--out=parts/split.csv")
    labels = read_labels(path)
    drawn, written = make_split(labels, DataConfig(gallery=1, split_seed=3)), read_split(Path("parts/split.csv"), labels)
    for part in PARTS:
        np.testing.assert_array_equal(getattr(written, part), getattr(drawn, part))
    assert re.search(rf"all +{len(drawn.train)} \(\d+\) +{len(drawn.val)} \(\d+\) +{len(drawn.test)} \(\d+\)", out)
    assert out.strip().endswith("split: parts/split.csv")


def test_data_commands_read_the_data_settings_of_a_training_config_and_flags_override_them(here, prepared, run_command):
    Path("train.yaml").write_text(
        f"data: {{root: {prepared}, val_people: 1, test_people: 2, split_seed: 3, only: {{session: [s00, s01, s02]}}}}\n"
        "model: {backbone: irse50}\ntrain: {epochs: 3}\n"
    )
    out = run_command("data", "split", "--data.test_people=1", "--config", "train.yaml", "--out=split.csv")
    assert "left out: 6 sessions: session is not s00 or s01 or s02 (data.only)" in out
    assert Path("split.csv").read_text().count(",test") == 3
    labels = read_labels(prepared / "labels.csv")
    labels = labels.subset(np.flatnonzero(labels.sessions != "s03"))
    drawn = make_split(labels, DataConfig(val_people=1, test_people=1, split_seed=3))
    np.testing.assert_array_equal(read_split(Path("split.csv"), labels).val, drawn.val)
    assert "18 sessions of 6 subjects" in run_command("data", "summary", "--config=train.yaml")
    assert "3 subjects, 9 sessions" in run_command("data", "mean", "--config=train.yaml")
    assert "all 72 maps are valid" in run_command("data", "check", "--config=train.yaml")  # which reads every row


@pytest.mark.parametrize("what", ["split", "mean", "summary"])
def test_a_config_is_never_replaced(here, prepared, what, command_error):
    for name in ("a.yaml", "b.yaml"):
        Path(name).write_text(f"data: {{root: {prepared}}}\n")
    given = [what, "--config=a.yaml", "--config=b.yaml", "--overwrite=true"]
    assert "b.yaml: would replace the input --config (2) b.yaml" in command_error("data", *given, "--out=b.yaml")
    Path("link").symlink_to("a.yaml")
    assert "link: would replace the input --config (1) a.yaml" in command_error("data", *given, "--out=link")
    assert Path("a.yaml").read_text() == Path("b.yaml").read_text() == f"data: {{root: {prepared}}}\n"


def test_a_config_with_a_misspelt_name_is_rejected_by_the_data_commands_too(here, prepared, command_error):
    for text, key in (("daat: {root: x}", "daat"), ("data: {rot: x}", "data.rot"), ("optim: {lrr: 1}", "optim.lrr")):
        Path("train.yaml").write_text(text)
        error = command_error("data", "split", "--config=train.yaml")
        assert re.search(f"train.yaml: line 1: unknown setting '{key}'; (did you mean [a-z._]+[?] )?expected one of", error)
    assert "data synthetic --help" in command_error("data", "synthetic", "--out=x", "--config=train.yaml")
    assert "none.yaml" in command_error("data", "summary", "--config=none.yaml")


def test_split_reports_attributes_that_it_cannot_stratify(here, run_command):
    rows = [
        f"p{subject},{session},male,no,none,{3 if subject == 0 else 1},blankstare" for subject in range(8) for session in "ab"
    ]
    Path("table.csv").write_text("\n".join(["id,session,Gender,Spectacles,Facial_Hair,Pose,Emotion", *rows]) + "\n")
    out = run_command("data", "split", "--data.root=table.csv")
    assert re.search(r"not stratified: no session of \w+ and \w+ has pose turned \(2 sessions of 1 subjects have it\)", out)
    assert "gender" not in "".join(line for line in out.splitlines() if line.startswith("not stratified"))


def test_split_accepts_the_split_files_of_the_original_project(here, photoface_labels, run_command):
    out = run_command(
        "data", "split", f"--data.root={photoface_labels / 'label_encoded_dataset.csv'}", f"--data.split={photoface_labels}"
    )
    assert re.search(r"469 \(108\) +469 \(105\)", out)


def test_the_mean_face_of_some_subjects_is_a_prior_for_others(here, prepared, capsys, run_command):
    out = run_command("data", "mean", f"--data.root={prepared}", "--part=all")
    assert "mean face of 6 subjects, 24 sessions: mean_face.npy" in out
    every = np.load("mean_face.npy")
    assert (every.dtype, every.shape) == (np.float32, (48, 48, 3))
    settings = [f"--data.root={prepared}", "--data.val_people=1", "--data.test_people=2", "--data.split_seed=1"]
    assert "mean face of 3 subjects, 12 sessions: some/train.npy" in run_command(
        "data", "mean", *settings, "--out=some/train.npy"
    )
    labels = read_labels(prepared / "labels.csv")
    split = make_split(labels, DataConfig(val_people=1, test_people=2, split_seed=1))
    maps = [prepared / "data" / labels.ids[row] / labels.sessions[row] / "normal.npy" for row in split.train]
    # Each subject has four sessions.
    np.testing.assert_allclose(np.load("some/train.npy"), np.mean([np.load(path) for path in maps], axis=0), atol=1e-3)

    run_command("data", "synthetic", "--out=raw", "--people=2", "--sessions=1", "--size=48", "--seed=5")
    command = ["prepare", "--captures=raw/captures", "--size=48", "--solver=integrable"]
    assert main([*command, "--prior=some/train.npy", "--out=set"]) == 0
    assert main([*command, "--out=without"]) == 0
    with_prior, without = (np.load(f"{folder}/data/S001/s00/normal.npy") for folder in ("set", "without"))
    apart = np.abs(with_prior - without).max()
    assert 0.01 < apart < 1.5
    assert main([*command[:2], "--size=40", "--solver=integrable", "--prior=some/train.npy", "--out=small"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "48 x 48" in line
    assert "--size 40" in line


def test_bad_input_is_one_line(here, prepared, photoface_labels, command_error):
    table = f"--data.root={photoface_labels / 'metadata.csv'}"
    assert "nowhere" in command_error("data", "summary", "--data.root=nowhere")
    assert "metadata.csv" in command_error("data", "check", table)
    assert "Quality" in command_error("data", "summary", table, "--data.limits", "{Qality: 1}")
    assert "1001/2008-02-23_12-21-31" in command_error("data", "split", table, "--data.limits", "{Quality: 1}")
    assert "data.root" in command_error("data", "split", "--data.rot=x")
    assert "metadata.csv" in command_error("data", "mean", table)
    assert "train" in command_error("data", "mean", f"--data.root={prepared}", "--part=some")
    assert not list(here.glob("*.npy"))
    assert "session_disjoint" in command_error("data", "split", table, "--data.protocol=none")
    assert "2814 such sessions" in command_error("data", "split", f"--data.root={prepared}", f"--data.split={photoface_labels}")
    assert not list(here.glob("*.csv"))
