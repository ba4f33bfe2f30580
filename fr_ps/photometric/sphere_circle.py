"""The circle of a sphere in a picture: found by its edge, or taken from a mask.

Coordinates of circles: x right and y down in pixels from the picture's top left corner, so that the centre of the first pixel is
(0.5, 0.5).
"""

from dataclasses import dataclass
from itertools import islice

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, gaussian_filter1d, map_coordinates, maximum_filter
from scipy.optimize import least_squares

from fr_ps.errors import InputError

MIN_RADIUS = 10.0
"""Smallest radius in pixels: below it, a shift of one pixel turns a direction by 11 degrees."""
_GIVE = "give the circle with --circle X,Y,RADIUS, or a mask.png"
_SEARCH_SIDE = 192
"""Longer side in pixels of the reduced picture in which circles are searched."""
_MAX_EDGE_PIXELS = 4000
_CANDIDATES = 12
_ANGLES = 720
_SMOOTHING_ALONG = 4.0
"""In angles."""
_MIN_SUPPORT = 0.5
"""Smallest part of the circle along which the strongest edge nearby is the circle."""
_MAX_MASK_DEVIATION = 0.05


@dataclass(frozen=True)
class Circle:
    """A sphere's outline in an orthographic picture.

    Attributes:
        x, y: centre in pixels.
        radius: in pixels.
        source: "found", "mask" or "given".
        residual: root mean square distance in pixels of the outline's points from the circle; None for a given circle.
        support: part of the outline in [0, 1] that was found along the circle; None unless it was found.
    """

    x: float
    y: float
    radius: float
    source: str = "given"
    residual: float | None = None
    support: float | None = None

    def box(self, margin: float = 1.0) -> tuple[slice, slice]:
        """Rows and columns around the circle with `margin` pixels on each side, within a picture of any size."""
        reach = self.radius + margin
        rows, columns = (slice(max(int(c - reach), 0), int(np.ceil(c + reach))) for c in (self.y, self.x))
        return rows, columns


def check_circle(circle: Circle, height: int, width: int, where: str) -> None:
    """Check that a circle lies within a picture.

    Raises:
        InputError: its centre is outside, the border cuts it off, or it is smaller than `MIN_RADIUS`.
    """
    text = f"the circle at x {circle.x:.1f}, y {circle.y:.1f} with radius {circle.radius:.1f}"
    if not (0 <= circle.x <= width and 0 <= circle.y <= height):
        raise InputError(f"{where}: {text} is outside the picture of {width} x {height}; correct it")
    if circle.radius < MIN_RADIUS:
        raise InputError(f"{where}: {text} is too small; expected a radius of at least {MIN_RADIUS:g} pixels; come closer")
    beyond = max(circle.radius - min(circle.x, circle.y, width - circle.x, height - circle.y), 0)
    if beyond > max(0.5, 0.005 * circle.radius):
        cut = f"the border of the picture of {width} x {height} cuts off the sphere"
        raise InputError(f"{where}: {cut}: {text} reaches {beyond:.1f} pixels beyond it; move the camera, or correct the circle")


def circle_of_mask(mask: np.ndarray, where: str) -> Circle:
    """The circle with the centroid and the area of a mask (H, W) of bool.

    Raises:
        InputError: the mask is empty, touches the border, or is not a disc.
    """
    height, width = mask.shape
    rows, columns = np.nonzero(mask)
    if not len(rows):
        raise InputError(f"{where}: empty mask; paint the sphere white, everything else black")
    if min(rows.min(), columns.min()) == 0 or rows.max() == height - 1 or columns.max() == width - 1:
        raise InputError(f"{where}: the mask touches the border, so the sphere is cut off; move the camera")
    x, y, radius = columns.mean() + 0.5, rows.mean() + 0.5, np.sqrt(len(rows) / np.pi)
    disc = np.hypot(*_offsets(height, width, x, y)) < radius
    if np.sum(disc != mask) > _MAX_MASK_DEVIATION * len(rows):
        raise InputError(f"{where}: the mask is not a disc; paint the whole sphere, and only the sphere, white")
    inner = np.zeros_like(mask)
    inner[1:-1, 1:-1] = mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    down, right = (axis[mask & ~inner] for axis in np.broadcast_arrays(*_offsets(height, width, x, y)))
    # The outline passes through the outermost pixels, half a pixel outside their centres.
    residual = float(np.std(np.hypot(down, right)))
    return Circle(float(x), float(y), float(radius), "mask", residual)


def find_circle(picture: np.ndarray, where: str) -> Circle:
    """The circle with the largest part of its outline along edges of a picture (H, W), in which bright spots should be removed.

    Candidates from a Hough transform of a reduced picture, along the gradients of both signs because a mirror is brighter
    than the background on one side and darker on another, are fitted to the edges of the whole picture.

    Raises:
        InputError: no circle found.
    """
    compressed = np.sqrt(np.maximum(picture, 0)).astype(np.float32)  # makes edges in the dark visible
    fitted = [_fit_edges(picture, start) for start in _hough_circles(compressed)]
    found = [circle for circle in fitted if circle is not None and circle.support and circle.support >= _MIN_SUPPORT]
    if not found:
        raise InputError(f"{where}: no sphere found; light its outline or use a plain background, or {_GIVE}")
    # The square root prefers the outline of the sphere to small circles reflected in it.
    return max(found, key=lambda circle: (circle.support or 0) * np.sqrt(circle.radius))


def _offsets(height: int, width: int, x: float, y: float) -> tuple[np.ndarray, np.ndarray]:
    """Distances of the pixels' centres from (x, y): (H, 1) downward and (1, W) to the right."""
    return (np.arange(height) + 0.5 - y)[:, None], (np.arange(width) + 0.5 - x)[None]


def _hough_circles(picture: np.ndarray) -> list[tuple[float, float, float]]:
    """Candidates (x, y, radius) in pixels of `picture`, those with the most edge pixels for their circumference first."""
    height, width = picture.shape
    scale = max(1.0, max(height, width) / _SEARCH_SIDE)
    small_width, small_height = max(round(width / scale), 1), max(round(height / scale), 1)
    small = np.asarray(Image.fromarray(picture).resize((small_width, small_height), Image.Resampling.BOX))
    rows, columns, down, right = _edge_pixels(small)
    smallest = max(MIN_RADIUS / scale, 0.05 * min(small.shape), 4)
    radii = np.arange(smallest, 0.6 * max(small.shape))
    votes = np.zeros((len(radii), small_height, small_width), dtype=np.float32)
    for place, radius in enumerate(radii):
        for sign in (-radius, radius):
            y, x = np.rint(rows + sign * down).astype(int), np.rint(columns + sign * right).astype(int)
            within = (y >= 0) & (y < small_height) & (x >= 0) & (x < small_width)
            flat = np.bincount(y[within] * small_width + x[within], minlength=small_height * small_width)
            votes[place] += flat.reshape(small_height, small_width)
        votes[place] /= 2 * np.pi * radius / np.sqrt(radius)  # the part of the circumference, weighted as in find_circle
    votes = gaussian_filter(votes, 1.5, mode="constant")
    peaks = np.nonzero((votes == maximum_filter(votes, 5)) & (votes > 0))
    order = np.argsort(-votes[peaks], kind="stable")
    across, along = width / small_width, height / small_height
    return [
        ((x + 0.5) * across, (y + 0.5) * along, radii[place] * (across + along) / 2)
        for place, y, x in islice(zip(*(axis[order] for axis in peaks)), _CANDIDATES)
    ]


def _edge_pixels(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and unit gradients (down, right) of the pixels where the gradient is largest across the edge."""
    down: np.ndarray = gaussian_filter(picture, 1.5, order=(1, 0))
    right: np.ndarray = gaussian_filter(picture, 1.5, order=(0, 1))
    size: np.ndarray = np.hypot(down, right)
    unit_down, unit_right = down / np.maximum(size, 1e-12), right / np.maximum(size, 1e-12)
    rows, columns = np.meshgrid(*map(np.arange, picture.shape), indexing="ij")
    beside = [
        map_coordinates(size, [rows + sign * unit_down, columns + sign * unit_right], order=1, mode="nearest") for sign in (-1, 1)
    ]
    # The median is the gradient of noise and of smooth shading.
    edge: np.ndarray = (size >= np.maximum(*beside)) & (size > max(3 * float(np.median(size)), 1e-4))
    strongest: np.ndarray = np.argsort(-size[edge], kind="stable")[:_MAX_EDGE_PIXELS]
    return rows[edge][strongest], columns[edge][strongest], unit_down[edge][strongest], unit_right[edge][strongest]


def _fit_edges(picture: np.ndarray, start: tuple[float, float, float]) -> Circle | None:
    """The circle near `start` along the strongest radial edges; None if the fit leaves the picture or shrinks too far."""
    height, width = picture.shape
    fit = np.array(start)
    for reach in (0.12, 0.06, 0.03):
        radius, weight = _radial_edges(picture, fit, max(reach * fit[2], 3.0))
        if weight.sum() < _MIN_SUPPORT * _ANGLES / 2:
            return None
        points = fit[:2] + radius[:, None] * _directions()

        def distances(circle: np.ndarray, points: np.ndarray = points, weight: np.ndarray = weight) -> np.ndarray:
            distance: np.ndarray = np.hypot(*(points - circle[:2]).T) - circle[2]
            return distance[weight]

        fit = least_squares(distances, fit, loss="cauchy", f_scale=max(0.3, 0.003 * fit[2])).x
        if fit[2] < MIN_RADIUS / 2 or not (0 <= fit[0] <= width and 0 <= fit[1] <= height):
            return None
    radius, weight = _radial_edges(picture, fit, max(0.08 * fit[2], 6.0))
    deviation = radius - fit[2]
    near = weight & (np.abs(deviation) < max(1.0, 0.01 * fit[2]))
    residual = float(np.sqrt(np.mean(deviation[near] ** 2))) if near.any() else np.inf
    return Circle(float(fit[0]), float(fit[1]), float(fit[2]), "found", residual, float(near.mean()))


def _directions() -> np.ndarray:
    """(n, 2) unit vectors (x, y) around the circle."""
    angle = 2 * np.pi * np.arange(_ANGLES) / _ANGLES
    return np.column_stack([np.cos(angle), np.sin(angle)])


def _radial_edges(picture: np.ndarray, circle: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """For each angle, the radius within `reach` pixels of the circle's at which luminance changes most; and whether it is known.

    It is unknown outside the picture, and where luminance does not change.
    """
    height, width = picture.shape
    x, y, radius = circle
    rows, columns = Circle(x, y, radius).box(reach + 8)
    # Little across the outline, where reflections close to it would move it, and more along it.
    smooth = gaussian_filter(picture[rows, columns], max(0.5, radius / 300))
    step = max(0.25, reach / 40)
    radii = radius + np.arange(-reach, reach + step, step)
    across, along = _directions().T
    profile = map_coordinates(
        smooth,
        [y + along[:, None] * radii - 0.5 - rows.start, x + across[:, None] * radii - 0.5 - columns.start],
        order=3,
        mode="nearest",
    )
    slope = np.abs(np.gradient(gaussian_filter1d(profile, _SMOOTHING_ALONG, axis=0, mode="wrap"), axis=1))
    place = slope[:, 1:-1].argmax(axis=1) + 1
    each = np.arange(len(place))
    before, peak, after = (slope[each, place + shift] for shift in (-1, 0, 1))
    curvature = before - 2 * peak + after
    shift = np.where(curvature < 0, 0.5 * (before - after) / np.minimum(curvature, -1e-12), 0).clip(-1, 1)
    found = radii[0] + step * (place + shift)
    px, py = x + across * found, y + along * found
    known = (peak > 1e-4) & (px > 0) & (px < width) & (py > 0) & (py < height)
    return found, known
