"""The type of a checkpoint's `state.json`: what a `Learner` and its surroundings are beside their tensors."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Interval, Len

from fr_ps.json_files import Count

_Word = Annotated[int, Interval(ge=0, lt=1 << 32)]


@dataclass(frozen=True)
class _Selection:
    best: float | None
    best_epoch: Count
    epoch: Count


@dataclass(frozen=True)
class _Optimizer:
    rates: list[float]
    plain: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class _Generators:
    """The states of numpy's and Python's Mersenne Twisters: 624 words, and behind Python's the position."""

    numpy: tuple[
        Literal["MT19937"],
        Annotated[list[_Word], Len(624, 624)],
        Annotated[int, Interval(ge=0, le=624)],
        Annotated[int, Interval(ge=0, le=1)],
        float,
    ]
    python: tuple[Literal[3], Annotated[list[_Word], Len(625, 625)], float | None]


@dataclass(frozen=True)
class _Surroundings:
    data: str
    split: str
    batches: Count


@dataclass(frozen=True)
class State:
    """`Learner.snapshot` and `Keeper.write` write it; their docstrings give the meaning of the keys."""

    format: Count
    epoch: Count
    batch: Count
    images: Count
    seconds: float
    counts: dict[str, Count]
    bad: tuple[Count, Count]
    selections: dict[str, _Selection]
    validation: tuple[dict[str, float | None], dict[str, str]]
    optimizer: _Optimizer
    rng: _Generators
    surroundings: _Surroundings
    journal: Count
