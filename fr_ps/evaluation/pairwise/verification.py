"""Verification: are these two sessions of one person?"""

import numpy as np

from fr_ps.evaluation.numbers.findings import Findings, Table
from fr_ps.evaluation.numbers.metrics import Metrics
from fr_ps.evaluation.pairwise.figures import det_figure, roc_figure, score_figure
from fr_ps.evaluation.pairwise.operating import Operating, Thresholds
from fr_ps.evaluation.pairwise.pairs import AllPairs, Comparisons, ListedPairs
from fr_ps.evaluation.pairwise.replicates import add_fixed, add_replicates, resampled_rates
from fr_ps.evaluation.pairwise.roc import (
    Point,
    area,
    d_prime,
    equal_error_rate,
    person_weights,
    point_at,
    points,
    roc,
)

NAMES = ("auc", "auc_person_balanced", "eer", "dprime")


def verification(comparisons: Comparisons) -> Metrics:
    """AUC, person-balanced AUC, EER, d', and the true match rate at each FMR of `FAR_POINTS`.

    In the person-balanced AUC every person's genuine pairs weigh the same together. A point with fewer than one expected
    false match (FMR x impostor pairs) is left out, one with fewer than 30 is marked.
    """
    metrics = Metrics()
    if comparisons.undefined:
        for name in NAMES:
            metrics.add(name, None, comparisons.undefined)
        return metrics
    curve = roc(comparisons)
    metrics.add("auc", area(curve))
    metrics.add("auc_person_balanced", area(roc(comparisons, person_weights(comparisons))))
    metrics.add("eer", equal_error_rate(curve.fmr, curve.tmr))
    separation = d_prime(comparisons)
    metrics.add("dprime", separation, "" if separation is not None else "all scores of a kind are the same")
    for point in points(comparisons, curve):
        metrics.add(f"tar_at_far_{point.target:g}", 1 - point.fnmr, point.support)
    return metrics


def verification_with_intervals(pairs: AllPairs | ListedPairs, thresholds: Thresholds | None) -> tuple[Comparisons, Metrics]:
    """What was compared, and `verification`'s metrics with intervals.

    Where there are thresholds from validation, also what they give here: `fmr_at_val_far_0.01` and `fnmr_at_val_far_0.01`.

    Args:
        pairs: with draws of people.
        thresholds: of the model.
    """
    comparisons = pairs.compare()
    metrics = verification(comparisons)
    if comparisons.undefined:
        return comparisons, metrics
    chosen = _applied(comparisons, thresholds)
    drawn, undrawn = resampled_rates(pairs, comparisons, [point.key for _, point in chosen])
    metrics = add_replicates(metrics, comparisons, drawn, undrawn)
    for operating, point in chosen:
        names = (f"fmr_at_val_far_{operating.fmr:g}", f"fnmr_at_val_far_{operating.fmr:g}")
        reason = f"on validation, {operating.support}" if operating.support else point.support
        add_fixed(metrics, names, point, reason, drawn)
    return comparisons, metrics


def verification_findings(comparisons: Comparisons, metrics: Metrics, thresholds: Thresholds | None) -> Findings:
    """The tables and figures of `verification_with_intervals`, and its metrics under `identity/`."""
    findings = Findings(metrics.under("identity"))
    if comparisons.undefined:
        return findings
    curve = roc(comparisons)
    found = points(comparisons, curve)
    names = [f"tar_at_far_{point.target:g}" for point in found]
    findings.tables.append(
        Table(
            "operating_points",
            "FNMR at fixed FMR, thresholds chosen here",
            _HEADER,
            [_row(comparisons, metrics, point, name, point.support) for point, name in zip(found, names)],
            "The threshold is the smallest whose FMR is at most the one wanted; the interval is that of FNMR.",
        )
    )
    if chosen := _applied(comparisons, thresholds):
        assert thresholds is not None
        rows = [
            _row(comparisons, metrics, point, f"fnmr_at_val_far_{operating.fmr:g}", operating.support or point.support)
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
        "roc": roc_figure(curve, comparisons.impostors, found),
        "det": det_figure(curve, comparisons.impostors, len(comparisons.genuine_keys), found),
        "scores": score_figure(comparisons),
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


def _row(comparisons: Comparisons, metrics: Metrics, point: Point, name: str, support: str) -> list[str | int | float | None]:
    low, high = metrics.intervals.get(name, (None, None))
    if name.startswith("tar_") and low is not None and high is not None:
        low, high = 1 - high, 1 - low
    return [
        f"{point.target:g}",
        float(comparisons.scale.scores(np.array(point.key))),
        point.fmr,
        point.false_matches,
        point.impostors,
        point.fnmr,
        low,
        high,
        point.false_non_matches,
        point.genuine,
        point.people_refused,
        point.people,
        "low" if support else "",
    ]


def _applied(comparisons: Comparisons, thresholds: Thresholds | None) -> list[tuple[Operating, Point]]:
    """The thresholds from validation with what they come to here; they are cosines."""
    if thresholds is None or comparisons.scale.measure != "cosine":
        return []
    return [
        (operating, point_at(comparisons, comparisons.scale.threshold_key(operating.threshold), operating.fmr))
        for operating in thresholds.identity
    ]
