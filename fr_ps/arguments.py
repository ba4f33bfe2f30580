"""The parser of the command line: flags in any order with - or _ between words, settings from YAML files, errors in one line."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import ClosedUnitInterval, restricted_number_type

from fr_ps.argument_errors import add_location, translate_error, unknown_setting
from fr_ps.config import Config, without_removed
from fr_ps.config.checks import MAX_BATCH, MAX_PROCESSES, MAX_STEPS
from fr_ps.config.groups import DATA_COMMANDS, SEARCH_SETTING_GROUPS, SETTING_GROUPS
from fr_ps.config.yaml_files import parse_search_space, read_settings_and_lines
from fr_ps.errors import InputError
from fr_ps.help_text import HelpAllAction, help_text
from fr_ps.tracking.run_folder import CONFIG_FILE, RUNS_FOLDER

_LIST_FLAGS = ("--data.modalities", "--model.order", "--train.watch")
"""Flags with a list, which may be written as `a` or `a,b`."""
_COMMAND_LINE_ONLY = ("config", "resume", "allow_changed", "processes")
"""Flags that are not settings. jsonargparse would accept them in a config file, so `_read_config` rejects them there."""
_TEXT_SETTINGS = ("only", "classes")
"""Data settings whose values are cells of a table. They stay text, whereas YAML reads `no` as false and 01 as 1."""

BatchSize = restricted_number_type("BatchSize", int, [(">=", 1), ("<=", MAX_BATCH)])
Processes = restricted_number_type("Processes", int, [(">=", 1), ("<=", MAX_PROCESSES)])
Count = restricted_number_type("Count", int, [(">=", 1), ("<=", MAX_STEPS)])
Port = restricted_number_type("Port", int, [(">=", 1), ("<=", 65535)])
ImageSize = restricted_number_type("ImageSize", int, [(">=", 8), ("<=", 4096)])
UnitInterval = ClosedUnitInterval
Cosine = restricted_number_type("Cosine", float, [(">=", -1), ("<=", 1)])
"""Types of bounded numbers."""


class Parser(ArgumentParser):
    """A parser that raises its errors, without a usage message, and accepts no abbreviated flags."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**({"allow_abbrev": False} | settings))
        self.add_argument("--help_all", action=HelpAllAction)

    def format_help(self, *_: Any) -> str:
        return help_text(self)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise _ParseError(" ".join(message.split())) from ex


@dataclass(frozen=True)
class Command:
    """A command of `fr-ps`.

    Attributes:
        add_arguments: adds description and arguments to its parser.
        run: runs it with the parsed arguments.
    """

    add_arguments: Callable[[Parser], None]
    run: Callable[[Namespace], None]


class _ParseError(Exception):
    """An error message of jsonargparse."""


_SettingsOfFiles = dict[str, tuple[dict[str, Any], dict[str, int]]]
"""Config file to its settings, and to the lines in which they are: setting, such as `optim.lr`, to line number."""


def add_switch(parser: ArgumentParser, name: str, help: str) -> None:
    """Add the flag --NAME, with or without `true` or `false`; off by default."""
    parser.add_argument(f"--{name}", type=bool, nargs="?", const=True, default=False, help=help)


def add_overwrite_flag(parser: ArgumentParser) -> None:
    """Add the flag that allows a command to replace what `fr_ps.outputs` protects."""
    add_switch(parser, "overwrite", "replace an output that fr-ps did not write, or that was changed since")


def add_shard_flags(parser: ArgumentParser) -> None:
    """Add the flags that do one part of the work, and that join all parts; see `fr_ps.shards`."""
    parser.add_argument("--shard", type=str, default=None, help="do part I of N only, as 3/16; run all parts, then --merge")
    add_switch(parser, "merge", "join the results of all shards; give the other flags as for the shards")


def add_model_flag(parser: ArgumentParser) -> None:
    """Add the required flag that names a model."""
    parser.add_argument("--model", type=str, required=True, help="run id, models:/NAME/VERSION, models:/NAME@ALIAS, or folder")


def add_device_flag(parser: ArgumentParser) -> None:
    """Add the flag that names the device."""
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")


def add_engine_flag(parser: ArgumentParser) -> None:
    """Add the flag that names the engine of the predictions."""
    parser.add_argument(
        "--engine", type=str, default=None, help="torch, or onnx (ONNX Runtime on the CPU); default: FR_PS_ENGINE, else torch"
    )


def add_batch_flag(parser: ArgumentParser) -> None:
    """Add the flag with the batch size of inference."""
    parser.add_argument("--batch", type=BatchSize, default=64, help="sessions per batch")


def parse(parser: ArgumentParser, argv: Sequence[str]) -> Namespace:
    """Parse the arguments of a command and build the config object of each group, which checks its values.

    - `--on-bad` and `--on_bad` are the same flag; a list may be written as `a` or `a,b`.
    - Flags override the settings of `--config FILE`, in any order. `config` of the result is the list of files.
    - `--resume RUN` loads the `config.yaml` of that run. `resume` of the result is the name of its folder.

    Raises:
        InputError: any error, in one line with the setting and its expected values, and the file and line of the setting.
    """
    rest, run_folder = _extract_resume(argv)
    tokens, config_files = _normalize_flags(rest)
    if run_folder:
        if config_files:
            raise InputError(
                f"--config {config_files[0]}: a resumed run has its own settings; leave out --config, and give changes as flags "
                "(under mlflow run: -e resume -P run=RUN)"
            )
        tokens.append(f"--resume={run_folder.name}")
        config_files = [str(run_folder / CONFIG_FILE)]
    depth = 2 if tokens[:1] == ["data"] else 1
    words, flags = tokens[:depth], tokens[depth:]
    command = " ".join(words)
    files = _read_configs(config_files, command, tokens)
    lines = {file: lines_of_file for file, (_, lines_of_file) in files.items()}
    # The settings of the files are passed as JSON text, which `--config` of jsonargparse accepts in place of a file name. Flags
    # come after them and override them.
    config_flags = [
        f"--config={json.dumps(_select_settings(settings, command, file, lines[file]))}" for file, (settings, _) in files.items()
    ]

    def parse_with_files(count: int, flags: Sequence[str]) -> Namespace:
        """Parse and check the settings of the first `count` files and the flags."""
        try:
            arguments = parser.instantiate(parser.parse_args(words + config_flags[:count] + list(flags)))
        except _ParseError as error:
            raise InputError(translate_error(str(error), command, lines, _accepted_flags(parser, command))) from None
        if command in ("train", "search"):
            training_config(arguments[command])  # checks the groups against each other
        return arguments

    try:
        arguments = parse_with_files(len(files), flags)
    except InputError as error:
        # `add_location` parses again with fewer files. --print_config and --help are left out there: after a parse without error,
        # they would print and end the process.
        printing = ("--print_config", "--help", "-h")
        checked_flags = [flag for flag in flags if not flag.startswith(printing)]
        raise InputError(add_location(str(error), lines, lambda count: parse_with_files(count, checked_flags))) from None
    if config_files:
        arguments[".".join([*words, "config"])] = config_files  # jsonargparse got their settings, not their names
    return arguments


def training_config(arguments: Namespace) -> Config:
    """The `Config` of parsed `arguments`, which hold its groups separately. `Config` checks the groups against each other."""
    return Config(**{field.name: arguments[field.name] for field in fields(Config)})


def _normalize_flags(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Two lists: the arguments in jsonargparse's form, without `--config FILE`; and those config files."""
    tokens: list[str] = []
    config_files: list[str] = []
    rest = iter(argv)
    for token in rest:
        flag, equals, value = token.partition("=")
        if not flag.startswith("--"):
            tokens.append(token)
            continue
        flag = "--" + flag[2:].replace("-", "_")
        is_text = flag.startswith("--data.") and flag.split(".")[1] in _TEXT_SETTINGS  # also a flag such as --data.only.COLUMN
        handles_value = is_text or flag in ("--config", "--space", *_LIST_FLAGS)
        if not handles_value:
            tokens.append(f"{flag}{equals}{value}")
            continue
        if not equals:
            value = next(rest, "")
        if not value:
            raise InputError(f"{flag} needs a value")
        if flag == "--config":
            config_files.append(value)
        elif flag == "--space":
            tokens.append(f"{flag}={json.dumps(parse_search_space(value))}")
        elif is_text:
            tokens.append(f"{flag}={_quote_scalars(value)}")
        else:
            tokens.append(f"{flag}={value if value.startswith('[') else f'[{value}]'}")
    return tokens, config_files


def _extract_resume(argv: Sequence[str]) -> tuple[list[str], Path | None]:
    """The arguments without `--resume RUN`, and the folder of that run.

    The folder is None without the flag. For `--resume` without RUN it is that of the last interrupted training.
    """
    tokens: list[str] = []
    folder = None
    rest = list(argv)
    while rest:
        token = rest.pop(0)
        flag, equals, run = token.partition("=")
        if flag != "--resume" or argv[0] != "train":
            tokens.append(token)
            continue
        if not equals and rest and not rest[0].startswith("--"):
            equals, run = "=", rest.pop(0)
        if equals and not run:
            raise InputError("--resume is empty; expected a run id, or the flag alone for the last interrupted training")
        from fr_ps.tracking.listing import find_resumable_run  # not needed for --help

        folder = find_resumable_run(run, RUNS_FOLDER)
    return tokens, folder


def _read_configs(config_files: Sequence[str], command: str, tokens: Sequence[str]) -> _SettingsOfFiles:
    """The settings of each file, and their lines. A later file overrides those before it.

    For `search`, the file of the base training comes first, so that all others override it.
    """
    in_order = list(dict.fromkeys(reversed(config_files)))[::-1]  # a file that is given twice has its later position
    files = {file: _read_config(Path(file)) for file in in_order}
    base = _find_base(files, tokens) if command == "search" else None
    return {base: _read_config(Path(base))} | files if base else files


def _find_base(files: _SettingsOfFiles, tokens: Sequence[str]) -> str | None:
    """The file of a study's base training: the last `--base` flag; without one, the last `base` in the config files."""
    bases = [settings["base"] for settings, _ in files.values() if settings.get("base")]
    for place, token in enumerate(tokens):
        if token.startswith("--base="):
            bases.append(token.partition("=")[2])
        elif token == "--base":
            bases += tokens[place + 1 : place + 2]
    if bases and not isinstance(bases[-1], str):
        raise InputError(f"base is {bases[-1]!r}; expected a config file of a training, as experiments/synthetic.yaml")
    return bases[-1] if bases else None


def _quote_scalars(value: str) -> str:
    """A YAML mapping or list with all scalars quoted; any other text unchanged."""
    try:
        found = yaml.load(value, Loader=yaml.BaseLoader)  # as safe as safe_load: creates text, lists and mappings only
    except yaml.YAMLError:
        return value
    return json.dumps(found) if isinstance(found, (dict, list)) else value


def _select_settings(settings: dict[str, Any], command: str, file: str, lines: Mapping[str, int]) -> dict[str, Any]:
    """The settings of a config file that `command` gets: all of them; for a data command only those that it accepts."""
    if command not in DATA_COMMANDS:
        return settings
    # The parser of a data command accepts data settings only. Other settings are removed, after a check for misspelt names.
    known = [field.name for field in fields(Config)] + [
        f"{group}.{name}" for group in SETTING_GROUPS for name in SETTING_GROUPS[group]
    ]
    given = list(settings) + [f"{group}.{name}" for group in SETTING_GROUPS for name in settings.get(group, {})]
    for key in given:
        if key not in known:
            raise InputError(f"{file}: {f'line {lines[key]}: ' if key in lines else ''}{unknown_setting(key)}")
    data = {name: value for name, value in settings.get("data", {}).items() if name in DATA_COMMANDS[command]}
    return {"data": data, "synthetic": settings.get("synthetic", {})}


def _read_config(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Read the settings in a YAML file, and their lines. A key `optim.lr` becomes `lr` in the group `optim`.

    Rejected are: a group that is not a mapping; a setting that is given both as `optim.lr` and within `optim`; a removed setting
    (`without_removed`); and a flag that is not a setting, such as `resume`, unless it is off (null or false).

    jsonargparse then checks names and types, and the config classes check the values.
    """
    settings, lines = read_settings_and_lines(path)
    settings = without_removed(settings, f"{path}: ")
    groups = SETTING_GROUPS | SEARCH_SETTING_GROUPS
    for key, value in settings.items():
        if key in groups and not isinstance(value, dict):
            raise InputError(f"{path}: {key} is {value!r}; expected settings among {', '.join(groups[key])}")
        if key in _COMMAND_LINE_ONLY and value:  # not null or false, as --print_config prints flags that are off
            flag = key.replace("_", "-")
            raise InputError(f"{path}: {key} is not a setting; use the flag --{flag}")
    for key in [key for key in settings if key.count(".") == 1 and key.split(".")[0] in groups]:
        group, name = key.split(".")  # `data.root: x` is `data: {root: x}`
        if name in settings.get(group, {}):
            where = f"{path}: line {lines[key]}" if key in lines else str(path)
            raise InputError(f"{where}: {key} is repeated, once within {group}; remove one of them")
        settings.setdefault(group, {})[name] = settings.pop(key)
    data = settings.get("data", {})
    if isinstance(data.get("modalities"), str):
        data["modalities"] = [data["modalities"]]
    return settings, lines


def _accepted_flags(parser: ArgumentParser, command: str) -> list[str]:
    """All flags that a command accepts."""
    for name in command.split():
        if parser._subcommands_action and name in parser._subcommands_action._name_parser_map:
            parser = parser._subcommands_action._name_parser_map[name]
    return [flag for flag in parser._option_string_actions if flag.startswith("--")]
