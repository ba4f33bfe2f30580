"""Error messages of the command line: jsonargparse's in the project's form, and the place of a wrong setting in a file."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields

from fr_ps.config import Config, SearchConfig
from fr_ps.config.groups import DATA_COMMANDS, SEARCH_SETTING_GROUPS, SETTING_GROUPS, TABLE_COMMANDS
from fr_ps.errors import InputError
from fr_ps.help_text import did_you_mean

_POSITIONAL = ("folder", "session", "shell")
"""Arguments without a flag: of `init`, `data show` and `completion`."""


def translate_error(message: str, command: str, lines: Mapping[str, Mapping[str, int]], accepted: Sequence[str]) -> str:
    """The message for the user in place of jsonargparse's `message`.

    Args:
        message: of jsonargparse.
        command: that was given.
        lines: for each config file, its settings and their lines.
        accepted: all flags that the command accepts, for suggestions.
    """
    if found := re.search(r"does not accept option '([^']+)'", message):
        places = [f"{file}: line {of_file[found[1]]}" for file, of_file in lines.items() if found[1] in of_file]
        return f"{', '.join(places or lines)}: {unknown_setting(found[1], command)}"
    if found := re.search(r"unrecognized arguments: --([\w.]+)", message):
        is_data_setting = found[1].split(".")[0] in ("data", "synthetic")
        has_data_settings = command in DATA_COMMANDS and command not in TABLE_COMMANDS
        if command in ("train", "search") or (has_data_settings and is_data_setting):
            return unknown_setting(found[1], command, accepted)
        meant = did_you_mean(f"--{found[1]}".replace("_", "-"), [flag.replace("_", "-") for flag in accepted])
        return f"unknown flag --{found[1]}; {meant}see fr-ps {command} --help"
    if found := re.search(r'Parser key "([^"]+)": Expected an? (.+)\. Got value: ?(.*)$', message):
        return f"{found[1]} is {found[3]!r}; expected {_describe_type(found[2])}"
    rejected = r'Parser key "([^"]+)": .*?Not of type \w+: '
    if found := re.search(rejected + r"(\S+) does not conform to restriction (.+?)(?:; |$)", message):
        return f"--{found[1]} is {found[2]}; expected a number {found[3].replace('v', '')}"  # v>=1 and v<=64
    if found := re.search(rejected + r"invalid literal for int\(\).*?: (.+)$", message):
        return f"--{found[1]} is {found[2]}; expected a whole number"
    if found := re.search(r'"data.what" to be one of', message):
        return "data: no subcommand given; see fr-ps data --help"
    if found := re.search(r"argument what: invalid choice: '(.*?)' [(]choose from (.*)[)]", message):
        choices = re.findall(r"[a-z]+", found[2])
        return f"data {found[1]}: no such command; {did_you_mean(found[1], choices)}expected one of {', '.join(choices)}"
    if found := re.search(r"arguments are required: (?:[\w]+\.)*(\w+)", message):
        name = found[1].upper() if found[1] in _POSITIONAL else f"--{found[1]}"
        return f"missing {name}; see fr-ps {command} --help"
    return re.sub(r'^Parser key "([^"]+)": ', r"\1: ", message)


def add_location(message: str, lines: Mapping[str, Mapping[str, int]], parse_with_files: Callable[[int], object]) -> str:
    """`message`, preceded by the file and line of the setting that it begins with, if the value of that setting is from a file.

    Args:
        message: of an error, as `optim.lr is 0; expected ...` (`check_setting`).
        lines: for each config file, its settings and their lines. A file overrides those before it.
        parse_with_files: parses the settings of the first n files and the flags, and raises an InputError if they are wrong.
    """
    if message.startswith(tuple(f"{file}: " for file in lines)):
        return message
    text = message.removeprefix("--")
    named = [key for of_file in lines.values() for key in of_file if text.startswith((f"{key} is ", f"{key}: "))]
    if not named:
        return message
    key = max(named, key=len)
    count = len(lines) - 1
    while count >= 0 and _message(parse_with_files, count) == message:
        count -= 1
    # `count` is now the largest number of files without this error, so the file after them causes it; or -1 if the error comes
    # without any file too, so that a flag causes it.
    files = [file for file in list(lines)[: count + 1] if key in lines[file]]
    return f"{files[-1]}: line {lines[files[-1]][key]}: {text}" if files else message


def _message(parse_with_files: Callable[[int], object], count: int) -> str:
    try:
        parse_with_files(count)
    except InputError as error:
        return str(error)
    return ""


def unknown_setting(key: str, command: str = "", flags: Sequence[str] = ()) -> str:
    """The message for an unknown setting `key`: a similar one among all settings and `flags`, and the settings of its group."""
    group = key.split(".")[0]
    groups = SETTING_GROUPS | (SEARCH_SETTING_GROUPS if command == "search" else {})
    configs = (Config, SearchConfig) if command == "search" else (Config,)
    names = [field.name for config in configs for field in fields(config)]
    everything = [f"{group}.{name}" for group in groups for name in groups[group]]
    choices = [f"{group}.{name}" for name in groups[group]] if group in groups else names
    meant = did_you_mean(key, [*choices, *everything, *names, *(flag.removeprefix("--") for flag in flags)])
    return f"unknown setting {key!r}; {meant}expected one of {', '.join(choices)} (or see --help-all)"


def _describe_type(type_name: str) -> str:
    if found := re.search(r"Literal\[(.*?)\]", type_name):
        return "one of " + found[1].replace("'", "")
    names = {
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false",
        "str": "text",
        "dict": "a mapping",
        "list": "a list",
    }
    found = re.search(r"<class '(\w+)'>", type_name)
    return names.get(found[1], found[1]) if found else type_name
