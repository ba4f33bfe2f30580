"""Comparison of two models on the same pairs of the same subjects."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fr_ps.data.labels import ATTRIBUTES
from fr_ps.data.leakage import leakage_notes, split_overlap
from fr_ps.evaluation.bootstrap import bootstrap_weights
from fr_ps.evaluation.differences import Difference, difference_table, headline_metrics, paired_differences
from fr_ps.evaluation.evaluate_model import EvaluationOptions, log_report, open_model_dataset, split_rows
from fr_ps.evaluation.evaluate_predictions import LabelledPredictions, evaluate_predictions
from fr_ps.evaluation.metrics import Metrics, ReportSection
from fr_ps.evaluation.pairwise.pair_list import read_pairs
from fr_ps.evaluation.pairwise.pairs import AllPairs
from fr_ps.evaluation.pairwise.verification import verification_with_intervals
from fr_ps.evaluation.report import INTERVAL_NOTE, describe_test_set, write_report
from fr_ps.models.folder import ModelInfo, load_model
from fr_ps.models.inference import predict, require_finite
from fr_ps.models.thresholds import read_thresholds
from fr_ps.progress import progress
from fr_ps.report.table import Table
from fr_ps.tracking.run import Run
from fr_ps.tracking.tracked_metrics import difference_metrics

_NOTE = "Low, high: 95 % confidence interval of the difference, both models on the same bootstrap replicates. p is two-sided."
_GROUP_METRIC = "auc"


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
    models: Sequence[Path],
    data: Path,
    out: Path,
    run: Run,
    *,
    options: EvaluationOptions,
    device: torch.device,
    batch: int,
    names: Sequence[str] = (),
) -> ComparisonResult:
    """Evaluate two model folders on the same sessions and compare them, write the report and log it to the run.

    The sessions are a part of the first model's split, or all. Both models use the same bootstrap replicates, so the difficulty
    of the drawn subjects cancels in the difference.

    Args:
        models: two model folders.
        data: prepared data set with the maps of both models.
        out: folder for the report.
        run: run that logs the comparison.
        options: part, pairs and measure.
        device: device of the networks, and of the comparison of all pairs.
        batch: sessions per batch.
        names: names of the models in the report; empty: their folders.

    Raises:
        InputError: a model, the data, the part or the pairs cannot be used.
    """
    first, second = models
    results, leakage, infos = [], [], []
    for name, model in zip("AB", models):
        network, info = load_model(model, device)
        dataset = open_model_dataset(info, data)
        rows = split_rows(dataset, first, options.part)
        labels = dataset.labels.subset(rows)
        pair_list = read_pairs(options.pairs, labels) if options.pairs else None
        with progress(f"score {name}", len(rows), "sessions") as advance:
            predictions = predict(network, dataset.store, rows, batch, advance)
        require_finite(predictions, labels.session_names(), model)
        labelled = LabelledPredictions(predictions, labels)
        results.append(
            evaluate_predictions(
                labelled, info.trained, read_thresholds(model), pair_list=pair_list, measure=options.measure, device=device
            )
        )
        leakage += leakage_notes(name, split_overlap(model, labels.row_keys(), "subject"))
        infos.append(info)
    metrics_a, metrics_b = (result.metrics for result in results)
    names_a = headline_metrics(metrics_a) + _probe_metric_names(metrics_a)
    compared, incomparable = _comparable_metrics(infos[0], infos[1], names_a)
    differences = paired_differences(metrics_a, metrics_b, compared, results[0].bootstrap.subjects)
    groups = group_differences(results[0].tested, results[1].tested)
    tables = [
        difference_table("differences", "A minus B", ("A", "B"), {"": differences}, _NOTE),
        difference_table("group_differences", "A minus B within each class", ("A", "B"), {"": groups}, _NOTE),
    ]
    warnings = (*dataset.notes, *results[0].warnings, *leakage, *incomparable)
    metrics = metrics_a.with_prefix("a").merge(metrics_b.with_prefix("b"))
    for difference in (*differences, *groups):
        metrics.add(f"difference/{difference.name}", difference.value)
        if np.isfinite(difference.low):
            metrics.intervals[f"difference/{difference.name}"] = (difference.low, difference.high)
            metrics.add(f"p/{difference.name}", difference.p)
    titles = tuple(names) or (str(first), str(second))
    facts = {
        "A": titles[0],
        "B": titles[1],
        "tested": f"{describe_test_set(results[0])}: "
        + (f"the {options.part} part of A's split" if options.part else "every row of the table"),
        "headline": comparison_headline(differences),
        "intervals": INTERVAL_NOTE,
    }
    sections = {"Differences": ReportSection(tables=tables)}
    written = write_report(out, f"{titles[0]} against {titles[1]}", facts, metrics, None, sections, warnings)
    params = {"model_a": titles[0], "model_b": titles[1], "data": str(data), "part": options.part or "all"}
    log_report(run, out, written, params, {"fr_ps.kind": "compare"}, [facts["tested"], facts["headline"], *warnings])
    run.log_metrics(difference_metrics(metrics.defined(), metrics.intervals), 0)
    return ComparisonResult(differences, groups, tables, [facts["headline"], *warnings])


def comparison_headline(differences: Sequence[Difference]) -> str:
    """Which model has the better identity AUC, with both values, the difference and its interval."""
    verdicts = {"first": "A is better than B", "second": "B is better than A", "neither": "no significant difference"}
    for auc in differences:
        if auc.name == "identity/auc":
            numbers = f"{auc.first:.4f} against {auc.second:.4f}, {auc.value:+.4f} {auc.interval_text}"
            return f"{verdicts[auc.better]} by identity AUC: {numbers}"
    return "no identity metric is defined for both models"


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


def _comparable_metrics(first: ModelInfo, second: ModelInfo, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Metrics of identity and of the attributes that have the same classes in both models, and a note on the others."""
    different = [attribute for attribute in first.classes if first.classes[attribute] != second.classes[attribute]]
    kept = [name for name in names if not set(name.split("/")) & set(different)]
    return kept, [f"not compared, because the classes of A and B differ: {', '.join(different)}"] if different else []
