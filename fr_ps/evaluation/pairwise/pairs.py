"""Scores of all pairs of sessions, or of listed pairs, in blocks.

The rows are sorted by subject, so that genuine pairs are near the diagonal; impostor pairs are counted block by block. Time grows
with the square of the number of sessions, memory with the block size and the number of genuine pairs.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock, local

import numpy as np
import torch
from torch import Tensor

from fr_ps.evaluation.bootstrap import BootstrapWeights
from fr_ps.evaluation.pairwise.similarity import LEVELS, Measure, ScoreScale, Workspace, similarity

BLOCK_ROWS, BLOCK_COLUMNS = 512, 16384
"""Block size of `AllPairs`."""
_NOT_IMPOSTOR = LEVELS
"""Level of the cells of a block that are not impostor pairs."""


@dataclass(frozen=True)
class PairScores:
    """Scores of pairs: one per genuine pair, and a histogram of the impostor pairs. A level is a quantised score.

    Attributes:
        scale: converts levels to scores.
        subject: (n,) subject number of each session.
        impostor_levels: (u,) int64, distinct, growing.
        impostor_counts: (u,) int64, impostor pairs at each level.
        genuine_first: (m,) row of one session of each genuine pair.
        genuine_second: (m,) row of the other.
        genuine_levels: (m,) int64.
    """

    scale: ScoreScale
    subject: np.ndarray
    impostor_levels: np.ndarray
    impostor_counts: np.ndarray
    genuine_first: np.ndarray
    genuine_second: np.ndarray
    genuine_levels: np.ndarray

    @property
    def impostor_count(self) -> int:
        """The number of impostor pairs."""
        return int(self.impostor_counts.sum())

    @property
    def undefined_reason(self) -> str:
        """Why verification is undefined; empty if it is defined."""
        if len(self.genuine_levels) and self.impostor_count:
            return ""
        subjects = len(np.unique(self.subject))
        if len(self.genuine_levels):
            return f"no impostor pair: {'only one subject' if subjects == 1 else 'the list has none'}"
        if not self.impostor_count:
            return "no pair: fewer than two sessions"
        return f"no genuine pair: {'no subject has two sessions' if subjects == len(self.subject) else 'the list has none'}"


class AllPairs:
    """Every unordered pair of n sessions.

    Args:
        embeddings: (n, C).
        ids: (n,) subject of each session.
        measure: similarity measure.
        bootstrap: replicates of these subjects, for `impostor_weights`.

    Raises:
        InputError: an embedding with NaN or infinity.
    """

    def __init__(
        self, embeddings: np.ndarray, ids: np.ndarray, measure: Measure = "cosine", bootstrap: BootstrapWeights | None = None
    ) -> None:
        self.bootstrap = bootstrap
        subject = self.subject = np.unique(ids, return_inverse=True)[1]
        unit = bootstrap.unit if bootstrap else subject
        self.order = np.lexsort((subject, unit))
        self.unit = torch.from_numpy(unit[self.order])
        self.ordered_subject = torch.from_numpy(np.cumsum(np.diff(subject[self.order], prepend=subject[self.order][:1]) != 0))
        self.similarity = similarity(embeddings, ids, measure).select(self.order)

    def score(self) -> PairScores:
        """Scores of all pairs."""
        count = len(self.subject)
        few = count * (count - 1) // 2 < LEVELS
        counts = torch.zeros(LEVELS + 1, dtype=torch.int64)
        singles: list[Tensor] = []
        nothing = torch.empty(0, dtype=torch.int64)
        genuine = [(nothing, nothing, nothing.int())]
        lock, space = Lock(), _thread_workspace()

        def block(rows: slice, columns: slice) -> None:
            levels = self.similarity.levels(rows, columns, space())
            found = self._extract_genuine(levels, rows, columns)
            part = levels.flatten().clone() if few else torch.bincount(levels.view(-1), minlength=LEVELS + 1)
            with lock:
                genuine.extend(found)
                if few:
                    singles.append(part)
                else:
                    counts.add_(part)

        _run_blocks(block, list(_blocks(count, BLOCK_ROWS)))
        if few:
            levels, number = np.unique(torch.cat([nothing, *singles]).numpy(), return_counts=True)
        else:
            levels = np.flatnonzero(counts.numpy())
            number = counts.numpy()[levels]
        first, second, own = (torch.cat([one[part] for one in genuine]).numpy() for part in range(3))
        kept = levels != _NOT_IMPOSTOR
        place = np.lexsort((second, first))
        return PairScores(
            self.similarity.scale,
            self.subject,
            levels[kept].astype(np.int64),
            number[kept],
            self.order[first[place]],
            self.order[second[place]],
            own[place].astype(np.int64),
        )

    def impostor_weights(self, thresholds: np.ndarray) -> np.ndarray:
        """(B, K + 1) weight in each replicate of the impostor pairs below, between and above K thresholds.

        Args:
            thresholds: (K,) growing levels; a pair at a threshold counts above it.
        """
        assert self.bootstrap is not None
        weights = torch.from_numpy(self.bootstrap.weights)
        bins = len(thresholds) + 2  # the last bin is for _NOT_IMPOSTOR
        lookup = torch.from_numpy(
            np.append(np.searchsorted(thresholds, np.arange(LEVELS), side="right"), bins - 1).astype(np.int32)
        )
        total = torch.zeros(len(weights), bins - 1, dtype=torch.float64)
        lock, space = Lock(), _thread_workspace()

        def block(rows: slice, columns: slice) -> None:
            levels = self.similarity.levels(rows, columns, space())
            self._extract_genuine(levels, rows, columns)
            high, low = int(self.unit[rows][0]), int(self.unit[columns][0])
            across = int(self.unit[columns][-1]) - low + 1
            down = int(self.unit[rows][-1]) - high + 1
            place = (self.unit[rows, None] - high) + (self.unit[columns] - low) * down  # (r, c)
            flat = torch.add(lookup[levels], place, alpha=bins).view(-1)
            found = torch.bincount(flat, minlength=across * down * bins).float().view(across, down * bins)
            part = (weights[:, low : low + across] @ found).view(len(weights), down, bins)[:, :, :-1]
            part = torch.einsum("bu,buk->bk", weights[:, high : high + down], part)
            with lock:
                total.add_(part)

        _run_blocks(block, list(_blocks(len(self.subject), BLOCK_ROWS // 4)))
        return total.numpy()

    def _extract_genuine(self, levels: Tensor, rows: slice, columns: slice) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Rows, columns and levels of the genuine pairs of a block; their cells, and those of no pair, become `_NOT_IMPOSTOR`."""
        subject, others = self.ordered_subject[rows], self.ordered_subject[columns]
        if others[0] > subject[-1]:
            return []
        end = int(torch.searchsorted(others, subject[-1:], right=True))
        band = levels[:, :end]
        same = subject[:, None] == others[:end]
        pair = torch.arange(rows.start, rows.stop)[:, None] < torch.arange(columns.start, columns.start + end)
        down, across = torch.nonzero(same & pair, as_tuple=True)
        found = (down + rows.start, across + columns.start, band[down, across])
        band[same | ~pair] = _NOT_IMPOSTOR
        return [found]


class ListedPairs:
    """Listed pairs.

    Args:
        embeddings: (n, C).
        ids: (n,) subject of each session.
        first: (m,) row of one session of each pair.
        second: (m,) row of the other.
        measure: similarity measure.
        bootstrap: replicates of these subjects, for `impostor_weights`.

    Raises:
        InputError: an embedding with NaN or infinity.
    """

    def __init__(
        self,
        embeddings: np.ndarray,
        ids: np.ndarray,
        first: np.ndarray,
        second: np.ndarray,
        measure: Measure = "cosine",
        bootstrap: BootstrapWeights | None = None,
    ) -> None:
        self.subject, self.first, self.second, self.bootstrap = np.unique(ids, return_inverse=True)[1], first, second, bootstrap
        compared = similarity(embeddings, ids, measure)
        self.scale, self.levels = compared.scale, compared.pair_levels(first, second)
        self.genuine = ids[first] == ids[second]

    def score(self) -> PairScores:
        """Scores of all pairs."""
        levels, counts = np.unique(self.levels[~self.genuine], return_counts=True)
        own = self.genuine
        return PairScores(self.scale, self.subject, levels, counts, self.first[own], self.second[own], self.levels[own])

    def impostor_weights(self, thresholds: np.ndarray) -> np.ndarray:
        """See `AllPairs.impostor_weights`."""
        assert self.bootstrap is not None
        weights, bins, units = self.bootstrap.weights, len(thresholds) + 1, self.bootstrap.weights.shape[1]
        place = np.searchsorted(thresholds, self.levels[~self.genuine], side="right")
        one, other = (self.bootstrap.unit[rows[~self.genuine]] for rows in (self.first, self.second))
        cells, counts = np.unique((place * units + one) * units + other, return_counts=True)
        place, one, other = cells // units**2, cells // units % units, cells % units
        total = np.zeros((len(weights), bins))
        for some in np.array_split(np.arange(len(cells)), len(cells) // 4096 + 1):
            weight = weights[:, one[some]] * weights[:, other[some]] * counts[some]
            starts = np.flatnonzero(np.diff(place[some], prepend=-1))
            if len(some):
                total[:, place[some][starts]] += np.add.reduceat(weight, starts, axis=1)
        return total


def _blocks(count: int, rows: int) -> Iterator[tuple[slice, slice]]:
    """Blocks that cover the upper triangle of all pairs of rows."""
    for row in range(0, count, rows):
        for column in range(row, count, BLOCK_COLUMNS):
            yield slice(row, min(row + rows, count)), slice(column, min(column + BLOCK_COLUMNS, count))


def _thread_workspace() -> Callable[[], Workspace]:
    """A function that returns the workspace of the calling thread."""
    own = local()

    def space() -> Workspace:
        if not hasattr(own, "space"):
            own.space = Workspace(BLOCK_ROWS * BLOCK_COLUMNS)
        return own.space

    return space


def _run_blocks(block: Callable[[slice, slice], None], blocks: list[tuple[slice, slice]]) -> None:
    """Run `block` on each block, with as many threads as torch uses.

    The blocks end in any order, so they must sum whole numbers, whose sum is the same in every order.
    """
    threads = torch.get_num_threads()
    if len(blocks) < 2 or threads < 2:
        for one in blocks:
            block(*one)
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(lambda one: block(*one), blocks):
                pass
    finally:
        torch.set_num_threads(threads)
