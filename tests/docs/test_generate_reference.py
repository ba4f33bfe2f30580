"""The reference pages are those of the present parser and dataclasses, and the site has no dead link."""

import subprocess
import sys

import pytest

from tests.test_house import ROOT


def test_the_reference_pages_are_current():
    check = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate_reference.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (check.returncode, check.stderr) == (0, "")


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    build = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert build.returncode == 0, build.stdout + build.stderr
    assert (tmp_path / "site" / "reference" / "settings.html").is_file()
