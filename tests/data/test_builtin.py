"""The built-in data set goes through `prepare` like a real one, once."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fr_ps.config import SyntheticConfig
from fr_ps.data import builtin
from fr_ps.data.builtin import synthetic_dataset
from fr_ps.data.dataset import open_dataset


def test_the_built_in_faces_are_made_once_and_form_a_data_set(monkeypatch, tmp_path):
    monkeypatch.setenv("FR_PS_CACHE", str(tmp_path))
    config = SyntheticConfig(people=3, sessions=2, size=32)
    root = synthetic_dataset(config)
    dataset = open_dataset(root, ["albedo", "normal", "depth"])
    assert len(dataset.labels) == 6
    assert dataset.store.map_size == 32
    assert dataset.labels.encoding == "raw"
    assert dataset.orphans == []
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert synthetic_dataset(config) == root
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert synthetic_dataset(SyntheticConfig(people=3, sessions=2, size=32, seed=1)) != root


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with built-in faces, to be copied."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FR_PS_CACHE", str(folder))
        synthetic_dataset(SMALL)
    return folder


SMALL = SyntheticConfig(people=2, sessions=1, size=32)
MAP = "data/S000/s00/normal.npy"


def flip(path: Path) -> None:
    """Flip a bit of the last byte, and restore the modification time."""
    content, times = path.read_bytes(), path.stat()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a map cut": lambda root: os.truncate(root / MAP, 100),
    "a map emptied": lambda root: os.truncate(root / MAP, 0),
    "a bit of a map": lambda root: flip(root / MAP),
    "no map": lambda root: (root / MAP).unlink(),
    "no session": lambda root: shutil.rmtree((root / MAP).parent),
    "labels emptied": lambda root: os.truncate(root / "labels.csv", 0),
    "no labels": lambda root: (root / "labels.csv").unlink(),
    "no maps": lambda root: shutil.rmtree(root / "data"),
    "listing emptied": lambda root: os.truncate(root.parent / "checksums.json", 0),
    "listing of another type": lambda root: (root.parent / "checksums.json").write_text("[1]"),
    "raw pictures and a map lost": lambda root: (shutil.rmtree(root.parent / "raw/captures/S001"), (root / MAP).unlink()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_faces_are_made_again(damage, made, monkeypatch, tmp_path, capsys):
    cache = shutil.copytree(made, tmp_path / "cache")
    monkeypatch.setenv("FR_PS_CACHE", str(cache))
    (root,) = cache.glob("synthetic/*/synthetic")
    before = {path: path.read_bytes() for path in (root / "data").rglob("*.npy")}
    DAMAGES[damage](root)
    assert synthetic_dataset(SMALL) == root
    assert "is damaged" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (root / "data").rglob("*.npy")} == before
    monkeypatch.setattr(builtin, "_verified", set())
    synthetic_dataset(SMALL)
    assert capsys.readouterr().err == ""


def test_an_interrupted_creation_restarts(made, monkeypatch, tmp_path):
    cache = shutil.copytree(made, tmp_path / "cache")
    monkeypatch.setenv("FR_PS_CACHE", str(cache))
    (root,) = cache.glob("synthetic/*/synthetic")
    before = (root / MAP).read_bytes()
    (root.parent / "checksums.json").unlink()
    (root / "labels.csv").unlink()
    os.truncate(root / MAP, 50)
    assert len(open_dataset(synthetic_dataset(SMALL), ["normal"]).labels) == 2
    assert (root / MAP).read_bytes() == before
