"""Reading lights.csv, and rejected lights."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fr_ps.errors import InputError
from fr_ps.photometric.lights import check_lights, read_lights
from tests.photometric.surfaces import FOUR, directions

HEADER = "image,azimuth_deg,elevation_deg"


def lights_file(folder: Path, *lines: str, header: str = HEADER, end: str = "\n") -> Path:
    path = folder / "lights.csv"
    path.write_bytes((end.join([header, *lines]) + end).encode())
    return path


def test_light_directions_follow_the_convention(tmp_path):
    names, lights, intensities = read_lights(lights_file(tmp_path, *(f"im{k}.png,{a},{e}" for k, (a, e) in enumerate(FOUR))))
    assert names == ["im0.png", "im1.png", "im2.png", "im3.png"]
    np.testing.assert_allclose(lights, directions(FOUR), atol=1e-12)
    assert intensities.tolist() == [1, 1, 1, 1]


def test_positive_azimuth_is_left_and_positive_elevation_is_up(tmp_path):
    _, lights, _ = read_lights(lights_file(tmp_path, "a,35,0", "b,0,35", "c,0,0"))
    assert lights[0, 0] < 0 < lights[1, 1]
    np.testing.assert_allclose(lights[2], [0, 0, 1], atol=1e-12)


def test_intensities_are_read_from_any_column_position(tmp_path):
    path = lights_file(tmp_path, "2,a,35,40", "0.5,b,-35,40", "1e1,c,35,-20", header="intensity," + HEADER)
    names, lights, intensities = read_lights(path)
    assert names == ["a", "b", "c"]
    assert intensities.tolist() == [2, 0.5, 10]
    np.testing.assert_allclose(lights, directions([(35, 40), (-35, 40), (35, -20)]), atol=1e-12)


def test_white_space_line_ends_and_a_byte_order_mark_are_ignored(tmp_path):
    plain = read_lights(lights_file(tmp_path, "a,35,40", "b,-35,40", "c,35,-20"))
    path = lights_file(tmp_path, " a , 35 ,40", "", "b,-35, 40 ", "c,35,-20", end="\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    names, lights, _ = read_lights(path)
    assert names == plain[0]
    np.testing.assert_array_equal(lights, plain[1])


def test_semicolons_and_decimal_commas_are_the_same_lights(tmp_path):
    plain = read_lights(lights_file(tmp_path, "a,35.5,40,1", "b,-35.125,40,0.5", "c,35,-20.25,2", header=HEADER + ",intensity"))
    lines = ["a;35,5;40;1", "b;-35,125;40;0,5", "c;35;-20,25;2"]
    names, lights, intensities = read_lights(lights_file(tmp_path, *lines, header=(HEADER + ",intensity").replace(",", ";")))
    assert names == plain[0]
    np.testing.assert_array_equal(lights, plain[1])
    np.testing.assert_array_equal(intensities, plain[2])


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["a,0,0", "b,10,0"], ["2 images"]),
        (["a,0,0", "b,10,0", "a,20,10"], ["row 4", "twice"]),
        (["a,0,0", "b,x,0", "c,20,10"], ["row 3", "azimuth_deg", "'x'"]),
        (["a,0,0", "b,0,nan", "c,20,10"], ["row 3", "elevation_deg"]),
        (["a,0,0", "b,0,1e999", "c,20,10"], ["row 3", "elevation_deg"]),
        (["a,0,0", "b,1_0,0", "c,20,10"], ["row 3", "'1_0'"]),
        (["a,0,0", "../b,0,10", "c,20,10"], ["row 3", "'../b'"]),
        (["a,0,0", "b,0", "c,20,10"], ["row 3", "2 cells"]),
    ],
)
def test_bad_lights_are_rejected_by_row(lines, words, tmp_path, rejected):
    path = lights_file(tmp_path, *lines)
    with rejected(path, *words) if "cells" not in words[-1] else pytest.raises(InputError, match="row 3: 2 cells"):
        read_lights(path)


@pytest.mark.parametrize("intensity", ["0", "-1", "", "bright", "inf", "1e-300", "1e300", "1e20", "1e-7", "1e-400", "1e400"])
def test_an_intensity_is_a_number_above_0_within_bounds(intensity, tmp_path, rejected):
    path = lights_file(tmp_path, "a,0,0,1", f"b,20,0,{intensity}", "c,0,20,1", header=HEADER + ",intensity")
    with rejected(path, "row 3", "intensity"):
        read_lights(path)


@pytest.mark.parametrize("header", [HEADER + ",colour", "image,azimuth_deg", "image,azimuth,elevation"])
def test_an_unknown_or_missing_column_is_rejected_instead_of_ignored(header, tmp_path, rejected):
    path = lights_file(tmp_path, header=header)
    with rejected(path, header):
        read_lights(path)


def test_lights_in_one_plane_are_rejected(rejected):
    with rejected("lights.csv", "rank below 3"):
        check_lights(directions([(0, 0), (20, 0), (-40, 0), (60, 0)]), 1000, Path("lights.csv"))


@pytest.mark.parametrize("behind", [(90, 0), (0, 90), (120, 10), (180, 0), (-90, 45)])
def test_a_light_at_or_behind_the_picture_plane_is_rejected_by_its_number(behind, rejected):
    with rejected("lights.csv", "light 3 of 4", "picture plane"):
        check_lights(directions([FOUR[0], FOUR[1], behind, FOUR[3]]), 1000, Path("lights.csv"))


@given(st.floats(0.5, 60))
def test_the_limit_is_on_the_condition_number(spread):
    lights = directions([(spread, 0), (-spread, 0), (0, spread)])
    condition = np.linalg.cond(lights)
    check_lights(lights, condition * 1.001, Path("lights.csv"))
    with pytest.raises(InputError, match="condition number"):
        check_lights(lights, condition * 0.999, Path("lights.csv"))


def test_intensities_that_differ_too_much_are_rejected_by_the_weakest(tmp_path, rejected):
    path = lights_file(tmp_path, "a,0,0,100", "b,20,0,0.009", "c,0,20,1", header=HEADER + ",intensity")
    with rejected(path, "row 3", "intensity", "0.009", "10000 times"):
        read_lights(path)
    path = lights_file(tmp_path, "a,0,0,100", "b,20,0,0.01", "c,0,20,1", header=HEADER + ",intensity")
    assert read_lights(path)[2].tolist() == [100, 0.01, 1]


@pytest.mark.parametrize("angle", ["361", "-1e20"])
def test_an_angle_beyond_a_full_turn_is_rejected(angle, tmp_path, rejected):
    path = lights_file(tmp_path, "a,0,0", f"b,{angle},0", "c,0,20")
    with rejected(path, "row 3", "azimuth_deg", angle, "360"):
        read_lights(path)
