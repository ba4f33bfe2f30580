"""From pictures to maps, compared with the ground truth of known surfaces."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rendering import render as render_shadowed
from scipy.ndimage import binary_erosion

from fr_ps.config import Fit, Solver
from fr_ps.photometric.captures import Capture, read_capture
from fr_ps.photometric.frame import Frame, fit_frame, inside_mask
from fr_ps.photometric.maps import SurfaceMaps, compute_maps
from fr_ps.synthetic.scene import render_session
from tests.conftest import AssertRejected, WriteCapture
from tests.photometric.surfaces import (
    FOUR,
    SEVEN,
    THREE,
    Angles,
    degrees,
    directions,
    grid,
    hill,
    normals,
    normals_from_differences,
    render,
    sphere,
    to_8_bit,
)

FITS = ("crop", "pad", "stretch")
SOLVERS = ("least_squares", "robust", "integrable")


def whole(capture: Capture, size: int, fit: Fit = "crop") -> Frame:
    height, width = capture.images.shape[1:]
    return fit_frame((0, 0, width, height), size, fit)


def solve(images: np.ndarray, angles: Angles, size: int, fit: Fit = "crop", solver: Solver = "least_squares") -> SurfaceMaps:
    capture = Capture(images.astype(np.float32), directions(angles))
    return compute_maps(capture, whole(capture, size, fit), solver=solver)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("angles", [THREE, FOUR, SEVEN])
@pytest.mark.parametrize(("picture", "size"), [(48, 48), (96, 48), (150, 112), (32, 48)])
def test_a_sphere_is_found(
    tmp_path: Path, write_capture: WriteCapture, angles: Angles, picture: int, size: int, solver: Solver
) -> None:
    images = render(sphere(picture)[0], angles, 0.9)
    assert images.min() > 0.05, "every pixel is lit by every light"
    write_capture(tmp_path, to_8_bit(images), angles)
    capture = read_capture(tmp_path)
    maps = compute_maps(capture, whole(capture, size), solver=solver)

    # The same sphere, seen with pixels of the new size.
    x, y = (axis * picture / size for axis in grid(size, size))
    radius = sphere(picture)[2]
    z = np.sqrt(radius**2 - x**2 - y**2)
    assert degrees(maps.normal, np.stack([x, y, z], axis=-1) / radius).mean() < 0.5
    np.testing.assert_allclose(maps.depth, (z - z.mean()) * size / picture, atol=0.02 * radius * size / picture)
    np.testing.assert_allclose(maps.albedo, 0.9, atol=0.02)
    assert {array.dtype for array in (maps.albedo, maps.normal, maps.depth, maps.confidence)} == {np.dtype(np.float32)}
    assert maps.confidence.min() > 0.8
    assert maps.quality["residual"] < 0.01
    assert maps.notes["convexity"][0][0] > 0
    assert maps.notes["twist_agreement"] > 0
    assert (maps.notes["intensities"], maps.notes["ambient"]) == ([1] * len(angles), 0)


def test_axes_are_x_right_y_up_z_toward_the_camera(tmp_path: Path, write_capture: WriteCapture) -> None:
    images = to_8_bit(render(sphere(48)[0], FOUR))
    for image, (azimuth, elevation) in zip(images, FOUR):
        assert (image[:, :24].mean() > image[:, 24:].mean()) == (azimuth > 0), "a positive azimuth lights the left half"
        assert (image[:24].mean() > image[24:].mean()) == (elevation > 0)
    write_capture(tmp_path, images, FOUR)
    capture = read_capture(tmp_path)
    maps = compute_maps(capture, whole(capture, 48))
    assert (maps.normal[:22, :, 1] > 0).all()
    assert (maps.normal[26:, :, 1] < 0).all()
    assert (maps.normal[:, :22, 0] < 0).all()
    assert (maps.normal[:, 26:, 0] > 0).all()
    assert (maps.normal[..., 2] > 0).all()
    assert maps.depth[24, 24] > maps.depth[0, 0], "what is nearer has more depth"


def plane(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 0.3 * x + 0.2 * y


def ellipsoid(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 30 * np.sqrt(1 - (x / 70) ** 2 - (y / 90) ** 2)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("surface", [hill, plane, ellipsoid])
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(("picture", "size"), [((60, 40), 40), ((40, 60), 40), ((60, 40), 56), ((60, 40), 31)])
def test_depth_and_normals_are_of_the_surface_as_it_is_framed(
    surface, fit: Fit, picture: tuple[int, int], size: int, solver: Solver
) -> None:
    height, width = picture
    maps = solve(render(normals(surface, *grid(height, width)), FOUR, 0.8), FOUR, size, fit, solver)
    np.testing.assert_allclose(np.linalg.norm(maps.normal, axis=-1), 1, atol=1e-5)
    assert maps.albedo.shape == maps.depth.shape == maps.confidence.shape == (size, size)
    assert abs(maps.depth.mean()) < 1e-3

    # How the fit scales each axis, and the pixels that lie entirely in the picture.
    scale_x, scale_y = {
        "crop": (size / min(picture), size / min(picture)),
        "pad": (size / max(picture), size / max(picture)),
        "stretch": (size / width, size / height),
    }[fit]
    common = np.sqrt(scale_x * scale_y)
    x, y = grid(size, size)
    filled = (np.abs(x) + 0.5 <= width * scale_x / 2 + 1e-9) & (np.abs(y) + 0.5 <= height * scale_y / 2 + 1e-9)

    def framed(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return common * surface(x / scale_x, y / scale_y)

    # The surface is not defined outside the picture.
    x, y = np.where(filled, x, 0), np.where(filled, y, 0)
    truth = framed(x, y)
    inner = binary_erosion(filled, iterations=2)
    assert degrees(maps.normal, normals(framed, x, y))[inner].mean() < 0.5
    difference = (maps.depth - truth)[filled]
    np.testing.assert_allclose(difference - difference.mean(), 0, atol=0.03 * np.ptp(truth[filled]))
    from_depth = np.pad(normals_from_differences(maps.depth), ((1, 1), (1, 1), (0, 0)))
    assert degrees(maps.normal, from_depth)[inner].mean() < 0.5
    np.testing.assert_allclose(maps.albedo[filled], 0.8, atol=0.03 if solver == "integrable" else 0.02)

    assert (maps.albedo[~filled] == 0).all()
    assert (maps.confidence[~filled] == 0).all()
    assert (maps.normal[~filled] == (0, 0, 1)).all()
    known = np.argwhere(filled)
    for place in np.argwhere(~filled)[::17]:
        away = np.sum((known - place) ** 2, axis=1)
        assert maps.depth[tuple(place)] in maps.depth[tuple(known[away == away.min()].T)]


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


def turned(capture: Capture) -> Capture:
    """The same, rotated by 90 degrees counter-clockwise."""
    x, y, z = capture.lights.T
    images, saturated = (np.rot90(planes, axes=(1, 2)).copy() for planes in (capture.images, capture.saturated))
    return Capture(images, np.column_stack([-y, x, z]), saturated, capture.intensities)


def mirrored(capture: Capture) -> Capture:
    """The same with left and right exchanged."""
    images, saturated = (planes[:, :, ::-1].copy() for planes in (capture.images, capture.saturated))
    return Capture(images, capture.lights * (-1, 1, 1), saturated, capture.intensities)


def random_capture(seed: int, angles: Angles = FOUR) -> Capture:
    """Pictures that no surface explains, not square, some saturated, under lights of different intensity."""
    rng = np.random.default_rng(seed)
    images = rng.uniform(0.1, 1, (len(angles), rng.integers(16, 40), rng.integers(16, 40))).astype(np.float32)
    return Capture(images, directions(angles), images > 0.95, rng.uniform(0.7, 1.4, len(angles)))


def face_capture() -> Capture:
    """A face with cast shadows, highlights and saturation."""
    scene = render_session(0, 1, 0, 48)
    images = render_shadowed(scene.albedo, scene.normal, scene.depth, directions(FOUR), cast_shadows=True, highlights=0.1)
    images /= np.quantile(images, 0.995)
    return Capture(np.minimum(images, 1), directions(FOUR), images >= 1)


seeds = st.integers(0, 2**32 - 1)
solvers = st.sampled_from(SOLVERS)


def assert_same(one: SurfaceMaps, albedo: np.ndarray, normal: np.ndarray, depth: np.ndarray, confidence: np.ndarray) -> None:
    np.testing.assert_allclose(one.albedo, albedo, atol=2e-4)
    np.testing.assert_allclose(one.normal, normal, atol=2e-4)
    np.testing.assert_allclose(one.depth, depth, atol=1e-3 * np.ptp(depth))
    np.testing.assert_allclose(one.confidence, confidence, atol=1e-4)


@given(seed=seeds, fit=st.sampled_from(FITS), solver=solvers, integration=st.sampled_from(["poisson", "frankot_chellappa"]))
def test_a_turned_capture_has_turned_maps(seed: int, fit: Fit, solver: Solver, integration) -> None:
    for capture in (random_capture(seed), random_capture(seed, SEVEN)):
        one = compute_maps(capture, whole(capture, 24, fit), solver=solver, integration=integration)
        other = compute_maps(turned(capture), whole(turned(capture), 24, fit), solver=solver, integration=integration)
        normal = np.rot90(one.normal)[..., [1, 0, 2]] * (-1, 1, 1)
        assert_same(other, np.rot90(one.albedo), normal, np.rot90(one.depth), np.rot90(one.confidence))
        assert other.quality == pytest.approx(one.quality, rel=1e-3, abs=1e-3)


@given(seed=seeds, fit=st.sampled_from(FITS), solver=solvers, integration=st.sampled_from(["poisson", "frankot_chellappa"]))
def test_a_mirrored_capture_has_mirrored_maps_and_the_opposite_n_x(seed: int, fit: Fit, solver: Solver, integration) -> None:
    capture = random_capture(seed)
    frame = whole(capture, 24, fit)
    one = compute_maps(capture, frame, solver=solver, integration=integration)
    other = compute_maps(mirrored(capture), frame, solver=solver, integration=integration)
    assert_same(other, one.albedo[:, ::-1], one.normal[:, ::-1] * (-1, 1, 1), one.depth[:, ::-1], one.confidence[:, ::-1])
    assert other.quality == pytest.approx(one.quality, rel=1e-3, abs=1e-3)
    twice = compute_maps(mirrored(mirrored(capture)), frame, solver=solver, integration=integration)
    for name in ("albedo", "normal", "depth", "confidence"):
        np.testing.assert_array_equal(getattr(twice, name), getattr(one, name))


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_face_turned_or_mirrored_keeps_its_maps_too(solver: Solver) -> None:
    capture = face_capture()
    one = compute_maps(capture, whole(capture, 40), solver=solver)
    other = compute_maps(turned(capture), whole(capture, 40), solver=solver)
    normal = np.rot90(one.normal)[..., [1, 0, 2]] * (-1, 1, 1)
    assert_same(other, np.rot90(one.albedo), normal, np.rot90(one.depth), np.rot90(one.confidence))
    other = compute_maps(mirrored(capture), whole(capture, 40), solver=solver)
    assert_same(other, one.albedo[:, ::-1], one.normal[:, ::-1] * (-1, 1, 1), one.depth[:, ::-1], one.confidence[:, ::-1])


@pytest.mark.parametrize("solver", SOLVERS)
@given(angle=st.floats(-3.1, 3.1))
def test_a_frame_that_rotates_a_capture_gives_the_maps_of_the_rotated_surface(solver: Solver, angle: float) -> None:
    """The rotated surface is rendered again, under rotated lights, so that its pictures are not resampled."""

    def rotated(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        before = (x + 1j * y) * np.exp(-1j * angle)
        return hill(before.real, before.imag)

    lights = directions(FOUR)
    across = (lights[:, 0] + 1j * lights[:, 1]) * np.exp(1j * angle)
    rotated_lights = np.column_stack([across.real, across.imag, lights[:, 2]])
    plain = Capture(render(normals(hill, *grid(64, 64)), FOUR, 0.8).astype(np.float32), lights)
    shading = np.einsum("hwc,kc->khw", normals(rotated, *grid(64, 64)), rotated_lights)
    other = Capture((0.8 * np.maximum(shading, 0)).astype(np.float32), rotated_lights)
    by_frame = compute_maps(plain, Frame(32, 32, 36, 36, angle, 36), solver=solver)
    by_hand = compute_maps(other, Frame(32, 32, 36, 36, 0.0, 36), solver=solver)
    assert degrees(by_frame.normal, by_hand.normal).mean() < 0.4
    np.testing.assert_allclose(by_frame.albedo, by_hand.albedo, atol=0.01)
    np.testing.assert_allclose(by_frame.depth, by_hand.depth, atol=0.02 * np.ptp(by_hand.depth))


@given(
    seed=seeds,
    fit=st.sampled_from(FITS),
    factor=st.sampled_from([1 / 16, 0.25, 2.0, 16.0]),
    solver=st.sampled_from(["least_squares", "robust"]),
)
def test_intensity_scales_albedo_alone(seed: int, fit: Fit, factor: float, solver: Solver) -> None:
    """Factors that are powers of two scale float32 exactly. Others round the images, and the robust solver may then take another
    local minimum at a pixel of these random images."""
    one = random_capture(seed)
    other = Capture(one.images * np.float32(factor), one.lights, one.saturated, one.intensities)
    before, after = (compute_maps(capture, whole(capture, 24, fit), solver=solver) for capture in (one, other))
    np.testing.assert_allclose(after.albedo, before.albedo * factor, rtol=1e-3, atol=1e-5 * factor)
    np.testing.assert_allclose(after.normal, before.normal, atol=1e-3)
    np.testing.assert_allclose(after.depth, before.depth, atol=2e-3 * np.ptp(before.depth))
    assert after.quality == pytest.approx(before.quality, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("factor", [0.2, 0.5, 2.0, 10.0])
def test_intensity_scales_only_the_albedo_of_a_face_up_to_a_small_error_with_integrable(factor: float) -> None:
    one = face_capture()
    other = Capture(one.images * np.float32(factor), one.lights, one.saturated)
    before, after = (compute_maps(capture, whole(capture, 48), solver="integrable") for capture in (one, other))
    np.testing.assert_allclose(after.albedo, before.albedo * factor, atol=0.01 * factor)
    assert degrees(after.normal, before.normal).mean() < 0.03
    np.testing.assert_allclose(after.depth, before.depth, atol=2e-3 * np.ptp(before.depth))


def test_stated_intensities_are_divided_out() -> None:
    equal = face_capture()
    stated = np.array([1.0, 2.0, 0.5, 1.5])
    uneven = Capture(equal.images * stated[:, None, None].astype(np.float32), equal.lights, equal.saturated, 3 * stated)
    one, other = (compute_maps(capture, whole(capture, 48)) for capture in (equal, uneven))
    # Relative to their mean, which is 1.25 here.
    np.testing.assert_allclose(other.albedo, 1.25 * one.albedo, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(other.normal, one.normal, atol=1e-4)
    np.testing.assert_allclose(other.notes["intensities"], stated / 1.25)


def test_estimating_intensities_and_ambient_light_corrects_the_maps(rejected: AssertRejected) -> None:
    angles: Angles = ((0, 0), (45, 10), (-45, 15), (5, -45), (0, 45))
    scene = render_session(0, 1, 0, 48)
    factors = np.array([1.2, 0.8, 1.1, 0.9, 1.0])
    clean = render_shadowed(scene.albedo / scene.albedo.max(), scene.normal, scene.depth, directions(angles), cast_shadows=False)
    images = (0.6 * clean * factors[:, None, None] + 0.1).astype(np.float32)
    capture = Capture(images, directions(angles))
    plain, found = (
        compute_maps(capture, whole(capture, 48), calibrate_intensities=estimate, calibrate_ambient=estimate)
        for estimate in (False, True)
    )
    assert degrees(found.normal, scene.normal).mean() < 0.25 * degrees(plain.normal, scene.normal).mean()
    np.testing.assert_allclose(found.notes["intensities"], factors, rtol=0.02)
    assert found.notes["ambient"] == pytest.approx(0.1, abs=0.005)
    with rejected("ambient", "indistinguishable from a surface"):
        compute_maps(face_capture(), whole(face_capture(), 48), calibrate_ambient=True)


def test_the_robust_solver_uses_saturation() -> None:
    normal = sphere(48)[0]
    images = render(normal, SEVEN, 1.0)
    clipped = np.minimum(images, 0.9).astype(np.float32)
    known = Capture(clipped, directions(SEVEN), images >= 0.9)
    unknown = Capture(clipped, directions(SEVEN))
    errors = [degrees(compute_maps(capture, whole(capture, 48)).normal, normal).mean() for capture in (known, unknown)]
    assert errors[0] < 0.5 * errors[1]
    maps = compute_maps(known, whole(known, 48))
    assert maps.quality["saturated"] == pytest.approx((images >= 0.9).mean())
    clipped_pictures = (images >= 0.9).sum(axis=0)
    assert np.corrcoef(maps.confidence.ravel(), clipped_pictures.ravel())[0, 1] < -0.5


def test_a_prior_is_in_the_axes_of_the_maps() -> None:
    """With rotated lights and a rotated prior, the true normals help as a prior only if both have the same axes."""
    capture = face_capture()
    scene = render_session(0, 1, 0, 48)
    frame = whole(capture, 48)
    alone = compute_maps(capture, frame, solver="integrable")
    helped = compute_maps(capture, frame, solver="integrable", prior=scene.normal)
    misled = compute_maps(capture, frame, solver="integrable", prior=scene.normal * np.array([-1, 1, 1], dtype=np.float32))
    errors = [degrees(maps.normal, scene.normal).mean() for maps in (helped, alone, misled)]
    assert errors[0] < 0.9 * errors[1] < errors[1] < errors[2]


def test_a_frame_beyond_the_picture_is_solved_inside_the_picture() -> None:
    images = render(normals(hill, *grid(60, 60)), SEVEN, 0.8).astype(np.float32)
    capture = Capture(images, directions(SEVEN))
    frame = Frame(10, 30, 50, 50, 0.5, 40)
    within = inside_mask(frame, 60, 60)
    assert 0.3 < within.mean() < 0.9
    for solver in SOLVERS:
        maps = compute_maps(capture, frame, solver=solver)
        assert (maps.albedo[~within] == 0).all()
        assert (maps.normal[~within] == (0, 0, 1)).all()
        np.testing.assert_allclose(maps.albedo[within], 0.8, atol=0.03)
        assert maps.quality["residual"] < 0.01
        assert maps.quality["integrability"] < 1
        assert maps.normal_error is not None
        np.testing.assert_array_equal(np.isnan(maps.normal_error), ~within)
        assert maps.notes["normal_error"] < 0.5


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_standard_error_is_the_spread_of_the_normals(solver: Solver) -> None:
    """Of a stretched frame too, whose normals are those of the stretched surface."""
    shading = 0.8 * render(normals(hill, *grid(60, 90)), SEVEN, 1.0)
    rng = np.random.default_rng(0)
    found = [solve(shading + rng.normal(0, 0.002, shading.shape), SEVEN, 60, "stretch", solver) for _ in range(30)]
    mean = np.mean([maps.normal for maps in found], axis=0)
    angles = [degrees(maps.normal, mean / np.linalg.norm(mean, axis=-1, keepdims=True)) for maps in found]
    estimated = np.sqrt(np.mean([np.square(maps.normal_error) for maps in found], axis=0))
    ratio = np.median(estimated / np.sqrt(np.mean(np.square(angles), axis=0)))
    # `integrable` also uses neighbouring pixels, and its error is smaller than that of the fit alone.
    assert 1 <= ratio < 3 if solver == "integrable" else ratio == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_black_capture_is_flat_and_dark_not_nan(solver: Solver) -> None:
    maps = solve(np.zeros((7, 20, 30)), SEVEN, 16, "stretch", solver)
    assert np.isfinite(maps.confidence).all()
    assert np.isfinite(list(maps.quality.values())).all()
    assert maps.normal_error is not None
    assert np.isnan(maps.normal_error).all()
    assert "normal_error" not in maps.notes
    assert not maps.albedo.any()
    assert not maps.depth.any()
    assert (maps.normal == (0, 0, 1)).all()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("session", ["q1", "q2", "q3", "q6"])
def test_a_real_face_has_its_nose_in_front_and_faces_up_above_its_middle(yale: Path, session: str, solver: Solver) -> None:
    subjects = sorted(folder for folder in (yale / "captures").iterdir() if (folder / session).is_dir())
    noses, tilts, turns = [], [], []
    for folder in subjects:
        capture = read_capture(folder / session)
        maps = compute_maps(capture, whole(capture, 56), solver=solver)
        np.testing.assert_allclose(np.linalg.norm(maps.normal, axis=-1), 1, atol=1e-5)
        noses.append(maps.depth[24:40, 22:34].mean())
        ridge = maps.normal[:, 25:31, 1]
        tilts.append(ridge[20:26].mean() - ridge[28:33].mean())
        turns.append(maps.normal[:, -14:, 0].mean() - maps.normal[:, :14, 0].mean())
    assert np.mean(np.array(noses) > 0) > 0.9, "nearer than the mean"
    assert np.mean(np.array(tilts) > 0) > 0.9, "the bridge of the nose faces up, its underside down"
    assert np.mean(np.array(turns) > 0.3) > 0.9, "the cheeks face outward"
