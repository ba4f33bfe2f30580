"""The report as one self-contained HTML page: first sentence and verdict, warnings, figures, then tables, folded.

The page loads nothing and runs no script. It follows the reader's light or dark scheme, fits narrow windows, and prints with all
tables open.
"""

import base64
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from fr_ps.redaction import redact
from fr_ps.report.style import PAGE_STYLE
from fr_ps.report.table import Table, format_cell

_POLICY = "default-src 'none';img-src data:;style-src 'unsafe-inline'"
_METRICS, _ABOUT = "All metrics", "About this report"


@dataclass(frozen=True)
class Verdict:
    """The result of a comparison, in words.

    Attributes:
        outcome: `better`, `worse`, or `neither` if the interval includes zero or is undefined.
        text: one sentence with the numbers.
    """

    outcome: Literal["better", "worse", "neither"]
    text: str


@dataclass(frozen=True)
class KeyNumber:
    """A number of the head of the page, with its interval as text."""

    name: str
    value: str
    interval: str = ""


@dataclass(frozen=True)
class Lead:
    """The head of the page.

    Attributes:
        subtitle: model and data.
        sentence: first sentence: what was found, on how many subjects.
        detail: remarks on that sentence.
        verdicts: results of comparisons.
        numbers: the most important metrics.
    """

    subtitle: str = ""
    sentence: str = ""
    detail: str = ""
    verdicts: Sequence[Verdict] = ()
    numbers: Sequence[KeyNumber] = ()


NO_LEAD = Lead()


@dataclass(frozen=True)
class Picture:
    """A figure of the page.

    Attributes:
        name: file name without its suffix.
        png: content.
        caption: text below it.
        group: title of the photos that it belongs to.
        kind: `plot` (its white paper becomes dark in a dark scheme), `wide` (a plot of full width) or `photo` (shown unchanged).
    """

    name: str
    png: bytes
    caption: str = ""
    group: str = ""
    kind: Literal["plot", "wide", "photo"] = "plot"


def render_page(
    title: str,
    lead: Lead,
    warnings: Sequence[str],
    sections: Mapping[str, tuple[Sequence[Table], Sequence[Picture]]],
    numbers: Table,
    footnotes: Sequence[str],
    facts: Mapping[str, str],
) -> str:
    """The whole page.

    Args:
        title: page title.
        lead: head of the page.
        warnings: what limits the use of the numbers; shown below the lead.
        sections: section title to its tables and pictures; an empty section is left out.
        numbers: the table of metrics.
        footnotes: lines below the metrics.
        facts: last table: what was tested, how, and with which model and data.
    """
    filled = {name: content for name, content in sections.items() if content[0] or content[1]}
    places = {name: f"s{number}" for number, name in enumerate([*filled, _METRICS, _ABOUT])}
    body = "".join(_section(places[name], name, _pictures(pictures), tables) for name, (tables, pictures) in filled.items())
    about = "".join(f"<tr><td>{escape_text(name)}</td><td>{escape_text(text)}</td></tr>" for name, text in facts.items())
    metrics = _details(f"Table of {len(numbers.rows)} metrics", _folded_table(numbers) + _notes(footnotes))
    return (
        f'<!doctype html><html lang=en><head><meta charset=utf-8><meta http-equiv=Content-Security-Policy content="{_POLICY}">'
        f"<meta name=viewport content='width=device-width,initial-scale=1'><title>{escape_text(title)}</title>"
        f"<style>{PAGE_STYLE}</style></head><body>{_contents(places)}<main>{_head(title, lead, warnings)}{body}"
        f"<section><h2 id={places[_METRICS]}>{_METRICS}</h2>{metrics}</section>"
        f"<section><h2 id={places[_ABOUT]}>{_ABOUT}</h2><table class=facts>{about}</table></section>"
        "</main></body></html>\n"
    )


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


def escape_text(text: str) -> str:
    """`text` escaped for HTML, with secrets removed and without line breaks inside `1 %` or `0.5 [0.4, 0.6]`."""
    return html.escape(_unbroken(redact(text)))


def _unbroken(text: str) -> str:
    text = re.sub(r"\[[-+\d., %e]+\]", lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), text)
    return re.sub(r"(?<=\d) (?=%|\[[-+\d])|(?<=\bp) (?=\d)", "\N{NO-BREAK SPACE}", text)


def _head(title: str, lead: Lead, warnings: Sequence[str]) -> str:
    parts = [f"<h1>{escape_text(title)}</h1>"]
    parts += [f"<p class=subtitle>{escape_text(lead.subtitle)}</p>"] if lead.subtitle else []
    parts += [f"<p class=lead>{escape_text(lead.sentence)}</p>"] if lead.sentence else []
    parts += [f"<p class='verdict {verdict.outcome}'>{escape_text(verdict.text)}</p>" for verdict in lead.verdicts]
    parts += [f"<p class=why>{escape_text(lead.detail)}</p>"] if lead.detail else []
    if warnings:
        items = "".join(f"<li>{escape_text(warning)}</li>" for warning in warnings)
        parts.append(f"<div class=warn><strong>{'Warnings' if len(warnings) > 1 else 'Warning'}</strong><ul>{items}</ul></div>")
    if lead.numbers:
        tiles = "".join(
            f"<div><dt>{escape_text(number.name)}</dt><dd>{escape_text(number.value)}</dd>"
            f"<dd class=why>{escape_text(number.interval)}</dd></div>"
            for number in lead.numbers
        )
        parts.append(f"<dl>{tiles}</dl>")
    return f"<header>{''.join(parts)}</header>"


def _contents(places: Mapping[str, str]) -> str:
    links = "".join(f"<li><a href=#{place}>{escape_text(name)}</a></li>" for name, place in places.items())
    return f"<nav aria-label=Contents><ul>{links}</ul></nav>"


def _section(place: str, name: str, pictures: str, tables: Sequence[Table]) -> str:
    folded = "".join(_details(table.title or name, _folded_table(table, titled=False)) for table in tables)
    return f"<section><h2 id={place}>{escape_text(name)}</h2>{pictures}{folded}</section>"


def _details(summary: str, content: str) -> str:
    return f"<details><summary>{escape_text(summary)}</summary>{content}</details>"


def _folded_table(table: Table, *, titled: bool = True) -> str:
    """The table without the rows that have no value; a line below names them by reason."""
    undefined = [row for row in table.rows if all(cell is None or cell == "" for cell in row[table.label_columns :])]
    shown = [row for row in table.rows if row not in undefined]
    reasons: dict[str, dict[str, None]] = {}
    for row in undefined:
        name = " ".join(str(cell) for cell in row[: table.label_columns] if cell is not None)
        group = name.rpartition("/")[0] + "/"
        if len(group) > 1 and not any(str(other[0]).startswith(group) for other in shown):
            name = f"{group}..."
        reasons.setdefault(table.reasons.get(str(row[0]), ""), {})[name] = None
    named = [f"{', '.join(names)}{f' ({reason})' if reason else ''}" for reason, names in reasons.items()]
    lines = [f"Undefined: {'; '.join(named)}."] if named else []
    kept = Table(table.name, table.title if titled else "", table.header, shown, table.note)
    return (table_html(kept) if shown else _notes([table.note] if table.note else [])) + _notes(lines)


def _pictures(pictures: Sequence[Picture]) -> str:
    """The plots in a grid, then the photos, by group."""
    plots = [picture for picture in pictures if picture.kind != "photo"]
    groups: dict[str, list[Picture]] = {}
    for picture in pictures:
        if picture.kind == "photo":
            groups.setdefault(picture.group, []).append(picture)
    grid = f"<div class=plots>{''.join(map(_figure, plots))}</div>" if plots else ""
    return grid + "".join(
        f"<h3>{escape_text(title)}</h3><div class=photos>{''.join(map(_figure, group))}</div>" for title, group in groups.items()
    )


def _figure(picture: Picture) -> str:
    caption = f"<figcaption>{escape_text(picture.caption)}</figcaption>" if picture.caption else ""
    source = f"data:image/png;base64,{base64.b64encode(picture.png).decode()}"
    return f'<figure class={picture.kind}><img alt="{escape_text(picture.name)}" src="{source}">{caption}</figure>'


def _notes(notes: Sequence[str]) -> str:
    return "".join(f"<p class=why>{escape_text(note)}</p>" for note in notes)


def _class(is_text: bool) -> str:
    return " class=text" if is_text else ""
