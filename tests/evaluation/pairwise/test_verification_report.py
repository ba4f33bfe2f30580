"""Figures of verification."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.stats import norm

from fr_ps.evaluation.pairwise.pairs import PairScores
from fr_ps.evaluation.pairwise.roc import compute_roc, operating_points
from fr_ps.evaluation.pairwise.similarity import STEPS, ScoreScale
from fr_ps.evaluation.pairwise.verification_report import det_figure, roc_figure, score_figure
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


def curve() -> Figure:
    return roc_figure(compute_roc(example()), 300, operating_points(example(), compute_roc(example())))


def test_the_roc_rises_from_the_smallest_rate_the_pairs_support_to_one() -> None:
    (line,) = curve().axes[0].lines
    fmr, tmr = line.get_data()
    assert np.min(fmr) == 1 / 300
    assert np.all(np.diff(fmr) >= 0)
    assert np.all(np.diff(tmr) >= 0)
    assert (fmr[-1], tmr[-1]) == (1, 1)


def test_the_det_falls_and_marks_the_points_with_support_filled() -> None:
    found = operating_points(example(), compute_roc(example()))
    (axes,) = det_figure(compute_roc(example()), 300, 100, found).axes
    x, y = axes.lines[0].get_data()
    assert np.all(np.diff(x) >= 0)
    assert np.all(np.diff(y) <= 0)
    filled = [tuple(colour) for colour in axes.collections[0].get_facecolors()]  # type: ignore[attr-defined]
    assert [point.target_fmr for point in found] == [0.1, 0.01]
    assert filled[0][3] == 1  # 30 expected false matches
    assert filled[1][3] == 0  # 3
    marked = axes.collections[0].get_offsets()[0]
    assert norm.cdf(marked) == pytest.approx([0.1, found[0].fnmr])


def test_the_histograms_have_every_score_and_the_number_of_pairs() -> None:
    axes = score_figure(example()).axes[0]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["impostor (300 pairs)", "genuine (100 pairs)"]
    areas = [sum(bar.get_height() * bar.get_width() for bar in bars) for bars in axes.containers]  # type: ignore[attr-defined]
    np.testing.assert_allclose(areas, [1, 1])


def test_a_figure_is_drawn_to_the_same_bytes_twice() -> None:
    first, second = to_png(curve()), to_png(curve())
    assert first.startswith(b"\x89PNG\r\n\x1a\n")
    assert first == second
