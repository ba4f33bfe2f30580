"""The text of `--help` and `--help-all`: flags in groups, without usage and types, in 100 columns; similar names for errors."""

import argparse
import re
import textwrap
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin

_MAIN_SETTINGS = {
    "data": "root modalities labels protocol val_people test_people folds fold split",
    "synthetic": "people sessions",
    "augment": "flip crop rotation",
    "batch": "people sessions",
    "model": "backbone channels weights linear",
    "fusion": "name branches frozen",
    "loss": "weighting identity_loss adversarial",
    "optim": "name lr weight_decay",
    "schedule": "name warmup_epochs",
    "train": "epochs seed select patience precision",
    "study": "name storage",
    "sampler": "name",
    "pruner": "name",
    "budget": "trials hours",
    "after": "seeds",
}
"""Group to the settings that `--help` explains; it only names the others of the group."""
_WIDTH, _COLUMN = 100, 26
_LOADERS = ("_ActionConfigLoad",)
"""Actions of jsonargparse for whole groups, as --data FILE; a config file has all groups."""


class HelpAllAction(argparse.Action):
    """The flag --help-all: print all settings with their whole texts, and exit."""

    def __init__(self, option_strings: list[str], **_: Any) -> None:
        text = "show all settings with their whole texts, and exit"
        super().__init__(option_strings, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, nargs=0, help=text)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(help_text(parser, everything=True), end="")
        parser.exit()


def help_text(parser: argparse.ArgumentParser, everything: bool = False) -> str:
    """The help of a command.

    Args:
        parser: of the command.
        everything: explain all settings, with their whole texts.
    """
    lines = _wrap(parser.description or "", _WIDTH)
    has_settings = any("." in _flag(one) for one in parser._actions)
    for group in parser._action_groups:
        actions = [one for one in group._group_actions if not _is_hidden(one, has_settings, everything)]
        if not actions:
            continue
        is_settings = all("." in _flag(one) for one in actions)
        title = (
            f"{_flag(actions[0]).partition('.')[0]}.*: {group.title}"
            if is_settings
            else str(group.title).removeprefix("positional ")
        )
        lines += ["", *_wrap(title.rstrip(".:") + ":", _WIDTH)]
        if isinstance(actions[0], argparse._SubParsersAction):
            lines += [line for one in actions[0]._choices_actions for line in entry(one.dest, one.help or "")]
            continue
        shown = actions if everything else [one for one in actions if _is_main(one)]
        for action in shown:
            lines += entry(_label(action), _text(action, everything))
        if others := [_flag(one).removeprefix("--") for one in actions if one not in shown]:
            lines += textwrap.wrap(f"also {', '.join(others)}", _WIDTH, initial_indent="  ", subsequent_indent="    ")
    return "\n".join([*lines, ""])


def entry(label: str, text: str, column: int = _COLUMN) -> Iterator[str]:
    """The lines of a flag or command: its label, and beside it, from `column` on, its text."""
    wrapped = _wrap(text, _WIDTH - column) or [""]
    first = f"  {label}"
    if len(first) + 2 > column:
        yield first
    else:
        yield f"{first:{column}}{wrapped.pop(0)}".rstrip()
    for line in wrapped:
        yield " " * column + line


def _wrap(text: str, width: int) -> list[str]:
    """The text in lines. Commands as `fr-ps` are not broken."""
    return textwrap.wrap(text, width, break_on_hyphens=False)


def _is_hidden(action: argparse.Action, has_settings: bool, everything: bool) -> bool:
    if action.help == argparse.SUPPRESS or type(action).__name__ in _LOADERS:
        return True
    return (isinstance(action, HelpAllAction) and not has_settings) or (_flag(action) == "--print_config" and not everything)


def _is_main(action: argparse.Action) -> bool:
    group, _, name = _flag(action).removeprefix("--").partition(".")
    return not name or name in _MAIN_SETTINGS.get(group, "").split()


def _flag(action: argparse.Action) -> str:
    return next((one for one in action.option_strings if one.startswith("--")), action.dest)


def _label(action: argparse.Action) -> str:
    flag = _flag(action)
    if "." in flag or flag in ("--help", "--print_config") or action.nargs in (0, "?"):
        return flag if "." in flag else flag.replace("_", "-")
    name = action.dest.split(".")[-1].upper()
    return f"{flag.replace('_', '-')} {name}" if action.option_strings else name


def _text(action: argparse.Action, everything: bool) -> str:
    """The help of a flag, with its choices and its default."""
    text = " ".join((action.help or "").replace("%%", "%").split()).rstrip(".")
    hint = getattr(action, "_typehint", None)
    choices = [str(one) for one in get_args(hint)] if get_origin(hint) is Literal else []
    if not everything and "." in _flag(action):
        text = text.split(". ")[0]
    if choices and not all(re.search(rf"\b{re.escape(one)}\b", text) for one in choices):
        text += f"; one of {', '.join(choices)}"
    if action.required:
        return f"{text} (required)"
    default = _default(action.default)
    return text + (f" (default: {default})" if default else "")


def _default(value: Any) -> str:
    """The default as it is written in a flag; empty for none."""
    if value in (None, "", argparse.SUPPRESS) or value == {} or value == ():
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """A question with the choice that is spelt most like `name`, for an error message; empty if none is similar."""
    close = get_close_matches(name, dict.fromkeys(choices), n=1)
    return f"did you mean {close[0]}? " if close else ""
