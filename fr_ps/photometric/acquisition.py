"""Lights and bit depth of captures in a few numbers, and the comparison of new captures with those of the training data."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fr_ps.json_files import NonNegativeInt, PositiveInt
from fr_ps.photometric.captures import Capture
from fr_ps.photometric.robust import MIN_MANY_LIGHTS

_FEWER_LIGHTS = 2
_CONDITION_MARGIN = 1.5
_DIRECTION_MARGIN_DEG = 15.0
_LOW_BITS, _HIGH_BITS = 8, 12
Direction = tuple[float, float, float]


@dataclass(frozen=True)
class Acquisition:
    """How one capture was taken.

    Attributes:
        lights: their number.
        condition: condition number of their directions.
        direction: mean of their unit vectors, of length 1.
        white_level: stored value at which the camera saturates; None: unknown.
        failed: number of lights that failed; they are not among the others.
    """

    lights: PositiveInt
    condition: float
    direction: Direction
    white_level: PositiveInt | None = None
    failed: NonNegativeInt = 0

    @property
    def bits(self) -> int | None:
        """Bits of the white level."""
        return None if self.white_level is None else self.white_level.bit_length()


@dataclass(frozen=True)
class AcquisitionRange:
    """How many captures were taken.

    Attributes:
        lights: smallest and largest number.
        condition: smallest and largest condition number.
        direction: mean of the mean directions of the lights, of length 1.
        spread_deg: largest angle between `direction` and the mean direction of a capture.
        bits: fewest and most bits of the white level; None: unknown for a capture.
    """

    lights: tuple[PositiveInt, PositiveInt]
    condition: tuple[float, float]
    direction: Direction
    spread_deg: float
    bits: tuple[PositiveInt, PositiveInt] | None = None

    def summary(self) -> str:
        """The ranges in words."""
        texts = [f"{_range_text(*self.lights)} lights", f"a condition number of {_range_text(*self.condition)}"]
        return ", ".join([*texts, f"{_range_text(*self.bits)} bits"] if self.bits else texts)


def describe_acquisition(capture: Capture) -> Acquisition:
    """The lights and the bit depth of `capture`."""
    condition = float(np.linalg.cond(capture.lights))
    direction = _mean_direction(capture.lights)
    return Acquisition(len(capture.lights), condition, direction, capture.white_level, len(capture.failed))


def summarize_acquisitions(found: Sequence[Acquisition]) -> AcquisitionRange:
    """The range of one or more captures; those with a failed light count only if there are no others."""
    found = [one for one in found if not one.failed] or found
    direction = _mean_direction(np.array([one.direction for one in found]))
    bits = [one.bits for one in found if one.bits is not None]
    return AcquisitionRange(
        (min(one.lights for one in found), max(one.lights for one in found)),
        (min(one.condition for one in found), max(one.condition for one in found)),
        direction,
        max(_angle_deg(one.direction, direction) for one in found),
        (min(bits), max(bits)) if len(bits) == len(found) else None,
    )


def acquisition_warning(known: AcquisitionRange | None, found: Sequence[tuple[str, Acquisition]]) -> str | None:
    """A warning if captures differ from those of the training data in a way that changes their maps; else None.

    Args:
        known: of the training data; None: unknown, which gives no warning.
        found: name and description of each capture.
    """
    if known is None:
        return None
    different = [(name, reasons) for name, one in found if (reasons := acquisition_differences(known, one))]
    if not different:
        return None
    name, reasons = different[0]
    return (
        f"warning: {len(different)} of {len(found)} captures are unlike those of the training data, e.g. {name}: "
        f"{', '.join(reasons)}; maps may differ, which affects predictions and thresholds; train with such captures too"
    )


def acquisition_differences(known: AcquisitionRange, one: Acquisition) -> list[str]:
    """In what `one` differs from the captures of `known`, in words.

    - a light that failed;
    - half as many lights or fewer, or a number for which the solvers use the other rule for outliers;
    - a condition number more than 1.5 times above or below the range;
    - a mean direction of the lights more than 15 degrees outside the range;
    - 8 bits or fewer, where all had 12 or more.
    """
    fewest, most = known.lights
    low, high = known.condition
    differences = [f"{one.failed} of {one.lights + one.failed} lights failed (almost black image)"] if one.failed else []
    other_rule = one.lights < MIN_MANY_LIGHTS <= fewest or most < MIN_MANY_LIGHTS <= one.lights
    if _FEWER_LIGHTS * one.lights <= fewest or other_rule:
        differences.append(f"{one.lights} lights (training: {_range_text(fewest, most)})")
    if not low / _CONDITION_MARGIN <= one.condition <= high * _CONDITION_MARGIN:
        differences.append(f"condition number {one.condition:.1f} (training: {_range_text(low, high)})")
    angle = _angle_deg(one.direction, known.direction)
    if angle > known.spread_deg + _DIRECTION_MARGIN_DEG:
        spread = f"training: within {known.spread_deg:.0f} degrees"
        differences.append(f"mean light direction {angle:.0f} degrees from that of the training ({spread})")
    if one.bits is not None and known.bits is not None and one.bits <= _LOW_BITS and known.bits[0] >= _HIGH_BITS:
        differences.append(f"{one.bits} bits (training: {_range_text(*known.bits)})")
    return differences


def _range_text(low: float, high: float) -> str:
    texts = [str(number) if isinstance(number, int) else f"{number:.1f}" for number in (low, high)]
    return texts[0] if texts[0] == texts[1] else " to ".join(texts)


def _mean_direction(vectors: np.ndarray) -> Direction:
    """The unit vector along the mean of (k, 3) vectors, none of which points away from the camera."""
    mean = vectors.mean(axis=0)
    x, y, z = (mean / np.linalg.norm(mean)).tolist()
    return x, y, z


def _angle_deg(one: Direction, other: Direction) -> float:
    return float(np.degrees(np.arccos(np.clip(np.dot(one, other), -1, 1))))
