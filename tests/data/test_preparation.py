"""The record of a preparation, and maps that are reproduced from it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fr_ps.config import PrepareConfig, Solver
from fr_ps.data.layout import session_folder
from fr_ps.data.preparation import (
    FORMAT,
    RECORD_FILE,
    capture_to_maps,
    find_acquisitions,
    find_preparation,
    format_warning,
    reproduce_preparation,
)
from fr_ps.data.prepare import prepare
from fr_ps.photometric.lights import light_directions
from fr_ps.photometric.maps import SurfaceMaps, compute_maps
from fr_ps.synthetic.scene import LIGHT_ANGLES
from tests.conftest import AssertRejected


@pytest.fixture(scope="module")
def other(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first captures of `prepared`, prepared with other settings and a mean face."""
    folder = tmp_path_factory.mktemp("other")
    np.save(folder / "mean.npy", np.broadcast_to(np.array([0, 0, 0.9], np.float32), (40, 40, 3)))
    first = sorted(path for path in (prepared.parent / "captures").glob("*/*"))[0]
    (folder / "captures" / first.parent.name).mkdir(parents=True)
    (folder / "captures" / first.parent.name / first.name).symlink_to(first)
    settings = {"size": 40, "solver": "integrable", "fit": "pad", "prior": str(folder / "mean.npy")}
    prepare(PrepareConfig(captures=str(folder / "captures"), out=str(folder / "out"), **settings))  # type: ignore[arg-type]
    return folder


def the_session(other: Path) -> tuple[str, str]:
    (folder,) = (other / "out/data").glob("*/*")
    return folder.parent.name, folder.name


def test_maps_can_be_reproduced_bit_for_bit(other: Path) -> None:
    key = the_session(other)
    settings = find_preparation(other / "out", *key)
    assert (settings["size"], settings["solver"], settings["fit"]) == (40, "integrable", "pad")
    config, prior = reproduce_preparation(json.loads(json.dumps(settings)), str(other / "mean.npy"))
    maps, _ = capture_to_maps(other / "captures" / key[0] / key[1], config, None, prior)
    for name in ("albedo", "normal", "depth"):
        assert np.array_equal(getattr(maps, name), np.load(session_folder(other / "out", *key) / f"{name}.npy"))


def test_the_format_is_recorded_and_another_or_a_missing_one_gives_a_warning(prepared: Path) -> None:
    folder = next((prepared / "data").glob("*/*"))
    settings = find_preparation(prepared, folder.parent.name, folder.name)
    assert settings["format"] == FORMAT
    assert format_warning(settings) is None
    older = settings | {"format": 3}
    assert f"maps of prepare format 3, but captures are solved with format {FORMAT}: " in str(format_warning(older))
    absent = {key: value for key, value in settings.items() if key != "format"}
    assert "an unknown prepare format, but captures" in str(format_warning(absent))
    assert reproduce_preparation(older, None) == reproduce_preparation(absent, None) == reproduce_preparation(settings, None)


def test_lights_and_bits_of_the_captures_are_recorded(prepared: Path, tmp_path: Path) -> None:
    keys = [(folder.parent.name, folder.name) for folder in sorted((prepared / "data").glob("*/*"))]
    found = find_acquisitions(prepared, keys)
    assert found is not None
    assert (found.lights, found.bits) == ((4, 4), (8, 8))
    lights = light_directions(LIGHT_ANGLES)
    assert found.condition == pytest.approx((np.linalg.cond(lights),) * 2)
    assert found.direction == pytest.approx(lights.mean(axis=0) / np.linalg.norm(lights.mean(axis=0)))
    assert found.spread_deg == pytest.approx(0, abs=1e-4)
    assert find_acquisitions(prepared, []) is None

    shutil.copytree(prepared, tmp_path / "older")
    file = session_folder(tmp_path / "older", *keys[-1]) / RECORD_FILE
    record = json.loads(file.read_text())
    del record["done"]["acquisition"]
    file.write_text(json.dumps(record))
    assert find_acquisitions(tmp_path / "older", keys) is None
    assert find_acquisitions(tmp_path / "older", keys[:-1]) == found
    file.unlink()
    assert find_acquisitions(tmp_path / "older", keys) is None


@pytest.mark.parametrize(("settings", "level"), [({}, 65535), ({"white_level": 4095}, 4095)])
def test_the_recorded_white_level_is_that_of_the_settings_or_of_the_files(
    settings: dict[str, int], level: int, tmp_path: Path
) -> None:
    for number in range(3):
        Image.fromarray(np.full((16, 16), 2000 + number, np.uint16)).save(tmp_path / f"{number}.png")
    (tmp_path / "lights.csv").write_text("image,x,y,z\n0.png,0,0,1\n1.png,1,0,1\n2.png,0,1,1\n")
    config = PrepareConfig(captures="", out="", size=16, **settings)  # type: ignore[arg-type]
    assert capture_to_maps(tmp_path, config, None, None)[1]["acquisition"]["white_level"] == level


def test_the_mean_face_must_be_the_same_one(other: Path, tmp_path: Path, rejected: AssertRejected) -> None:
    settings = find_preparation(other / "out", *the_session(other))
    with rejected("--prior", "name the file"):
        reproduce_preparation(settings, None)
    np.save(tmp_path / "another.npy", np.broadcast_to(np.array([0, 0.1, 0.9], np.float32), (40, 40, 3)))
    with rejected("another.npy", "not the mean face"):
        reproduce_preparation(settings, str(tmp_path / "another.npy"))


def test_unknown_preparations_are_empty(other: Path, prepared: Path, tmp_path: Path) -> None:
    assert find_preparation(tmp_path, "unknown", "s1") == {}
    folder = session_folder(tmp_path, "anna", "s1")
    folder.mkdir(parents=True)
    for text in ("", "[]", "{}", '{"made_from": {"format": 1, "settings": {}}}'):
        (folder / RECORD_FILE).write_text(text)
        assert find_preparation(tmp_path, "anna", "s1") == {}


def test_settings_of_a_later_version_are_rejected(rejected: AssertRejected) -> None:
    for settings in ({"align": "auto", "solver": "magic"}, {"align": "auto", "glow": 3}):
        with rejected("that this version does not support"):
            reproduce_preparation(settings, None)


def test_missing_settings_and_boxes_are_rejected(prepared: Path, tmp_path: Path, rejected: AssertRejected) -> None:
    with rejected("has no record", "give the maps"):
        reproduce_preparation({}, None)
    first = sorted(path for path in (prepared.parent / "captures").glob("*/*"))[0]
    (tmp_path / "captures" / first.parent.name).mkdir(parents=True)
    (tmp_path / "captures" / first.parent.name / first.name).symlink_to(first)
    (tmp_path / "boxes.csv").write_text(f"id,session,left,top,right,bottom\n{first.parent.name},{first.name},4,4,40,40\n")
    boxes = {"boxes": str(tmp_path / "boxes.csv"), "size": 48}
    prepare(PrepareConfig(captures=str(tmp_path / "captures"), out=str(tmp_path / "out"), **boxes))  # type: ignore[arg-type]
    settings = find_preparation(tmp_path / "out", first.parent.name, first.name)
    assert settings["align"] == "boxes"
    with rejected("cropped to boxes", "give the maps"):
        reproduce_preparation(settings, None)


def test_an_unexpected_mean_face_is_rejected(prepared: Path, other: Path, rejected: AssertRejected) -> None:
    folder = next((prepared / "data").glob("*/*"))
    settings = find_preparation(prepared, folder.parent.name, folder.name)
    with rejected("--prior", "made without a mean face"):
        reproduce_preparation(settings, str(other / "mean.npy"))


@pytest.mark.parametrize("intensities", [[1e-6, 1e-2, 1e-2, 1e-6], [1e6, 1e2, 1e6, 1e2], [1, 1e4, 1, 1]])
@pytest.mark.parametrize("solver", ["least_squares", "robust", "integrable"])
def test_intensities_at_the_bounds_give_finite_maps(intensities: list[float], solver: Solver, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    angles = ("30,35", "-30,35", "30,-20", "-30,-20")
    lines = [f"{number}.png,{angle},{value}" for number, (angle, value) in enumerate(zip(angles, intensities))]
    (tmp_path / "lights.csv").write_text("\n".join(["image,azimuth_deg,elevation_deg,intensity", *lines]))
    maps, done = capture_to_maps(tmp_path, PrepareConfig(captures="", out="", size=16, solver=solver), None, None)
    assert np.isfinite(maps.albedo).all()
    assert all(np.isfinite(list(done["quality"].values())))


@pytest.mark.parametrize("name", ["albedo", "depth", "residual"])
def test_maps_that_are_not_finite_are_rejected_before_they_are_written(
    name: str, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rejected: AssertRejected
) -> None:
    def spoilt(*arguments: Any, **keywords: Any) -> SurfaceMaps:
        maps = compute_maps(*arguments, **keywords)
        if name in maps.quality:
            return replace(maps, quality=maps.quality | {name: float("nan")})
        return replace(maps, **{name: np.full_like(getattr(maps, name), np.inf)})

    monkeypatch.setattr("fr_ps.data.preparation.compute_maps", spoilt)
    config = PrepareConfig(captures=str(prepared.parent / "captures"), out=str(tmp_path / "out"), size=16)
    with rejected("S000", f"{name} contains NaN or infinity"):
        prepare(config)
    assert not list(tmp_path.rglob("*.npy"))
