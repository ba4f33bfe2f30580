"""The report of an evaluation: metrics.json, scores.parquet, figures, tables, one self-contained page, a terminal table."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fr_ps.data.labels import ATTRIBUTES
from fr_ps.evaluation.bootstrap import REPLICATES
from fr_ps.evaluation.evaluate_predictions import EvaluationResult
from fr_ps.evaluation.metrics import Metrics, ReportSection
from fr_ps.evaluation.modality_subsets import SUBSET_SECTION, subset_table
from fr_ps.evaluation.pairwise.similarity import similarity_scorer
from fr_ps.files import write_atomic, write_json, write_text
from fr_ps.report.figures import draw_png
from fr_ps.report.html_page import NO_LEAD, Lead, Picture, render_page
from fr_ps.report.table import Table, format_cell, table_text
from fr_ps.tables import format_csv

REPORT_FILES = ("metrics.json", "report.html", "scores.parquet", "tables", "*.png")
"""Patterns of the files that `write_report` writes."""
INTERVAL_NOTE = f"[low, high]: 95 % bootstrap confidence interval over subjects, {REPLICATES:,} replicates"
MAX_PAIRS = 1_000_000
"""Rows of scores.parquet, unless there are more genuine pairs."""
_UNFINISHED = ".unfinished-report"
"""Empty file in the folder while a report is written; `is_report` recognises an interrupted report by it."""
_MAIN_TASKS = ("identity", *ATTRIBUTES)
_SECTION_ORDER = (
    "Differences",
    "Verification",
    "Baselines",
    "Baselines, warped",
    "Jitter",
    "Pairs",
    "Embeddings",
    "Attributes",
    "Attribute baselines",
    "Attribute baselines, warped",
    "Training",
    "Identification",
)
"""Sections of the page, in this order; the others follow."""
_PHOTOS = {
    "worst_genuine": "Same subject, least similar",
    "best_genuine": "Same subject, most similar",
    "worst_impostor": "Different subjects, most similar",
}
_WIDE = (
    "quality_measures",
    "groups",
    "differences",
    "attribute_differences",
    "group_differences",
    "baselines",
    "jitter",
    "attribute_baselines",
)
_CAPTIONS = {
    "cmc": "Share of the searches that return the right subject within the first k ranks.",
    "open_set": "Share of the searches for enrolled subjects that miss them (FNIR), by the share of the searches for others that "
    "return a subject (FPIR).",
    "error_versus_discard": "Share of the remaining same-subject pairs that are rejected, after those of the shortest embeddings "
    "are left out. Below the horizontal line, the length of an embedding is a useful quality.",
    "groups": "Errors within each class at one threshold, with 95 % intervals over subjects.",
    "losses": "Dashed: the epoch of the selected model.",
    "validation": "Dashed: the epoch of the selected model.",
}


def write_report(
    folder: Path,
    title: str,
    facts: Mapping[str, str],
    metrics: Metrics,
    result: EvaluationResult | None,
    sections: Mapping[str, ReportSection] | None = None,
    warnings: Sequence[str] = (),
    lead: Lead = NO_LEAD,
) -> list[Path]:
    """Write metrics.json, report.html, a PNG per figure, a CSV per table, and with a result scores.parquet into `folder`.

    metrics.json is written last, and an old one is removed first: if it exists, the report is complete.

    Args:
        folder: created if missing.
        title: page title.
        facts: last table of the page: what was tested and how, and the headline results.
        metrics: metrics of the page and of metrics.json.
        result: sections and pairs to report; None without test subjects.
        sections: further sections by title.
        warnings: further warnings, shown below the lead.
        lead: head of the page.

    Returns:
        The files written.
    """
    write_text(folder / _UNFINISHED, "")
    (folder / "metrics.json").unlink(missing_ok=True)
    written: list[Path] = []

    def write(name: str, content: bytes) -> None:
        write_atomic(folder / name, lambda file: file.write(content))
        written.append(folder / name)

    all_sections = dict(result.sections if result else {}) | dict(sections or {})
    footnotes: list[str] = []
    if result is not None:
        scores, note = score_table(result)
        write("scores.parquet", scores.to_parquet(index=False))
        footnotes += [note] if note else []
    numbers, _ = metric_table(metrics)
    if (subsets := subset_table(metrics)).rows:
        all_sections[SUBSET_SECTION] = ReportSection(tables=[subsets])
    pictures = {name: _draw_pictures(section) for name, section in all_sections.items()}
    for picture in (picture for of_section in pictures.values() for picture in of_section):
        write(f"{picture.name}.png", picture.png)
    for table in (numbers, *(table for section in all_sections.values() for table in section.tables)):
        cells = [["" if cell is None else cell for cell in row] for row in table.rows]
        write(f"tables/{table.name}.csv", format_csv(list(table.header), cells).encode())
    order = sorted(all_sections, key=lambda name: _SECTION_ORDER.index(name) if name in _SECTION_ORDER else len(_SECTION_ORDER))
    body = {name: (all_sections[name].tables, pictures[name]) for name in order}
    every_warning = [*(result.warnings if result else ()), *warnings]
    remarks = _remarks(_without_undefined_rows(metrics))
    write("report.html", render_page(title, lead, every_warning, body, numbers, [*remarks, *footnotes], facts).encode())
    write_json(folder / "metrics.json", metrics.as_json())
    (folder / _UNFINISHED).unlink(missing_ok=True)
    return [*written, folder / "metrics.json"]


def is_report(folder: Path) -> bool:
    """True if `write_report` wrote the folder, or was interrupted while writing it.

    The file metrics.json identifies it: no other program writes these keys together.
    """
    if (folder / _UNFINISHED).exists():
        return True
    try:
        content = json.loads((folder / "metrics.json").read_text())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.keys() == {"metrics", "reasons", "intervals"}


def terminal_table(metrics: Metrics, tables: Sequence[Table] = ()) -> str:
    """The metrics as a table for the terminal, with remarks below and further tables after them."""
    if not metrics.values:
        return "no metrics: no validation and no test subjects"
    numbers, remarks = metric_table(metrics)
    text = "\n".join([table_text(numbers), "", *remarks]).rstrip()
    subsets = subset_table(metrics)
    return text + "".join(f"\n\n{table_text(table)}" for table in (*([subsets] if subsets.rows else []), *tables))


def metric_table(metrics: Metrics) -> tuple[Table, list[str]]:
    """The table of the identity and attribute metrics with all maps, and remarks on them, grouped by reason.

    The table has a row per metric and a column per part (val, test). The interval follows the value. A dash is an undefined
    value, a star marks a value with a remark.
    """
    metrics = _main_metrics(metrics)
    parts = list(dict.fromkeys(name.split("/", 1)[0] for name in metrics.values))
    names = list(dict.fromkeys(name.split("/", 1)[1] for name in metrics.values))
    names.sort(key=lambda name: _MAIN_TASKS.index(name.split("/")[0]))

    def cell(name: str) -> str | None:
        value = metrics.values.get(name)
        return None if value is None else format_cell(value) + ("*" if name in metrics.reasons else "") + _interval(metrics, name)

    rows = [[name, *(cell(f"{part}/{name}") for part in parts)] for name in names]
    reasons = {
        str(name): next((reason for part in parts if (reason := metrics.reasons.get(f"{part}/{name}"))), "")
        for name, *cells in rows
        if cells == [None] * len(parts)
    }
    return Table("metrics", "", ["metric", *parts], rows, reasons=reasons), _remarks(metrics)


def _main_metrics(metrics: Metrics) -> Metrics:
    """The identity and attribute metrics with all maps."""
    return metrics.select({name for name in metrics.values if name.split("/")[1] in _MAIN_TASKS})


def _without_undefined_rows(metrics: Metrics) -> Metrics:
    """The main metrics that are defined in one part at least: the page folds the others, with their reasons."""
    metrics = _main_metrics(metrics)
    defined = {name.split("/", 1)[1] for name in metrics.defined()}
    return metrics.select({name for name in metrics.values if name.split("/", 1)[1] in defined})


def _remarks(metrics: Metrics) -> list[str]:
    """Why metrics are undefined, and remarks on others, grouped by reason."""
    grouped: dict[str, dict[str, None]] = {}
    for name, reason in _main_metrics(metrics).reasons.items():
        undefined, task = metrics.values[name] is None, name.rsplit("/", 1)[0] + "/"
        all_undefined = all(value is None for other, value in metrics.values.items() if other.startswith(task))
        grouped.setdefault(f"{'- undefined' if undefined else '*'}: {reason}", {})[f"{task}..." if all_undefined else name] = None
    return [f"{reason} ({', '.join(names)})" for reason, names in grouped.items()]


def _draw_pictures(section: ReportSection) -> list[Picture]:
    pictures = []
    for name, draw in section.figures.items():
        group = _PHOTOS.get(name.rstrip("0123456789").rstrip("_"), "")
        wide = name.removeprefix("jittered_") in _WIDE
        caption = section.captions.get(name, _CAPTIONS.get(name, ""))
        pictures.append(Picture(name, draw_png(draw), caption, group, "photo" if group else "wide" if wide else "plot"))
    return pictures


def describe_test_set(result: EvaluationResult) -> str:
    """Number of subjects, sessions and pairs."""
    labels, pair_scores = result.tested.labels, result.pair_scores
    pairs = f"{len(pair_scores.genuine_levels)} genuine and {pair_scores.impostor_count} impostor pairs"
    listed = " of a list" if result.pair_list is not None else ""
    return f"{len(np.unique(labels.ids))} subjects, {len(labels)} sessions, {pairs}{listed}"


def headline_lines(metrics: Metrics, part: str) -> list[str]:
    """The main metrics of a part with intervals: AUC and EER of identity, AUC of each attribute."""
    names = [f"{part}/identity/auc", f"{part}/identity/eer", *(f"{part}/{attribute}/auc" for attribute in ATTRIBUTES)]
    return [
        f"{name} undefined" if metrics.values[name] is None else f"{name} {metrics.values[name]:.4f}{_interval(metrics, name)}"
        for name in names
        if name in metrics.values
    ]


def undefined_summary(metrics: Metrics, prefix: str) -> dict[str, str]:
    """The fact `undefined`: the tasks with an undefined metric, and the reasons; empty if all metrics are defined."""
    reasons: dict[str, dict[str, None]] = {}
    for name, value in metrics.values.items():
        task = name.split("/")[1]
        if value is None and name.startswith(f"{prefix}/") and task in _MAIN_TASKS:
            reasons.setdefault(metrics.reasons[name], {})[task] = None
    return {"undefined": "; ".join(f"{', '.join(tasks)}: {why}" for why, tasks in reasons.items())} if reasons else {}


def score_table(result: EvaluationResult, max_pairs: int = MAX_PAIRS, seed: int = 0) -> tuple[pd.DataFrame, str]:
    """The rows of scores.parquet, and a note if it is a sample: beyond `max_pairs`, all genuine and some impostor pairs."""
    labels, pair_scores = result.tested.labels, result.pair_scores
    count, note = len(labels), ""
    if result.pair_list is not None:
        first, second = result.pair_list.first, result.pair_list.second
    elif count * (count - 1) // 2 <= max_pairs:
        first, second = np.triu_indices(count, k=1)
    else:
        num_impostors = max(max_pairs - len(pair_scores.genuine_first), 0)
        impostor_first, impostor_second = _sample_impostors(labels.ids, num_impostors, np.random.default_rng(seed))
        sampled = f"a random sample of {len(impostor_first)} of {pair_scores.impostor_count} impostor pairs"
        note = f"scores.parquet holds all {len(pair_scores.genuine_first)} genuine pairs and {sampled}"
        first = np.concatenate([pair_scores.genuine_first, impostor_first])
        second = np.concatenate([pair_scores.genuine_second, impostor_second])
        order = np.lexsort((second, first))
        first, second = first[order], second[order]
    scorer = similarity_scorer(result.tested.predictions.embeddings, labels.ids, pair_scores.scale.measure)
    columns = {
        "id_a": labels.ids[first],
        "session_a": labels.sessions[first],
        "id_b": labels.ids[second],
        "session_b": labels.sessions[second],
        "score": scorer.scale.scores(scorer.pair_levels(first, second)),  # float64: float32 has few values near 1
        "genuine": labels.ids[first] == labels.ids[second],
    }
    return pd.DataFrame(columns), note


def _sample_impostors(ids: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """At most `count` different impostor pairs, all equally likely."""
    subject = np.unique(ids, return_inverse=True)[1]
    drawn = np.empty(0, dtype=np.int64)
    for _ in range(20):
        first, second = np.sort(rng.integers(0, len(ids), size=(2, 2 * count)), axis=0)
        pairs = np.concatenate([drawn, (first * len(ids) + second)[subject[first] != subject[second]]])
        _, first_draw = np.unique(pairs, return_index=True)
        drawn = pairs[np.sort(first_draw)][:count]
        if len(drawn) == count:
            break
    return drawn // len(ids), drawn % len(ids)


def _interval(metrics: Metrics, name: str) -> str:
    if name not in metrics.intervals:
        return ""
    low, high = metrics.intervals[name]
    return f" [{low:.3f}, {high:.3f}]"
