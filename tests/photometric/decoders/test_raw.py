"""Camera raw files: a DNG written by its specification gives the sensor's values, less the black level."""

from pathlib import Path

import numpy as np
import pytest

from fr_ps.photometric.images import count_pixels, read_image

rawpy = pytest.importorskip("rawpy", reason="needs the extra fr-ps[raw]")
tifffile = pytest.importorskip("tifffile", reason="needs the extra fr-ps[tiff]")

BLACK, WHITE = 256, 4000
COLORS = {"red": (0, 0, 0), "green": (0, 1, 1), "other green": (1, 0, 1), "blue": (1, 1, 2)}
"""Row, column and channel of each colour in the Bayer pattern RGGB."""


def write_dng(path: Path, mosaic: np.ndarray, orientation: int = 1) -> Path:
    """A DNG of the sensor's values (H, W), with a white balance of (2, 1, 1.5) as shot."""
    tags = [
        (271, "s", 0, "Test"),
        (272, "s", 0, "Camera"),
        (274, "H", 1, orientation),
        (33421, "H", 2, (2, 2)),  # CFARepeatPatternDim
        (33422, "B", 4, bytes([0, 1, 1, 2])),  # CFAPattern
        (50706, "B", 4, bytes([1, 4, 0, 0])),  # DNGVersion
        (50708, "s", 0, "Test Camera"),  # UniqueCameraModel
        (50714, "H", 1, BLACK),
        (50717, "H", 1, WHITE),
        (50721, 10, 9, (1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1)),  # ColorMatrix1
        (50728, 5, 3, (1, 2, 1, 1, 2, 3)),  # AsShotNeutral
        (50778, "H", 1, 21),  # CalibrationIlluminant1
    ]
    tifffile.imwrite(path, mosaic.astype(np.uint16), photometric="cfa", metadata=None, extratags=tags)
    return path


MOSAIC = np.random.default_rng(0).integers(BLACK, WHITE + 1, (64, 80))


def test_the_sensors_values_are_kept_in_their_channel(tmp_path: Path) -> None:
    picture = read_image(write_dng(tmp_path / "a.dng", MOSAIC))
    assert picture.values.shape == (64, 80, 3)
    for row, column, channel in COLORS.values():
        np.testing.assert_array_equal(picture.values[row::2, column::2, channel], MOSAIC[row::2, column::2] - BLACK)
    assert count_pixels(tmp_path / "a.dng") == 64 * 80


def test_the_colours_between_are_means_of_their_neighbours(tmp_path: Path) -> None:
    values = read_image(write_dng(tmp_path / "a.dng", MOSAIC)).values
    light = MOSAIC.astype(np.float64) - BLACK
    red = (light[4:-4:2, 4:-6:2] + light[4:-4:2, 6:-4:2]) / 2
    np.testing.assert_allclose(values[4:-4:2, 5:-5:2, 0], red, atol=1)
    green = (light[3:-5:2, 4:-4:2] + light[5:-3:2, 4:-4:2] + light[4:-4:2, 3:-5:2] + light[4:-4:2, 5:-3:2]) / 4
    np.testing.assert_allclose(values[4:-4:2, 4:-4:2, 1], green, atol=1)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_light_is_linear_and_the_same_in_every_picture(share: float, tmp_path: Path) -> None:
    """Neither white balance nor brightening: a picture of less light has proportionally smaller values."""
    light = (WHITE - BLACK) * np.linspace(0.1, 1, 80)[None] * np.ones((64, 1))
    picture = read_image(write_dng(tmp_path / "a.dng", np.rint(BLACK + share * light)))
    np.testing.assert_allclose(picture.luminance[2:-2, 2:-2], (share * light / (WHITE - BLACK))[2:-2, 2:-2], atol=3e-4)
    assert picture.saturated[:, :-2].sum() == 0


def test_white_and_black_level_are_those_of_the_file(tmp_path: Path, rejected) -> None:
    mosaic = np.full((64, 80), 1000)
    mosaic[20:30, 20:30] = WHITE
    write_dng(tmp_path / "a.dng", mosaic)
    picture = read_image(tmp_path / "a.dng")
    assert picture.saturated[22:28, 22:28].all()
    assert not picture.saturated[:18].any()
    assert picture.luminance[25, 25] == pytest.approx(1)
    assert picture.luminance[5, 5] == pytest.approx((1000 - BLACK) / (WHITE - BLACK), abs=1e-5)
    assert (picture.stored(picture.white), picture.stored(0)) == (WHITE, BLACK)
    lower = read_image(tmp_path / "a.dng", 1000)
    assert lower.saturated.all()
    for level in (WHITE + 1, BLACK):
        with rejected("a.dng", f"white level is {level}", "--white-level"):
            read_image(tmp_path / "a.dng", level)


def test_a_raw_file_is_upright(tmp_path: Path) -> None:
    level = read_image(write_dng(tmp_path / "a.dng", MOSAIC)).values
    turned = read_image(write_dng(tmp_path / "b.dng", MOSAIC, orientation=6)).values
    np.testing.assert_array_equal(turned, np.rot90(level, -1))


@pytest.mark.parametrize("name", ["a.nef", "a.CR2", "a.dng"])
def test_files_that_are_not_raw_or_truncated_are_rejected(name: str, tmp_path: Path, rejected) -> None:
    whole = write_dng(tmp_path / "whole.dng", MOSAIC).read_bytes()
    for content in (b"", b"not a raw file\nat all", whole[:300], whole[: len(whole) // 2], b"\x89PNG\r\n\x1a\n" + bytes(5000)):
        (tmp_path / name).write_bytes(content)
        with rejected(tmp_path / name, "not a readable image"):
            read_image(tmp_path / name)
