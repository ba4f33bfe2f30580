import numpy as np
import pytest

from fr_ps.photometric.sphere import Highlight, SphereCalibration, mirror_direction
from fr_ps.photometric.sphere_circle import Circle
from fr_ps.photometric.sphere_figure import calibration_figure


def calibration(names: list[str]) -> SphereCalibration:
    angle = 2 * np.pi * np.arange(len(names)) / len(names)
    points = 0.4 * np.column_stack([np.cos(angle), np.sin(angle)])
    highlights = [Highlight(50 + 40 * x, 50 - 40 * y, mirror_direction(x, y), 1.0) for x, y in points]
    return SphereCalibration(names, Circle(50, 50, 40), highlights, np.zeros((100, 110), dtype=np.float32))


def test_each_light_is_labelled_at_its_highlight_and_at_its_direction():
    sphere, hemisphere = calibration_figure(calibration(["a.png", "b$.png", "c$.png"])).axes
    for axes in (sphere, hemisphere):
        assert [text.get_text() for text in axes.texts] == ["a", "b$", "c$"]
    assert sphere.texts[0].xy == pytest.approx((66, 50))
    angle, from_axis = hemisphere.texts[0].xy
    # The normal of a highlight at 0.4 radii from the centre is arcsin 0.4 from the camera's axis, its light twice that.
    assert (angle, from_axis) == pytest.approx((0, 2 * np.degrees(np.arcsin(0.4))))
    assert "circle given: x 50.00, y 50.00, radius 40.00" in sphere.get_title(loc="left")


@pytest.mark.parametrize("names", [[f"{k}.png" for k in range(30)], ["a_rather_long_name.png", "b.png", "c.png"]])
def test_many_or_long_names_are_replaced_by_numbers(names):
    figure = calibration_figure(calibration(names))
    assert [text.get_text() for text in figure.axes[0].texts] == [str(k + 1) for k in range(len(names))]
    assert "order of the rows" in figure.texts[0].get_text()
