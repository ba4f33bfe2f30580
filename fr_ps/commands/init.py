"""The command `init`."""

import shlex
from pathlib import Path

from jsonargparse import Namespace

from fr_ps.arguments import Command, Parser


def _add_init_arguments(init: Parser) -> None:
    init.description = "Make a new project folder: the shipped experiments, an MLproject and a .gitignore."
    init.add_argument("folder", type=str, help="folder to create; an existing one must be empty")


def _init(arguments: Namespace) -> None:
    from fr_ps.project import create_project

    folder = Path(arguments.folder)
    create_project(folder)
    print(f"project folder: {folder}")
    print(f"train on the built-in faces: cd {shlex.quote(str(folder))} && fr-ps train --config experiments/synthetic.yaml")


COMMANDS = {"init": Command(_add_init_arguments, _init)}
