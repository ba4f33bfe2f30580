"""How alike two embeddings are, as a whole number.

Scores are rounded to 2^-20 of half their range, about 10^-6, which a sum of some hundred float32 products is hardly known
better than. So all pairs are counted in a table of fixed size instead of being sorted, and equal embeddings tie wherever in a
block they stand.

Embeddings that have much in common, whose cosines all lie close to 1, are compared by what they differ in: for unit vectors
a . b = 1 - |a - b|^2 / 2, and with the mean taken out the differences fill the range of the keys. Else a model whose embeddings
collapsed onto one direction would have all pairs in a handful of keys, though float64 tells people apart.
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
"""A key is 0 or more and below this; the higher, the more alike."""
NARROW_RADIUS = 0.5
"""Embeddings of length 1 that are all nearer than that to their mean are compared by differences: their cosines are above 0.5."""
_MIN_RADIUS = 1e-4
"""Below it a key would be finer than float64 holds cosines near 1."""


@dataclass(frozen=True)
class ScoreScale:
    """What keys mean.

    Attributes:
        measure: cosine, or euclidean: minus the distance.
        reach: the largest distance of an embedding (euclidean) or of one of length 1 (cosine) from their mean, where pairs
            are compared by differences; a cosine of reach 1 is compared as it is.
    """

    measure: Measure
    radius: float = 1.0

    def scores(self, levels: np.ndarray) -> np.ndarray:
        """Float64 scores of keys."""
        product = np.asarray(levels) / STEPS - 1
        if self.measure == "cosine":
            return product if self.radius == 1 else 1 - self.radius**2 * (1 - product)
        return -self.radius * np.sqrt(np.maximum(2 - 2 * product, 0))

    def threshold_level(self, score: float) -> int:
        """The smallest key whose score is at least `score`: that of a threshold."""
        if self.measure == "cosine":
            wanted = score if self.radius == 1 else 1 - (1 - score) / self.radius**2
        else:
            wanted = 1 - (min(score, 0.0) / self.radius) ** 2 / 2
        # What `scores` gave is found again, though it was rounded on the way, the more the smaller the reach.
        slack = 1e-3 + 2**-52 * STEPS / min(self.radius**2, 1) if self.measure == "cosine" else 1e-3
        return int(np.clip(np.ceil((wanted + 1) * STEPS - slack), 0, LEVELS))


class Workspace:
    """Where the products of blocks of at most so many pairs are computed: to ask for it anew each time costs more."""

    def __init__(self, pairs: int) -> None:
        self.product = torch.empty(pairs, dtype=torch.float32)


@dataclass(frozen=True)
class Similarity:
    """n embeddings ready to be compared: the product of one's row of `left` and another's of `right` is -1 .. 1.

    Attributes:
        left: (n, D) float32.
        right: (n, D) float32.
        scale: from keys to scores.
    """

    left: Tensor
    right: Tensor
    scale: ScoreScale

    def levels(self, first: slice, second: slice, workspace: Workspace | None = None) -> Tensor:
        """(k, l) int32 of k rows against l others, in `space` where that is given: until it is given again."""
        left, right = self.left[first], self.right[second]
        if workspace is None:
            workspace = Workspace(len(left) * len(right))
        product = workspace.product[: len(left) * len(right)].view(len(left), len(right))
        _to_levels(torch.mm(left, right.T, out=product))
        return product.view(torch.int32).copy_(product)  # in its own place: both have four bytes

    def pair_levels(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(m,) int64 of m pairs of rows."""
        found = np.empty(len(first), dtype=np.int64)
        step = max(1, 2**24 // self.left.shape[1])
        for start in range(0, len(first), step):
            some = slice(start, start + step)
            product = (self.left[first[some]] * self.right[second[some]]).sum(dim=1)
            found[some] = _to_levels(product).to(torch.int64).numpy()
        return found

    def select(self, rows: np.ndarray) -> "Similarity":
        """Some of the embeddings."""
        left = self.left[rows]
        return Similarity(left, left if self.right is self.left else self.right[rows], self.scale)


def _to_levels(product: Tensor) -> Tensor:
    """In place: a float32 cosine may be some last bits beyond 1, which must not be a key that there is not."""
    return product.mul_(STEPS).add_(STEPS + 0.5).clamp_(0, LEVELS - 0.5)


def check_finite(embeddings: np.ndarray, ids: np.ndarray) -> None:
    """Refuse (n, C) embeddings of the (n,) people with NaN or infinity.

    Raises:
        InputError: names whose it is.
    """
    if not np.isfinite(embeddings).all():
        person = ids[np.argwhere(~np.isfinite(embeddings))[0][0]]
        raise InputError(f"the model's embedding of a session of {person} is NaN or infinite; train with a lower optim.lr")


def similarity(embeddings: np.ndarray, ids: np.ndarray, measure: Measure = "cosine") -> Similarity:
    """(n, C) embeddings of the (n,) people, ready to be compared. One of length 0 has the cosine 0 with all.

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
    return Similarity(rows, rows, ScoreScale(measure))


def _radius(unit: np.ndarray) -> float:
    """The largest distance of (n, C) rows of length 1 from their mean, to some 10^-3."""
    mean = unit.mean(axis=0, dtype=np.float64)
    return float(np.sqrt(max(1 - 2 * float((unit @ mean.astype(unit.dtype)).min()) + float(mean @ mean), 0)))


def _from_differences(centred: np.ndarray, measure: Measure, radius: float) -> Similarity:
    """(n, C) rows without their mean, float64, none longer than `reach`: the product of two is 1 - (distance / reach)^2 / 2."""
    rows = torch.from_numpy((centred / radius).astype(np.float32))
    half = rows.square().sum(dim=1, keepdim=True) / 2
    one = torch.ones_like(half)
    # 1 - d^2 / 2 = a b + (1 - a^2 / 2) - b^2 / 2
    left, right = torch.cat([rows, 1 - half, one], dim=1), torch.cat([rows, one, -half], dim=1)
    return Similarity(left, right, ScoreScale(measure, radius))
