"""The picture of a light calibration: the sphere with its highlights, and the directions on the hemisphere."""

from pathlib import PurePath

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle as CirclePatch

from fr_ps.photometric.sphere import SphereCalibration
from fr_ps.report.figures import empty_figure

_MAX_NAMES, _MAX_LETTERS = 24, 12
_COLOR = "tab:orange"
_MAX_SIDE = 800
"""Pixels of the drawn part of the picture."""


def calibration_figure(calibration: SphereCalibration) -> Figure:
    """Left: the brightest value of each pixel over all pictures, with the circle and each highlight. Right: the lights as the
    camera sees them, on a hemisphere whose rim is at 90 degrees from the camera's axis.

    Labels are the names of the pictures, or their numbers in the order of `lights.csv` where names are many or long.
    """
    labels = [PurePath(name).stem for name in calibration.names]
    numbered = len(labels) > _MAX_NAMES or max(map(len, labels)) > _MAX_LETTERS
    if numbered:
        labels = [str(number) for number in range(1, len(labels) + 1)]
    figure = empty_figure(11, 5.6)
    _draw_sphere(figure.add_axes((0.01, 0.03, 0.46, 0.87)), calibration, labels)
    _draw_hemisphere(figure.add_axes((0.54, 0.05, 0.41, 0.82), projection="polar"), calibration, labels)
    if numbered:
        figure.text(0.5, 0.01, "numbers: order of the rows in lights.csv", ha="center", fontsize=9)
    return figure


def _draw_sphere(axes: Axes, calibration: SphereCalibration, labels: list[str]) -> None:
    circle = calibration.circle
    rows, columns = circle.box(0.25 * circle.radius)
    part = calibration.brightest[rows, columns]
    height, width = part.shape
    step = max(max(part.shape) // _MAX_SIDE, 1)
    extent = (columns.start, columns.start + width, rows.start + height, rows.start)
    # The square root makes the outline of a dark sphere visible.
    axes.imshow(np.sqrt(part[::step, ::step]), cmap="gray", vmin=0, vmax=1, extent=extent)
    axes.add_patch(CirclePatch((circle.x, circle.y), circle.radius, fill=False, color="tab:cyan", linewidth=1.2))
    axes.plot(circle.x, circle.y, "+", color="tab:cyan", markersize=9)
    for highlight, text in zip(calibration.highlights, labels):
        axes.plot(highlight.x, highlight.y, "o", color=_COLOR, markersize=13, fillstyle="none")
        _annotate(axes, text, (highlight.x, highlight.y), _COLOR)
    axes.set_axis_off()
    axes.set_title(f"{circle_text(calibration)}", fontsize=10)


def _draw_hemisphere(axes: Axes, calibration: SphereCalibration, labels: list[str]) -> None:
    x, y, z = calibration.lights.T
    angle, from_axis = np.arctan2(y, x), np.degrees(np.arccos(np.clip(z, -1, 1)))
    axes.set_ylim(0, 90)
    axes.set_yticks([30, 60, 90], ["30°", "60°", "90°"], fontsize=8, color="gray")
    axes.set_xticks(np.radians([0, 90, 180, 270]), ["right", "up", "left", "down"], fontsize=9)
    axes.scatter(angle, from_axis, color=_COLOR, zorder=3, s=28)
    for place, text in zip(zip(angle, from_axis), labels):
        _annotate(axes, text, place, "black")
    axes.set_title(f"Directions of {len(labels)} lights, angle from the camera's axis", fontsize=10)


def circle_text(calibration: SphereCalibration) -> str:
    """The circle in words."""
    circle = calibration.circle
    how = {"found": "found", "mask": "from mask.png", "given": "given"}[circle.source]
    return f"circle {how}: x {circle.x:.2f}, y {circle.y:.2f}, radius {circle.radius:.2f} pixels"


def _annotate(axes: Axes, text: str, place: tuple[float, float], color: str) -> None:
    axes.annotate(text, place, xytext=(7, 6), textcoords="offset points", fontsize=8, color=color)
