"""One session from pictures to maps: resample the pictures, solve, integrate."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fr_ps.config import Integration, Solver
from fr_ps.errors import InputError
from fr_ps.photometric.calibrate import calibrate_images
from fr_ps.photometric.captures import Capture
from fr_ps.photometric.frame import Frame, inside_mask, rotate_in_plane, warp, warp_inside
from fr_ps.photometric.integrate import integrate_normals
from fr_ps.photometric.quality import convexity, session_quality, twist_agreement
from fr_ps.photometric.robust import confidence, observation_weights, solve_integrable
from fr_ps.photometric.solve import least_squares, split_albedo, weighted_least_squares
from fr_ps.photometric.standard_error import normal_standard_error


@dataclass(frozen=True)
class SurfaceMaps:
    """The maps of one session, each float32.

    Attributes:
        albedo: (H, W), at least 0, relative to the lights' intensity.
        normal: (H, W, 3) unit vectors, x right, y up, z toward the camera.
        depth: (H, W) in pixels of these maps, zero mean, growing toward the camera.
        confidence: (H, W) in [0, 1]: the variance of the normal if all pictures had weight 1, over that with their weights;
            low in shadows, highlights and saturation; 0 outside the picture or mask.
        quality: the measures of `session_quality`.
        notes: the intensities and ambient light that were used; the share of pixels outside the picture or mask; convexity and
            twist agreement of the normals; the median of `normal_error`, where there is one.
        normal_error: (H, W), standard error of the normal in degrees by `normal_standard_error`, of the fit with the weights of
            the solver and without a prior; NaN where albedo is 0. None with fewer than five lights.
        pictures: (k, H, W), from which the maps were solved, under lights of equal intensity.
        lights: (k, 3) vectors toward these lights, in the axes of the maps.
    """

    albedo: np.ndarray
    normal: np.ndarray
    depth: np.ndarray
    confidence: np.ndarray
    quality: dict[str, float]
    notes: dict[str, Any]
    normal_error: np.ndarray | None = None
    pictures: np.ndarray | None = None
    lights: np.ndarray | None = None


class Surface(NamedTuple):
    """The solution of `solve_surface`.

    Attributes:
        albedo: (H, W).
        normals: (3, H, W) unit vectors.
        scaled: (3, H, W), the solver's vectors before `split_albedo`: albedo times normal where `stretch` is 1.
        variance: (H, W), of `weighted_least_squares` with `observation_weights`, whatever the solver.
        weights: (k, H, W), 1 for `least_squares`, else `observation_weights`.
    """

    albedo: np.ndarray
    normals: np.ndarray
    scaled: np.ndarray
    variance: np.ndarray
    weights: np.ndarray


def solve_surface(
    images: np.ndarray,
    saturated: np.ndarray,
    lights: np.ndarray,
    mask: np.ndarray,
    stretch: np.ndarray,
    solver: Solver,
    prior: np.ndarray | None = None,
) -> Surface:
    """Albedo and normals of one session.

    Args:
        images: (k, H, W) under lights of equal intensity.
        saturated: (k, H, W) in [0, 1].
        lights: (k, 3), in the axes of the square.
        mask: (H, W) bool: elsewhere the albedo is 0 and the normal (0, 0, 1).
        stretch: (3,), see `split_albedo`.
        solver: `least_squares`, `robust`, or `integrable`.
        prior: (3, H, W) mean normals for `integrable`; see `solve_integrable`.
    """
    weights = observation_weights(images, saturated, lights)
    scaled, variance = weighted_least_squares(images, lights, weights)
    if solver == "least_squares":
        scaled = least_squares(images, lights)
    elif solver == "integrable":
        scaled = solve_integrable(images, lights, weights, mask, prior)
    albedo, normals = split_albedo(scaled * mask, stretch)
    return Surface(albedo, normals, scaled * mask, variance, np.ones_like(weights) if solver == "least_squares" else weights)


def compute_maps(
    capture: Capture,
    frame: Frame,
    *,
    solver: Solver = "robust",
    integration: Integration = "poisson",
    prior: np.ndarray | None = None,
    calibrate_intensities: bool = False,
    calibrate_ambient: bool = False,
) -> SurfaceMaps:
    """The maps of one capture in the square `frame`.

    The pictures are resampled first. With least squares that equals resampling albedo-scaled normals; there are fewer
    pixels, and all that follows is in the axes of the square (the lights rotate with it). Depth is integrated in the
    square, so its unit is a pixel of the square. Outside the picture or the capture's mask, albedo is 0, the normal points
    toward the camera, and depth is that of the nearest pixel inside.

    Args:
        capture: the pictures and lights.
        frame: part of the pictures to use, and side of the maps.
        solver: `least_squares`, `robust`, or `integrable`.
        integration: method from normals to depth.
        prior: (size, size, 3) mean normals of many faces for `integrable`; see `solve_integrable`.
        calibrate_intensities: whether to estimate the lights' intensities.
        calibrate_ambient: whether to estimate and subtract ambient light.

    Raises:
        InputError: intensities or ambient light that cannot be estimated, or no pixel to solve.
    """
    mask = inside_mask(frame, *capture.images.shape[1:])
    images = warp(capture.images, frame)
    if capture.mask is not None:
        images, covered = warp_inside(capture.images, capture.mask, frame)
        mask &= covered
    saturated = np.zeros((len(capture.images), frame.size, frame.size), dtype=np.float32)
    clipped = capture.saturated.reshape(len(images), -1).any(axis=1)
    if clipped.any():
        saturated[clipped] = warp(capture.saturated[clipped], frame) * mask
    if not mask.any():
        raise InputError("no pixel of the frame is inside both the picture and the mask; check the mask and the alignment")
    # With S = diag(s_x, s_y, 1) and g the albedo-scaled normal, l . g = (S l) . (S^-1 g), and S^-1 g is along the normal of
    # the stretched surface. Hence all solvers work in the axes of the square.
    stretch = np.array([*frame.stretch, 1.0])
    lights = rotate_in_plane(capture.lights, frame.angle) * stretch

    images, intensities, ambient = calibrate_images(
        images,
        saturated,
        lights,
        capture.intensities,
        calibrate_intensities=calibrate_intensities,
        calibrate_ambient=calibrate_ambient,
    )
    prior = None if prior is None else prior.transpose(2, 0, 1)
    albedo, normals, scaled, variance, weights = solve_surface(images, saturated, lights, mask, stretch, solver, prior)
    depth = integrate_normals(normals, mask, integration)
    error = normal_standard_error(images, lights, weights, scaled)
    notes = {
        "intensities": intensities.tolist(),
        "ambient": ambient,
        "masked": float(1 - mask.mean()),
        "convexity": convexity(normals, mask),
        "twist_agreement": twist_agreement(normals, mask),
    }
    if error is not None and np.isfinite(error).any():
        notes["normal_error"] = float(np.nanmedian(error))
    return SurfaceMaps(
        albedo.astype(np.float32),
        np.ascontiguousarray(normals.transpose(1, 2, 0), dtype=np.float32),
        depth,
        (confidence(variance, lights) * mask).astype(np.float32),
        session_quality(images, saturated, lights, normals, depth, mask),
        notes,
        error,
        images,
        lights,
    )
