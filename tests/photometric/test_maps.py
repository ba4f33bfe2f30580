"""From pictures to maps, against surfaces whose truth is known."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fr_ps.photometric.captures import Capture, read_capture
from fr_ps.photometric.maps import Maps, compute_maps
from tests.conftest import WriteCapture
from tests.photometric.surfaces import (
    FOUR,
    SEVEN,
    THREE,
    Angles,
    degrees,
    directions,
    grid,
    normals,
    normals_from_differences,
    render,
    sphere,
    to_8_bit,
)

FITS = ("crop", "pad", "stretch")


def solve(images: np.ndarray, angles: Angles, size: int, fit: str = "crop") -> Maps:
    capture = Capture(images.astype(np.float32), directions(angles))
    return compute_maps(capture, size=size, fit=fit, solver="least_squares")


@pytest.mark.parametrize("angles", [THREE, FOUR, SEVEN])
@pytest.mark.parametrize(("picture", "size"), [(48, 48), (96, 48), (150, 112), (32, 48)])
def test_a_sphere_is_found(tmp_path: Path, write_capture: WriteCapture, angles: Angles, picture: int, size: int) -> None:
    images = render(sphere(picture)[0], angles, 0.9)
    assert images.min() > 0.05, "every pixel is lit by every light"
    write_capture(tmp_path, to_8_bit(images), angles)
    maps = compute_maps(read_capture(tmp_path, 10), size=size, fit="crop", solver="least_squares")

    # The same sphere, seen with pixels of the new size.
    x, y = (axis * picture / size for axis in grid(size, size))
    radius = sphere(picture)[2]
    z = np.sqrt(radius**2 - x**2 - y**2)
    assert degrees(maps.normal, np.stack([x, y, z], axis=-1) / radius).mean() < 0.5
    np.testing.assert_allclose(maps.depth, (z - z.mean()) * size / picture, atol=0.02 * radius * size / picture)
    np.testing.assert_allclose(maps.albedo, 0.9, atol=0.02)
    assert maps.albedo.dtype == maps.normal.dtype == maps.depth.dtype == np.float32


def test_axes_are_x_right_y_up_z_toward_the_camera(tmp_path: Path, write_capture: WriteCapture) -> None:
    images = to_8_bit(render(sphere(48)[0], FOUR))
    for image, (azimuth, elevation) in zip(images, FOUR):
        assert (image[:, :24].mean() > image[:, 24:].mean()) == (azimuth > 0), "a positive azimuth lights the left half"
        assert (image[:24].mean() > image[24:].mean()) == (elevation > 0)
    write_capture(tmp_path, images, FOUR)
    maps = compute_maps(read_capture(tmp_path, 10), size=48, fit="crop", solver="least_squares")
    assert (maps.normal[:22, :, 1] > 0).all()
    assert (maps.normal[26:, :, 1] < 0).all()
    assert (maps.normal[:, :22, 0] < 0).all()
    assert (maps.normal[:, 26:, 0] > 0).all()
    assert (maps.normal[..., 2] > 0).all()
    assert maps.depth[24, 24] > maps.depth[0, 0], "what is nearer has more depth"


def hill(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 2.5 * np.sin(x / 8) * np.cos(y / 10) + 0.15 * x - 0.1 * y


def plane(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 0.3 * x + 0.2 * y


def ellipsoid(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 30 * np.sqrt(1 - (x / 70) ** 2 - (y / 90) ** 2)


@pytest.mark.parametrize("surface", [hill, plane, ellipsoid])
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(("picture", "size"), [((60, 40), 40), ((40, 60), 40), ((60, 40), 56), ((60, 40), 31)])
def test_depth_and_normals_are_of_the_surface_as_it_is_framed(surface, fit: str, picture: tuple[int, int], size: int) -> None:
    height, width = picture
    maps = solve(render(normals(surface, *grid(height, width)), FOUR, 0.8), FOUR, size, fit)
    np.testing.assert_allclose(np.linalg.norm(maps.normal, axis=-1), 1, atol=1e-5)
    assert maps.albedo.shape == maps.depth.shape == (size, size)
    assert abs(maps.depth.mean()) < 1e-3

    # How the fit scales each axis, and which part of the square the picture fills.
    longer = max(height, width)
    scale_x, scale_y, wide, high = {
        "crop": (size / min(picture), size / min(picture), size, size),
        "stretch": (size / width, size / height, size, size),
        "pad": (round(size * width / longer) / width, round(size * height / longer) / height, *[0, 0]),
    }[fit]
    if fit == "pad":
        wide, high = round(size * width / longer), round(size * height / longer)
    common = np.sqrt(scale_x * scale_y)

    def framed(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return common * surface(x / scale_x, y / scale_y)

    top, left = (size - high) // 2, (size - wide) // 2
    inside = (slice(top, top + high), slice(left, left + wide))
    x, y = grid(high, wide)
    depth, normal = maps.depth[inside], maps.normal[inside]
    truth = framed(x, y)
    inner = (slice(2, -2), slice(2, -2))
    assert degrees(normal, normals(framed, x, y))[inner].mean() < 0.5
    np.testing.assert_allclose(depth - depth.mean(), truth - truth.mean(), atol=0.03 * np.ptp(truth))
    assert degrees(normal[1:-1, 1:-1], normals_from_differences(depth)).mean() < 0.5
    np.testing.assert_allclose(maps.albedo[inside], 0.8, atol=0.02)

    margin = np.ones((size, size), dtype=bool)
    margin[inside] = False
    assert (maps.albedo[margin] == 0).all()
    assert (maps.normal[margin] == (0, 0, 1)).all()
    if margin.any() and top:
        np.testing.assert_array_equal(maps.depth[0, left : left + wide], maps.depth[top, left : left + wide])


def test_stretching_follows_the_formula_pixel_by_pixel() -> None:
    tilted = normals(plane, *grid(60, 40))
    maps = solve(render(tilted, FOUR), FOUR, 40, "stretch")
    # x keeps its 40 pixels, y shrinks to two thirds: relative to the geometric mean of both.
    mean = np.sqrt(1 * 40 / 60)
    expected = tilted[0, 0] / (1 / mean, (40 / 60) / mean, 1)
    expected /= np.linalg.norm(expected)
    np.testing.assert_allclose(maps.normal, np.broadcast_to(expected, (40, 40, 3)), atol=1e-5)


def any_capture(seed: int) -> np.ndarray:
    """Pictures that no surface explains, of a size that is not square."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0.2, 1, (4, rng.integers(16, 40), rng.integers(16, 40)))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), fit=st.sampled_from(FITS), factor=st.floats(0.05, 20))
def test_intensity_scales_albedo_alone(seed: int, fit: str, factor: float) -> None:
    images = any_capture(seed)
    one, other = solve(images, FOUR, 24, fit), solve(images * factor, FOUR, 24, fit)
    np.testing.assert_allclose(other.albedo, one.albedo * factor, rtol=1e-4, atol=1e-5 * factor)
    np.testing.assert_allclose(other.normal, one.normal, atol=1e-4)
    np.testing.assert_allclose(other.depth, one.depth, atol=2e-3 * np.ptp(one.depth))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), fit=st.sampled_from(["crop", "stretch"]))
def test_a_mirrored_capture_has_mirrored_maps_and_the_opposite_n_x(seed: int, fit: str) -> None:
    images = any_capture(seed)
    mirrored = [(-azimuth, elevation) for azimuth, elevation in FOUR]
    one, other = solve(images, FOUR, 24, fit), solve(images[:, :, ::-1], mirrored, 24, fit)
    np.testing.assert_allclose(other.albedo, one.albedo[:, ::-1], atol=1e-5)
    np.testing.assert_allclose(other.normal, one.normal[:, ::-1] * (-1, 1, 1), atol=1e-4)
    np.testing.assert_allclose(other.depth, one.depth[:, ::-1], atol=2e-3 * np.ptp(one.depth))


def test_a_black_capture_is_flat_and_dark_not_nan() -> None:
    maps = solve(np.zeros((4, 20, 30)), FOUR, 16, "stretch")
    assert not maps.albedo.any()
    assert not maps.depth.any()
    assert (maps.normal == (0, 0, 1)).all()


@pytest.mark.parametrize("session", ["q1", "q2", "q3", "q6"])
def test_a_real_face_has_its_nose_in_front_and_faces_up_above_its_middle(yale: Path, session: str) -> None:
    people = sorted(folder for folder in (yale / "captures").iterdir() if (folder / session).is_dir())
    noses, tilts, turns = [], [], []
    for folder in people:
        maps = compute_maps(read_capture(folder / session, 10), size=56, fit="crop", solver="least_squares")
        np.testing.assert_allclose(np.linalg.norm(maps.normal, axis=-1), 1, atol=1e-5)
        noses.append(maps.depth[24:40, 22:34].mean())
        ridge = maps.normal[:, 25:31, 1]
        tilts.append(ridge[20:26].mean() - ridge[28:33].mean())
        turns.append(maps.normal[:, -14:, 0].mean() - maps.normal[:, :14, 0].mean())
    assert np.mean(np.array(noses) > 0) > 0.9, "nearer than the mean"
    assert np.mean(np.array(tilts) > 0) > 0.9, "the bridge of the nose faces up, its underside down"
    assert np.mean(np.array(turns) > 0.3) > 0.9, "the cheeks face outward"
