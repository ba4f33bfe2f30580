"""A setting of a study as an axis: where each trial stands on it, and what is written beside it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from fr_ps.search.outcome.figures.text import choice_names, shortened

NOT_SET = "not set"
"""What stands where a trial lacks the setting."""


@dataclass(frozen=True)
class Setting:
    """One setting over the n finished trials, as places on an axis.

    Attributes:
        name: of the setting.
        places: (n,) the number, or its log10 if `log`, or the index of the choice; NaN where a trial lacks the setting.
        low: where the range that was searched begins, as a place.
        high: where it ends.
        log: whether the axis is logarithmic.
        choices: of a categorical setting, whole; none of a number.
        labels: the choices as they stand on an axis, shortened.
    """

    name: str
    places: np.ndarray
    low: float
    high: float
    log: bool = False
    choices: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    @property
    def everywhere(self) -> bool:
        """Whether every finished trial has it."""
        return not np.isnan(self.places).any()

    @property
    def varied(self) -> bool:
        """Whether two finished trials differ in it."""
        return len(np.unique(self.places)) > 1

    def scaled(self, places: np.ndarray) -> np.ndarray:
        """Places from 0 at the low end to 1 at the high one; 0.5 where the range is a single value."""
        return (places - self.low) / (self.high - self.low) if self.high > self.low else places - self.low + 0.5

    def text(self, place: float) -> str:
        """What stands at a place, as people write it."""
        if math.isnan(place):
            return NOT_SET
        return self.labels[int(place)] if self.choices else f"{10**place if self.log else place:.6g}"

    def ticks(self) -> list[tuple[float, str]]:
        """Places to be marked on the axis, with their text."""
        if self.choices:
            return [(float(index), self.labels[index]) for index in range(0, len(self.labels), math.ceil(len(self.labels) / 12))]
        marked = self._marked() if self.high > self.low else [self.low]
        return [(place, self.text(place)) for place in marked or [self.low, self.high]]

    def _marked(self) -> list[float]:
        """Round numbers in the range, as places: powers of ten if there are two of them on a logarithmic axis."""
        if self.log:
            decades = list(range(math.ceil(self.low), math.floor(self.high) + 1))
            if len(decades) >= 2:
                return [float(decade) for decade in decades[:: math.ceil(len(decades) / 6)]]
        low, high = (10**self.low, 10**self.high) if self.log else (self.low, self.high)
        whole = bool(np.all(self.places[~np.isnan(self.places)] % 1 == 0)) and not self.log
        found = MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=whole).tick_values(low, high)
        inside = [float(value) for value in found if low <= value <= high]
        return [math.log10(value) for value in inside] if self.log else inside


def setting_of(name: str, trials: Sequence[FrozenTrial]) -> Setting:
    """The setting called `name` over the n trials, of which one at least has it."""
    having = [(row, trial.params[name], trial.distributions[name]) for row, trial in enumerate(trials) if name in trial.params]
    places = np.full(len(trials), np.nan)
    searched = [distribution for _, _, distribution in having]
    if any(isinstance(distribution, CategoricalDistribution) for distribution in searched):
        # By repr, as 1, 1.0 and True are equal to Python, and "1" is none of them.
        known = {repr(choice): choice for one in searched for choice in getattr(one, "choices", ())}
        known |= {repr(value): value for _, value, _ in having}
        order = {key: index for index, key in enumerate(known)}
        for row, value, _ in having:
            places[row] = order[repr(value)]
        whole = choice_names(known)
        return Setting(name, places, 0.0, len(whole) - 1.0, choices=whole, labels=shortened(whole))
    numbers = [distribution for distribution in searched if isinstance(distribution, (FloatDistribution, IntDistribution))]
    log = all(distribution.log for distribution in numbers)
    for row, value, _ in having:
        places[row] = math.log10(value) if log else value
    # The widest range, as it may be changed between two sessions of a study.
    low, high = min(float(one.low) for one in numbers), max(float(one.high) for one in numbers)
    return Setting(name, places, math.log10(low) if log else low, math.log10(high) if log else high, log)
