"""Checks before the first trial: the objectives are defined on the validation set, and every searched setting has an effect."""

import itertools
from collections.abc import Iterator, Mapping

import numpy as np

from fr_ps.config import Config, with_settings
from fr_ps.config.dependencies import CONDITIONS, Condition, get_setting
from fr_ps.config.search import COST_OBJECTIVES
from fr_ps.data.labels import ATTRIBUTES, MISSING
from fr_ps.data.splits import make_split
from fr_ps.errors import InputError
from fr_ps.search.space import Dimension, Space, Value, params_to_settings, parent_assignments
from fr_ps.search.spec import StudySpec
from fr_ps.training.prepare import metrics_of_random_predictions
from fr_ps.training.setup import open_training_data

_MAX_COMBINATIONS = 10_000


def check_data_and_objectives(spec: StudySpec) -> str:
    """Open the data set and check that every objective is defined on its validation set.

    Opening it writes its maps into the cache (see `fr_ps.data.store`), from which the trials then only read.

    Returns:
        digest of the data.

    Raises:
        InputError: unusable data or split, no validation subjects, or an objective that is undefined or has low support.
    """
    config = spec.base
    dataset = open_training_data(config, lambda _line: None)
    split = make_split(dataset.labels, config.data, dataset.left_out)
    if not len(split.val):
        raise InputError("data.val_people is 0: the objective needs validation subjects; set a share, as 0.2, or a whole number")
    labels = dataset.labels.subset(split.val)
    codes = dataset.labels.codes[split.train]
    trained = [task for column, task in zip(codes.T, ATTRIBUTES) if len(np.unique(column[column != MISSING])) > 1]
    metrics = metrics_of_random_predictions(labels, trained)
    for objective in spec.objectives:
        if objective in COST_OBJECTIVES:
            continue
        if objective not in metrics.values:
            names = ", ".join(sorted(metrics.values))
            raise InputError(f"objectives: {objective!r} is not a metric; expected some of {names}")
        if metrics.values[objective] is None or metrics.is_low_support(objective):
            raise InputError(
                f"objectives: {objective} is undefined or has low support on the validation set ({metrics.reasons[objective]}); "
                "expected another metric, or more validation subjects"
            )
    return dataset.store.digest


def require_effect(space: Space, base: Config) -> None:
    """Reject a space in which some trials sample a setting without effect.

    Raises:
        InputError: names the setting, the condition for its effect, and the `when` that ensures it.
    """
    dimensions = {one.name: one for one in space.dimensions}
    for dimension in space.dimensions:
        for condition in CONDITIONS.get(dimension.name, ()):
            failing = [
                config for config in _reachable_configs(dimension, condition, dimensions, base) if not condition.holds(config)
            ]
            if failing:
                raise InputError(
                    f"space.{dimension.name}: has an effect only where {condition.text}, but some trials have "
                    f"{_failing_settings(failing[0], condition, dimensions)}; "
                    f"{_suggested_when(dimension, condition, dimensions, base)}"
                )


def _reachable_configs(
    dimension: Dimension, condition: Condition, dimensions: Mapping[str, Dimension], base: Config
) -> Iterator[Config]:
    """The configs of the trials in which the dimension is active.

    One for each combination of values of the settings in its `when` (its parents) and of the other searched settings in
    `condition.settings`.
    """
    for assignment in parent_assignments(dimension, dimensions):
        free = [name for name in condition.settings if name in dimensions and name not in assignment and name != dimension.name]
        combinations = itertools.product(*(_candidate_values(dimensions[name], base) for name in free))
        for values in itertools.islice(combinations, _MAX_COMBINATIONS):
            try:
                yield with_settings(base, params_to_settings({**assignment, **dict(zip(free, values))}))
            except InputError:
                continue  # an invalid combination, whose trial is pruned before its training


def _candidate_values(dimension: Dimension, base: Config) -> list[Value]:
    """The values of `dimension` to try when checking whether the `Condition` of another setting holds.

    - Of choices: all.
    - Of a range of whole numbers, or with a step: both ends.
    - Of a continuous range: only the upper end. Conditions on numbers are "above 0", and a trial almost never gets exactly 0.
    - If some trials lack the dimension: also the value of the base.
    """
    if dimension.choices:
        values: list[Value] = list(dimension.choices)
    else:
        ends = [dimension.low, dimension.high] if dimension.integer or dimension.step else [dimension.high]
        values = [int(end) if dimension.integer else end for end in ends]
    base_value = get_setting(base, dimension.name)
    return [*values, base_value] if dimension.when and isinstance(base_value, (str, int, float)) else values


def _failing_settings(config: Config, condition: Condition, dimensions: Mapping[str, Dimension]) -> str:
    searched = [name for name in condition.settings if name in dimensions] or list(condition.settings)
    return ", ".join(f"{name} {get_setting(config, name)}" for name in searched)


def _suggested_when(dimension: Dimension, condition: Condition, dimensions: Mapping[str, Dimension], base: Config) -> str:
    """The remedy for the message: the `when` to write, if one searched setting with choices determines the condition."""
    searched = [name for name in condition.settings if name in dimensions and name != dimension.name]
    for name in searched:
        parent = dimensions[name]
        if good := [value for value in parent.choices if _condition_holds(condition, name, value, base)]:
            when = {other: values for other, values in dimension.when.items() if other != name} | {name: tuple(good)}
            text = ", ".join(f"{other}: [{', '.join(map(_yaml_value, values))}]" for other, values in when.items())
            return f"write when: {{{text}}}"
    if searched:
        return f"search {searched[0]} by choices, and write a when with the choices that meet the condition"
    return f"remove it from the space, or change {' or '.join(condition.settings)}"


def _condition_holds(condition: Condition, name: str, value: Value, base: Config) -> bool:
    try:
        return condition.holds(with_settings(base, params_to_settings({name: value})))
    except InputError:
        return False


def _yaml_value(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
