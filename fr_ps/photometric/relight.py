"""From maps back to pictures: the surface under other lights, and what the maps leave unexplained of the recorded pictures."""

import numpy as np

from fr_ps.photometric.captures import Capture
from fr_ps.photometric.frame import Frame, rotate_in_plane, warp, warp_inside


def render_lambertian(albedo: np.ndarray, normal: np.ndarray, lights: np.ndarray) -> np.ndarray:
    """albedo * max(0, n . l): a matte surface with attached shadows. It casts no shadows and has no highlights.

    Args:
        albedo: (H, W).
        normal: (H, W, 3) unit vectors, x right, y up, z toward the camera.
        lights: (k, 3) vectors toward the lights.

    Returns:
        (k, H, W) float32.
    """
    return (albedo * np.maximum(np.einsum("hwc,kc->khw", normal, lights), 0)).astype(np.float32)


def calibrated_pictures(capture: Capture, frame: Frame, intensities: np.ndarray, ambient: float) -> tuple[np.ndarray, np.ndarray]:
    """The pictures of a capture as its maps were solved from them, and their lights in the axes of the square.

    Args:
        capture: as recorded.
        frame: the part of the pictures that the maps show.
        intensities: (k,) relative intensities of the lights.
        ambient: light that every pixel of every picture contains.

    Returns:
        (k, size, size) float32 pictures under lights of equal intensity, and (k, 3) unit vectors toward the lights.
    """
    warped = warp(capture.images, frame) if capture.mask is None else warp_inside(capture.images, capture.mask, frame)[0]
    pictures = np.maximum(warped - ambient, 0) / np.asarray(intensities)[:, None, None]
    return pictures.astype(np.float32), rotate_in_plane(capture.lights, frame.angle)


def residual_image(
    pictures: np.ndarray, lights: np.ndarray, albedo: np.ndarray, normal: np.ndarray, stretch: tuple[float, float] = (1, 1)
) -> np.ndarray:
    """Root mean square over the lights of the recorded minus the rendered picture, in every pixel.

    Args:
        pictures: (k, H, W) from `calibrated_pictures`, with their (k, 3) `lights`.
        albedo: (H, W).
        normal: (H, W, 3) unit vectors.
        stretch: of the frame. With S = diag(s_x, s_y, 1), the maps are normalise(S^-1 n) and the albedo of the normals n of
            the surface as it was recorded; see `compute_maps`.

    Returns:
        (H, W) float32 in the unit of the pictures.
    """
    axes = np.array([*stretch, 1.0])
    recorded_scale = np.linalg.norm(normal * axes, axis=-1)
    rendered = render_lambertian(albedo / recorded_scale, normal, lights * axes)
    return np.sqrt(np.mean((pictures - rendered) ** 2, axis=0))
