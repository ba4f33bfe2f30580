"""Checks before the first trial: the objectives are defined on the validation set, and every searched setting has an effect."""

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence, Set

import numpy as np

from fr_ps.config import Config, with_settings
from fr_ps.config.dependencies import CONDITIONS, Condition, get_setting
from fr_ps.config.search import COST_OBJECTIVES
from fr_ps.data.labels import ATTRIBUTES, MISSING
from fr_ps.data.split_files import split_text
from fr_ps.data.splits import make_split
from fr_ps.errors import InputError
from fr_ps.search.space import Dimension, Space, Value, params_to_settings
from fr_ps.search.spec import StudySpec
from fr_ps.training.prepare import metrics_of_random_predictions
from fr_ps.training.setup import open_training_data

_MAX_COMBINATIONS = 10_000


def check_data_and_objectives(spec: StudySpec) -> str:
    """Open the data set and check that every objective is defined on its validation set.

    Opening it writes its maps into the cache (see `fr_ps.data.store`), from which the trials then only read.

    Returns:
        digest of the data; with a split file (data.split), followed by a dash and the digest of its parts.

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
    if not config.data.split:
        return dataset.store.digest
    parts = hashlib.sha256(split_text(dataset.labels, split).encode()).hexdigest()[:16]
    return f"{dataset.store.digest}-{parts}"


def require_effect(space: Space, base: Config) -> None:
    """Reject a space in which some trials sample a setting without effect.

    Raises:
        InputError: names the setting, the condition for its effect, and the `when` that ensures it.
    """
    dimensions = {one.name: one for one in space.dimensions}
    for dimension in space.dimensions:
        for condition in CONDITIONS.get(dimension.name, ()):
            configs = _possible_configs(dimension, condition, space, base)
            failing = next((config for config in configs if not condition.holds(config)), None)
            if failing:
                raise InputError(
                    f"space.{dimension.name}: has an effect only where {condition.text}, but some trials have "
                    f"{_failing_settings(failing, condition, dimensions)}; "
                    f"{_suggested_when(dimension, condition, dimensions, base)}"
                )


def _possible_configs(dimension: Dimension, condition: Condition, space: Space, base: Config) -> Iterator[Config]:
    """Configs of trials in which the dimension is active.

    It varies the parents of the dimension, the searched settings in `condition.settings`, and the ancestors of all these: one
    config for each combination of their `_values_to_try`, except combinations that are invalid, up to `_MAX_COMBINATIONS`. The
    dimension itself keeps the value of the base, unless it is one of these.
    """
    varied = _add_ancestors({*dimension.when, *condition.settings}, space)
    combinations = (params for params in _combinations(varied, {}) if dimension.is_active(params))
    for params in itertools.islice(combinations, _MAX_COMBINATIONS):
        try:
            yield with_settings(base, params_to_settings(params))
        except InputError:
            continue  # an invalid combination, whose trial is pruned before its training


def _add_ancestors(names: Set[str], space: Space) -> list[Dimension]:
    """The dimensions of `names` and all their ancestors (their parents, the parents of these, ...), parents first."""
    found: list[Dimension] = []
    needed = set(names)
    for dimension in reversed(space.dimensions):
        if dimension.name in needed:
            needed |= set(dimension.when)
            found.insert(0, dimension)
    return found


def _combinations(dimensions: Sequence[Dimension], params: Mapping[str, Value]) -> Iterator[Mapping[str, Value]]:
    """`params`, extended by each combination of values of those `dimensions` that are active in it."""
    if not dimensions:
        yield params
        return
    first, rest = dimensions[0], dimensions[1:]
    if not first.is_active(params):
        yield from _combinations(rest, params)
        return
    for value in _values_to_try(first):
        yield from _combinations(rest, {**params, first.name: value})


def _values_to_try(dimension: Dimension) -> list[Value]:
    """The values of `dimension` for the check whether the `Condition` of a setting holds.

    - Of choices: all.
    - Of a range of whole numbers, or with a step: both ends.
    - Of a continuous range: only the upper end. Conditions on numbers are "above 0", and a trial almost never gets exactly 0.
    """
    if dimension.choices:
        return list(dimension.choices)
    ends = [dimension.low, dimension.high] if dimension.integer or dimension.step else [dimension.high]
    return [int(end) if dimension.integer else end for end in ends]


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
