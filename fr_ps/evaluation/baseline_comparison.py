"""Comparison of a model with baselines, and with itself on warped maps."""

from collections.abc import Mapping

import numpy as np

from fr_ps.evaluation.analyses.gallery_search import search_gallery
from fr_ps.evaluation.analyses.identification import rank_metrics
from fr_ps.evaluation.baselines import BaselineEmbeddings
from fr_ps.evaluation.differences import HEADLINE_METRICS, Difference, difference_table, paired_differences
from fr_ps.evaluation.dlib_baseline import NAME as DLIB_NAME
from fr_ps.evaluation.evaluate_predictions import EvaluationResult, make_pairs
from fr_ps.evaluation.metrics import Metrics, ReportSection
from fr_ps.evaluation.pairwise.verification import verification_with_intervals

BASELINE_PREFIX = "baseline_"
JITTERED_PREFIX = "jittered"
_COMPARED_METRICS = ("identity/auc", "identity/eer")


def identity_metrics(embeddings: np.ndarray, reference: EvaluationResult) -> Metrics:
    """Metrics `identity/...` of other embeddings of the sessions of `reference`, on its pairs and bootstrap replicates.

    For rank rates, each session is searched among all others. They are left out if the reference has a gallery, because its
    sessions have no such embeddings.
    """
    labels = reference.tested.labels
    pairs = make_pairs(embeddings, labels.ids, reference.pair_list, reference.pair_scores.scale.measure, reference.bootstrap)
    metrics = verification_with_intervals(pairs, None)[1]
    if reference.gallery_search.gallery is None:
        metrics = metrics.merge(
            rank_metrics(search_gallery(embeddings, labels.ids, None), reference.bootstrap, reference.bootstrap.subjects)
        )
    return metrics.with_prefix("identity")


def baseline_section(
    result: EvaluationResult, baselines: BaselineEmbeddings, jittered: np.ndarray | None = None
) -> tuple[ReportSection, str]:
    """Metrics of each baseline on the same pairs, and a headline that states whether the network is better.

    The network is better if the confidence interval of its AUC minus that of the best baseline is above 0.

    Args:
        result: evaluation of the network.
        baselines: baseline embeddings of the same sessions.
        jittered: (n, C) embeddings of the network on warped maps, if the baselines are of warped maps; None: original maps.
    """
    network_metrics = result.metrics if jittered is None else identity_metrics(jittered, result)
    prefix, of_maps = ("", "") if jittered is None else (f"{JITTERED_PREFIX}_", ", on warped maps")
    metrics, differences = Metrics(), {}
    for name, embeddings in baselines.embeddings.items():
        baseline_metrics = identity_metrics(embeddings, result)
        metrics = metrics.merge(baseline_metrics.with_prefix(f"{prefix}{BASELINE_PREFIX}{name}"))
        differences[name] = paired_differences(network_metrics, baseline_metrics, _COMPARED_METRICS, result.bootstrap.subjects)
    # Best AUC first. The AUC, if defined, is the first difference of a baseline.
    differences = dict(sorted(differences.items(), key=lambda item: -item[1][0].second if item[1] else 0))
    omitted = "; ".join(f"{name}: {reason}" for name, reason in baselines.omitted.items())
    table = difference_table(
        f"{prefix}baselines",
        f"Network against baselines; the linear ones are fitted on the same training subjects{of_maps}",
        ("network", "baseline"),
        differences,
        "Difference: network minus baseline. Low, high: 95 % confidence interval on the same bootstrap replicates."
        + (f" Omitted: {omitted}." if omitted else ""),
    )
    return ReportSection(metrics, [table] if table.rows or omitted else []), _baseline_headline(differences)


def jitter_section(result: EvaluationResult, jittered: np.ndarray) -> ReportSection:
    """Metrics of the network on maps that are rotated, scaled and shifted a little.

    Args:
        result: evaluation of the network on the original maps.
        jittered: (n, C) embeddings of the warped maps of the same sessions.
    """
    metrics = identity_metrics(jittered, result)
    table = difference_table(
        "jitter",
        "Original maps against maps warped by random similarities (up to 5 degrees, 10 %, 4 px at 112)",
        ("original", "warped"),
        {"": paired_differences(result.metrics, metrics, HEADLINE_METRICS, result.bootstrap.subjects)},
        "Each session is warped once, by a transform that depends only on its id and session name.",
    )
    return ReportSection(metrics.with_prefix(JITTERED_PREFIX), [table])


def _baseline_headline(compared: Mapping[str, list[Difference]]) -> str:
    aucs = {name: row for name, differences in compared.items() for row in differences if row.name == "identity/auc"}
    if not aucs:
        return "no baseline has a defined identity AUC"
    best = max(aucs, key=lambda name: aucs[name].second)
    auc = aucs[best]
    against = f"{auc.second:.4f} of {best}, the best of {len(aucs)} baselines"
    numbers = f"AUC {auc.first:.4f} against {against}; difference {auc.value:+.4f} {auc.interval_text}"
    verdict = {"first": "better", "second": "WORSE", "neither": "NOT significantly better"}[auc.better]
    baselines = "linear baselines and dlib" if DLIB_NAME in aucs else "linear baselines"
    return f"the network is {verdict} than the {baselines}: {numbers}"
