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

from fr_ps.device import full_float32
from fr_ps.evaluation.bootstrap import BootstrapWeights
from fr_ps.evaluation.pairwise.similarity import LEVELS, Measure, ScoreScale, Workspace, similarity_scorer

BLOCK_ROWS, BLOCK_COLUMNS = 512, 16384
"""Block size of `AllPairs`."""
CUDA_BLOCK_ROWS = 4096
"""Rows of a block on a GPU, whose multiprocessors a block of `BLOCK_ROWS` would not fill. The products take 256 MB."""
CPU = torch.device("cpu")
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
        device: device of products and histograms. Beside the CPU only CUDA is used: MPS has no float64.

    Raises:
        InputError: an embedding with NaN or infinity.
    """

    def __init__(
        self,
        embeddings: np.ndarray,
        ids: np.ndarray,
        measure: Measure = "cosine",
        bootstrap: BootstrapWeights | None = None,
        device: torch.device = CPU,
    ) -> None:
        self.bootstrap = bootstrap
        self.device = device if device.type == "cuda" else CPU
        subject = self.subject = np.unique(ids, return_inverse=True)[1]
        unit = bootstrap.unit if bootstrap else subject
        self.order = np.lexsort((subject, unit))
        self.unit = torch.from_numpy(unit[self.order])
        self.ordered_subject = torch.from_numpy(np.cumsum(np.diff(subject[self.order], prepend=subject[self.order][:1]) != 0))
        self.device_subject = self.ordered_subject.to(self.device)
        self.scorer = similarity_scorer(embeddings, ids, measure).select(self.order).to(self.device)

    def score(self) -> PairScores:
        """Scores of all pairs."""
        count = len(self.subject)
        keep_levels = count * (count - 1) // 2 < LEVELS  # few pairs: sorting them is cheaper than a histogram of all levels
        counts = torch.zeros(LEVELS + 1, dtype=torch.int64, device=self.device)
        kept_levels: list[Tensor] = []
        empty = torch.empty(0, dtype=torch.int64, device=self.device)
        genuine = [(empty, empty, empty.int())]
        block_rows = CUDA_BLOCK_ROWS if self.device.type == "cuda" else BLOCK_ROWS
        lock, workspace = Lock(), _thread_workspace(min(block_rows, count) * min(BLOCK_COLUMNS, count), self.device)

        def block(rows: slice, columns: slice) -> None:
            levels = self.scorer.levels(rows, columns, workspace())
            genuine_pairs = self._extract_genuine(levels, rows, columns)
            part = levels.flatten().clone() if keep_levels else torch.bincount(levels.view(-1), minlength=LEVELS + 1)
            with lock:
                genuine.extend(genuine_pairs)
                if keep_levels:
                    kept_levels.append(part)
                else:
                    counts.add_(part)

        _run_blocks(block, list(_blocks(count, block_rows)), self.device)
        if keep_levels:
            levels, level_counts = np.unique(torch.cat([empty, *kept_levels]).cpu().numpy(), return_counts=True)
        else:
            all_counts = counts.cpu().numpy()
            levels = np.flatnonzero(all_counts)
            level_counts = all_counts[levels]
        first, second, genuine_levels = (torch.cat([arrays[part] for arrays in genuine]).cpu().numpy() for part in range(3))
        is_impostor = levels != _NOT_IMPOSTOR
        order = np.lexsort((second, first))
        return PairScores(
            self.scorer.scale,
            self.subject,
            levels[is_impostor].astype(np.int64),
            level_counts[is_impostor],
            self.order[first[order]],
            self.order[second[order]],
            genuine_levels[order].astype(np.int64),
        )

    def impostor_weights(self, thresholds: np.ndarray) -> np.ndarray:
        """(B, K + 1) weight in each replicate of the impostor pairs below, between and above K thresholds.

        Args:
            thresholds: (K,) growing levels; a pair at a threshold counts above it.
        """
        assert self.bootstrap is not None
        weights, unit = torch.from_numpy(self.bootstrap.weights).to(self.device), self.unit.to(self.device)
        bins = len(thresholds) + 2  # the last bin is for _NOT_IMPOSTOR
        lookup = torch.from_numpy(
            np.append(np.searchsorted(thresholds, np.arange(LEVELS), side="right"), bins - 1).astype(np.int32)
        ).to(self.device)
        total = torch.zeros(len(weights), bins - 1, dtype=torch.float64, device=self.device)
        count, block_rows = (
            len(self.subject),
            BLOCK_ROWS // 4,
        )  # also on a GPU: a count by unit and bin takes more memory than the levels
        lock, workspace = Lock(), _thread_workspace(min(block_rows, count) * min(BLOCK_COLUMNS, count), self.device)

        def block(rows: slice, columns: slice) -> None:
            levels = self.scorer.levels(rows, columns, workspace())
            self._extract_genuine(levels, rows, columns)
            first_row_unit, first_column_unit = int(self.unit[rows][0]), int(self.unit[columns][0])
            row_units = int(self.unit[rows][-1]) - first_row_unit + 1
            column_units = int(self.unit[columns][-1]) - first_column_unit + 1
            cell = (unit[rows, None] - first_row_unit) + (unit[columns] - first_column_unit) * row_units  # (r, c)
            flat = torch.add(lookup[levels], cell, alpha=bins).view(-1)
            counts = torch.bincount(flat, minlength=column_units * row_units * bins).float().view(column_units, row_units * bins)
            weighted = weights[:, first_column_unit : first_column_unit + column_units] @ counts
            by_row_unit = weighted.view(len(weights), row_units, bins)[:, :, :-1]
            row_weights = weights[:, first_row_unit : first_row_unit + row_units]
            block_total = torch.einsum("bu,buk->bk", row_weights, by_row_unit)
            with lock:
                total.add_(block_total)

        _run_blocks(block, list(_blocks(count, block_rows)), self.device)
        return total.cpu().numpy()

    def _extract_genuine(self, levels: Tensor, rows: slice, columns: slice) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Rows, columns and levels of the genuine pairs of a block, in a list that is empty if the block cannot have any.

        Their cells in `levels`, and the cells on and below the diagonal, become `_NOT_IMPOSTOR`.
        """
        subject, other_subject = self.ordered_subject[rows], self.ordered_subject[columns]
        if other_subject[0] > subject[-1]:
            return []
        end = int(torch.searchsorted(other_subject, subject[-1:], right=True))
        band = levels[:, :end]
        same_subject = self.device_subject[rows, None] == self.device_subject[columns][:end]
        row_numbers = torch.arange(rows.start, rows.stop, device=self.device)
        above_diagonal = row_numbers[:, None] < torch.arange(columns.start, columns.start + end, device=self.device)
        row, column = torch.nonzero(same_subject & above_diagonal, as_tuple=True)
        genuine = (row + rows.start, column + columns.start, band[row, column])
        band[same_subject | ~above_diagonal] = _NOT_IMPOSTOR
        return [genuine]


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
        scorer = similarity_scorer(embeddings, ids, measure)
        self.scale, self.levels = scorer.scale, scorer.pair_levels(first, second)
        self.genuine = ids[first] == ids[second]

    def score(self) -> PairScores:
        """Scores of all pairs."""
        levels, counts = np.unique(self.levels[~self.genuine], return_counts=True)
        first, second, genuine_levels = (values[self.genuine] for values in (self.first, self.second, self.levels))
        return PairScores(self.scale, self.subject, levels, counts, first, second, genuine_levels)

    def impostor_weights(self, thresholds: np.ndarray) -> np.ndarray:
        """See `AllPairs.impostor_weights`."""
        assert self.bootstrap is not None
        weights, bins, units = self.bootstrap.weights, len(thresholds) + 1, self.bootstrap.weights.shape[1]
        bin_of = np.searchsorted(thresholds, self.levels[~self.genuine], side="right")
        first, second = (self.bootstrap.unit[rows[~self.genuine]] for rows in (self.first, self.second))
        cells, counts = np.unique((bin_of * units + first) * units + second, return_counts=True)
        bin_of, first, second = cells // units**2, cells // units % units, cells % units
        total = np.zeros((len(weights), bins))
        for part in np.array_split(np.arange(len(cells)), len(cells) // 4096 + 1):
            weight = weights[:, first[part]] * weights[:, second[part]] * counts[part]
            starts = np.flatnonzero(np.diff(bin_of[part], prepend=-1))
            if len(part):
                total[:, bin_of[part][starts]] += np.add.reduceat(weight, starts, axis=1)
        return total


def _blocks(count: int, rows: int) -> Iterator[tuple[slice, slice]]:
    """Blocks that cover the upper triangle of all pairs of rows."""
    for row in range(0, count, rows):
        for column in range(row, count, BLOCK_COLUMNS):
            yield slice(row, min(row + rows, count)), slice(column, min(column + BLOCK_COLUMNS, count))


def _thread_workspace(pairs: int, device: torch.device) -> Callable[[], Workspace]:
    """A function that returns the workspace of the calling thread, for `pairs` products."""
    thread = local()

    def workspace() -> Workspace:
        if not hasattr(thread, "workspace"):
            thread.workspace = Workspace(pairs, device)
        return thread.workspace

    return workspace


@full_float32()
def _run_blocks(block: Callable[[slice, slice], None], blocks: list[tuple[slice, slice]], device: torch.device) -> None:
    """Run `block` on each block, on the CPU with as many threads as torch uses.

    The blocks end in any order. They must therefore add whole numbers, whose sum is the same in every order.
    """
    threads = torch.get_num_threads()
    if len(blocks) < 2 or threads < 2 or device.type == "cuda":
        for rows, columns in blocks:
            block(rows, columns)
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(lambda slices: block(*slices), blocks):
                pass
    finally:
        torch.set_num_threads(threads)
