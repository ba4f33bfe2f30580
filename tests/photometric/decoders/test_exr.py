"""OpenEXR: files written by its own library give the values that were written."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fr_ps.photometric.images import count_pixels, read_image

OpenEXR = pytest.importorskip("OpenEXR", reason="needs the extra fr-ps[exr]")

RGB = np.random.default_rng(0).random((40, 30, 3)).astype(np.float32)


def write_exr(path: Path, channels: dict[str, np.ndarray], **header: object) -> Path:
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage} | header
    OpenEXR.File(header, {name: np.ascontiguousarray(values) for name, values in channels.items()}).write(str(path))
    return path


def test_colour_keeps_its_values_and_order(tmp_path: Path) -> None:
    picture = read_image(write_exr(tmp_path / "a.exr", {"RGB": 7 * RGB}))
    np.testing.assert_array_equal(picture.values, 7 * RGB)
    np.testing.assert_allclose(picture.luminance, 7 * RGB @ [0.299, 0.587, 0.114], rtol=1e-5)
    assert not picture.saturated.any()
    assert count_pixels(tmp_path / "a.exr") == 1200
    (tmp_path / "a.exr").rename(tmp_path / "a.img")  # by its first bytes
    np.testing.assert_array_equal(read_image(tmp_path / "a.img").values, 7 * RGB)


@given(
    st.sampled_from([np.float16, np.float32]).flatmap(
        lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9), elements={"min_value": 0})
    ),
    st.sampled_from(["NO", "RLE", "ZIPS", "ZIP", "PIZ"]),
    st.sampled_from(["Y", "depth.Z"]),
)
def test_one_channel_of_half_or_float_is_grey(values: np.ndarray, compression: str, name: str) -> None:
    values = np.nan_to_num(values, posinf=1)
    with tempfile.TemporaryDirectory() as folder:
        path = write_exr(Path(folder) / "a.exr", {name: values}, compression=getattr(OpenEXR, f"{compression}_COMPRESSION"))
        np.testing.assert_array_equal(read_image(path).values, values.astype(np.float32))


def test_a_white_level_saturates_and_is_light_1(tmp_path: Path) -> None:
    picture = read_image(write_exr(tmp_path / "a.exr", {"Y": RGB[..., 0]}), 0.25)
    np.testing.assert_allclose(picture.luminance, np.minimum(RGB[..., 0] / 0.25, 1), rtol=1e-6)
    np.testing.assert_array_equal(picture.saturated, RGB[..., 0] >= 0.25)


def test_an_alpha_channel_gives_the_opaque_pixels(tmp_path: Path) -> None:
    picture = read_image(write_exr(tmp_path / "a.exr", {"RGBA": np.dstack([RGB, RGB[..., 1]])}))
    np.testing.assert_array_equal(picture.values, RGB)
    np.testing.assert_array_equal(picture.opaque, RGB[..., 1] > 0.5)


@pytest.mark.parametrize(
    ("channels", "words"),
    [
        ({"X": RGB[..., 0], "Y": RGB[..., 1]}, ["X, Y", "expected R, G and B"]),
        ({"id": np.zeros((4, 4), np.uint32)}, ["whole numbers"]),
        ({"Y": np.array([[1, 2], [np.nan, 3]], np.float32)}, ["NaN", "row 1, column 0"]),
        ({"Y": np.array([[1, 2], [3, np.inf]], np.float16)}, ["NaN or infinity", "row 1, column 1"]),
    ],
)
def test_other_channels_and_values_are_rejected(
    channels: dict[str, np.ndarray], words: list[str], tmp_path: Path, rejected
) -> None:
    write_exr(tmp_path / "a.exr", channels)
    with rejected(tmp_path / "a.exr", *words):
        read_image(tmp_path / "a.exr")


@pytest.mark.parametrize("kept", [0.99, 0.5, 0.02, 0.0])
def test_a_truncated_file_is_rejected(kept: float, tmp_path: Path, rejected) -> None:
    whole = write_exr(tmp_path / "a.exr", {"RGB": RGB}).read_bytes()
    (tmp_path / "a.exr").write_bytes(whole[: int(kept * len(whole))])
    with rejected(tmp_path / "a.exr", "not a readable image"):
        read_image(tmp_path / "a.exr")


def test_too_many_pixels_are_rejected_by_the_header(tmp_path: Path, rejected) -> None:
    content = bytearray(write_exr(tmp_path / "a.exr", {"RGB": RGB}).read_bytes())
    at = content.index(b"dataWindow\0box2i\0") + len(b"dataWindow\0box2i\0") + 4
    content[at + 8 : at + 16] = np.array([8999, 8999], "<i4").tobytes()
    (tmp_path / "a.exr").write_bytes(content)
    for read in (read_image, count_pixels):
        with rejected(tmp_path / "a.exr", "64 million"):
            read(tmp_path / "a.exr")
