"""Rendered captures, shared by the tests of `prepare`."""

import shutil
from pathlib import Path

import pytest

from fr_ps.synthetic.captures import write_synthetic_captures


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The captures of three subjects with three sessions each, which a test may only read."""
    folder = tmp_path_factory.mktemp("faces")
    write_synthetic_captures(folder, people=3, sessions=3, seed=0, size=40)
    return folder


@pytest.fixture
def raw(faces: Path, tmp_path: Path) -> Path:
    """A copy of `faces`, which a test may change."""
    return shutil.copytree(faces, tmp_path / "raw")
