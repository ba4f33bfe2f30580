"""Similarity of two embeddings, quantised to whole-number levels.

A level is a score rounded to 2^-20 of half the range, about 10^-6: the accuracy of a sum of some hundred float32 products. With
levels, pairs are counted in a histogram of fixed size instead of being sorted, and equal embeddings tie wherever they are in a
block. Levels and counts are exact functions of the float32 products, on every device. The last bits of a product depend on the
device and its library, so that a pair may be one level higher or lower on a GPU than on a CPU.

Embeddings with cosines all close to 1 are compared by their differences: for unit vectors a . b = 1 - |a - b|^2 / 2, and without
the mean the differences fill the range of levels. Otherwise a model with collapsed embeddings would have all pairs at a few
levels, although float64 separates its subjects.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fr_ps.errors import InputError

Measure = Literal["cosine", "euclidean"]
STEPS = 2**20
LEVELS = 2 * STEPS + 1
"""Number of levels; a higher level is more similar."""
NARROW_RADIUS = 0.5
"""Unit embeddings that are all closer than this to their mean are compared by differences: their cosines are above 0.5."""
_MIN_RADIUS = 1e-4
"""With a smaller radius a level would be finer than float64 near 1."""


@dataclass(frozen=True)
class ScoreScale:
    """Conversion between levels and scores.

    Attributes:
        measure: cosine, or euclidean: minus the distance.
        radius: largest distance of an embedding (euclidean) or of a unit embedding (cosine) from the mean, if pairs are compared
            by differences; a cosine of radius 1 is compared directly.
    """

    measure: Measure
    radius: float = 1.0

    def scores(self, levels: np.ndarray) -> np.ndarray:
        """Float64 scores of levels."""
        product = np.asarray(levels) / STEPS - 1
        if self.measure == "cosine":
            return product if self.radius == 1 else 1 - self.radius**2 * (1 - product)
        return -self.radius * np.sqrt(np.maximum(2 - 2 * product, 0))

    def threshold_level(self, score: float) -> int:
        """The lowest level with a score of at least `score`, for a threshold."""
        if self.measure == "cosine":
            target = score if self.radius == 1 else 1 - (1 - score) / self.radius**2
        else:
            target = 1 - (min(score, 0.0) / self.radius) ** 2 / 2
        # Slack for rounding: the level of a score from `scores` is found again. A smaller radius rounds more.
        slack = 1e-3 + 2**-52 * STEPS / min(self.radius**2, 1) if self.measure == "cosine" else 1e-3
        return int(np.clip(np.ceil((target + 1) * STEPS - slack), 0, LEVELS))


class Workspace:
    """Reused memory for the products of a block; allocating it for each block is slower."""

    def __init__(self, pairs: int, device: torch.device) -> None:
        self.product = torch.empty(pairs, dtype=torch.float32, device=device)


@dataclass(frozen=True)
class SimilarityScorer:
    """Scores pairs of n embeddings: a row of `left` times a row of `right` is their similarity in [-1, 1].

    Attributes:
        left: (n, D) float32.
        right: (n, D) float32, on the same device.
        scale: converts levels to scores.
    """

    left: Tensor
    right: Tensor
    scale: ScoreScale

    def levels(self, first: slice, second: slice, workspace: Workspace | None = None) -> Tensor:
        """(k, l) int32 levels of k rows against l others; a view of `workspace` if given, valid until its next use."""
        left, right = self.left[first], self.right[second]
        if workspace is None:
            workspace = Workspace(len(left) * len(right), left.device)
        product = workspace.product[: len(left) * len(right)].view(len(left), len(right))
        _to_levels(torch.mm(left, right.T, out=product))
        return product.view(torch.int32).copy_(product)  # in the same memory: both types have four bytes

    def pair_levels(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(m,) int64 levels of m pairs of rows."""
        levels = np.empty(len(first), dtype=np.int64)
        step = max(1, 2**24 // self.left.shape[1])
        for start in range(0, len(first), step):
            part = slice(start, start + step)
            product = (self.left[first[part]] * self.right[second[part]]).sum(dim=1)
            levels[part] = _to_levels(product).to(torch.int64).cpu().numpy()
        return levels

    def select(self, rows: np.ndarray) -> "SimilarityScorer":
        """The scorer of some rows of the embeddings."""
        left = self.left[rows]
        return SimilarityScorer(left, left if self.right is self.left else self.right[rows], self.scale)

    def to(self, device: torch.device) -> "SimilarityScorer":
        """The same scorer on another device."""
        left = self.left.to(device)
        return SimilarityScorer(left, left if self.right is self.left else self.right.to(device), self.scale)


def _to_levels(product: Tensor) -> Tensor:
    """Convert products to levels in place. They are clamped, because a float32 cosine may be a few last bits above 1.

    Each step is one rounding of float32 by IEEE 754, so that equal products have equal levels on every device.
    """
    return product.mul_(STEPS).add_(STEPS + 0.5).clamp_(0, LEVELS - 0.5)


def check_finite(embeddings: np.ndarray, ids: np.ndarray) -> None:
    """Reject (n, C) embeddings of (n,) subjects with NaN or infinity.

    Raises:
        InputError: names the subject.
    """
    if not np.isfinite(embeddings).all():
        subject = ids[np.argwhere(~np.isfinite(embeddings))[0][0]]
        raise InputError(f"an embedding of subject {subject} is NaN or infinite; train with a lower optim.lr")


def similarity_scorer(embeddings: np.ndarray, ids: np.ndarray, measure: Measure = "cosine") -> SimilarityScorer:
    """The scorer of (n, C) embeddings of (n,) subjects. A zero embedding has cosine 0 with all.

    Raises:
        InputError: an embedding with NaN or infinity.
    """
    check_finite(embeddings, ids)
    if measure == "euclidean":
        centred = embeddings - embeddings.mean(axis=0, dtype=np.float64)
        return _from_differences(centred, measure, float(np.linalg.norm(centred, axis=1).max(initial=0)) or 1.0)
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = embeddings / np.maximum(lengths, 1e-12)
    if len(unit) and lengths.min() > 1e-12 and _radius(unit) < NARROW_RADIUS:
        exact = embeddings.astype(np.float64)
        exact /= np.linalg.norm(exact, axis=1, keepdims=True)
        exact -= exact.mean(axis=0)
        return _from_differences(exact, measure, max(float(np.linalg.norm(exact, axis=1).max()), _MIN_RADIUS))
    rows = torch.from_numpy(unit.astype(np.float32, copy=False))
    return SimilarityScorer(rows, rows, ScoreScale(measure))


def _radius(unit: np.ndarray) -> float:
    """The largest distance of (n, C) unit rows from their mean, accurate to about 10^-3."""
    mean = unit.mean(axis=0, dtype=np.float64)
    return float(np.sqrt(max(1 - 2 * float((unit @ mean.astype(unit.dtype)).min()) + float(mean @ mean), 0)))


def _from_differences(centred: np.ndarray, measure: Measure, radius: float) -> SimilarityScorer:
    """From (n, C) float64 centred rows, none longer than `radius`; the product of two is 1 - (distance / radius)^2 / 2."""
    rows = torch.from_numpy((centred / radius).astype(np.float32))
    half = rows.square().sum(dim=1, keepdim=True) / 2
    one = torch.ones_like(half)
    # 1 - d^2 / 2 = a b + (1 - a^2 / 2) - b^2 / 2
    left, right = torch.cat([rows, 1 - half, one], dim=1), torch.cat([rows, one, -half], dim=1)
    return SimilarityScorer(left, right, ScoreScale(measure, radius))
