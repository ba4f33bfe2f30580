"""Identification among enrolled subjects, closed-set (rank rates) and open-set (FNIR at fixed FPIR).

Terms of ISO/IEC 19795-1. The open-set rates FPIR and FNIR follow Grother, Ngan and Hanaoka, "Face recognition vendor test part 2:
identification" (NIST IR 8271).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from fr_ps.evaluation.analyses.gallery_search import GallerySearch
from fr_ps.evaluation.bootstrap import BootstrapWeights, unweighted
from fr_ps.evaluation.metrics import LOW_SUPPORT, LOW_SUPPORT_REASON, Metrics, ReportSection
from fr_ps.report.figures import legend_beside, new_figure, use_plain_tick_labels
from fr_ps.report.table import Cell, DrawFigure, Table

FPIR_POINTS = (0.1, 0.01, 0.001)
RANKS = (1, 5)
_CMC_RANKS = 20
_MAX_CELLS = 2**21
"""Replicates x searches held at once: about 30 MB with all derived arrays."""
_HEADER = ("", "value", "low", "high", "errors", "searches", "subjects", "threshold")


@dataclass(frozen=True)
class OpenSet:
    """Mated and non-mated searches, with scores of `GallerySearch.by_maximum`. A place is an index into `GallerySearch.probes`.

    Attributes:
        nonmated: (k,) places of the non-mated searches, highest score first.
        nonmated_scores: (k,) their best scores.
        mated: (l,) places of the mated searches.
        hits: (h,) places of the mated searches with the probe's own subject at rank 1, highest score first.
        hit_scores: (h,) their scores.
        leave_own_out: whether the non-mated searches are those of all probes, each without the sessions of its own subject.
    """

    nonmated: np.ndarray
    nonmated_scores: np.ndarray
    mated: np.ndarray
    hits: np.ndarray
    hit_scores: np.ndarray
    leave_own_out: bool


def open_set(search: GallerySearch) -> OpenSet:
    """Mated and non-mated searches.

    A search is non-mated if the probe's subject is not enrolled. Without such probes, or without a gallery, each probe is also
    searched without the sessions of its own subject.
    """
    rank, scores = search.by_maximum.rank, search.by_maximum.nonmated
    has_impostor = ~np.isnan(scores)
    not_enrolled = has_impostor & (rank == 0)
    leave_own_out = search.gallery is None or not not_enrolled.any()
    nonmated, hits = np.flatnonzero(has_impostor if leave_own_out else not_enrolled), np.flatnonzero(rank == 1)
    nonmated = nonmated[np.argsort(-scores[nonmated], kind="stable")]
    hits = hits[np.argsort(-search.by_maximum.mated[hits], kind="stable")]
    return OpenSet(nonmated, scores[nonmated], np.flatnonzero(rank), hits, search.by_maximum.mated[hits], leave_own_out)


def fnir_at(searches: OpenSet, rates: Sequence[float], bootstrap: BootstrapWeights) -> tuple[np.ndarray, np.ndarray]:
    """(B, r) FNIR at r rates FPIR, and (B, r) thresholds, recomputed in each replicate.

    FPIR(t) is the share of the non-mated searches with a best score of at least t. FNIR(t) is the share of the mated searches
    that do not return the probe's own subject at rank 1 with a score of at least t. The threshold is the lowest t with at most
    the FPIR: it lies just above the score that is returned. FNIR is NaN in a replicate without mated or non-mated searches.

    Args:
        searches: open set with at least one non-mated search.
        rates: FPIR, in [0, 1).
        bootstrap: replicates of the subjects of the probes.
    """
    # The last place of each distinct score, because ties are accepted together.
    ends = np.append(np.flatnonzero(np.diff(searches.nonmated_scores)), len(searches.nonmated_scores) - 1)
    mated = bootstrap.select(searches.mated).weighted_sums(np.ones(len(searches.mated)))
    fnir, threshold = np.empty((2, len(bootstrap.weights), len(rates)))
    step = max(1, _MAX_CELLS // (len(searches.nonmated_scores) + len(searches.hits)))
    for start in range(0, len(bootstrap.weights), step):
        part = slice(start, start + step)
        # Sums of whole numbers below 2^24: exact in float32.
        accepted = np.cumsum(bootstrap.weights[part, bootstrap.unit[searches.nonmated]], axis=1)[:, ends]
        returned = np.pad(np.cumsum(bootstrap.weights[part, bootstrap.unit[searches.hits]], axis=1), ((0, 0), (1, 0)))
        total = accepted[:, -1:].astype(float)
        for column, rate in enumerate(rates):
            threshold[part, column] = searches.nonmated_scores[ends[np.argmax(accepted > rate * total, axis=1)]]
            above = np.searchsorted(-searches.hit_scores, -threshold[part, column], side="left")
            correct = np.take_along_axis(returned, above[:, None], axis=1)[:, 0]
            with np.errstate(invalid="ignore"):  # 0 / 0: no mated search
                missed = (mated[part] - correct) / mated[part]
            fnir[part, column] = np.where(total[:, 0] > 0, missed, np.nan)
    return fnir, threshold


def rank_metrics(search: GallerySearch, bootstrap: BootstrapWeights | None = None, subjects: int = 0) -> Metrics:
    """Rank-1 and rank-5 rates: `rank1` and `rank5` by the maximum over a subject's sessions, `rank1_mean` and `rank5_mean`.

    They are shares of the mated searches with two or more subjects enrolled; a tie with another subject is an error.

    Args:
        search: search of all probes.
        bootstrap: replicates of the subjects of the probes; None: no intervals. The gallery is not resampled.
        subjects: number of subjects of the mated searches, for the interval of a rate without errors.
    """
    metrics, scored = Metrics(), np.flatnonzero(search.is_scored)
    for ranking, suffix in ((search.by_maximum, ""), (search.mean, "_mean")):
        for rank in RANKS:
            # Rank 1 needs two enrolled subjects; undefined_reason covers that.
            reason = search.undefined_reason or ("fewer than six subjects are enrolled" if search.subjects <= rank else "")
            correct = ranking.rank[scored] <= rank
            replicates = _bootstrap_shares(correct, bootstrap.select(scored)) if bootstrap and not reason else None
            metrics.add(f"rank{rank}{suffix}", None if reason else float(correct.mean()), reason, replicates, subjects)
    return metrics


def identification_section(search: GallerySearch, ids: np.ndarray, bootstrap: BootstrapWeights | None) -> ReportSection:
    """`rank_metrics`, and `fnir_at_fpir_0.1`, ...: FNIR at each FPIR of `FPIR_POINTS`, by the maximum.

    A point with fewer than one expected false positive (FPIR x non-mated searches) is left out; one with fewer than 30 is marked
    low support. The intervals resample the subjects of the probes, not the gallery; each replicate has its own threshold.

    Args:
        search: search of all probes.
        ids: (n,) subject of each session.
        bootstrap: replicates of the n sessions; None: no intervals.
    """
    searches, probe_ids, scored = open_set(search), ids[search.probes], np.flatnonzero(search.is_scored)
    probe_bootstrap = bootstrap.select(search.probes) if bootstrap else None
    subjects, mated = len(np.unique(probe_ids[scored])), len(np.unique(probe_ids[searches.mated]))
    metrics, rows, figures = rank_metrics(search, probe_bootstrap, subjects), list[list[Cell]](), dict[str, DrawFigure]()

    def add_row(name: str, label: str, errors: int, trials: int, subjects: int, threshold: float | None) -> None:
        interval = metrics.intervals.get(name, (None, None))
        rows.append([label, metrics.values[name], *interval, errors, trials, subjects, threshold])

    for ranking, suffix, rule in ((search.by_maximum, "", "maximum"), (search.mean, "_mean", "mean")):
        for rank in RANKS:
            errors = int((ranking.rank[scored] > rank).sum())
            add_row(f"rank{rank}{suffix}", f"rank {rank}, {rule}", errors, len(scored), subjects, None)
    if not search.undefined_reason:
        figures["cmc"] = partial(cmc_figure, search)

    rates = [rate for rate in FPIR_POINTS if rate * len(searches.nonmated) >= 1]
    if rates:
        (fnir,), (thresholds,) = fnir_at(searches, rates, unweighted(len(probe_ids)))
        replicate_fnir = fnir_at(searches, rates, probe_bootstrap)[0] if probe_bootstrap else None
        for column, rate in enumerate(rates):
            name, threshold = f"fnir_at_fpir_{rate:g}", float(thresholds[column])
            replicates = None if replicate_fnir is None else replicate_fnir[:, column]
            if mated:
                metrics.add(name, float(fnir[column]), _low_support(rate, len(searches.nonmated)), replicates, mated)
            else:
                metrics.add(name, None, search.undefined_reason)
            errors = len(searches.mated) - int((searches.hit_scores > threshold).sum())
            add_row(name, f"FNIR at FPIR {rate:g}", errors, len(searches.mated), mated, threshold)
        if mated:
            figures["open_set"] = partial(open_set_figure, searches, rates, fnir)
    return ReportSection(
        metrics, [Table("identification", "Rank rates and open-set errors", _HEADER, rows, _note(search, searches))], figures
    )


def cmc_figure(search: GallerySearch) -> Figure:
    """Cumulative match characteristic: share of the searches with the probe's own subject within each rank."""
    scored = search.is_scored
    ranks = np.arange(1, min(_CMC_RANKS, search.subjects) + 1)
    title = f"CMC of {scored.sum()} searches among {search.subjects} subjects"
    figure, axes = new_figure(title, "rank", "identification rate", legend=True)
    lowest = 1.0
    for ranking, rule in ((search.by_maximum, "maximum"), (search.mean, "mean")):
        shares = (ranking.rank[scored, None] <= ranks).mean(axis=0)
        axes.plot(ranks, shares, marker=".", label=f"{rule} over sessions")
        lowest = min(lowest, shares[0])
    axes.set_ylim(min(lowest - 0.05 * (1 - lowest), 0.95), 1.002)
    axes.set_xticks(ranks if len(ranks) <= 10 else ranks[::2])
    legend_beside(axes)
    return figure


def open_set_figure(searches: OpenSet, rates: Sequence[float], points: np.ndarray) -> Figure:
    """FNIR against FPIR, the latter on a logarithmic axis down to one search.

    Args:
        searches: open set with mated and non-mated searches.
        rates: FPIR to mark.
        points: FNIR at these.
    """
    count = len(searches.nonmated_scores)
    scores, starts = np.unique(-searches.nonmated_scores, return_index=True)
    missed = 1 - np.searchsorted(-searches.hit_scores, scores, side="left") / len(searches.mated)
    # Between two FPIR the threshold does not change.
    fpir = np.append(np.maximum(starts, 1), count) / count
    fnir = np.append(missed, 1 - len(searches.hit_scores) / len(searches.mated))
    figure, axes = new_figure(f"Open set: {len(searches.mated)} mated, {count} non-mated searches", "FPIR", "FNIR")
    axes.step(fpir, fnir, where="post")
    axes.plot(rates, points, "o")
    axes.set_xscale("log")
    use_plain_tick_labels(axes.xaxis)
    axes.set_xlim(1 / count, 1)
    axes.set_ylim(-0.01, max(0.1, 1.1 * float(fnir.max())))
    return figure


def _bootstrap_shares(correct: np.ndarray, bootstrap: BootstrapWeights) -> np.ndarray:
    """(B,) share of the correct searches; NaN where no search was drawn."""
    totals = bootstrap.weighted_sums(np.stack([correct, np.ones(len(correct))], axis=1))
    with np.errstate(invalid="ignore"):
        return totals[:, 0] / totals[:, 1]


def _low_support(rate: float, searches: int) -> str:
    expected = rate * searches
    if expected >= LOW_SUPPORT:
        return ""
    return f"{LOW_SUPPORT_REASON}: {expected:.1f} expected false positives of {searches} non-mated searches"


def _note(search: GallerySearch, searches: OpenSet) -> str:
    if search.gallery is None:
        protocol = f"Each of {len(search.probes)} sessions is searched among all other sessions, of {search.subjects} subjects."
    else:
        enrolled = f"{len(search.gallery)} enrolled sessions of {search.subjects} subjects"
        protocol = f"{len(search.probes)} probes are searched among {enrolled}."
    source = (
        "all probes without the sessions of their own subject" if searches.leave_own_out else "probes of subjects not enrolled"
    )
    return (
        f"{protocol} The score of a subject is the maximum or the mean over its sessions; FNIR uses the maximum. "
        f"The {len(searches.nonmated)} non-mated searches are those of {source}. The intervals resample the subjects of the "
        "probes, not the gallery."
    )
