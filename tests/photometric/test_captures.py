"""Reading raw captures: what is understood, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fr_ps.errors import InputError
from fr_ps.photometric.captures import check_lights, list_sources, read_capture, read_image, read_lights

from .surfaces import FOUR, directions

PICTURE = np.random.default_rng(0).integers(0, 256, (12, 9), dtype=np.uint8)


def lights_file(folder: Path, *lines: str, end: str = "\n") -> Path:
    path = folder / "lights.csv"
    path.write_bytes((end.join(["image,azimuth_deg,elevation_deg", *lines]) + end).encode())
    return path


def test_lights_stand_where_the_convention_says(tmp_path):
    names, lights = read_lights(lights_file(tmp_path, *(f"im{k}.png,{a},{e}" for k, (a, e) in enumerate(FOUR))))
    assert names == ["im0.png", "im1.png", "im2.png", "im3.png"]
    np.testing.assert_allclose(lights, directions(FOUR), atol=1e-12)


def test_a_positive_azimuth_stands_left_and_a_positive_elevation_above(tmp_path):
    _, lights = read_lights(lights_file(tmp_path, "a,35,0", "b,0,35", "c,0,0"))
    assert lights[0, 0] < 0 < lights[1, 1]
    np.testing.assert_allclose(lights[2], [0, 0, 1], atol=1e-12)


def test_white_space_line_ends_and_a_byte_order_mark_are_no_matter(tmp_path):
    plain = read_lights(lights_file(tmp_path, "a,35,40", "b,-35,40", "c,35,-20"))
    path = lights_file(tmp_path, " a , 35 ,40", "", "b,-35, 40 ", "c,35,-20", end="\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    names, lights = read_lights(path)
    assert names == plain[0]
    np.testing.assert_array_equal(lights, plain[1])


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["a,0,0", "b,10,0"], ["2 images"]),
        (["a,0,0", "b,10,0", "a,20,10"], ["row 4", "twice"]),
        (["a,0,0", "b,x,0", "c,20,10"], ["row 3", "azimuth_deg", "'x'"]),
        (["a,0,0", "b,0,nan", "c,20,10"], ["row 3", "elevation_deg"]),
        (["a,0,0", "../b,0,10", "c,20,10"], ["row 3", "'../b'"]),
        (["a,0,0", "b,0", "c,20,10"], ["row 3", "2 cells"]),
    ],
)
def test_bad_lights_are_refused_by_row(lines, words, tmp_path, refused):
    path = lights_file(tmp_path, *lines)
    with refused(path, *words) if "cells" not in words[-1] else pytest.raises(InputError, match="row 3: 2 cells"):
        read_lights(path)


def test_an_unknown_column_is_refused_instead_of_ignored(tmp_path, refused):
    path = tmp_path / "lights.csv"
    path.write_text("image,azimuth_deg,elevation_deg,intensity\na,0,0,1\n")
    with refused(path, "intensity"):
        read_lights(path)


def test_lights_in_one_plane_are_refused(refused):
    with refused("lights.csv", "rank below 3"):
        check_lights(directions([(0, 0), (20, 0), (-40, 0), (60, 0)]), 1000, Path("lights.csv"))


@given(st.floats(0.5, 60))
def test_the_limit_is_on_the_condition_number(spread):
    lights = directions([(spread, 0), (-spread, 0), (0, spread)])
    condition = np.linalg.cond(lights)
    check_lights(lights, condition * 1.001, Path("lights.csv"))
    with pytest.raises(InputError, match="condition number"):
        check_lights(lights, condition * 0.999, Path("lights.csv"))


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.pgm", "a.tif"])
def test_every_format_gives_the_same_picture(name, tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / name)
    np.testing.assert_allclose(read_image(tmp_path / name), PICTURE / 255, atol=1e-7)


def test_16_bits_are_as_8_with_finer_steps(tmp_path):
    deep = PICTURE.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "a.png")
    Image.fromarray(deep).save(tmp_path / "a.tif")
    (tmp_path / "a.pgm").write_bytes(b"P5\n9 12\n65535\n" + deep.astype(">u2").tobytes())
    for name in ("a.png", "a.tif", "a.pgm"):
        np.testing.assert_allclose(read_image(tmp_path / name), PICTURE / 255, atol=1e-6)


def test_colour_becomes_luminance(tmp_path):
    colour = np.random.default_rng(1).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    Image.fromarray(colour).save(tmp_path / "a.png")
    np.testing.assert_allclose(read_image(tmp_path / "a.png"), colour @ [0.299, 0.587, 0.114] / 255, atol=1 / 255)


@pytest.mark.parametrize("name", ["a.png", "a.pgm", "a.bmp", "a.tif", "a.jpg"])
@pytest.mark.parametrize("kept", [0.8, 0.5, 0.1, 0.0])
def test_a_truncated_picture_is_refused_and_not_half_black(name, kept, tmp_path, refused):
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (64, 64), dtype=np.uint8)).save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(len(whole) * kept)])
    with refused(tmp_path / name):
        read_image(tmp_path / name)


def test_a_capture_is_its_pictures_in_the_order_of_the_lights(tmp_path, write_capture):
    images = np.stack([PICTURE, PICTURE // 2, PICTURE // 3, 255 - PICTURE])
    write_capture(tmp_path, images, FOUR)
    capture = read_capture(tmp_path, 10)
    np.testing.assert_allclose(capture.images, images / 255, atol=1e-7)
    np.testing.assert_allclose(capture.lights, directions(FOUR))


def test_a_missing_picture_and_one_of_another_size_are_named(tmp_path, write_capture, refused):
    write_capture(tmp_path, np.stack([PICTURE] * 4), FOUR)
    Image.fromarray(PICTURE[:5]).save(tmp_path / "im2.png")
    with refused(tmp_path / "im2.png", "9 x 5", "9 x 12"):
        read_capture(tmp_path, 10)
    (tmp_path / "im2.png").unlink()
    with refused(tmp_path / "im2.png"):
        read_capture(tmp_path, 10)


def test_every_session_of_yale_b_passes_the_default_limit(yale):
    sources = list_sources(yale / "captures")
    assert len(sources) == 158
    assert len({source.id for source in sources}) == 20
    for source in sources[:8]:
        assert read_capture(source.folder, 10).images.shape == (4, 192, 168)


def test_a_missing_or_empty_captures_folder_is_refused(tmp_path, refused):
    with refused(tmp_path / "nowhere"):
        list_sources(tmp_path / "nowhere")
    with refused(tmp_path):
        list_sources(tmp_path)
