"""Which part of a picture is the face: from landmarks, from a table of boxes, or all of it."""

import math
from pathlib import Path

import numpy as np

from fr_ps.config import Align, Fit
from fr_ps.errors import InputError
from fr_ps.photometric.captures import Capture
from fr_ps.photometric.frame import Box, Frame, fit_frame
from fr_ps.photometric.lights import parse_number
from fr_ps.photometric.photoface import LANDMARKS_FILE
from fr_ps.tables import read_session_rows

BOX_COLUMNS = ("left", "top", "right", "bottom")
_MAX_ROTATION = math.radians(45)
CANONICAL_LANDMARKS = np.array(
    [
        (0.23, 0.30),
        (0.37, 0.30),
        (0.50, 0.09),
        (0.63, 0.30),
        (0.77, 0.30),
        (0.39, 0.56),
        (0.50, 0.57),
        (0.61, 0.56),
        (0.37, 0.76),
        (0.63, 0.76),
        (0.50, 0.945),
    ]
)
"""Where `photoface.LANDMARKS` lie in the aligned square, right and down as shares of its side: the mean of the frontal
synthetic faces, made symmetric. So the built-in faces, aligned, are framed as they are without."""


def align_capture(capture: Capture, folder: Path, align: Align, box: Box | None, *, size: int, fit: Fit) -> tuple[Frame, str]:
    """The frame of one capture, and by what it was found: `landmarks`, `boxes` or `none`.

    Args:
        capture: of one session.
        folder: where it lies.
        align: `auto` takes a box where one is given, else landmarks where the capture has them, else the whole picture.
        box: of this session.
        size: of the frame.
        fit: how a box or picture that is not square becomes one; landmarks say all by themselves.

    Raises:
        InputError: what `align` demands is not there, or cannot be used.
    """
    height, width = capture.images.shape[1:]
    if align == "boxes" or (align == "auto" and box is not None):
        if box is None:
            raise InputError(f"{folder}: no row in the table of boxes; add one, or use --align auto")
        return fit_frame(check_box(box, height, width, str(folder)), size, fit), "boxes"
    if align == "landmarks" or (align == "auto" and capture.landmarks is not None):
        if capture.landmarks is None:
            raise InputError(f"{folder / LANDMARKS_FILE}: no such file; add the landmarks, or use --align auto")
        try:
            to = landmark_frame(capture.landmarks, size)
        except ValueError as error:
            raise InputError(f"{folder / LANDMARKS_FILE}: {error}; correct it, or remove it") from None
        if abs(to.angle) > _MAX_ROTATION:
            turned = f"the face would turn by {math.degrees(to.angle):.0f} degrees"
            raise InputError(f"{folder / LANDMARKS_FILE}: {turned}; are x and y exchanged? Correct it, or remove it")
        return to, "landmarks"
    return fit_frame((0, 0, width, height), size, fit), "none"


def landmark_frame(landmarks: np.ndarray, size: int) -> Frame:
    """The frame whose similarity brings the (11, 2) landmarks nearest, in least squares, to `CANONICAL`.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991; in the plane
    and without reflection it is a regression of complex numbers.

    Raises:
        ValueError: the landmarks are one point.
    """
    source, target = (points @ np.array([1, 1j]) for points in (landmarks, CANONICAL_LANDMARKS))
    spread = source - source.mean()
    power = float(np.sum(np.abs(spread) ** 2))
    if power < 1e-9:
        raise ValueError("the landmarks are one point")
    factor = complex(np.sum(np.conj(spread) * (target - target.mean())) / power)
    middle = source.mean() + (0.5 + 0.5j - target.mean()) / factor
    side = 1 / abs(factor)
    # The picture's y points down, where a positive angle is clockwise.
    return Frame(middle.real, middle.imag, side, side, -math.atan2(factor.imag, factor.real), size)


def landmark_error(landmarks: np.ndarray, frame: Frame) -> float:
    """Root mean square distance in the square, in its pixels, of the landmarks from their canonical places."""
    errors = (frame.to_source(CANONICAL_LANDMARKS * frame.size) - landmarks) * frame.size / frame.width
    return float(np.sqrt(np.mean(np.sum(errors**2, axis=1))))


def read_boxes(path: Path) -> dict[tuple[str, str], Box]:
    """The box of each (id, session) in a CSV of id, session, left, top, right, bottom: pixels from the top left corner.

    Raises:
        InputError: a missing column, a session that stands twice, no number, or a box without area; names the row.
    """
    boxes: dict[tuple[str, str], Box] = {}
    for key, (number, row) in read_session_rows(path, BOX_COLUMNS)[1].items():
        where = f"{path}: row {number}"
        left, top, right, bottom = (parse_number(row[name], f"{where}: {name}", "pixels") for name in BOX_COLUMNS)
        if right - left < 1 or bottom - top < 1:
            raise InputError(f"{where}: the box is {right - left:g} x {bottom - top:g} pixels; right and bottom must be larger")
        boxes[key] = (left, top, right, bottom)
    return boxes


def check_box(box: Box, height: int, width: int, where: str) -> Box:
    """`box` if it lies in a picture of `height` x `width`.

    Raises:
        InputError: it does not; names `where` it stands.
    """
    left, top, right, bottom = box
    if left < 0 or top < 0 or right > width or bottom > height:
        shown = ", ".join(f"{edge:g}" for edge in box)
        raise InputError(f"{where}: the box {shown} leaves the picture, which is {width} x {height}; it must lie inside")
    return box
