"""The parser under the command line: forgiving about order and dashes, one line about what is wrong."""

import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import NoReturn

from jsonargparse import ArgumentParser, Namespace

from fr_ps.config import Config
from fr_ps.errors import InputError

LIST_SETTINGS = ("--data.modalities",)


class Parser(ArgumentParser):
    """Refuses by exception, without argparse's usage block."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise _Refused(" ".join(message.split())) from ex


class _Refused(Exception):
    """jsonargparse's own words about what it refused."""


def parse(parser: ArgumentParser, argv: Sequence[str]) -> Namespace:
    """The parsed and instantiated arguments.

    Raises:
        InputError: anything wrong with them, in one line that names the setting and what it may be.
    """
    arranged = normalise(argv)
    try:
        return parser.instantiate(parser.parse_args(arranged))
    except _Refused as error:
        raise InputError(explain(str(error), arranged)) from None


def normalise(argv: Sequence[str]) -> list[str]:
    """`argv` as jsonargparse wants it.

    `--on-bad` becomes `--on_bad`; a list setting may be written as `a` or `a,b`; and `--config FILE` comes first after the
    subcommand, so that flags override it wherever they stand on the line.
    """
    config: list[str] = []
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        flag, equals, value = word.partition("=")
        if not flag.startswith("--"):
            rest.append(word)
            continue
        flag = "--" + flag[2:].replace("-", "_")
        if flag in ("--config", *LIST_SETTINGS) and not equals:
            value = next(words, None)  # type: ignore[assignment]
            if value is None:
                raise InputError(f"{flag} needs a value")
            equals = "="
        if flag in LIST_SETTINGS and not value.startswith("["):
            value = f"[{value}]"
        (config if flag == "--config" else rest).append(f"{flag}{equals}{value}")
    return rest[:1] + config + rest[1:]


def explain(message: str, argv: Sequence[str]) -> str:
    """What jsonargparse refused, in the user's terms."""
    if found := re.search(r"does not accept option '([^']+)'", message):
        return _unknown(found[1], _config_file(argv))
    if found := re.search(r"unrecognized arguments: --([\w.]+)", message):
        return _unknown(found[1], "")
    if found := re.search(r'Parser key "([^"]+)": Expected an? (.+)\. Got value: (.*)$', message):
        return f"{found[1]} is {found[3]!r}; expected {_expected(found[2])}"
    if found := re.search(r"arguments are required: (?:[\w]+\.)*(\w+)", message):
        return f"missing --{found[1]}; see --help"
    if found := re.search(r"Problems parsing config: (.*)", message):
        return f"{_config_file(argv) or 'config: '}not readable as YAML ({found[1]})"
    return re.sub(r'^Parser key "([^"]+)": ', r"\1: ", message)


def _unknown(key: str, where: str) -> str:
    group, _, _ = key.rpartition(".")
    groups = {field.name: field.default_factory for field in fields(Config) if callable(field.default_factory)}
    settings = {name: [field.name for field in fields(kind)] for name, kind in groups.items() if is_dataclass(kind)}  # type: ignore[arg-type]
    if group in settings:
        choices = ", ".join(f"{group}.{name}" for name in settings[group])
    else:
        choices = ", ".join(field.name for field in fields(Config))
    return f"{where}unknown setting {key!r}; expected one of {choices} (or see --help)"


def _expected(kind: str) -> str:
    if found := re.search(r"Literal\[(.*?)\]", kind):
        return "one of " + found[1].replace("'", "")
    names = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "dict": "a mapping"}
    found = re.search(r"<class '(\w+)'>", kind)
    return names.get(found[1], found[1]) if found else kind


def _config_file(argv: Sequence[str]) -> str:
    return next((f"{word.partition('=')[2]}: " for word in argv if word.startswith("--config=")), "")
