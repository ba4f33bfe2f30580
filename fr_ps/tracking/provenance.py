"""Where a result comes from: the commit, the versions, the machine."""

import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import distributions, version
from pathlib import Path

from fr_ps.redaction import redact


def git_commit() -> str:
    """The commit of the folder that the program runs in, with `-dirty` for uncommitted changes; "unknown" without git."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return "unknown"
    return commit + ("-dirty" if _git("status", "--porcelain", "--untracked-files=no") else "")


@cache
def code_versions() -> dict[str, str]:
    """The commit, and the versions and the machine that the last bits of a training's weights may depend on.

    Of this process: asked once, as git takes a while, and the code that runs is what was there when it began.
    """
    known = {name: version(name) for name in ("torch", "numpy", "timm", "torchjd")}
    return {"commit": git_commit(), "python": platform.python_version(), "machine": platform.machine()} | known


def command_line() -> str:
    """The command line of this process, without secrets in addresses."""
    return " ".join([Path(sys.argv[0]).name, *map(redact, sys.argv[1:])])


def environment_text() -> str:
    """Python, platform, command line, and every installed distribution with its version, a line each."""
    head = [f"# python {platform.python_version()}", f"# platform {platform.platform()}", f"# command {command_line()}"]
    return "\n".join([*head, *_installed_packages()]) + "\n"


@cache
def _installed_packages() -> tuple[str, ...]:
    """Read once: half a second, and what this process has loaded is what was there when it began."""
    return tuple(sorted({f"{item.metadata['Name']}=={item.version}" for item in distributions()}, key=str.lower))


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
