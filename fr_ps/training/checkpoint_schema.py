"""The type of a checkpoint's `state.json`: what a `Learner` and its surroundings are beside their tensors."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Interval, Len

from fr_ps.json_files import NonNegativeInt

_UInt32 = Annotated[int, Interval(ge=0, lt=1 << 32)]


@dataclass(frozen=True)
class _TrackerState:
    best: float | None
    best_epoch: NonNegativeInt
    epoch: NonNegativeInt


@dataclass(frozen=True)
class _OptimizerState:
    rates: list[float]
    plain: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class _RngState:
    """The states of numpy's and Python's Mersenne Twisters: 624 words, and behind Python's the position."""

    numpy: tuple[
        Literal["MT19937"],
        Annotated[list[_UInt32], Len(624, 624)],
        Annotated[int, Interval(ge=0, le=624)],
        Annotated[int, Interval(ge=0, le=1)],
        float,
    ]
    python: tuple[Literal[3], Annotated[list[_UInt32], Len(625, 625)], float | None]


@dataclass(frozen=True)
class _Environment:
    data: str
    split: str
    batches: NonNegativeInt


@dataclass(frozen=True)
class StateFile:
    """`Learner.snapshot` and `Keeper.write` write it; their docstrings give the meaning of the keys."""

    format: NonNegativeInt
    epoch: NonNegativeInt
    batch: NonNegativeInt
    images: NonNegativeInt
    seconds: float
    counts: dict[str, NonNegativeInt]
    bad: tuple[NonNegativeInt, NonNegativeInt]
    selections: dict[str, _TrackerState]
    validation: tuple[dict[str, float | None], dict[str, str]]
    optimizer: _OptimizerState
    rng: _RngState
    surroundings: _Environment
    journal: NonNegativeInt
