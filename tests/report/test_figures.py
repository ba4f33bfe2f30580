"""No figure parses its text: the real figures, with ids, classes and settings that are formulas to matplotlib."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import optuna
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.text import Text
from optuna.distributions import CategoricalDistribution, FloatDistribution

import fr_ps
from fr_ps.evaluation.analyses import groups
from fr_ps.evaluation.analyses.identification import OpenSet, open_set_figure
from fr_ps.evaluation.analyses.reliability import reliability_diagram, reliability_figure
from fr_ps.evaluation.pairwise.pairs import PairScores
from fr_ps.evaluation.pairwise.roc import RocCurve
from fr_ps.evaluation.pairwise.similarity import ScoreScale
from fr_ps.evaluation.pairwise.verification_report import DrawnRoc, roc_figure
from fr_ps.report.figures import new_figure, plot_png, to_png
from fr_ps.training.finalize import curves_figure
from tests.foreign import MARKUP_LIKE_TEXTS

FORMULA = r"a$\frac{$b"


def _of_groups() -> Figure:
    return groups._figure([[name, name, 1, 1, 0.01, 0.001, 0.1, 1, 1, 0.01, 0.001, 0.1] for name in MARKUP_LIKE_TEXTS])


def _of_reliability() -> Figure:
    found = reliability_diagram(np.linspace(0, 1, 20), np.arange(20) % 2 == 0)
    return reliability_figure(found, FORMULA, FORMULA, FORMULA)


def _of_losses() -> Figure:
    return curves_figure(
        {f"train/{name}": {1: 0.3, 2: 0.25} for name in MARKUP_LIKE_TEXTS},
        FORMULA,
        [f"train/{n}" for n in MARKUP_LIKE_TEXTS],
        True,
    )


def _of_roc() -> Figure:
    levels, rows = np.arange(4), np.arange(2)
    pairs = PairScores(ScoreScale("cosine"), rows, levels, np.full(4, 2500), rows, rows, levels[:2])
    curve = RocCurve(levels[::-1], np.array([0, 0.001, 0.1, 1]), np.array([0, 0.5, 0.9, 1]))
    return roc_figure({FORMULA: DrawnRoc(pairs, curve, (), None)})


def _of_open_set() -> Figure:
    places, scores = np.arange(500), np.linspace(0.6, 0, 500)
    found = OpenSet(places, scores, places[:5], places[:5], np.linspace(1, 0.5, 5), False)
    return open_set_figure(found, (0.01, 0.1), np.array([0.4, 0.2]))


@pytest.mark.parametrize(
    "build",
    [_of_groups, _of_reliability, _of_losses, _of_roc, _of_open_set],
)
def test_no_text_of_a_figure_is_parsed(build: Callable[[], Figure]) -> None:
    figure = build()
    assert to_png(figure).startswith(b"\x89PNG")
    texts = figure.findobj(Text)
    assert not any(text.get_parse_math() for text in texts)  # type: ignore[attr-defined]
    assert not any("mathdefault" in text.get_text() for text in texts)  # type: ignore[attr-defined]


def test_the_numbers_of_logarithmic_axes_are_plain() -> None:
    figure = _of_roc()
    to_png(figure)
    assert {"0.001", "0.01", "0.1", "1"} <= {label.get_text() for label in figure.axes[0].get_xticklabels()}
    losses = _of_losses()  # less than one decade: numbers stand between the powers of ten
    to_png(losses)
    assert "0.3" in {label.get_text() for label in losses.axes[0].get_yticklabels(which="minor")}


def test_every_figure_is_made_where_parsing_is_off() -> None:
    made = [
        path for path in Path(fr_ps.__file__).parent.rglob("*.py") if re.search(r"(?<!go\.)\bFigure\(|pyplot", path.read_text())
    ]
    assert [path.name for path in made] == ["figures.py"]


def test_a_plot_of_optuna_parses_no_text_has_plain_numbers_and_leaves_the_style_alone() -> None:
    study = optuna.create_study()
    space = {FORMULA: CategoricalDistribution(MARKUP_LIKE_TEXTS), "lr": FloatDistribution(1e-4, 0.1, log=True)}
    for index, name in enumerate(MARKUP_LIKE_TEXTS):
        study.add_trial(optuna.create_trial(value=float(index), params={FORMULA: name, "lr": 0.001}, distributions=space))
    drawn = []

    def draw() -> np.ndarray:
        drawn.append(optuna.visualization.matplotlib.plot_slice(study, target_name=FORMULA))
        return drawn[0]

    before = dict(mpl.rcParams)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        assert plot_png(draw).startswith(b"\x89PNG")
    assert dict(mpl.rcParams) == before
    figure = drawn[0][0].figure
    assert not pyplot.fignum_exists(figure.number)
    texts = figure.findobj(Text)
    assert not any(text.get_parse_math() for text in texts)
    assert not any("mathdefault" in text.get_text() for text in texts)


def test_a_dollar_sign_is_drawn_as_text() -> None:
    figure, _ = new_figure("a$b$c", "x", "y")
    plain, _ = new_figure("abc", "x", "y")
    assert to_png(figure) != to_png(plain)
