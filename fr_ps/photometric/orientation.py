"""Normals in other axes than x right, y up, z toward the camera: found by the shape that they describe.

A face is convex and wider than it is deep, so n_x grows with x. On any surface the two mixed second derivatives of depth
agree. One face alone can break either rule; the median over the sessions of a data set does not.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fr_ps.photometric.quality import convexity, twist_agreement

_MAX_FACING_AWAY = 0.1
"""Share of n_z < 0 above which z is taken as wrong: a camera sees no surface that faces away from it."""
_TWIST_TOLERANCE = 0.5
"""Three standard deviations of one session's twist agreement on Yale B (0.17, around a median of 0.23)."""


@dataclass(frozen=True)
class AxesMismatch:
    """How normals differ from x right, y up.

    Attributes:
        shape: what the faces look like, for a message.
        exchanged: x and y are exchanged; signs can be judged only after that is corrected.
        negated: axes with the wrong sign.
    """

    shape: str
    swapped: bool = False
    negated: tuple[str, ...] = ()


@dataclass(frozen=True)
class NormalStatistics:
    """What one normal map shows of its axes.

    Attributes:
        mean: (3,) over the map.
        behind: share of pixels with n_z < 0.
        convexity: (2, 2) of `quality.convexity`.
        twist: of `quality.twist_agreement`.
    """

    mean: np.ndarray
    facing_away: float
    convexity: np.ndarray
    twist: float


def find_axes_mismatch(convex: np.ndarray, twist: float) -> AxesMismatch | None:
    """What is wrong with x and y of faces with this `convexity` (2, 2) and `twist_agreement`; None where nothing is."""
    if np.abs(np.diag(convex)).sum() < np.abs(np.diag(convex[::-1])).sum():
        return AxesMismatch("with x and y exchanged", swapped=True)
    hollow, mirrored = bool(convex[0, 0] < 0), twist < 0
    if not hollow and not mirrored:
        return None
    if not mirrored:
        return AxesMismatch("concave", negated=("x", "y"))
    axis = "x" if hollow else "y"
    return AxesMismatch(f"mirrored in {axis}", negated=(axis,))


def normal_statistics(normals: np.ndarray) -> NormalStatistics:
    """The statistics of normals (3, H, W)."""
    everywhere = np.ones(normals.shape[1:], dtype=bool)
    return NormalStatistics(
        normals.mean(axis=(1, 2), dtype=np.float64),
        float((normals[2] < 0).mean()),
        np.array(convexity(normals, everywhere)),
        twist_agreement(normals, everywhere),
    )


def axes_warning(sessions: Sequence[NormalStatistics]) -> str | None:
    """The warning about normals whose axes are wrong in most of `sessions`; None where they look right.

    The fewer sessions there are, the more the twist has to disagree: one real face alone reaches -0.21 on Yale B.
    """
    if not sessions:
        return None
    mean = np.median([one.mean for one in sessions], axis=0)
    behind = float(np.median([one.facing_away for one in sessions]))
    found = _find_channel_mismatch(mean, behind)
    if found is None:
        twist = float(np.median([one.twist for one in sessions])) + _TWIST_TOLERANCE / math.sqrt(len(sessions))
        error = find_axes_mismatch(np.median([one.convexity for one in sessions], axis=0), twist)
        if error is None:
            return None
        remedy = "exchange n_x and n_y" if error.swapped else f"negate {' and '.join(f'n_{axis}' for axis in error.negated)}"
        found = f"the faces come out {error.shape}; {remedy}"
    return f"warning: the normals are probably not in the axes x right, y up, z toward the camera: {found}, then check again"


def _find_channel_mismatch(mean: np.ndarray, facing_away: float) -> str | None:
    """What is wrong with z in maps of this median mean and share of n_z < 0."""
    largest = int(np.abs(mean).argmax())
    if largest != 2 and mean[2] < 0.5 * mean[largest]:
        place = ("first", "second")[largest]
        order = "reverse the order of the channels (OpenCV reads BGR)" if largest == 0 else "reorder the channels"
        return f"n_z seems to stand in the {place} channel; {order}"
    if mean[2] < 0:
        return "n_z is negative in most pixels; negate n_z"
    if facing_away > _MAX_FACING_AWAY:
        return f"n_z is negative in {facing_away:.0%} of the pixels, which no camera can see; correct n_z or the channel order"
    return None
