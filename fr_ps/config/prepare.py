"""Settings of light to shape."""

from dataclasses import dataclass
from typing import Literal

from fr_ps.config.checks import MAX_PROCESSES, MAX_WEIGHT, check_range, check_setting, check_types
from fr_ps.config.names import Align, Fit, Integration, LightAxes, Solver


@dataclass(frozen=True)
class PrepareConfig:
    """From raw captures to a prepared data set.

    Args:
        captures: folder of {id}/{session}/ with images and lights.csv, or Photoface's root folder as it is distributed.
        out: folder to write; what it holds already from the same pictures and settings is kept.
        labels: CSV of id, session, Gender, Spectacles, Facial_Hair, Pose, Emotion; without it, attributes are those of
            Photoface's metadataII.txt where there is one, else unknown.
        size: side of the square maps in pixels.
        align: which part of a picture the maps show. landmarks: the face, brought to its canonical place by the 11 points
            of metadata.txt; boxes: that of the table of boxes; none: the whole picture; auto: a box where there is one,
            else landmarks where there are any, else the whole picture.
        boxes: CSV of id, session, left, top, right, bottom in pixels.
        fit: of a box or picture that is not square: crop takes its central square, pad all of it with a margin, stretch
            all of it with the normals corrected for it.
        solver: least_squares; robust gives shadows, highlights and saturated pixels less weight; integrable also lets
            neighbouring pixels agree on one surface (prepare then takes about twice as long).
        prior: mean face normals that integrable leans on a little, a .npy as fr-ps data mean writes it.
        integration: of normals to depth.
        estimate_intensities: whether the lights' relative intensities are estimated from the pictures (four lights and more).
        estimate_ambient: whether light that is always there is estimated and subtracted (lights that allow it).
        light_axes: to which axes the first and second component go that a LightSource.m's zenith and azimuth give;
            "-xy" negates x, "yx" swaps the two.
        white_level: stored value at which the camera saturates, as 4095 of 12 bits in files of 16; else the largest value of
            the files' depth. Albedo is relative to it.
        on_bad: fail at the first bad session, or skip it and list it.
        workers: processes.
        max_condition: largest condition number of a session's light directions.
        overwrite: whether a labels.csv or prepare.csv in the output may be replaced that fr-ps did not write, or that was
            changed since.
    """

    captures: str
    out: str
    labels: str | None = None
    size: int = 112
    align: Align = "auto"
    boxes: str | None = None
    fit: Fit = "crop"
    solver: Solver = "robust"
    prior: str | None = None
    integration: Integration = "poisson"
    estimate_intensities: bool = False
    estimate_ambient: bool = False
    light_axes: LightAxes = "xy"
    white_level: int | None = None
    on_bad: Literal["fail", "skip"] = "fail"
    workers: int = 1
    max_condition: float = 10.0
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_types(self, "")
        check_range(self, "", 8, 4096, "size")
        check_range(self, "", 1, MAX_PROCESSES, "workers")
        white = self.white_level
        known = white is None or (type(white) is int and 1 <= white <= 65535)
        check_setting(known, "white_level", white, "1 to 65535, a value that the pictures store")
        check_setting(
            1 < self.max_condition <= MAX_WEIGHT, "max_condition", self.max_condition, f"above 1, at most {MAX_WEIGHT:g}"
        )
        check_setting(self.align != "boxes" or bool(self.boxes), "boxes", self.boxes, "a CSV of boxes, as align is boxes")
        asked = self.align in ("boxes", "auto")
        check_setting(not self.boxes or asked, "align", self.align, "boxes or auto, as a table of boxes is given")
        check_setting(
            not self.prior or self.solver == "integrable", "solver", self.solver, "integrable, the one that takes a prior"
        )
