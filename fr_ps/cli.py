"""The command line and its commands. Each command imports its modules on demand; `--help` imports no torch."""

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fr_ps import __version__
from fr_ps.commands import COMMAND_ENTRIES, COMMAND_GROUPS, load_command
from fr_ps.errors import InputError
from fr_ps.help_text import did_you_mean, entry
from fr_ps.process import run_main, unredacted_output

if TYPE_CHECKING:
    from jsonargparse import Namespace


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`; returns the exit code: 0, 2 (bad input), 130 (SIGINT).

    An internal error propagates (exit code 1, with a traceback). SIGTERM raises SystemExit(143).
    """
    user_texts: list[str] = []  # filled by `run`; `run_main` reports an OSError about a path among them as bad input

    def run() -> None:
        # --print_config prints during the parsing. Its output is not redacted: URLs in the settings keep their secrets, so that
        # the output works as a config file.
        with unredacted_output():
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
    if name not in COMMAND_ENTRIES:
        given = f"{name}: no such command" if name else "no command given"
        meant = did_you_mean(name, COMMAND_ENTRIES)
        raise InputError(f"{given}; {meant}expected one of {', '.join(COMMAND_ENTRIES)} (or see fr-ps --help)")
    from fr_ps.arguments import Parser, parse

    parser, subparser = Parser(prog="fr-ps"), Parser()
    parser.add_subcommands(dest="command").add_subcommand(name, subparser)
    load_command(name).add_arguments(subparser)
    return parse(parser, argv)


def overview() -> str:
    """The text of `fr-ps --help`."""
    lines = ["Multi-task face recognition on photometric-stereo maps.", "", "fr-ps COMMAND --help explains a command."]
    for title, commands in COMMAND_GROUPS.items():
        lines += ["", f"{title}:"]
        lines += [line for name, (text, _) in commands.items() for line in entry(name, text, column=14)]
    return "\n".join([*lines, "", *entry("--version", "print the version and exit", column=14), ""])
