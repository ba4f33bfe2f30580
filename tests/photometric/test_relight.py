"""From maps back to pictures."""

import numpy as np
import pytest

from fr_ps.photometric.captures import Capture
from fr_ps.photometric.frame import Frame
from fr_ps.photometric.maps import compute_maps
from fr_ps.photometric.relight import calibrated_pictures, render_lambertian, residual_image
from tests.photometric.surfaces import FOUR, SEVEN, directions, grid, hill, normals, render, sphere


def test_a_surface_is_relit_as_lamberts_law_says() -> None:
    normal, _, _ = sphere(33)
    albedo = np.linspace(0.2, 1, 33 * 33).reshape(33, 33)
    lights = ((80, 10), (0, 0), (-20, -60))  # the first leaves a part in attached shadow
    pictures = render_lambertian(albedo, normal, directions(lights))
    np.testing.assert_allclose(pictures, render(normal, lights, albedo), atol=1e-6)
    assert pictures.dtype == np.float32
    assert (pictures[0] == 0).any()


def test_light_from_a_side_lights_that_side_of_the_picture() -> None:
    normal, _, _ = sphere(32)
    left, right, above, below = render_lambertian(np.ones((32, 32)), normal, directions([(60, 0), (-60, 0), (0, 60), (0, -60)]))
    assert left[:, :16].mean() > 1.5 * left[:, 16:].mean()
    assert right[:, 16:].mean() > 1.5 * right[:, :16].mean()
    assert above[:16].mean() > 1.5 * above[16:].mean()
    assert below[16:].mean() > 1.5 * below[:16].mean()


def capture_of_a_hill(height: int, width: int, intensities: np.ndarray | float = 1.0, ambient: float = 0.0) -> Capture:
    """Pictures of a hill that every light reaches."""
    x, y = grid(height, width)
    albedo = 0.5 + 0.2 * np.sin(x / 5) * np.cos(y / 7)
    scale = np.broadcast_to(intensities, len(SEVEN))
    images = 0.6 * render(normals(hill, x, y), SEVEN, albedo) * scale[:, None, None] + ambient
    return Capture(images.astype(np.float32), directions(SEVEN), intensities=scale.copy())


@pytest.mark.parametrize(
    ("frame", "intensities", "ambient"),
    [
        pytest.param(Frame(30, 30, 60, 60, 0.0, 60), 1.0, 0.0, id="whole"),
        pytest.param(Frame(30, 30, 30, 30, 0.4, 48), 1.0, 0.0, id="rotated"),
        pytest.param(Frame(30, 30, 60, 40, 0.0, 48), 1.0, 0.0, id="stretched"),
        pytest.param(Frame(30, 30, 36, 24, 0.4, 48), np.array([1, 0.8, 1.2, 1, 0.9, 1.1, 1]), 0.0, id="unequal lights"),
        pytest.param(Frame(30, 30, 60, 60, 0.0, 60), 1.0, 0.05, id="ambient light"),
    ],
)
def test_nothing_is_left_of_a_matte_surface(frame: Frame, intensities: np.ndarray | float, ambient: float) -> None:
    capture = capture_of_a_hill(60, 60, intensities, ambient)
    maps = compute_maps(capture, frame, solver="least_squares", calibrate_ambient=ambient > 0)
    found = np.array(maps.notes["intensities"])
    pictures, lights = calibrated_pictures(capture, frame, found, maps.notes["ambient"])
    residual = residual_image(pictures, lights, maps.albedo, maps.normal, frame.stretch)
    assert residual.dtype == np.float32
    assert residual.max() < 1e-3
    assert pictures.mean() > 0.1
    np.testing.assert_allclose(np.linalg.norm(lights, axis=1), 1)


def test_the_residual_is_the_root_mean_square_over_the_lights() -> None:
    normal, _, _ = sphere(16)
    pictures = render(normal, FOUR)
    pictures[2, 3, 5] += 0.4
    residual = residual_image(pictures, directions(FOUR), np.ones((16, 16)), normal)
    assert residual[3, 5] == pytest.approx(0.4 / np.sqrt(4), abs=1e-6)
    residual[3, 5] = 0
    assert residual.max() < 1e-6
