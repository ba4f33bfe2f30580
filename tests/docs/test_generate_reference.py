"""The reference pages are those of the present parser and dataclasses, and the site has no dead link."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_repository import ROOT


def test_the_reference_pages_are_current():
    check = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate_reference.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (check.returncode, check.stderr) == (0, "")


def build_site(folder: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build with --strict. Without --quiet: it drops the warnings before --strict counts them."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    build = build_site(ROOT, tmp_path / "site")
    assert build.returncode == 0, build.stdout + build.stderr
    assert (tmp_path / "site" / "reference" / "settings.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("link", ["reference/no_such_page.md", "reference/settings.md#no-such-anchor"])
def test_a_dead_link_is_an_error(link, tmp_path):
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    for name in ("docs", "fr_ps"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "docs" / "index.md").open("a") as page:
        page.write(f"\n[a link]({link})\n")
    build = build_site(tmp_path, tmp_path / "site")
    assert build.returncode == 1, build.stdout + build.stderr
    assert link.rsplit("/", 1)[-1] in build.stderr


def test_make_docs_counts_warnings():
    (command,) = re.findall(r"mkdocs build.*", (ROOT / "Makefile").read_text())
    assert "--strict" in command
    assert "--quiet" not in command
