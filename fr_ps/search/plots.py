"""Plots of a study, drawn by optuna.visualization: with plotly for the page, and with matplotlib as PNG files."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import plotly.graph_objects as go
from optuna import visualization as interactive
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import BaseImportanceEvaluator, FanovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState, create_trial
from optuna.visualization import matplotlib as static
from plotly.colors import sample_colorscale

from fr_ps.files import write_atomic
from fr_ps.report.figures import plot_png
from fr_ps.search.space import decode_choice

_TREE_DEPTH = 6
"""Depth of the trees of the importance forest. Optuna's 64 changes no share by more than 0.01 and takes three times as long for
200 trials."""
_BEST, _COMPLETE, _PRUNED = "#c8102e", "#7d8792", "#e08e00"
_GRID = "rgba(128,128,128,.25)"
_MOST_TICKS = 12
"""Largest number of a trial with which each trial has a tick in the history."""
_SCALE = ["#b9cbe3", "#08306b"]
"""Colours from the lowest to the highest value; those of Optuna start at white, which is invisible on white."""


@dataclass(frozen=True)
class Plot:
    """One plot of a study.

    Attributes:
        name: of the PNG file, without its ending.
        title: heading.
        caption: explanation.
        figures: of plotly, for the page. A slice plot has one for each setting, so that they fit narrow windows.
        axes: draws the same plot with matplotlib, for the PNG file.
    """

    name: str
    title: str
    caption: str
    figures: Sequence[go.Figure]
    axes: Callable[[], Any]


@dataclass(frozen=True)
class StudyPlots:
    """The plots of a study.

    Attributes:
        plots: in the order of the page.
        images: name of a plot to its PNG.
        missing: name of a plot that cannot be drawn to the reason.
        shares: for each objective, setting to importance; see `importances`.
    """

    plots: Sequence[Plot]
    images: Mapping[str, bytes]
    missing: Mapping[str, str]
    shares: Sequence[Mapping[str, float]]

    def write(self, folder: Path) -> None:
        """Write the PNG files, and remove those of an earlier call that cannot be drawn now.

        Raises:
            InputError: the disk is full, or the folder is not writable.
        """
        for name, png in self.images.items():
            write_atomic(folder / f"{name}.png", lambda file, png=png: file.write(png))  # type: ignore[misc]
        for name in self.missing:
            (folder / f"{name}.png").unlink(missing_ok=True)


class _Shares(BaseImportanceEvaluator):
    """Importances that are already computed, for Optuna's plot of them."""

    def __init__(self, shares: Mapping[str, float]) -> None:
        self.shares = dict(shares)

    def evaluate(self, study: optuna.Study, params: Any = None, *, target: Any = None) -> dict[str, float]:
        return self.shares


def importances(study: optuna.Study, objective: int = 0) -> dict[str, float]:
    """The share of an objective's variance that each setting explains alone (fANOVA), highest first; the sum is 1.

    Optuna's default (PED-ANOVA) is not used: it compares the best tenth of the trials, two of twenty, with the rest. Settings
    with a logarithmic range are passed as log10, as fANOVA weights a range linearly: of a learning rate from 1e-5 to 0.1 mostly
    the part above 0.01 would count.

    Returns:
        setting to share, of the settings that all complete trials have; empty where fewer than two of them differ.
    """
    evaluator = FanovaImportanceEvaluator(max_depth=_TREE_DEPTH, seed=0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            shares = get_param_importances(_copy(study, [objective], log10=True), evaluator=evaluator, normalize=False)
    except (RuntimeError, ValueError):  # all values are equal, or no trial is complete
        return {}
    total = sum(shares.values())
    return {name: float(share / total) for name, share in shares.items()} if total else {}


def draw_plots(study: optuna.Study, objectives: Sequence[str]) -> StudyPlots:
    """Draw all plots. With several objectives the plots of each have its number in their names: history_1, history_2."""
    shares = [importances(study, index) for index in range(len(objectives))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", "Attempting to set identical", UserWarning)  # a setting with one value so far
        plots, missing = _plots(study, objectives, shares)
        images = {plot.name: plot_png(plot.axes) for plot in plots}
    return StudyPlots(plots, images, missing, shares)


def _plots(
    study: optuna.Study, objectives: Sequence[str], shares: Sequence[Mapping[str, float]]
) -> tuple[list[Plot], dict[str, str]]:
    """The plots; and name to reason of those that cannot be drawn."""
    plots, missing = list[Plot](), dict[str, str]()

    def add(name: str, title: str, caption: str, function: str, obstacle: str, *arguments: Any, **options: Any) -> None:
        """Draw with a function of optuna.visualization, unless there is an obstacle."""
        if obstacle:
            missing[name] = obstacle
            return
        draw = getattr(interactive, function)
        parts = [{"params": [setting]} for setting in _settings(arguments[0])] if function == "plot_slice" else [{}]
        figures = [_styled(draw(*arguments, **options, **part), function) for part in parts]
        plots.append(Plot(name, title, caption, figures, lambda: _readable(getattr(static, function)(*arguments, **options))))

    copy = _copy(study, range(len(objectives)))
    complete = copy.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    no_trial = "" if complete else "no complete trial"
    no_settings = no_trial or ("" if _settings(copy) else "the complete trials have no settings")
    if len(objectives) > 1:
        names = [f"{name} ({direction.name.lower()})" for name, direction in zip(objectives, study.directions)]
        too_many = no_trial or ("" if len(objectives) < 4 else "Optuna draws fronts of two or three objectives")
        caption = "No other trial is better in all objectives than a trial of the front."
        add("pareto", "Pareto front", caption, "plot_pareto_front", too_many, copy, target_names=names)
    for index, objective in enumerate(objectives):
        suffix, of = (f"_{index + 1}", f" of {objective}") if len(objectives) > 1 else ("", "")
        single = _copy(study, [index])
        target = {"target_name": objective}
        caption = f"{objective} of each complete trial, and the best one so far. Pruned trials are not shown."
        add(f"history{suffix}", f"History{of}", caption, "plot_optimization_history", no_trial, single, **target)
        no_variance = no_trial or ("" if shares[index] else "fewer than two complete trials differ in value and settings")
        caption = (
            f"Share of the variance of {objective} that each setting explains alone (fANOVA). {len(complete)} complete trials; "
            "unreliable below 20. optuna-dashboard shows other shares: its PED-ANOVA compares the best tenth of the trials with "
            "the rest, and of a small study that is one trial or two."
        )
        add(
            f"importance{suffix}",
            f"Importance{of}",
            caption,
            "plot_param_importances",
            no_variance,
            single,
            _Shares(shares[index]),
        )
        caption = "A line for each complete trial; the stronger its colour, the better."
        add(f"parallel{suffix}", f"Settings together{of}", caption, "plot_parallel_coordinate", no_settings, single, **target)
        caption = "A point for each complete trial; the stronger its colour, the later the trial."
        add(f"slice{suffix}", f"Settings one by one{of}", caption, "plot_slice", no_settings, single, **target)
    if len(objectives) == 1:  # with several objectives Optuna has no intermediate values
        reported = any(trial.intermediate_values for trial in copy.get_trials(deepcopy=False))
        caption = f"{objectives[0]} after each epoch. Red: the best trial; grey: complete; amber: pruned."
        add(
            "curves",
            "Learning curves",
            caption,
            "plot_intermediate_values",
            "" if reported else "no trial reported a value",
            copy,
        )
        if reported:
            plots[-1] = _curves_by_state(plots[-1], copy, objectives[0])
    return plots, missing


def _settings(study: optuna.Study) -> list[str]:
    """Names of the settings of the complete trials."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted({name for trial in complete for name in trial.params})


def _styled(figure: go.Figure, function: str) -> go.Figure:
    """The figure in the style of the page: no second title, no background, and colours that show on white."""
    clear = "rgba(0,0,0,0)"
    figure.update_layout(
        title=None,
        template="plotly_white",
        paper_bgcolor=clear,
        plot_bgcolor=clear,
        height=320,
        width=None,
        margin={"l": 70, "r": 20, "t": 20, "b": 50},
        font={"size": 13},
    )
    figure.update_xaxes(gridcolor=_GRID, zeroline=False)
    figure.update_yaxes(gridcolor=_GRID, zeroline=False)
    if function == "plot_optimization_history":
        figure.update_traces(name="best so far", line={"shape": "hv", "color": "#d55e00"}, selector={"mode": "lines"})
        figure.update_traces(name="trial", marker_color="#0072b2", selector={"mode": "markers"})
        if max(figure.data[0].x, default=0) <= _MOST_TICKS:
            figure.update_xaxes(dtick=1)  # plotly's own ticks are fractions of trials there
    elif function == "plot_param_importances":
        figure.update_traces(marker_color="#0072b2")
        figure.update_layout(margin={"l": 20, "r": 50}, xaxis_title="share of the variance", yaxis_title=None)
        figure.update_yaxes(automargin=True, ticksuffix=" ", showgrid=False)
    elif function == "plot_parallel_coordinate":
        *lines, bar = figure.data  # the last one has no points: it is for the bar of colours
        for line in lines:  # the first axis is the objective, from 0 to 1
            share = 1 - line.y[0] if bar.marker.reversescale else line.y[0]
            line.update(line={"color": sample_colorscale(_SCALE, share)[0], "width": 1.5 + share}, opacity=1)
        bar.marker.colorscale = _SCALE
        figure.update_layout(margin={"l": 60, "r": 20, "t": 30, "b": 40})
    elif function == "plot_slice":
        figure.update_traces(marker={"showscale": False, "colorscale": _SCALE})
        figure.update_layout(height=260)
        axis = figure.layout.xaxis
        axis.update(tickangle=0, nticks=4, exponentformat="e")
        if axis.categoryarray:  # Optuna puts names in quotes
            axis.update(tickvals=axis.categoryarray, ticktext=[label.strip("'") for label in axis.categoryarray])
        if axis.type == "log":  # plotly's own labels overlap in a narrow plot
            values = [value for trace in figure.data for value in trace.x]
            ticks = np.geomspace(min(values), max(values), 3)
            axis.update(tickvals=ticks, ticktext=[f"{tick:.2g}" for tick in ticks])
    return figure


def _readable(drawn: Any) -> Any:
    """Axes of matplotlib without a legend of one entry on the plot, and with long names of settings in two lines."""
    panels = np.atleast_1d(np.asarray(drawn, dtype=object)).ravel()
    for axes in panels:
        if len(panels) > 1:
            axes.set_xlabel(axes.get_xlabel().replace(".", ".\n"))
        if axes.get_legend() and len(axes.get_legend().get_texts()) == 1:
            axes.get_legend().remove()
    return drawn


def _curves_by_state(plot: Plot, study: optuna.Study, objective: str) -> Plot:
    """The learning curves with the colours of the trials' states; Optuna gives each trial a colour of its own."""
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.intermediate_values]
    best = {trial.number for trial in study.best_trials}
    colors = [_BEST if trial.number in best else _PRUNED if trial.state == TrialState.PRUNED else _COMPLETE for trial in trials]
    (figure,) = plot.figures
    for trace, color in zip(figure.data, colors, strict=True):
        trace.update(line_color=color, marker_color=color, marker_size=4)
    # The best curve is drawn last, above the others.
    figure.data = sorted(figure.data, key=lambda trace: trace.line.color == _BEST)
    figure.update_layout(xaxis_title="epoch", yaxis_title=objective)

    def axes() -> Any:
        drawn = plot.axes()
        for line, color in zip(drawn.lines, colors, strict=True):
            line.set(color=color, zorder=3 if color == _BEST else 2)
        drawn.set(xlabel="epoch", ylabel=objective)
        return drawn

    return replace(plot, axes=axes)


def _copy(study: optuna.Study, objectives: Sequence[int], log10: bool = False) -> optuna.Study:
    """A copy of the study in memory for Optuna's plots, with some of the objectives; `log10` transforms logarithmic settings.

    Optuna ignores the direction of one objective of several: it draws no best-so-far line and reverses the colours. Trials keep
    their numbers: one that is neither pruned nor complete with finite values becomes a failed trial without settings.
    """
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    copy = optuna.create_study(study_name=study.study_name, directions=[study.directions[index] for index in objectives])
    optuna.logging.set_verbosity(verbosity)
    for trial in study.get_trials(deepcopy=False):
        finite = trial.state == TrialState.COMPLETE and all(map(math.isfinite, trial.values))
        if not finite and trial.state != TrialState.PRUNED:
            copy.add_trial(create_trial(state=TrialState.FAIL))
            continue
        settings = {name: _plotted_setting(value, trial.distributions[name], log10) for name, value in trial.params.items()}
        copy.add_trial(
            create_trial(
                state=trial.state,
                values=[trial.values[index] for index in objectives] if finite else None,
                params={name: value for name, (value, _) in settings.items()},
                distributions={name: distribution for name, (_, distribution) in settings.items()},
                intermediate_values=trial.intermediate_values,
            )
        )
    return copy


def _plotted_setting(value: Any, distribution: Any, log10: bool) -> tuple[Any, BaseDistribution]:
    """The value and distribution of a setting in the copy."""
    if isinstance(distribution, CategoricalDistribution):
        labels = tuple(map(_label, distribution.choices))
        return labels[int(distribution.to_internal_repr(value))], CategoricalDistribution(labels)
    if log10 and distribution.log:
        return math.log10(value), FloatDistribution(math.log10(distribution.low), math.log10(distribution.high))
    return value, distribution


def _label(choice: Any) -> Any:
    """A choice on an axis: `albedo+normal` for a list, which the study stores as JSON."""
    value = decode_choice(choice)
    return "+".join(map(str, value)) if isinstance(value, list) else choice
