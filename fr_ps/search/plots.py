"""Plots of a study, drawn by optuna.visualization: one HTML page that works offline, and a PNG of each plot."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna import visualization as interactive
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import BaseImportanceEvaluator, FanovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState, create_trial
from optuna.visualization import matplotlib as static
from plotly.offline import get_plotlyjs

from fr_ps.files import write_atomic, write_text
from fr_ps.report.figures import plot_png
from fr_ps.report.html_page import escape_text, table_html
from fr_ps.report.table import Table
from fr_ps.search.space import decode_choice

_TREE_DEPTH = 6
"""Depth of the trees of the importance forest. Optuna's 64 changes no share by more than 0.01 and takes three times as long for
200 trials."""
# By default plotly shows a button that uploads the figure to cloud.plotly.com.
_BUTTONS = {"showSendToCloud": False, "displaylogo": False, "responsive": True, "typesetMath": False}
_STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;max-width:80rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0;display:block;overflow-x:auto}"
    "caption{text-align:left;font-weight:600}.figure{overflow-x:auto}.note{color:#666}"
    "td,th{padding:.2rem .7rem;border-bottom:1px solid #ddd;text-align:left}"
)


@dataclass(frozen=True)
class _Plot:
    """One plot of the page.

    Attributes:
        name: of the PNG file, without its ending.
        caption: above the plot.
        figure: of plotly, for the page.
        axes: draws the same plot with matplotlib, for the PNG file.
    """

    name: str
    caption: str
    figure: go.Figure
    axes: Callable[[], Any]


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


def write_plots(study: optuna.Study, objectives: Sequence[str], folder: Path, tables: Sequence[Table] = ()) -> list[str]:
    """Write search.html, which needs no network, and a PNG of each of its plots to `folder`.

    With several objectives the plots of each have its number in their names: history_1.png, history_2.png.

    Returns:
        a line for each plot that cannot be drawn, with the reason. Its PNG of an earlier call is removed.

    Raises:
        InputError: the disk is full, or the folder is not writable.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", "Attempting to set identical", UserWarning)  # a setting with one value so far
        plots, missing = _plots(study, objectives)
        images = {plot.name: plot_png(plot.axes) for plot in plots}
    for name, png in images.items():
        write_atomic(folder / f"{name}.png", lambda file, png=png: file.write(png))  # type: ignore[misc]
    lines = [f"{name}: {reason}" for name, reason in missing.items()]
    write_text(folder / "search.html", _page(study.study_name, plots, tables, [f"Not drawn: {line}." for line in lines]))
    for name in missing:
        (folder / f"{name}.png").unlink(missing_ok=True)
    return lines


def _plots(study: optuna.Study, objectives: Sequence[str]) -> tuple[list[_Plot], dict[str, str]]:
    """The plots; and name to reason of those that cannot be drawn."""
    plots, missing = list[_Plot](), dict[str, str]()

    def add(name: str, caption: str, function: str, obstacle: str, *arguments: Any, **options: Any) -> None:
        """Draw with a function of optuna.visualization, unless there is an obstacle."""
        if obstacle:
            missing[name] = obstacle
            return
        figure = getattr(interactive, function)(*arguments, **options)
        plots.append(_Plot(name, caption, figure, lambda: getattr(static, function)(*arguments, **options)))

    copy = _copy(study, range(len(objectives)))
    complete = copy.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    no_trial = "" if complete else "no complete trial"
    no_settings = no_trial or ("" if any(trial.params for trial in complete) else "the complete trials have no settings")
    if len(objectives) > 1:
        names = [f"{name} ({direction.name.lower()})" for name, direction in zip(objectives, study.directions)]
        too_many = no_trial or ("" if len(objectives) < 4 else "Optuna draws fronts of two or three objectives")
        caption = "Pareto front: no other trial is better in all objectives"
        add("pareto", caption, "plot_pareto_front", too_many, copy, target_names=names)
    for index, objective in enumerate(objectives):
        suffix, single = (f"_{index + 1}" if len(objectives) > 1 else ""), _copy(study, [index])
        caption = f"{objective}: complete trials and best so far"
        add(f"history{suffix}", caption, "plot_optimization_history", no_trial, single, target_name=objective)
        shares = importances(study, index)
        no_variance = no_trial or ("" if shares else "fewer than two complete trials differ in value and settings")
        caption = f"{objective}: share of the variance that each setting explains (fANOVA); unreliable below 20 trials"
        add(f"importance{suffix}", caption, "plot_param_importances", no_variance, single, _Shares(shares))
        caption = f"{objective}: complete trials by setting"
        for name, function in (("parallel", "plot_parallel_coordinate"), ("slice", "plot_slice")):
            add(f"{name}{suffix}", caption, function, no_settings, single, target_name=objective)
    if len(objectives) == 1:  # with several objectives Optuna has no intermediate values
        reported = any(trial.intermediate_values for trial in copy.get_trials(deepcopy=False))
        caption = f"{objectives[0]} by epoch; red: best, grey: complete, amber: pruned"
        add("curves", caption, "plot_intermediate_values", "" if reported else "no trial reported a value", copy)
        if reported:
            plots[-1] = _recoloured(plots[-1], copy)
    return plots, missing


def _recoloured(plot: _Plot, study: optuna.Study) -> _Plot:
    """The learning curves with the colours of the trials' states; Optuna gives each trial a colour of its own."""
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.intermediate_values]
    best = {trial.number for trial in study.best_trials}
    colors = [
        "#c8102e" if trial.number in best else "#d98e04" if trial.state == TrialState.PRUNED else "#9aa5b1" for trial in trials
    ]
    for trace, color in zip(plot.figure.data, colors, strict=True):
        trace.update(line_color=color, marker_color=color)

    def axes() -> Any:
        drawn = plot.axes()
        for line, color in zip(drawn.lines, colors, strict=True):
            line.set_color(color)
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


def _page(title: str, plots: Sequence[_Plot], tables: Sequence[Table], notes: Sequence[str]) -> str:
    figures = "".join(
        f"<h2>{escape_text(plot.caption)}</h2><div class=figure>"
        f"{plot.figure.to_html(_BUTTONS, full_html=False, include_plotlyjs=False, div_id=plot.name)}</div>"
        for plot in plots
    )
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape_text(title)}</title><style>{_STYLE}</style>"
        f"<script>{get_plotlyjs()}</script><h1>{escape_text(title)}</h1>{''.join(map(table_html, tables))}"
        f"{''.join(f'<p class=note>{escape_text(note)}</p>' for note in notes)}{figures}</html>\n"
    )
