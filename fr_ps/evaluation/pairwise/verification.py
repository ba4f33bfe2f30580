"""Verification: are these two sessions of one person?"""

from functools import partial

import numpy as np

from fr_ps.evaluation.metrics import Metrics, ReportSection
from fr_ps.evaluation.pairwise.bootstrap_rates import add_bootstrap_intervals, add_fixed_threshold_rates, bootstrap_rates
from fr_ps.evaluation.pairwise.figures import det_figure, roc_figure, score_figure
from fr_ps.evaluation.pairwise.pairs import AllPairs, ListedPairs, PairScores
from fr_ps.evaluation.pairwise.roc import (
    OperatingPoint,
    compute_roc,
    d_prime,
    equal_error_rate,
    operating_point_at,
    operating_points,
    roc_auc,
    subject_weights,
)
from fr_ps.models.thresholds import Thresholds, ValidationThreshold
from fr_ps.report.table import Table

NAMES = ("auc", "auc_person_balanced", "eer", "dprime")


def verification_metrics(pair_scores: PairScores) -> Metrics:
    """AUC, person-balanced AUC, EER, d', and the true match rate at each FMR of `FAR_POINTS`.

    In the person-balanced AUC every person's genuine pairs weigh the same together. A point with fewer than one expected
    false match (FMR x impostor pairs) is left out, one with fewer than 30 is marked.
    """
    metrics = Metrics()
    if pair_scores.undefined_reason:
        for name in NAMES:
            metrics.add(name, None, pair_scores.undefined_reason)
        return metrics
    curve = compute_roc(pair_scores)
    metrics.add("auc", roc_auc(curve))
    metrics.add("auc_person_balanced", roc_auc(compute_roc(pair_scores, subject_weights(pair_scores))))
    metrics.add("eer", equal_error_rate(curve.fmr, curve.tmr))
    separation = d_prime(pair_scores)
    metrics.add("dprime", separation, "" if separation is not None else "all scores of a kind are the same")
    for point in operating_points(pair_scores, curve):
        metrics.add(f"tar_at_far_{point.target_fmr:g}", 1 - point.fnmr, point.low_support)
    return metrics


def verification_with_intervals(pairs: AllPairs | ListedPairs, thresholds: Thresholds | None) -> tuple[PairScores, Metrics]:
    """What was compared, and `verification`'s metrics with intervals.

    Where there are thresholds from validation, also what they give here: `fmr_at_val_far_0.01` and `fnmr_at_val_far_0.01`.

    Args:
        pairs: with draws of people.
        thresholds: of the model.
    """
    comparisons = pairs.score()
    metrics = verification_metrics(comparisons)
    if comparisons.undefined_reason:
        return comparisons, metrics
    chosen = _at_validation_thresholds(comparisons, thresholds)
    drawn, undrawn = bootstrap_rates(pairs, comparisons, [point.threshold for _, point in chosen])
    metrics = add_bootstrap_intervals(metrics, comparisons, drawn, undrawn)
    for operating, point in chosen:
        names = (f"fmr_at_val_far_{operating.fmr:g}", f"fnmr_at_val_far_{operating.fmr:g}")
        reason = f"on validation, {operating.support}" if operating.support else point.low_support
        add_fixed_threshold_rates(metrics, names, point, reason, drawn)
    return comparisons, metrics


def verification_section(pair_scores: PairScores, metrics: Metrics, thresholds: Thresholds | None) -> ReportSection:
    """The tables and figures of `verification_with_intervals`, and its metrics under `identity/`."""
    findings = ReportSection(metrics.with_prefix("identity"))
    if pair_scores.undefined_reason:
        return findings
    curve = compute_roc(pair_scores)
    found = operating_points(pair_scores, curve)
    names = [f"tar_at_far_{point.target_fmr:g}" for point in found]
    findings.tables.append(
        Table(
            "operating_points",
            "FNMR at fixed FMR, thresholds chosen here",
            _HEADER,
            [_row(pair_scores, metrics, point, name, point.low_support) for point, name in zip(found, names)],
            "The threshold is the smallest whose FMR is at most the one wanted; the interval is that of FNMR.",
        )
    )
    if chosen := _at_validation_thresholds(pair_scores, thresholds):
        assert thresholds is not None
        rows = [
            _row(pair_scores, metrics, point, f"fnmr_at_val_far_{operating.fmr:g}", operating.support or point.low_support)
            for operating, point in chosen
        ]
        findings.tables.append(
            Table(
                "validation_thresholds",
                "FMR and FNMR at the thresholds that validation chose",
                _HEADER,
                rows,
                f"Chosen on {thresholds.sessions} sessions of {thresholds.people} people; low support is that there or here.",
            )
        )
    findings.figures = {
        "roc": partial(roc_figure, curve, pair_scores.impostor_count, found),
        "det": partial(det_figure, curve, pair_scores.impostor_count, len(pair_scores.genuine_levels), found),
        "scores": partial(score_figure, pair_scores),
    }
    return findings


_HEADER = (
    "FMR wanted",
    "threshold",
    "FMR",
    "false matches",
    "of impostor pairs",
    "FNMR",
    "low",
    "high",
    "false non-matches",
    "of genuine pairs",
    "people refused",
    "of people",
    "support",
)


def _row(
    pair_scores: PairScores, metrics: Metrics, point: OperatingPoint, name: str, support: str
) -> list[str | int | float | None]:
    low, high = metrics.intervals.get(name, (None, None))
    if name.startswith("tar_") and low is not None and high is not None:
        low, high = 1 - high, 1 - low
    return [
        f"{point.target_fmr:g}",
        float(pair_scores.scale.scores(np.array(point.threshold))),
        point.fmr,
        point.false_matches,
        point.impostor_pairs,
        point.fnmr,
        low,
        high,
        point.false_non_matches,
        point.genuine_pairs,
        point.subjects_rejected,
        point.subjects,
        "low" if support else "",
    ]


def _at_validation_thresholds(
    pair_scores: PairScores, thresholds: Thresholds | None
) -> list[tuple[ValidationThreshold, OperatingPoint]]:
    """The thresholds from validation with what they come to here; they are cosines."""
    if thresholds is None or pair_scores.scale.measure != "cosine":
        return []
    return [
        (operating, operating_point_at(pair_scores, pair_scores.scale.threshold_level(operating.threshold), operating.fmr))
        for operating in thresholds.identity
    ]
