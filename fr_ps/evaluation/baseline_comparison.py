"""Comparison of a model with baselines, and with itself on warped maps."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from fr_ps.data.labels import ATTRIBUTES
from fr_ps.evaluation.analyses.attributes import all_attribute_metrics
from fr_ps.evaluation.analyses.gallery_search import search_gallery
from fr_ps.evaluation.analyses.identification import rank_metrics
from fr_ps.evaluation.baselines.embeddings import BaselineEmbeddings
from fr_ps.evaluation.difference_figures import difference_figure
from fr_ps.evaluation.differences import HEADLINE_METRICS, ROUNDING_ERROR, Difference, difference_table, paired_differences
from fr_ps.evaluation.dlib_baseline import NAME as DLIB_NAME
from fr_ps.evaluation.evaluate_predictions import EvaluationResult, make_pairs
from fr_ps.evaluation.metrics import Metrics, ReportSection
from fr_ps.evaluation.pairwise.verification import verification_with_intervals
from fr_ps.report.html_page import Verdict

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


def attribute_aucs(probabilities: Mapping[str, np.ndarray], reference: EvaluationResult) -> Metrics:
    """AUC `gender/auc`, ... of other probabilities of the sessions of `reference`, on the same bootstrap replicates.

    Args:
        probabilities: attribute to (n, classes); the other attributes are left out.
        reference: evaluation of the network.
    """
    trained = [attribute for attribute in ATTRIBUTES if attribute in probabilities]
    metrics = all_attribute_metrics(probabilities, reference.tested.labels, {}, trained, reference.bootstrap)
    return metrics.select({f"{attribute}/auc" for attribute in trained})


def baseline_section(
    result: EvaluationResult, baselines: BaselineEmbeddings, jittered: np.ndarray | None = None
) -> tuple[ReportSection, Verdict]:
    """Metrics of each baseline on the same pairs, and the verdict whether the network beats the best of them on these maps.

    The network beats it if the confidence interval of its AUC minus that of the best baseline is above 0.

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
    section = ReportSection(metrics, [table] if table.rows or omitted else [])
    labelled = [(name, row) for name, compared in differences.items() for row in compared if row.name == "identity/auc"]
    if labelled:
        title = f"Identity AUC: network minus baseline{of_maps}"
        section.figures[table.name] = partial(difference_figure, title, ("network", "baseline"), labelled)
        section.captions[table.name] = "Bars: 95 % intervals of the difference over subjects, on the same pairs."
    return section, _baseline_verdict(differences, jittered is not None)


def attribute_baseline_section(
    result: EvaluationResult,
    probes: Mapping[str, Mapping[str, np.ndarray]],
    omitted: Mapping[str, Mapping[str, str]],
    jittered: Mapping[str, np.ndarray] | None = None,
) -> tuple[ReportSection, list[str]]:
    """AUC of linear probes on pixels beside that of the network, and a headline for each probe.

    Args:
        result: evaluation of the network.
        probes: name of each probe to its probabilities of the same sessions, attribute to (n, classes).
        omitted: name of a probe to the attributes that it was not fitted for, with the reasons.
        jittered: probabilities of the network on warped maps, if those of the probes are of warped maps; None: original maps.
    """
    network_metrics = result.metrics if jittered is None else attribute_aucs(jittered, result)
    prefix, of_maps = ("", "") if jittered is None else (f"{JITTERED_PREFIX}_", ", on warped maps")
    metrics, differences, reasons, headlines = Metrics(), {}, [], []
    for name, probabilities in probes.items():
        probe_metrics = attribute_aucs(probabilities, result)
        for attribute, reason in omitted.get(name, {}).items():
            probe_metrics.add(f"{attribute}/auc", None, reason)
        reasons += [f"{name} {key.split('/')[0]}: {reason}" for key, reason in probe_metrics.reasons.items()]
        differences[name] = paired_differences(
            network_metrics, probe_metrics, list(probe_metrics.values), result.bootstrap.subjects
        )
        metrics = metrics.merge(probe_metrics.with_prefix(f"{prefix}{BASELINE_PREFIX}{name}"))
        headlines.append(f"attributes{of_maps}: {_attribute_headline(name, differences[name])}")
    table = difference_table(
        f"{prefix}attribute_baselines",
        f"Attributes: network against linear probes on pixels, fitted on the same training subjects{of_maps}",
        ("network", "probe"),
        differences,
        "Difference: network minus probe. Low, high: 95 % confidence interval on the same bootstrap replicates."
        + (f" Omitted: {'; '.join(reasons)}." if reasons else ""),
    )
    section = ReportSection(metrics, [table] if table.rows or reasons else [])
    labelled = [(f"{row.name.split('/')[0]}, {name}", row) for name, compared in differences.items() for row in compared]
    if labelled:
        title = f"AUC of attributes: network minus probe{of_maps}"
        section.figures[table.name] = partial(difference_figure, title, ("network", "probe"), labelled)
        section.captions[table.name] = "Bars: 95 % intervals over subjects; without a bar there is no interval."
    return section, headlines


def jitter_section(result: EvaluationResult, jittered: np.ndarray, attributes: Metrics | None = None) -> ReportSection:
    """Metrics of the network on maps that are rotated, scaled and shifted a little.

    Args:
        result: evaluation of the network on the original maps.
        jittered: (n, C) embeddings of the warped maps of the same sessions.
        attributes: `attribute_aucs` of the network on the warped maps; None: identity only.
    """
    metrics = identity_metrics(jittered, result).merge(attributes or Metrics())
    compared = [*HEADLINE_METRICS, *(attributes.values if attributes else ())]
    differences = paired_differences(result.metrics, metrics, compared, result.bootstrap.subjects)
    table = difference_table(
        "jitter",
        "Original maps against maps warped by random similarities (up to 5 degrees, 10 %, 4 px at 112)",
        ("original", "warped"),
        {"": differences},
        "Each session is warped once, by a transform that depends only on its id and session name.",
    )
    section = ReportSection(metrics.with_prefix(JITTERED_PREFIX), [table])
    if differences:
        labelled = [(row.name, row) for row in differences]
        section.figures["jitter"] = partial(
            difference_figure, "Original maps minus warped maps", ("original", "warped"), labelled
        )
        section.captions["jitter"] = (
            "What small rotations, scales and shifts of the maps cost; bars: 95 % intervals over subjects."
        )
    return section


def _baseline_verdict(compared: Mapping[str, list[Difference]], warped: bool) -> Verdict:
    aucs = {name: row for name, differences in compared.items() for row in differences if row.name == "identity/auc"}
    maps = "on warped maps, " if warped else ""
    if not aucs:
        return Verdict("neither", f"{maps}no baseline has a defined identity AUC")
    best = max(aucs, key=lambda name: aucs[name].second)
    auc = aucs[best]
    against = f"{auc.second:.4f} of {best}, the best of {len(aucs)} baselines"
    numbers = f"AUC {auc.first:.4f} against {against}; difference {auc.value:+.4f} {auc.interval_text}"
    baselines = "linear baselines and dlib" if DLIB_NAME in aucs else "linear baselines"
    if auc.better == "first":
        return Verdict("better", f"{maps}the network beats the {baselines}: {numbers}")
    if auc.better == "second":
        return Verdict("worse", f"{maps}the network loses to the {baselines}: {numbers}")
    if abs(auc.value) <= ROUNDING_ERROR:
        both_one = ", and no AUC exceeds 1" if auc.second > 1 - ROUNDING_ERROR else ""
        return Verdict("neither", f"{maps}the network has the same AUC as the best of the {baselines}{both_one}: {numbers}")
    side = "above" if auc.value > 0 else "below"
    why = "the interval includes zero" if auc.has_interval else "the difference has no interval"
    return Verdict("neither", f"{maps}the network is {side} the {baselines}, but not significantly ({why}): {numbers}")


def _attribute_headline(name: str, differences: Sequence[Difference]) -> str:
    """In which attributes the AUC of the network is above, equal to and below that of the probe."""
    if not differences:
        return f"{name} has no defined AUC"
    above = [_attribute_difference(row) for row in differences if row.value > 0]
    below = [_attribute_difference(row) for row in differences if row.value < 0]
    equal = [f"{row.name.split('/')[0]} {row.first:.4f}" for row in differences if row.value == 0]
    parts = [f"above {name} in {len(above)} of {len(differences)}{': ' if above else ''}{', '.join(above)}"]
    parts += [f"equal: {', '.join(equal)}"] if equal else []
    parts += [f"BELOW: {', '.join(below)}"] if below else []
    return f"the network's AUC is {'; '.join(parts)}"


def _attribute_difference(difference: Difference) -> str:
    interval = "(no interval)" if np.isnan(difference.low) else f"[{difference.low:+.4f}, {difference.high:+.4f}]"
    return f"{difference.name.split('/')[0]} {difference.value:+.4f} {interval}"
