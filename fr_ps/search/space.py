"""The searched settings, each with choices or a range. Some exist only for certain values of another setting."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fr_ps.errors import InputError

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

MAX_GRID = 100_000
"""Largest number of combinations of a grid."""
Value = str | int | float | bool


@dataclass(frozen=True)
class Dimension:
    """One searched setting.

    Attributes:
        name: of the setting, as `optim.lr`.
        choices: as stored in the study, where lists are JSON text; empty for a range.
        low: lower end of the range.
        high: upper end of the range, included if the steps reach it.
        step: between neighbouring values of the range; None: every number in it, with `integer` every whole number.
        log: whether the axis is logarithmic.
        integer: whether the values are whole numbers.
        when: the condition, as parent setting to its allowed values (as stored in the study): a trial has this dimension only if
            each parent has one of its allowed values. Empty: every trial has it.
    """

    name: str
    choices: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    integer: bool = False
    when: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Choices or range, and the condition, for people."""
        if self.choices:
            text = ", ".join(map(value_text, self.choices))
        else:
            steps = f", step {self.step:g}" if self.step else ""
            text = f"{self.low:g} to {self.high:g}{steps}{', logarithmic' if self.log else ''}"
        conditions = [f"{name} is {' or '.join(map(value_text, values))}" for name, values in self.when.items()]
        return f"{text}; if {' and '.join(conditions)}" if conditions else text

    def is_active(self, params: Mapping[str, Value]) -> bool:
        """Whether a trial with these `params` has the setting."""
        return all(params.get(parent) in values for parent, values in self.when.items())

    def suggest(self, trial: "BaseTrial") -> Value:
        """The value that the trial suggests."""
        if self.choices:
            value: Value = trial.suggest_categorical(self.name, self.choices)  # type: ignore[assignment]
            return value
        if self.integer:
            return trial.suggest_int(self.name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)

    def grid_values(self) -> tuple[Value, ...]:
        """The values of the setting in a grid.

        Raises:
            InputError: the range needs a step and has none, or has too many values.
        """
        if self.choices:
            return self.choices
        if self.step is None and not (self.integer and not self.log):
            raise InputError(f"space.{self.name}: sampler grid needs a step, or choices")
        step = self.step or 1
        count = int(np.floor((self.high - self.low) / step + 1e-9)) + 1
        if count > MAX_GRID:
            raise InputError(f"space.{self.name}: has {count} values with step {step:g}; expected {MAX_GRID} or fewer")
        values = [min(self.low + i * step, self.high) for i in range(count)]
        return tuple(int(value) for value in values) if self.integer else tuple(values)


@dataclass(frozen=True)
class Space:
    """All searched settings.

    Attributes:
        dimensions: each after its parents, the settings in its `when`.
    """

    dimensions: tuple[Dimension, ...]

    def suggest(self, trial: "BaseTrial") -> dict[str, Value]:
        """The suggested values by setting name, as stored in the study; only of the settings that are active in this trial."""
        params: dict[str, Value] = {}
        for dimension in self.dimensions:
            if dimension.is_active(params):
                params[dimension.name] = dimension.suggest(trial)
        return params

    def grid(self) -> list[dict[str, Value]]:
        """Every combination once.

        Raises:
            InputError: a range needs a step and has none, or there are more than MAX_GRID combinations.
        """
        combinations: list[dict[str, Value]] = [{}]
        # Sorted by name: a resumed study has the same combinations in the same order.
        for dimension in parents_first({one.name: one for one in sorted(self.dimensions, key=lambda one: one.name)}):
            values = dimension.grid_values()
            if len(combinations) * len(values) > MAX_GRID:
                raise InputError(
                    f"space: a grid has more than {MAX_GRID} combinations ({dimension.name} alone has {len(values)}); "
                    "expected fewer values, or another sampler"
                )
            extended: list[dict[str, Value]] = []
            for params in combinations:
                active = dimension.is_active(params)
                extended += [{**params, dimension.name: value} for value in values] if active else [params]
            combinations = extended
        return combinations

    def definition(self) -> dict[str, Any]:
        """Mapping from setting to dimension, normalised so that 1 and 1.0 are equal. A resumed study must have the same."""
        return {one.name: _dimension_json(one) for one in sorted(self.dimensions, key=lambda one: one.name)}


def params_to_settings(params: Mapping[str, Value]) -> dict[str, Any]:
    """Settings of a training from the params of a trial: lists are decoded from JSON."""
    return {name: decode_choice(value) for name, value in params.items()}


def decode_choice(value: Value) -> Any:
    """The value of a stored choice: JSON text becomes a list."""
    if isinstance(value, str) and value.startswith(("[", "{")):
        with suppress(ValueError, RecursionError):  # a plain text may begin with a bracket
            return json.loads(value)
    return value


def value_text(value: Any) -> str:
    """A value of a setting: numbers with four digits, a list as `albedo+normal`, a dash for none."""
    value = decode_choice(value)
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def parents_first(dimensions: Mapping[str, Dimension]) -> list[Dimension]:
    """The dimensions, each after its parents.

    Raises:
        InputError: a parent is not in the space, or dimensions depend on each other.
    """
    ordered: dict[str, Dimension] = {}
    while len(ordered) < len(dimensions):
        ready = [one for name, one in dimensions.items() if name not in ordered and set(one.when) <= set(ordered)]
        if not ready:
            left = [one for name, one in dimensions.items() if name not in ordered]
            for one in left:
                if missing := [parent for parent in one.when if parent not in dimensions]:
                    raise InputError(
                        f"space.{one.name}: its condition `when` refers to {missing[0]}, which is not in the space; add it"
                    )
            cycle = _find_cycle({one.name: [parent for parent in one.when if parent not in ordered] for one in left})
            raise InputError(
                f"space.{cycle[0]}: the conditions `when` form a cycle ({' -> '.join([*cycle, cycle[0]])}); change one of them"
            )
        ordered |= {one.name: one for one in ready}
    return list(ordered.values())


def _find_cycle(parents: Mapping[str, Sequence[str]]) -> list[str]:
    """A cycle: each name has the next one as a parent, and the last one the first.

    Args:
        parents: name to its parents, of which it has at least one, all of them keys too.
    """
    path = [next(iter(parents))]
    while (parent := parents[path[-1]][0]) not in path:
        path.append(parent)
    return path[path.index(parent) :]


def parent_assignments(dimension: Dimension, dimensions: Mapping[str, Dimension]) -> Iterator[dict[str, Value]]:
    """Each combination of values of all ancestors of the dimension (its parents, their parents, ...) with which it is active.

    Without parents: one empty combination.
    """
    for values in itertools.product(*dimension.when.values()):
        parents = dict(zip(dimension.when, values))
        for of_parents in itertools.product(*(parent_assignments(dimensions[parent], dimensions) for parent in parents)):
            assignments = [parents, *of_parents]
            merged = {name: value for assignment in assignments for name, value in assignment.items()}
            # Two parents may have a common parent. Combinations that give it different values are left out.
            if all(assignment.items() <= merged.items() for assignment in assignments):
                yield merged


def _dimension_json(dimension: Dimension) -> dict[str, Any]:
    keys = {
        "choices": [_canonical_choice(one) for one in dimension.choices],
        "range": [] if dimension.choices else [float(dimension.low), float(dimension.high)],
        "step": float(dimension.step) if dimension.step else None,
        "log": dimension.log,
        "when": {parent: [_canonical_choice(one) for one in values] for parent, values in sorted(dimension.when.items())},
    }
    return {key: value for key, value in keys.items() if value}


def _canonical_choice(value: Value) -> str:
    """A choice as text, in which 1 and 1.0 are equal."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
