"""The figure of differences: sides, intervals and colours."""

import numpy as np

from fr_ps.evaluation.difference_figures import difference_figure
from fr_ps.evaluation.differences import Difference

NAN = float("nan")


def test_the_better_model_is_on_its_side_also_where_lower_is_better() -> None:
    rows = [
        ("auc", Difference("identity/auc", 0.9, 0.7, 0.1, 0.3, 0.01)),
        ("eer", Difference("identity/eer", 0.3, 0.1, 0.1, 0.3, 0.01)),
        ("rank1", Difference("identity/rank1", 0.9, 0.8, -0.1, 0.3, 0.3)),
        ("a name of a class that is long" * 4, Difference("pose/auc", 0.9, 0.8, NAN, NAN, NAN)),
    ]
    (axes,) = difference_figure("Title", ("albedo", "normal"), rows).axes
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert [float(np.ravel(line.get_xdata())[0]) for line in points] == [
        rows[0][1].value,
        -rows[1][1].value,
        rows[2][1].value,
        rows[3][1].value,
    ]
    bars = [sorted(np.ravel(line.get_xdata())) for line in axes.lines if line.get_linewidth() == 3]
    assert bars == [[0.1, 0.3], [-0.3, -0.1], [-0.1, 0.3]]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "albedo is better",
        "normal is better",
        "no measurable difference",
        "no interval",
    ]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[:3] == ["auc", "eer", "rank1"]
    assert labels[3] == "a name of a class that is longa n…"
