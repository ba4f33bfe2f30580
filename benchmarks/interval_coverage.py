"""Coverage of the 95 % intervals of verification, on simulated subjects.

Some subjects are harder to verify than others (their sessions scatter more), some resemble others more (they are nearer to
the mean face), and the similarity of two subjects affects all of their sessions. Hence neither two genuine pairs of one
subject nor two impostor pairs of the same two subjects are independent. The true value is that of the same code on thousands
of subjects. Compares our bootstrap over subjects with a bootstrap over pairs, which assumes independent pairs.

    python benchmarks/interval_coverage.py

The file is not named coverage.py, which would shadow the package of that name.
"""

import math
import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from common import Measurement, argument_parser, limit_threads, report

if TYPE_CHECKING:
    import numpy as np

    from fr_ps.evaluation.metrics import Metrics
    from fr_ps.evaluation.pairwise.pairs import PairScores

METRICS = ("auc", "auc_person_balanced", "eer", "tar_at_far_0.1", "tar_at_far_0.01")
SCATTER = {"AUC 0.95": 1.15, "AUC 0.995": 0.67}
"""Standard deviation of the sessions of a subject relative to that of subjects, per dimension, by setting."""
SIZE = 32
RESAMPLED = ("subjects", "pairs")
"""What the two kinds of bootstrap draw."""
GOAL, MIN_SUBJECTS = 0.90, 50
"""The smallest coverage that meets the goal, with this number of subjects or more."""
TRUE_SUBJECTS = 3000
Intervals = dict[str, tuple[float, float]]
"""Metric to its interval."""


def main() -> None:
    parser = argument_parser(__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=300, help="populations of each size")
    parser.add_argument("--draws", type=int, default=500, help="bootstrap samples per interval")
    parser.add_argument("--people", type=int, nargs="+", default=[18, 50, 100, 200], help="subjects, with AUC 0.95")
    parser.add_argument("--easy-people", type=int, nargs="*", default=[50, 100], help="subjects, with AUC 0.995")
    parser.add_argument("--truth", type=int, default=6, help=f"populations of {TRUE_SUBJECTS} subjects for the true value")
    options = parser.parse_args()
    limit_threads(1)  # --threads are processes here
    populations = dict(zip(SCATTER, (options.people, options.easy_people)))
    numbers: dict[str, Measurement] = {}
    rows: list[list[object]] = []
    with ProcessPoolExecutor(options.threads, multiprocessing.get_context("spawn")) as pool:
        for name, counts in populations.items():
            if not counts:
                continue
            true = _mean(pool.map(partial(true_values, SCATTER[name]), range(options.truth)))
            for people in counts:
                seeds = range(people * 10**6, people * 10**6 + options.repetitions)
                found = list(pool.map(partial(intervals, SCATTER[name], people, options.draws), seeds, chunksize=4))
                for metric in METRICS:
                    by_unit = {unit: [one[unit][metric] for one in found if metric in one[unit]] for unit in RESAMPLED}
                    rows.append([name, people, metric, true[metric], *_cells(by_unit, true[metric])])
                    if people >= MIN_SUBJECTS:
                        label = f"{name.replace(' ', '_').lower()}_{people}_subjects_{metric}"
                        share = coverage(by_unit["subjects"], true[metric])
                        numbers[label] = Measurement(share, GOAL, "higher", "coverage of the 95 % intervals")
    headers = ["setting", "subjects", "metric", "true", "over subjects", "+/-", "width", "over pairs", "+/-", "width"]
    report(numbers, rows, headers, options.json)


def coverage(found: list[tuple[float, float]], true: float) -> float:
    """The share of the intervals that contain `true`."""
    return sum(low <= true <= high for low, high in found) / len(found)


def width(found: list[tuple[float, float]]) -> float:
    """Mean width of the intervals."""
    return sum(high - low for low, high in found) / len(found)


def _cells(by_unit: dict[str, list[tuple[float, float]]], true: float) -> list[float]:
    """Coverage, its standard error and the width, over subjects and over pairs."""
    cells = []
    for found in by_unit.values():
        share = coverage(found, true)
        cells += [share, math.sqrt(share * (1 - share) / len(found)), width(found)]
    return cells


def _mean(found: Iterable[dict[str, float]]) -> dict[str, float]:
    each = list(found)
    return {metric: sum(one[metric] for one in each) / len(each) for metric in METRICS}


def simulate(seed: int, people: int, scatter: float, sessions: tuple[int, int] = (3, 8)) -> "tuple[np.ndarray, np.ndarray]":
    """Embeddings (n, 32) and their subjects (n,).

    Args:
        seed: of the random generator.
        people: number of subjects.
        scatter: standard deviation of sessions around the centre of their subject, relative to that of the centres.
        sessions: smallest and largest number of sessions per subject.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(people), rng.integers(sessions[0], sessions[1], people, endpoint=True))
    size = np.linspace(1.5, 0.5, SIZE)  # subjects differ more in some dimensions than in others
    toward_mean = rng.normal(1.5, 0.75, people)
    centres = rng.standard_normal((people, SIZE)) * size
    centres[:, 0] += toward_mean
    subject_scatter = scatter * np.exp(rng.normal(0, 0.25, people))
    rows = centres[ids] + subject_scatter[ids, None] * rng.standard_normal((len(ids), SIZE))
    return rows.astype(np.float32), ids


def true_values(scatter: float, seed: int, people: int = TRUE_SUBJECTS) -> dict[str, float]:
    """The metrics of a very large population."""
    from fr_ps.evaluation.pairwise.pairs import AllPairs
    from fr_ps.evaluation.pairwise.verification import verification_metrics

    found = verification_metrics(AllPairs(*simulate(seed, people, scatter)).score()).defined()
    return {metric: found[metric] for metric in METRICS}


def intervals(scatter: float, people: int, draws: int, seed: int, sessions: tuple[int, int] = (3, 8)) -> dict[str, Intervals]:
    """The intervals of one simulated population, over subjects and over pairs."""
    from fr_ps.evaluation.bootstrap import bootstrap_weights
    from fr_ps.evaluation.pairwise.pairs import AllPairs
    from fr_ps.evaluation.pairwise.verification import verification_with_intervals

    embeddings, ids = simulate(seed, people, scatter, sessions)
    pairs = AllPairs(embeddings, ids, bootstrap=bootstrap_weights(ids, draws, seed))
    comparisons, metrics = verification_with_intervals(pairs, None)
    return {"subjects": metrics.intervals, "pairs": over_pairs(comparisons, metrics, draws, seed).intervals}


def over_pairs(comparisons: "PairScores", metrics: "Metrics", draws: int, seed: int) -> "Metrics":
    """`metrics` with intervals from a bootstrap over pairs, separate for genuine and impostor pairs."""
    import numpy as np

    from fr_ps.evaluation.pairwise.roc import subject_weights
    from fr_ps.evaluation.pairwise.verification import BootstrapRates, add_bootstrap_intervals

    rng = np.random.default_rng(seed)
    genuine, subject_weight = comparisons.genuine_levels, subject_weights(comparisons)
    impostor = np.repeat(comparisons.impostor_levels, comparisons.impostor_counts)
    quantiles = np.concatenate([np.linspace(0, 0.9, 100), 1 - np.geomspace(0.1, 1 / len(impostor), 150)])
    thresholds = np.union1d(*(np.quantile(levels, quantiles, method="nearest") for levels in (impostor, genuine)))[::-1]

    def bins(levels: np.ndarray) -> np.ndarray:
        """The first of the falling thresholds that a score reaches; every score reaches the last one."""
        return np.searchsorted(-thresholds, -levels, side="left")

    impostor_bins = np.bincount(bins(comparisons.impostor_levels), comparisons.impostor_counts, minlength=len(thresholds))
    genuine_bins = np.eye(len(thresholds))[bins(genuine)]  # (m, t) one-hot

    def rates(impostors: np.ndarray, repeats: np.ndarray) -> BootstrapRates:
        """The rates by the number of impostor pairs in each bin (B, t), and of repeats of each genuine pair (B, m)."""
        weights = impostors, repeats @ genuine_bins, repeats @ (subject_weight[:, None] * genuine_bins)
        accepted = (np.cumsum(of, axis=1) for of in weights)
        return BootstrapRates(
            np.append(thresholds[0] + 1, thresholds), *(np.pad(of / of[:, -1:], ((0, 0), (1, 0))) for of in accepted), exact=False
        )

    repeats = rng.multinomial(len(genuine), np.full(len(genuine), 1 / len(genuine)), size=draws)
    resampled = rates(rng.multinomial(len(impostor), impostor_bins / len(impostor), size=draws), repeats)
    return add_bootstrap_intervals(metrics, comparisons, resampled, rates(impostor_bins[None], np.ones((1, len(genuine)))))


if __name__ == "__main__":
    main()
