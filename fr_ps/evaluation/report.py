"""The report of an evaluation: metrics.json, scores.parquet, figures, tables, one self-contained page, a terminal table."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fr_ps.data.labels import ATTRIBUTES
from fr_ps.evaluation.bootstrap import REPLICATES
from fr_ps.evaluation.evaluate_predictions import EvaluationResult
from fr_ps.evaluation.metrics import Metrics, ReportSection
from fr_ps.evaluation.modality_subsets import subset_table
from fr_ps.evaluation.scores import score_table
from fr_ps.files import write_atomic, write_json, write_text
from fr_ps.report.figures import draw_png
from fr_ps.report.html_page import render_page
from fr_ps.report.table import Table, format_cell, table_text
from fr_ps.tables import format_csv

REPORT_FILES = ("metrics.json", "report.html", "scores.parquet", "tables", "*.png")
"""What `write_report` writes, as patterns."""
_UNFINISHED = ".unfinished-report"
"""An empty file in the folder of a report while it is being written, by which `is_report` recognises what a kill left."""
INTERVAL_NOTE = f"95 %, from {REPLICATES:,} draws of people with replacement (multinomial weights), not of pairs"
_MAIN_TASKS = ("identity", *ATTRIBUTES)


def metric_table(metrics: Metrics) -> tuple[Table, list[str]]:
    """The metrics of identity and attributes with all maps: a row a metric, a column a part (val, test); and remarks.

    An interval stands behind its number. What is undefined is a dash, what has a remark bears a star; the remarks say why,
    those of a kind together.
    """
    metrics = metrics.select({name for name in metrics.values if name.split("/")[1] in _MAIN_TASKS})
    parts = list(dict.fromkeys(name.split("/", 1)[0] for name in metrics.values))
    names = list(dict.fromkeys(name.split("/", 1)[1] for name in metrics.values))
    names.sort(key=lambda name: _MAIN_TASKS.index(name.split("/")[0]))

    def cell(name: str) -> str | None:
        value = metrics.values.get(name)
        return None if value is None else format_cell(value) + ("*" if name in metrics.reasons else "") + _interval(metrics, name)

    grouped: dict[str, dict[str, None]] = {}
    for name, reason in metrics.reasons.items():
        unknown, task = metrics.values[name] is None, name.rsplit("/", 1)[0] + "/"
        all_unknown = all(value is None for other, value in metrics.values.items() if other.startswith(task))
        grouped.setdefault(f"{'- undefined' if unknown else '*'}: {reason}", {})[f"{task}..." if all_unknown else name] = None
    remarks = [f"{reason} ({', '.join(under)})" for reason, under in grouped.items()]
    return Table(
        "metrics", "", ["metric", *parts], [[name, *(cell(f"{part}/{name}") for part in parts)] for name in names]
    ), remarks


def terminal_table(metrics: Metrics, tables: Sequence[Table] = ()) -> str:
    """The metrics as a table for the terminal, remarks below, and further tables after them."""
    if not metrics.values:
        return "no metrics: nobody was validated or tested on"
    numbers, remarks = metric_table(metrics)
    whole = [table_text(numbers), "", *remarks]
    header, rows = subset_table(metrics)
    fewer = [Table("", "", header, rows)] if rows else []
    return "\n".join(whole).rstrip() + "".join(f"\n\n{table_text(table)}" for table in (*fewer, *tables))


def describe_test_set(result: EvaluationResult) -> str:
    """One sentence: how many people, sessions and pairs."""
    labels, comparisons = result.tested.labels, result.pair_scores
    pairs = f"{len(comparisons.genuine_levels)} genuine and {comparisons.impostor_count} impostor pairs"
    listed = " of a list" if result.pair_list is not None else ""
    return f"{len(np.unique(labels.ids))} people, {len(labels)} sessions, {pairs}{listed}"


def headline_lines(metrics: Metrics, part: str) -> list[str]:
    """The first things to say of a part, with intervals: identity's AUC and EER, each attribute's AUC, what is undefined."""
    names = [f"{part}/identity/auc", f"{part}/identity/eer", *(f"{part}/{attribute}/auc" for attribute in ATTRIBUTES)]
    return [
        f"{name} undefined" if metrics.values[name] is None else f"{name} {metrics.values[name]:.4f}{_interval(metrics, name)}"
        for name in names
        if name in metrics.values
    ]


def undefined_summary(metrics: Metrics, prefix: str) -> dict[str, str]:
    """A line that says what of identity and the attributes is undefined and why; none where all is defined."""
    reasons: dict[str, dict[str, None]] = {}
    for name, value in metrics.values.items():
        task = name.split("/")[1]
        if value is None and name.startswith(f"{prefix}/") and task in _MAIN_TASKS:
            reasons.setdefault(metrics.reasons[name], {})[task] = None
    return {"undefined": "; ".join(f"{', '.join(tasks)}: {why}" for why, tasks in reasons.items())} if reasons else {}


def write_report(
    folder: Path,
    title: str,
    facts: Mapping[str, str],
    metrics: Metrics,
    result: EvaluationResult | None,
    sections: Mapping[str, ReportSection] | None = None,
    warnings: Sequence[str] = (),
) -> list[Path]:
    """Write metrics.json, report.html, a PNG a figure, a CSV a table, and, of an assessment, scores.parquet into `folder`.

    metrics.json is written last, and an earlier one is removed first: where it stands, the report is whole.

    Args:
        folder: made if it is not there.
        title: of the page.
        facts: what stands first on the page: what was tested, on whom, how.
        metrics: of the table.
        assessment: whose sections and pairs are told; None where nobody was tested.
        sections: further ones, title to findings.
        warnings: further ones, that a reader has to know first.

    Returns:
        The files that were written.
    """
    write_text(folder / _UNFINISHED, "")
    (folder / "metrics.json").unlink(missing_ok=True)
    written: list[Path] = []

    def write(name: str, content: bytes) -> None:
        write_atomic(folder / name, lambda file: file.write(content))
        written.append(folder / name)

    told = dict(result.sections if result else {}) | dict(sections or {})
    remarks: list[str] = []
    if result is not None:
        scores, note = score_table(result)
        write("scores.parquet", scores.to_parquet(index=False))
        remarks += [note] if note else []
    numbers, reasons = metric_table(metrics)
    header, rows = subset_table(metrics)
    if rows:
        told["With fewer maps"] = ReportSection(tables=[Table("fewer_maps", "", header, rows)])
    pictures = {section: {name: draw_png(draw) for name, draw in found.figures.items()} for section, found in told.items()}
    for name, png in (one for its in pictures.values() for one in its.items()):
        write(f"{name}.png", png)
    for table in (numbers, *(table for found in told.values() for table in found.tables)):
        cells = [["" if cell is None else cell for cell in row] for row in table.rows]
        write(f"tables/{table.name}.csv", format_csv(list(table.header), cells).encode())
    body = {section: (found.tables, pictures[section]) for section, found in told.items()}
    mind = [*(result.warnings if result else ()), *warnings]
    write("report.html", render_page(title, facts, mind, numbers, [*reasons, *remarks], body).encode())
    write_json(folder / "metrics.json", metrics.as_json())
    (folder / _UNFINISHED).unlink(missing_ok=True)
    return [*written, folder / "metrics.json"]


def is_report(folder: Path) -> bool:
    """Whether `write_report` made the folder, or began to.

    A metrics.json of ours has three keys that no other program writes together.
    """
    if (folder / _UNFINISHED).exists():
        return True
    try:
        found = json.loads((folder / "metrics.json").read_text())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.keys() == {"metrics", "reasons", "intervals"}


def _interval(metrics: Metrics, name: str) -> str:
    if name not in metrics.intervals:
        return ""
    low, high = metrics.intervals[name]
    return f" [{low:.3f}, {high:.3f}]"
