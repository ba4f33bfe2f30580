"""Where a result comes from."""

import subprocess

from fr_ps.tracking.provenance import environment_text, git_commit


def test_the_commit_is_gits_and_marks_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert git_commit() == "unknown"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "a").write_text("1")
    subprocess.run([*git, "add", "a"], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert git_commit() == head
    (tmp_path / "a").write_text("2")
    assert git_commit() == head + "-dirty"


def test_the_environment_lists_the_versions_in_use():
    import numpy

    assert f"numpy=={numpy.__version__}" in environment_text().splitlines()
