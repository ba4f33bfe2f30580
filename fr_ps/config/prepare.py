"""Settings of `prepare`: raw captures to maps."""

from dataclasses import dataclass
from typing import Literal

from fr_ps.config.checks import MAX_PROCESSES, MAX_WEIGHT, check_range, check_setting, check_types
from fr_ps.config.names import Align, CaptureLayout, Fit, Integration, LightAxes, MaskSource, Solver

GAMMA_RANGE = (0.2, 5.0)
_MAX_WHITE_LEVEL = 1e9


@dataclass(frozen=True)
class PrepareConfig:
    """From raw captures to a prepared data set.

    Args:
        captures: folder of {id}/{session}/ with images and their lights, as plain folders with lights.csv, Photoface, DiLiGenT
            or a light dome's .lp file; a file of lights may stand above the sessions that share it. A folder {id} with images
            is a session itself.
        out: output folder; sessions in it that were prepared from the same images with the same settings are not redone.
        labels: CSV of id, session, Gender, Spectacles, Facial_Hair, Pose, Emotion; default: the attributes of Photoface's
            metadataII.txt, else empty labels.
        size: side of the square maps in pixels.
        layout: of the captures. auto: detected; plain: lights.csv; photoface: LightSource.m; diligent: light_directions.txt
            and filenames.txt; lp: a .lp file.
        mask: pixels that show the face or object. file: mask.png or the images' alpha channel, where a session has them;
            auto: the largest bright object in front of a dark background; none: all. Maps outside are albedo 0, normal (0, 0,
            1) and confidence 0.
        align: region of the image that the maps show. landmarks: the face, aligned by the 11 points of metadata.txt;
            boxes: the session's box in `boxes`; mask: the square around the mask; none: the whole image; auto: the first of
            box, landmarks and whole image that the session has.
        boxes: CSV of id, session, left, top, right, bottom in pixels.
        fit: for a region that is not square: crop: its central square; pad: the whole region with a margin; stretch: the
            whole region, with corrected normals.
        solver: least_squares; robust: reduces the weight of shadows, highlights and saturated pixels; integrable: also
            enforces an integrable surface (takes about twice as long).
        prior: mean face normals (.npy from fr-ps data mean), a weak prior of the solver integrable.
        integration: method from normals to depth.
        estimate_intensities: estimate the relative light intensities from the images; needs four or more lights.
        estimate_ambient: estimate and subtract ambient light, if the light directions allow it.
        light_axes: image axes of the x and y components of the light directions in LightSource.m files; "-xy" negates x,
            "yx" swaps both.
        white_level: stored value at which the camera saturates, as 4095 for 12 bits in 16-bit files; default: as the file
            states, else the largest value of its format; none for files of floats. Albedo is relative to it.
        black_level: stored value without light, which is subtracted.
        response: how stored values grow with the light. linear; srgb; or a gamma as 2.2: the light is the stored value to that
            power.
        ambient: name of an image in each session, taken without the lights, which is subtracted.
        on_bad: fail: stop at the first bad session; skip: skip it and list it.
        workers: number of processes.
        max_condition: largest condition number of the light directions of a session.
        overwrite: replace a labels.csv or prepare.csv in `out` that fr-ps did not write, or that was changed since.
    """

    captures: str
    out: str
    labels: str | None = None
    layout: CaptureLayout | Literal["auto"] = "auto"
    mask: MaskSource = "file"
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
    white_level: int | float | None = None
    black_level: int = 0
    response: str = "linear"
    ambient: str | None = None
    on_bad: Literal["fail", "skip"] = "fail"
    workers: int = 1
    max_condition: float = 10.0
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_types(self, "")
        check_range(self, "", 8, 4096, "size")
        check_range(self, "", 1, MAX_PROCESSES, "workers")
        level = self.white_level
        valid = level is None or (type(level) in (int, float) and 0 < level <= _MAX_WHITE_LEVEL)
        check_setting(valid, "white_level", level, f"a stored value above 0, at most {_MAX_WHITE_LEVEL:g}")
        check_range(self, "", 0, 65534, "black_level")
        _check_response(self.response)
        simple = self.ambient is None or (self.ambient and not {*"/\\"} & {*self.ambient} and self.ambient not in (".", ".."))
        check_setting(bool(simple), "ambient", self.ambient, "the name of a file in the folder of each session")
        check_setting(
            1 < self.max_condition <= MAX_WEIGHT, "max_condition", self.max_condition, f"above 1, at most {MAX_WEIGHT:g}"
        )
        check_setting(self.align != "boxes" or bool(self.boxes), "boxes", self.boxes, "a CSV file, as align is boxes")
        uses_boxes = self.align in ("boxes", "auto")
        check_setting(not self.boxes or uses_boxes, "align", self.align, "boxes or auto, as boxes is set")
        check_setting(not self.prior or self.solver == "integrable", "solver", self.solver, "integrable, as prior is set")


def _check_response(response: str) -> None:
    low, high = GAMMA_RANGE
    try:
        valid = response in ("linear", "srgb") or low <= float(response) <= high
    except ValueError:
        valid = False
    check_setting(valid, "response", response, f"linear, srgb, or a gamma from {low:g} to {high:g}")
