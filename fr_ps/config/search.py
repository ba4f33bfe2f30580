"""Settings of a hyperparameter search. Those of its trainings are in `Config`."""

from dataclasses import dataclass, field
from typing import Any, Literal

from fr_ps.config.checks import (
    MAX_SEED,
    MAX_STEPS,
    MAX_WEIGHT,
    check_display_name,
    check_range,
    check_registered_name,
    check_setting,
    check_types,
)

COST_OBJECTIVES = ("cost/parameters", "cost/latency")
"""Objectives beside metrics: millions of parameters, and milliseconds of inference per session."""


@dataclass(frozen=True)
class StudyConfig:
    """The Optuna study. A search with the name of an existing study resumes it.

    Args:
        name: name of the study.
        storage: database URI of the study, in SQLAlchemy's form: sqlite:///FILE for the processes of one machine,
            postgresql+psycopg2://USER:PASSWORD@HOST/DATABASE for several machines.
        seed: seed of the sampler.
        heartbeat: seconds between two heartbeats of a running trial. After four times this time without a heartbeat, the lease
            of its worker expires, and another worker retries the trial: on the same machine from the last checkpoint, on another
            machine from the start.
    """

    name: str = ""
    storage: str = "sqlite:///studies.db"
    seed: int = 0
    heartbeat: int = 15

    def __post_init__(self) -> None:
        check_types(self, "study.")
        if self.name:  # `SearchConfig` rejects an empty name
            check_display_name("study.name", self.name, max_length=200)
        shown = "***" if "@" in self.storage else self.storage  # an invalid URI may hold a password anywhere
        check_setting("://" in self.storage, "study.storage", shown, "a database URI, as sqlite:///studies.db")
        check_range(self, "study.", 0, MAX_SEED, "seed")
        check_range(self, "study.", 1, 86_400, "heartbeat")


@dataclass(frozen=True)
class SamplerConfig:
    """The sampler of the trials' settings.

    Args:
        name: tpe (tree-structured Parzen estimator), gp (Gaussian process), cmaes (CMA-ES for the numbers; choices, and
            settings with a condition, are drawn at random; one objective only), nsgaii (genetic, for several objectives),
            random, or grid (each combination once; a range needs a step, or whole numbers without log).
        startup: random trials before tpe, gp and cmaes use a model; population size of nsgaii.
    """

    name: Literal["tpe", "gp", "cmaes", "nsgaii", "random", "grid"] = "tpe"
    startup: int = 8

    def __post_init__(self) -> None:
        check_types(self, "sampler.")
        check_range(self, "sampler.", 2, MAX_STEPS, "startup")


@dataclass(frozen=True)
class PrunerConfig:
    """Early end of poor trials. Optuna does not prune studies with several objectives.

    Args:
        name: none; median: prune a trial that is worse than the median of the others at the same epoch;
            hyperband, successive_halving: the best 1 / r of the trials continue, for r times as many epochs, where r is
            `reduction`; wilcoxon: prune a trial whose epochs are significantly worse than those of the best one (signed-rank
            test, p < 0.1).
        startup: number of complete trials before median starts to prune.
        epochs: epochs of a trial before it may be pruned.
        reduction: reduction factor of hyperband and successive_halving.
    """

    name: Literal["none", "median", "hyperband", "successive_halving", "wilcoxon"] = "median"
    startup: int = 4
    epochs: int = 2
    reduction: int = 3

    def __post_init__(self) -> None:
        check_types(self, "pruner.")
        check_range(self, "pruner.", 1, MAX_STEPS, "startup", "epochs")
        check_range(self, "pruner.", 2, 1000, "reduction")


@dataclass(frozen=True)
class BudgetConfig:
    """Limits of the search; the first one reached ends it.

    Args:
        trials: complete, pruned and failed trials of the study, over all workers and starts of the search; a killed trial
            counts when its retry has ended.
        hours: hours since this start of the search, after which no further trial starts; 0: no limit.
        epochs: epochs of all trials together, after which no further trial starts; 0: no limit.
    """

    trials: int = 20
    hours: float = 0.0
    epochs: int = 0

    def __post_init__(self) -> None:
        check_types(self, "budget.")
        check_range(self, "budget.", 1, 100_000, "trials")
        check_range(self, "budget.", 0, MAX_WEIGHT, "hours", "epochs")


@dataclass(frozen=True)
class AfterConfig:
    """Final runs after the trials.

    Args:
        seeds: number of seeds with which the best settings and the base settings are trained again; only these runs are
            tested; 0: no final runs.
        register: registered model name for the best final run by validation; empty: not registered.
    """

    seeds: int = 3
    register: str = ""

    def __post_init__(self) -> None:
        check_types(self, "after.")
        check_range(self, "after.", 0, 1000, "seeds")
        if self.register:
            check_registered_name("after.register", self.register)
        check_setting(not self.register or self.seeds > 0, "after.register", self.register, "empty, as after.seeds is 0")


@dataclass(frozen=True)
class SearchConfig:
    """A hyperparameter search: a study whose trials are trainings.

    Args:
        base: config file of the base training; settings in the study file and flags override it.
        space: search space of each setting by its name: a list of choices, or {low, high} with optional `log: true` or `step`.
            With a condition, as {choices: [...], when: {OTHER: VALUE}} or {low, high, when: {OTHER: [VALUE, ...]}}, the setting
            is searched only in trials where OTHER, a setting that is in the space too, has that value or one of these values.
        objectives: metric under val/ to maximize or minimize; also cost/parameters (millions) and cost/latency
            (milliseconds per session).
    """

    base: str = ""
    space: dict[str, Any] = field(default_factory=dict)
    objectives: dict[str, Literal["maximize", "minimize"]] = field(default_factory=lambda: {"val/identity/auc": "maximize"})
    study: StudyConfig = field(default_factory=StudyConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    pruner: PrunerConfig = field(default_factory=PrunerConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    after: AfterConfig = field(default_factory=AfterConfig)

    def __post_init__(self) -> None:
        check_setting(
            bool(self.study.name), "study.name", self.study.name, "a name, which identifies the study when it is resumed"
        )
        check_setting(
            bool(self.space), "space", self.space, "a search space, as {optim.lr: {low: 0.0001, high: 0.01, log: true}}"
        )
        check_setting(bool(self.objectives), "objectives", self.objectives, "metrics, as {val/identity/auc: maximize}")
        for metric, direction in self.objectives.items():
            check_setting(direction in ("maximize", "minimize"), f"objectives.{metric}", direction, "maximize or minimize")
            known = metric.startswith("val/") or metric in COST_OBJECTIVES
            check_setting(known, "objectives", metric, f"metrics under val/ (never test/), or {' or '.join(COST_OBJECTIVES)}")
            check_setting(direction == "minimize" or metric not in COST_OBJECTIVES, f"objectives.{metric}", direction, "minimize")
