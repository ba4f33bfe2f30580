"""The command `completion`."""

from typing import Literal

from jsonargparse import Namespace

from fr_ps.arguments import Command, Parser
from fr_ps.commands import COMMAND_ENTRIES, load_command
from fr_ps.process import unredacted_output
from fr_ps.progress import echo


def _add_completion_arguments(completion: Parser) -> None:
    completion.description = (
        "Print a script that completes commands, flags and their values. For bash: fr-ps completion bash > "
        "~/.local/share/bash-completion/completions/fr-ps"
    )
    completion.add_argument("shell", type=Literal["bash", "zsh"], help="shell that runs the script")


def _completion(arguments: Namespace) -> None:
    parser = Parser(prog="fr-ps")
    commands = parser.add_subcommands(dest="command")
    for name, (text, _) in COMMAND_ENTRIES.items():
        command = Parser()
        commands.add_subcommand(name, command, help=text)
        load_command(name).add_arguments(command)
        _use_dashes(command)
    with unredacted_output():  # the script contains no data of the user
        echo(parser.get_completion_script(f"shtab-{arguments.shell}"))


def _use_dashes(command: Parser) -> None:
    """Write flags as the documents do: --on-bad; a setting, as --data.val_people, has underscores."""
    for action in command._actions:
        action.option_strings = [flag if "." in flag else flag.replace("_", "-") for flag in action.option_strings]


COMMANDS = {"completion": Command(_add_completion_arguments, _completion)}
