"""Settings of a search, beside those of the training that it starts from."""

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

COSTS = ("cost/parameters", "cost/latency")
"""Objectives that are no metric: millions of parameters, and milliseconds that the network takes to answer about one session."""


@dataclass(frozen=True)
class StudyConfig:
    """The study, which goes on where it was when it is started again by the same name.

    Args:
        name: of the study.
        storage: database of the studies, as an address of SQLAlchemy: sqlite:///FILE for the processes of one machine,
            postgresql+psycopg2://USER:PASSWORD@HOST/DATABASE for several machines.
        seed: of the sampler.
        heartbeat: seconds between two signs of life of a worker. One that gave none for four times as long is taken for
            dead, and its trial is done by another.
    """

    name: str = ""
    storage: str = "sqlite:///studies.db"
    seed: int = 0
    heartbeat: int = 15

    def __post_init__(self) -> None:
        check_types(self, "study.")
        if self.name:  # a search needs one
            check_display_name("study.name", self.name, max_length=200)
        shown = "***" if "@" in self.storage else self.storage  # what is no address may hold a password in any place
        check_setting("://" in self.storage, "study.storage", shown, "an address, as sqlite:///studies.db")
        check_range(self, "study.", 0, MAX_SEED, "seed")
        check_range(self, "study.", 1, 86_400, "heartbeat")


@dataclass(frozen=True)
class SamplerConfig:
    """What chooses the settings of the next trial.

    Args:
        name: tpe (tree-structured Parzen estimator), gp (Gaussian process), cmaes (for numbers), nsgaii (genetic; for several
            objectives), random, or grid (each combination once; ranges need a step).
        startup: trials with random settings before tpe, gp and cmaes begin to learn from them; the size of a generation of
            nsgaii.
    """

    name: Literal["tpe", "gp", "cmaes", "nsgaii", "random", "grid"] = "tpe"
    startup: int = 8

    def __post_init__(self) -> None:
        check_types(self, "sampler.")
        check_range(self, "sampler.", 2, MAX_STEPS, "startup")


@dataclass(frozen=True)
class PrunerConfig:
    """What ends a trial early. There is none where a study has several objectives: Optuna has no pruning for these.

    Args:
        name: none; median (a trial whose best epoch is worse than the median of the others at that epoch); hyperband and
            successive_halving (only the best 1 / reduction go on to reduction times as many epochs); wilcoxon (a trial whose
            epochs are significantly worse than those of the best trial, by the signed-rank test).
        startup: trials that run to their end before median begins to prune.
        epochs: that every trial gets.
        reduction: of hyperband and successive_halving.
        p: of wilcoxon; the larger, the sooner a trial is pruned.
    """

    name: Literal["none", "median", "hyperband", "successive_halving", "wilcoxon"] = "median"
    startup: int = 4
    epochs: int = 2
    reduction: int = 3
    p: float = 0.1

    def __post_init__(self) -> None:
        check_types(self, "pruner.")
        check_range(self, "pruner.", 1, MAX_STEPS, "startup", "epochs")
        check_range(self, "pruner.", 2, 1000, "reduction")
        check_setting(0 < self.p < 1, "pruner.p", self.p, "above 0 and below 1")


@dataclass(frozen=True)
class BudgetConfig:
    """When the search is over: at whichever comes first.

    Args:
        trials: of the study, however many workers and starts it takes; finished, pruned, and failed for good.
        hours: after which this start begins no further trial; 0: no limit.
        epochs: of all trials together after which no further trial begins; 0: no limit.
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
    """What comes after the trials.

    Args:
        seeds: the best settings and those of the base are trained once more with so many seeds each, and only these are
            tested; 0: neither.
        register: name in the registry for the best of them by validation; empty: none.
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
    """A search for the best settings of a training: a study whose trials are trainings.

    Args:
        base: file of the training that it starts from; settings of a training beside these here, or as flags, override it.
        space: setting, as optim.lr, to what is searched: a list of choices, or {low, high} with perhaps `log: true` or a
            `step`; with `when: {model.backbone: [irse50]}` only where another setting of the space has one of these values.
        objectives: metric under val/ to maximize or minimize; also cost/parameters (millions) and cost/latency
            (milliseconds a session).
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
            bool(self.study.name), "study.name", self.study.name, "a name, under which the study goes on when started again"
        )
        check_setting(
            bool(self.space), "space", self.space, "settings to search, as {optim.lr: {low: 0.0001, high: 0.01, log: true}}"
        )
        check_setting(bool(self.objectives), "objectives", self.objectives, "metrics, as {val/identity/auc: maximize}")
        for metric, direction in self.objectives.items():
            check_setting(direction in ("maximize", "minimize"), f"objectives.{metric}", direction, "maximize or minimize")
            known = metric.startswith("val/") or metric in COSTS
            check_setting(known, "objectives", metric, f"metrics under val/ (never test/), or {' or '.join(COSTS)}")
            check_setting(direction == "minimize" or metric not in COSTS, f"objectives.{metric}", direction, "minimize")
