"""Pictures of an evaluation and of a training."""

import numpy as np

from fr_ps.evaluation.figures import as_png, curves_figure, rate_figure, roc_figure, score_figure
from fr_ps.evaluation.verification import Pairs


def example() -> Pairs:
    rng = np.random.default_rng(0)
    genuine = np.arange(400) < 100
    zeros = np.zeros(400, dtype=int)
    return Pairs(zeros, zeros, np.tanh(rng.normal(size=400) * 0.3 + 0.6 * genuine).astype(np.float32), genuine, zeros)


def test_the_roc_rises_from_the_smallest_rate_the_pairs_support_to_one() -> None:
    (line,) = roc_figure(example()).axes[0].lines
    far, tar = line.get_data()
    assert np.min(far) == 1 / 300
    assert np.all(np.diff(far) >= 0)
    assert np.all(np.diff(tar) >= 0)
    assert (far[-1], tar[-1]) == (1, 1)


def test_the_histograms_hold_every_score_and_name_the_numbers() -> None:
    axes = score_figure(example()).axes[0]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["impostor (300 pairs)", "genuine (100 pairs)"]
    areas = [sum(bar.get_height() * bar.get_width() for bar in bars) for bars in axes.containers]  # type: ignore[attr-defined]
    np.testing.assert_allclose(areas, [1, 1])


def test_curves_are_drawn_by_name_and_those_without_points_are_not() -> None:
    figure = curves_figure({"train/loss/a": [(1, 3.0), (2, 1.0)]}, "Losses", ["train/loss/a", "train/loss/b"], logarithmic=True)
    (line,) = figure.axes[0].lines
    assert line.get_label() == "loss/a"
    assert [list(values) for values in line.get_data()] == [[1, 2], [3.0, 1.0]]


def test_the_learning_rate_is_drawn_at_each_step_the_last_one_of_an_epoch_at_its_end() -> None:
    figure = rate_figure(lambda step: 0.5 / (step + 1), epochs=3, steps=4)
    (axes,) = figure.axes
    (line,) = axes.lines
    x, y = line.get_data()
    np.testing.assert_allclose(x, np.arange(1, 13) / 4)
    np.testing.assert_allclose(y, [0.5 / step for step in range(1, 13)])
    assert axes.get_xlim() == (0, 3)
    assert axes.get_ylim()[0] == 0


def test_a_picture_is_the_same_bytes_twice() -> None:
    first, second = as_png(roc_figure(example())), as_png(roc_figure(example()))
    assert first.startswith(b"\x89PNG\r\n\x1a\n")
    assert first == second
