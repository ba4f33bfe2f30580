"""`fr-ps calibrate`: printed output, files and exit codes."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fr_ps.photometric.lights import light_directions
from fr_ps.synthetic.mirror_sphere import BALL_ANGLES, write_mirror_sphere
from fr_ps.tables import read_csv_rows
from tests.photometric.surfaces import degrees, render, sphere, to_8_bit


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered") / "ball"
    write_mirror_sphere(folder, BALL_ANGLES[:5])
    return folder


@pytest.fixture
def here(tmp_path: Path, rendered: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the pictures of a sphere in `ball`."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(rendered, tmp_path / "ball")
    return tmp_path


def test_calibrate_writes_the_lights_and_a_picture_and_prints_residuals(here, run_command):
    out = run_command("calibrate", "--sphere", "ball", "--out", "rig/lights.csv")
    _, rows = read_csv_rows(Path("rig/lights.csv"))
    written = np.array([[float(row[axis]) for axis in "xyz"] for _, row in rows])
    truth = light_directions(BALL_ANGLES[:5])
    assert np.degrees(np.arccos(np.minimum(np.sum(written * truth, axis=1), 1))).max() < 0.3
    assert re.search(r"im4\.png +\d+\.\d\d +\d+\.\d\d +0\.7\d+ +-0\.1\d+ +0\.6\d+ +50\.\d +1\.\d\d", out)
    assert re.search(r"circle found: x 168\.\d\d, y 117\.\d\d, radius 80\.\d\d pixels; residual 0\.\d\d pixels", out)
    assert "a shift of one pixel turns a light by 1.43 degrees or more" in out
    assert re.search(r"condition number of the lights: \d\.\d\d\n", out)
    assert out.strip().endswith("lights: rig/lights.csv\npicture: rig/lights.png")
    with Image.open("rig/lights.png") as image:
        assert image.format == "PNG"


def test_outputs_inside_the_folder_of_the_pictures_are_no_input_of_the_next_run(here, run_command):
    for out in ("ball/lights.csv", "ball/lights.csv", "ball/other.csv", "lights.csv"):
        printed = run_command("calibrate", "--sphere=ball", f"--out={out}", "--circle=168.3, 117.6, 80.4")
        assert "circle given: x 168.30, y 117.60, radius 80.40 pixels\n" in printed
        assert len(read_csv_rows(Path(out))[1]) == 5


def test_a_copy_of_a_picture_gives_one_line(here, run_command):
    assert "warning" not in run_command("calibrate", "--sphere=ball")
    with Image.open("ball/im1.png") as image:
        image.save("ball/im1 copy.bmp")
        image.save("ball/im9.png", compress_level=0)
    (warning,) = [line for line in run_command("calibrate", "--sphere=ball").splitlines() if line.startswith("warning")]
    assert warning.startswith("warning: im1 copy.bmp and im1.png are the same picture (2 copies in all); remove one")


def test_intensities_come_from_a_white_target(here, run_command):
    lights = light_directions(BALL_ANGLES[:5])
    truth = np.array([1.0, 0.8, 1.2, 0.9, 1.1])
    Path("white").mkdir()
    for k, value in enumerate(120 * truth * lights[:, 2]):
        Image.fromarray(np.full((40, 50), round(value), dtype=np.uint8)).save(f"white/im{k}.png")
    out = run_command("calibrate", "--sphere=ball", "--white=white")
    columns, rows = read_csv_rows(Path("lights.csv"))
    assert columns[-1] == "intensity"
    assert [float(row["intensity"]) for _, row in rows] == pytest.approx(truth, rel=0.02)
    assert "intensities: white target, mean 1" in out


def test_foreign_files_are_not_replaced(here, command_error):
    Path("lights.csv").write_text("mine")
    assert "lights.csv: already exists" in command_error("calibrate", "--sphere=ball")
    assert Path("lights.csv").read_text() == "mine"
    Path("other.png").write_bytes(b"mine")
    assert "other.png: already exists" in command_error("calibrate", "--sphere=ball", "--out=other.csv")
    assert not Path("other.csv").exists()
    assert "would replace a file of the input --sphere" in command_error("calibrate", "--sphere=ball", "--out=ball/im0.csv")


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--sphere=none"], "none: no such folder"),
        (["--sphere=ball", "--out=lights.png"], "expected a file name that ends with .csv"),
        (["--sphere=ball", "--circle=1,2"], "--circle is '1,2'; expected X,Y,RADIUS"),
        (["--sphere=ball", "--circle=1,2,x"], "is 'x'; expected X,Y,RADIUS"),
        (["--sphere=ball", "--circle=900,100,50"], "outside the picture of 320 x 240"),
        (["--sphere=ball", "--circle=20,100,50"], "cuts off the sphere"),
        (["--sphere=ball", "--white=a", "--faces=b"], "expected one of them"),
        (["--sphere=ball", "--faces=none"], "none: no such folder"),
        (["--sphere=ball", "--white=none"], "none: no such folder; expected a folder of pictures, one of each light"),
    ],
)
def test_bad_flags_give_one_line(here, flags, text, command_error):
    assert text in command_error("calibrate", *flags)
    assert not Path("lights.csv").exists()


def test_white_and_faces_are_checked_before_the_sphere_is_read(here, command_error, monkeypatch):
    monkeypatch.setattr("fr_ps.photometric.sphere.calibrate_sphere", None)
    Path("white").mkdir()
    assert "white: no im0.png" in command_error("calibrate", "--sphere=ball", "--white=white")
    shutil.copytree("ball", "faces/a/s")
    Path("faces/a/s/im3.png").unlink()
    assert "faces/a/s: no im3.png" in command_error("calibrate", "--sphere=ball", "--faces=faces")


def test_prepare_reads_the_lights_that_all_sessions_share(here, run_command):
    """From the mirror sphere to the normals of a matte sphere under the same lights."""
    run_command("calibrate", "--sphere", "ball", "--out", "captures/lights.csv")
    normal, _, _ = sphere(64)
    Path("captures/a/s").mkdir(parents=True)
    for number, image in enumerate(to_8_bit(render(normal, BALL_ANGLES[:5], 0.9))):
        Image.fromarray(image).save(f"captures/a/s/im{number}.png")
    run_command("prepare", "--captures", "captures", "--out", "out", "--size", 64)
    assert degrees(np.load("out/data/a/s/normal.npy"), normal).mean() < 1
