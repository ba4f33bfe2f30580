"""Which settings decide an objective: fANOVA (Hutter, Hoos, Leyton-Brown 2014)."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import create_trial

from fr_ps.search.outcome.figures.finished import Finished
from fr_ps.search.outcome.figures.setting import Setting

_DEPTH = 6
"""Of a tree. With optuna's 64 no share differs by more than 0.01, and 200 trials take three times as long."""


def setting_shares(finished: Finished, column: int) -> tuple[dict[str, float], str]:
    """How much of the spread of an objective each setting explains alone, by a forest fitted to the finished trials.

    Not with optuna's default evaluator (PED-ANOVA): it asks what sets the best tenth of the trials apart, which are two of
    twenty trainings. Optuna's fANOVA takes the settings as they are, so that of a learning rate searched from 1e-5 to 0.1 only
    the part above 0.01 counts; here it gets the places on the axis, with the logarithm taken.

    Args:
        finished: the trials.
        column: of the objective.

    Returns:
        setting to share, highest first, with sum 1, of the settings that all finished trials have; and, where that cannot be
        told, nothing and the reason.
    """
    settings, values = [setting for setting in finished.settings if setting.everywhere], finished.values[:, column : column + 1]
    if len(values) < 2:
        return {}, "fewer than two finished trials"
    if np.ptp(values) == 0:
        return {}, "all finished trials have the same value"
    if not settings:
        return {}, "no setting that every trial has"
    if not any(setting.varied for setting in settings):
        return {}, "no setting differs between the finished trials"
    evaluator = optuna.importance.FanovaImportanceEvaluator(max_depth=_DEPTH, seed=0)
    with _quiet():
        study = _study_of(settings, (values[:, 0] - values.mean()) / np.ptp(values))
        try:
            found = optuna.importance.get_param_importances(study, evaluator=evaluator, normalize=False)
        except RuntimeError:
            # No tree has a split: what varies does so too little for its numbers of single precision.
            return {}, "no setting differs enough between the finished trials"
    total = sum(found.values())
    if not total:
        return {}, "no setting explains anything alone"
    shares = {settings[int(name)].name: value / total for name, value in found.items()}
    return dict(sorted(shares.items(), key=lambda one: -one[1])), ""


def _study_of(settings: Sequence[Setting], values: np.ndarray) -> optuna.Study:
    """A study in memory with the settings, called by their indices, as places on their axes."""
    kinds: dict[str, BaseDistribution] = {
        str(index): CategoricalDistribution(tuple(range(len(setting.choices)))) if setting.choices else FloatDistribution(0, 1)
        for index, setting in enumerate(settings)
    }
    columns = [
        setting.places.astype(int) if setting.choices else np.clip(setting.scaled(setting.places), 0, 1) for setting in settings
    ]
    study = optuna.create_study()
    for value, *row in zip(values.tolist(), *(column.tolist() for column in columns)):
        study.add_trial(create_trial(params=dict(zip(kinds, row)), distributions=kinds, value=value))
    return study


@contextmanager
def _quiet() -> Iterator[None]:
    """Without optuna's word that a study was made, and its warnings of an experimental argument."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
