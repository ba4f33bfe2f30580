"""The specification of a study: settings, base training and space, validated before anything is trained."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from fr_ps.config import Config, SearchConfig, flatten_dict, from_dict, to_dict, without_removed
from fr_ps.config.search import COST_OBJECTIVES, AfterConfig, BudgetConfig, PrunerConfig, SamplerConfig, StudyConfig
from fr_ps.errors import InputError
from fr_ps.evaluation.metrics import lower_is_better
from fr_ps.search.space import Space, Value
from fr_ps.search.space_parser import parse_space

_MACHINE_SETTINGS = (
    "name",
    "device",
    "data/root",
    "train/threads",
    "train/checkpoint_minutes",
    "train/system_metrics",
)
"""Settings of the base that may differ between machines, and between starts of a study."""


@dataclass(frozen=True)
class StudySpec:
    """A study.

    Attributes:
        config: settings of the search.
        base: settings of the training that the search starts from.
        space: searched settings.
    """

    config: SearchConfig
    base: Config
    space: Space

    @property
    def objectives(self) -> list[str]:
        """Names of the objectives. The first metric among them also selects the best epoch of a trial."""
        return list(self.config.objectives)

    @property
    def max_trials(self) -> int:
        """Number of trials of the budget; with a grid, at most one for each combination."""
        trials = self.config.budget.trials
        return min(trials, len(self.grid)) if self.grid else trials

    @cached_property
    def grid(self) -> list[dict[str, Value]]:
        """The combinations of the sampler `grid`; empty for other samplers."""
        return self.space.grid() if self.config.sampler.name == "grid" else []

    @property
    def max_epochs(self) -> int:
        """The largest number of epochs of a trial."""
        dimension = next((one for one in self.space.dimensions if one.name == "train.epochs"), None)
        if dimension is None:
            return self.base.train.epochs
        values = [int(value) for value in dimension.choices or (dimension.high,)]
        if dimension.when:  # the trials without the dimension have the epochs of the base
            values.append(self.base.train.epochs)
        return max(values)

    def definition(self) -> dict[str, Any]:
        """Objectives, space and base. A resumed study must have the same: otherwise trials are not comparable."""
        return {"objectives": dict(self.config.objectives), "space": self.space.definition(), "base": _shared_settings(self.base)}

    def as_json(self) -> dict[str, Any]:
        """The specification as JSON, for the workers."""
        return {"search": asdict(self.config), "base": to_dict(self.base)}


def build_study_spec(config: SearchConfig, base: Config) -> StudySpec:
    """The specification of a study file, validated without data.

    Searched settings without effect are rejected later, by `checks.require_effect`, and in a new study only: an existing study
    may have been started with an earlier version of fr-ps, which accepted them.

    Raises:
        InputError: an invalid space, an objective in the wrong direction, a grid over a range that needs a step, or the sampler
            cmaes with several objectives.
    """
    for metric, direction in config.objectives.items():
        if metric not in COST_OBJECTIVES and (direction == "minimize") != lower_is_better(metric):
            other = "minimize" if direction == "maximize" else "maximize"
            raise InputError(f"objectives.{metric} is {direction}; expected {other}")
    if config.sampler.name == "cmaes" and len(config.objectives) > 1:
        raise InputError("sampler.name is 'cmaes', which supports one objective; expected nsgaii, tpe, gp, random or grid")
    first = first_metric(config)
    if first:
        base = replace(base, train=replace(base.train, select=first))
    spec = StudySpec(config, base, parse_space(config.space, base))
    _ = spec.grid  # raises for a range that needs a step
    return spec


def _shared_settings(base: Config) -> dict[str, Any]:
    """The values, by name such as `optim.lr`, of the settings that all machines of a study share."""
    return {name.replace("/", "."): value for name, value in flatten_dict(to_dict(base)).items() if name not in _MACHINE_SETTINGS}


def first_metric(config: SearchConfig) -> str:
    """The first objective that is a metric; empty where all are costs."""
    return next((metric for metric in config.objectives if metric not in COST_OBJECTIVES), "")


def spec_from_json(tree: Mapping[str, Any]) -> StudySpec:
    """The specification from its `as_json`."""
    raw = dict(tree["search"])
    groups = {
        "study": StudyConfig,
        "sampler": SamplerConfig,
        "pruner": PrunerConfig,
        "budget": BudgetConfig,
        "after": AfterConfig,
    }
    config = SearchConfig(**(raw | {name: kind(**raw[name]) for name, kind in groups.items()}))
    return build_study_spec(config, from_dict(tree["base"]))


def require_same_definition(name: str, stored: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Reject a resumed study whose definition has changed.

    Settings that are missing in the stored base were added by a later version; they count as their defaults.

    Raises:
        InputError: objectives, space or base differ; names the first difference.
    """
    for part in ("objectives", "space", "base"):
        before, after = stored.get(part, {}), current[part]
        if part == "base":
            before = _shared_settings(Config()) | without_removed(before, f"study {name!r}: ")
        for key in (*before, *(key for key in after if key not in before)):
            if before.get(key) != after.get(key):
                raise InputError(
                    f"study {name!r} has a different {part}: {key} is {_shown_value(before, key)} in the study and "
                    f"{_shown_value(after, key)} here, which makes trials incomparable; restore it, or set another study.name"
                )
    # The order must be the same too: the database stores the values of a trial by position.
    if (before := list(stored["objectives"])) != list(current["objectives"]):
        raise InputError(
            f"study {name!r} has its objectives in another order: {', '.join(before)}; restore it, or set another study.name"
        )


def _shown_value(part: Mapping[str, Any], key: str) -> str:
    return str(part[key]) if key in part else "absent"
