"""Reads settings from YAML, with limits on size; errors name file, line and key. Text settings are not converted."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from fr_ps.config import Config, SearchConfig
from fr_ps.config.checks import is_finite_number
from fr_ps.errors import InputError, one_line

MAX_BYTES = 1 << 20
MAX_VALUES = 20_000
"""Largest number of YAML nodes of a file: keys, scalars, lists and mappings. Each use of an alias counts."""
_MAX_KEY = 200
"""Largest length of a key, as `optim.lr`, whose line is kept. A key begins with the name of its group, so thousands of settings
of a group with a very long name would fill the memory."""
MAX_DEPTH = 32
_NULL, _MERGE = "tag:yaml.org,2002:null", "tag:yaml.org,2002:merge"
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def read_settings(path: Path) -> dict[str, Any]:
    """Read the YAML file `path` as nested dictionaries, lists, numbers, booleans and text; {} for an empty file.

    YAML 1.1 reads `off` and `no` as false, `null` as None and 2026-11-28 as a date. Here all keys, and the values of settings
    that are only text or a choice, stay text. The value of any other setting becomes a boolean or a number if YAML 1.1 reads it
    as one. Otherwise it stays text, which jsonargparse converts to the type of the setting or rejects. A date stays text.
    So does `1e-3`, since a float of YAML 1.1 needs a dot (`1.0e-3`); jsonargparse makes it 0.001.

    `null` stays text for a setting that accepts text, and is an error for any other setting. A top-level key that is not
    a setting may be null: --print_config prints `resume: null`, which becomes None.

    Raises:
        InputError: the file is missing, unreadable, too large or not YAML, a key is repeated, or a setting has no value or a
            number that is not finite.
    """
    return read_settings_and_lines(path)[0]


def read_settings_and_lines(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The settings as `read_settings` returns them, and a mapping from each setting, such as `optim.lr`, to its line."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"{path}: no such config file; check the path") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable ({one_line(error)}); expected a YAML file of settings") from None
    if len(content) > MAX_BYTES:
        raise InputError(f"{path}: larger than {MAX_BYTES} bytes; expected a YAML file of settings")
    try:
        return _parse_settings(content.decode(), str(path))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not readable as YAML ({one_line(error)}); expected text in UTF-8") from None


def parse_settings(text: str, where: str) -> dict[str, Any]:
    """Like `read_settings`, for the YAML `text`; `where` is its name in error messages."""
    return _parse_settings(text, where)[0]


def _parse_settings(text: str, where: str) -> tuple[dict[str, Any], dict[str, int]]:
    tree, lines = _parse(text, where, _SETTINGS)
    if tree is None:
        return {}, {}
    if not isinstance(tree, dict):
        raise InputError(f"{where}: {type(tree).__name__} found; expected settings as `data: {{root: ...}}`")
    return tree, lines


def parse_search_space(text: str) -> Any:
    """The search space in YAML `text`, the value of the flag --space."""
    return _parse(text, "--space", _SPACE)[0]


def _parse(text: str, where: str, schema: Any) -> tuple[Any, dict[str, int]]:
    """The value of the YAML `text`, and the line of each key in it, the keys of nested mappings being joined by dots."""
    try:
        _check_size(text, where)
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None, {}
        builder = _SettingsBuilder(loader, where)
        builder.check(node)
        return builder.build(node, schema, ""), builder.lines
    except yaml.YAMLError as error:
        raise InputError(f"{where}: not readable as YAML ({one_line(error)}); correct it there") from None


def _check_size(text: str, where: str) -> None:
    """Check depth and number of values before PyYAML composes the nodes, which is recursive and slow."""
    depth = 0
    for number, event in enumerate(yaml.parse(text, yaml.SafeLoader)):
        # Stream and document have four events together, and a node has at most two. So a file within the limit
        # passes; `_SettingsBuilder.check` counts exactly.
        if number > 2 * MAX_VALUES + 4:
            raise InputError(f"{where}: has more than {MAX_VALUES} values; expected fewer")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            line = event.start_mark.line + 1 if event.start_mark else 0
            raise InputError(
                f"{where}: line {line}: nested more than {MAX_DEPTH} levels deep; expected `group: {{setting: value}}`"
            )


@dataclass(frozen=True)
class _SearchValue:
    """Schema of a YAML node that holds values of one searched setting.

    Three kinds of node have it: the setting's entry in `space`, its list `choices`, and the values listed for it in the `when`
    of another setting. The items of a list have the schema `type_hint`.

    Attributes:
        type_hint: type hint of the setting.
    """

    type_hint: Any


_SETTINGS, _SPACE, _CONDITION = "settings", "space", "condition"
"""Schemas that no type hint can express: of a whole file, of the search space, and of the `when` of a searched setting."""


class _SettingsBuilder:
    """Converts YAML nodes to settings.

    Args:
        loader: the loader that composed the nodes.
        where: file or flag, for errors.

    Attributes:
        lines: key of each value that was built, such as `optim.lr`, to its line; without keys of more than `_MAX_KEY` characters.
    """

    def __init__(self, loader: yaml.SafeLoader, where: str) -> None:
        self.loader, self.where = loader, where
        self.lines: dict[str, int] = {}

    def check(self, node: Node) -> None:
        """Check for repeated keys, unknown tags, self-references and more than `MAX_VALUES` values, aliases included."""
        if self._check_and_count(node, {}, set()) > MAX_VALUES:
            raise InputError(f"{self.where}: has more than {MAX_VALUES} values, aliases included; expected fewer")

    def _check_and_count(self, node: Node, sizes: dict[int, int], above: set[int]) -> int:
        """Check `node` and return its number of values.

        `sizes` maps the id of each node checked so far to its number of values; `above` has the ids of the nodes that contain
        `node`.
        """
        if id(node) in above:
            raise InputError(f"{self._location(node)}: contains itself by an alias; remove the alias")
        if id(node) not in sizes:
            if node.tag not in self.loader.yaml_constructors and node.tag != _MERGE:
                raise InputError(f"{self._location(node)}: {node.tag} is not a type of settings; remove the tag")
            if isinstance(node, MappingNode):
                self._check_unique_keys(node)
            sizes[id(node)] = 1 + sum(self._check_and_count(child, sizes, above | {id(node)}) for child in _children(node))
        return sizes[id(node)]

    def _check_unique_keys(self, node: MappingNode) -> None:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, ScalarNode):
                raise InputError(f"{self._location(key)}: a key is a list or a mapping; expected the name of a setting")
            if key.value in lines:
                raise InputError(f"{self._location(key)}: {key.value} is repeated (first in line {lines[key.value]}); merge both")
            lines[key.value] = key.start_mark.line + 1

    def build(self, node: Node, schema: Any, key: str) -> Any:
        """The value of a checked `node`, built from its parts, each with its own schema.

        For `optim: {lr: 0.001}` the schemas are `_SETTINGS`, then `OptimConfig`, then `float`. For
        `space: {optim.lr: {choices: [0.001]}}` they are `_SETTINGS`, `_SPACE`, `_SearchValue(float)` for both the entry and
        its list `choices`, then `float`.

        Args:
            node: of the whole file, a group of settings, or a setting.
            schema: the type hint of `node` (for a group, its class), a `_SearchValue`, or `_SETTINGS`, `_SPACE` or `_CONDITION`.
            key: the name of `node` for errors, such as `optim` or `optim.lr`; empty for the whole file.
        """
        if isinstance(node, ScalarNode):
            return self._scalar(node, schema, key)
        if isinstance(node, SequenceNode):
            return [self.build(child, _item_schema(schema), key) for child in node.value]
        assert isinstance(node, MappingNode)
        self.loader.flatten_mapping(node)  # merged keys come first: a later key overrides their value and line
        tree = {}
        for name, value in node.value:
            inner_key = f"{key}.{name.value}" if key else name.value
            if len(inner_key) <= _MAX_KEY:
                self.lines[inner_key] = name.start_mark.line + 1
            tree[name.value] = self.build(value, _value_schema(schema, name.value), inner_key)
        return tree

    def _scalar(self, node: ScalarNode, schema: Any, key: str) -> bool | int | float | str | None:
        """The value of a scalar.

        A setting that accepts text gets the text; but if it also accepts numbers, it gets a number where YAML reads one. A
        setting that accepts no text, such as a float, gets what YAML reads.
        """
        if "\0" in node.value:
            raise InputError(f"{self._location(node)}: {key} contains a null character; remove it")
        types = set(_accepted_types(schema.type_hint if isinstance(schema, _SearchValue) else schema))
        accepts_text = str in types
        is_number = node.tag in _NUMBERS
        # For a setting that accepts text, the word `null` is text too. Only a value that was left out is missing.
        is_left_out = node.tag == _NULL and not node.value
        stays_number = is_number and types & {int, float}
        if accepts_text and not stays_number and not is_left_out:
            return str(node.value)
        if node.tag == _NULL:
            self._check_null(node, schema, key)
            return None
        try:
            value = self.loader.construct_object(node)
            str(value)  # raises ValueError for an integer with too many digits, which could not be written as JSON either
        except ValueError as error:
            raise InputError(f"{self._location(node)}: {key} is not a valid value ({one_line(error, 100)}); change it") from None
        except (LookupError, AttributeError):  # a tag such as `!!int` and a text that does not fit
            raise InputError(f"{self._location(node)}: {node.value!r} does not fit its tag {node.tag}; remove the tag") from None
        if is_number and types & {int, float, bool} and not is_finite_number(value):
            raise InputError(f"{self._location(node)}: {key} is {node.value}; expected a finite number")
        return value if isinstance(value, (bool, int, float, str)) else str(node.value)  # a date stays text

    def _check_null(self, node: ScalarNode, schema: Any, key: str) -> None:
        """Check that a null is allowed: only as an empty document (`---`), or for a top-level key that is no setting."""
        may_be_flag = schema is Any and "." not in key  # such as `resume`, which --print_config prints as null
        if key and not may_be_flag:
            raise InputError(f"{self._location(node)}: {key} is {node.value or 'empty'}; give it a value, or remove it")

    def _location(self, node: Node) -> str:
        return f"{self.where}: line {node.start_mark.line + 1}"


def _children(node: Node) -> Iterator[Node]:
    if isinstance(node, SequenceNode):
        yield from node.value
    elif isinstance(node, MappingNode):
        for key, value in node.value:
            yield key
            yield value


def _accepted_types(hint: Any) -> Iterator[Any]:
    """The types of the values that the type hint accepts; `str` for choices."""
    if get_origin(hint) is Literal:
        yield from map(type, get_args(hint))
    elif get_origin(hint) in (tuple, list, dict) or not get_args(hint):
        yield get_origin(hint) or hint
    else:
        for one in get_args(hint):
            yield from _accepted_types(one)


def _item_schema(schema: Any) -> Any:
    """Type hint or schema of the items of a list."""
    if isinstance(schema, _SearchValue):
        return schema.type_hint
    return get_args(schema)[0] if get_origin(schema) in (tuple, list) else Any


def _value_schema(schema: Any, key: str) -> Any:
    """Type hint or schema of the value of `key` in a mapping."""
    if schema == _SETTINGS:  # the whole file: a key is a group, or GROUP.NAME
        return _SPACE if key == "space" else _setting_type(key, get_type_hints(SearchConfig) | get_type_hints(Config))
    if schema in (_SPACE, _CONDITION):  # a key is GROUP.NAME
        return _SearchValue(_setting_type(key, get_type_hints(Config)))
    if isinstance(schema, _SearchValue):
        return {"choices": schema, "when": _CONDITION, "low": float, "high": float, "step": float}.get(key, Any)
    if is_dataclass(schema):  # a group: a key is a setting
        return get_type_hints(schema).get(key, Any)
    return get_args(schema)[1] if get_origin(schema) is dict else Any


def _setting_type(key: str, groups: Mapping[str, Any]) -> Any:
    """Type hint of the group or setting `key`, as `optim` or `optim.lr`; `Any` for an unknown one."""
    group, _, name = key.partition(".")
    settings = groups.get(group, Any)
    if not name:
        return settings
    return get_type_hints(settings).get(name, Any) if is_dataclass(settings) else Any
