"""Reading raw captures in both layouts, and rejected captures."""

import os
import shutil
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from PIL import Image

from fr_ps.photometric import capture_pictures
from fr_ps.photometric.captures import Capture, ReadingSettings, read_capture, read_capture_attributes
from fr_ps.photometric.sources import list_sources
from tests.photometric.surfaces import FOUR, directions

PICTURE = np.random.default_rng(0).integers(0, 256, (12, 9), dtype=np.uint8)
IMAGES = np.stack([PICTURE, PICTURE // 2, PICTURE // 3, 255 - PICTURE])
LIGHT_SOURCE = "LightSource = [40 135; 40 45; 40 225; 40 315];\n"
POINTS = "1 4\n3 4\n4.5 2\n6 4\n8 4\n3 7\n4.5 7\n6 7\n3 9\n6 9\n4.5 12\n"


@pytest.fixture
def photoface(tmp_path: Path) -> Path:
    """A session folder in the layout of Photoface."""
    folder = tmp_path / "1001" / "2008-02-23_12-21-31"
    folder.mkdir(parents=True)
    for k, image in enumerate(IMAGES):
        Image.fromarray(image).save(folder / f"im{k}.bmp")
    (folder / "LightSource.m").write_text(LIGHT_SOURCE)
    (folder / "metadata.txt").write_text(POINTS)
    (folder / "metadataII.txt").write_text("male,no,none,1,ok,,emoOther\n")
    return folder


def test_a_capture_is_its_pictures_in_the_order_of_the_lights(tmp_path, write_capture):
    write_capture(tmp_path, IMAGES, FOUR)
    capture = read_capture(tmp_path)
    np.testing.assert_allclose(capture.images, IMAGES / 255, atol=1e-7)
    np.testing.assert_array_equal(capture.saturated, IMAGES == 255)
    np.testing.assert_allclose(capture.lights, directions(FOUR))
    assert capture.intensities.tolist() == [1, 1, 1, 1]
    assert capture.landmarks is None
    assert read_capture_attributes(tmp_path) is None


def test_the_picture_of_a_failed_light_is_left_out_with_its_light(tmp_path, write_capture):
    images = IMAGES // 2 + 100
    images[2] = 1
    write_capture(tmp_path, images, FOUR)
    capture = read_capture(tmp_path)
    assert capture.failed == ("im2.png",)
    np.testing.assert_allclose(capture.images, images[[0, 1, 3]] / 255, atol=1e-7)
    np.testing.assert_allclose(capture.lights, directions(FOUR)[[0, 1, 3]])
    assert (capture.saturated.shape, capture.intensities.tolist()) == ((3, 12, 9), [1, 1, 1])


def test_a_failed_light_without_which_the_others_do_not_determine_normals_is_rejected(tmp_path, write_capture, rejected):
    lights = ((0, 0), (20, 3), (-20, 3), (0, 40))
    normal = np.array([0, 0.6, 0.8])
    images = np.stack([np.full((9, 9), round(200 * max(0, float(light @ normal))), np.uint8) for light in directions(lights)])
    write_capture(tmp_path, images, lights)
    assert read_capture(tmp_path).failed == ()
    images[3] = 1
    write_capture(tmp_path, images, lights)
    with rejected("lights.csv, without the failed light of im3.png: condition number of the lights is", "above 10; "):
        read_capture(tmp_path)


def test_intensities_and_landmarks_of_a_capture_are_read_too(tmp_path, write_capture):
    write_capture(tmp_path, IMAGES, FOUR)
    rows = (tmp_path / "lights.csv").read_text().split()
    stated = [f"{row},{more}" for row, more in zip(rows, ["intensity", "1", "0.5", "2", "1"])]
    (tmp_path / "lights.csv").write_text("\n".join(stated))
    (tmp_path / "metadata.txt").write_text(POINTS)
    capture = read_capture(tmp_path)
    assert capture.intensities.tolist() == [1, 0.5, 2, 1]
    np.testing.assert_allclose(capture.images, IMAGES / 255, atol=1e-7)
    assert capture.landmarks.shape == (11, 2)


def test_pictures_and_folders_are_found_in_another_unicode_form(tmp_path, write_capture):
    decomposed = unicodedata.normalize("NFD", "ảnh")
    folder = tmp_path / decomposed / "s"
    write_capture(folder, IMAGES, FOUR)
    (folder / "im0.png").rename(folder / f"{decomposed}.png")
    table = (folder / "lights.csv").read_text()
    (folder / "lights.csv").write_text(table.replace("im0.png", unicodedata.normalize("NFC", "ảnh.png")))
    (source,) = list_sources(tmp_path)
    assert (source.id, source.folder) == (unicodedata.normalize("NFC", "ảnh"), folder)
    np.testing.assert_allclose(read_capture(source.folder).images, IMAGES / 255, atol=1e-7)


def test_a_capture_made_of_pictures_and_lights_alone_is_not_saturated():
    capture = Capture(IMAGES / 255, directions(FOUR))
    assert capture.saturated.shape == IMAGES.shape
    assert not capture.saturated.any()
    assert capture.intensities.tolist() == [1, 1, 1, 1]


def write_stored(path: Path, values: np.ndarray, largest: int) -> None:
    """Write stored values (H, W); a PGM or PPM states their `largest`, of one byte below 256."""
    if path.suffix in (".png", ".tif"):
        Image.fromarray(values.astype(np.uint16)).save(path)
        return
    channels = np.repeat(values[..., None], 3 if path.suffix == ".ppm" else 1, axis=2)
    header = f"{'P6' if path.suffix == '.ppm' else 'P5'}\n{values.shape[1]} {values.shape[0]}\n{largest}\n"
    path.write_bytes(header.encode() + channels.astype("u1" if largest < 256 else ">u2").tobytes())


@pytest.mark.parametrize(
    ("ending", "largest", "level"),
    [("pgm", 4095, 3500), ("pgm", 65535, 3500), ("pgm", 200, 150), ("ppm", 200, 150), ("png", 65535, 3500), ("tif", 65535, 3500)],
)
def test_the_detected_saturation_level_is_a_valid_white_level(ending: str, largest: int, level: int, tmp_path: Path) -> None:
    """A sensor that saturates at `level`, in files that store values up to `largest`."""
    x, y = np.mgrid[-1:1:64j, -1:1:64j]
    rows, stored = ["image,azimuth_deg,elevation_deg"], []
    for number, (azimuth, elevation) in enumerate(FOUR):
        light = 1.4 * np.exp(-3 * (x**2 + y**2)) + np.random.default_rng(number).normal(0, 0.05, x.shape)
        stored.append(np.clip(np.rint(level * light), 0, level))
        write_stored(tmp_path / f"{number}.{ending}", stored[-1], largest)
        rows.append(f"{number}.{ending},{azimuth},{elevation}")
    (tmp_path / "lights.csv").write_text("\n".join(rows))
    found = read_capture(tmp_path)
    assert found.saturation_level == level
    np.testing.assert_array_equal(found.saturated, np.array(stored) == level)
    as_advised = read_capture(tmp_path, ReadingSettings(white_level=found.saturation_level))
    np.testing.assert_array_equal(as_advised.saturated, np.array(stored) == level)
    np.testing.assert_allclose(as_advised.images, np.array(stored) / level, atol=0.005 if largest < 256 else 1e-4)


@pytest.mark.parametrize("aligned", ["lower bits", "upper bits"])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_sensors_of_few_bits_in_16_bit_files_are_found_saturated(bits: int, aligned: str, tmp_path: Path, write_capture) -> None:
    """In the upper bits, the scale is right without a white level; in the lower ones, one is advised."""
    shift = 16 - bits if aligned == "upper bits" else 0
    most = (1 << bits) - 1
    x, y = np.mgrid[-1:1:64j, -1:1:64j]
    light = np.stack([np.exp(-3 * ((x - dx) ** 2 + y**2)) for dx in (-0.2, 0, 0.2, 0.3)])
    light = 1.3 * light + np.random.default_rng(0).normal(0, 0.01, light.shape)
    stored = np.clip(np.rint(most * light), 0, most).astype(np.uint16)
    write_capture(tmp_path, stored << shift, FOUR)
    capture = read_capture(tmp_path)
    np.testing.assert_array_equal(capture.saturated, stored == most)
    assert capture.saturation_level == most << shift
    if shift:
        np.testing.assert_allclose(capture.images, np.clip(light, 0, 1), atol=2 / most)
    advised = read_capture(tmp_path, ReadingSettings(white_level=capture.saturation_level))
    np.testing.assert_allclose(advised.images, np.clip(light, 0, 1), atol=1 / most)
    np.testing.assert_array_equal(advised.saturated, stored == most)


def write_float_capture(folder: Path, images: np.ndarray, angles: Sequence[tuple[float, float]]) -> None:
    """A session of EXR files."""
    OpenEXR = pytest.importorskip("OpenEXR", reason="needs the extra fr-ps[exr]")
    rows = ["image,azimuth_deg,elevation_deg"]
    for number, (image, (azimuth, elevation)) in enumerate(zip(images, angles, strict=True)):
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        name = "RGB" if image.ndim == 3 else "Y"
        OpenEXR.File(header, {name: image.astype(np.float32)}).write(str(folder / f"{number}.exr"))
        rows.append(f"{number}.exr,{azimuth},{elevation}")
    (folder / "lights.csv").write_text("\n".join(rows))


def test_floats_keep_one_scale_for_all_pictures_and_saturate_only_at_a_white_level(tmp_path: Path) -> None:
    light = np.stack([factor * np.random.default_rng(0).random((12, 9)) for factor in (0.5, 1, 3, 5)])
    write_float_capture(tmp_path, light, FOUR)
    capture = read_capture(tmp_path)
    np.testing.assert_allclose(capture.images, light, rtol=1e-6)
    assert not capture.saturated.any()
    assert capture.saturation_level is None
    at_2 = read_capture(tmp_path, ReadingSettings(white_level=2.5))
    np.testing.assert_allclose(at_2.images, np.minimum(light / 2.5, 1), rtol=1e-5)
    np.testing.assert_array_equal(at_2.saturated, light.astype(np.float32) >= 2.5)


def test_pictures_of_different_units_in_one_session_are_rejected(tmp_path: Path, rejected) -> None:
    write_float_capture(tmp_path, IMAGES / 255, FOUR)
    Image.fromarray(IMAGES[0]).save(tmp_path / "a.png")
    table = (tmp_path / "lights.csv").read_text()
    (tmp_path / "lights.csv").write_text(table.replace("2.exr", "a.png"))
    with rejected(tmp_path / "a.png", "whole numbers", "0.exr floats"):
        read_capture(tmp_path)
    (tmp_path / "lights.csv").write_text(table)
    with rejected(tmp_path / "a.png", "whole numbers"):
        read_capture(tmp_path, ReadingSettings(ambient="a.png"))


@pytest.mark.parametrize("white_level", [None, 200])
def test_pictures_of_8_and_16_bits_in_one_session_are_rejected(white_level, tmp_path, write_capture, rejected) -> None:
    write_capture(tmp_path, IMAGES.astype(np.uint16) * 257, FOUR)
    Image.fromarray(IMAGES[1]).save(tmp_path / "im1.png")
    with rejected(tmp_path / "im1.png", "8 bits, but im0.png 16", "one depth"):
        read_capture(tmp_path, ReadingSettings(white_level=white_level))


def test_pictures_whose_files_state_different_white_levels_are_rejected(tmp_path: Path, rejected) -> None:
    for number, stated in enumerate((4095, 4095, 16383, 4095)):
        Image.fromarray(IMAGES[number].astype(np.uint16) * 8).save(tmp_path / f"{number}.tif", tiffinfo={341: stated})
    rows = [f"{number}.tif,{azimuth},{elevation}" for number, (azimuth, elevation) in enumerate(FOUR)]
    (tmp_path / "lights.csv").write_text("\n".join(["image,azimuth_deg,elevation_deg", *rows]))
    with rejected(tmp_path / "2.tif", "16383", "0.tif is 4095", "--white-level"):
        read_capture(tmp_path)
    stated = read_capture(tmp_path, ReadingSettings(white_level=4095))
    np.testing.assert_allclose(stated.images, IMAGES.astype(np.float64) * 8 / 4095, atol=1e-6)


@pytest.mark.parametrize(("stripe", "reduction_limit"), [(1, 10**9), (20, 10**9), (20, 100), (1, 100), (10**6, 40)])
def test_stripes_change_nothing(
    stripe: int, reduction_limit: int, tmp_path: Path, write_capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    colors = np.random.default_rng(0).integers(0, 256, (4, 13, 9, 3), dtype=np.uint8)
    write_capture(tmp_path, colors, FOUR)
    monkeypatch.setattr(capture_pictures, "MAX_VALUES", reduction_limit)
    whole = read_capture(tmp_path)
    monkeypatch.setattr(capture_pictures, "_STRIPE_PIXELS", stripe)
    parts = read_capture(tmp_path)
    np.testing.assert_array_equal(parts.images, whole.images)
    np.testing.assert_array_equal(parts.saturated, whole.saturated)
    side = whole.reduction
    rows, columns = 13 // side, 9 // side
    light = (colors[:, : rows * side, : columns * side] @ np.array([0.299, 0.587, 0.114]) / 255).reshape(
        4, rows, side, columns, side
    )
    np.testing.assert_allclose(whole.images, light.mean(axis=(2, 4)), atol=1e-6)


def test_a_white_level_below_the_values_is_rejected(tmp_path: Path, write_capture, rejected) -> None:
    write_capture(tmp_path, IMAGES, FOUR)
    with rejected(tmp_path, "of the pixels are above the white level of 100, up to 255", "--white-level"):
        read_capture(tmp_path, ReadingSettings(white_level=100))
    images = np.minimum(IMAGES, 100)
    images[0, 0, 0] = 255  # one hot pixel
    write_capture(tmp_path / "hot", images, FOUR)
    assert read_capture(tmp_path / "hot", ReadingSettings(white_level=100)).saturated[0, 0, 0]


def test_a_photoface_folder_is_read_as_it_is_distributed(photoface):
    capture = read_capture(photoface)
    np.testing.assert_allclose(capture.images, IMAGES / 255, atol=1e-7)
    np.testing.assert_array_equal(capture.saturated, IMAGES == 255)
    across, ahead = np.sin(np.radians(40)) / np.sqrt(2), np.cos(np.radians(40))
    signs = np.array([(-1, 1), (1, 1), (-1, -1), (1, -1)])
    np.testing.assert_allclose(capture.lights, [(across * x, across * y, ahead) for x, y in signs], atol=1e-12)
    np.testing.assert_allclose(
        read_capture(photoface, ReadingSettings(light_axes="x-y")).lights, capture.lights * (1, -1, 1), atol=1e-12
    )
    np.testing.assert_array_equal(capture.landmarks[0], [1, 4])
    assert read_capture_attributes(photoface)["Emotion"] == "emoOther"
    assert [(source.id, source.session) for source in list_sources(photoface.parents[1])] == [("1001", photoface.name)]


@pytest.mark.parametrize("suffix", ["BMP", "png", "tif", "TIFF", "pgm"])
def test_photoface_pictures_may_have_another_suffix_and_landmarks_be_absent(suffix, photoface):
    for k in range(4):
        Image.open(photoface / f"im{k}.bmp").save(photoface / f"picture.{suffix.lower()}")
        (photoface / f"im{k}.bmp").unlink()
        (photoface / f"picture.{suffix.lower()}").rename(photoface / f"im{k}.{suffix}")
    (photoface / "metadata.txt").unlink()
    capture = read_capture(photoface)
    np.testing.assert_allclose(capture.images, IMAGES / 255, atol=1e-7)
    assert capture.landmarks is None


def test_more_than_ten_pictures_are_in_the_order_of_their_numbers(photoface):
    angles = [(30 + k, 30 * k) for k in range(12)]
    (photoface / "LightSource.m").write_text("[" + "; ".join(f"{z} {a}" for z, a in angles) + "]")
    for k in range(12):
        Image.fromarray(np.full((12, 9), 90 + 10 * k, dtype=np.uint8)).save(photoface / f"im{k}.bmp")
    assert np.rint(255 * read_capture(photoface).images[:, 0, 0]).tolist() == [90 + 10 * k for k in range(12)]


def test_lights_csv_has_priority_over_light_source(photoface, write_capture):
    write_capture(photoface, IMAGES, FOUR)
    np.testing.assert_allclose(read_capture(photoface).lights, directions(FOUR))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "LightSource.m").unlink(), ["LightSource.m", "lights.csv"]),
        (lambda folder: (folder / "LightSource.m").write_text("[40 135; 40 45; 40 225]"), ["im3.bmp", "3 lights"]),
        (lambda folder: (folder / "LightSource.m").write_text("[40 1 2; 40 4 5; 40 2 2; 1 2 3]"), ["LightSource.m", "line 1"]),
        (
            lambda folder: (folder / "LightSource.m").write_text("[40 135; 95 45; 40 225; 40 315]"),
            ["LightSource.m", "light 2 of 4", "picture plane"],
        ),
        (lambda folder: (folder / "im1.bmp").unlink(), ["im0.bmp, im2.bmp, im3.bmp", "4 lights"]),
        (lambda folder: Image.fromarray(PICTURE).save(folder / "im4.bmp"), ["im4.bmp", "4 lights"]),
        (lambda folder: Image.fromarray(PICTURE).save(folder / "im2.png"), ["im2.bmp", "im2.png"]),
        (lambda folder: Image.fromarray(PICTURE[:5]).save(folder / "im2.bmp"), ["im2.bmp", "9 x 5", "9 x 12"]),
        (lambda folder: os.truncate(folder / "im2.bmp", 1100), ["im2.bmp"]),
        (lambda folder: (folder / "metadata.txt").write_text(POINTS[:-7]), ["metadata.txt", "10 landmarks"]),
        (lambda folder: (folder / "metadata.txt").write_text(POINTS.replace("8 4", "9.5 4")), ["right_eye_outer", "x 9.5"]),
        (lambda folder: (folder / "metadata.txt").write_text(POINTS.replace("4.5 12", "4.5 12.5")), ["chin", "y 12.5"]),
        (lambda folder: (folder / "metadata.txt").write_text(POINTS.replace("1 4", "-1 4")), ["left_eye_outer", "x -1"]),
    ],
)
def test_a_bad_photoface_folder_is_rejected(change, words, photoface, rejected):
    change(photoface)
    with rejected(photoface, *words):
        read_capture(photoface)


def test_a_missing_picture_and_one_of_another_size_are_named(tmp_path, write_capture, rejected):
    write_capture(tmp_path, np.stack([PICTURE] * 4), FOUR)
    Image.fromarray(PICTURE[:5]).save(tmp_path / "im2.png")
    with rejected(tmp_path / "im2.png", "9 x 5", "9 x 12"):
        read_capture(tmp_path)
    (tmp_path / "im2.png").unlink()
    with rejected(tmp_path / "im2.png"):
        read_capture(tmp_path)


@pytest.mark.parametrize("name", ["LightSource.m", "metadata.txt", "im1.bmp"])
def test_a_fifo_in_a_capture_is_rejected_without_blocking(name, photoface, rejected):
    (photoface / name).unlink(missing_ok=True)
    os.mkfifo(photoface / name)
    with rejected(name, "not a regular file"):
        read_capture(photoface)


def test_every_session_of_yale_b_passes_the_default_limit(yale):
    sources = list_sources(yale / "captures")
    assert len(sources) == 158
    assert len({source.id for source in sources}) == 20
    for source in sources[:8]:
        assert read_capture(source.folder).images.shape == (4, 192, 168)


def test_a_missing_or_empty_captures_folder_or_a_file_is_rejected(tmp_path, rejected):
    with rejected(tmp_path / "nowhere"):
        list_sources(tmp_path / "nowhere")
    with rejected(tmp_path):
        list_sources(tmp_path)
    (tmp_path / "file").touch()
    with rejected(tmp_path / "file"):
        list_sources(tmp_path / "file")


def test_files_and_hidden_folders_are_ignored(tmp_path):
    for folder in ("p/s", "p/.hidden", ".git/objects"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "readme.txt").touch()
    (tmp_path / "p" / "notes.txt").touch()
    assert [(source.id, source.session) for source in list_sources(tmp_path)] == [("p", "s")]


NAMES = [("Anna", "anna"), ("s1", "s1 "), (" s1", "s1"), ("José", unicodedata.normalize("NFD", "José")), ("É ", "é")]


@pytest.mark.parametrize(("one", "other"), NAMES)
@pytest.mark.parametrize("level", ["subject", "session"])
def test_two_of_the_same_name_are_rejected_naming_both(one, other, level, tmp_path, rejected):
    for name in (one, other):
        (tmp_path / (f"{name}/s" if level == "subject" else f"p/{name}")).mkdir(parents=True)
    with rejected(tmp_path, repr(one), repr(other), "rename"):
        list_sources(tmp_path)


def test_two_subjects_may_have_sessions_of_the_same_name(tmp_path):
    for folder in ("p/s1", "q/S1"):
        (tmp_path / folder).mkdir(parents=True)
    assert len(list_sources(tmp_path)) == 2


@pytest.mark.parametrize("name", [" s1", "s1 ", "a:b", "a\nb", "a\\b"])
def test_a_name_that_is_not_allowed_in_a_table_is_rejected(name, tmp_path, rejected):
    (tmp_path / "p" / name).mkdir(parents=True)
    with rejected(tmp_path, repr(name)):
        list_sources(tmp_path)


@pytest.mark.parametrize("level", ["subject", "session"])
@pytest.mark.parametrize("mode", [0o000, 0o444], ids=["no names", "names only"])
def test_an_unreadable_folder_is_rejected(level, mode, photoface, rejected, other_user):
    with TemporaryDirectory() as name:  # other users cannot enter pytest's own folders
        root = Path(name)
        root.chmod(0o755)
        session = root / "p" / "s"
        shutil.copytree(photoface, session)
        read_capture(session)  # imports modules that another user may not be able to read
        closed = session if level == "session" else session.parent
        closed.chmod(mode)
        with other_user():
            if level == "session":
                assert [source.folder for source in list_sources(root)] == [session]
            else:
                with rejected(closed, "unreadable folder (Permission denied); make it readable"):
                    list_sources(root)
                unusable: dict[tuple[str, str], str] = {}
                with rejected(root, "contains no session"):
                    list_sources(root, unusable)
                assert str(closed) in unusable["p", ""]
            for read in (lambda: read_capture(session), lambda: read_capture_attributes(session)):
                with rejected(closed, "Permission denied", "; "):
                    read()
        closed.chmod(0o755)
