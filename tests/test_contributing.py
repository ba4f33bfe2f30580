"""The examples of CONTRIBUTING.md, applied to a copy of the project, and their tests, run there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
BLOCK = re.compile(r"^```(python|diff)\n(?:# |--- )(\S+\.py)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def apply_diff(text: str, lines: list[str]) -> str:
    """`text` with one hunk applied: ` ` and `-` before its old lines, ` ` and `+` before its new ones."""
    old = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "+")
    new = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "-")
    assert text.count(old) == 1, f"these lines stand {text.count(old)} times in the file:\n{old}"
    return text.replace(old, new)


def test_the_examples_work_together_in_a_copy_of_the_project(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "fr_ps", tmp_path / "fr_ps", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    tests = []
    for kind, name, content in BLOCK.findall(TEXT):
        file = tmp_path / name
        if kind == "diff":
            file.write_text(apply_diff(file.read_text(), content.splitlines()))
            continue
        assert not (ROOT / name).exists(), f"{name} exists: the example needs another name"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        tests += [name] if name.startswith("tests/") else []
    assert len(tests) == TEXT.count("\n### ")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_file_that_the_text_names_exists() -> None:
    shown = {name for _, name, _ in BLOCK.findall(TEXT)}
    named = set(re.findall(r"`((?:fr_ps|tests|experiments|benchmarks)/[\w./]*)`", TEXT)) - shown
    assert len(named) > 20
    assert not [name for name in named if not (ROOT / name).exists()]
