"""What is searched: settings of a training with their choices or ranges, some only where another one has a certain value."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Protocol, get_args, get_type_hints

import numpy as np

from fr_ps.config import Config, with_settings
from fr_ps.errors import InputError

_KEYS = ("choices", "low", "high", "step", "log", "when")
_FORBIDDEN = ("data.", "synthetic.", "train.seed", "train.select", "train.watch")
"""Whoever searched these would choose whom to be judged on, or luck."""
_ALLOWED = ("data.modalities",)

Value = str | int | float | bool


MAX_GRID = 100_000
"""Combinations of a grid."""


class Trial(Protocol):
    """What chooses values: a trial of Optuna, or anything that does the same."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...


@dataclass(frozen=True)
class Dimension:
    """One setting that is searched.

    Attributes:
        name: of the setting, as `optim.lr`.
        choices: as they stand in the study, where lists are JSON text; empty for a range.
        low: of the range.
        high: of it, included.
        step: between its values; None: any number.
        log: whether its logarithm is searched.
        whole: whether its values are whole numbers.
        when: other setting to the values of it (as they stand in the study) with which this one exists.
    """

    name: str
    choices: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    integer: bool = False
    when: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)

    def is_active(self, params: Mapping[str, Value]) -> bool:
        """Whether a trial with these `params` has it."""
        return all(params.get(parent) in values for parent, values in self.when.items())

    def suggest(self, trial: Trial) -> Value:
        """The trial's value of it."""
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        if self.integer:
            return trial.suggest_int(self.name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)

    def values(self) -> tuple[Value, ...]:
        """All that a grid tries.

        Raises:
            InputError: it is a range without steps.
        """
        if self.choices:
            return self.choices
        if self.step is None and not (self.integer and not self.log):
            raise InputError(f"space.{self.name}: sampler grid needs a step, or choices, instead of a whole range")
        step = self.step or 1
        count = int(np.floor((self.high - self.low) / step + 1e-9)) + 1
        if count > MAX_GRID:
            raise InputError(f"space.{self.name}: has {count} values with step {step:g}; expected {MAX_GRID} or fewer")
        found = [min(self.low + i * step, self.high) for i in range(count)]
        return tuple(int(value) for value in found) if self.integer else tuple(found)


@dataclass(frozen=True)
class Space:
    """All that is searched.

    Attributes:
        dimensions: a setting after those that it depends on.
    """

    dimensions: tuple[Dimension, ...]

    def suggest(self, trial: Trial) -> dict[str, Value]:
        """The trial's value of each setting that exists in it, as it stands in the study."""
        params: dict[str, Value] = {}
        for dimension in self.dimensions:
            if dimension.is_active(params):
                params[dimension.name] = dimension.suggest(trial)
        return params

    def grid(self) -> list[dict[str, Value]]:
        """Every combination once.

        Raises:
            InputError: a range has no step.
        """
        found: list[dict[str, Value]] = [{}]
        # In the order of their names, so that a study that goes on has the same combinations in the same places.
        for dimension in _parents_first({one.name: one for one in sorted(self.dimensions, key=lambda one: one.name)}):
            values = dimension.values()
            if len(found) * len(values) > MAX_GRID:
                raise InputError(
                    f"space: a grid has more than {MAX_GRID} combinations ({dimension.name} alone has {len(values)}); "
                    "expected fewer values, or another sampler"
                )
            found = [
                {**params, **({dimension.name: value} if dimension.is_active(params) else {})}
                for params in found
                for value in (values if dimension.is_active(params) else values[:1])
            ]
        return found

    def as_json(self) -> dict[str, Any]:
        """Setting to what is searched of it, as it is compared when a study goes on; whether a value is 1 or 1.0 is no matter."""
        return {one.name: _dimension_json(one) for one in sorted(self.dimensions, key=lambda one: one.name)}


def params_to_settings(params: Mapping[str, Value]) -> dict[str, Any]:
    """Settings of a training from a trial's params: choices that are lists come as lists."""
    return {name: decode_choice(value) for name, value in params.items()}


def parse_space(raw: Mapping[str, Any], base: Config) -> Space:
    """The space of a study file, checked against the settings that it is searched around.

    Raises:
        InputError: an unknown setting, one that must not be searched, a choice or a bound that the setting refuses, a range
            whose low is above its high, a condition on something that is not searched.
    """
    dimensions = {name: _parse_dimension(name, given, base) for name, given in raw.items()}
    _parents_first(dimensions)  # whose refusals come first
    dimensions = {
        name: replace(one, when={parent: _match_parent_types(values, dimensions[parent]) for parent, values in one.when.items()})
        for name, one in dimensions.items()
    }
    ordered = _parents_first(dimensions)
    for dimension in ordered:
        for parent, values in dimension.when.items():
            _check_condition(f"space.{dimension.name}: when.{parent}", dimensions[parent], values)
        if dimension.when and next(parent_assignments(dimension, dimensions), None) is None:
            raise InputError(
                f"space.{dimension.name}: when can never hold, as what it names is in no trial together; expected other values"
            )
    for dimension in ordered:
        _check_values(dimension, dimensions, base)
    return Space(tuple(ordered))


def _parse_dimension(name: str, given: Any, base: Config) -> Dimension:
    where = f"space.{name}"
    kind = _setting_types(name, base)
    if isinstance(given, list):
        given = {"choices": given}
    if not isinstance(given, Mapping):
        raise InputError(f"{where} is {given!r}; expected a list of choices, or a mapping with low and high")
    if unknown := [key for key in given if key not in _KEYS]:
        raise InputError(f"{where}: unknown key {unknown[0]!r}; expected some of {', '.join(_KEYS)}")
    when = _parse_condition(where, given.get("when", {}))
    if "choices" in given:
        return Dimension(name, choices=_parse_choices(where, given, kind), when=when)
    for key in ("low", "high"):
        if key not in given:
            raise InputError(f"{where}: has neither choices nor {key}; expected a list of choices, or low and high")
    if not kind & {int, float}:
        raise InputError(f"{where}: is a range, but the setting is no number; expected a list of choices")
    whole = float not in kind
    low, high = (_parse_number(f"{where}: {key}", given[key], whole) for key in ("low", "high"))
    if low > high:
        raise InputError(f"{where}: low {low} is above high {high}; exchange them")
    log = given.get("log", False)
    if not isinstance(log, bool):
        raise InputError(f"{where}: log is {log!r}; expected true or false")
    if log and low <= 0:
        raise InputError(f"{where}: low is {low}; expected a number above 0, as log is true")
    step = _parse_number(f"{where}: step", given["step"], whole) if "step" in given else None
    if step is not None and (step <= 0 or log):
        raise InputError(f"{where}: step is {step}; expected a number above 0, and no step where log is true")
    return Dimension(name, low=low, high=high, step=step, log=log, integer=whole, when=when)


def _setting_types(name: Any, base: Config) -> set[Any]:
    """The types that the setting `name` may have."""
    if not isinstance(name, str):
        raise InputError(f"space: {name!r} is no name of a setting; expected GROUP.NAME, as optim.lr")
    if name in ("name", "device") or (name.startswith(_FORBIDDEN) and name not in _ALLOWED):
        raise InputError(f"space.{name}: is not searched, as it decides who is judged, or is luck; set it beside the space")
    group, dot, leaf = name.partition(".")
    of_group = getattr(base, group, None)
    if not dot or not is_dataclass(of_group):
        groups = [one.name for one in fields(base) if is_dataclass(getattr(base, one.name))]
        raise InputError(f"space: unknown setting {name!r}; expected GROUP.NAME with a group among {', '.join(groups)}")
    hints = get_type_hints(type(of_group))
    if leaf not in hints:
        raise InputError(f"space: unknown setting {name!r}; expected one of {', '.join(f'{group}.{one}' for one in hints)}")
    return {hints[leaf], *get_args(hints[leaf])}


def _parse_choices(where: str, given: Mapping[str, Any], kind: set[Any]) -> tuple[Value, ...]:
    if extra := [key for key in ("low", "high", "step", "log") if key in given]:
        raise InputError(f"{where}: has choices and {extra[0]}; expected one or the other")
    choices = given["choices"]
    if not isinstance(choices, list) or not choices:
        raise InputError(f"{where}: choices is {choices!r}; expected a list of one or more")
    if float in kind and str not in kind:
        choices = [_parse_number(where, choice, False) if _is_numeric_text(choice) else choice for choice in choices]
    labels = tuple(_encode_choice(where, choice) for choice in choices)
    if len({(isinstance(label, bool), label) for label in labels}) < len(labels):
        raise InputError(f"{where}: choices has one twice ({', '.join(map(str, labels))}); remove it")
    return labels


def _parse_condition(where: str, given: Any) -> dict[str, tuple[Value, ...]]:
    if not isinstance(given, Mapping):
        raise InputError(f"{where}: when is {given!r}; expected {{SETTING: [values]}}")
    found = {
        parent: tuple(_encode_choice(where, one) for one in (values if isinstance(values, list) else [values]))
        for parent, values in given.items()
    }
    for parent, values in found.items():
        if not values:
            raise InputError(f"{where}: when.{parent} is []; expected one value of it or more")
    return found


def _parents_first(dimensions: Mapping[str, Dimension]) -> list[Dimension]:
    ordered: dict[str, Dimension] = {}
    while len(ordered) < len(dimensions):
        ready = [one for name, one in dimensions.items() if name not in ordered and set(one.when) <= set(ordered)]
        if not ready:
            left = [one for name, one in dimensions.items() if name not in ordered]
            for one in left:
                if missing := [parent for parent in one.when if parent not in dimensions]:
                    raise InputError(f"space.{one.name}: when names {missing[0]}, which is not in the space; put it there")
            names = ", ".join(left[0].when)
            raise InputError(f"space.{left[0].name}: when names settings that depend on it in turn ({names}); expected others")
        ordered |= {one.name: one for one in ready}
    return list(ordered.values())


def _match_parent_types(values: Sequence[Value], parent: Dimension) -> tuple[Value, ...]:
    """Values of a condition, texts that are numbers as these where the setting that they are of has numbers."""
    numbers = not any(isinstance(choice, str) for choice in parent.choices)
    return tuple(float(value) if numbers and _is_numeric_text(value) else value for value in values)


def _check_condition(where: str, parent: Dimension, values: Sequence[Value]) -> None:
    if not parent.choices:
        raise InputError(f"{where}: {parent.name} is a range; expected a setting with choices")
    for value in values:
        if value not in parent.choices:
            raise InputError(f"{where} is {value!r}; expected some of {', '.join(map(str, parent.choices))}")


def _check_values(dimension: Dimension, dimensions: Mapping[str, Dimension], base: Config) -> None:
    """Refuse a value that the setting refuses whatever the settings that it depends on are."""
    tried = (
        (("choice", one) for one in dimension.choices)
        if dimension.choices
        else (("low", dimension.low), ("high", dimension.high))
    )
    for what, value in tried:
        refusal = None
        for context in parent_assignments(dimension, dimensions):
            try:
                with_settings(base, params_to_settings({**context, dimension.name: _to_setting_type(dimension, value)}))
                refusal = None
                break
            except InputError as error:
                refusal = error
        if refusal:
            raise InputError(f"space.{dimension.name}: {what} {decode_choice(value)}: {refusal}")


def parent_assignments(dimension: Dimension, dimensions: Mapping[str, Dimension]) -> Iterator[dict[str, Value]]:
    """The values of the settings that it depends on, also through others, with which it exists."""
    for values in itertools.product(*dimension.when.values()):
        own = dict(zip(dimension.when, values))
        for above in itertools.product(*(list(parent_assignments(dimensions[parent], dimensions)) for parent in own)):
            if all(
                context.get(name, value) == value for context in above for other in (own, *above) for name, value in other.items()
            ):
                yield {name: value for context in above for name, value in context.items()} | own


def _to_setting_type(dimension: Dimension, value: Value) -> Value:
    return int(value) if dimension.integer and not dimension.choices else value


def _is_numeric_text(value: Any) -> bool:
    """Whether it is a text that is a number: YAML takes 1e-3, without a dot, for text."""
    with suppress(ValueError):
        return isinstance(value, str) and np.isfinite(float(value))
    return False


def _parse_number(where: str, value: Any, integer: bool) -> float:
    number = float(value) if _is_numeric_text(value) else value
    kinds = (int,) if integer else (int, float)
    # Beyond 2^53 a number of the database is no longer the whole number that was meant.
    if isinstance(number, bool) or not isinstance(number, kinds) or not abs(number) < 2.0**53:
        raise InputError(f"{where} is {value!r}; expected a {'whole ' if integer else ''}number")
    return number


def _encode_choice(where: str, value: Any) -> Value:
    """A choice as it stands in the study."""
    if isinstance(value, (list, dict)):
        return json.dumps(value)
    if not isinstance(value, (str, int, float, bool)):
        what = "empty" if value is None else repr(value)
        raise InputError(f"{where}: a choice is {what}; expected a text, a number, true or false, or a list")
    return value


def decode_choice(value: Value) -> Any:
    if isinstance(value, str) and value.startswith(("[", "{")):
        with suppress(ValueError, RecursionError):  # a text may begin like that
            return json.loads(value)
    return value


def _dimension_json(dimension: Dimension) -> dict[str, Any]:
    found = {
        "choices": [_canonical_choice(one) for one in dimension.choices],
        "range": [] if dimension.choices else [float(dimension.low), float(dimension.high)],
        "step": dimension.step and float(dimension.step),
        "log": dimension.log,
        "when": {parent: [_canonical_choice(one) for one in values] for parent, values in sorted(dimension.when.items())},
    }
    return {key: value for key, value in found.items() if value}


def _canonical_choice(value: Value) -> str:
    """A choice as text, in which 1 and 1.0 are the same."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
