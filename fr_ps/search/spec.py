"""A search, settled before anything is trained: what the launcher and every worker of it know."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from fr_ps.config import Config, SearchConfig, flatten_dict, from_dict, to_dict
from fr_ps.config.search import COSTS, AfterConfig, BudgetConfig, PrunerConfig, SamplerConfig, StudyConfig
from fr_ps.errors import InputError
from fr_ps.evaluation.differences import lower_is_better
from fr_ps.search.space import Space, Value, parse_space

_MACHINE_SETTINGS = (
    "name",
    "device",
    "data/root",
    "train/threads",
    "train/scoring_batch",
    "train/checkpoint_minutes",
    "train/system_metrics",
)
"""Settings of the base that may differ between the machines of a study, and between its starts."""


@dataclass(frozen=True)
class StudySpec:
    """A search.

    Attributes:
        config: as the study file and the flags have it.
        base: the training that it starts from.
        space: what is searched around that.
    """

    config: SearchConfig
    base: Config
    space: Space

    @property
    def objectives(self) -> list[str]:
        """Metrics, the first of which also chooses the best epoch of a trial, if it is a metric."""
        return list(self.config.objectives)

    @property
    def trials(self) -> int:
        """How many there are to be: no more than the combinations of a grid."""
        trials = self.config.budget.trials
        return min(trials, len(self.grid)) if self.grid else trials

    @cached_property
    def grid(self) -> list[dict[str, Value]]:
        """The combinations, where the sampler is a grid."""
        return self.space.grid() if self.config.sampler.name == "grid" else []

    @property
    def epochs(self) -> int:
        """That a trial has at most."""
        searched = [one for one in self.space.dimensions if one.name == "train.epochs"]
        values = [int(value) for one in searched for value in (*one.choices, one.high)]
        return max(values, default=self.base.train.epochs)

    def definition(self) -> dict[str, Any]:
        """What makes its trials comparable: objectives, space, and the settings of the base."""
        return {"objectives": dict(self.config.objectives), "space": self.space.as_json(), "base": _shared_settings(self.base)}

    def as_json(self) -> dict[str, Any]:
        """All of it, for a worker."""
        return {"search": asdict(self.config), "base": to_dict(self.base)}


def build_study_spec(config: SearchConfig, base: Config) -> StudySpec:
    """The search of a study file, checked as far as it can be without data.

    Whether every searched setting has an effect is checked where a study begins: one that an earlier version began may go on.

    Raises:
        InputError: anything wrong with the space, a direction that makes the model worse, a grid with ranges.
    """
    for metric, direction in config.objectives.items():
        if metric not in COSTS and (direction == "minimize") != lower_is_better(metric):
            other = "minimize" if direction == "maximize" else "maximize"
            raise InputError(f"objectives.{metric} is to {direction}; expected {other}, which makes it better")
    if config.sampler.name == "cmaes" and len(config.objectives) > 1:
        raise InputError("sampler.name is 'cmaes', which knows one objective only; expected nsgaii, tpe, gp, random or grid")
    first = first_metric(config)
    if first:
        base = replace(base, train=replace(base.train, select=first))
    search = StudySpec(config, base, parse_space(config.space, base))
    _ = search.grid  # a range without steps is refused now
    return search


def _shared_settings(base: Config) -> dict[str, Any]:
    """The settings of a training that all machines of a study share, by name (`optim.lr`)."""
    return {name.replace("/", "."): value for name, value in flatten_dict(to_dict(base)).items() if name not in _MACHINE_SETTINGS}


def first_metric(config: SearchConfig) -> str:
    """The first objective that is a metric; empty if all are costs."""
    return next((metric for metric in config.objectives if metric not in COSTS), "")


def spec_from_json(tree: Mapping[str, Any]) -> StudySpec:
    """The search of which `tree` is `as_json`."""
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
    """Refuse to go on with the study `name`, whose definition is `there`, with another one.

    A setting of the base that is absent there is one that a later version added: its default is what the study began with.

    Raises:
        InputError: objectives, space or base differ; says where first.
    """
    for part in ("objectives", "space", "base"):
        before, after = stored.get(part, {}), current[part]
        if part == "base":
            before = _shared_settings(Config()) | before
        for key in (*before, *(key for key in after if key not in before)):
            if before.get(key) != after.get(key):
                what = {"objectives": "objectives", "space": "space", "base": "settings to start from"}[part]
                raise InputError(
                    f"study {name!r} has other {what}: {key} is {_shown_value(before, key)} there and "
                    f"{_shown_value(after, key)} here; its trials could not be compared: "
                    "take it as it is there, or another study.name"
                )
    _require_same_order(name, list(stored["objectives"]), list(current["objectives"]))


def _require_same_order(name: str, stored: Sequence[str], current: Sequence[str]) -> None:
    """Refuse the same objectives in another order: a trial's values are told apart by their places."""
    if list(stored) != list(current):
        raise InputError(
            f"study {name!r} has its objectives in another order: {', '.join(stored)}; take that, or another study.name"
        )


def _shown_value(part: Mapping[str, Any], key: str) -> str:
    return str(part[key]) if key in part else "absent"
