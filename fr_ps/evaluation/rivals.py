"""What a model is measured against in its own report: linear baselines, and itself where crops are not perfect."""

from collections.abc import Mapping

import numpy as np

from fr_ps.evaluation.analyses.gallery_search import search
from fr_ps.evaluation.analyses.identification import rank_metrics
from fr_ps.evaluation.assess import Assessment, make_pairs
from fr_ps.evaluation.baselines import Baselines
from fr_ps.evaluation.differences import HEADLINES, Difference, difference_table, differences
from fr_ps.evaluation.numbers.findings import Findings
from fr_ps.evaluation.numbers.metrics import Metrics
from fr_ps.evaluation.pairwise.verification import verification_with_intervals

BASELINE = "baseline_"
JITTERED = "jittered"
_COMPARED = ("identity/auc", "identity/eer")


def identity_metrics(embeddings: np.ndarray, like: Assessment) -> Metrics:
    """The identity metrics, under `identity/`, of other embeddings of the sessions of an assessment, on its pairs and draws.

    Ranks are among all these sessions; where the assessment has a gallery, of which there are no other embeddings, without.
    """
    labels = like.tested.labels
    pairs = make_pairs(embeddings, labels.ids, like.listed, like.comparisons.scale.measure, like.draws)
    metrics = verification_with_intervals(pairs, None)[1]
    if like.search.gallery is None:
        metrics = metrics.joined(rank_metrics(search(embeddings, labels.ids, None), like.draws, like.draws.people))
    return metrics.under("identity")


def baseline_findings(assessment: Assessment, baselines: Baselines, warped: np.ndarray | None = None) -> tuple[Findings, str]:
    """What each baseline comes to on the same pairs, and in a sentence whether the network beats them.

    It does if the interval of the difference in AUC to the best of them lies above 0.

    Args:
        assessment: of the network.
        baselines: embeddings of the same sessions.
        warped: (n, C) the network's own of warped maps, where the baselines' are of these; None: of the maps as they are.
    """
    own = assessment.metrics if warped is None else identity_metrics(warped, assessment)
    prefix, crops = ("", "") if warped is None else (f"{JITTERED}_", ", on warped maps")
    metrics, found = Metrics(), {}
    for name, embeddings in baselines.embeddings.items():
        theirs = identity_metrics(embeddings, assessment)
        metrics = metrics.joined(theirs.under(f"{prefix}{BASELINE}{name}"))
        found[name] = differences(own, theirs, _COMPARED, assessment.draws.people)
    found = dict(sorted(found.items(), key=lambda one: -max((its.second for its in one[1][:1]), default=0)))
    why = "; ".join(f"{name}: {reason}" for name, reason in baselines.left_out.items())
    table = difference_table(
        f"{prefix}baselines",
        f"Network against linear baselines fit on the same training people{crops}",
        ("network", "baseline"),
        found,
        "Difference: network minus baseline, its interval and p from the same draws of people."
        + (f" Left out: {why}." if why else ""),
    )
    return Findings(metrics, [table] if table.rows or why else []), _verdict(found)


def jitter_findings(assessment: Assessment, warped: np.ndarray) -> Findings:
    """What is left where every map was turned, scaled and shifted a little.

    Args:
        assessment: of the network on the maps as they are.
        warped: (n, C) its embeddings of the changed maps of the same sessions.
    """
    metrics = identity_metrics(warped, assessment)
    table = difference_table(
        "jitter",
        "Perfect crops against maps warped by random similarities (up to 5 degrees, 10 %, 4 px at 112)",
        ("as they are", "warped"),
        {"": differences(assessment.metrics, metrics, HEADLINES, assessment.draws.people)},
        "Each session was warped once, by a draw that depends on its name alone.",
    )
    return Findings(metrics.under(JITTERED), [table])


def _verdict(found: Mapping[str, list[Difference]]) -> str:
    by_auc = {name: one for name, its in found.items() for one in its if one.name == "identity/auc"}
    if not by_auc:
        return "no baseline could be compared"
    best = max(by_auc, key=lambda name: by_auc[name].second)
    one = by_auc[best]
    against = f"{one.second:.4f} of {best}, the best of {len(by_auc)}"
    numbers = f"AUC {one.first:.4f} against {against}; difference {one.value:+.4f} {one.spread}"
    if one.better == "first":
        return f"the network beats the linear baselines: {numbers}"
    return f"the network does NOT beat the linear baselines: {numbers}"
