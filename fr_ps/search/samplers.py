"""Builds the sampler, which chooses the settings of a trial, and the pruner, which ends a trial early."""

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from fr_ps.config.search import PrunerConfig, SamplerConfig
from fr_ps.errors import InputError
from fr_ps.search.space import Space


def build_sampler(config: SamplerConfig, space: Space, seed: int, trial_number: int) -> BaseSampler:
    """The sampler of one trial.

    Seeded by (study seed, trial number), so no two trials draw the same random numbers, also after a restart and with several
    workers.

    Args:
        config: of the sampler.
        space: of the study.
        seed: of the study.
        trial_number: of the trial.
    """
    trial_seed = int(np.random.SeedSequence([seed, trial_number]).generate_state(1)[0])
    startup = config.startup
    conditional = any(dimension.when for dimension in space.dimensions)
    builders = {
        "tpe": lambda: optuna.samplers.TPESampler(
            seed=trial_seed, n_startup_trials=startup, multivariate=True, group=conditional
        ),
        "gp": lambda: optuna.samplers.GPSampler(seed=trial_seed, n_startup_trials=startup, warn_independent_sampling=False),
        "cmaes": lambda: optuna.samplers.CmaEsSampler(seed=trial_seed, n_startup_trials=startup, warn_independent_sampling=False),
        "nsgaii": lambda: optuna.samplers.NSGAIISampler(seed=trial_seed, population_size=startup),
        "random": lambda: optuna.samplers.RandomSampler(seed=trial_seed),
        "grid": lambda: optuna.samplers.RandomSampler(seed=trial_seed),  # the grid fixes every value
    }
    return builders[config.name]()


def build_pruner(config: PrunerConfig, num_objectives: int, max_epochs: int) -> BasePruner:
    """The pruner of a study; with several objectives one that never prunes, as Optuna supports no pruning there.

    Args:
        config: of the pruner.
        num_objectives: number of objectives.
        max_epochs: largest number of epochs of a trial.

    Raises:
        InputError: `pruner.epochs` leaves no epoch after which a trial could be pruned.
    """
    if config.name == "none" or num_objectives > 1:
        return optuna.pruners.NopPruner()
    if config.epochs >= max_epochs:
        raise InputError(
            f"pruner.epochs is {config.epochs}; expected fewer than train.epochs ({max_epochs}), or pruner.name none"
        )
    builders = {
        "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=config.startup, n_warmup_steps=config.epochs),
        "hyperband": lambda: optuna.pruners.HyperbandPruner(
            min_resource=config.epochs, max_resource=max_epochs, reduction_factor=config.reduction
        ),
        "successive_halving": lambda: optuna.pruners.SuccessiveHalvingPruner(
            min_resource=config.epochs, reduction_factor=config.reduction
        ),
        "wilcoxon": lambda: optuna.pruners.WilcoxonPruner(n_startup_steps=config.epochs),
    }
    return builders[config.name]()
