"""search.html: what the search found, for readers without knowledge of the study. One file, which works offline."""

import base64
import html
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState
from plotly.offline import get_plotlyjs

from fr_ps.config import DataConfig
from fr_ps.evaluation.metrics import lower_is_better
from fr_ps.files import write_text
from fr_ps.report.html_page import escape_text, table_html
from fr_ps.report.style import PAGE_STYLE
from fr_ps.search.improvement import Improvement
from fr_ps.search.plots import Plot, StudyPlots
from fr_ps.search.results import BEST_FILE, best_first, best_trial, duration_text, settings_table, state_counts
from fr_ps.search.space import value_text
from fr_ps.search.spec import StudySpec
from fr_ps.search.trial_queue import EPOCHS, REASON, trial_entry

PAGE_FILE = "search.html"
_TOP = 10
"""Trials that are shown; all are in a folded table."""
# By default plotly shows a button that uploads the figure to cloud.plotly.com.
_BUTTONS = {"showSendToCloud": False, "displayModeBar": False, "responsive": True, "typesetMath": False}
_POLICY = "default-src 'none';img-src data:;style-src 'unsafe-inline';script-src 'unsafe-inline'"
_STYLE = PAGE_STYLE + (
    "code{background:color-mix(in srgb,var(--line) 45%,transparent);padding:.1rem .3rem;border-radius:.2rem;"
    "overflow-wrap:anywhere}"
    ".figure{overflow-x:auto}.figure img{display:none}.parallel .figure>div{min-width:46rem}"
    ".slices{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(18rem,100%),1fr));gap:.6rem}"
    ".trials th{white-space:normal}.trials .best td{font-weight:600}td.reason{white-space:normal;min-width:12rem}"
    # The plots have dark ink on no background: inverted, with the hues turned back.
    "@media screen and (prefers-color-scheme:dark){.plotly-graph-div{filter:invert(1) hue-rotate(180deg)}}"
    # Plotly does not fit its plots to paper: the PNG of the same plot is printed.
    "@media print{.figure>div{display:none}.figure img{display:block;max-width:100%;width:auto;max-height:6.4cm}"
    ".figure,.why{break-inside:avoid}.why{break-after:avoid}a{color:inherit}}"
)


@dataclass(frozen=True)
class Comparison:
    """The best settings compared with those of the base.

    Attributes:
        improvement: on the test subjects; None if it was not measured.
        reason: why it was not measured, a sentence.
        runs: name of a final run to its address; empty: without an address.
    """

    improvement: Improvement | None = None
    reason: str = ""
    runs: Mapping[str, str] | None = None


def write_page(
    spec: StudySpec, study: optuna.Study, drawn: StudyPlots, links: Mapping[int, str], comparison: Comparison, folder: Path
) -> None:
    """Write search.html.

    Args:
        spec: of the study.
        study: in the database.
        drawn: its plots.
        links: number of a trial to the address of its run.
        comparison: of the best settings with those of the base.
        folder: of the report.

    Raises:
        InputError: the disk is full, or the folder is not writable.
    """
    sections = {
        "Comparison with the base settings": _comparison_html(comparison),
        "Best settings": _best_settings_html(spec, study, drawn),
        "Trials": _trials_html(spec, study, links),
        **{plot.title: _plot_html(plot, drawn.images[plot.name]) for plot in drawn.plots},
        "Not drawn": "".join(f"<p class=why>{escape_text(f'{name}: {reason}.')}</p>" for name, reason in drawn.missing.items()),
    }
    filled = {title: content for title, content in sections.items() if content}
    contents = "".join(f"<li><a href=#s{index}>{escape_text(title)}</a></li>" for index, title in enumerate(filled))
    body = "".join(
        f"<section><h2 id=s{index}>{escape_text(title)}</h2>{content}</section>"
        for index, (title, content) in enumerate(filled.items())
    )
    title = escape_text(f"Search {study.study_name}")
    page = (
        f'<!doctype html><html lang=en><head><meta charset=utf-8><meta http-equiv=Content-Security-Policy content="{_POLICY}">'
        f"<meta name=viewport content='width=device-width,initial-scale=1'><title>{title}</title>"
        f"<style>{_STYLE}</style><script>{get_plotlyjs()}</script></head><body>"
        f"<nav aria-label=Contents><ul>{contents}</ul></nav><main>{_head_html(title, spec, study, comparison)}{body}</main>"
        "</body></html>\n"
    )
    write_text(folder / PAGE_FILE, page)


def first_sentence(study: optuna.Study, comparison: Comparison) -> tuple[str, str]:
    """What the search improved over the base settings: the outcome (better, worse, neither), and a sentence without numbers."""
    if best_trial(study) is None:
        return "neither", "No trial is complete, so that there are no best settings."
    if comparison.improvement is None:
        return "neither", "The search has a best trial; whether it is better than the base settings is not measured."
    outcome, text = comparison.improvement.outcome, comparison.improvement.conclusion()
    return outcome if outcome in ("better", "worse") else "neither", f"{text[:1].upper()}{text[1:]}."


def evidence(comparison: Comparison, best: int, data: DataConfig) -> str:
    """The numbers behind the first sentence.

    Args:
        comparison: of the best settings with those of the base.
        best: number of the best trial.
        data: settings of the data; they determine what is new in the test part.
    """
    improvement = comparison.improvement
    if improvement is None or not improvement.differences:
        return comparison.reason
    one = improvement.differences[0]
    error = improvement.seed_error[one.name]
    interval = f", 95 % interval {one.low:+.4f} to {one.high:+.4f}" if math.isfinite(one.low) else ""
    lower = " (lower is better)" if lower_is_better(one.name) else ""
    many = improvement.seeds > 1
    seeds = (
        f"Means over {improvement.seeds} seeds; the standard error between seeds is {error:.4f}."
        if many
        else "One seed each: how much another seed would change is unknown."
    )
    return (
        f"On {improvement.subjects} test subjects ({data.unseen}), {one.name}{lower} is {one.first:.4f} with the best settings "
        f"(trial {best}) and {one.second:.4f} with the base settings: difference {one.value:+.4f}{interval}. {seeds}"
    )


def _head_html(title: str, spec: StudySpec, study: optuna.Study, comparison: Comparison) -> str:
    config = spec.config
    goal = ", ".join(f"{direction} {name}" for name, direction in config.objectives.items())
    counts = ", ".join(f"{count} {state}" for state, count in state_counts(study).items() if count)
    data = spec.base.data
    about = (
        f"{goal}; {spec.max_trials} trials of at most {spec.max_epochs} epochs ({counts or 'none started'}); data {data.root}, "
        f"{' + '.join(data.modalities)}; sampler {config.sampler.name}, pruner {config.pruner.name}"
    )
    best = best_trial(study)
    outcome, sentence = first_sentence(study, comparison)
    reached = ""
    if best is not None:
        values = ", ".join(f"{name} {value:.4f}" for name, value in zip(spec.objectives, best.values))
        reached = f"The best trial, {best.number}, reached {values} in validation; the choice of the best makes that optimistic."
    texts = [evidence(comparison, best.number, data) if best is not None else "", reached]
    return (
        f"<header><h1>{title}</h1><p class=subtitle>{escape_text(about)}</p><p class=lead>{escape_text(sentence)}</p>"
        + "".join(f"<p class='verdict {outcome}'>{_numbers(text)}</p>" for text in texts[:1] if text)
        + "".join(f"<p class=why>{_numbers(text)}</p>" for text in texts[1:] if text)
        + "</header>"
    )


def _comparison_html(comparison: Comparison) -> str:
    if comparison.improvement is None:
        return ""
    table = comparison.improvement.table()
    runs = " · ".join(_link(name, address) for name, address in (comparison.runs or {}).items())
    return (
        f"<details><summary>{len(table.rows)} metrics on the test subjects</summary>{table_html(table)}</details>"
        f"<p class=why>Trainings that were tested: {runs}</p>"
    )


def _best_settings_html(spec: StudySpec, study: optuna.Study, drawn: StudyPlots) -> str:
    best = best_trial(study)
    if best is None:
        return ""
    table = settings_table(spec, [best], drawn.shares[0])
    return (
        f"{table_html(table)}<p class=why>Train with them: <code>fr-ps train --config {BEST_FILE}</code> (beside this page).</p>"
    )


def _trials_html(spec: StudySpec, study: optuna.Study, links: Mapping[int, str]) -> str:
    started = [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]
    if not started:
        return ""
    top = best_first(study, started)[:_TOP]
    text = _trial_table(spec, study, top, links, reasons=False)
    note = "<p class=why>The number of a trial leads to its run. A pruned trial has the value of its last epoch.</p>"
    if len(started) <= _TOP:
        return text + note
    everything = _trial_table(spec, study, started, links, reasons=True)
    return (
        f"<p>The best {_TOP} of {len(started)}:</p>{text}{note}"
        f"<details><summary>All {len(started)} trials, by number, with the reasons of pruned and failed ones</summary>"
        f"{everything}</details>"
    )


def _trial_table(
    spec: StudySpec, study: optuna.Study, trials: Sequence[FrozenTrial], links: Mapping[int, str], *, reasons: bool
) -> str:
    names = [dimension.name for dimension in spec.space.dimensions]
    header = ["trial", "state", *spec.objectives, *names, "epochs", "time", *(["reason"] if reasons else [])]
    texts = {"state", "reason", *(dimension.name for dimension in spec.space.dimensions if dimension.choices)}
    best = {trial.number for trial in study.best_trials}
    body = ""
    for trial in trials:
        values = [f"{value:.4f}" for value in trial.values or ()] or ["-"] * len(spec.objectives)
        cells = [
            _link(str(trial.number), links.get(trial.number, "")),
            trial_entry(trial).state,
            *values,
            *(escape_text(value_text(trial.params.get(name))) for name in names),
            str(trial.user_attrs.get(EPOCHS, "-")),
            duration_text(trial.duration.total_seconds()) if trial.duration else "-",
            *([escape_text(str(trial.user_attrs.get(REASON, "")))] if reasons else []),
        ]
        row = "".join(f"<td{_align(name, texts)}>{cell}</td>" for name, cell in zip(header, cells, strict=True))
        body += f"<tr{' class=best' if trial.number in best else ''}>{row}</tr>"
    head = "".join(f"<th{_align(name, texts)}>{_breakable(name)}</th>" for name in header)
    return f"<table class='numbers trials'><tr>{head}</tr>{body}</table>"


def _align(column: str, texts: Collection[str]) -> str:
    return f" class='text {column}'" if column == "reason" else " class=text" if column in texts else ""


def _plot_html(plot: Plot, png: bytes) -> str:
    graphs = "".join(
        figure.to_html(_BUTTONS, full_html=False, include_plotlyjs=False, div_id=f"{plot.name}{index or ''}")
        for index, figure in enumerate(plot.figures)
    )
    kind = "slices" if len(plot.figures) > 1 else "graph"
    image = f'<img alt="{escape_text(plot.title)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
    outer = " class=parallel" if plot.name.startswith("parallel") else ""
    body = f"<div{outer}><div class=figure><div class={kind}>{graphs}</div>{image}</div></div>"
    return f"<p class=why>{escape_text(plot.caption)}</p>{body}"


def _link(text: str, address: str) -> str:
    if not address:
        return escape_text(text)
    return f'<a href="{html.escape(address)}" target=_blank rel=noopener>{escape_text(text)}</a>'


def _numbers(text: str) -> str:
    """Text in which no number breaks from its sign, unit or name over two lines."""
    return re.sub(r"(?<=[\w/]) (?=[-+]?\d)|(?<=\d) (?=%|to\b)", "&nbsp;", escape_text(text))


def _breakable(name: str) -> str:
    """A name of a column, which may break after its dots and slashes."""
    return re.sub(r"([./_])", r"\1<wbr>", escape_text(name))
