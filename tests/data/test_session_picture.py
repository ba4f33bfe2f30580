"""The tiles of one session, and the sheet."""

from dataclasses import replace
from io import BytesIO

import numpy as np
from PIL import Image

from fr_ps.data.session_picture import TILE_SIZE, session_sheet, session_tiles
from fr_ps.data.session_view import Recorded, SessionView
from tests.photometric.surfaces import FOUR, directions, grid, render, sphere

SIZE = 32


def sphere_view(lights: int = 4) -> SessionView:
    """A sphere in a disc-shaped mask, with an altered pixel in one of its recorded pictures."""
    normal, depth, _ = sphere(SIZE)
    x, y = grid(SIZE, SIZE)
    mask = np.hypot(x, y) < 14
    angles = (FOUR * 10)[:lights]
    residual = np.zeros((SIZE, SIZE), dtype=np.float32)
    residual[16, 16] = 0.5
    recorded = Recorded(render(normal, angles), directions(angles), residual)
    albedo = np.ones((SIZE, SIZE))
    return SessionView("a/s", albedo, normal, depth, mask.astype(np.float32), mask, recorded, "", {}, [])


def without_recorded(view: SessionView) -> SessionView:
    return replace(view, recorded=None, no_recorded="no captures")


def test_every_map_has_a_tile_in_the_usual_look() -> None:
    recorded, maps, relit = (list(group) for group in session_tiles(sphere_view()).values())
    assert recorded[0].title == "light 1: azimuth 30°, elevation 35°"
    assert [tile.title.partition(":")[0] for tile in maps] == [
        "mask",
        "albedo",
        "normals (OpenGL colours)",
        "depth",
        "confidence",
        "residual",
    ]
    mask, _, normals, depth, _, residual = (tile.picture.astype(int) for tile in maps)
    assert set(np.unique(mask)) == {0, 255}
    assert np.abs(normals[16, 16] - (128, 128, 255)).max() <= 4
    assert normals[16, 28, 0] > 155 > 100 > normals[16, 3, 0]
    assert normals[3, 16, 1] > 155 > 100 > normals[28, 16, 1]
    assert depth[16, 16, 0] > 250 > depth[16, 8, 0] > depth[16, 4, 0]
    assert residual[16, 16, 0] == 255
    assert residual.sum() == 3 * 255
    assert len(relit) == 4


def test_the_tile_lit_from_the_left_is_bright_on_the_left() -> None:
    *_, relit = session_tiles(sphere_view()).values()
    brightness = {tile.title: tile.picture.astype(float) for tile in relit}
    left, right = brightness["light from the left"], brightness["light from the right"]
    above, below = brightness["light from above"], brightness["light from below"]
    half = SIZE // 2
    assert left[:, :half].mean() > 1.5 * left[:, half:].mean()
    assert right[:, half:].mean() > 1.5 * right[:, :half].mean()
    assert above[:half].mean() > 1.5 * above[half:].mean()
    assert below[half:].mean() > 1.5 * below[:half].mean()
    assert left[0, 0].max() == 0  # outside the mask


def test_without_captures_the_title_says_why_there_is_no_residual() -> None:
    tiles = session_tiles(without_recorded(sphere_view()))
    assert next(iter(tiles)) == "no recorded pictures and no residual: no captures"
    assert not any(tile.title.startswith("residual") for group in tiles.values() for tile in group)


def test_of_many_recorded_pictures_some_are_shown() -> None:
    title, group = next(iter(session_tiles(sphere_view(lights=40)).items()))
    assert title == "12 of 40 recorded pictures"
    assert len(group) == 12
    assert group[0].title.startswith("light 1:")
    assert group[-1].title.startswith("light 40:")


def test_the_sheet_shows_every_tile() -> None:
    view = sphere_view()
    tiles = session_tiles(view)
    with Image.open(BytesIO(session_sheet(view, tiles))) as image:
        sheet = np.asarray(image)
    for tile in [tile for group in tiles.values() for tile in group]:
        picture = np.asarray(Image.fromarray(tile.picture).resize((TILE_SIZE, TILE_SIZE), Image.Resampling.BICUBIC))
        windows = np.lib.stride_tricks.sliding_window_view(sheet[..., 0], (TILE_SIZE, TILE_SIZE))
        corners = np.argwhere((windows[:, :, 0, 0] == picture[0, 0, 0]) & (windows[:, :, 112, 60] == picture[112, 60, 0]))
        assert any(np.array_equal(sheet[y : y + TILE_SIZE, x : x + TILE_SIZE], picture) for y, x in corners), tile.title
    with Image.open(BytesIO(session_sheet(view, session_tiles(without_recorded(view))))) as smaller:
        assert smaller.height < len(sheet)
