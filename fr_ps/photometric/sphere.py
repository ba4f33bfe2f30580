"""Light directions from the highlights on a mirror sphere.

The camera is orthographic: every view ray is v = (0, 0, 1). At a highlight the sphere's normal n halves the angle between v and
the light, which is therefore at 2 (n . v) n - v.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_dilation, find_objects, gaussian_filter, label, map_coordinates

from fr_ps.errors import InputError
from fr_ps.photometric.images import is_image_name, read_image
from fr_ps.photometric.layouts.folders import list_names, natural_order
from fr_ps.photometric.lights import INTENSITY_COLUMN, MIN_LIGHTS
from fr_ps.photometric.masks import find_mask_file, is_mask_name, read_mask
from fr_ps.photometric.sphere_circle import Circle, check_circle, circle_of_mask, find_circle
from fr_ps.progress import OnProgress, no_progress
from fr_ps.tables import format_csv

_MIN_CONTRAST = 0.02
"""Smallest luminance of a highlight above the rest of the sphere, 1 being the white level."""
_MIN_CONTRAST_TO_NOISE = 6.0
_REGION_LEVEL = 0.4
"""Luminance above the rest, relative to the highlight's, from which a pixel belongs to the highlight."""
_RIVAL_LEVEL = 0.85
"""A second region whose luminance is above this part of the first's may be the light as well; the larger one then counts."""
_AMBIGUOUS_STRENGTH = 0.75
_MAX_AREA = 0.12
"""Largest part of the sphere that a highlight covers; a glossy or matte sphere has a larger one."""
_POINTS_PER_PIXEL = 5
"""Along each axis: a highlight of a few pixels is interpolated before its centroid is taken."""
_MANY_PIXELS, _MARGIN = 1000, 4
_RIM_MARGIN = 1.5
"""Pixels inside the circle that contain background as well."""


@dataclass(frozen=True)
class Highlight:
    """A light's reflection on the sphere.

    Attributes:
        x, y: centroid, right and down in pixels from the picture's top left corner.
        direction: (3,) unit vector toward the light.
        spread: root mean square angle in degrees between the directions of the highlight's pixels and `direction`.
    """

    x: float
    y: float
    direction: np.ndarray
    spread: float


@dataclass(frozen=True)
class SphereCalibration:
    """What the pictures of a mirror sphere show.

    Attributes:
        names: of the k pictures.
        circle: of the sphere.
        highlights: one of each picture.
        brightest: (H, W) the largest luminance of each pixel over the pictures, which shows all highlights.
    """

    names: list[str]
    circle: Circle
    highlights: list[Highlight]
    brightest: np.ndarray

    @property
    def lights(self) -> np.ndarray:
        """(k, 3) unit vectors toward the lights."""
        return np.stack([highlight.direction for highlight in self.highlights])

    @property
    def condition(self) -> float:
        """Condition number of the lights, which bounds the factor from an error of the pictures to that of the normals."""
        return float(np.linalg.cond(self.lights))

    @property
    def copies(self) -> list[tuple[str, str]]:
        """The names of each picture and an earlier one with the same highlight to the last bit, as only a copy has it."""
        first: dict[tuple[float, float, float], str] = {}
        found = []
        for name, highlight in zip(self.names, self.highlights):
            other = first.setdefault((highlight.x, highlight.y, highlight.spread), name)
            if other != name:
                found.append((name, other))
        return found


def calibrate_sphere(
    folder: Path, circle: Circle | None = None, *, ignored: Collection[str] = (), advance: OnProgress = no_progress
) -> SphereCalibration:
    """The lights of a folder with pictures of a mirror sphere, one picture for each light; camera and sphere do not move.

    Args:
        folder: of the pictures, and optionally `mask.png`, in which the sphere is white.
        circle: of the sphere; None: from the mask, else found in the pictures.
        ignored: names of files that are no pictures of the sphere.
        advance: called after each decoded picture; each picture is decoded twice, so that only three are in memory.

    Raises:
        InputError: fewer than three pictures, an unreadable picture, pictures of different sizes, a circle that is not found or
            not within the pictures, or a picture whose highlight `find_highlight` rejects.
    """
    names = list_pictures(folder, ignored)
    if len(names) < MIN_LIGHTS:
        raise InputError(f"{folder}: {len(names)} pictures; expected one of each light, three or more")
    total, darkest, brightest = _accumulate(folder, names, advance)
    where = "--circle" if circle else str(folder)
    mask_file = find_mask_file(folder, list_names(folder))
    if circle is None and mask_file:
        where = str(folder / mask_file)
        height, width = brightest.shape
        circle = circle_of_mask(read_mask(folder / mask_file, (height, width)), where)
    elif circle is None:
        circle = find_circle((total - brightest) / (len(names) - 1), where)  # highlights are where one picture is brightest
    check_circle(circle, brightest.shape[0], brightest.shape[1], where)
    rows, columns = circle.box()
    highlights = []
    for name in names:
        # What is bright in every picture is a window or a lamp of the room.
        luminance = read_image(folder / name).luminance[rows, columns] - darkest[rows, columns]
        highlights.append(find_highlight(luminance, circle, (rows.start, columns.start), str(folder / name)))
        advance(1)
    return SphereCalibration(names, circle, highlights, brightest)


def list_pictures(folder: Path, ignored: Collection[str] = ()) -> list[str]:
    """The names of the pictures in a folder but those `ignored`, a mask and hidden files; `im2` stands before `im10`.

    Raises:
        InputError: the folder is missing or unreadable.
    """
    try:
        names = list_names(folder)
    except InputError:
        if folder.is_dir():
            raise
        raise InputError(f"{folder}: no such folder; expected a folder of pictures, one of each light") from None
    pictures = [name for name in names if is_image_name(name) and not is_mask_name(name) and name not in ignored]
    return sorted(pictures, key=natural_order)


def read_pictures(folder: Path, names: list[str], advance: OnProgress = no_progress) -> Iterator[np.ndarray]:
    """The luminance (H, W) of each named picture, decoded one at a time.

    Raises:
        InputError: a picture is missing or unreadable, or its size is not that of the first.
    """
    first: tuple[int, ...] | None = None
    for name in names:
        luminance = read_image(folder / name).luminance
        first = first or luminance.shape
        if luminance.shape != first:
            sizes = f"{luminance.shape[1]} x {luminance.shape[0]}, but {names[0]} is {first[1]} x {first[0]}"
            raise InputError(f"{folder / name}: {sizes}; all pictures must have one size; remove those that are not of a light")
        yield luminance
        advance(1)


def lights_csv(calibration: SphereCalibration, intensities: np.ndarray | None = None) -> str:
    """The text of `lights.csv`: image, unit vector toward its light, and (k,) intensities if known."""
    rows = [[name, *(f"{value:.6f}" for value in light)] for name, light in zip(calibration.names, calibration.lights)]
    if intensities is None:
        return format_csv(["image", "x", "y", "z"], rows)
    rows = [[*row, f"{intensity:.5g}"] for row, intensity in zip(rows, intensities)]
    return format_csv(["image", "x", "y", "z", INTENSITY_COLUMN], rows)


def find_highlight(luminance: np.ndarray, circle: Circle, corner: tuple[int, int], where: str) -> Highlight:
    """The brightest region of a mirror sphere, of which the centroid is weighted by luminance.

    Of several regions that are about equally bright, the one with the most light counts: a reflection of the light in the room
    is weaker or smaller.

    Args:
        luminance: (h, w) of a part of the picture that contains the circle, without what all pictures show.
        circle: of the sphere, in the whole picture.
        corner: row and column of the first pixel of `luminance`.
        where: the file, for errors.

    Raises:
        InputError: no highlight, one that is too large for a mirror, two that are about equally strong, or one at the rim,
            which a light behind the camera's plane makes.
    """
    height, width = luminance.shape
    x = ((np.arange(width) + 0.5 + corner[1] - circle.x) / circle.radius)[None]
    y = ((circle.y - corner[0] - np.arange(height) - 0.5) / circle.radius)[:, None]
    inside = np.hypot(x, y) < 1 - _RIM_MARGIN / circle.radius
    smooth = gaussian_filter(luminance, max(1.0, circle.radius / 200))  # a hot pixel is not a highlight
    rest = float(np.median(smooth[inside]))
    noise = 1.4826 * float(np.median(np.abs(smooth[inside] - rest)))
    smooth = np.where(inside, smooth - rest, 0)
    peak = float(smooth.max())
    share = np.sum(smooth > _REGION_LEVEL * peak) / inside.sum()
    if peak > _MIN_CONTRAST and share > _MAX_AREA:
        bright = f"the bright part covers {share:.0%} of the sphere"
        raise InputError(f"{where}: {bright}, too much for the highlight of a mirror; use a polished sphere and a small light")
    if peak < max(_MIN_CONTRAST, _MIN_CONTRAST_TO_NOISE * noise):
        raise InputError(f"{where}: no highlight on the sphere; expose longer, or remove a picture that is not of a light")
    region = _strongest_region(smooth, peak, where)
    rows, columns, weights = _weighted_points(smooth, region, _REGION_LEVEL * peak)
    points = np.array([(columns + corner[1] - circle.x) / circle.radius, (circle.y - corner[0] - rows) / circle.radius])
    centre_x, centre_y = points @ weights
    direction = mirror_direction(centre_x, centre_y)
    at_rim = centre_x**2 + centre_y**2 >= 0.5 or bool(np.hypot(*points).max() > 1 - 2 / circle.radius)
    if at_rim:
        beyond = "its light is at or behind the camera's plane"
        raise InputError(
            f"{where}: the highlight is at the rim of the sphere, so {beyond}; move the light, or remove the picture"
        )
    pixels = mirror_direction(*points)
    angles = np.degrees(np.arccos(np.clip(direction @ pixels, -1, 1)))
    spread = float(np.sqrt(weights @ angles**2))
    return Highlight(circle.x + centre_x * circle.radius, circle.y - centre_y * circle.radius, direction, spread)


def mirror_direction(x: np.ndarray | float, y: np.ndarray | float) -> np.ndarray:
    """(3, ...) unit vectors that a mirror sphere reflects the view ray to where its normals have these components x and y."""
    normal = np.stack([x, y, np.sqrt(np.maximum(1 - np.square(x) - np.square(y), 0))])
    reflected: np.ndarray = 2 * normal[2] * normal
    reflected[2] -= 1
    return reflected


def _accumulate(folder: Path, names: list[str], advance: OnProgress) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sum, minimum and maximum (H, W) over the pictures."""
    pictures = read_pictures(folder, names, advance)
    total = next(pictures)
    darkest, brightest = total.copy(), total.copy()
    for luminance in pictures:
        total += luminance
        np.minimum(darkest, luminance, out=darkest)
        np.maximum(brightest, luminance, out=brightest)
    return total, darkest, brightest


def _strongest_region(smooth: np.ndarray, peak: float, where: str) -> np.ndarray:
    """(h, w) bool: the connected region of the highlight."""
    labels, count = label(smooth > _REGION_LEVEL * peak)
    numbers = np.arange(count + 1)
    tops, strengths = np.zeros(count + 1), np.bincount(labels.ravel(), weights=smooth.ravel(), minlength=count + 1)
    np.maximum.at(tops, labels.ravel(), smooth.ravel())
    rivals = numbers[(tops > _RIVAL_LEVEL * peak) & (numbers > 0)]
    order = rivals[np.argsort(-strengths[rivals])]
    if len(order) > 1 and strengths[order[1]] > _AMBIGUOUS_STRENGTH * strengths[order[0]]:
        raise InputError(f"{where}: two highlights about equally bright; switch on one light a picture, and cover reflections")
    return np.asarray(labels == order[0])


def _weighted_points(smooth: np.ndarray, region: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns of points in a region (h, w), from the corner of its first pixel, and their weights, of sum 1.

    The weight is the luminance above `level`. The points are closer than the pixels, because a highlight may cover only a few
    of these.
    """
    box = find_objects(region.astype(np.uint8))[0]
    rows, columns = (slice(max(part.start - _MARGIN, 0), part.stop + _MARGIN) for part in box)
    smooth, region = smooth[rows, columns], binary_dilation(region[rows, columns])
    step = 1 / _POINTS_PER_PIXEL if region.sum() < _MANY_PIXELS else 1.0
    fine = np.meshgrid(*(np.arange(0, length - 1 + step / 2, step) for length in region.shape), indexing="ij")
    weights = map_coordinates(smooth, fine, order=3, mode="nearest") - level
    near = (weights > 0) & map_coordinates(region, fine, order=0, mode="nearest")
    weights = weights[near] / weights[near].sum()
    return fine[0][near] + rows.start + 0.5, fine[1][near] + columns.start + 0.5, weights
