"""Quality measures: near 0 for ideal pictures, and increasing with the fault that they measure."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rendering import render

from fr_ps.photometric.captures import ReadingSettings, read_capture
from fr_ps.photometric.frame import fit_frame
from fr_ps.photometric.integrate import poisson
from fr_ps.photometric.maps import compute_maps
from fr_ps.photometric.quality import MEASURES, SHADOW, convexity, session_quality, twist_agreement
from fr_ps.photometric.solve import least_squares, split_albedo
from fr_ps.photometric.sources import list_sources
from fr_ps.synthetic.scene import render_session
from tests.photometric import surfaces
from tests.photometric.surfaces import FOUR, SEVEN, THREE, Angles, degrees, directions, normals_from_differences, sphere

EVERYWHERE = np.ones((64, 64), dtype=bool)


def measured(images: np.ndarray, lights: np.ndarray, saturated: np.ndarray | None = None) -> dict[str, float]:
    """The measures of the least-squares maps."""
    images = images.astype(np.float32)
    _, normals = split_albedo(least_squares(images, lights))
    saturated = np.zeros(images.shape, dtype=np.float32) if saturated is None else saturated
    return session_quality(images, saturated, lights, normals, poisson(normals), np.ones(images.shape[1:], dtype=bool))


def face(angles: Angles, cast_shadows: bool = False) -> np.ndarray:
    scene = render_session(0, 1, 0, 64)
    return render(scene.albedo, scene.normal, scene.depth, directions(angles), cast_shadows=cast_shadows)


@pytest.mark.parametrize("angles", [THREE, FOUR, SEVEN])
def test_a_lambertian_surface_under_full_light_has_perfect_quality(angles: Angles) -> None:
    found = measured(surfaces.render(sphere(64)[0], angles, 0.8), directions(angles))
    assert tuple(found) == MEASURES
    assert found["residual"] < 1e-6
    assert found["imbalance"] < 1e-6
    assert found["integrability"] < 0.1
    assert found["shadowed"] == found["saturated"] == 0


@given(seed=st.integers(0, 2**32 - 1), angles=st.sampled_from([THREE, FOUR, SEVEN]))
def test_each_measure_equals_its_definition(seed: int, angles: Angles) -> None:
    rng = np.random.default_rng(seed)
    lights, mask = directions(angles), rng.random((10, 12)) < 0.7
    images = rng.random((len(lights), 10, 12)).astype(np.float32) ** 2
    saturated = rng.random(images.shape).astype(np.float32)
    normals = rng.normal(size=(3, 10, 12))
    normals /= np.linalg.norm(normals, axis=0)
    depth = rng.normal(size=(10, 12))
    found = session_quality(images, saturated, lights, normals, depth, mask)

    squares, powers, mean, dark, angle = 0.0, 0.0, np.zeros(len(lights)), 0, []
    from_depth = np.stack([-np.gradient(depth, axis=1), np.gradient(depth, axis=0), np.ones_like(depth)])
    for place in zip(*np.nonzero(mask)):
        pixel = images[(slice(None), *place)].astype(np.float64)
        squares += np.sum((pixel - lights @ np.linalg.lstsq(lights, pixel, rcond=None)[0]) ** 2)
        powers += np.sum(pixel**2)
        mean += pixel * (pixel.min() / pixel.max()) ** 2
        dark += np.sum(pixel < SHADOW * pixel.max())
        angle.append(degrees(normals[(slice(None), *place)], from_depth[(slice(None), *place)]))
    rest = mean - lights @ np.linalg.lstsq(lights, mean, rcond=None)[0]
    assert found["residual"] == pytest.approx(np.sqrt(squares / powers), abs=1e-4)
    assert found["imbalance"] == pytest.approx(np.linalg.norm(rest) / np.linalg.norm(mean), abs=1e-4)
    assert found["shadowed"] == pytest.approx(dark / mask.sum() / len(lights))
    assert found["integrability"] == pytest.approx(np.mean(angle), abs=0.02)
    assert found["saturated"] == pytest.approx(saturated[:, mask].mean(), abs=1e-6)
    if angles == THREE:
        assert max(found["residual"], found["imbalance"]) < 1e-5, "three lights always fit"


def rising(values: list[float], first: float, last: float) -> None:
    """Each larger than the one before, from below `first` to above `last`."""
    assert values[0] < first
    assert values[-1] > last
    assert (np.diff(values) > 0).all()


def test_the_residual_rises_with_wrong_directions_with_noise_and_with_motion() -> None:
    rng = np.random.default_rng(0)
    images = surfaces.render(sphere(64)[0], SEVEN, rng.uniform(0.5, 1, (64, 64)))
    lights = directions(SEVEN)
    wrong = np.array([(12, -5), (-8, 9), (5, 10), (-12, 0), (0, -9), (9, 8), (-6, -10)])
    turned = [directions([tuple(angle) for angle in np.array(SEVEN) + share * wrong]) for share in (0, 0.5, 1)]
    rising([measured(images, wrong_lights)["residual"] for wrong_lights in turned], 1e-6, 0.07)
    noise = rng.normal(size=images.shape)
    rising([measured(images + sigma * noise, lights)["residual"] for sigma in (0, 0.02, 0.1)], 1e-6, 0.08)
    moved = []
    for share in (0, 0.3, 1):
        shifted = images.copy()
        shifted[2] += share * (np.roll(images[2], 1, axis=1) - images[2])
        moved.append(measured(shifted, lights)["residual"])
    rising(moved, 1e-6, 0.05)


@pytest.mark.parametrize("which", range(4))
def test_a_light_that_failed_shows_as_imbalance_and_shadows_do_not(which: int) -> None:
    clean, shadowed = face(FOUR), face(FOUR, cast_shadows=True)
    plain = measured(shadowed, directions(FOUR))
    assert plain["imbalance"] < 0.01
    assert plain["residual"] > 5 * plain["imbalance"]
    assert measured(clean, directions(FOUR))["imbalance"] < 0.01
    found = []
    for share in (1, 0.8, 0.6, 0.4):
        dimmed = shadowed.copy()
        dimmed[which] *= share
        found.append(measured(dimmed, directions(FOUR))["imbalance"])
    rising(found, 0.01, 0.1)


def test_the_shadowed_share_rises_with_grazing_lights() -> None:
    shares = []
    for azimuth in (15, 40, 60, 80):
        angles = ((azimuth, 30), (-azimuth, 30), (azimuth, -20), (-azimuth, -20))
        shares.append(measured(face(angles, cast_shadows=True), directions(angles))["shadowed"])
    rising(shares, 0.05, 0.3)


def test_integrability_rises_with_a_twist_that_no_surface_has() -> None:
    normal, depth, _ = sphere(64)
    x, y = surfaces.grid(64, 64)
    images, lights = surfaces.render(normal, FOUR), directions(FOUR)
    clear = np.zeros(images.shape, dtype=np.float32)
    values = []
    for share in (0, 0.1, 0.3):
        # A whirl about the middle.
        twisted = normal + share * np.stack([-y, x, np.zeros_like(x)], axis=-1) / 45
        twisted = (twisted / np.linalg.norm(twisted, axis=-1, keepdims=True)).transpose(2, 0, 1)
        values.append(session_quality(images, clear, lights, twisted, poisson(twisted), EVERYWHERE)["integrability"])
    rising(values, 0.1, 5)
    direct = degrees(normals_from_differences(depth), normal[1:-1, 1:-1]).mean()
    assert values[0] == pytest.approx(direct, abs=0.1)


def test_pixels_outside_the_mask_do_not_count() -> None:
    images = surfaces.render(sphere(64)[0], FOUR).astype(np.float32)
    lights = directions(FOUR)
    normals = sphere(64)[0].transpose(2, 0, 1)
    mask = EVERYWHERE.copy()
    mask[:, 40:] = False
    spoilt, saturated = images.copy(), np.zeros_like(images)
    spoilt[1, :, 40:], saturated[:, :, 40:] = 0, 1
    found = session_quality(spoilt, saturated, lights, normals, sphere(64)[1], mask)
    assert found["residual"] < 1e-6
    assert found["imbalance"] < 1e-6
    assert found["shadowed"] == found["saturated"] == 0
    assert session_quality(spoilt, saturated, lights, normals, sphere(64)[1], EVERYWHERE)["residual"] > 0.1


def test_a_black_session_has_finite_measures() -> None:
    found = measured(np.zeros((4, 16, 16)), directions(FOUR))
    assert all(np.isfinite(value) for value in found.values())


FLIPS = {"none": (1, 1), "x": (-1, 1), "y": (1, -1), "both": (-1, -1)}


@pytest.mark.parametrize("flip", FLIPS)
@pytest.mark.parametrize("subject", range(3))
def test_a_flipped_light_convention_shows_in_the_signs(flip: str, subject: int) -> None:
    scene = render_session(0, subject, 0, 64)
    images = render(scene.albedo, scene.normal, scene.depth, directions(FOUR), cast_shadows=True)
    in_x, in_y = FLIPS[flip]
    _, normals = split_albedo(least_squares(images, directions(FOUR) * (in_x, in_y, 1)))
    assert np.sign(convexity(normals, EVERYWHERE)[0][0]) == in_x
    assert np.sign(twist_agreement(normals, EVERYWHERE)) == in_x * in_y


def test_the_mixed_derivatives_of_a_surface_agree_and_those_of_mirrored_normals_are_opposite() -> None:
    normals = sphere(64)[0].transpose(2, 0, 1)
    assert twist_agreement(normals, EVERYWHERE) == pytest.approx(1, abs=0.01)
    assert twist_agreement(normals * np.array([-1, 1, 1])[:, None, None], EVERYWHERE) == pytest.approx(-1, abs=0.01)
    flat = np.zeros((3, 64, 64))
    flat[2] = 1
    assert twist_agreement(flat, EVERYWHERE) == 0
    assert convexity(flat, EVERYWHERE) == [[0, 0], [0, 0]]


def test_convexity_is_the_slope_of_n_x_in_x_times_the_spread_of_x() -> None:
    x = np.broadcast_to(np.linspace(-1, 1, 64), (64, 64))
    normals = np.stack([0.4 * x + 0.1, np.zeros_like(x), np.ones_like(x)])
    mask = EVERYWHERE.copy()
    mask[:, 50:] = False
    assert convexity(normals, mask)[0][0] == pytest.approx(0.4 * x[mask].var())


@pytest.fixture(scope="module")
def real(yale: Path) -> dict[tuple[str, str], dict[str, float]]:
    """Quality, convexity and twist agreement of every session of Yale B."""
    found = {}
    for source in list_sources(yale / "captures"):
        capture = read_capture(source.folder, ReadingSettings(max_condition=1000))
        height, width = capture.images.shape[1:]
        maps = compute_maps(capture, fit_frame((0, 0, width, height), 112, "crop"), solver="least_squares")
        found[source.id, source.session] = maps.quality | {key: maps.notes[key] for key in ("convexity", "twist_agreement")}
    return found


def test_the_bad_capture_of_yale_b_is_found(real: dict[tuple[str, str], dict[str, float]]) -> None:
    """B05/q1/im0 has 0.4 of the intensity of the light on the other side."""
    assert len(real) == 158

    def worst(measure: str, only: str = "q") -> list[tuple[str, str]]:
        return sorted((key for key in real if key[1].startswith(only)), key=lambda key: -real[key][measure])

    assert worst("residual", "q1")[0] == ("B05", "q1")
    assert ("B05", "q1") in worst("imbalance")[:3]
    # The imbalance is far above that of every other session with the same lights.
    second = real[worst("imbalance", "q1")[1]]["imbalance"]
    assert real["B05", "q1"]["imbalance"] > 2.5 * second


def test_real_faces_are_neither_concave_nor_mirrored(real: dict[tuple[str, str], dict[str, float]]) -> None:
    assert min(session["convexity"][0][0] for session in real.values()) > 0.1
    twists = np.array([session["twist_agreement"] for session in real.values()])
    assert np.median(twists) > 0.15
    assert np.mean(twists > 0) > 0.9


@pytest.mark.parametrize("black", [[0], [2], [0, 1, 2, 3]])
def test_a_failed_light_gives_the_worst_imbalance(black: list[int]) -> None:
    normal, depth, _ = sphere(64)
    images = render(np.ones((64, 64)), normal, depth, directions(FOUR), cast_shadows=False)
    images[black] = 0
    quality = session_quality(images, np.zeros_like(images), directions(FOUR), normal.transpose(2, 0, 1), depth, EVERYWHERE)
    assert quality["imbalance"] == 1
