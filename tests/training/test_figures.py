"""Curves of a training."""

import numpy as np

from fr_ps.training.figures import curves_figure, learning_rate_figure


def test_curves_are_drawn_by_name_and_those_without_points_are_not() -> None:
    figure = curves_figure({"train/loss/a": [(1, 3.0), (2, 1.0)]}, "Losses", ["train/loss/a", "train/loss/b"], logarithmic=True)
    (line,) = figure.axes[0].lines
    assert line.get_label() == "loss/a"
    assert [list(values) for values in line.get_data()] == [[1, 2], [3.0, 1.0]]


def test_the_learning_rate_is_drawn_at_each_step_the_last_one_of_an_epoch_at_its_end() -> None:
    figure = learning_rate_figure(lambda step: 0.5 / (step + 1), epochs=3, steps=4)
    (axes,) = figure.axes
    (line,) = axes.lines
    x, y = line.get_data()
    np.testing.assert_allclose(x, np.arange(1, 13) / 4)
    np.testing.assert_allclose(y, [0.5 / step for step in range(1, 13)])
    assert axes.get_xlim() == (0, 3)
    assert axes.get_ylim()[0] == 0
