"""Two models on the same pairs of the same people: which is better, and is it more than chance?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fr_ps.data.split_files import SPLIT_FILE
from fr_ps.evaluation.differences import Difference, difference_table, headline_metrics, paired_differences
from fr_ps.evaluation.evaluate_model import EvaluationOptions, count_seen_subjects, open_model_dataset, split_rows
from fr_ps.evaluation.evaluate_predictions import LabelledPredictions, evaluate_predictions
from fr_ps.evaluation.group_differences import group_differences
from fr_ps.evaluation.metrics import Metrics, ReportSection
from fr_ps.evaluation.pairwise.pair_list import read_pairs
from fr_ps.evaluation.report import INTERVAL_NOTE, describe_test_set, write_report
from fr_ps.markdown import markdown_lines
from fr_ps.models.folder import ModelInfo, load_model
from fr_ps.models.inference import predict, require_finite, session_names
from fr_ps.models.thresholds import read_thresholds
from fr_ps.progress import progress
from fr_ps.report.table import Table
from fr_ps.tracking.run import Run

_NOTE = "Interval and p are of the difference, from the same draws of people for both; p is two-sided."


@dataclass(frozen=True)
class ComparisonResult:
    """Two models.

    Attributes:
        found: the differences, first model minus second.
        groups: those of identity among the sessions of each class of each attribute.
        tables: of both.
        lines: which model is better, and what has to be known before that is believed.
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
    protocol: EvaluationOptions,
    device: torch.device,
    batch: int,
    names: Sequence[str] = (),
) -> ComparisonResult:
    """Score both model folders on the same sessions of the data set at `data`, and tell how they differ.

    The sessions are those of a part of the first model's split, or all. Each draw of people is of the same people for
    both, so that what both find hard falls out of the difference.

    Args:
        models: two model folders.
        data: a prepared data set that has the maps of both.
        out: folder for the report.
        run: what records it.
        protocol: part, pairs and measure.
        device: to compute on.
        batch: sessions a batch.
        names: of the models, to be shown; empty: those of the folders.

    Raises:
        InputError: a model, the data, the part or the pairs cannot be used.
    """
    first, second = models
    assessments, seen, infos = [], [], []
    for name, model in zip("AB", models):
        network, info = load_model(model, device)
        dataset = open_model_dataset(info, data)
        rows = split_rows(dataset, first, protocol.part)
        labels = dataset.labels.subset(rows)
        listed = read_pairs(protocol.pairs, labels) if protocol.pairs else None
        with progress(f"score {name}", len(rows), "sessions") as advance:
            answers = predict(network, dataset.store, rows, batch, advance)
        require_finite(answers, session_names(labels), model)
        assessments.append(
            evaluate_predictions(
                LabelledPredictions(answers, labels),
                info.trained,
                read_thresholds(model),
                listed=listed,
                measure=protocol.measure,
            )
        )
        seen.append(count_seen_subjects(dataset, model, rows))
        infos.append(info)
    one, other = (assessment.metrics for assessment in assessments)
    compared, apart = _comparable_metrics(infos[0], infos[1], headline_metrics(one) + _probe_metric_names(one))
    found = paired_differences(one, other, compared, assessments[0].bootstrap.subjects)
    groups = group_differences(assessments[0].tested, assessments[1].tested)
    tables = [
        difference_table("differences", "A minus B", ("A", "B"), {"": found}, _NOTE),
        difference_table("group_differences", "A minus B among the sessions of a class", ("A", "B"), {"": groups}, _NOTE),
    ]
    warnings = (*dataset.notes, *assessments[0].warnings, *_leakage_warnings(seen), *apart)
    metrics = one.with_prefix("a").merge(other.with_prefix("b"))
    for difference in (*found, *groups):
        low, high = difference.low, difference.high
        metrics.add(f"difference/{difference.name}", difference.value)
        if np.isfinite(low):
            metrics.intervals[f"difference/{difference.name}"] = (low, high)
            metrics.add(f"p/{difference.name}", difference.p)
    shown = tuple(names) or (str(first), str(second))
    facts = {
        "A": shown[0],
        "B": shown[1],
        "tested": f"{describe_test_set(assessments[0])}: "
        + (f"the {protocol.part} part of A's split" if protocol.part else "every row"),
        "headline": comparison_headline(found),
        "intervals": INTERVAL_NOTE,
    }
    sections = {"Differences": ReportSection(tables=tables)}
    written = write_report(out, f"{shown[0]} against {shown[1]}", facts, metrics, None, sections, warnings)
    run.log_params({"model_a": shown[0], "model_b": shown[1], "data": str(data), "part": protocol.part or "all"})
    run.set_tags(
        {"fr_ps.kind": "compare", "mlflow.note.content": markdown_lines([facts["tested"], facts["headline"], *warnings])}
    )
    run.log_metrics({name: value for name, value in metrics.defined().items() if name.split("/")[0] in ("difference", "p")}, 0)
    for path in written:
        run.log_artifact(path, str("report" / path.parent.relative_to(out)))
    return ComparisonResult(found, groups, tables, [facts["headline"], *warnings])


def comparison_headline(compared: Sequence[Difference]) -> str:
    """Whether A's identity AUC is better than B's, in a sentence."""
    for one in compared:
        if one.name == "identity/auc":
            numbers = f"{one.first:.4f} against {one.second:.4f}, {one.value:+.4f} {one.interval_text}"
            better = {"first": "A is better than B", "second": "B is better than A", "neither": "neither is measurably better"}
            return f"{better[one.better]} by identity AUC: {numbers}"
    return "nothing of identity can be compared"


def _probe_metric_names(metrics: Metrics) -> list[str]:
    return [
        name
        for name, value in metrics.values.items()
        if name.startswith("probe/") and name.endswith("/auc") and value is not None
    ]


def _leakage_warnings(seen: Sequence[tuple[int, int] | None]) -> list[str]:
    found = []
    for name, known in zip("AB", seen):
        if known is None:
            found.append(f"whom {name} was trained on is not known: its folder has no {SPLIT_FILE}")
            continue
        for count, how in zip(known, ("trained on", "chosen by")):
            if count:
                found.append(f"{name} was {how} {count} of the people tested: no comparison of what they can do with strangers")
    return found


def _comparable_metrics(first: ModelInfo, second: ModelInfo, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The metrics of identity and of attributes that both models divide into the same classes; and a line about the others."""
    other = [attribute for attribute in first.classes if first.classes[attribute] != second.classes[attribute]]
    kept = [name for name in names if not set(name.split("/")) & set(other)]
    return kept, [f"not compared, as A and B know other classes of it: {', '.join(other)}"] if other else []
