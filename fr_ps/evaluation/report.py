"""The report of an evaluation: metrics.json, scores.parquet, figures, one self-contained HTML page, a terminal table."""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tabulate import tabulate

from fr_ps.data.labels import ATTRIBUTES
from fr_ps.evaluation.figures import as_png, roc_figure, score_figure
from fr_ps.evaluation.metrics import Metrics
from fr_ps.evaluation.score import Evaluation
from fr_ps.evaluation.subsets import subset_table, without_subsets
from fr_ps.evaluation.verification import Pairs
from fr_ps.files import write_atomic, write_json, write_text

MOST_PAIRS = 1_000_000
_STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .8rem;border-bottom:1px solid #ddd;text-align:left}"
    ".numbers td+td,.numbers th+th{text-align:right;font-variant-numeric:tabular-nums}img{width:49%;min-width:20rem}"
    ".why{color:#666;margin:.2rem 0}h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}"
)


def metric_table(metrics: Metrics) -> tuple[list[str], list[list[str]], list[str]]:
    """Header, rows and remarks of the metrics of all maps together: a row a metric, a column a part (val, test).

    What is undefined is a dash, what has a remark bears a star; the remarks say why, those of a kind together.
    """
    metrics = without_subsets(metrics)
    parts = list(dict.fromkeys(name.split("/", 1)[0] for name in metrics.values))
    names = list(dict.fromkeys(name.split("/", 1)[1] for name in metrics.values))

    def cell(part: str, name: str) -> str:
        value = metrics.values.get(f"{part}/{name}")
        return "-" if value is None else f"{value:.4f}" + ("*" if f"{part}/{name}" in metrics.reasons else "")

    grouped: dict[str, dict[str, None]] = {}
    for name, reason in metrics.reasons.items():
        undefined = metrics.values[name] is None
        shown = name.rsplit("/", 1)[0] + "/..." if undefined else name
        grouped.setdefault(f"{'- undefined' if undefined else '*'}: {reason}", {})[shown] = None
    remarks = [f"{reason} ({', '.join(shown)})" for reason, shown in grouped.items()]
    return ["metric", *parts], [[name, *(cell(part, name) for part in parts)] for name in names], remarks


def terminal_table(metrics: Metrics) -> str:
    """The metrics as a table for the terminal, remarks below, and after them what a fused network says with fewer maps."""
    if not metrics.values:
        return "no metrics: nobody was validated or tested on"
    header, rows, remarks = metric_table(metrics)
    whole = "\n".join([tabulate(rows, headers=header, disable_numparse=True), "", *remarks]).rstrip()
    header, rows = subset_table(metrics)
    return f"{whole}\n\n{tabulate(rows, headers=header, disable_numparse=True)}" if rows else whole


def population(evaluation: Evaluation) -> str:
    """One sentence: how many people, sessions and pairs."""
    people, genuine = len(np.unique(evaluation.labels.ids)), int(evaluation.pairs.genuine.sum())
    impostors = len(evaluation.pairs.genuine) - genuine
    return f"{people} people, {len(evaluation.labels)} sessions, {genuine} genuine and {impostors} impostor pairs"


def write_report(
    folder: Path,
    title: str,
    facts: Mapping[str, str],
    metrics: Metrics,
    evaluation: Evaluation | None,
    figures: Mapping[str, Figure] | None = None,
) -> None:
    """Write metrics.json, report.html, a PNG of each figure, and, of an evaluation, scores.parquet into `folder`.

    Args:
        folder: made if it is not there.
        title: of the page.
        facts: what stands first on the page: what was tested, on whom, how.
        metrics: of the table.
        evaluation: whose pairs are drawn and stored; None where nobody was tested.
        figures: further ones by name.
    """
    drawn = dict(figures or {})
    notes = []
    if evaluation is not None:
        scores, note = score_table(evaluation)
        write_atomic(folder / "scores.parquet", lambda file: scores.to_parquet(file, index=False))
        notes += [note] if note else []
        if evaluation.pairs.genuine.any() and not evaluation.pairs.genuine.all():
            drawn = {"roc": roc_figure(evaluation.pairs), "scores": score_figure(evaluation.pairs)} | drawn
    pictures = {name: as_png(figure) for name, figure in drawn.items()}
    for name, png in pictures.items():
        write_atomic(folder / f"{name}.png", lambda file, png=png: file.write(png))  # type: ignore[misc]
    write_json(folder / "metrics.json", metrics.as_json())
    write_text(folder / "report.html", _page(title, facts, metrics, pictures, notes))


def score_table(evaluation: Evaluation, most: int = MOST_PAIRS, seed: int = 0) -> tuple[pd.DataFrame, str]:
    """The pairs with their scores, and a note: of more than `most` pairs, all genuine ones and a sample of impostors."""
    pairs: Pairs = evaluation.pairs
    kept = np.arange(len(pairs.score))
    note = ""
    if len(kept) > most:
        genuine, impostors = np.flatnonzero(pairs.genuine), np.flatnonzero(~pairs.genuine)
        sample = np.random.default_rng(seed).choice(impostors, size=max(most - len(genuine), 0), replace=False)
        kept = np.sort(np.concatenate([genuine, sample]))
        some = f"{len(sample)} of {len(impostors)} impostor pairs (seed {seed})"
        note = f"scores.parquet holds all {len(genuine)} genuine pairs and {some}"
    labels, first, second = evaluation.labels, pairs.first[kept], pairs.second[kept]
    columns = {
        "id_a": labels.ids[first],
        "session_a": labels.sessions[first],
        "id_b": labels.ids[second],
        "session_b": labels.sessions[second],
        "score": pairs.score[kept],
        "genuine": pairs.genuine[kept],
    }
    return pd.DataFrame(columns), note


def headline(metrics: Metrics, part: str) -> list[str]:
    """The first things to say of a part: identity's AUC and EER, each attribute's AUC, what is undefined."""
    values = metrics.values
    shown = [f"{part}/identity/auc", f"{part}/identity/eer", *(f"{part}/{attribute}/auc" for attribute in ATTRIBUTES)]
    return [
        f"{name} {values[name]:.4f}" if values.get(name) is not None else f"{name} undefined" for name in shown if name in values
    ]


def _page(title: str, facts: Mapping[str, str], metrics: Metrics, pictures: Mapping[str, bytes], notes: Sequence[str]) -> str:
    def row(cells: Sequence[str], cell: str = "td") -> str:
        return f"<tr>{''.join(f'<{cell}>{html.escape(text)}</{cell}>' for text in cells)}</tr>"

    header, rows, remarks = metric_table(metrics)
    about = "".join(row(fact) for fact in facts.items())
    table = row(header, "th") + "".join(map(row, rows))
    subset_header, subset_rows = subset_table(metrics)
    subsets = f"<table class=numbers>{row(subset_header, 'th')}{''.join(map(row, subset_rows))}</table>"
    fewer = f"<h2>With fewer maps</h2>{subsets}" if subset_rows else ""
    images = "".join(
        f'<img alt="{html.escape(name)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        for name, png in pictures.items()
    )
    below = "".join(f"<p class=why>{html.escape(note)}</p>" for note in [*remarks, *notes])
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title><style>{_STYLE}</style>"
        f"<h1>{html.escape(title)}</h1><table>{about}</table>"
        f"<h2>Metrics</h2><table class=numbers>{table}</table>{below}{fewer}"
        f"<h2>Figures</h2>{images}</html>\n"
    )
