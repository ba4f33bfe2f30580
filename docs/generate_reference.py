"""Writes docs/reference/commands.md and settings.md from the parser and the settings dataclasses.

python docs/generate_reference.py            # write
python docs/generate_reference.py --check    # exit code 1 if a page is not current
"""

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from docstring_parser import parse

from fr_ps.arguments import Parser
from fr_ps.commands import COMMAND_ENTRIES, load_command
from fr_ps.config import Config, PrepareConfig, SearchConfig
from fr_ps.errors import InputError

REFERENCE = Path(__file__).parent / "reference"
_NOTE = "<!-- Written by docs/generate_reference.py: edit the docstrings and help texts of fr_ps, then run it again. -->\n"


def settings_page() -> str:
    """The page of every setting of `train`, `prepare` and `search`."""
    lines = [
        "# Settings",
        "",
        _NOTE,
        "A YAML file gives settings by group (`optim: {lr: 0.001}`), a flag gives one (`--optim.lr 0.001`). Flags override the",
        "file. `fr-ps train --config FILE --print_config` prints all of them resolved. MLflow has them as params `group/name`.",
        "Text settings keep `off`, `no` and 2026-11-28 as text. A key without a value and a duplicate key are errors.",
        "",
        "Some settings act only with others. A training prints a note for each setting without effect.",
    ]
    for title, config in (("Training", Config), ("Search", SearchConfig), ("Preparation", PrepareConfig)):
        lines += ["", f"## {title}", ""]
        if title == "Search":
            lines += ["All settings of a training, and these. The file: [Study file](study_file.md).", ""]
        if title == "Preparation":
            lines += ["Flags of `fr-ps prepare`.", ""]
        for group, cls in _groups(config):
            lines += _group_lines(group, cls, title)
    return "\n".join(lines) + "\n"


def _groups(config: type) -> Iterator[tuple[str, type]]:
    """The dataclass itself, for its own settings, then each of its groups; groups shared with a training only once."""
    yield "", config
    for field, hint in get_type_hints(config).items():
        if is_dataclass(hint) and not (config is SearchConfig and field in get_type_hints(Config)):
            yield field, hint


def _group_lines(group: str, cls: type, title: str) -> list[str]:
    texts = {param.arg_name: param.description or "" for param in parse(cls.__doc__ or "").params}
    hints = get_type_hints(cls)
    rows = [field for field in fields(cls) if not is_dataclass(hints[field.name]) and field.name in texts]
    if not rows:
        return []
    summary = (cls.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    lines = [f"### {group}", "", " ".join(summary.split()), ""] if group else []
    lines += ["| setting | type and range | default | meaning |", "|---|---|---|---|"]
    for field in rows:
        name = f"{group}.{field.name}" if group else field.name
        flag = f"--{field.name.replace('_', '-')}" if title == "Preparation" else name
        kind = "; ".join(filter(None, (_type_text(hints[field.name]), _range_text(cls, field.name, hints[field.name]))))
        lines.append(f"| `{flag}` | {kind} | {_default_text(field)} | {_cell(texts[field.name])} |")
    return [*lines, ""]


def _range_text(cls: type, name: str, hint: Any) -> str:
    """The allowed range of a number, from the error message of a value far outside; empty if there is none."""
    if hint not in (int, float):
        return ""
    required = {field.name: "x" for field in fields(cls) if field.default is MISSING and field.default_factory is MISSING}
    for value in (10**15, -(10**15)):
        try:
            cls(**required, **{name: hint(value)})
        except InputError as error:
            setting, _, expected = str(error).partition("; expected ")
            if expected and setting.split(" is ")[0].rsplit(".", 1)[-1].lstrip("-").replace("-", "_") == name:
                return _cell(re.sub(r"^(an? )?(integer|number),? ?", "", expected))
    return ""


def _type_text(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return _cell(" ".join(f"`{value}`" for value in arguments))
    if origin is dict:
        return (
            f"{_type_text(arguments[0])} to {_type_text(arguments[1])}"
            if get_origin(arguments[0]) is not Literal
            else (f"name to {_type_text(arguments[1])}")
        )
    if origin in (tuple, list):
        return f"list of {_type_text(arguments[0])}"
    if origin is not None and (origin is Union or str(origin) == "<class 'types.UnionType'>"):
        return " or ".join(_type_text(one) for one in arguments if one is not type(None))
    if hasattr(hint, "__metadata__"):
        return _type_text(arguments[0])
    return {str: "text", int: "integer", float: "number", bool: "`true` `false`"}.get(hint, getattr(hint, "__name__", "text"))


def _default_text(field: Any) -> str:
    value = field.default_factory() if field.default_factory is not MISSING else field.default
    if value is MISSING:
        return "required"
    if value in ("", None):
        return "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`"


def _cell(text: str) -> str:
    """The text in one line, safe in a table of Markdown."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def commands_page() -> str:
    """The page of every command and its flags."""
    lines = [
        "# Commands",
        "",
        _NOTE,
        "`fr-ps X`, `python -m fr_ps X` and `mlflow run . -e X` are the same; `-P a.b=value` is `--a.b value`.",
        "Without conda, `mlflow run` needs `--env-manager local`, and the virtual environment's `bin` first on PATH.",
        "A run is named by its id or its MLflow id, of which four or more of the first characters are enough if no other run has",
        "them, or by its folder. `--help` explains the main flags and names the others, `--help-all` explains all.",
        "",
        "| exit code | meaning |",
        "|---|---|",
        "| 0 | success |",
        "| 1 | internal error, with a traceback |",
        "| 2 | bad input or settings: one line that names the file, row or key and the remedy |",
        "| 130, 143 | Ctrl-C, SIGTERM: after the step is finished and a checkpoint is written; a second Ctrl-C stops at once |",
    ]
    for name, (text, _) in COMMAND_ENTRIES.items():
        lines += ["", f"## {name}", "", text[0].upper() + text[1:] + "."]
        parser = Parser(prog=f"fr-ps {name}")
        load_command(name).add_arguments(parser)
        lines += _command_lines(parser)
    return "\n".join(lines) + "\n"


def _command_lines(parser: Any) -> list[str]:
    subcommands = next((action for action in parser._actions if hasattr(action, "_name_parser_map")), None)
    if subcommands:
        lines = []
        for name, parser_of_name in subcommands._name_parser_map.items():
            lines += [
                "",
                f"### {parser.prog.split()[-1]} {name}",
                "",
                parser_of_name.description or "",
                *_flag_lines(parser_of_name),
            ]
        return lines
    return _flag_lines(parser)


def _flag_lines(parser: Any) -> list[str]:
    rows, grouped = [], False
    for action in parser._actions:
        flag = next((one for one in action.option_strings if one.startswith("--")), action.dest)
        if flag in ("--help", "--help_all", "--print_config"):
            continue
        if "." in flag or (action.help or "").startswith("Path to a configuration"):
            grouped = True
            continue
        hidden = action.default in (None, "", "==SUPPRESS==") or isinstance(action.default, dict)
        default = "" if hidden else f" Default: `{_plain(action.default)}`."
        choices = _type_text(action.type) if get_origin(getattr(action, "type", None)) is Literal else ""
        if not choices and hasattr(action, "_typehint") and get_origin(action._typehint) is Literal:
            choices = _type_text(action._typehint)
        default = (f" One of {choices}." if choices else "") + default
        rows.append(f"| `{flag.replace('_', '-')}` | {_cell(re.sub(r' *[(]required.*', '', action.help or ''))}{default} |")
    lines = ["", "| flag | meaning |", "|---|---|", *rows] if rows else []
    if grouped:
        lines += ["", "Also every setting of the groups in [Settings](settings.md), as `--optim.lr 0.001`."]
    return lines


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


PAGES = {"settings.md": settings_page, "commands.md": commands_page}


def main() -> int:
    """Write or check the pages."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare only")
    check = parser.parse_args().check
    outdated = [
        name for name, page in PAGES.items() if not (REFERENCE / name).is_file() or (REFERENCE / name).read_text() != page()
    ]
    if check and outdated:
        print(f"not current: {', '.join(outdated)}; run python docs/generate_reference.py", file=sys.stderr)
        return 1
    for name in outdated:
        (REFERENCE / name).write_text(PAGES[name]())
    return 0


if __name__ == "__main__":
    sys.exit(main())
