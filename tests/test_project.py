"""A project folder made from a checkout and from a wheel."""

import os
import re
import shlex
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
import yaml

from fr_ps.cli import main
from fr_ps.commands import COMMAND_ENTRIES
from fr_ps.config.yaml_files import read_settings
from fr_ps.errors import DiskFullError
from fr_ps.files import write_atomic
from tests.test_repository import ROOT


def test_a_project_folder_has_every_shipped_experiment(tmp_path, capsys):
    folder = tmp_path / "new" / "faces"
    assert main(["init", str(folder)]) == 0
    assert f"cd {folder} && fr-ps train" in capsys.readouterr().out
    shipped = {path.relative_to(ROOT / "experiments") for path in (ROOT / "experiments").rglob("*.yaml")}
    assert {path.relative_to(folder / "experiments") for path in (folder / "experiments").rglob("*.yaml")} == shipped
    assert read_settings(folder / "experiments" / "synthetic.yaml")
    project = yaml.safe_load((folder / "MLproject").read_text())
    assert COMMAND_ENTRIES.keys() <= project["entry_points"].keys()
    assert (folder / project["conda_env"]).is_file()
    assert "/runs/" in (folder / ".gitignore").read_text().split()


def test_the_project_folders_of_the_documents_are_ignored_by_git():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    made = {name for page in pages for name in re.findall(r"^fr-ps init (\S+)$", page.read_text(), re.MULTILINE)}
    assert made >= {"quick_start", "tutorial", "rig"}
    assert {f"/{name}/" for name in made} <= set((ROOT / ".gitignore").read_text().split())


@pytest.mark.parametrize("name", ["faces", ".", "link to it"])
def test_an_empty_folder_becomes_a_project_folder(name, tmp_path, monkeypatch, capsys):
    (tmp_path / "faces").mkdir()
    (tmp_path / "link to it").symlink_to("faces")
    monkeypatch.chdir(tmp_path / "faces" if name == "." else tmp_path)
    assert main(["init", name]) == 0
    assert (tmp_path / "faces" / "MLproject").is_file()
    assert f"cd {shlex.quote(name)} && fr-ps train" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["file", "folder"])
def test_a_folder_in_use_is_not_touched(content, tmp_path, capsys):
    path = tmp_path / "faces"
    if content == "file":
        path.write_text("mine")
    else:
        path.mkdir()
        (path / "notes.txt").write_text("mine")
    assert main(["init", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}: is ")
    assert len(error.splitlines()) == 1
    assert (path if content == "file" else path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["file/faces", "a" * 300, "broken"])
def test_a_path_that_cannot_be_written_is_one_line(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "broken").symlink_to("nowhere/at/all")
    assert main(["init", name]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {name}: cannot be written (")
    assert len(error.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "file"]


def test_a_missing_folder_is_one_line(capsys):
    assert main(["init"]) == 2
    assert capsys.readouterr().err == "error: missing FOLDER; see fr-ps init --help\n"


def test_a_disk_that_fills_leaves_the_folder_empty(tmp_path, monkeypatch, capsys):
    def full(path: Path, write: object) -> None:
        if path.name == "MLproject":
            raise DiskFullError(f"{path}: the disk is full")
        write_atomic(path, write)

    monkeypatch.setattr("fr_ps.project.write_atomic", full)
    assert main(["init", str(tmp_path / "faces")]) == 2
    assert "the disk is full" in capsys.readouterr().err
    assert not list((tmp_path / "faces").iterdir())


@pytest.mark.slow
def test_the_wheel_trains_outside_the_repository(tmp_path, prepared):
    """The dependencies come from the present environment; the package itself only from the wheel."""
    run = lambda *command, **options: subprocess.run(command, check=True, capture_output=True, text=True, **options)  # noqa: E731
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(ROOT))
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    (sdist,) = (tmp_path / "dist").glob("*.tar.gz")
    run(sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist))
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    site = next((environment / "lib").glob("python*")) / "site-packages"
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel))
    (site / "dependencies.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n")
    python = str(environment / "bin" / "python")
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    where = run(python, "-c", "import fr_ps; print(fr_ps.__file__)", cwd=tmp_path, env=clean).stdout
    assert Path(where.strip()).is_relative_to(site)
    run(python, "-m", "fr_ps", "init", "faces", cwd=tmp_path, env=clean)
    tiny = ["--data.root", str(prepared), "--data.val_people", "2", "--data.test_people", "2", "--train.epochs", "1"]
    tiny += ["--model.channels", "16", "--model.reduction", "8", "--batch.people", "3", "--model.backbone", "timm:test_resnet"]
    train = [python, "-m", "fr_ps", "train", "--config", "experiments/synthetic.yaml", *tiny]
    run(*train, cwd=tmp_path / "faces", env=clean)
    assert list((tmp_path / "faces" / "runs").glob("*/report/report.html"))
