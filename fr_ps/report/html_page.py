"""The report as one self-contained HTML page."""

import base64
import html
from collections.abc import Mapping, Sequence

from fr_ps.redaction import redact
from fr_ps.report.table import Table, format_cell

STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;max-width:80rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0;display:block;overflow-x:auto}"
    "td,th{padding:.2rem .7rem;border-bottom:1px solid #ddd;text-align:left;vertical-align:top}"
    ".numbers td,.numbers th{text-align:right;font-variant-numeric:tabular-nums}"
    ".numbers td.text,.numbers th.text{text-align:left}"
    "img{width:49%;min-width:20rem}img.wide{width:100%}caption{text-align:left;font-weight:600;padding:.4rem 0}"
    ".why{color:#666;margin:.2rem 0}.warn td{background:#fff4d6}h1{font-size:1.5rem}h2{font-size:1.2rem;margin-top:2.5rem}"
)
"""Style sheet of the pages."""
WIDE_FIGURES = ("worst_genuine", "best_genuine", "worst_impostor", "quality_measures")
"""Figures shown at full page width."""


def table_html(table: Table) -> str:
    """One table with title and note."""
    is_text_column = [
        all(isinstance(row[column], str) or row[column] is None for row in table.rows) for column in range(len(table.header))
    ]
    head = "".join(f"<th{_class(is_text)}>{escape_text(name)}</th>" for name, is_text in zip(table.header, is_text_column))
    body = "".join(
        "<tr>"
        + "".join(f"<td{_class(is_text)}>{escape_text(format_cell(cell))}</td>" for cell, is_text in zip(row, is_text_column))
        + "</tr>"
        for row in table.rows
    )
    caption = f"<caption>{escape_text(table.title)}</caption>" if table.title else ""
    return f"<table class=numbers>{caption}<tr>{head}</tr>{body}</table>{_notes([table.note] if table.note else [])}"


def render_page(
    title: str,
    facts: Mapping[str, str],
    warnings: Sequence[str],
    numbers: Table,
    footnotes: Sequence[str],
    sections: Mapping[str, tuple[Sequence[Table], Mapping[str, bytes]]],
) -> str:
    """The whole page.

    Args:
        title: page title.
        facts: first table: what was tested, how, and the headline results.
        warnings: what limits the use of the numbers; shown below the facts.
        numbers: the table of metrics.
        footnotes: lines below the metrics.
        sections: section title to its tables and figures (name to PNG).
    """
    about = "".join(f"<tr><td>{escape_text(name)}</td><td>{escape_text(text)}</td></tr>" for name, text in facts.items())
    about += "".join(f"<tr class=warn><td>warning</td><td>{escape_text(text)}</td></tr>" for text in warnings)
    parts = []
    for name, (tables, figures) in sections.items():
        if tables or figures:
            inside = "".join(map(table_html, tables)) + "".join(_image(figure, png) for figure, png in figures.items())
            parts.append(f"<h2>{escape_text(name)}</h2>{inside}")
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape_text(title)}</title><style>{STYLE}</style>"
        f"<h1>{escape_text(title)}</h1><table>{about}</table><h2>Metrics</h2>{table_html(numbers)}{_notes(footnotes)}"
        f"{''.join(parts)}</html>\n"
    )


def escape_text(text: str) -> str:
    """`text` escaped for HTML, with secrets removed."""
    return html.escape(redact(text))


def _image(name: str, png: bytes) -> str:
    wide = " class=wide" if name in WIDE_FIGURES else ""
    return f'<img{wide} alt="{escape_text(name)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _notes(notes: Sequence[str]) -> str:
    return "".join(f"<p class=why>{escape_text(note)}</p>" for note in notes)


def _class(is_text: bool) -> str:
    return " class=text" if is_text else ""
