"""Captures of one sphere in each layout, from the folder to the maps; lights above many sessions."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fr_ps.photometric.captures import ReadingSettings, read_capture
from fr_ps.photometric.frame import fit_frame
from fr_ps.photometric.maps import compute_maps
from tests.conftest import AssertRejected
from tests.photometric.surfaces import degrees, grid
from tests.photometric.test_images import png_16

SIZE = 96
_RNG = np.random.default_rng(0)
LIGHTS = np.column_stack([_RNG.uniform(-0.5, 0.5, (12, 2)), np.ones(12)])
DIRECTIONS = LIGHTS / np.linalg.norm(LIGHTS, axis=1, keepdims=True)
COLORS = _RNG.uniform(0.5, 2, (12, 3))
"""Intensity of each light in red, green and blue."""
X, Y = grid(SIZE, SIZE)
INSIDE = np.hypot(X, Y) < 40
NORMALS = np.stack([X, Y, np.sqrt(np.maximum(48.0**2 - X**2 - Y**2, 1))], axis=-1)
NORMALS /= np.linalg.norm(NORMALS, axis=-1, keepdims=True)
SHADING = np.maximum(np.einsum("hwc,kc->khw", NORMALS, DIRECTIONS), 0) * INSIDE
ALBEDO = np.array([0.5, 0.4, 0.3])

Write = Callable[[Path], None]


def write_mask(folder: Path) -> None:
    Image.fromarray(np.where(INSIDE, 255, 0).astype(np.uint8)).save(folder / "mask.png")


def write_diligent(folder: Path) -> None:
    """16-bit RGB of a coloured sphere in front of a bright wall, under lights of different colours."""
    folder.mkdir(parents=True)
    for number, (shading, color) in enumerate(zip(SHADING, COLORS), start=1):
        light = np.where(INSIDE[..., None], shading[..., None] * ALBEDO, 0.4) * color
        (folder / f"{number:03d}.png").write_bytes(png_16(np.rint(65535 * light / 2).astype(np.uint16)))
    (folder / "filenames.txt").write_text("".join(f"{number:03d}.png\r\n" for number in range(1, 13)))
    np.savetxt(folder / "light_directions.txt", DIRECTIONS)
    np.savetxt(folder / "light_intensities.txt", COLORS)
    write_mask(folder)


def write_grey(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, shading in enumerate(SHADING):
        (folder / f"pic {number}.png").write_bytes(png_16(np.rint(60000 * shading * 0.8).astype(np.uint16)[..., None]))


def write_lp(folder: Path) -> None:
    write_grey(folder)
    lines = [f"C:\\Users\\me\\my dome\\pic {k}.png {x:.6f} {y:.6f} {z:.6f}" for k, (x, y, z) in enumerate(3 * DIRECTIONS)]
    (folder / "dome.lp").write_text("\r\n".join(["12", *lines]) + "\r\n")
    write_mask(folder)


def write_vectors(folder: Path) -> None:
    """A lights.csv of vectors, in another order of columns and rows, with an intensity by colour."""
    write_diligent(folder)
    for name in ("filenames.txt", "light_directions.txt", "light_intensities.txt"):
        (folder / name).unlink()
    rows = [",".join(map(str, [z, *color, f"{k + 1:03d}.png", x, y])) for k, ((x, y, z), color) in enumerate(zip(LIGHTS, COLORS))]
    header = "z,intensity_r,intensity_g,intensity_b,image,x,y"
    (folder / "lights.csv").write_text("\n".join([header, *reversed(rows)]))


LAYOUTS: dict[str, Write] = {"diligent": write_diligent, "lp": write_lp, "plain": write_vectors}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_normals_of_a_sphere_are_found_inside_the_mask(layout: str, tmp_path: Path) -> None:
    LAYOUTS[layout](tmp_path / "ball")
    capture = read_capture(tmp_path / "ball")
    assert capture.layout == layout
    np.testing.assert_array_equal(capture.mask, INSIDE)
    maps = compute_maps(capture, fit_frame((0, 0, SIZE, SIZE), SIZE, "crop"))
    assert degrees(maps.normal, NORMALS)[INSIDE].mean() < 0.1
    assert (maps.normal[~INSIDE] == (0, 0, 1)).all()
    assert not maps.albedo[~INSIDE].any()
    assert not maps.confidence[~INSIDE].any()


@pytest.mark.parametrize("session", ["diligent/obj1PNG", "diligent/obj2PNG", "lp/D1/a"])
def test_the_normals_of_captures_of_other_programs(session: str, cases: Path) -> None:
    capture = read_capture(cases / session)
    height, width = capture.images.shape[1:]
    maps = compute_maps(capture, fit_frame((0, 0, width, height), width, "crop"))
    inside = np.ones((height, width), bool) if capture.mask is None else capture.mask
    assert degrees(maps.normal, np.load(cases / session / "truth_normal.npy"))[inside].mean() < 0.1


def test_intensities_by_colour_leave_the_albedo_of_the_object(tmp_path: Path) -> None:
    """The wall's colour changes with the light; the ratios of the sphere's albedo do not."""
    write_diligent(tmp_path / "ball")
    images = read_capture(tmp_path / "ball").images
    luminance = ALBEDO @ (0.299, 0.587, 0.114) * COLORS.mean() / 2
    np.testing.assert_allclose(images[:, INSIDE], SHADING[:, INSIDE] * luminance, atol=2e-4)


def test_one_file_of_lights_above_many_sessions_is_used_by_all(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_lp(tmp_path / "p" / name)
    shutil.move(tmp_path / "p" / "a" / "dome.lp", tmp_path / "dome.lp")
    (tmp_path / "p" / "b" / "dome.lp").unlink()
    one, other = (read_capture(tmp_path / "p" / name, root=tmp_path) for name in "ab")
    np.testing.assert_allclose(one.lights, DIRECTIONS, atol=1e-5)
    np.testing.assert_array_equal(one.images, other.images)


def test_images_with_other_names_belong_to_the_lines_in_natural_order(tmp_path: Path) -> None:
    """pic 10 comes after pic 9, as in the list, and the mask is no image of the list."""
    write_lp(tmp_path)
    before = read_capture(tmp_path)
    for path in tmp_path.glob("pic *.png"):
        path.rename(path.with_name(path.name.replace("pic ", "IMG_")))
    np.testing.assert_array_equal(read_capture(tmp_path).images, before.images)


def test_images_in_another_format_belong_to_the_lines_of_their_names(tmp_path: Path) -> None:
    """The list is in the order of a program that sorts 10 before 2."""
    write_lp(tmp_path)
    before = read_capture(tmp_path)
    first, *lines = (tmp_path / "dome.lp").read_text().splitlines()
    (tmp_path / "dome.lp").write_text("\n".join([first, *sorted(line.replace(".png", ".jpg") for line in lines)]))
    after = read_capture(tmp_path)
    order = sorted(range(12), key=str)
    np.testing.assert_array_equal(after.images, before.images[order])
    np.testing.assert_array_equal(after.lights, before.lights[order])
    assert not after.paired_by_order


def test_an_ambient_picture_is_no_image_of_a_list_with_other_names(tmp_path: Path) -> None:
    write_lp(tmp_path)
    for path in tmp_path.glob("pic *.png"):
        path.rename(path.with_name(path.name.replace("pic ", "IMG_")))
    Image.new("L", (SIZE, SIZE)).save(tmp_path / "dark.png")
    (tmp_path / "dark.png").write_bytes(png_16(np.zeros((SIZE, SIZE, 1), np.uint16)))
    for name in ("dark.png", "Dark.PNG"):
        assert read_capture(tmp_path, ReadingSettings(ambient=name)).paired_by_order


def test_an_image_of_a_list_with_another_ending_is_no_ambient_picture(tmp_path: Path, rejected: AssertRejected) -> None:
    write_lp(tmp_path)
    (tmp_path / "dome.lp").write_text((tmp_path / "dome.lp").read_text().replace(".png", ".jpg"))
    with rejected(tmp_path / "pic 3.png", "has a light in dome.lp", "--ambient"):
        read_capture(tmp_path, ReadingSettings(ambient="pic 3.png"))


def test_names_of_the_files_of_lights_ignore_case(tmp_path: Path) -> None:
    write_diligent(tmp_path / "ball")
    before = read_capture(tmp_path / "ball")
    for path in (tmp_path / "ball").glob("*.txt"):
        path.rename(path.with_name(path.name.upper()))
    np.testing.assert_array_equal(read_capture(tmp_path / "ball").images, before.images)


def test_two_files_of_lights_in_one_folder_require_the_layout(tmp_path: Path, rejected: AssertRejected) -> None:
    folder = tmp_path / "ball"
    write_diligent(folder)
    (folder / "dome.lp").write_text("3")
    with rejected(folder, "light_directions.txt (diligent)", "dome.lp (lp)", "--layout"):
        read_capture(folder)
    assert read_capture(folder, ReadingSettings(layout="diligent")).layout == "diligent"


def test_an_incomplete_layout_is_not_replaced_by_lights_above(tmp_path: Path, rejected: AssertRejected) -> None:
    write_diligent(tmp_path / "ball")
    for name in ("filenames.txt", "light_directions.txt"):
        shutil.copy(tmp_path / "ball" / name, tmp_path / name)
    (tmp_path / "ball" / "filenames.txt").unlink()
    with rejected(tmp_path / "ball" / "filenames.txt", "no such file"):
        read_capture(tmp_path / "ball", root=tmp_path)


def test_one_image_has_one_light_and_the_mask_has_none(tmp_path: Path, rejected: AssertRejected) -> None:
    write_lp(tmp_path)
    replace_line(tmp_path / "dome.lp", 4, "PIC 1.PNG 0 0 1")
    with rejected("dome.lp", "pic 1.png is the image of two lights"):
        read_capture(tmp_path)
    replace_line(tmp_path / "dome.lp", 4, "mask.png 0 0 1")
    with rejected("dome.lp", "mask.png", "is the mask"):
        read_capture(tmp_path)


def test_files_and_folders_that_only_look_like_lights_are_ignored(tmp_path: Path) -> None:
    write_lp(tmp_path)
    (tmp_path / "._dome.lp").write_bytes(b"\0")
    (tmp_path / "other.lp").mkdir()
    assert read_capture(tmp_path).layout == "lp"


def test_a_given_layout_is_the_only_one_that_is_read(tmp_path: Path, rejected: AssertRejected) -> None:
    write_lp(tmp_path)
    (tmp_path / "lights.csv").write_text("image,x,y,z\n" + "".join(f"pic {k}.png,{k % 3 - 1},{k % 2},2\n" for k in range(12)))
    assert read_capture(tmp_path).layout == "plain"
    assert read_capture(tmp_path, ReadingSettings(layout="lp")).layout == "lp"
    with rejected(tmp_path, "--layout diligent"):
        read_capture(tmp_path, ReadingSettings(layout="diligent"))


def replace_line(path: Path, number: int, text: str | None) -> None:
    lines = path.read_text().splitlines()
    lines[number - 1 : number] = [] if text is None else [text]
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "004.png").unlink(), ["004.png", "no such image"]),
        (lambda folder: replace_line(folder / "filenames.txt", 12, None), ["light_directions.txt", "12 lines", "11 images"]),
        (lambda folder: replace_line(folder / "light_intensities.txt", 3, None), ["light_intensities.txt", "11 lines"]),
        (
            lambda folder: replace_line(folder / "light_intensities.txt", 3, "1 2"),
            ["light_intensities.txt", "line 3", "2 numbers"],
        ),
        (lambda folder: replace_line(folder / "light_intensities.txt", 3, "1 0 1"), ["line 3", "an intensity is 0"]),
        (lambda folder: replace_line(folder / "light_intensities.txt", 3, "1 9e5 1"), ["line", "is more than"]),
        (lambda folder: replace_line(folder / "light_directions.txt", 2, "0 0 0"), ["line 2", "length 0"]),
        (lambda folder: replace_line(folder / "light_directions.txt", 2, "0 0.5"), ["line 2", "2 numbers"]),
        (lambda folder: replace_line(folder / "light_directions.txt", 2, "0 0 x"), ["line 2", "'x'"]),
        (lambda folder: replace_line(folder / "light_directions.txt", 2, "0 0 -1"), ["light 2 of 12", "picture plane"]),
        (lambda folder: replace_line(folder / "filenames.txt", 2, "001.png"), ["filenames.txt", "001.png is listed twice"]),
        (lambda folder: replace_line(folder / "filenames.txt", 2, ".."), ["filenames.txt", "line 2"]),
        (lambda folder: Image.new("L", (SIZE, SIZE - 1), 255).save(folder / "mask.png"), ["mask.png", "96 x 95", "96 x 96"]),
        (lambda folder: Image.new("L", (SIZE, SIZE)).save(folder / "mask.png"), ["mask.png", "empty"]),
        (lambda folder: (folder / "filenames.txt").unlink(), ["filenames.txt", "no such file"]),
        (lambda folder: Image.new("I;16", (SIZE, SIZE)).save(folder / "005.png"), ["005.png", "grey", "red, green and blue"]),
    ],
)
def test_bad_diligent_folders_are_rejected(change: Write, words: list[str], tmp_path: Path, rejected: AssertRejected) -> None:
    write_diligent(tmp_path / "ball")
    change(tmp_path / "ball")
    with rejected(*words):
        read_capture(tmp_path / "ball")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: replace_line(folder / "dome.lp", 1, "13"), ["dome.lp", "13 images", "12 lines"]),
        (lambda folder: replace_line(folder / "dome.lp", 1, "twelve"), ["dome.lp", "line 1", "number of images"]),
        (lambda folder: (folder / "dome.lp").write_text(""), ["dome.lp", "line 1"]),
        (lambda folder: (folder / "dome.lp").write_bytes(b"\0\1\2"), ["dome.lp", "not a text file"]),
        (lambda folder: (folder / "dome.lp").write_text("2\na 0 0 1\nb 0 1 1\n"), ["dome.lp", "2 images"]),
        (lambda folder: replace_line(folder / "dome.lp", 4, "pic 2.png 0 0 0"), ["line 4", "length 0"]),
        (lambda folder: replace_line(folder / "dome.lp", 4, "pic2.png 0 1"), ["line 4", "2 numbers"]),
        (lambda folder: replace_line(folder / "dome.lp", 4, "0 0 1"), ["line 4"]),
        (lambda folder: replace_line(folder / "dome.lp", 4, "pic 2.png 0 0.1 1 0.9"), ["line 4", "'pic 2.png 0'", "file x y z"]),
        (lambda folder: replace_line(folder / "dome.lp", 4, "pic 1.png 0 0 1"), ["line 4", "pic 1.png is listed twice"]),
        (lambda folder: (folder / "pic 3.png").unlink(), ["pic 3.png", "no such image"]),
        (lambda folder: (folder / "other.lp").write_text("3"), ["both dome.lp and other.lp"]),
        (
            lambda folder: [path.rename(path.with_name(f"x{path.name}")) for path in folder.glob("pic [1-9]*.png")],
            ["pic 1.png", "no such image"],
        ),
    ],
)
def test_bad_lp_files_are_rejected(change: Write, words: list[str], tmp_path: Path, rejected: AssertRejected) -> None:
    write_lp(tmp_path)
    change(tmp_path)
    with rejected(*words):
        read_capture(tmp_path)


def test_a_list_of_other_images_than_those_of_the_session_is_rejected(tmp_path: Path, rejected: AssertRejected) -> None:
    write_lp(tmp_path)
    for number in range(11):
        (tmp_path / f"pic {number}.png").rename(tmp_path / f"photo{number}.png")
    (tmp_path / "pic 11.png").unlink()
    with rejected("dome.lp", "12 images", "pic 0.png", "11 others", "photo0.png"):
        read_capture(tmp_path)
