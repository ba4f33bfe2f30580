"""Identification: whose session is this, among enrolled people, and is it anybody's at all?

Terms are those of ISO/IEC 19795-1. The open-set rates, FPIR and FNIR, are those of Grother, Ngan and Hanaoka, "Face recognition
vendor test part 2: identification" (NIST IR 8271).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from fr_ps.evaluation.analyses.gallery_search import GallerySearch
from fr_ps.evaluation.bootstrap import BootstrapWeights
from fr_ps.evaluation.metrics import LOW_SUPPORT, Metrics, ReportSection
from fr_ps.evaluation.weighted_metrics import unweighted
from fr_ps.report.figures import new_figure, use_plain_tick_labels
from fr_ps.report.table import Cell, DrawFigure, Table

FPIR_POINTS = (0.1, 0.01, 0.001)
RANKS = (1, 5)
_CMC_RANKS = 20
_MAX_CELLS = 2**21
"""Draws x searches that are held at once: some 30 MB with all that is derived from them."""
_HEADER = ("", "value", "low", "high", "errors", "searches", "people", "threshold")


@dataclass(frozen=True)
class OpenSet:
    """The searches of an open set by `Search.maximum`; a place is one among `Search.probes`.

    Attributes:
        nonmated: (k,) places of the non-mated searches, the best score first.
        best: (k,) their best scores.
        mated: (l,) places of the mated searches.
        hits: (h,) places of those that have their own person at rank 1, the best score first.
        own: (h,) the scores of these.
        left_out: whether the non-mated searches are those of all probes, each without its own person's sessions.
    """

    nonmated: np.ndarray
    nonmated_scores: np.ndarray
    mated: np.ndarray
    hits: np.ndarray
    hit_scores: np.ndarray
    leave_own_out: bool


def open_set(search: GallerySearch) -> OpenSet:
    """The searches that should find nobody, and those that should find somebody.

    Non-mated are the searches of those probes whose person is not enrolled in the gallery. Where there is no gallery, or
    everybody is enrolled, each probe is searched once more with its own person's sessions left out.
    """
    rank, other = search.by_maximum.rank, search.by_maximum.nonmated
    found_other = ~np.isnan(other)
    strangers = found_other & (rank == 0)
    left_out = search.gallery is None or not strangers.any()
    nonmated, hits = np.flatnonzero(found_other if left_out else strangers), np.flatnonzero(rank == 1)
    nonmated = nonmated[np.argsort(-other[nonmated], kind="stable")]
    hits = hits[np.argsort(-search.by_maximum.mated[hits], kind="stable")]
    return OpenSet(nonmated, other[nonmated], np.flatnonzero(rank), hits, search.by_maximum.mated[hits], left_out)


def fnir_at(searches: OpenSet, rates: Sequence[float], bootstrap: BootstrapWeights) -> tuple[np.ndarray, np.ndarray]:
    """(B, r) FNIR at r rates FPIR, and (B, r) the thresholds, derived anew in each draw; FNIR is NaN in a draw without
    mated or without non-mated searches.

    FPIR(t) is the share of the non-mated searches with a best score of at least t, FNIR(t) that of the mated ones that do not
    return the own person at rank 1 with a score of at least t. The threshold is the smallest t, on the real line, whose FPIR
    is at most the rate: it lies just above the score that is returned here.

    Args:
        found: with at least one non-mated search.
        rates: FPIR, 0 or more and below 1.
        draws: of the probes' people.
    """
    ends = np.append(
        np.flatnonzero(np.diff(searches.nonmated_scores)), len(searches.nonmated_scores) - 1
    )  # ties are accepted together
    mated = bootstrap.select(searches.mated).weighted_sums(np.ones(len(searches.mated)))
    fnir, threshold = np.empty((2, len(bootstrap.weights), len(rates)))
    some = max(1, _MAX_CELLS // (len(searches.nonmated_scores) + len(searches.hits)))
    for start in range(0, len(bootstrap.weights), some):
        part = slice(start, start + some)
        # Sums of whole numbers below 2^24: exact in float32.
        accepted = np.cumsum(bootstrap.weights[part, bootstrap.unit[searches.nonmated]], axis=1)[:, ends]
        returned = np.pad(np.cumsum(bootstrap.weights[part, bootstrap.unit[searches.hits]], axis=1), ((0, 0), (1, 0)))
        allowed = accepted[:, -1:].astype(float)
        for column, rate in enumerate(rates):
            threshold[part, column] = searches.nonmated_scores[ends[np.argmax(accepted > rate * allowed, axis=1)]]
            above = np.searchsorted(-searches.hit_scores, -threshold[part, column], side="left")
            right = np.take_along_axis(returned, above[:, None], axis=1)[:, 0]
            with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN of a draw without mated searches
                missed = (mated[part] - right) / mated[part]
            fnir[part, column] = np.where(allowed[:, 0] > 0, missed, np.nan)
    return fnir, threshold


def rank_metrics(search: GallerySearch, bootstrap: BootstrapWeights | None = None, subjects: int = 0) -> Metrics:
    """Rank-1 and rank-5 rates: `rank1` and `rank5` by the maximum over a person's sessions, `rank1_mean` and `rank5_mean`.

    They are shares of the searches that are mated and could be wrong; a tie with somebody else is an error.

    Args:
        search: of all probes.
        draws: of the probes' people, for intervals; the gallery stays as it is.
        people: who are searched for, for the interval where all are found.
    """
    metrics, asked = Metrics(), np.flatnonzero(search.is_scored)
    for ranking, suffix in ((search.by_maximum, ""), (search.mean, "_mean")):
        for rank in RANKS:
            # Rank 1 needs two people, and has its reason where there is one only.
            why = search.undefined_reason or ("fewer than six people are enrolled" if search.subjects <= rank else "")
            right = ranking.rank[asked] <= rank
            replicates = _bootstrap_shares(right, bootstrap.select(asked)) if bootstrap and not why else None
            metrics.add(f"rank{rank}{suffix}", None if why else float(right.mean()), why, replicates, subjects)
    return metrics


def identification_section(search: GallerySearch, ids: np.ndarray, bootstrap: BootstrapWeights | None) -> ReportSection:
    """Rates of `rank_metrics`, and `fnir_at_fpir_0.1`, ...: FNIR at each FPIR of `FPIR_POINTS` by the maximum.

    A point of FPIR with fewer than one expected false positive (FPIR x non-mated searches) is left out, one with fewer than 30
    is marked. For the intervals the probes' people are drawn and the gallery stays as it is; the threshold of an FPIR is
    derived anew in each draw.

    Args:
        search: of all probes.
        ids: (n,) whose the sessions are.
        resample: of the n sessions; None: no intervals.
    """
    found, owner, asked = open_set(search), ids[search.probes], np.flatnonzero(search.is_scored)
    draws = bootstrap.select(search.probes) if bootstrap else None
    people, mated = len(np.unique(owner[asked])), len(np.unique(owner[found.mated]))
    metrics, rows, figures = rank_metrics(search, draws, people), list[list[Cell]](), dict[str, DrawFigure]()

    def tell(name: str, label: str, errors: int, searches: int, people: int, threshold: float | None) -> None:
        interval = metrics.intervals.get(name, (None, None))
        rows.append([label, metrics.values[name], *interval, errors, searches, people, threshold])

    for ranking, suffix, way in ((search.by_maximum, "", "maximum"), (search.mean, "_mean", "mean")):
        for rank in RANKS:
            errors = int((ranking.rank[asked] > rank).sum())
            tell(f"rank{rank}{suffix}", f"rank {rank}, {way}", errors, len(asked), people, None)
    if not search.undefined_reason:
        figures["cmc"] = partial(cmc_figure, search)

    rates = [rate for rate in FPIR_POINTS if rate * len(found.nonmated) >= 1]
    if rates:
        (fnir,), (thresholds,) = fnir_at(found, rates, unweighted(len(owner)))
        drawn = fnir_at(found, rates, draws)[0] if draws else None
        for column, rate in enumerate(rates):
            name, threshold = f"fnir_at_fpir_{rate:g}", float(thresholds[column])
            replicates = None if drawn is None else drawn[:, column]
            if mated:
                metrics.add(name, float(fnir[column]), _low_support(rate, len(found.nonmated)), replicates, mated)
            else:
                metrics.add(name, None, search.undefined_reason)
            errors = len(found.mated) - int((found.hit_scores > threshold).sum())
            tell(name, f"FNIR at FPIR {rate:g}", errors, len(found.mated), mated, threshold)
        if mated:
            figures["open_set"] = partial(open_set_figure, found, rates, fnir)
    return ReportSection(metrics, [Table("identification", "Identification", _HEADER, rows, _note(search, found))], figures)


def cmc_figure(search: GallerySearch) -> Figure:
    """Cumulative match characteristic: the share of searches with the own person at a rank or before."""
    asked = search.is_scored
    ranks = np.arange(1, min(_CMC_RANKS, search.subjects) + 1)
    title = f"CMC of {asked.sum()} searches among {search.subjects} people"
    figure, axes = new_figure(title, "rank", "identification rate")
    lowest = 1.0
    for ranking, way in ((search.by_maximum, "maximum"), (search.mean, "mean")):
        shares = (ranking.rank[asked, None] <= ranks).mean(axis=0)
        axes.plot(ranks, shares, marker=".", label=f"{way} over a person's sessions")
        lowest = min(lowest, shares[0])
    margin = max(0.05 * (1 - lowest), 0.001)
    axes.set_ylim(lowest - margin, 1 + margin)
    axes.set_xticks(ranks)
    axes.legend()
    return figure


def open_set_figure(searches: OpenSet, rates: Sequence[float], points: np.ndarray) -> Figure:
    """FNIR against FPIR, the latter on a logarithmic axis as far as the searches support it.

    Args:
        found: with mated and non-mated searches.
        rates: FPIR that are marked.
        points: FNIR at these.
    """
    count = len(searches.nonmated_scores)
    scores, starts = np.unique(-searches.nonmated_scores, return_index=True)
    missed = 1 - np.searchsorted(-searches.hit_scores, scores, side="left") / len(searches.mated)
    # From one FPIR to the next the threshold stays where it is.
    fpir = np.append(np.maximum(starts, 1), count) / count
    fnir = np.append(missed, 1 - len(searches.hit_scores) / len(searches.mated))
    figure, axes = new_figure(f"Open set: {len(searches.mated)} mated, {count} non-mated searches", "FPIR", "FNIR")
    axes.step(fpir, fnir, where="post")
    axes.plot(rates, points, "o")
    axes.set_xscale("log")
    use_plain_tick_labels(axes.xaxis)
    axes.set_xlim(1 / count, 1)
    axes.set_ylim(bottom=0)
    return figure


def _bootstrap_shares(right: np.ndarray, bootstrap: BootstrapWeights) -> np.ndarray:
    """(B,) of the drawn searches, NaN of none."""
    totals = bootstrap.weighted_sums(np.stack([right, np.ones(len(right))], axis=1))
    with np.errstate(invalid="ignore"):
        return totals[:, 0] / totals[:, 1]


def _low_support(rate: float, searches: int) -> str:
    expected = rate * searches
    if expected >= LOW_SUPPORT:
        return ""
    return f"low support: {expected:.1f} expected false positives of {searches} non-mated searches"


def _note(search: GallerySearch, found: OpenSet) -> str:
    if search.gallery is None:
        protocol = f"Each of {len(search.probes)} sessions is searched among all the others, of {search.subjects} people."
    else:
        protocol = (
            f"{len(search.probes)} probes are searched among {len(search.gallery)} enrolled sessions of {search.subjects} people."
        )
    strangers = "of all probes, without their own person's sessions" if found.leave_own_out else "of people who are not enrolled"
    return (
        f"{protocol} A person scores the maximum or the mean over its sessions; FNIR is by the maximum, returned is who scores "
        f"above the threshold. The {len(found.nonmated)} non-mated searches are those {strangers}. Intervals draw the probes' "
        "people and leave the gallery as it is."
    )
