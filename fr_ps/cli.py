"""The command line and its commands. Each command imports its modules on demand; `--help` imports no torch."""

import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from fr_ps import __version__
from fr_ps.errors import InputError
from fr_ps.help_text import did_you_mean, entry
from fr_ps.process import run_main, unredacted_output

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from fr_ps.arguments import Command

COMMAND_MODULES = {
    "init": ("make a new project folder with the shipped experiments", "init"),
    "prepare": ("raw captures to a prepared data set", "prepare"),
    "calibrate": ("light directions from pictures of a mirror sphere", "calibrate"),
    "data": ("summarize, check, split and create data sets", "data"),
    "train": ("train, evaluate on test once, track", "train"),
    "evaluate": ("evaluate a model on a data set", "evaluate"),
    "compare": ("compare two models on the same pairs", "evaluate"),
    "search": ("find the best settings for a data set", "search"),
    "register": ("make a run's model a version of a registered model", "registry"),
    "promote": ("make a version the champion if it is significantly better", "registry"),
    "export": ("export a model to ONNX", "registry"),
    "predict": ("embedding, quality and attributes of each session", "recognition"),
    "enroll": ("add subjects to a gallery", "recognition"),
    "identify": ("search each session in a gallery", "recognition"),
    "verify": ("compare each session with its claimed subject", "recognition"),
    "forget": ("remove a subject from a gallery", "recognition"),
    "demo": ("a local page that shows what a model computes from a capture", "demo"),
    "runs": ("list the runs of this folder with their true status", "runs"),
    "sync": ("deliver undelivered events to MLflow", "runs"),
    "models": ("size and speed of every backbone", "models"),
    "completion": ("print a script that completes commands and flags in the shell", "completion"),
}
"""Command to its help text and its module in `fr_ps.commands`."""
COMMAND_GROUPS = {
    "start": ("demo", "init", "completion"),
    "data": ("calibrate", "prepare", "data"),
    "training": ("train", "search", "models"),
    "evaluation": ("evaluate", "compare"),
    "delivery": ("register", "promote", "export"),
    "recognition": ("predict", "enroll", "identify", "verify", "forget"),
    "runs": ("runs", "sync"),
}
"""Title to its commands in `fr-ps --help`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`; returns the exit code: 0, 2 (bad input), 130 (SIGINT).

    An internal error propagates (exit code 1, with a traceback). SIGTERM raises SystemExit(143).
    """
    user_texts: list[str] = []

    def run() -> None:
        with unredacted_output():  # --print_config prints settings as input for another run
            arguments = parse_command_line(sys.argv[1:] if argv is None else argv)
        user_texts.extend(_strings_in(arguments))
        load_command(arguments.command).run(arguments[arguments.command])

    return run_main(run, user_texts)


def _strings_in(value: object) -> Iterator[str]:
    """All strings in the parsed arguments; they include every path that the user named."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _strings_in(one)
    elif isinstance(value, dict) or hasattr(value, "__dict__"):
        for one in (value if isinstance(value, dict) else vars(value)).values():
            yield from _strings_in(one)


def load_command(name: str) -> "Command":
    """Import the command `name`."""
    command: Command = import_module(f"fr_ps.commands.{COMMAND_MODULES[name][1]}").COMMANDS[name]
    return command


def parse_command_line(argv: Sequence[str]) -> "Namespace":
    """Parse a command line and build its config objects; `command` of the result names the subcommand.

    Raises:
        InputError: any error, in one line.
        SystemExit: after printing help or version.
    """
    name = argv[0] if argv else ""
    if name in ("-h", "--help", "--help-all", "--version"):
        print(f"fr-ps {__version__}" if name == "--version" else overview(), end="\n" if name == "--version" else "")
        raise SystemExit(0)
    if name not in COMMAND_MODULES:
        given = f"{name}: no such command" if name else "no command given"
        meant = did_you_mean(name, COMMAND_MODULES)
        raise InputError(f"{given}; {meant}expected one of {', '.join(COMMAND_MODULES)} (or see fr-ps --help)")
    from fr_ps.arguments import Parser, parse

    parser, subparser = Parser(prog="fr-ps"), Parser()
    parser.add_subcommands(dest="command").add_subcommand(name, subparser)
    load_command(name).add_arguments(subparser)
    return parse(parser, argv)


def overview() -> str:
    """The text of `fr-ps --help`."""
    lines = ["Multi-task face recognition on photometric-stereo maps.", "", "fr-ps COMMAND --help explains a command."]
    for title, names in COMMAND_GROUPS.items():
        lines += ["", f"{title}:"]
        lines += [line for name in names if name in COMMAND_MODULES for line in entry(name, COMMAND_MODULES[name][0], column=14)]
    return "\n".join([*lines, "", *entry("--version", "print the version and exit", column=14), ""])
