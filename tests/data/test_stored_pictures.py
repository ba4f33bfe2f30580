"""The pictures stored with the maps give the maps that `prepare` computes from a capture without one of its lights."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fr_ps.config import PrepareConfig
from fr_ps.data.prepare import prepare
from fr_ps.data.stored_pictures import maps_without_light, pictures_to_store, read_stored_pictures
from fr_ps.photometric.captures import Capture
from fr_ps.photometric.frame import fit_frame
from fr_ps.photometric.maps import compute_maps
from tests.conftest import AssertRejected, WriteCapture
from tests.photometric.surfaces import FOUR, SEVEN, THREE, Angles, directions, grid, hill, normals, render, sphere, to_8_bit

KEY = ("a", "all")


def write(root: Path, write_capture: WriteCapture, angles: Angles, images: np.ndarray | None = None) -> None:
    images = to_8_bit(0.8 * render(sphere(48)[0], angles)) if images is None else images
    write_capture(root / "captures/a/all", images, angles)


def prepared(root: Path, **settings: str) -> Path:
    prepare(PrepareConfig(captures=str(root / "captures"), out=str(root / "out"), size=32, **settings))  # type: ignore[arg-type]
    return root / "out"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"fit": "stretch"},
        {"solver": "integrable"},
        {"solver": "least_squares"},
        {"integration": "frankot_chellappa"},
    ],
)
def test_maps_without_a_light_are_those_of_a_capture_without_it(
    settings: dict[str, str], tmp_path: Path, write_capture: WriteCapture
) -> None:
    images = np.random.default_rng(0).integers(60, 200, (4, 6, 5), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    write(tmp_path, write_capture, FOUR, images)
    for left_out in range(4):
        used = [light for light in range(4) if light != left_out]
        write_capture(tmp_path / f"captures/a/without{left_out}", images[used], [FOUR[light] for light in used])
    out = prepared(tmp_path, **settings)
    stored = read_stored_pictures(out, KEY)
    assert stored is not None
    for left_out in range(4):
        found = maps_without_light(stored, left_out, ["albedo", "normal", "depth"])
        folder = out / f"data/a/without{left_out}"
        assert not (folder / "pictures.npy").exists()
        expected = {name: np.load(folder / f"{name}.npy") for name in found}
        np.testing.assert_allclose(found["albedo"][0], expected["albedo"], rtol=5e-3)
        np.testing.assert_allclose(found["normal"].transpose(1, 2, 0), expected["normal"], atol=5e-3)
        np.testing.assert_allclose(found["depth"][0], expected["depth"], atol=0.1)
        assert {one.dtype for one in found.values()} == {np.dtype(np.float32)}
    assert list(maps_without_light(stored, 0, ["normal"])) == ["normal"]


def test_only_lights_without_which_the_others_determine_the_normals_can_be_left_out(
    tmp_path: Path, write_capture: WriteCapture
) -> None:
    write(tmp_path, write_capture, ((0, 0), (40, 0), (-40, 0), (0, 40)))
    stored = read_stored_pictures(prepared(tmp_path), KEY)
    assert stored is not None
    assert stored.removable == [0, 1, 2], "without the last one, the others lie in one plane"


def test_a_hot_pixel_does_not_cost_the_other_pixels_their_digits() -> None:
    images = (0.8 * render(sphere(48)[0], FOUR)).astype(np.float32)
    images[2, 5, 5] = 1e8
    maps = compute_maps(Capture(images, directions(FOUR)), fit_frame((0, 0, 48, 48), 48, "crop"))
    found = pictures_to_store(maps)
    assert found is not None
    stored, described = found
    assert np.isfinite(stored).all()
    others = np.delete(images.ravel(), np.flatnonzero(images > 2))
    restored = np.delete(stored.ravel().astype(np.float64) * described["scale"], np.flatnonzero(images > 2))
    np.testing.assert_allclose(restored, others, rtol=1e-3)


def test_outside_the_picture_the_maps_are_empty(tmp_path: Path, write_capture: WriteCapture) -> None:
    normal = normals(hill, *grid(48, 24))
    write(tmp_path, write_capture, FOUR, to_8_bit(0.5 * render(normal, FOUR)))
    stored = read_stored_pictures(prepared(tmp_path, fit="pad"), KEY)
    assert stored is not None
    assert 0 < stored.mask.sum() < stored.mask.size
    found = maps_without_light(stored, 1, ["albedo", "normal"])
    assert (found["albedo"][0, ~stored.mask] == 0).all()
    assert (found["normal"][:, ~stored.mask] == np.array([[0], [0], [1]])).all()


@pytest.mark.parametrize(("angles", "count"), [(THREE, None), (FOUR, 4), (SEVEN, 7), ((*SEVEN, (0, -30)), None)])
def test_pictures_of_four_to_seven_lights_are_stored(
    angles: Angles, count: int | None, tmp_path: Path, write_capture: WriteCapture
) -> None:
    write(tmp_path, write_capture, angles)
    out = prepared(tmp_path)
    stored = read_stored_pictures(out, KEY)
    assert (out / "data/a/all/pictures.npy").exists() == (count is not None)
    assert (None if stored is None else len(stored.lights)) == count
    if stored is not None:
        np.testing.assert_allclose(stored.pictures[:, 16, 16], 0.8 * render(sphere(48)[0], angles)[:, 24, 24], atol=0.01)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: np.save(folder / "pictures.npy", np.ones((3, 32, 32), np.float16)), "shape 3 x 32 x 32"),
        (
            lambda folder: np.save(folder / "pictures.npy", np.full((4, 32, 32), np.nan, np.float16)),
            "contains no usable pictures",
        ),
        (lambda folder: (folder / "pictures.npy").write_bytes(b"\x93NUMPY"), "not a readable .npy file"),
        (lambda folder: edit(folder, lambda done: done.pop("pictures")), "prepared.json: does not describe pictures.npy"),
        (lambda folder: edit(folder, lambda done: done["pictures"].update(lights=[[0, 0, 1]])), "does not fit the other files"),
        (lambda folder: edit(folder, lambda done: done["pictures"].update(lights=[[0, 0, 0]] * 4)), "does not describe"),
        (lambda folder: edit(folder, lambda done: done["pictures"].update(lights=5)), "prepared.json: "),
        (lambda folder: edit(folder, lambda done: done["pictures"].update(scale=-1.0)), "contains no usable pictures"),
        (lambda folder: edit(folder, lambda done: done["pictures"].update(scale=1e300)), "contains no usable pictures"),
        (lambda folder: edit(folder, lambda done: done["frame"].update(width=0)), "does not describe pictures.npy"),
        (lambda folder: np.save(folder / "confidence.npy", np.full((32, 32), "a")), "does not fit the other files"),
        (lambda folder: np.save(folder / "confidence.npy", np.zeros((32, 32), np.float32)), "contains no usable pictures"),
    ],
)
def test_files_that_do_not_fit_together_are_rejected(
    damage: Callable[[Path], object], message: str, tmp_path: Path, write_capture: WriteCapture, rejected: AssertRejected
) -> None:
    write(tmp_path, write_capture, FOUR)
    out = prepared(tmp_path)
    damage(out / "data/a/all")
    with rejected(message, "prepare", "again"):
        read_stored_pictures(out, KEY)


def edit(folder: Path, change: Callable[[dict[str, dict[str, object]]], object]) -> None:
    record = json.loads((folder / "prepared.json").read_text())
    change(record["done"])
    (folder / "prepared.json").write_text(json.dumps(record))
