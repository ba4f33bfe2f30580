"""The mask of a session: from a file, an alpha channel, or the brightness; and what lies outside it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fr_ps.photometric import capture_pictures
from fr_ps.photometric.captures import Capture, ReadingSettings, read_capture
from fr_ps.photometric.frame import fit_frame
from fr_ps.photometric.maps import compute_maps
from fr_ps.photometric.masks import find_mask, read_mask
from tests.conftest import AssertRejected, WriteCapture
from tests.photometric.surfaces import FOUR, degrees, directions, grid, render, sphere, to_8_bit

SIZE = 64
X, Y = grid(SIZE, SIZE)
DISC = np.hypot(X - 5, Y + 3) < 20
NORMALS, DEPTH, _ = sphere(SIZE)
IMAGES = render(NORMALS, FOUR, 0.8)


def with_background(level: float) -> np.ndarray:
    """The images with another, inconsistent background in each."""
    rng = np.random.default_rng(0)
    return np.where(DISC, IMAGES, level * rng.uniform(size=IMAGES.shape))


@pytest.mark.parametrize("solver", ["least_squares", "robust", "integrable"])
def test_what_lies_outside_the_mask_changes_nothing(solver) -> None:  # type: ignore[no-untyped-def]
    frame = fit_frame((0, 0, SIZE, SIZE), SIZE, "crop")
    dark, bright = (
        compute_maps(
            Capture(images.astype(np.float32), directions(FOUR), saturated=images > limit, mask=DISC), frame, solver=solver
        )
        for images, limit in ((with_background(0), 2), (with_background(1), 0.9))
    )
    for name in ("albedo", "normal", "depth", "confidence"):
        np.testing.assert_array_equal(getattr(dark, name), getattr(bright, name))
    assert dark.quality == bright.quality
    assert degrees(bright.normal, NORMALS)[DISC].mean() < 0.5
    assert bright.notes["masked"] == pytest.approx(1 - DISC.mean())
    relative = bright.depth[DISC] - DEPTH[DISC]
    assert np.ptp(relative) < 0.5


def test_a_pixel_at_the_border_is_the_mean_of_its_inner_part() -> None:
    """Four pixels become one: the background would darken the border of the object."""
    capture = Capture(np.where(DISC, 0.5, 0).astype(np.float32) * np.ones((4, 1, 1)), directions(FOUR), mask=DISC)
    small = compute_maps(capture, fit_frame((0, 0, SIZE, SIZE), SIZE // 4, "crop"), solver="least_squares")
    inside = small.albedo > 0
    assert inside.sum() * 16 == pytest.approx(DISC.sum(), rel=0.1)
    np.testing.assert_allclose(small.albedo[inside], small.albedo.max(), rtol=1e-5)


@pytest.mark.parametrize("largest", [1, 255])
def test_a_mask_file_may_have_any_largest_value(largest: int, tmp_path: Path) -> None:
    Image.fromarray((largest * DISC).astype(np.uint8)).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", (SIZE, SIZE)), DISC)


def test_a_mask_file_may_have_one_bit(tmp_path: Path) -> None:
    """As MATLAB writes logical arrays."""
    Image.fromarray(DISC).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", (SIZE, SIZE)), DISC)


@pytest.mark.parametrize("color", [0, 255])
def test_a_mask_file_may_have_its_shape_in_the_alpha_channel_alone(color: int, tmp_path: Path) -> None:
    channels = [np.full(DISC.shape, color), *2 * [np.full(DISC.shape, color)], 255 * DISC]
    Image.fromarray(np.dstack(channels).astype(np.uint8)).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", (SIZE, SIZE)), DISC)


def test_an_opaque_black_mask_file_is_empty(tmp_path: Path, rejected: AssertRejected) -> None:
    Image.new("RGBA", (SIZE, SIZE), (0, 0, 0, 255)).save(tmp_path / "mask.png")
    with rejected(tmp_path / "mask.png", "the mask is empty"):
        read_mask(tmp_path / "mask.png", (SIZE, SIZE))


@pytest.mark.parametrize("other", ["Mask.PNG", "mask.tif"])
def test_two_mask_files_are_rejected(other: str, tmp_path: Path, write_capture: WriteCapture, rejected: AssertRejected) -> None:
    write_capture(tmp_path, to_8_bit(IMAGES), FOUR)
    for name in ("mask.png", other):
        Image.fromarray((255 * DISC).astype(np.uint8)).save(tmp_path / name)
    with rejected(tmp_path, "both", "mask.png", other, "are masks; remove one"):
        read_capture(tmp_path)
    assert read_capture(tmp_path, ReadingSettings(mask="none")).mask is None


@pytest.mark.parametrize("source", ["file", "alpha"])
def test_a_reduced_pixel_at_the_border_of_the_mask_has_the_light_of_the_object(
    source: str, tmp_path: Path, write_capture: WriteCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A uniform object in front of a saturated background; a border pixel has between 1 and 9 stored pixels of the object."""
    write_capture(tmp_path, np.where(DISC, 100, 255).astype(np.uint8) * np.ones((4, 1, 1), np.uint8), FOUR)
    alpha = (255 * DISC).astype(np.uint8)
    if source == "file":
        Image.fromarray(alpha).save(tmp_path / "mask.png")
    for number in range(4 if source == "alpha" else 0):
        path = tmp_path / f"im{number}.png"
        Image.fromarray(np.dstack([np.array(Image.open(path)), alpha])).save(path)
    assert not read_capture(tmp_path).saturated.any()
    monkeypatch.setattr(capture_pictures, "MAX_VALUES", 4 * SIZE**2 // 9 + 1)
    capture = read_capture(tmp_path)
    side = SIZE // 3
    parts = DISC[: 3 * side, : 3 * side].reshape(side, 3, side, 3).mean(axis=(1, 3))
    assert capture.reduction == 3
    np.testing.assert_allclose(
        capture.images, np.broadcast_to(np.where(parts > 0, 100 / 255, 0), capture.images.shape), atol=1e-6
    )
    np.testing.assert_array_equal(capture.mask, parts >= 0.5)
    assert not capture.saturated.any()


def test_the_alpha_channels_of_the_images_are_the_mask(tmp_path: Path, write_capture: WriteCapture) -> None:
    write_capture(tmp_path, to_8_bit(with_background(1)), FOUR)
    for number in range(4):
        path = tmp_path / f"im{number}.png"
        alpha = np.where(DISC, 255, 0).astype(np.uint8)
        alpha[number] = 0  # the mask is opaque in all of them
        Image.fromarray(np.dstack([np.array(Image.open(path)), alpha])).save(path)
    expected = DISC.copy()
    expected[:4] = False
    np.testing.assert_array_equal(read_capture(tmp_path).mask, expected)
    assert read_capture(tmp_path, ReadingSettings(mask="none")).mask is None


def test_a_bright_object_in_front_of_a_dark_background_is_found() -> None:
    rng = np.random.default_rng(1)
    images = np.where(DISC, IMAGES, 0.01) + rng.normal(0, 0.005, IMAGES.shape)
    images[:, 2:5, 2:5] = 0.6  # a smaller bright object
    images[:, 36, 38] = 0  # a hole in the object
    found = find_mask(images, "s")
    assert (found != DISC).mean() < 0.01
    assert not found[2:5, 2:5].any()
    assert found[36, 38]


def test_without_an_object_the_search_is_rejected(rejected: AssertRejected) -> None:
    with rejected("s: no bright object", "--mask none"):
        find_mask(np.zeros((4, SIZE, SIZE)), "s")


@pytest.mark.parametrize("kind", ["weak noise", "noise", "dark noise", "gradient", "two similar halves"])
def test_pictures_without_an_object_are_rejected(kind: str, rejected: AssertRejected) -> None:
    rng = np.random.default_rng(2)
    columns = np.linspace(0, 1, SIZE)
    images = {
        "weak noise": 0.5 + 0.01 * rng.random((12, SIZE, SIZE)),
        "noise": rng.random((4, SIZE, SIZE)),
        "dark noise": np.maximum(rng.normal(0, 0.01, (4, SIZE, SIZE)), 0),
        "gradient": np.broadcast_to(columns, (4, SIZE, SIZE)),
        "two similar halves": np.broadcast_to(np.where(columns < 0.5, 0.5, 0.6), (4, SIZE, SIZE)),
    }[kind]
    with rejected("s: no bright object"):
        find_mask(images, "s")


@pytest.mark.parametrize("background", [0, 0.02, 0.1, 0.2])
def test_an_object_is_found_in_front_of_a_grey_background(background: float) -> None:
    images = np.where(DISC, IMAGES, background) + np.random.default_rng(3).normal(0, 0.01, IMAGES.shape)
    assert (find_mask(np.maximum(images, 0), "s") != DISC).mean() < 0.02


def test_a_mask_outside_the_frame_is_rejected(rejected: AssertRejected) -> None:
    capture = Capture(IMAGES.astype(np.float32), directions(FOUR), mask=DISC)
    with rejected("no pixel of the frame", "mask"):
        compute_maps(capture, fit_frame((0, 0, 8, 8), 8, "crop"))
