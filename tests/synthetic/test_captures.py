"""Synthetic captures on disk: reproducible, and equal to the rendered session in each layout."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fr_ps.config import SyntheticLayout
from fr_ps.photometric.captures import read_capture, read_capture_attributes
from fr_ps.photometric.sources import list_sources
from fr_ps.synthetic.captures import write_synthetic_captures
from fr_ps.synthetic.scene import LABELS, LIGHT_ANGLES, render_session
from fr_ps.synthetic.view import WIDE


def files_under(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_synthetic_captures(tmp_path / name, people=2, sessions=2, seed=5, size=48)
    assert files_under(tmp_path / "a") == files_under(tmp_path / "b")


def test_a_session_does_not_depend_on_the_number_of_sessions(tmp_path: Path) -> None:
    write_synthetic_captures(tmp_path / "few", people=2, sessions=1, seed=5, size=32)
    write_synthetic_captures(tmp_path / "many", people=3, sessions=3, seed=5, size=32)
    few, many = files_under(tmp_path / "few" / "captures"), files_under(tmp_path / "many" / "captures")
    assert few.items() <= many.items()
    assert len(many) > len(few)


def test_files_are_those_of_a_capture(tmp_path: Path) -> None:
    advanced: list[int] = []
    write_synthetic_captures(tmp_path, people=2, sessions=3, seed=1, size=40, advance=advanced.append)
    assert advanced == [1] * 6

    scene = render_session(1, 1, 2, 40)
    folder = tmp_path / "captures" / "S001" / "s02"
    with (folder / "lights.csv").open(newline="") as file:
        lights = list(csv.DictReader(file))
    assert [(float(row["azimuth_deg"]), float(row["elevation_deg"])) for row in lights] == list(LIGHT_ANGLES)
    for row, image in zip(lights, scene.images):
        np.testing.assert_array_equal(np.asarray(Image.open(folder / row["image"])), image)

    with (tmp_path / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["session"]) for row in rows] == [(f"S00{p}", f"s0{s}") for p in range(2) for s in range(3)]
    assert {name: rows[-1][name] for name in LABELS} == scene.labels


def test_the_photoface_layout_reads_back_the_rendered_session(tmp_path: Path) -> None:
    write_synthetic_captures(tmp_path, people=2, sessions=3, seed=1, size=64, layout="photoface")
    sources = list_sources(tmp_path)
    assert [(source.id, source.session) for source in sources] == [(f"S00{p}", f"s0{s}") for p in range(2) for s in range(3)]
    assert {path.name for path in tmp_path.iterdir()} == {"S000", "S001"}, "the root holds subjects and nothing else"
    for number, source in enumerate(sources):
        scene = render_session(1, *divmod(number, 3), 64, WIDE)
        capture = read_capture(source.folder)
        np.testing.assert_array_equal(np.rint(255 * capture.images), scene.images)
        np.testing.assert_allclose(capture.lights, scene.lights, atol=1e-7)
        np.testing.assert_allclose(capture.landmarks, scene.landmarks, atol=1e-3)
        assert read_capture_attributes(source.folder) == scene.labels | {"Quality": "ok", "Occlusion": ""}


@pytest.mark.parametrize("layout", ["diligent", "lp"])
def test_the_other_layouts_read_back_as_the_plain_one(layout: SyntheticLayout, tmp_path: Path) -> None:
    write_synthetic_captures(tmp_path / "plain", people=2, sessions=2, seed=1, size=64)
    write_synthetic_captures(tmp_path / "other", people=2, sessions=2, seed=1, size=64, layout=layout)
    plain, other = (list_sources(tmp_path / name / "captures") for name in ("plain", "other"))
    assert [(source.id, source.session) for source in other] == [(source.id, source.session) for source in plain]
    for one, source in zip(plain, other):
        expected, capture = (read_capture(each.folder, root=each.root) for each in (one, source))
        assert capture.layout == layout
        np.testing.assert_array_equal(capture.images, expected.images)
        np.testing.assert_allclose(capture.lights, expected.lights, atol=1e-7)
    scene = render_session(1, 1, 1, 64)
    assert (capture.mask is None) == (layout == "lp")
    if capture.mask is not None:
        np.testing.assert_array_equal(capture.mask, scene.mask)
        assert 0.3 < scene.mask.mean() < 0.95
    assert (tmp_path / "plain/labels.csv").read_bytes() == (tmp_path / "other/labels.csv").read_bytes()
