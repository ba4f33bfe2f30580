"""One HTML page on a study that needs nothing beside it: plotly.js stands in it, once."""

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from fr_ps.report.html_page import escape_text, table_html
from fr_ps.report.table import Table

_STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;max-width:80rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0;display:block;overflow-x:auto}caption{text-align:left;font-weight:600}"
    "td,th{padding:.2rem .7rem;border-bottom:1px solid #ddd;text-align:left;vertical-align:top}"
    ".figure{overflow-x:auto}.why{color:#666;margin:.2rem 0}h1{font-size:1.5rem}h2{font-size:1.2rem;margin-top:2.5rem}"
)
# One of the buttons that plotly shows by default sends the figure with its data to cloud.plotly.com.
_BUTTONS = {
    "showSendToCloud": False,
    "displaylogo": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d"],
    "responsive": True,
    "typesetMath": False,
}


@dataclass(frozen=True)
class Section:
    """A figure of the page.

    Attributes:
        name: of the figure, for the links to it; safe in HTML.
        heading: above it.
        remarks: below the heading: what is seen, and what is not.
        figure: the figure itself.
        tables: below it.
    """

    name: str
    heading: str
    remarks: Sequence[str]
    figure: go.Figure
    tables: Sequence[Table] = ()


def page(title: str, tables: Sequence[Table], notes: Sequence[str], sections: Sequence[Section]) -> str:
    """The page.

    Args:
        title: of the page.
        tables: what stands first.
        notes: below them.
        sections: the figures.
    """
    told = escape_text(title)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{told}</title><style>{_STYLE}</style>"
        f"<script>{get_plotlyjs()}</script><h1>{told}</h1>{''.join(map(table_html, tables))}{_paragraphs(notes)}"
        f"{''.join(map(_section, sections))}</html>\n"
    )


def _section(section: Section) -> str:
    figure = section.figure.to_html(_BUTTONS, full_html=False, include_plotlyjs=False, div_id=section.name)
    tables = "".join(map(table_html, section.tables))
    return f"<h2>{escape_text(section.heading)}</h2>{_paragraphs(section.remarks)}<div class=figure>{figure}</div>{tables}"


def _paragraphs(lines: Sequence[str]) -> str:
    return "".join(f"<p class=why>{escape_text(line)}</p>" for line in lines)
