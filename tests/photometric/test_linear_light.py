"""From stored values to light: black level, response curves, ambient light, large pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fr_ps.photometric import capture_pictures
from fr_ps.photometric.captures import ReadingSettings, read_capture
from fr_ps.photometric.images import DecodedImage
from fr_ps.photometric.linear_light import CameraResponse, linear_luminance
from tests.conftest import AssertRejected, WriteCapture
from tests.photometric.surfaces import FOUR

STORED = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ("linear", lambda share: share),
        ("2.2", lambda share: share**2.2),
        ("srgb", lambda share: np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)),
    ],
)
@pytest.mark.parametrize("black", [0, 16])
def test_the_light_is_the_curve_of_the_share_between_black_and_white(curve, expected, black) -> None:  # type: ignore[no-untyped-def]
    light = CameraResponse(black, curve).to_light(DecodedImage(STORED, 240))
    share = np.clip((STORED.astype(np.float64) - black) / (240 - black), 0, 1)
    np.testing.assert_allclose(light, expected(share), atol=1e-6)


def test_a_black_level_is_a_stored_value(rejected: AssertRejected) -> None:
    """Decoded values are four times the stored ones."""
    stored = np.arange(64, dtype=np.uint16)[None]
    picture = DecodedImage(4 * stored, 252, 4.0)
    np.testing.assert_allclose(CameraResponse(13).to_light(picture), np.clip((stored - 13.0) / 50, 0, 1), atol=1e-6)
    with rejected("black_level is 63", "the white level, 63"):
        CameraResponse(63).to_light(picture)


def test_ambient_light_and_colours_are_removed_in_each_channel() -> None:
    rng = np.random.default_rng(0)
    light, ambient, intensity = rng.uniform(0.2, 0.4, (8, 8, 3)), rng.uniform(0, 0.1, (8, 8, 3)), np.array([0.5, 1, 1.5])
    picture = DecodedImage(np.rint(65535 * (light * intensity + ambient)).astype(np.uint16), 65535)
    found = linear_luminance(picture, CameraResponse(), ambient.astype(np.float32), intensity)
    np.testing.assert_allclose(found, light @ (0.299, 0.587, 0.114), atol=1e-4)


def test_an_ambient_picture_in_each_session_is_subtracted(tmp_path: Path, write_capture: WriteCapture) -> None:
    rng = np.random.default_rng(0)
    images, ambient = rng.integers(50, 200, (4, 12, 9), dtype=np.uint8), rng.integers(0, 50, (12, 9), dtype=np.uint8)
    write_capture(tmp_path, images + ambient, FOUR)
    Image.fromarray(ambient).save(tmp_path / "im_dark.png")
    found = read_capture(tmp_path, ReadingSettings(ambient="im_dark.png")).images
    np.testing.assert_allclose(found, images / 255, atol=1e-6)


def test_a_missing_ambient_picture_is_named(tmp_path: Path, write_capture: WriteCapture, rejected: AssertRejected) -> None:
    write_capture(tmp_path, np.full((4, 12, 9), 9, dtype=np.uint8), FOUR)
    with rejected(tmp_path, "no image dark.png", "--ambient"):
        read_capture(tmp_path, ReadingSettings(ambient="dark.png"))


def test_an_ambient_picture_may_differ_in_case_but_not_be_a_mask_or_have_a_light(
    tmp_path: Path, write_capture: WriteCapture, rejected: AssertRejected
) -> None:
    write_capture(tmp_path, np.full((4, 12, 9), 90, dtype=np.uint8), FOUR)
    Image.fromarray(np.full((12, 9), 40, dtype=np.uint8)).save(tmp_path / "Dark.PNG")
    Image.fromarray(np.full((12, 9), 255, dtype=np.uint8)).save(tmp_path / "mask.png")
    np.testing.assert_allclose(read_capture(tmp_path, ReadingSettings(ambient="dark.png")).images, 50 / 255, atol=1e-6)
    for name in ("mask.png", "MASK.png"):
        with rejected(tmp_path / "mask.png", "is the mask", "--ambient"):
            read_capture(tmp_path, ReadingSettings(ambient=name, mask="none"))
    with rejected(tmp_path / "im2.png", "has a light", "--ambient"):
        read_capture(tmp_path, ReadingSettings(ambient="IM2.png"))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"black_level": 100}, ["--black-level 100"]),
        ({"ambient": "lamp.png"}, ["--ambient lamp.png"]),
        ({"ambient": "dark.png", "black_level": 80}, ["--black-level 80 and --ambient dark.png"]),
        ({}, ["capture or copy them again"]),
    ],
)
def test_pictures_without_light_are_rejected(
    masked: bool,
    settings: dict[str, Any],
    words: list[str],
    tmp_path: Path,
    write_capture: WriteCapture,
    rejected: AssertRejected,
) -> None:
    """Inside the mask, which is half of the picture: outside, they are bright."""
    inside = np.arange(40) < 20 if masked else np.ones(40, dtype=bool)
    images = np.full((4, 40, 40), 90 if settings else 0, dtype=np.uint8)
    images[:, :, ~inside] = 200
    images[1, 3, 3] = 255  # one hot pixel
    write_capture(tmp_path, images, FOUR)
    for name, level in (("lamp.png", 150), ("dark.png", 90)):
        Image.fromarray(np.full((40, 40), level, dtype=np.uint8)).save(tmp_path / name)
    if masked:
        Image.fromarray(np.where(inside, 255, 0).astype(np.uint8) * np.ones((40, 1), np.uint8)).save(tmp_path / "mask.png")
    with rejected(tmp_path, "pictures are black", *words):
        read_capture(tmp_path, ReadingSettings(**settings))
    if settings:
        read_capture(tmp_path, ReadingSettings(black_level=80))


def test_large_pictures_are_averaged_as_they_are_read(
    tmp_path: Path, write_capture: WriteCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (4, 13, 10), dtype=np.uint8)
    images[0, 2, 3] = 255
    write_capture(tmp_path, images, FOUR)
    (tmp_path / "metadata.txt").write_text("1 4\n3 4\n4.5 2\n6 4\n8 4\n3 7\n4.5 7\n6 7\n3 9\n6 9\n4.5 12\n")
    Image.fromarray(np.where(np.arange(10) < 5, 255, 0).astype(np.uint8) * np.ones((13, 1), np.uint8)).save(tmp_path / "mask.png")
    whole = read_capture(tmp_path)
    monkeypatch.setattr(capture_pictures, "MAX_VALUES", 4 * 13 * 10 // 4)
    half = read_capture(tmp_path)
    assert (half.reduction, half.images.shape) == (2, (4, 6, 5))
    expected = whole.images[:, :12].reshape(4, 6, 2, 5, 2).mean(axis=(2, 4))
    expected[:, :, 2] = whole.images[:, :12, 4].reshape(4, 6, 2).mean(axis=2)  # half of the pixel is inside the mask
    expected[:, :, 3:] = 0
    np.testing.assert_allclose(half.images, expected, atol=1e-6)
    assert np.argwhere(half.saturated).tolist() == [[0, 1, 1]]
    np.testing.assert_allclose(half.landmarks, whole.landmarks / 2)
    assert half.mask[:, :3].all()
    assert not half.mask[:, 3:].any()
