"""Detection of normals in other axes than x right, y up, z toward the camera, by the shape that they describe.

A face is convex and wider than it is deep, so n_x grows with x. On any surface the two mixed second derivatives of depth
agree. A single face can violate either rule; the median over the sessions of a data set does not.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fr_ps.photometric.quality import convexity, twist_agreement

_MAX_FACING_AWAY = 0.1
"""Largest plausible share of n_z < 0: a camera sees no surface that faces away from it."""
_TWIST_TOLERANCE = 0.5
"""Three standard deviations of the twist agreement of one session on Yale B (0.17, around a median of 0.23)."""
ORIENTATION_SAMPLE = 200
"""Sessions whose normals are checked: enough for a median."""


@dataclass(frozen=True)
class AxesMismatch:
    """How normals differ from x right, y up.

    Attributes:
        shape: appearance of the faces, for a message.
        swapped: x and y are exchanged; signs can be checked only after that is corrected.
        negated: axes with the wrong sign.
    """

    shape: str
    swapped: bool = False
    negated: tuple[str, ...] = ()


@dataclass(frozen=True)
class NormalStatistics:
    """Statistics of one normal map that depend on its axes.

    Attributes:
        mean: (3,) over the map.
        facing_away: share of pixels with n_z < 0.
        convexity: (2, 2), see `quality.convexity`.
        twist: see `quality.twist_agreement`.
    """

    mean: np.ndarray
    facing_away: float
    convexity: np.ndarray
    twist: float


def find_axes_mismatch(convex: np.ndarray, twist: float) -> AxesMismatch | None:
    """The error in x and y of faces with this `convexity` (2, 2) and `twist_agreement`; None if there is none."""
    if np.abs(np.diag(convex)).sum() < np.abs(np.diag(convex[::-1])).sum():
        return AxesMismatch("with x and y exchanged", swapped=True)
    concave, mirrored = bool(convex[0, 0] < 0), twist < 0
    if not concave and not mirrored:
        return None
    if not mirrored:
        return AxesMismatch("concave", negated=("x", "y"))
    axis = "x" if concave else "y"
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
    """A warning if the axes of the normals are wrong in most of `sessions`, else None.

    The threshold on twist is lower with fewer sessions: a single real face reaches -0.21 on Yale B.
    """
    if not sessions:
        return None
    mean = np.median([session.mean for session in sessions], axis=0)
    facing_away = float(np.median([session.facing_away for session in sessions]))
    found = _find_channel_mismatch(mean, facing_away)
    if found is None:
        twist = float(np.median([session.twist for session in sessions])) + _TWIST_TOLERANCE / math.sqrt(len(sessions))
        mismatch = find_axes_mismatch(np.median([session.convexity for session in sessions], axis=0), twist)
        if mismatch is None:
            return None
        negate = f"negate {' and '.join(f'n_{axis}' for axis in mismatch.negated)}"
        found = f"the faces appear {mismatch.shape}; {'exchange n_x and n_y' if mismatch.swapped else negate}"
    return f"warning: the normals are probably not in the axes x right, y up, z toward the camera: {found}, then check again"


def _find_channel_mismatch(mean: np.ndarray, facing_away: float) -> str | None:
    """The error in z of maps with this median mean and share of n_z < 0; None if there is none."""
    largest = int(np.abs(mean).argmax())
    if largest != 2 and mean[2] < 0.5 * mean[largest]:
        place = ("first", "second")[largest]
        order = "reverse the order of the channels (OpenCV reads BGR)" if largest == 0 else "reorder the channels"
        return f"n_z seems to be in the {place} channel; {order}"
    if mean[2] < 0:
        return "n_z is negative in most pixels; negate n_z"
    if facing_away > _MAX_FACING_AWAY:
        return f"n_z is negative in {facing_away:.0%} of the pixels, which no camera can see; correct n_z or the channel order"
    return None
