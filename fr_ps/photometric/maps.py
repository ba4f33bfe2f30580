"""One session from pictures to maps: solve, bring to size, integrate."""

from dataclasses import dataclass

import numpy as np

from fr_ps.photometric.captures import Capture
from fr_ps.photometric.fit import Fit, frame, pad_square, resample, stretch_normals
from fr_ps.photometric.integrate import poisson
from fr_ps.photometric.solve import least_squares, split

SOLVERS = {"least_squares": least_squares}


@dataclass(frozen=True)
class Maps:
    """What one session's light tells, each float32.

    Attributes:
        albedo: (H, W), at least 0, relative to the lights' intensity.
        normal: (H, W, 3) unit vectors, x right, y up, z toward the camera.
        depth: (H, W) in pixels of these maps, zero mean, growing toward the camera.
    """

    albedo: np.ndarray
    normal: np.ndarray
    depth: np.ndarray


def compute_maps(capture: Capture, *, size: int, fit: Fit, solver: str) -> Maps:
    """The maps of one capture in a square of `size` pixels.

    Albedo-scaled normals are what is averaged when pixels merge: for least squares that is the same as averaging the
    pictures first. Depth is integrated at the final size, so its unit is the final pixel. With `pad`, the margin has
    albedo 0, normals toward the camera, and the depth of the nearest pixel.
    """
    scaled = SOLVERS[solver](capture.images, capture.lights)
    to = frame(scaled.shape[1], scaled.shape[2], size, fit)
    albedo, normals = split(resample(scaled, to))
    normals = stretch_normals(normals, to)
    depth = pad_square(poisson(normals), size, "edge")
    padded = [pad_square(plane, size, "constant") for plane in normals]
    padded[2] += (padded[0] == 0) & (padded[1] == 0) & (padded[2] == 0)
    normal = np.ascontiguousarray(np.stack(padded, axis=-1), dtype=np.float32)
    return Maps(pad_square(albedo, size, "constant").astype(np.float32), normal, depth - depth.mean())
