"""Directions from rendered mirror spheres, compared with the lights that they were rendered with."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from fr_ps.photometric.lights import light_directions
from fr_ps.photometric.sphere import calibrate_sphere, find_highlight, lights_csv, list_pictures, mirror_direction
from fr_ps.photometric.sphere_circle import Circle
from fr_ps.synthetic.mirror_sphere import render_mirror_sphere
from fr_ps.tables import read_csv_rows

LIGHTS = light_directions([(10, 20), (-55, 10), (30, -40), (-15, 60), (60, 35)])
CENTRE, RADIUS = (108.3, 77.6), 58.4


def write_pictures(folder: Path, pictures: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    for k, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"im{k}.png")
    return folder


def ball(lights: np.ndarray = LIGHTS, **settings: object) -> np.ndarray:
    return render_mirror_sphere(lights, **({"size": (160, 200), "centre": CENTRE, "radius": RADIUS} | settings))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """(5, 160, 200) uint8. Read-only."""
    return ball()


def errors(found: np.ndarray, lights: np.ndarray = LIGHTS) -> np.ndarray:
    """Angles in degrees."""
    return np.asarray(np.degrees(np.arccos(np.clip(np.sum(found * lights, axis=1), -1, 1))))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"centre": (70.2, 90.7), "radius": 40.3, "noise": 2.0},
        {"size": (330, 400), "centre": (260.4, 150.3), "radius": 121.6, "light_radius": 0.7, "noise": 4.0},
        {"background": 0.6, "light_radius": 5.0},
        {"background": 0.0, "room": 0.06},
        {"luminance": 20.0, "background": 0.5},
        {"reflection": 0.6},
        {"light_radius": 4.0, "luminance": 3.0, "noise": 3.0},
    ],
    ids=str,
)
def test_directions_are_true_within_0_3_degrees(settings, tmp_path):
    found = calibrate_sphere(write_pictures(tmp_path, ball(**settings)))
    assert found.circle.source == "found"
    assert errors(found.lights).max() < 0.3
    assert found.condition == pytest.approx(np.linalg.cond(LIGHTS), rel=0.02)
    assert np.linalg.norm(found.lights, axis=1) == pytest.approx(np.ones(len(LIGHTS)))


def test_a_window_that_all_pictures_show_is_not_a_highlight(pictures, tmp_path):
    with_window = pictures.copy()
    with_window[:, 60:72, 80:95] = 255
    with_window[3, 40:43, 100:103] = 90  # and a weaker, smaller spot that one picture shows
    assert errors(calibrate_sphere(write_pictures(tmp_path, with_window)).lights).max() < 0.3


def test_a_hot_pixel_is_not_a_highlight(tmp_path):
    hot = ball(light_radius=3.0)
    for k, (row, column) in enumerate([(60, 90), (100, 120), (50, 130), (90, 100), (110, 80)]):
        hot[k, row, column] = 255
    assert errors(calibrate_sphere(write_pictures(tmp_path, hot)).lights).max() < 0.3


def test_a_given_circle_and_a_mask_replace_the_search(pictures, tmp_path):
    folder = write_pictures(tmp_path, pictures)
    given = calibrate_sphere(folder, Circle(*CENTRE, RADIUS))
    assert (given.circle.source, given.circle.residual) == ("given", None)
    assert errors(given.lights).max() < 0.2
    rows, columns = np.indices(pictures[0].shape) + 0.5
    inside = np.hypot(columns - CENTRE[0], rows - CENTRE[1]) < RADIUS
    Image.fromarray(inside.astype(np.uint8) * 255).save(folder / "mask.png")
    masked = calibrate_sphere(folder)
    assert masked.circle.source == "mask"
    assert errors(masked.lights).max() < 0.3
    assert calibrate_sphere(folder, Circle(*CENTRE, RADIUS)).circle.source == "given"


def test_the_spread_is_that_of_a_disc_of_the_lights_size(tmp_path):
    found = calibrate_sphere(write_pictures(tmp_path, ball(size=(220, 230), centre=(115, 110), radius=100, light_radius=10.0)))
    # Root mean square distance from the centre of a uniform disc: its radius over the square root of 2.
    assert [highlight.spread for highlight in found.highlights] == pytest.approx(len(LIGHTS) * [10 / np.sqrt(2)], rel=0.08)


def test_the_mirror_direction_agrees_with_the_law_of_reflection():
    x, y = np.random.default_rng(0).uniform(-0.6, 0.6, (2, 50))
    normals = np.stack([x, y, np.sqrt(1 - x**2 - y**2)])
    lights = mirror_direction(x, y)
    view = np.array([0, 0, 1])
    assert np.linalg.norm(lights, axis=0) == pytest.approx(np.ones(50))
    assert np.sum(lights * normals, axis=0) == pytest.approx(view @ normals)  # equal angles
    assert np.linalg.det(np.stack([lights, normals, np.broadcast_to(view[:, None], normals.shape)]).T) == pytest.approx(
        np.zeros(50), abs=1e-12
    )  # in one plane


def test_lights_csv_has_unit_vectors_and_intensities(pictures, tmp_path):
    found = calibrate_sphere(write_pictures(tmp_path / "ball", pictures))
    (tmp_path / "lights.csv").write_text(lights_csv(found, np.linspace(0.8, 1.2, 5)))
    columns, rows = read_csv_rows(tmp_path / "lights.csv")
    assert columns == ["image", "x", "y", "z", "intensity"]
    assert [row["image"] for _, row in rows] == [f"im{k}.png" for k in range(5)]
    written = np.array([[float(row[axis]) for axis in "xyz"] for _, row in rows])
    assert written == pytest.approx(found.lights, abs=1e-6)
    assert [row["intensity"] for _, row in rows] == ["0.8", "0.9", "1", "1.1", "1.2"]
    assert lights_csv(found).splitlines()[0] == "image,x,y,z"


def test_pictures_are_listed_in_the_order_of_their_numbers(tmp_path):
    for name in ("im10.png", "im2.PNG", "mask.png", ".im3.png", "notes.txt", "lights.png", "im1.tif"):
        (tmp_path / name).touch()
    assert list_pictures(tmp_path, ["lights.png"]) == ["im1.tif", "im2.PNG", "im10.png"]


def test_bad_folders_and_pictures_are_rejected(pictures, tmp_path, rejected):
    with rejected("none: no such folder"):
        calibrate_sphere(tmp_path / "none")
    with rejected("two: 2 pictures", "three or more"):
        calibrate_sphere(write_pictures(tmp_path / "two", pictures[:2]))
    folder = write_pictures(tmp_path / "sizes", pictures)
    Image.fromarray(pictures[3, :150]).save(folder / "im3.png")
    with rejected("im3.png: 200 x 150, but im0.png is 200 x 160", "remove those that are not of a light"):
        calibrate_sphere(folder)
    folder = write_pictures(tmp_path / "mask", pictures)
    Image.fromarray(pictures[3, :150]).save(folder / "mask.png")
    with rejected("mask.png: 200 x 150, but the images are 200 x 160"):
        calibrate_sphere(folder)
    with rejected("--circle", "outside the picture"):
        calibrate_sphere(folder, Circle(500, 50, 30))
    with rejected("cut", "cuts off the sphere"):
        calibrate_sphere(write_pictures(tmp_path / "cut", pictures[:, :, 75:]))


def test_pictures_without_one_clear_highlight_are_rejected(pictures, tmp_path, rejected):
    behind = light_directions([(110, 10)])
    two = np.maximum(pictures[0], pictures[3])
    matte = np.full_like(pictures[0], 64)
    rows, columns = np.indices(matte.shape) + 0.5
    x, y = (columns - CENTRE[0]) / RADIUS, (CENTRE[1] - rows) / RADIUS
    shading = np.sqrt(np.maximum(1 - x**2 - y**2, 0))
    matte[shading > 0] = (200 * shading[shading > 0]).astype(np.uint8)
    for name, picture, text in (
        ("dark", ball(np.array([[0.0, 0, -1]]), light_radius=0.1, seed=1)[0], "no highlight"),
        ("rim", ball(behind, light_radius=4.0)[0], "at the rim of the sphere"),
        ("two", two, "two highlights about equally bright"),
        ("matte", gaussian_filter(matte, 0.5), "too much for the highlight of a mirror"),
    ):
        folder = write_pictures(tmp_path / name, np.concatenate([pictures[:4], picture[None]]))
        with rejected("im4.png", text):
            calibrate_sphere(folder)


def test_a_highlight_is_located_in_the_whole_picture(pictures):
    circle = Circle(*CENTRE, RADIUS)
    whole = pictures[2] / np.float32(255)
    rows, columns = circle.box()
    part = find_highlight(whole[rows, columns], circle, (rows.start, columns.start), "im2.png")
    other = find_highlight(whole, circle, (0, 0), "im2.png")
    assert (part.x, part.y) == pytest.approx((other.x, other.y), abs=0.01)
    half = LIGHTS[2] + [0, 0, 1]
    half /= np.linalg.norm(half)
    assert (part.x, part.y) == pytest.approx((CENTRE[0] + RADIUS * half[0], CENTRE[1] - RADIUS * half[1]), abs=0.1)
