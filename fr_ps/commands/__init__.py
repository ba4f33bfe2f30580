"""The commands of `fr-ps`. Each declares its arguments, calls the function that does the work, and prints its result."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fr_ps.arguments import Command

COMMAND_GROUPS = {
    "start": {
        "demo": ("a local page that shows what a model computes from a capture", "demo"),
        "init": ("make a new project folder with the shipped experiments", "init"),
        "completion": ("print a script that completes commands and flags in the shell", "completion"),
    },
    "data": {
        "calibrate": ("light directions from pictures of a mirror sphere", "calibrate"),
        "prepare": ("raw captures to a prepared data set", "prepare"),
        "data": ("summarize, check, split and create data sets", "data"),
    },
    "training": {
        "train": ("train, evaluate on test once, track", "train"),
        "search": ("find the best settings for a data set", "search"),
        "models": ("size and speed of every backbone", "models"),
    },
    "evaluation": {
        "evaluate": ("evaluate a model on a data set", "evaluate"),
        "compare": ("compare two models on the same pairs", "evaluate"),
    },
    "delivery": {
        "register": ("make a run's model a version of a registered model", "registry"),
        "promote": ("make a version the champion if it is significantly better", "registry"),
        "export": ("export a model to ONNX", "registry"),
    },
    "recognition": {
        "predict": ("embedding, quality and attributes of each session", "recognition"),
        "enroll": ("add subjects to a gallery", "recognition"),
        "identify": ("search each session in a gallery", "recognition"),
        "verify": ("compare each session with its claimed subject", "recognition"),
        "forget": ("remove a subject from a gallery", "recognition"),
    },
    "runs": {
        "runs": ("list the runs of this folder with their true status", "runs"),
        "sync": ("deliver undelivered events to MLflow", "runs"),
    },
}
"""Mapping from title in `fr-ps --help` to its commands: a mapping from name to (help text, module in this package)."""
COMMAND_ENTRIES = {name: command for commands in COMMAND_GROUPS.values() for name, command in commands.items()}


def load_command(name: str) -> "Command":
    """Import the command `name`."""
    command: Command = import_module(f"fr_ps.commands.{COMMAND_ENTRIES[name][1]}").COMMANDS[name]
    return command
