"""What chooses the settings of a trial, and what ends one early."""

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from fr_ps.config.search import PrunerConfig, SamplerConfig
from fr_ps.errors import InputError
from fr_ps.search.space import Space


def build_sampler(config: SamplerConfig, space: Space, seed: int, trial_number: int) -> BaseSampler:
    """The sampler of one trial: a function of the seed, the trial's number and the trials that ended, so that a study that goes
    on, or has several workers, draws nothing twice.

    Args:
        config: of the sampler.
        space: that is searched.
        seed: of the study.
        number: of the trial.
    """
    drawn = int(np.random.SeedSequence([seed, trial_number]).generate_state(1)[0])
    first = config.startup
    conditional = any(dimension.when for dimension in space.dimensions)
    builders = {
        "tpe": lambda: optuna.samplers.TPESampler(seed=drawn, n_startup_trials=first, multivariate=True, group=conditional),
        "gp": lambda: optuna.samplers.GPSampler(seed=drawn, n_startup_trials=first, warn_independent_sampling=False),
        "cmaes": lambda: optuna.samplers.CmaEsSampler(seed=drawn, n_startup_trials=first, warn_independent_sampling=False),
        "nsgaii": lambda: optuna.samplers.NSGAIISampler(seed=drawn, population_size=first),
        "random": lambda: optuna.samplers.RandomSampler(seed=drawn),
        "grid": lambda: optuna.samplers.RandomSampler(seed=drawn),  # of a grid every value is given
    }
    return builders[config.name]()


def build_pruner(config: PrunerConfig, objectives: int, epochs: int) -> BasePruner:
    """The pruner of a study; none where it has several objectives, for which Optuna knows none.

    Args:
        config: of the pruner.
        objectives: how many there are.
        epochs: that a trial has at most.

    Raises:
        InputError: a trial has no epoch beyond those that every trial gets.
    """
    if config.name == "none" or objectives > 1:
        return optuna.pruners.NopPruner()
    if config.epochs >= epochs:
        raise InputError(f"pruner.epochs is {config.epochs}; expected fewer than train.epochs ({epochs}), or pruner.name none")
    builders = {
        "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=config.startup, n_warmup_steps=config.epochs),
        "hyperband": lambda: optuna.pruners.HyperbandPruner(
            min_resource=config.epochs, max_resource=epochs, reduction_factor=config.reduction
        ),
        "successive_halving": lambda: optuna.pruners.SuccessiveHalvingPruner(
            min_resource=config.epochs, reduction_factor=config.reduction
        ),
        "wilcoxon": lambda: optuna.pruners.WilcoxonPruner(p_threshold=config.p, n_startup_steps=config.epochs),
    }
    return builders[config.name]()
