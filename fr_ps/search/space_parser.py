"""Parses the `space` of a study file, and checks every choice and bound against the settings."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from typing import Any, get_args, get_type_hints

import numpy as np

from fr_ps.config import Config, with_settings
from fr_ps.errors import InputError
from fr_ps.search.space import Dimension, Space, Value, decode_choice, params_to_settings, parent_assignments, parents_first

_KEYS = ("choices", "low", "high", "step", "log", "when")
_FORBIDDEN_PREFIXES = ("data.", "synthetic.", "train.seed", "train.select")
"""Settings that change the validation set, the objective or the random seed: trials could not be compared."""
_FORBIDDEN_EXCEPTIONS = ("data.modalities",)


def parse_space(raw: Mapping[str, Any], base: Config) -> Space:
    """The space of a study file.

    Args:
        raw: choices or range by setting name, from YAML.
        base: settings of the training that the search starts from.

    Raises:
        InputError: an unknown setting, a setting that cannot be searched, an invalid choice or bound, a range with low above
            high, a condition on a setting outside the space.
    """
    dimensions = {name: _parse_dimension(name, given, base) for name, given in raw.items()}
    parents_first(dimensions)  # raises for an unknown parent, which would be a KeyError below
    dimensions = {
        name: replace(one, when={parent: _match_parent_types(values, dimensions[parent]) for parent, values in one.when.items()})
        for name, one in dimensions.items()
    }
    ordered = parents_first(dimensions)
    for dimension in ordered:
        for parent, values in dimension.when.items():
            _check_condition(f"space.{dimension.name}: when.{parent}", dimensions[parent], values)
        if dimension.when and next(parent_assignments(dimension, dimensions), None) is None:
            raise InputError(
                f"space.{dimension.name}: its condition `when` never holds: no trial has all these values; expected others"
            )
    for dimension in ordered:
        _check_values(dimension, dimensions, base)
    return Space(tuple(ordered))


def _parse_dimension(name: str, given: Any, base: Config) -> Dimension:
    where = f"space.{name}"
    types = _setting_types(name, base)
    if isinstance(given, list):
        given = {"choices": given}
    if not isinstance(given, Mapping):
        raise InputError(f"{where} is {given!r}; expected a list of choices, or a mapping with low and high")
    if unknown := [key for key in given if key not in _KEYS]:
        raise InputError(f"{where}: unknown key {unknown[0]!r}; expected some of {', '.join(_KEYS)}")
    when = _parse_condition(where, given.get("when", {}))
    if "choices" in given:
        return Dimension(name, choices=_parse_choices(where, given, types), when=when)
    for key in ("low", "high"):
        if key not in given:
            raise InputError(f"{where}: has neither choices nor {key}; expected a list of choices, or low and high")
    if not types & {int, float}:
        raise InputError(f"{where}: is a range, but the setting is not a number; expected a list of choices")
    integer = float not in types
    low, high = (_parse_number(f"{where}: {key}", given[key], integer) for key in ("low", "high"))
    if low > high:
        raise InputError(f"{where}: low {low} is above high {high}; swap them")
    log = given.get("log", False)
    if not isinstance(log, bool):
        raise InputError(f"{where}: log is {log!r}; expected true or false")
    if log and low <= 0:
        raise InputError(f"{where}: low is {low}; expected a number above 0, as log is true")
    step = _parse_number(f"{where}: step", given["step"], integer) if "step" in given else None
    if step is not None and (step <= 0 or log):
        raise InputError(f"{where}: step is {step}; expected a number above 0, and no step where log is true")
    return Dimension(name, low=low, high=high, step=step, log=log, integer=integer, when=when)


def _setting_types(name: Any, base: Config) -> set[Any]:
    """The types of the setting `name`."""
    if not isinstance(name, str):
        raise InputError(f"space: {name!r} is not the name of a setting; expected GROUP.NAME, as optim.lr")
    if name in ("name", "device", "train.watch"):
        raise InputError(f"space.{name}: cannot be searched, as it is no hyperparameter; set it outside the space")
    if name.startswith(_FORBIDDEN_PREFIXES) and name not in _FORBIDDEN_EXCEPTIONS:
        effect = "it changes the validation set, the objective or the random seed"
        raise InputError(f"space.{name}: cannot be searched, as {effect}; set it outside the space")
    group, dot, leaf = name.partition(".")
    group_config = getattr(base, group, None)
    if not dot or not is_dataclass(group_config):
        groups = [one.name for one in fields(base) if is_dataclass(getattr(base, one.name))]
        raise InputError(f"space: unknown setting {name!r}; expected GROUP.NAME with a group among {', '.join(groups)}")
    hints = get_type_hints(type(group_config))
    if leaf not in hints:
        raise InputError(f"space: unknown setting {name!r}; expected one of {', '.join(f'{group}.{one}' for one in hints)}")
    return {hints[leaf], *get_args(hints[leaf])}


def _parse_choices(where: str, given: Mapping[str, Any], types: set[Any]) -> tuple[Value, ...]:
    if extra := [key for key in ("low", "high", "step", "log") if key in given]:
        raise InputError(f"{where}: has choices and {extra[0]}; expected one or the other")
    choices = given["choices"]
    if not isinstance(choices, list) or not choices:
        raise InputError(f"{where}: choices is {choices!r}; expected a list of one or more")
    if float in types and str not in types:
        choices = [_parse_number(where, choice, False) if _is_numeric_text(choice) else choice for choice in choices]
    encoded = tuple(_encode_choice(where, choice) for choice in choices)
    # Python takes True for 1; they are different choices.
    if len({(isinstance(choice, bool), choice) for choice in encoded}) < len(encoded):
        raise InputError(f"{where}: choices has a duplicate ({', '.join(map(str, encoded))}); remove it")
    return encoded


def _parse_condition(where: str, given: Any) -> dict[str, tuple[Value, ...]]:
    if not isinstance(given, Mapping):
        raise InputError(f"{where}: when is {given!r}; expected {{SETTING: [values]}}")
    when = {
        parent: tuple(_encode_choice(where, value) for value in (values if isinstance(values, list) else [values]))
        for parent, values in given.items()
    }
    for parent, values in when.items():
        if not values:
            raise InputError(f"{where}: when.{parent} is []; expected one value of it or more")
    return when


def _match_parent_types(values: Sequence[Value], parent: Dimension) -> tuple[Value, ...]:
    """The values of a condition, with numeric texts as numbers where the parent has numbers."""
    numbers = not any(isinstance(choice, str) for choice in parent.choices)
    return tuple(float(value) if numbers and _is_numeric_text(value) else value for value in values)


def _check_condition(where: str, parent: Dimension, values: Sequence[Value]) -> None:
    if not parent.choices:
        raise InputError(f"{where}: {parent.name} is a range; expected a setting with choices")
    for value in values:
        if value not in parent.choices:
            raise InputError(f"{where} is {value!r}; expected some of {', '.join(map(str, parent.choices))}")


def _check_values(dimension: Dimension, dimensions: Mapping[str, Dimension], base: Config) -> None:
    """Reject a choice or bound that is invalid with every combination of the parents' values."""
    candidates = (
        (("choice", one) for one in dimension.choices)
        if dimension.choices
        else (("low", dimension.low), ("high", dimension.high))
    )
    for key, value in candidates:
        param = {dimension.name: _to_setting_type(dimension, value)}
        for assignment in parent_assignments(dimension, dimensions):
            rejection = _rejection(base, assignment | param)
            if not rejection:
                break
        else:
            raise InputError(f"space.{dimension.name}: {key} {decode_choice(value)}: {rejection}")


def _rejection(base: Config, params: Mapping[str, Value]) -> str:
    """Why `base` with these params is invalid; empty if it is valid."""
    try:
        with_settings(base, params_to_settings(params))
    except InputError as error:
        return str(error)
    return ""


def _to_setting_type(dimension: Dimension, value: Value) -> Value:
    return int(value) if dimension.integer and not dimension.choices else value


def _is_numeric_text(value: Any) -> bool:
    """Whether `value` is a text with a number: YAML parses 1e-3, without a dot, as text."""
    with suppress(ValueError):
        return isinstance(value, str) and np.isfinite(float(value))
    return False


def _parse_number(where: str, value: Any, integer: bool) -> float:
    number = float(value) if _is_numeric_text(value) else value
    kinds = (int,) if integer else (int, float)
    # The database stores numbers as float64, which holds integers up to 2^53.
    if isinstance(number, bool) or not isinstance(number, kinds) or not abs(number) < 2.0**53:
        raise InputError(f"{where} is {value!r}; expected a {'whole ' if integer else ''}number")
    return number


def _encode_choice(where: str, value: Any) -> Value:
    """A choice as stored in the study: lists become JSON."""
    if isinstance(value, (list, dict)):
        return json.dumps(value)
    if not isinstance(value, (str, int, float, bool)):
        what = "empty" if value is None else repr(value)
        raise InputError(f"{where}: a choice is {what}; expected a text, a number, true or false, or a list")
    return value
