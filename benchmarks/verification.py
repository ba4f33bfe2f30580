"""Time and memory of verification over all pairs, relative to the matrix product alone, scikit-learn and integer matrices.

The floor is the product of the same blocks of the upper triangle with the same threads, and nothing else. scikit-learn gets
the full cosine matrix and its upper triangle; the integer matrices are the same with the subjects of both sessions and the
mask as N x N matrices of int64, as in the original project. Both require a smaller N to fit in memory, for which the floor
and ours are measured again.

At each N all are interleaved in one process; a time is the median over the turns, a ratio the median of the ratios. Memory is
the peak resident size of a new process that runs one of them only; extra is its increase after the imports and the creation
of the embeddings (10 sessions per subject). Most of the peak is torch itself.

    python benchmarks/verification.py
"""

import argparse
import math
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common import Measurement, argument_parser, limit_threads, report

if TYPE_CHECKING:
    import numpy as np

SESSIONS, SIZE, NOISE = 10, 512, 3.0
FLOOR, OURS, INTERVALS, SCIKIT, INTEGERS = "product alone", "ours", "ours, intervals", "scikit-learn", "integer matrices"
LARGE = 100_000
BLOCKWISE_WAYS = (FLOOR, OURS, INTERVALS)
"""Those that never store the full matrix, and so fit in memory at any N."""
Values = dict[str, float]
"""Metric to its value."""


@dataclass(frozen=True)
class Measured:
    """The measurements of one process.

    Attributes:
        seconds: of each method, in each turn.
        peak: resident size in MB.
        extra: increase of the peak after the imports and the creation of the embeddings.
        values: the metrics of each method.
    """

    seconds: dict[str, list[float]]
    peak: float
    extra: float
    values: dict[str, Values]


def main() -> None:
    parser = argument_parser(__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000, help="embeddings")
    parser.add_argument("--small", type=int, default=4_000, help="embeddings for the full matrices")
    parser.add_argument("--growth", type=int, nargs="*", default=[5_000, 10_000, 20_000, 40_000], help="embeddings")
    parser.add_argument("--large", action="store_true", help="also 100,000 embeddings, once (takes minutes)")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="device of the product and of ours")
    options = parser.parse_args()
    limit_threads(options.threads)
    numbers: dict[str, Measurement] = {}
    rows: list[list[object]] = []
    for count, ways in ((options.count, BLOCKWISE_WAYS), (options.small, (*BLOCKWISE_WAYS, SCIKIT, INTEGERS))):
        rows += compare(count, ways, options, numbers)
    grown = {}
    for count in sorted({*options.growth, *[LARGE] * options.large}):
        found = grown[count] = _measure_in_new_process(count, (OURS,), 1 if count == LARGE else options.turns, options)
        rows.append([count, "ours, alone", *_cells(count, found.seconds[OURS], None), found.peak, found.extra])
    numbers |= growth(grown)
    headers = ["N", "", "s", "over product", "ns per pair", "peak MB", "extra MB"]
    report(numbers, rows, headers, options.json)


def compare(
    count: int, ways: tuple[str, ...], options: argparse.Namespace, numbers: dict[str, Measurement]
) -> list[list[object]]:
    """A row per method at this N."""
    timed = _measure_in_new_process(count, ways, options.turns, options)
    rows: list[list[object]] = []
    for way in ways:
        seconds = timed.seconds[way]
        ratio = statistics.median(mine / floor for mine, floor in zip(seconds, timed.seconds[FLOOR]))
        alone = _measure_in_new_process(count, (way,), 1, options)
        rows.append([count, way, *_cells(count, seconds, ratio), alone.peak, alone.extra])
        if count == options.count and way == OURS:
            numbers["to_product"] = Measurement(ratio, 2, "lower", f"of the product's time, {count} embeddings of {SIZE}")
            numbers["peak_mb"] = Measurement(alone.peak, 1000, "lower", f"MB, the whole process, {count} embeddings of {SIZE}")
    if SCIKIT in ways:
        mine, theirs = timed.values[OURS], timed.values[SCIKIT]
        for metric, value in theirs.items():
            unit = f"from scikit-learn, {count} embeddings"
            numbers[f"{metric}_difference"] = Measurement(abs(mine[metric] - value), 1e-5, "lower", unit)
    return rows


def growth(grown: dict[int, Measured]) -> dict[str, Measurement]:
    """Growth of time and memory from the second smallest N to the largest; constant costs dominate the smallest."""
    if len(grown) < 3:
        return {}
    (_, small, *_, large) = sorted(grown)
    each_small, each_large = (statistics.median(grown[count].seconds[OURS]) / math.comb(count, 2) for count in (small, large))
    more = grown[large].extra - grown[small].extra
    copies = 2 * (large - small) * SIZE * 4 / 2**20  # normalised, and sorted by subject
    span = f"{large} embeddings over {small}"
    return {
        "growth": Measurement(each_large / each_small, 1.2, "lower", f"time per pair, {span}"),
        "extra_growth_mb": Measurement(more, copies, "lower", f"MB more, {span}; goal: two copies of those added"),
    }


def _cells(count: int, seconds: list[float], ratio: float | None) -> list[object]:
    each = statistics.median(seconds)
    return [each, ratio, each / math.comb(count, 2) * 1e9]


def _measure_in_new_process(count: int, ways: tuple[str, ...], turns: int, options: argparse.Namespace) -> Measured:
    """`measure` in a new process. This process stays small, because a child's peak starts at the size of its parent."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, count, ways, turns, options.threads, options.device).result()


def measure(count: int, ways: tuple[str, ...], turns: int, threads: int, device: str) -> Measured:
    """The time of each method to verify all pairs, interleaved in every turn."""
    import torch

    torch.set_num_threads(threads)
    embeddings, ids = make_embeddings(count)
    ready = {way: WAYS[way](embeddings, ids, device) for way in ways}
    before = _peak()
    for way in ways:
        WAYS[way](*make_embeddings(3_000 if device == "cuda" else 1_000), device)()  # warm-up
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    values = {}
    for turn in range(turns):
        for way in ways[turn % len(ways) :] + ways[: turn % len(ways)]:
            begun = time.perf_counter()
            values[way] = ready[way]()
            seconds[way].append(time.perf_counter() - begun)
    return Measured(seconds, _peak(), _peak() - before, values)


def _peak() -> float:
    """Peak resident size of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def make_embeddings(count: int) -> "tuple[np.ndarray, np.ndarray]":
    """Embeddings (n, 512) float32 and their subjects (n,), made in place."""
    import numpy as np

    rng = np.random.default_rng(0)
    ids = np.arange(count) % max(count // SESSIONS, 1)
    embeddings = rng.standard_normal((count, SIZE), dtype=np.float32)
    embeddings *= NOISE
    subjects = count // SESSIONS
    centres = rng.standard_normal((subjects, SIZE), dtype=np.float32)
    for start in range(0, subjects * SESSIONS, subjects):
        embeddings[start : start + subjects] += centres
    return embeddings, ids


def product_alone(embeddings: "np.ndarray", ids: "np.ndarray", device: str) -> Callable[[], Values]:
    """The function to time: the products that verification needs, on its threads."""
    import torch

    from fr_ps.device import pick_device
    from fr_ps.evaluation.pairwise.pairs import BLOCK_ROWS, CUDA_BLOCK_ROWS, _blocks, _run_blocks
    from fr_ps.evaluation.pairwise.similarity import similarity_scorer

    target = pick_device(device)
    left = similarity_scorer(embeddings, ids).to(target).left
    block_rows = CUDA_BLOCK_ROWS if device == "cuda" else BLOCK_ROWS

    def block(rows: slice, columns: slice) -> None:
        torch.mm(left[rows], left[columns].T)

    def run() -> Values:
        _run_blocks(block, list(_blocks(len(left), block_rows)), target)
        if device == "cuda":
            torch.cuda.synchronize()
        return {}

    return run


def ours(embeddings: "np.ndarray", ids: "np.ndarray", device: str) -> Callable[[], Values]:
    """The function to time: verification from embeddings to metrics."""
    from fr_ps.device import pick_device
    from fr_ps.evaluation.pairwise.pairs import AllPairs
    from fr_ps.evaluation.pairwise.verification import verification_metrics

    return lambda: verification_metrics(AllPairs(embeddings, ids, device=pick_device(device)).score()).defined()


def ours_with_intervals(embeddings: "np.ndarray", ids: "np.ndarray", device: str) -> Callable[[], Values]:
    """The function to time: the same with intervals from 1,000 bootstrap samples over subjects."""
    from fr_ps.device import pick_device
    from fr_ps.evaluation.bootstrap import bootstrap_weights
    from fr_ps.evaluation.pairwise.pairs import AllPairs
    from fr_ps.evaluation.pairwise.verification import verification_with_intervals

    def run() -> Values:
        pairs = AllPairs(embeddings, ids, bootstrap=bootstrap_weights(ids), device=pick_device(device))
        return verification_with_intervals(pairs, None)[1].defined()

    return run


def scikit_learn(embeddings: "np.ndarray", ids: "np.ndarray", _device: str) -> Callable[[], Values]:
    """The function to time: the full matrix, and one ROC curve of its upper triangle."""
    import numpy as np
    import sklearn.metrics  # noqa: F401

    def run() -> Values:
        unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
        upper = np.triu(np.ones((len(ids), len(ids)), dtype=bool), k=1)
        return _from_curve((ids[:, None] == ids)[upper], (unit @ unit.T)[upper])

    return run


def integer_matrices(embeddings: "np.ndarray", ids: "np.ndarray", _device: str) -> Callable[[], Values]:
    """The function to time: the full matrix, and subjects and mask as matrices of int64."""
    import sklearn.metrics  # noqa: F401
    import torch
    from torch.nn.functional import normalize

    def run() -> Values:
        unit = normalize(torch.from_numpy(embeddings))
        subjects = torch.from_numpy(ids).repeat(len(ids), 1)
        same = (subjects == subjects.T.contiguous()).long()
        upper = torch.ones_like(same).triu(diagonal=1) == 1
        return _from_curve(same[upper].numpy(), (unit @ unit.T)[upper].numpy())

    return run


def _from_curve(genuine: "np.ndarray", score: "np.ndarray") -> Values:
    import numpy as np
    from sklearn.metrics import auc, roc_curve

    far, tar, _ = roc_curve(genuine, score)
    values = {"auc": float(auc(far, tar)), "eer": float(np.interp(0, far - (1 - tar), far))}
    return values | {f"tar_at_far_{target:g}": float(tar[far <= target].max()) for target in (0.1, 0.01, 0.001)}


WAYS = {FLOOR: product_alone, OURS: ours, INTERVALS: ours_with_intervals, SCIKIT: scikit_learn, INTEGERS: integer_matrices}


if __name__ == "__main__":
    main()
