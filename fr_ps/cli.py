"""The command line: which commands there are. What a command needs is imported when it is asked for, and torch not before."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from fr_ps import __version__
from fr_ps.errors import InputError
from fr_ps.process import run_main, unredacted_output

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from fr_ps.arguments import Command

COMMANDS = {
    "prepare": ("raw captures to a prepared data set", "prepare"),
    "data": ("look at, check, split and make data sets", "data"),
    "train": ("train, evaluate on test once, track", "train"),
    "evaluate": ("score a model on data", "evaluate"),
    "compare": ("two models on the same pairs", "evaluate"),
    "search": ("find the best settings for a data set", "search"),
    "register": ("make a run's model a version of a registered model", "registry"),
    "promote": ("make a version the champion, if it is measurably better", "registry"),
    "export": ("a model as ONNX", "registry"),
    "predict": ("what a model says of each session", "recognition"),
    "enroll": ("add people to a gallery", "recognition"),
    "identify": ("who of a gallery each session is", "recognition"),
    "verify": ("whether sessions are of the person that they claim", "recognition"),
    "forget": ("remove a person from a gallery", "recognition"),
    "runs": ("runs of this folder with their true status", "runs"),
    "sync": ("deliver to MLflow what an outage held back", "runs"),
    "models": ("what every backbone costs", "models"),
}
"""Name to help, and the module of `fr_ps.commands` that has it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`; returns the exit code: 0, 2 (bad input), 130 (SIGINT).

    A fault of ours leaves as an exception (exit code 1, with its traceback), SIGTERM as SystemExit(143).
    """

    given: list[str] = []

    def run() -> None:
        with unredacted_output():  # --print_config prints settings that are to be read again
            arguments = parse_command_line(sys.argv[1:] if argv is None else argv)
        given.extend(_strings_in(arguments))
        load_command(arguments.command).run(arguments[arguments.command])

    return run_main(run, given)


def _strings_in(value: object) -> Iterator[str]:
    """Every text in parsed arguments, which may be the name of a file."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _strings_in(one)
    elif isinstance(value, dict) or hasattr(value, "__dict__"):
        for one in (value if isinstance(value, dict) else vars(value)).values():
            yield from _strings_in(one)


def load_command(name: str) -> "Command":
    """The command of that name."""
    command: Command = import_module(f"fr_ps.commands.{COMMANDS[name][1]}").COMMANDS[name]
    return command


def parse_command_line(argv: Sequence[str]) -> "Namespace":
    """What a command line says, parsed and instantiated; its `command` names the subcommand.

    Raises:
        InputError: anything wrong with it, in one line.
        SystemExit: help or the version was asked for, and printed.
    """
    name = argv[0] if argv else ""
    if name in ("-h", "--help", "--version"):
        _overview_parser().parse_args([name])
    if name not in COMMANDS:
        given = f"{name}: is no command" if name else "no command was given"
        raise InputError(f"{given}; expected one of {', '.join(COMMANDS)} (or see fr-ps --help)")
    from fr_ps.arguments import Parser, parse

    parser, declared = Parser(prog="fr-ps"), Parser()
    parser.add_subcommands(dest="command").add_subcommand(name, declared)
    load_command(name).add_arguments(declared)
    return parse(parser, argv)


def _overview_parser() -> argparse.ArgumentParser:
    """Of what stands before a command. jsonargparse, which reads the rest, takes longer to import than `--help` may take."""
    description = "Multi-task face recognition on photometric-stereo maps."
    parser = argparse.ArgumentParser(prog="fr-ps", description=description)
    parser.add_argument("--version", action="version", version=f"fr-ps {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, (text, _) in COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    return parser
