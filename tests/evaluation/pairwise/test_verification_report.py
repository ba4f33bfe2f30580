"""Figures of verification."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.stats import norm

from fr_ps.evaluation.pairwise.pairs import PairScores
from fr_ps.evaluation.pairwise.roc import compute_roc, operating_points
from fr_ps.evaluation.pairwise.similarity import STEPS, ScoreScale
from fr_ps.evaluation.pairwise.verification import RocBand
from fr_ps.evaluation.pairwise.verification_report import DrawnRoc, det_figure, draw_roc, roc_figure, score_figure
from fr_ps.report.figures import to_png


def example() -> PairScores:
    rng = np.random.default_rng(0)
    genuine = np.arange(400) < 100
    levels = np.round((np.tanh(rng.normal(size=400) * 0.3 + 0.6 * genuine) + 1) * STEPS).astype(np.int64)
    impostor_levels, counts = np.unique(levels[~genuine], return_counts=True)
    genuine_rows = np.arange(100)
    return PairScores(
        ScoreScale("cosine"), np.zeros(100, dtype=int), impostor_levels, counts, genuine_rows, genuine_rows, levels[genuine]
    )


def drawn() -> DrawnRoc:
    fmr = np.geomspace(1 / 300, 1, 5)
    return draw_roc(example(), RocBand(fmr, np.linspace(0.2, 0.8, 5), np.linspace(0.6, 1, 5)))


def curve() -> Figure:
    return roc_figure({"": drawn()})


def legend_of(figure: Figure) -> list[str]:
    legend = figure.axes[0].get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def test_the_roc_rises_from_the_smallest_rate_the_pairs_support_to_one() -> None:
    (line,) = curve().axes[0].lines
    fmr, tmr = line.get_data()
    assert np.min(fmr) == 1 / 300
    assert np.all(np.diff(fmr) >= 0)
    assert np.all(np.diff(tmr) >= 0)
    assert (fmr[-1], tmr[-1]) == (1, 1)


def test_the_det_falls_and_marks_the_points_with_support_filled() -> None:
    found = operating_points(example(), compute_roc(example()))
    (axes,) = det_figure({"": replace(drawn(), band=None)}).axes
    x, y = axes.lines[0].get_data()
    assert np.all(np.diff(x) >= 0)
    assert np.all(np.diff(y) <= 0)
    assert [point.target_fmr for point in found] == [0.1, 0.01]
    supported, low = axes.collections
    assert (supported.get_label(), low.get_label()) == ("operating point", "low support")  # 30 and 3 expected false matches
    assert (len(supported.get_facecolors()), len(low.get_facecolors())) == (1, 0)  # type: ignore[attr-defined]
    marked = axes.collections[0].get_offsets()[0]
    assert norm.cdf(marked) == pytest.approx([0.1, found[0].fnmr])


def test_the_det_of_a_model_without_errors_is_inside_the_axes() -> None:
    separated = replace(example(), genuine_levels=np.full(100, example().impostor_levels.max() + 1))
    (axes,) = det_figure({"": draw_roc(separated, None)}).axes
    corner = np.array([norm.ppf(0.5 / 300), norm.ppf(0.5 / 100)])
    assert np.min(np.abs(np.transpose(axes.lines[0].get_data()) - corner).max(axis=1)) == 0
    assert axes.get_xlim()[0] < corner[0]
    assert axes.get_ylim()[0] < corner[1]


def test_the_histograms_have_every_score_and_the_number_of_pairs() -> None:
    axes = score_figure(drawn()).axes[0]
    assert legend_of(score_figure(drawn()))[:2] == ["impostor (300 pairs)", "genuine (100 pairs)"]
    scores = [float(example().scale.scores(np.array(point.threshold))) for point in drawn().points]
    assert legend_of(score_figure(drawn()))[2] == f"FMR 0.1: {scores[0]:.3f}"
    assert [line.get_xdata()[0] for line in axes.lines] == scores  # type: ignore[index]
    areas = [sum(bar.get_height() * bar.get_width() for bar in bars) for bars in axes.containers]  # type: ignore[attr-defined]
    np.testing.assert_allclose(areas, [1, 1])


def test_the_band_of_the_roc_is_drawn() -> None:
    band = curve().axes[0].collections[0]
    assert band.get_label() == "95 % interval"
    edges = band.get_paths()[0].get_extents()
    assert (edges.y0, edges.y1) == (0.2, 1)


def test_two_models_have_two_colours_and_their_names() -> None:
    figure = roc_figure({"albedo": drawn(), "normal": drawn()})
    assert legend_of(figure) == ["albedo", "normal", "95 % interval", "operating point", "low support"]
    assert len({line.get_color() for line in figure.axes[0].lines}) == 2


def test_a_figure_is_drawn_to_the_same_bytes_twice() -> None:
    first, second = to_png(curve()), to_png(curve())
    assert first.startswith(b"\x89PNG\r\n\x1a\n")
    assert first == second
