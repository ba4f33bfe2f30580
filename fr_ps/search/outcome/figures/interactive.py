"""The figures of a study for the page, where one can zoom, point at a trial, and brush an axis.

plotly takes tags in its text for markup: whatever comes from the study is escaped.
"""

import html
import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from fr_ps.search.outcome.figures.finished import Curve, Finished, Objective, best_so_far, grouped, value_axis
from fr_ps.search.outcome.figures.setting import NOT_SET, Setting
from fr_ps.search.outcome.figures.text import cut, share_text, two_lines

_GREY, _BLUE, _RED, _AMBER = "#9aa5b1", "#1f5fa8", "#c8102e", "#d98e04"
_AXIS = {"gridcolor": "#e3e8ee", "zeroline": False, "automargin": True, "title": {"standoff": 12}}
# The templates of plotly take longer to copy than a figure to fill, and are larger than its data.
_TEMPLATE = go.layout.Template(layout={"plot_bgcolor": "white", "xaxis": _AXIS, "yaxis": _AXIS, "font": {"color": "#222"}})
_LAYOUT = {"template": _TEMPLATE, "margin": {"l": 70, "r": 30, "t": 40, "b": 55}, "hovermode": "closest"}


def history(finished: Finished, column: int, objective: Objective) -> go.Figure:
    """The value of each finished trial, and the best one so far."""
    values = finished.values[:, column]
    figure = _figure(380, "trial", objective.name)
    hover = "trial %{x}: %{y:.6g}<extra></extra>"
    figure.add_scatter(x=finished.numbers, y=values, mode="markers", name="a trial", marker_color=_GREY, hovertemplate=hover)
    best = {"x": finished.numbers, "y": best_so_far(values, objective), "line": {"shape": "hv", "color": _BLUE}}
    figure.add_scatter(**best, mode="lines", name="best so far", hoverinfo="skip", showlegend=True)
    return figure


def importance(shares: Mapping[str, float], objective: Objective) -> go.Figure:
    """A bar a setting, the most important one on top."""
    figure = _figure(115 + 28 * len(shares), f"share of the explained spread of {objective.name}", "")
    names, texts = [_escaped(name) for name in shares], [_escaped(share_text(share)) for share in shares.values()]
    figure.add_bar(x=list(shares.values()), y=names, text=texts, orientation="h", marker_color=_BLUE, hoverinfo="skip")
    figure.update_traces(textposition="outside", cliponaxis=False)
    figure.update_yaxes(autorange="reversed", automargin=True, type="category")
    return figure


def parallel(finished: Finished, column: int, objective: Objective, settings: Sequence[Setting]) -> go.Figure:
    """A line a trial through its value and its settings; the better, the darker."""
    own = value_axis(finished, column, objective)
    dimensions = [_dimension(line) for line in (own, *settings)]
    color = {"color": own.places, "colorscale": "Viridis", "reversescale": objective.maximize}
    figure = go.Figure(go.Parcoords(line=color, dimensions=dimensions, labelangle=-12))
    # Narrower than this a name runs into the next one; the page lets a wide figure scroll.
    width = {"width": 135 * len(dimensions)} if len(dimensions) > 9 else {}
    figure.update_layout(template=_TEMPLATE, height=460, margin={"l": 110, "r": 60, "t": 90, "b": 30}, **width)
    return figure


def slices(finished: Finished, column: int, objective: Objective, settings: Sequence[Setting]) -> go.Figure:
    """A panel a setting: the value of each trial over it; the later the trial, the darker."""
    rows = math.ceil(len(settings) / 3)
    titles = [_escaped(cut(setting.name, 40)) for setting in settings]
    spacing = {"vertical_spacing": 0.33 / rows, "horizontal_spacing": 0.03}
    figure = make_subplots(rows, 3, shared_yaxes=True, subplot_titles=titles, **spacing)
    # The first trial is pale, not white.
    last = int(finished.numbers.max())
    look = {"colorscale": "Blues", "cmin": -0.2 * last - 1, "cmax": last, "line": {"width": 0.5, "color": _GREY}}
    for index, setting in enumerate(settings):
        where = {"row": index // 3 + 1, "col": index % 3 + 1}
        has = ~np.isnan(setting.places)
        numbers, places = finished.numbers[has], setting.places[has]
        texts = [f"trial {number}: {_escaped(setting.text(place))}" for number, place in zip(numbers, places)]
        points = {
            "x": 10**places if setting.log and setting.high > setting.low else places,
            "y": finished.values[has, column],
            "text": texts,
        }
        hover = "%{text}, %{y:.6g}<extra></extra>"
        figure.add_scatter(**points, mode="markers", marker={**look, "color": numbers}, hovertemplate=hover, **where)
        figure.update_xaxes(**_axis(setting), **where)
    figure.update_yaxes(title_text=_escaped(objective.name), col=1)
    figure.update_layout(**_LAYOUT, height=290 * rows + 60, showlegend=False)
    # Above the first row, where the buttons do not cover its titles.
    figure.update_layout(margin_t=70)
    return figure


def curves(all_curves: Sequence[Curve], best: int | None, objective: Objective) -> go.Figure:
    """What each trial reported while it trained."""
    figure = _figure(420, "epoch", objective.name)
    for name, members in grouped(all_curves, best).items():
        color, width = {"finished": (_GREY, 1), "pruned": (_AMBER, 1)}.get(name, (_RED, 3))
        # One trace a group, with a gap between two curves: a trace a trial makes the page slow.
        steps = np.concatenate([[*curve.steps, np.nan] for curve in members])
        values = np.concatenate([[*curve.values, np.nan] for curve in members])
        numbers = np.concatenate([np.full(len(curve.steps) + 1, curve.number) for curve in members])
        points = {"x": steps, "y": values, "customdata": numbers, "mode": "lines+markers", "marker_size": 4, "name": name}
        hover = "trial %{customdata}, epoch %{x}: %{y:.6g}<extra></extra>"
        figure.add_scatter(**points, line={"color": color, "width": width}, connectgaps=False, hovertemplate=hover)
    figure.update_layout(showlegend=True)
    return figure


def pareto(finished: Finished, front: np.ndarray, objectives: Sequence[Objective]) -> go.Figure:
    """A panel a pair of objectives: all finished trials, and those that no other one beats in all of them."""
    pairs = list(combinations(range(len(objectives)), 2))
    figure = make_subplots(1, len(pairs), horizontal_spacing=0.08)
    for place, (across, up) in enumerate(pairs, start=1):
        for name, mask, color in (("not on the front", ~front, _GREY), ("on the front", front, _RED)):
            x, y = finished.values[mask][:, [across, up]].T
            look = {"mode": "markers", "marker_color": color, "name": name, "legendgroup": name, "showlegend": place == 1}
            hover = {
                "customdata": finished.numbers[mask],
                "hovertemplate": "trial %{customdata}: %{x:.6g}, %{y:.6g}<extra></extra>",
            }
            figure.add_scatter(x=x, y=y, **look, **hover, row=1, col=place)
        better = [f"{_escaped(objectives[index].name)}<br>({objectives[index].better} is better)" for index in (across, up)]
        figure.update_xaxes(title_text=better[0], row=1, col=place)
        figure.update_yaxes(title_text=better[1], row=1, col=place)
    figure.update_layout(**_LAYOUT, height=460, legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"})
    figure.update_layout(margin_b=75)
    return figure


def _figure(height: int, x: str, y: str) -> go.Figure:
    return go.Figure(layout={**_LAYOUT, "height": height, "xaxis_title": _escaped(x), "yaxis_title": _escaped(y)})


def _dimension(line: Setting) -> dict[str, object]:
    """One of the parallel axes, with a place below it for the trials that lack the setting."""
    room = 0 if line.high > line.low else 1
    low = line.low - room if line.everywhere else line.low - 0.12 * ((line.high - line.low) or 1)
    ticks = line.ticks() if line.everywhere else [(low, NOT_SET), *line.ticks()]
    return {
        "label": "<br>".join(_escaped(part) for part in two_lines(line.name)),
        "values": np.where(np.isnan(line.places), low, line.places),
        "range": [low, line.high + room],
        "tickvals": [place for place, _ in ticks],
        # Not escaped: only here plotly takes no tags, and would print the entities.
        "ticktext": [text for _, text in ticks],
    }


def _axis(setting: Setting) -> dict[str, object]:
    """The horizontal axis of a panel of `slices`."""
    if setting.choices or setting.low == setting.high:
        places, texts = zip(*setting.ticks())
        return {"tickvals": places, "ticktext": [_escaped(text) for text in texts], "range": [places[0] - 0.5, places[-1] + 0.5]}
    room = 0.04 * (setting.high - setting.low)
    kind = {"type": "log", "exponentformat": "e"} if setting.log else {"type": "linear"}
    return {**kind, "range": [setting.low - room, setting.high + room]}


def _escaped(text: str) -> str:
    """Without quotes: plotly would print their entities as they are."""
    return html.escape(text, quote=False)
