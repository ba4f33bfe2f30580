"""Lights that failed: found in rendered and real captures, and no light that merely reaches little of the surface."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rendering import dome
from rendering import render as render_shadowed

from fr_ps.photometric.captures import read_capture
from fr_ps.photometric.failed_lights import find_failed_lights
from fr_ps.photometric.lights import read_lights
from fr_ps.photometric.sources import list_sources
from fr_ps.synthetic.scene import render_session
from tests.photometric.surfaces import FOUR, SEVEN, THREE, Angles, directions, render, sphere

GRAZING: Angles = ((50, -40), (-50, -40), (35, 65), (-35, 65))


def face(angles: Angles, size: int = 64) -> np.ndarray:
    """(k, H, W) pictures with attached and cast shadows."""
    scene = render_session(0, 1, 0, size)
    return render_shadowed(scene.albedo, scene.normal, scene.depth, directions(angles), cast_shadows=True)


def failed(
    images: np.ndarray, angles: Angles, intensities: np.ndarray | None = None, mask: np.ndarray | None = None
) -> list[int]:
    intensities = np.ones(len(images)) if intensities is None else intensities
    found = find_failed_lights(images.astype(np.float32), intensities, directions(angles), mask)
    assert found.shape == (len(images),)
    return np.flatnonzero(found).tolist()


@pytest.mark.parametrize("angles", [FOUR, SEVEN, GRAZING])
@pytest.mark.parametrize("share", [0.0, 0.03])
def test_an_almost_black_picture_is_that_of_a_failed_light(angles: Angles, share: float) -> None:
    images = face(angles)
    assert failed(images, angles) == []
    for light in range(len(angles)):
        assert failed(images * np.where(np.arange(len(angles)) == light, share, 1)[:, None, None], angles) == [light]


@given(first=st.integers(0, 6), second=st.integers(0, 6), seed=st.integers(0, 2**32 - 1))
def test_all_failed_lights_of_many_are_found_with_noise_and_unequal_intensities(first: int, second: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    intensities = rng.uniform(0.3, 3, len(SEVEN))
    images = face(SEVEN, 32) * intensities[:, None, None]
    images[[first, second]] *= 0.02
    images = np.maximum(images + rng.normal(0, 0.002, images.shape), 0)
    assert failed(images, SEVEN, intensities) == sorted({first, second})


def test_a_dim_light_and_one_that_only_grazes_a_flat_surface_have_not_failed() -> None:
    images = face(FOUR) * np.array([0.4, 1, 1, 1])[:, None, None]
    assert failed(images, FOUR) == []
    flat = np.zeros((20, 20, 3)) + np.array([0, 0, 1])
    grazing = ((0, 40), (40, 0), (-40, 0), (87, 0))
    pictures = render(flat, grazing)
    assert pictures[3].max() < 0.1 * pictures[0].max()
    assert failed(pictures, grazing) == []


@pytest.mark.parametrize(("exponent", "diffuse", "most"), [(80, 0.01, 8), (80, 0.05, 2), (20, 0.05, 3), (200, 0.02, 0)])
def test_few_rigs_mistake_a_shiny_plane_without_its_highlight_for_a_failed_light(
    exponent: float, diffuse: float, most: int
) -> None:
    """Blinn's model. The prediction of a matte surface is wrong there: alone, it rejects lights in up to 3 of 4 rigs."""
    rng, mistaken = np.random.default_rng(0), 0
    for _ in range(100):
        count = int(rng.integers(4, 25))
        angles = np.stack([rng.uniform(-60, 60, count), rng.uniform(-45, 65, count)], axis=1)
        tilted = np.array([*rng.uniform(-0.2, 0.2, 2), 1.0]) + rng.normal(0, 0.01, (16, 16, 3))
        tilted /= np.linalg.norm(tilted, axis=-1, keepdims=True)
        lights = directions(angles)
        half = lights + np.array([0, 0, 1])
        half /= np.linalg.norm(half, axis=1, keepdims=True)
        shine = np.maximum(np.einsum("hwc,kc->khw", tilted, half), 0) ** exponent
        mistaken += failed(render(tilted, angles, diffuse) + shine, angles) != []
    assert mistaken <= most


def test_in_a_small_mask_of_a_large_picture_a_failed_light_is_found() -> None:
    images, mask = np.ones((4, 1200, 1600), dtype=np.float32), np.zeros((1200, 1600), dtype=bool)
    mask[600:620, 800:820] = True
    images[:, 600:620, 800:820] = render(sphere(20)[0], FOUR)
    assert failed(images, FOUR, mask=mask) == []
    images[1, mask] = 0.001
    assert failed(images, FOUR, mask=mask) == [1]


def test_no_light_of_a_dome_has_failed() -> None:
    lights = dome(96, widest=80)
    scene = render_session(0, 1, 0, 48)
    images = render_shadowed(scene.albedo, scene.normal, scene.depth, lights, cast_shadows=True)
    assert not find_failed_lights(images, np.ones(96), lights).any()


def test_three_lights_predict_none_of_each_other() -> None:
    images = render(sphere(24)[0], THREE)
    images[1] = 0
    assert failed(images, THREE) == []
    assert failed(np.zeros((4, 8, 8)), FOUR) == [], "without any light nothing is predicted"


def test_only_pixels_of_the_mask_count() -> None:
    images, mask = face(FOUR), np.zeros((64, 64), dtype=bool)
    mask[16:48, 16:48] = True
    images[2, mask] *= 0.02
    assert failed(images, FOUR) == []
    assert failed(images, FOUR, mask=mask) == [2]


def test_of_the_real_sessions_two_have_a_failed_light(yale: Path) -> None:
    found = {
        f"{source.id}/{source.session}": capture.failed
        for source in list_sources(yale / "captures", {})
        if (capture := read_capture(source.folder)).failed
    }
    assert found == {"B09/q7": ("im0.pgm",), "B10/q7": ("im0.pgm",)}


def test_pictures_of_the_real_sessions_have_nearly_none_or_about_half_of_the_predicted_light(yale: Path) -> None:
    """The shares that the documents state, with a prediction by numpy's least squares."""
    smallest = {}
    for folder in sorted((yale / "captures").glob("*/*")):
        names, lights, _ = read_lights(folder / "lights.csv")
        pixels = np.stack([np.asarray(Image.open(folder / name), dtype=np.float64).ravel() for name in names])
        shares = []
        for light in range(len(lights)):
            others = np.arange(len(lights)) != light
            surface, *_ = np.linalg.lstsq(lights[others], pixels[others])
            shares.append(pixels[light].sum() / np.maximum(lights[light] @ surface, 0).sum())
        smallest[f"{folder.parent.name}/{folder.name}"] = min(shares)
    assert len(smallest) == 158
    assert round(smallest.pop("B09/q7"), 2) == 0.01
    assert round(smallest.pop("B10/q7"), 2) == 0.03
    assert round(min(smallest.values()), 2) == 0.49
