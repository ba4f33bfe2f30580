"""Comparison of two models on the same pairs of the same subjects."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from fr_ps.data.labels import ATTRIBUTES
from fr_ps.data.leakage import leakage_notes, split_overlap
from fr_ps.evaluation.bootstrap import bootstrap_weights
from fr_ps.evaluation.difference_figures import difference_figure
from fr_ps.evaluation.differences import Difference, difference_table, headline_metrics, paired_differences
from fr_ps.evaluation.evaluate_model import log_report
from fr_ps.evaluation.evaluate_predictions import EvaluationResult, LabelledPredictions, evaluate_predictions
from fr_ps.evaluation.inputs import EvaluationInputs
from fr_ps.evaluation.metrics import Metrics, ReportSection, lower_is_better
from fr_ps.evaluation.pairwise.pairs import AllPairs
from fr_ps.evaluation.pairwise.verification import verification_with_intervals
from fr_ps.evaluation.pairwise.verification_report import add_verification_figures, draw_roc
from fr_ps.evaluation.report import INTERVAL_NOTE, describe_test_set, write_report
from fr_ps.evaluation.report_lead import accepted_by_both, describe_lead
from fr_ps.models.folder import ModelInfo
from fr_ps.models.inference import predict, require_finite
from fr_ps.progress import progress
from fr_ps.report.html_page import Lead, Verdict
from fr_ps.report.table import Table
from fr_ps.tracking.run import Run
from fr_ps.tracking.tracked_metrics import difference_metrics

_NOTE = "Low, high: 95 % confidence interval of the difference, both models on the same bootstrap replicates. p is two-sided."
_GROUP_METRIC = "auc"
_GROUP_SUFFIX = f"/identity/{_GROUP_METRIC}"


@dataclass(frozen=True)
class ComparisonResult:
    """Result of a comparison.

    Attributes:
        differences: first model minus second.
        group_differences: identity AUC within each class of each attribute, first model minus second.
        tables: the table of `differences` and that of `group_differences`.
        notes: the headline, then the warnings.
    """

    differences: list[Difference]
    group_differences: list[Difference]
    tables: list[Table]
    notes: list[str]


def compare_models(
    models: Sequence[EvaluationInputs], out: Path, run: Run, *, batch: int, names: Sequence[str] = ()
) -> ComparisonResult:
    """Evaluate two models on the same sessions and compare them, write the report and log it to the run.

    Both models use the same bootstrap replicates, so the difficulty of the drawn subjects cancels in the difference.

    Args:
        models: the two models and their data, with the same rows.
        out: folder for the report.
        run: run that logs the comparison.
        batch: sessions per batch.
        names: names of the models in the report; empty: what distinguishes them (see `model_names`).

    Raises:
        InputError: a prediction with NaN or infinity, or a damaged map.
    """
    infos = [one.info for one in models]
    titles = (names[0], names[1]) if names else model_names(*infos)
    results, leakage = [], []
    for name, one in zip(titles, models):
        labels = one.dataset.labels.subset(one.rows)
        with progress(f"score {name}", len(one.rows), "sessions") as advance:
            predictions = predict(one.network, one.dataset.store, one.rows, batch, advance)
        require_finite(predictions, labels.session_names(), one.model)
        labelled = LabelledPredictions(predictions, labels)
        results.append(
            evaluate_predictions(
                labelled,
                one.info.trained,
                one.thresholds,
                pair_list=one.pair_list,
                measure=one.options.measure,
                device=one.device,
            )
        )
        leakage += leakage_notes(name, split_overlap(one.model, labels.row_keys(), "subject"))
    data, options, dataset = models[1].data, models[1].options, models[1].dataset
    metrics_a, metrics_b = (result.metrics for result in results)
    names_a = headline_metrics(metrics_a) + _probe_metric_names(metrics_a)
    compared, incomparable = _comparable_metrics(infos, titles, names_a)
    differences = paired_differences(metrics_a, metrics_b, compared, results[0].bootstrap.subjects)
    groups = group_differences(results[0].tested, results[1].tested)
    title = f"{titles[0]} minus {titles[1]}"
    tables = [
        difference_table("differences", title, titles, {"": differences}, _NOTE),
        difference_table("group_differences", f"{title} within each class", titles, {"": groups}, _NOTE),
    ]
    warnings = (*dataset.notes, *results[0].warnings, *leakage, *incomparable)
    metrics = metrics_a.with_prefix("a").merge(metrics_b.with_prefix("b"))
    for difference in (*differences, *groups):
        metrics.add(f"difference/{difference.name}", difference.value)
        if np.isfinite(difference.low):
            metrics.intervals[f"difference/{difference.name}"] = (difference.low, difference.high)
            metrics.add(f"p/{difference.name}", difference.p)
    verdict = comparison_verdict(differences, titles)
    part = f"the {options.part} part of {titles[0]}'s split" if options.part else "every row of the table"
    facts = {
        "a, in the metrics": f"{titles[0]}: {models[0].model}, {_describe(infos[0])}",
        "b, in the metrics": f"{titles[1]}: {models[1].model}, {_describe(infos[1])}",
        "tested": f"{describe_test_set(results[0])}: {part}",
        "headline": verdict.text,
        "intervals": INTERVAL_NOTE,
    }
    sections = _sections(titles, results, differences, groups, tables)
    lead = Lead(f"on {data.resolve().name}: {part}", accepted_by_both(titles, results), "", [verdict])
    written = write_report(out, f"{titles[0]} against {titles[1]}", facts, metrics, None, sections, warnings, lead)
    params = {"model_a": str(models[0].model), "model_b": str(models[1].model), "data": str(data), "part": options.part or "all"}
    if names:
        params |= {"model_a": names[0], "model_b": names[1]}
    log_report(run, out, written, params, {"fr_ps.kind": "compare"}, describe_lead(lead, warnings))
    run.log_metrics(difference_metrics(metrics.defined(), metrics.intervals), 0)
    return ComparisonResult(differences, groups, tables, [verdict.text, *warnings])


def model_names(first: ModelInfo, second: ModelInfo) -> tuple[str, str]:
    """What distinguishes two models: backbone, maps, or both; else their runs; else their order."""
    described = [(info.backbones, "+".join(info.modalities)) for info in (first, second)]
    different = [pair for pair in zip(*described) if pair[0] != pair[1]]
    runs = [str(info.provenance.get("run", "")) for info in (first, second)]
    if different:
        return " on ".join(pair[0] for pair in different), " on ".join(pair[1] for pair in different)
    if all(runs) and runs[0] != runs[1]:
        return f"run {runs[0]}", f"run {runs[1]}"
    return "the first model", "the second model"


def comparison_verdict(differences: Sequence[Difference], names: tuple[str, str]) -> Verdict:
    """Which model has the better identity AUC, with both values, the difference and its interval."""
    first, second = names
    for auc in differences:
        if auc.name == "identity/auc":
            numbers = f"{auc.first:.4f} against {auc.second:.4f}, {auc.value:+.4f} {auc.interval_text}"
            if auc.better == "first":
                return Verdict("better", f"{first} is better than {second} by identity AUC: {numbers}")
            if auc.better == "second":
                return Verdict("better", f"{second} is better than {first} by identity AUC: {numbers}")
            if not auc.has_interval:
                return Verdict("neither", f"{first} and {second} cannot be compared by identity AUC: {numbers}")
            return Verdict("neither", f"no significant difference between {first} and {second} by identity AUC: {numbers}")
    return Verdict("neither", "no identity metric is defined for both models")


def _describe(info: ModelInfo) -> str:
    return f"{info.backbones} on {' + '.join(info.modalities)}"


def _sections(
    names: tuple[str, str],
    results: Sequence[EvaluationResult],
    differences: Sequence[Difference],
    groups: Sequence[Difference],
    tables: Sequence[Table],
) -> dict[str, ReportSection]:
    """Differences with their figures, then the curves of both models."""
    section = ReportSection(tables=list(tables))
    of_identity = [row for row in differences if row.name.startswith("identity/")]
    for name, title, compared in (
        ("differences", "Differences in identity", of_identity),
        ("attribute_differences", "Differences in attributes", [row for row in differences if row not in of_identity]),
        ("group_differences", "Differences in identity AUC within each class", groups),
    ):
        if compared:
            labelled = [(row.name.removeprefix("groups/").removesuffix(_GROUP_SUFFIX), row) for row in compared]
            section.figures[name] = partial(difference_figure, title, names, labelled)
            section.captions[name] = (
                "Bars: 95 % intervals over subjects, both models on the same bootstrap replicates; without an interval, no bar."
            )
            if any(lower_is_better(row.name) for row in compared):
                section.captions[name] += f" Error rates have the opposite sign here, so that {names[0]} is better to the right."
    verification = ReportSection()
    if not any(result.pair_scores.undefined_reason for result in results):
        curves = {name: draw_roc(result.pair_scores, result.roc_band) for name, result in zip(names, results)}
        add_verification_figures(verification, curves)
    return {"Differences": section, "Verification": verification}


def group_differences(first: LabelledPredictions, second: LabelledPredictions) -> list[Difference]:
    """Identity AUC within each class of each attribute, first minus second: `groups/gender/male/identity/auc`.

    Both models have predicted the same sessions; the classes are those of the first model. A class without genuine or impostor
    pairs is left out.
    """
    differences: list[Difference] = []
    labels = first.labels
    for column, attribute in enumerate(ATTRIBUTES):
        for code, name in enumerate(labels.class_names(attribute)):
            rows = np.flatnonzero(labels.codes[:, column] == code)
            subjects = len(np.unique(labels.ids[rows]))
            if subjects < 2:
                continue
            prefix = f"groups/{attribute}/{name}/identity"
            auc_a, auc_b = (_identity_auc(labelled, rows).with_prefix(prefix) for labelled in (first, second))
            differences += paired_differences(auc_a, auc_b, [f"{prefix}/{_GROUP_METRIC}"], subjects)
    return differences


def _identity_auc(labelled: LabelledPredictions, rows: np.ndarray) -> Metrics:
    ids = labelled.labels.ids[rows]
    pairs = AllPairs(labelled.predictions.embeddings[rows], ids, "cosine", bootstrap_weights(ids))
    return verification_with_intervals(pairs, None)[1].select({_GROUP_METRIC})


def _probe_metric_names(metrics: Metrics) -> list[str]:
    return [name for name in metrics.defined() if name.startswith("probe/") and name.endswith("/auc")]


def _comparable_metrics(infos: Sequence[ModelInfo], titles: tuple[str, str], names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Metrics of identity and of the attributes that have the same classes in both models, and a note on the others."""
    first, second = infos
    different = [attribute for attribute in first.classes if first.classes[attribute] != second.classes[attribute]]
    kept = [name for name in names if not set(name.split("/")) & set(different)]
    note = f"not compared, because the classes of {titles[0]} and {titles[1]} differ: {', '.join(different)}"
    return kept, [note] if different else []
