"""A new project folder: the shipped experiments, an MLproject, and a .gitignore."""

import os
import shutil
from pathlib import Path

import fr_ps
from fr_ps.errors import InputError
from fr_ps.files import atomic_folder, translate_write_errors

_PACKAGE = Path(fr_ps.__file__).parent
_PROJECT_FILES = _PACKAGE / "project_files"
"""In an installed wheel. pyproject.toml copies the files there from the root of the repository."""
EXPERIMENTS = "experiments"
MLPROJECT = "MLproject"
_CONDA = f"""name: fr-ps
channels:
  - conda-forge
dependencies:
  - python=3.11
  - pip
  - pip:
      - fr-ps=={fr_ps.__version__}
"""
_GITIGNORE = "/runs/\n/mlruns/\n/mlartifacts/\n/mlflow.db*\n/studies.db*\n/data/\n"


def create_project(folder: Path) -> None:
    """Write `experiments/`, `MLproject`, `conda.yaml` and `.gitignore` into `folder`, which is created if it is missing.

    Raises:
        InputError: `folder` is a file, is not empty, or cannot be written.
    """
    with translate_write_errors(folder):
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: is a file; choose another folder")
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"{folder}: is not empty; choose a new folder")
        source = _source()
        if folder.is_dir():
            folder.rmdir()
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(folder) as temporary:
            shutil.copytree(source / EXPERIMENTS, temporary / EXPERIMENTS, copy_function=shutil.copyfile)
            shutil.copyfile(source / MLPROJECT, temporary / MLPROJECT)
            (temporary / "conda.yaml").write_text(_CONDA)
            (temporary / ".gitignore").write_text(_GITIGNORE)


def _source() -> Path:
    """The folder that contains the shipped experiments and the MLproject: of the wheel, or the repository."""
    source = _PROJECT_FILES if _PROJECT_FILES.is_dir() else _PACKAGE.parent
    if not os.access(source / EXPERIMENTS, os.R_OK) or not (source / MLPROJECT).is_file():
        raise InputError(f"{source}: has no {EXPERIMENTS} and {MLPROJECT}; install fr-ps again")
    return source
