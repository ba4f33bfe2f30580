"""Reading pictures: every format gives the same luminance, and damaged pictures are rejected."""

import os
import struct
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fr_ps.errors import InputError
from fr_ps.photometric.images import DecodedImage, SaturationSearch, count_pixels, read_image

GREY = np.random.default_rng(0).integers(0, 256, (12, 9), dtype=np.uint8)
DEEP = np.random.default_rng(1).integers(0, 65536, (6, 7, 3), dtype=np.uint16)
WEIGHTS = [0.299, 0.587, 0.114]


def png_16(values: np.ndarray, orientation: int = 1, further_chunks: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    """A PNG (H, W, channels) of 16 bits, written by the specification, because Pillow writes none in colour."""
    height, width, channels = values.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    exif = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 274, 3, 1, orientation, 0)
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + (chunk(b"eXIf", exif) if orientation != 1 else b"")
    head += b"".join(chunk(kind, body) for kind, body in further_chunks)
    return head + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def tiff_16(
    values: np.ndarray, *, order: str = "<", deflate: bool = False, strips: int = 1, planar: int = 1, orientation: int = 1
) -> bytes:
    """A TIFF (H, W, 3) of 16 bits, written by the specification."""
    height, width, channels = values.shape
    rows = -(-height // strips)
    bodies = [values[top : top + rows].astype(f"{order}u2").tobytes() for top in range(0, height, rows)]
    if deflate:
        bodies = [zlib.compress(body) for body in bodies]
    first = 8 + 2 + 11 * 12 + 4
    bits = struct.pack(f"{order}{channels}H", *[16] * channels)
    lists = first + len(bits)
    data = lists + 8 * len(bodies)
    offsets = [data + sum(map(len, bodies[:k])) for k in range(len(bodies))]
    lengths = [len(body) for body in bodies]

    def entry(tag: int, values: list[int], at: int) -> bytes:
        value = struct.pack(f"{order}I", values[0] if len(values) == 1 else at)
        return struct.pack(f"{order}HHI", tag, 4, len(values)) + value

    entries = [entry(256, [width], 0), entry(257, [height], 0), struct.pack(f"{order}HHII", 258, 3, channels, first)]
    entries += [entry(259, [8 if deflate else 1], 0), entry(262, [2], 0), entry(273, offsets, lists)]
    entries += [entry(274, [orientation], 0), entry(277, [channels], 0)]
    entries += [entry(278, [rows], 0), entry(279, lengths, lists + 4 * len(bodies)), entry(284, [planar], 0)]
    mark = b"II*\0" if order == "<" else b"MM\0*"
    head = mark + struct.pack(f"{order}IH", 8, len(entries)) + b"".join(entries) + bytes(4)
    return head + bits + struct.pack(f"{order}{2 * len(bodies)}I", *offsets, *lengths) + b"".join(bodies)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.pgm", "a.tif"])
def test_every_format_gives_the_same_picture(name: str, tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / name)
    picture = read_image(tmp_path / name)
    assert picture.luminance.dtype == np.float32
    np.testing.assert_allclose(picture.luminance, GREY / 255, atol=1e-7)
    np.testing.assert_array_equal(picture.saturated, GREY == 255)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm", "big.tif"])
def test_16_bits_are_as_8_with_finer_steps(name: str, tmp_path: Path) -> None:
    deep = DEEP[..., 0].copy()
    deep[2, 3] = 65535
    if name == "a.pgm":
        (tmp_path / name).write_bytes(b"P5\n7 6\n65535\n" + deep.astype(">u2").tobytes())
    elif name == "big.tif":
        Image.frombytes("I;16B", (7, 6), deep.astype(">u2").tobytes()).save(tmp_path / name)
    else:
        Image.fromarray(deep).save(tmp_path / name)
    picture = read_image(tmp_path / name)
    np.testing.assert_allclose(picture.luminance, deep / 65535, atol=1e-7)
    np.testing.assert_array_equal(picture.saturated, deep == 65535)


def test_a_pgm_of_12_bits_has_its_own_white(tmp_path: Path) -> None:
    values = DEEP[..., 0] >> 4
    values[0, 0] = 4095
    (tmp_path / "a.pgm").write_bytes(b"P5\n7 6\n4095\n" + values.astype(">u2").tobytes())
    picture = read_image(tmp_path / "a.pgm")
    np.testing.assert_allclose(picture.luminance, values / 4095, atol=1e-5)
    np.testing.assert_array_equal(picture.saturated, values == 4095)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif"])
def test_colour_becomes_luminance_that_is_not_rounded_to_8_bits(name: str, tmp_path: Path) -> None:
    colour = (DEEP >> 8).astype(np.uint8)
    Image.fromarray(colour).save(tmp_path / name)
    np.testing.assert_allclose(read_image(tmp_path / name).luminance, colour @ WEIGHTS / 255, atol=1e-6)


def test_a_clipped_channel_is_saturated_although_the_pixel_is_not_white(tmp_path: Path) -> None:
    colour = np.full((2, 2, 3), 100, dtype=np.uint8)
    colour[0, 1] = 255, 120, 90
    Image.fromarray(colour).save(tmp_path / "a.png")
    picture = read_image(tmp_path / "a.png")
    assert picture.saturated.tolist() == [[False, True], [False, False]]
    assert picture.luminance.max() < 0.7


def test_white_is_1_in_colour_too(tmp_path: Path) -> None:
    Image.new("RGB", (33, 5), "white").save(tmp_path / "a.png")
    picture = read_image(tmp_path / "a.png")
    assert picture.luminance.max() <= 1
    np.testing.assert_allclose(picture.luminance, 1, atol=1e-6)
    assert picture.saturated.all()


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    colour = np.array([[[250, 20, 20], [20, 250, 20]]], dtype=np.uint8)
    Image.fromarray(colour).quantize(2).save(tmp_path / "a.bmp")
    np.testing.assert_allclose(read_image(tmp_path / "a.bmp").luminance, colour @ WEIGHTS / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", png_16(DEEP)),
        ("little.tif", tiff_16(DEEP)),
        ("big.tif", tiff_16(DEEP, order=">")),
        ("strips.tif", tiff_16(DEEP, strips=3)),
        ("deflate.tif", tiff_16(DEEP, deflate=True)),
        ("deflate_big.tif", tiff_16(DEEP, order=">", deflate=True, strips=2)),
    ],
)
def test_16_bit_colour_keeps_its_lower_byte(name: str, content: bytes, tmp_path: Path, rejected) -> None:
    (tmp_path / name).write_bytes(content)
    picture = read_image(tmp_path / name)
    np.testing.assert_allclose(picture.luminance, DEEP @ WEIGHTS / 65535, atol=1e-6)
    np.testing.assert_array_equal(picture.saturated, (DEEP == 65535).any(axis=2))
    (tmp_path / name).write_bytes(content[: len(content) * 2 // 3])
    with rejected(tmp_path / name):
        read_image(tmp_path / name)


def test_16_bit_colour_is_saturated_at_65535_and_not_below(tmp_path: Path) -> None:
    deep = np.full((1, 2, 3), 65534, dtype=np.uint16)
    deep[0, 1, 2] = 65535
    (tmp_path / "a.png").write_bytes(png_16(deep))
    assert read_image(tmp_path / "a.png").saturated.tolist() == [[False, True]]


UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored, 1),
}
"""By the definition of the tag: 6 is a rotation of the stored picture by 90 degrees clockwise."""


def saved(path: Path, values: np.ndarray, orientation: int, **options: object) -> None:
    """The tag in the form that Pillow writes."""
    if path.suffix == ".tif":
        Image.fromarray(values).save(path, tiffinfo={274: orientation}, **options)
    else:
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(values).save(path, exif=exif, **options)


TURNED = {
    "grey.png": lambda path, orientation: saved(path, GREY, orientation),
    "colour.png": lambda path, orientation: saved(path, (DEEP >> 8).astype(np.uint8), orientation),
    "deep.png": lambda path, orientation: saved(path, DEEP[..., 0].copy(), orientation),
    "deep colour.png": lambda path, orientation: path.write_bytes(png_16(DEEP, orientation)),
    "grey.tif": lambda path, orientation: saved(path, GREY, orientation),
    "packed grey.tif": lambda path, orientation: saved(path, GREY, orientation, compression="tiff_deflate"),
    "colour.tif": lambda path, orientation: saved(path, (DEEP >> 8).astype(np.uint8), orientation),
    "deep.tif": lambda path, orientation: saved(path, DEEP[..., 0].copy(), orientation),
    "packed deep.tif": lambda path, orientation: saved(path, DEEP[..., 0].copy(), orientation, compression="tiff_lzw"),
    "deep colour.tif": lambda path, orientation: path.write_bytes(tiff_16(DEEP, orientation=orientation)),
    "packed deep colour.tif": lambda path, orientation: path.write_bytes(tiff_16(DEEP, orientation=orientation, deflate=True)),
    "strips.tif": lambda path, orientation: path.write_bytes(tiff_16(DEEP, orientation=orientation, strips=3, order=">")),
    "grey.jpg": lambda path, orientation: saved(path, np.kron(GREY, np.ones((8, 8), np.uint8)), orientation, quality=100),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("name", TURNED)
def test_the_orientation_tag_is_applied_in_every_format(name: str, orientation: int, tmp_path: Path) -> None:
    TURNED[name](tmp_path / "1.jpg" if name.endswith("jpg") else tmp_path / f"1{name[-4:]}", 1)
    TURNED[name](tmp_path / name, orientation)
    stored, picture = read_image(tmp_path / f"1{name[-4:]}"), read_image(tmp_path / name)
    np.testing.assert_array_equal(picture.luminance, UPRIGHT[orientation](stored.luminance))
    np.testing.assert_array_equal(picture.saturated, UPRIGHT[orientation](stored.saturated))
    if name == "grey.png":
        np.testing.assert_allclose(picture.luminance, UPRIGHT[orientation](GREY) / 255, atol=1e-7)


@pytest.mark.parametrize(("white", "bits"), [(4095, 16), (200, 8), (65535, 16), (1, 16)])
def test_luminance_is_1_and_saturated_from_the_white_level_on(white: int, bits: int, tmp_path: Path) -> None:
    values = GREY if bits == 8 else DEEP[..., 0] >> 3
    Image.fromarray(values).save(tmp_path / "a.png")
    picture = read_image(tmp_path / "a.png", white)
    np.testing.assert_allclose(picture.luminance, np.minimum(values / white, 1), rtol=1e-6)
    np.testing.assert_array_equal(picture.saturated, values >= white)


def test_the_white_level_of_a_pgm_is_a_stored_value(tmp_path: Path, rejected) -> None:
    values = np.array([[0, 1000], [2000, 3000]], dtype=np.uint16)
    (tmp_path / "a.pgm").write_bytes(b"P5\n2 2\n4095\n" + values.astype(">u2").tobytes())
    picture = read_image(tmp_path / "a.pgm", 2000)
    np.testing.assert_allclose(picture.luminance, [[0, 0.5], [1, 1]], atol=1e-4)
    np.testing.assert_array_equal(picture.saturated, values >= 2000)
    with rejected("a.pgm", "5000", "4095", "--white-level"):
        read_image(tmp_path / "a.pgm", 5000)


@pytest.mark.parametrize("largest", [100, 162, 300, 4095])
def test_every_white_level_of_a_pgm_saturates_exactly_the_values_from_it_on(largest: int, tmp_path: Path) -> None:
    values = np.arange(largest + 1)
    stored = values.astype("u1" if largest < 256 else ">u2").tobytes()
    (tmp_path / "a.pgm").write_bytes(b"P5\n%d 1\n%d\n" % (largest + 1, largest) + stored)
    for level in range(1, largest + 1, 1 if largest < 256 else 67):
        np.testing.assert_array_equal(read_image(tmp_path / "a.pgm", level).saturated[0], values >= level)


def test_a_white_level_holds_for_each_channel_of_a_colour(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_16(DEEP))
    picture = read_image(tmp_path / "a.png", 40000)
    np.testing.assert_allclose(picture.luminance, np.minimum(DEEP @ WEIGHTS / 40000, 1), atol=1e-6)
    np.testing.assert_array_equal(picture.saturated, (DEEP >= 40000).any(axis=2))


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_an_sbit_chunk_of_a_png_states_the_white_level(bits: int, tmp_path: Path) -> None:
    """By the specification, the significant bits are the upper ones; the lower ones are free."""
    white = (1 << 16) - (1 << (16 - bits))
    deep = DEEP[..., :1].copy()
    deep[0, :3, 0] = white, white - 1, 65535
    chunks = ((b"gAMA", struct.pack(">I", 100_000)), (b"sBIT", bytes([bits])))
    (tmp_path / "a.png").write_bytes(png_16(deep, further_chunks=chunks))
    picture = read_image(tmp_path / "a.png")
    assert picture.saturated[0, :3].tolist() == [True, False, True]
    np.testing.assert_allclose(picture.luminance, np.minimum(deep[..., 0] / white, 1), atol=1e-6)
    assert read_image(tmp_path / "a.png", 30000).white == 30000
    for channels, chunk in ((3, bytes([bits - 1, bits, bits])), (4, bytes([bits, bits, bits, 16])), (3, bytes([16, 16, 16]))):
        deep = np.dstack([DEEP, DEEP[..., 0]])[..., :channels]
        (tmp_path / "a.png").write_bytes(png_16(deep, further_chunks=((b"sBIT", chunk),)))
        assert read_image(tmp_path / "a.png").white == (white if bits in chunk else 65535)


@pytest.mark.parametrize(("stated", "white"), [(1023, 1023), (4095, 4095), (16383, 16383), (4000, 65535), (70000, 65535)])
def test_a_largest_sample_value_of_a_tiff_counts_if_it_is_that_of_whole_bits(stated: int, white: int, tmp_path: Path) -> None:
    values = DEEP[..., 0] >> 4
    Image.fromarray(values).save(tmp_path / "a.tif", tiffinfo={341: stated})
    picture = read_image(tmp_path / "a.tif")
    assert picture.white == white
    np.testing.assert_array_equal(picture.saturated, values >= white)


def test_pictures_that_are_encoded_for_a_screen_are_recognised(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.jpg")
    Image.fromarray(GREY).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.jpg").encoded
    assert not read_image(tmp_path / "a.png").encoded
    for kind, body, encoded in ((b"sRGB", b"\0", True), (b"gAMA", 45_455, True), (b"gAMA", 100_000, False)):
        body = struct.pack(">I", body) if isinstance(body, int) else body
        (tmp_path / "a.png").write_bytes(png_16(DEEP, further_chunks=((kind, body),)))
        assert read_image(tmp_path / "a.png").encoded == encoded


@pytest.mark.parametrize(
    ("name", "package", "extra"), [("a.exr", "OpenEXR", "exr"), ("a.cr3", "rawpy", "raw"), ("a.tif", "tifffile", "tiff")]
)
def test_a_missing_package_is_named_by_its_extra(
    name: str, package: str, extra: str, tmp_path: Path, rejected, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("F", (4, 4)).save(tmp_path / name, format="TIFF")
    monkeypatch.setitem(sys.modules, package, None)
    for read in (read_image, count_pixels):
        with rejected(tmp_path / name, f"pip install 'fr-ps[{extra}]'"):
            if read is count_pixels and extra == "tiff":  # Pillow reads the header
                assert read(tmp_path / name) == 16
                read_image(tmp_path / name)
            read(tmp_path / name)


def exposed(most: int, share: float = 1.0, seed: int = 0) -> np.ndarray:
    """(64, 64) of a bright blob in noise whose peak is `share` times `most`, clipped at `most`."""
    rng = np.random.default_rng(seed)
    x, y = np.mgrid[-1:1:64j, -1:1:64j]
    light = np.exp(-3 * (x**2 + y**2)) + rng.normal(0, 0.01, (64, 64))
    return np.clip(np.rint(most * share * light), 0, most).astype(np.uint16)


def decoded(values: np.ndarray, white: int = 65535, scale: float = 1) -> DecodedImage:
    return DecodedImage(values, white, scale)


def find_saturation_level(pictures: list[DecodedImage]) -> int | None:
    search = SaturationSearch()
    for picture in pictures:
        search.add(picture)
    return search.level()


@pytest.mark.parametrize("most", [1023, 4095, 16383, 3967, 250])
def test_a_peak_at_the_largest_value_is_the_saturation_level(most: int) -> None:
    assert find_saturation_level([decoded(exposed(most, 1.3)), decoded(exposed(most, 0.7, 1))]) == most


@pytest.mark.parametrize("step", [1, 16, 257])
@pytest.mark.parametrize("most", [10, 40, 200, 4095, 40000])
def test_unsaturated_pictures_have_no_saturation_level(most: int, step: int) -> None:
    if most * step < 65535:
        assert find_saturation_level([decoded(exposed(most, 0.9, seed) * step) for seed in range(4)]) is None


def test_constant_pictures_and_the_known_white_level_give_no_saturation_level() -> None:
    for levels in ((100, 100, 100, 100), (90, 100, 110), (0, 0, 0, 0)):
        assert find_saturation_level([decoded(np.full((32, 32), level, np.uint8), 255) for level in levels]) is None
    assert find_saturation_level([decoded(exposed(4095, 1.3), 4095)]) is None


def test_pixels_outside_the_mask_do_not_count_for_the_white_level() -> None:
    """A sensor that saturates at 4095, and a background of 65535, which a program has painted."""
    inside = np.arange(64) < 32
    values = exposed(4095, 1.3)
    painted = decoded(np.where(inside, values, 65535).astype(np.uint16))
    search, unmasked = SaturationSearch(), SaturationSearch()
    search.add(painted, np.broadcast_to(inside, values.shape))
    unmasked.add(painted)
    assert (search.level(), unmasked.level()) == (4095, None)
    outside = SaturationSearch()
    outside.add(decoded(np.where(inside, 90, 200).astype(np.uint8)[None], 100), inside[None])
    assert outside.above_white() == (0, 90)


def test_pictures_of_different_scales_have_no_saturation_level() -> None:
    assert find_saturation_level([decoded(exposed(4095, 1.3)), decoded(exposed(4095, 1.3), scale=16)]) is None


def test_a_picture_of_too_many_pixels_is_rejected_by_its_header(tmp_path: Path, rejected, recwarn) -> None:
    for side in (9_000, 13_000, 20_000):  # Pillow accepts the first, warns of the second, and rejects the third
        header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        chunks = b"".join(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            for kind, body in ((b"IHDR", header), (b"IDAT", b""), (b"IEND", b""))
        )
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
        for read in (read_image, count_pixels):
            with rejected("a.png", "pixels", "64 million"):
                read(tmp_path / "a.png")
    assert not recwarn.list
    Image.fromarray(GREY).save(tmp_path / "b.png")
    assert count_pixels(tmp_path / "b.png") == GREY.size


def test_special_files_are_rejected_without_blocking(tmp_path: Path, rejected) -> None:
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").mkdir()
    (tmp_path / "c.png").symlink_to("/dev/zero")
    for name in ("a.png", "b.png", "c.png"):
        with rejected(name, "not a regular file"):
            read_image(tmp_path / name)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about damaged tags
@given(st.data())
def test_a_picture_with_changed_bytes_is_read_or_rejected(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        name = data.draw(st.sampled_from(["grey.png", "grey.tif", "deep colour.tif", "grey.jpg"]))
        path = Path(folder) / name
        TURNED[name](path, 6)
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content)
        try:
            picture = read_image(path)
        except InputError:
            return
        assert picture.luminance.dtype == np.float32
        assert picture.luminance.shape == picture.saturated.shape


@pytest.mark.parametrize("name", ["a.png", "a.pgm", "a.bmp", "a.tif", "a.jpg"])
@pytest.mark.parametrize("kept", [0.8, 0.5, 0.1, 0.0])
def test_a_truncated_picture_is_rejected_and_not_half_black(name: str, kept: float, tmp_path: Path, rejected) -> None:
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (64, 64), dtype=np.uint8)).save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(len(whole) * kept)])
    with rejected(tmp_path / name):
        read_image(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("deep.tif", Image.new("I", (4, 4))),
        ("print.tif", Image.new("CMYK", (4, 4))),
    ],
)
def test_pictures_of_unknown_scale_are_rejected(name: str, picture: Image.Image, tmp_path: Path, rejected) -> None:
    picture.save(tmp_path / name)
    with rejected(tmp_path / name):
        read_image(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("colour.ppm", b"P6\n7 6\n65535\n" + DEEP.astype(">u2").tobytes()),
        ("la.png", png_16(np.concatenate([DEEP[..., :1], DEEP[..., :1]], axis=2))),
        ("text.png", b"not a picture\nat all"),
        ("header.jpg", bytes.fromhex("ffd8ffc0000b080004000401011100ffd9")),
    ],
)
def test_unsupported_depths_are_rejected(name: str, content: bytes, tmp_path: Path, rejected) -> None:
    (tmp_path / name).write_bytes(content)
    with rejected(tmp_path / name):
        read_image(tmp_path / name)


@pytest.mark.parametrize("bits", [8, 16])
def test_an_alpha_channel_gives_the_opaque_pixels_and_changes_no_colour(bits: int, tmp_path: Path) -> None:
    alpha = np.linspace(0, 1, DEEP[..., 0].size).reshape(DEEP.shape[:2])
    if bits == 8:
        colors = (DEEP >> 8).astype(np.uint8)
        Image.fromarray(np.dstack([colors, (255 * alpha).astype(np.uint8)])).save(tmp_path / "a.png")
    else:
        colors = DEEP
        (tmp_path / "a.png").write_bytes(png_16(np.dstack([DEEP, (65535 * alpha).astype(np.uint16)])))
    picture = read_image(tmp_path / "a.png")
    np.testing.assert_allclose(picture.luminance, colors @ WEIGHTS / (2**bits - 1), atol=1e-6)
    np.testing.assert_array_equal(picture.opaque, alpha > 0.5)


def test_grey_with_an_alpha_channel_remains_grey(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([GREY, np.full_like(GREY, 255)])).save(tmp_path / "a.png")
    picture = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.values, GREY)
    assert picture.opaque.all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_colour_picture_of_equal_channels_remains_one_of_colours(mode: str, tmp_path: Path) -> None:
    """Its lights may have intensities by colour channel."""
    Image.fromarray(GREY).convert(mode).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").values, np.repeat(GREY[..., None], 3, axis=2))


def test_16_bit_grey_with_an_alpha_channel_is_rejected_with_a_remedy_for_masks_too(tmp_path: Path, rejected) -> None:
    (tmp_path / "mask.png").write_bytes(png_16(np.concatenate([DEEP[..., :1], DEEP[..., :1]], axis=2)))
    with rejected(tmp_path / "mask.png", "save it as 16-bit RGBA, or as grey without alpha"):
        read_image(tmp_path / "mask.png")


def test_a_missing_picture_is_named(tmp_path: Path, rejected) -> None:
    with rejected(tmp_path / "a.png", "no such image"):
        read_image(tmp_path / "a.png")


def test_unsupported_formats_are_rejected(tmp_path, rejected):
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(tmp_path / "a.gif")
    with rejected(tmp_path / "a.gif", "GIF", "PNG"):
        read_image(tmp_path / "a.gif")
