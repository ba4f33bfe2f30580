"""A space in which some trials would differ in a setting that changes nothing in them is refused, with the missing `when`."""

import itertools
from collections.abc import Iterator, Mapping

from fr_ps.config import Config, with_settings
from fr_ps.config.dependencies import CONDITIONS, Condition, get_setting
from fr_ps.errors import InputError
from fr_ps.search.space import Dimension, Space, Value, params_to_settings, parent_assignments

_MAX_COMBINATIONS = 10_000


def require_effect(space: Space, base: Config) -> None:
    """Refuse a space that samples a setting where, by the rest of the space and the base, it has no effect.

    Raises:
        InputError: names the setting, the condition that it needs, and the `when` that guarantees it.
    """
    dimensions = {one.name: one for one in space.dimensions}
    for dimension in space.dimensions:
        for condition in CONDITIONS.get(dimension.name, ()):
            failing = [
                config for config in _reachable_configs(dimension, condition, dimensions, base) if not condition.holds(config)
            ]
            if failing:
                raise InputError(
                    f"space.{dimension.name}: has an effect only where {condition.text}, and some trials would have "
                    f"{_failing_settings(failing[0], condition, dimensions)}; "
                    f"{_suggested_when(dimension, condition, dimensions, base)}"
                )


def _reachable_configs(
    dimension: Dimension, condition: Condition, dimensions: Mapping[str, Dimension], base: Config
) -> Iterator[Config]:
    """The trainings in which the dimension exists, as far as they differ in what decides the condition."""
    for context in parent_assignments(dimension, dimensions):
        free = [name for name in condition.settings if name in dimensions and name not in context and name != dimension.name]
        combinations = itertools.product(*(_candidate_values(dimensions[name], base) for name in free))
        for values in itertools.islice(combinations, _MAX_COMBINATIONS):
            try:
                yield with_settings(base, params_to_settings({**context, **dict(zip(free, values))}))
            except InputError:
                continue  # such a trial cannot be built


def _candidate_values(dimension: Dimension, base: Config) -> list[Value]:
    """The choices, or of a range its ends (its upper end alone where the lower one is not met but by chance)."""
    if dimension.choices:
        found: list[Value] = list(dimension.choices)
    else:
        ends = [dimension.low, dimension.high] if dimension.integer or dimension.step else [dimension.high]
        found = [int(end) if dimension.integer else end for end in ends]
    own = get_setting(base, dimension.name)
    return [*found, own] if dimension.when and isinstance(own, (str, int, float)) else found


def _failing_settings(config: Config, condition: Condition, dimensions: Mapping[str, Dimension]) -> str:
    searched = [name for name in condition.settings if name in dimensions] or list(condition.settings)
    return ", ".join(f"{name} {get_setting(config, name)}" for name in searched)


def _suggested_when(dimension: Dimension, condition: Condition, dimensions: Mapping[str, Dimension], base: Config) -> str:
    """The `when` to write, where one setting with choices decides; else what is left to do."""
    searched = [name for name in condition.settings if name in dimensions and name != dimension.name]
    for name in searched:
        parent = dimensions[name]
        if good := [value for value in parent.choices if _condition_holds(condition, name, value, base)]:
            when = {other: values for other, values in dimension.when.items() if other != name} | {name: tuple(good)}
            text = ", ".join(f"{other}: [{', '.join(map(_yaml_value, values))}]" for other, values in when.items())
            return f"write when: {{{text}}}"
    if searched:
        return f"search {searched[0]} by choices, and name those that are meant in a when"
    return f"take it out of the space, or set {' or '.join(condition.settings)} otherwise"


def _condition_holds(condition: Condition, name: str, value: Value, base: Config) -> bool:
    try:
        return condition.holds(with_settings(base, params_to_settings({name: value})))
    except InputError:
        return False


def _yaml_value(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
