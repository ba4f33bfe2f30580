"""The mask of a session: from a file, an alpha channel, or the brightness; and what lies outside it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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


def test_a_mask_outside_the_frame_is_rejected(rejected: AssertRejected) -> None:
    capture = Capture(IMAGES.astype(np.float32), directions(FOUR), mask=DISC)
    with rejected("no pixel of the frame", "mask"):
        compute_maps(capture, fit_frame((0, 0, 8, 8), 8, "crop"))
