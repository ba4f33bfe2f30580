"""Pictures and one page about a study, at its end or at any time before."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import plotly.graph_objects as go
from matplotlib.figure import Figure
from optuna.trial import TrialState

from fr_ps.files import write_atomic, write_text
from fr_ps.report.figures import to_png
from fr_ps.report.table import Table
from fr_ps.search.outcome.figures import interactive, stills
from fr_ps.search.outcome.figures.finished import Finished, Objective, finished, objectives_of, pareto_front
from fr_ps.search.outcome.figures.importance import setting_shares
from fr_ps.search.outcome.figures.page import Section, page
from fr_ps.search.outcome.figures.tables import best_table, front_table, label_table, state_table


@dataclass(frozen=True)
class _Kind:
    heading: str
    meaning: str
    still: Callable[..., Figure]
    live: Callable[..., go.Figure]


_KINDS = {
    "history": _Kind(
        "Best value so far", "A point is a finished trial; the line is the best one so far.", stills.history, interactive.history
    ),
    "importance": _Kind(
        "Importance of the settings",
        "How much of the spread of the values a setting explains alone: fANOVA with a random forest, made to sum to 1. "
        "With fewer than some twenty finished trials it is no more than a hint.",
        stills.importance,
        interactive.importance,
    ),
    "parallel": _Kind(
        "All settings together",
        "A line is a finished trial; the better, the darker. Drag along an axis to see only the trials that pass there.",
        stills.parallel,
        interactive.parallel,
    ),
    "slice": _Kind(
        "Setting by setting", "A point is a finished trial; the later, the darker.", stills.slices, interactive.slices
    ),
    "curves": _Kind(
        "Learning curves",
        "What each finished or pruned trial reported while it trained.",
        stills.curves,
        interactive.curves,
    ),
    "pareto": _Kind(
        "Pareto front",
        "A trial is on the front if no other one is at least as good in all objectives and better in one. "
        "With three or more of them it may look beaten in a panel of two.",
        stills.pareto,
        interactive.pareto,
    ),
}


@dataclass(frozen=True)
class _Picture:
    """Of one kind; `arguments` are what both of its functions are called with, `suffix` and `about` tell objectives apart."""

    kind: str
    arguments: tuple[Any, ...]
    suffix: str = ""
    about: str = ""
    remarks: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()

    @property
    def name(self) -> str:
        return self.kind + self.suffix

    def still(self) -> Figure:
        return _KINDS[self.kind].still(*self.arguments)

    def section(self) -> Section:
        kind = _KINDS[self.kind]
        live = kind.live(*self.arguments)
        return Section(self.name, kind.heading + self.about, (kind.meaning, *self.remarks), live, self.tables)


def importances(study: optuna.Study, objective: int = 0) -> dict[str, float]:
    """The share of the spread of an objective that each setting explains alone: setting to share, highest first, sum 1.

    Only of settings that every finished trial has; {} where it cannot be told.

    Args:
        study: whose finished trials count.
        objective: its index.
    """
    return setting_shares(finished(study.get_trials(deepcopy=False)), objective)[0]


def write_plots(study: optuna.Study, objectives: Sequence[str], folder: Path) -> list[str]:
    """Write search.html, a page that needs nothing beside it, and a PNG of each of its figures into `folder`.

    With several objectives, what is drawn for each of them is called history_1.png, history_2.png and so on. What an earlier
    call drew and this one cannot is removed.

    Args:
        study: finished or not, and be it empty.
        objectives: the names of the metrics, in the order of the study's directions.
        folder: made if it is not there.

    Returns:
        a line for each picture that could not be drawn: which and why.

    Raises:
        InputError: the disk is full, or the folder may not be written.
    """
    trials, goals = study.get_trials(deepcopy=False), objectives_of(study, objectives)
    known = finished(trials)
    pictures, missing = _pictures(known, goals)
    lines = [f"{name}: {reason}" for name, reason in missing.items()]
    for picture in pictures:
        png = to_png(picture.still())
        write_atomic(folder / f"{picture.name}.png", lambda file, png=png: file.write(png))  # type: ignore[misc]
    tables = [state_table(trials), *best_table(trials, known, goals), *label_table(known)]
    infinite = sum(trial.state == TrialState.COMPLETE for trial in trials) - len(known.numbers)
    notes = [f"Not in the figures: {infinite} complete trials whose value is infinite."] if infinite else []
    notes += [f"Not drawn: {line}." for line in lines]
    write_text(folder / "search.html", page(study.study_name, tables, notes, [picture.section() for picture in pictures]))
    for name in missing:
        (folder / f"{name}.png").unlink(missing_ok=True)
    return lines


def _pictures(known: Finished, goals: Sequence[Objective]) -> tuple[list[_Picture], dict[str, str]]:
    """What can be drawn; and the names of what cannot, with the reason."""
    drawn: list[_Picture] = []
    missing: dict[str, str] = {}
    if len(goals) > 1 and len(known.numbers):
        front = pareto_front(known.values, goals)
        drawn.append(_Picture("pareto", (known, front, goals), tables=(front_table(known, front, goals),)))
    elif len(goals) > 1:
        missing["pareto"] = "no finished trial"
    for column, goal in enumerate(goals):
        suffix, about = (f"_{column + 1}", f": {goal.name}") if len(goals) > 1 else ("", "")
        mine, reasons = _of_objective(known, column, goal, suffix, about)
        drawn += mine
        missing |= {kind + suffix: reason for kind, reason in reasons.items()}
    if known.curves:
        best = int(known.numbers[goals[0].best(known.values[:, 0])]) if len(known.numbers) else None
        drawn.append(_Picture("curves", (known.curves, best, goals[0])))
    elif len(goals) == 1:
        # With several objectives optuna lets no trial report.
        missing["curves"] = "no trial reported a value while it trained"
    return drawn, missing


def _of_objective(
    known: Finished, column: int, goal: Objective, suffix: str, about: str
) -> tuple[list[_Picture], dict[str, str]]:
    shares, reason = setting_shares(known, column)
    missing = {"importance": reason} if reason else {}
    if not len(known.numbers):
        return [], {"history": "no finished trial"} | missing | dict.fromkeys(("parallel", "slice"), "no finished trial")
    drawn = [_Picture("history", (known, column, goal), suffix, about)]
    if shares:
        partial = ", ".join(setting.name for setting in known.settings if not setting.everywhere)
        remarks = (f"Left out, as not every finished trial has them: {partial}.",) if partial else ()
        drawn.append(_Picture("importance", (shares, goal), suffix, about, remarks))
    if not known.settings:
        return drawn, missing | dict.fromkeys(("parallel", "slice"), "the finished trials have no settings")
    important_first = sorted(known.settings, key=lambda setting: (-shares.get(setting.name, 0), setting.name))
    drawn += [_Picture(kind, (known, column, goal, important_first), suffix, about) for kind in ("parallel", "slice")]
    return drawn, missing
