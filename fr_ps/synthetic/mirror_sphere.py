"""Synthetic pictures of a mirror sphere in a dark room, one for each light, as a truth for `fr-ps calibrate`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from fr_ps.photometric.lights import light_directions

BALL_ANGLES = ((0, 10), (30, 40), (-35, 35), (50, 0), (-50, -10), (15, -35), (-20, -45), (65, 30))
"""Azimuth and elevation of the lights of `write_mirror_sphere`, in degrees."""
_SUBPIXELS = 6


def render_mirror_sphere(
    lights: np.ndarray,
    *,
    size: tuple[int, int],
    centre: tuple[float, float],
    radius: float,
    light_radius: float = 2.0,
    luminance: float = 1.0,
    blur: float = 0.5,
    background: float = 0.25,
    room: float = 0.03,
    reflection: float = 0.0,
    noise: float = 1.5,
    seed: int = 0,
) -> np.ndarray:
    """Pictures (k, H, W) uint8 of a mirror sphere under round lights at infinity, seen by an orthographic camera.

    Each pixel is the mean of 6 x 6 rays. A ray that the sphere reflects is as bright as the light that it meets, else as the
    room, which is brighter toward the top. A ray beside the sphere is as bright as the background.

    Args:
        lights: (k, 3) unit vectors toward the lights.
        size: (H, W) in pixels.
        centre: x right and y down in pixels from the picture's top left corner.
        radius: of the sphere in pixels.
        light_radius: of each light, as an angle in degrees.
        luminance: of each light, 1 being the white level of the pictures.
        blur: standard deviation in pixels of the camera's blur.
        background: luminance beside the sphere, in [0, 1].
        room: mean luminance of the room, in [0, 1].
        reflection: luminance of a second light of the same size, opposite to the first about the camera's axis.
        noise: standard deviation of each pixel, in values of 8 bits.
        seed: of the noise.
    """
    height, width = size
    steps = (np.arange(_SUBPIXELS) + 0.5) / _SUBPIXELS
    x = ((np.arange(width)[:, None] + steps).ravel() - centre[0]) / radius
    y = (centre[1] - (np.arange(height)[:, None] + steps).ravel()) / radius
    squared = y[:, None] ** 2 + x**2
    inside = squared < 1
    z = np.sqrt(1 - squared[inside])
    y_inside, x_inside = (np.broadcast_to(axis, squared.shape)[inside] for axis in (y[:, None], x))
    mirrored = np.stack([2 * z * x_inside, 2 * z * y_inside, 2 * z**2 - 1])  # direction that the ray is reflected to
    rng = np.random.default_rng(seed)
    pictures = []
    for light in lights:
        fine = np.full(squared.shape, background, dtype=np.float32)
        fine[inside] = room * (1 + 0.5 * mirrored[1])
        for direction, brightness in (((-light[0], -light[1], light[2]), reflection), (light, luminance)):
            if brightness:
                hits = np.array(direction) @ mirrored > np.cos(np.radians(light_radius))
                fine[inside] = np.where(hits, brightness, fine[inside])
        fine = gaussian_filter(fine, blur * _SUBPIXELS)
        clean = fine.reshape(height, _SUBPIXELS, width, _SUBPIXELS).mean(axis=(1, 3))
        pictures.append(np.clip(np.rint(255 * clean + rng.normal(0, noise, clean.shape)), 0, 255).astype(np.uint8))
    return np.stack(pictures)


def write_mirror_sphere(folder: Path, angles: Sequence[tuple[float, float]] = BALL_ANGLES) -> None:
    """Write pictures of a mirror sphere, `im0.png` .., under lights of these azimuths and elevations (degrees)."""
    folder.mkdir(parents=True, exist_ok=True)
    lights = light_directions(angles)
    for k, image in enumerate(render_mirror_sphere(lights, size=(240, 320), centre=(168.3, 117.6), radius=80.4)):
        Image.fromarray(image).save(folder / f"im{k}.png")
