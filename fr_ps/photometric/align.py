"""Alignment: the frame of the face in a picture, from landmarks, from a table of boxes, or the whole picture."""

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
"""Positions of `photoface.LANDMARKS` in the aligned square, right and down as shares of its side: the mean of the frontal
synthetic faces, made symmetric. Alignment therefore keeps the framing of the built-in faces."""


def align_capture(capture: Capture, folder: Path, align: Align, box: Box | None, *, size: int, fit: Fit) -> tuple[Frame, str]:
    """The frame of one capture, in pixels of its images, and its source: `landmarks`, `boxes`, `mask` or `none`.

    Args:
        capture: one session.
        folder: of the capture, for error messages.
        align: `auto` uses the box if given, else the landmarks if the capture has them, else the whole picture.
        box: of this session, in pixels of the stored pictures.
        size: side of the frame in pixels.
        fit: how a box or picture that is not square becomes square. Not used with landmarks; a mask is not cropped, but padded.

    Raises:
        InputError: what `align` requires is missing or unusable.
    """
    height, width = capture.images.shape[1:]
    if align == "boxes" or (align == "auto" and box is not None):
        if box is None:
            raise InputError(f"{folder}: no row in the table of boxes; add one, or use --align auto")
        _check_box(box, *capture.stored_size, str(folder))
        # A reduction leaves out the last rows and columns of a picture whose sides are no multiples of it.
        limits = (width - 1, height - 1, width, height)
        left, top, right, bottom = (min(edge / capture.reduction, limit) for edge, limit in zip(box, limits, strict=True))
        return fit_frame((left, top, right, bottom), size, fit), "boxes"
    if align == "landmarks" or (align == "auto" and capture.landmarks is not None):
        if capture.landmarks is None:
            raise InputError(f"{folder / LANDMARKS_FILE}: no such file; add the landmarks, or use --align auto")
        try:
            frame = landmark_frame(capture.landmarks, size)
        except ValueError as error:
            raise InputError(f"{folder / LANDMARKS_FILE}: {error}; correct it, or remove it") from None
        if abs(frame.angle) > _MAX_ROTATION:
            rotation = f"alignment would rotate the face by {math.degrees(frame.angle):.0f} degrees"
            raise InputError(f"{folder / LANDMARKS_FILE}: {rotation}; are x and y exchanged? Correct it, or remove it")
        return frame, "landmarks"
    if align == "mask":
        if capture.mask is None:
            raise InputError(f"{folder}: has no mask; add a mask.png, or use --mask auto or another --align")
        return fit_frame(_mask_box(capture.mask), size, "pad" if fit == "crop" else fit), "mask"
    return fit_frame((0, 0, width, height), size, fit), "none"


def _mask_box(mask: np.ndarray) -> Box:
    """The smallest box around the mask (H, W)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def landmark_frame(landmarks: np.ndarray, size: int) -> Frame:
    """The frame whose similarity transform maps the (11, 2) landmarks to `CANONICAL_LANDMARKS` with least squared error.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991. In the plane
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
    """Root mean square distance of the landmarks from their canonical positions, in pixels of the square."""
    errors = (frame.to_source(CANONICAL_LANDMARKS * frame.size) - landmarks) * frame.size / frame.width
    return float(np.sqrt(np.mean(np.sum(errors**2, axis=1))))


def read_boxes(path: Path) -> dict[tuple[str, str], Box]:
    """The box of each (id, session) in a CSV of id, session, left, top, right, bottom: pixels from the top left corner.

    Raises:
        InputError: a missing column, a duplicate session, a cell that is not a number, or a box without area; names the row.
    """
    boxes: dict[tuple[str, str], Box] = {}
    for key, (number, row) in read_session_rows(path, BOX_COLUMNS)[1].items():
        where = f"{path}: row {number}"
        left, top, right, bottom = (parse_number(row[name], f"{where}: {name}", "pixels") for name in BOX_COLUMNS)
        if right - left < 1 or bottom - top < 1:
            raise InputError(f"{where}: the box is {right - left:g} x {bottom - top:g} pixels; right and bottom must be larger")
        boxes[key] = (left, top, right, bottom)
    return boxes


def _check_box(box: Box, height: int, width: int, where: str) -> None:
    """Reject a box that extends beyond a picture of `height` x `width`.

    Raises:
        InputError: the message begins with `where`.
    """
    left, top, right, bottom = box
    if left < 0 or top < 0 or right > width or bottom > height:
        shown = ", ".join(f"{edge:g}" for edge in box)
        raise InputError(f"{where}: the box {shown} extends beyond the picture of {width} x {height}; correct the box")
