"""The picture of some sessions' maps."""

import shutil

import numpy as np
import pytest
from PIL import Image

from fr_ps.data.contact_sheet import LIGHT_DIRECTION, TILE_SIZE, contact_sheet, pick_sessions, render_tiles, write_contact_sheet
from fr_ps.data.labels import read_labels
from fr_ps.errors import InputError


def sphere(size: int = 65) -> dict[str, np.ndarray]:
    """The front of a ball of constant albedo: (C, H, W) maps."""
    down, right = np.mgrid[:size, :size] * 2 / (size - 1) - 1
    up = -down
    inside = right**2 + up**2 < 1
    toward = np.sqrt(np.where(inside, 1 - right**2 - up**2, 0))
    normal = np.where(inside, np.stack([right, up, toward]), np.array([0, 0, 1])[:, None, None])
    return {"albedo": np.full((1, size, size), 3.0), "normal": normal, "depth": toward[None] * size / 2}


def test_normals_have_the_usual_colours():
    picture = render_tiles(sphere())["normals"]
    assert np.abs(picture[32, 32].astype(int) - (128, 128, 255)).max() <= 1
    right, top = picture[32, 60].astype(int), picture[4, 32].astype(int)
    assert right[0] > 220
    assert abs(right[1] - 128) <= 1
    assert top[1] > 220
    assert abs(top[0] - 128) <= 1


def test_nearer_is_brighter():
    picture = render_tiles(sphere())["depth"][..., 0].astype(int)
    assert picture[32, 32] == 255
    assert picture[0, 0] == 0
    assert picture[32, 32] > picture[32, 12] > picture[32, 3]


def test_the_relit_ball_is_bright_toward_the_upper_left_and_black_on_the_other_side():
    maps = sphere()
    picture = render_tiles(maps)["relit"][..., 0].astype(int)
    inside = np.hypot(*(np.mgrid[:65, :65] - 32)) < 31
    row, column = np.argwhere(inside & (picture >= 254)).mean(axis=0)
    assert (column - 32) / 32 == pytest.approx(LIGHT_DIRECTION[0], abs=0.05)
    assert (32 - row) / 32 == pytest.approx(LIGHT_DIRECTION[1], abs=0.05)
    assert LIGHT_DIRECTION[0] < 0 < LIGHT_DIRECTION[1]
    assert picture[53, 53] == 0


def test_the_scale_of_albedo_does_not_matter():
    maps = sphere()
    for name, picture in render_tiles(maps | {"albedo": 100 * maps["albedo"]}).items():
        np.testing.assert_array_equal(picture, render_tiles(maps)[name])


def test_missing_maps_have_no_tile():
    maps = sphere()
    assert list(render_tiles(maps)) == ["albedo", "normals", "depth", "relit"]
    assert list(render_tiles({"depth": maps["depth"]})) == ["depth"]
    assert list(render_tiles({"depth": maps["depth"], "albedo": maps["albedo"]})) == ["albedo", "depth"]


def test_flat_and_black_maps_have_tiles_too():
    for picture in render_tiles({"albedo": np.zeros((1, 4, 4)), "depth": np.zeros((1, 4, 4))}).values():
        assert not picture.any()


def test_one_session_of_each_of_the_picked_subjects_is_shown(prepared):
    labels = read_labels(prepared / "labels.csv")
    rows = pick_sessions(labels, 4, seed=0)
    assert len(set(labels.ids[rows])) == len(rows) == 4
    assert len(pick_sessions(labels, 12, seed=0)) == 6
    shuffled = labels.subset(np.random.default_rng(0).permutation(len(labels)))
    again = pick_sessions(shuffled, 4, seed=0)
    assert list(zip(shuffled.ids[again], shuffled.sessions[again])) == list(zip(labels.ids[rows], labels.sessions[rows]))
    drawn = {tuple(labels.sessions[pick_sessions(labels, 6, seed)]) for seed in range(5)}
    assert len(drawn) > 1


def test_the_sheet_contains_the_tiles_of_every_session(prepared, tmp_path):
    labels = read_labels(prepared / "labels.csv")
    rows = np.array([0, 5, 9])
    write_contact_sheet(tmp_path / "sheet.png", prepared, labels, rows)
    with Image.open(tmp_path / "sheet.png") as image:
        sheet = np.asarray(image)
    for row in rows:
        folder = prepared / "data" / labels.ids[row] / labels.sessions[row]
        normal = np.round((np.load(folder / "normal.npy") + 1) / 2 * 255).clip(0, 255).astype(np.uint8)
        tile = np.asarray(Image.fromarray(normal).resize((TILE_SIZE, TILE_SIZE), Image.Resampling.BICUBIC))
        windows = np.lib.stride_tricks.sliding_window_view(sheet[:, :, 0], (TILE_SIZE, TILE_SIZE))
        corners = np.argwhere((windows[:, :, 0, 0] == tile[0, 0, 0]) & (windows[:, :, 70, 70] == tile[70, 70, 0]))
        assert any(np.array_equal(sheet[y : y + TILE_SIZE, x : x + TILE_SIZE], tile) for y, x in corners)


def test_a_bad_map_is_an_error_that_names_the_file(prepared, tmp_path):
    root = shutil.copytree(prepared, tmp_path / "set")
    (root / "data/S000/s00/normal.npy").write_bytes(b"no map")
    labels = read_labels(root / "labels.csv")
    with pytest.raises(InputError, match=r"S000/s00/normal\.npy"):
        contact_sheet(root, labels, np.array([0]))
