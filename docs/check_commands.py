"""Runs the commands of a document as they stand: the blocks fenced ```sh, in order, in one shell, in a new folder.

    python docs/check_commands.py README.md docs/tutorial/built_in_faces.md

Output and seconds of each block are printed. The shell stops at the first command that fails. `fr-ps` is the one beside the
running Python. Blocks with another fence (```text, ```console) are not run.
"""

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_END = "\x1e"
"""Printed by the shell after each block."""


def shell_blocks(text: str) -> list[str]:
    """The contents of the blocks fenced ```sh."""
    return _BLOCK.findall(text)


def run_blocks(blocks: list[str], folder: Path) -> bool:
    """Run the blocks in one shell in `folder`, printing output and seconds of each; False at the first failure."""
    script = "set -eo pipefail\n" + "".join(f"{block}printf '{_END}\\n'\n" for block in blocks)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shell = subprocess.Popen(
        ["bash", "-c", script],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"PATH": path},
    )
    assert shell.stdout
    done, started = 0, time.monotonic()
    _print_block(blocks, done)
    for line in shell.stdout:
        if line.rstrip("\n") != _END:
            print(line, end="", flush=True)
            continue
        print(f"[{time.monotonic() - started:.0f} s]", flush=True)
        done, started = done + 1, time.monotonic()
        _print_block(blocks, done)
    shell.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(shell.pid, signal.SIGTERM)  # servers that a block left running
    return done == len(blocks)


def _print_block(blocks: list[str], index: int) -> None:
    if index < len(blocks):
        print("".join(f"$ {line}\n" for line in blocks[index].splitlines()), end="", flush=True)


def main() -> int:
    """Check the named documents; the exit code is 1 if a command failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("documents", nargs="+", type=Path)
    parser.add_argument("--folder", type=Path, help="empty folder to run in; default: a temporary one")
    arguments = parser.parse_args()
    for document in arguments.documents:
        blocks = shell_blocks(document.read_text())
        print(f"--- {document}: {len(blocks)} blocks", flush=True)
        with tempfile.TemporaryDirectory() as temporary:
            folder = arguments.folder or Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            if not run_blocks(blocks, folder):
                print(f"error: {document}: a command failed; its output is above", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
