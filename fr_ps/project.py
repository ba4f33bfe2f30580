"""A new project folder: the shipped experiments, an MLproject, and a .gitignore."""

import shutil
from contextlib import suppress
from pathlib import Path

import fr_ps
from fr_ps.errors import InputError
from fr_ps.files import translate_write_errors, write_atomic

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
_GITIGNORE = """/runs/
/mlruns/
/mlartifacts/
/mlflow.db*
/studies.db*
/data/
/evaluation/
/comparison/
/promotion/
/faces/
/people/
/run.txt
/predictions.*
"""


def create_project(folder: Path) -> None:
    """Write `experiments/`, `MLproject`, `conda.yaml` and `.gitignore` into `folder`, which is created if it is missing.

    Raises:
        InputError: `folder` is a file, is not empty, or cannot be written. Nothing is written then.
    """
    with translate_write_errors(folder):
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: is a file; choose another folder")
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"{folder}: is not empty; choose a new folder")
        contents = _project_contents()
        folder.mkdir(parents=True, exist_ok=True)
    try:
        for name, content in contents.items():
            _write(folder / name, content)
    except BaseException:  # the next `fr-ps init` needs an empty folder
        shutil.rmtree(folder / EXPERIMENTS, ignore_errors=True)
        for name in contents:
            with suppress(OSError):
                (folder / name).unlink()
        raise


def _project_contents() -> dict[str, bytes]:
    """Path in the project folder to the content of the file."""
    source = _PROJECT_FILES if _PROJECT_FILES.is_dir() else _PACKAGE.parent
    shipped = [*sorted((source / EXPERIMENTS).rglob("*.yaml")), source / MLPROJECT]
    if len(shipped) == 1 or not shipped[-1].is_file():
        raise InputError(f"{source}: has no {EXPERIMENTS} and {MLPROJECT}; install fr-ps again")
    contents = {str(path.relative_to(source)): path.read_bytes() for path in shipped}
    return contents | {"conda.yaml": _CONDA.encode(), ".gitignore": _GITIGNORE.encode()}


def _write(path: Path, content: bytes) -> None:
    write_atomic(path, lambda file: file.write(content))
