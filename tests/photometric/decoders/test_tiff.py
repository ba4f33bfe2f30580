"""TIFF that Pillow does not decode: files by the specification or by tifffile give the values that were written."""

import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fr_ps.errors import InputError
from fr_ps.photometric.images import count_pixels, read_image
from tests.photometric.test_images import UPRIGHT

pytest.importorskip("imagecodecs", reason="needs the extra fr-ps[tiff]")
tifffile = pytest.importorskip("tifffile", reason="needs the extra fr-ps[tiff]")

RGB = np.random.default_rng(0).random((8, 9, 3)).astype(np.float32)


def packed_tiff(values: np.ndarray, bits: int, order: str = "<") -> bytes:
    """A grey TIFF (H, W) of `bits` a sample without gaps, each row from a new byte on, by the specification."""
    height, width = values.shape
    rows = ["".join(f"{value:0{bits}b}" for value in row) for row in values]
    rows = [row + "0" * (-len(row) % 8) for row in rows]
    body = b"".join(int(row, 2).to_bytes(len(row) // 8, "big") for row in rows)
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 1), (273, 122), (277, 1), (278, height), (279, len(body))]
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    return head + entries + bytes(4) + body


@given(st.sampled_from([10, 12, 14]), st.sampled_from("<>"), st.integers(1, 9), st.integers(1, 5), st.integers(0, 99))
def test_packed_bits_are_unpacked_and_their_white_is_that_of_the_bits(
    bits: int, order: str, width: int, height: int, seed: int
) -> None:
    values = np.random.default_rng(seed).integers(0, 1 << bits, (height, width))
    values[0, 0] = (1 << bits) - 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.tif"
        path.write_bytes(packed_tiff(values, bits, order))
        picture = read_image(path)
        assert count_pixels(path) == width * height
    np.testing.assert_array_equal(picture.values, values)
    np.testing.assert_array_equal(picture.saturated, values == (1 << bits) - 1)
    np.testing.assert_allclose(picture.luminance, values / ((1 << bits) - 1), atol=1e-6)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "zstd"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("channels", [1, 3])
def test_floats_are_read_as_they_are_and_never_saturated(
    compression: str | None, dtype: str, channels: int, tmp_path: Path
) -> None:
    values = (5 * (RGB if channels == 3 else RGB[..., 0])).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, compression=compression, photometric="rgb" if channels == 3 else "minisblack")
    picture = read_image(tmp_path / "a.tif")
    assert picture.values.dtype == np.float32
    np.testing.assert_array_equal(picture.values, values.astype(np.float32))
    assert not picture.saturated.any()
    light = values.astype(np.float64) @ [0.299, 0.587, 0.114] if channels == 3 else values.astype(np.float64)
    np.testing.assert_allclose(picture.luminance, light, rtol=1e-5)
    assert picture.luminance.max() > 1
    at_2 = read_image(tmp_path / "a.tif", 2.5)
    np.testing.assert_array_equal(at_2.saturated, (values >= 2.5).any(axis=2) if channels == 3 else values >= 2.5)
    np.testing.assert_allclose(at_2.luminance, np.minimum(light / 2.5, 1), rtol=1e-5)


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_16_bit_colour_in_planes_is_upright_and_complete(orientation: int, tmp_path: Path) -> None:
    deep = (RGB * 65535).astype(np.uint16)
    deep[0, 0, 2] = 65535
    stored = deep.transpose(2, 0, 1)
    tifffile.imwrite(
        tmp_path / "a.tif", stored, photometric="rgb", planarconfig="separate", extratags=[(274, "H", 1, orientation)]
    )
    picture = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(picture.values, UPRIGHT[orientation](deep))
    assert picture.saturated.sum() == (deep == 65535).any(axis=2).sum()


def test_an_alpha_channel_gives_the_opaque_pixels(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.dstack([RGB, RGB[..., 0]]), photometric="rgb", extrasamples=["unassalpha"])
    picture = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(picture.values, RGB)
    np.testing.assert_array_equal(picture.opaque, RGB[..., 0] > 0.5)


def test_negative_values_are_0_and_nan_and_infinity_are_rejected_with_their_place(tmp_path: Path, rejected) -> None:
    values = RGB[..., 0] - 0.5
    tifffile.imwrite(tmp_path / "a.tif", values)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").values, np.maximum(values, 0))
    for bad in (np.nan, np.inf, -np.inf, 1e300):
        damaged = values.astype(np.float64)
        damaged[3, 4] = bad
        tifffile.imwrite(tmp_path / "a.tif", damaged)
        with rejected(tmp_path / "a.tif", "NaN or infinity", "row 3, column 4"):
            read_image(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        (RGB[..., 0].astype(np.complex64), {}, "64-bit complex"),
        ((RGB[..., 0] * 99).astype(np.int16), {}, "16-bit signed"),
        ((RGB[..., 0] * 99).astype(np.uint32), {}, "32-bit unsigned"),
        (RGB[..., 0], {"photometric": "miniswhite"}, "MINISWHITE"),
        (RGB[..., :2], {"planarconfig": "contig", "photometric": "minisblack"}, "2 channels"),
        (np.zeros((5, 8, 9), np.float32), {"volumetric": True, "tile": (5, 16, 16)}, "volume"),
    ],
)
def test_other_kinds_of_samples_are_rejected(
    values: np.ndarray, options: dict[str, object], words: str, tmp_path: Path, rejected
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    with rejected(tmp_path / "a.tif", words):
        read_image(tmp_path / "a.tif")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about damaged tags
@pytest.mark.parametrize("kept", [0.95, 0.5, 0.1, 0.01])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_truncated_file_is_rejected(kept: float, compression: str | None, tmp_path: Path, rejected) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.tile(RGB, (4, 4, 1)), photometric="rgb", compression=compression)
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[: int(len(whole) * kept)])
    with rejected(tmp_path / "a.tif"):
        read_image(tmp_path / "a.tif")


@pytest.mark.filterwarnings("ignore::UserWarning")  # as above
@given(st.data())
def test_a_file_with_changed_bytes_is_read_or_rejected(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.tif"
        tifffile.imwrite(path, RGB, photometric="rgb", compression=data.draw(st.sampled_from([None, "zlib", "lzw"])))
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content)
        try:
            picture = read_image(path)
        except InputError:
            return
        assert picture.luminance.shape == picture.saturated.shape
        assert np.isfinite(picture.luminance).all()


def test_too_many_pixels_are_rejected_by_the_header(tmp_path: Path, rejected) -> None:
    (tmp_path / "a.tif").write_bytes(packed_tiff(np.zeros((1, 1), int), 12).replace(*[
        struct.pack("<HHII", tag, 4, 1, side) for tag, side in ((256, 1), (256, 90_000_000))
    ]))  # fmt: skip
    for read in (read_image, count_pixels):
        with rejected(tmp_path / "a.tif", "90000000 x 1", "64 million"):
            read(tmp_path / "a.tif")
