"""Jitter: one transform per session, within the bounds, consistent over its maps."""

import hashlib
import math

import numpy as np
import pytest

from fr_ps.data.labels import DEFAULT_CLASSES, Labels
from fr_ps.data.store import MapStore
from fr_ps.evaluation.jitter import ROTATION, SCALE, SHIFT, TEST_SEED, JitteredMaps, draw_jitter, jitter
from tests.photometric.surfaces import degrees, grid, normals, sphere

MANY = 4000


def height(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 5 * np.sin(x / 9) * np.cos(y / 13) + 0.1 * x - 0.003 * (x**2 + 2 * y**2)


def paint(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 1.5 + np.sin(x / 6 + y / 8)


def bumps(size: int, count: int = 1) -> dict[str, np.ndarray]:
    """The maps of a smooth surface, `count` times over."""
    x, y = grid(size, size)
    z = height(x, y)
    maps = {"albedo": paint(x, y)[None], "normal": normals(height, x, y).transpose(2, 0, 1), "depth": (z - z.mean())[None]}
    return {modality: np.repeat(array[None], count, axis=0).astype(np.float32) for modality, array in maps.items()}


def names(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.array([f"p{row // 4}" for row in range(count)]), np.array([f"s{row % 4}" for row in range(count)])


def test_transforms_are_uniform_within_their_bounds_and_uncorrelated() -> None:
    drawn = draw_jitter(*names(MANY), seed=0)
    turn = np.degrees(drawn.angle.double().numpy()) / 5
    scale = (1 / drawn.side.double().numpy() - 1) / 0.1
    pixels = drawn.centre.double().numpy() * 112 / 2 / 4
    shares = np.column_stack([turn, scale, pixels])
    assert (np.abs(shares) <= 1 + 1e-5).all()
    assert (np.abs(shares).max(axis=0) > 0.99).all()
    np.testing.assert_allclose(shares.mean(axis=0), 0, atol=0.04)
    np.testing.assert_allclose(shares.var(axis=0), 1 / 3, atol=0.02)
    assert np.abs(np.corrcoef(shares.T) - np.eye(4)).max() < 0.06
    assert (drawn.flip == 1).all()


def test_a_transform_is_computed_from_the_hash_of_seed_id_and_session() -> None:
    drawn = draw_jitter(np.array(["B05"]), np.array(["q1"]), seed=3)
    digest = hashlib.sha256(b"3\0B05\0q1").digest()
    u = [2 * int.from_bytes(digest[8 * k : 8 * k + 8], "little") / 2**64 - 1 for k in range(4)]
    assert drawn.angle.item() == pytest.approx(math.radians(5) * u[0], rel=1e-5)
    assert drawn.side.item() == pytest.approx(1 / (1 + 0.1 * u[1]), rel=1e-5)
    assert drawn.centre[0].tolist() == pytest.approx([2 * 4 / 112 * u[2], 2 * 4 / 112 * u[3]], rel=1e-5)


def test_neither_batch_nor_order_changes_a_session() -> None:
    rng = np.random.default_rng(0)
    maps = {modality: array + rng.normal(0, 0.1, array.shape).astype(np.float32) for modality, array in bumps(40, 12).items()}
    ids, sessions = names(12)
    together = jitter(maps, ids, sessions, seed=1)
    order = rng.permutation(12)
    shuffled = jitter({modality: array[order] for modality, array in maps.items()}, ids[order], sessions[order], seed=1)
    for modality, array in together.items():
        np.testing.assert_allclose(shuffled[modality], array[order], atol=1e-5)
        for row in (0, 7):
            alone = jitter({modality: maps[modality][[row]]}, ids[[row]], sessions[[row]], seed=1)
            np.testing.assert_allclose(alone[modality][0], array[row], atol=1e-5)


def test_another_seed_subject_or_session_gives_another_transform() -> None:
    ids, sessions = np.array(["a", "b", "a", "ab", "a"]), np.array(["s", "s", "t", "c", "bc"])
    angles = {float(angle) for seed in (0, 1) for angle in draw_jitter(ids, sessions, seed).angle}
    assert len(angles) == 10


@pytest.mark.parametrize("size", [112, 56])
def test_maps_are_those_of_the_rotated_scaled_and_shifted_surface(size: int) -> None:
    ids, sessions = names(16)
    moved = jitter(bumps(size, 16), ids, sessions, seed=0)
    drawn = draw_jitter(ids, sessions, seed=0)
    x, y = grid(size, size)
    inner = (slice(size // 6, -(size // 6)),) * 2
    for row in range(16):
        angle, scale = float(drawn.angle[row]), 1 / float(drawn.side[row])
        right, down = (drawn.centre[row].double().numpy() * size / 2).tolist()

        def back(x, y, angle=angle, scale=scale, right=right, down=down):
            """The point of the original map that is moved to (x, y): rotated back, then scaled back."""
            old_x, old_y = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
            return old_x / scale + right, old_y / scale - down

        def new_height(x, y, back=back, scale=scale):
            return scale * height(*back(x, y))

        np.testing.assert_allclose(moved["albedo"][row, 0][inner], paint(*back(x, y))[inner], atol=0.02)
        off = (moved["depth"][row, 0] - new_height(x, y))[inner]
        assert np.ptp(off) < 0.06  # constant: the mean is subtracted
        apart = degrees(moved["normal"][row].transpose(1, 2, 0).astype(np.float64), normals(new_height, x, y))
        assert apart[inner].max() < 0.5


def test_a_sphere_stays_a_sphere_whose_top_moved() -> None:
    normal, depth, radius = sphere(112)
    maps = {"normal": normal.transpose(2, 0, 1)[None].astype(np.float32), "depth": depth[None, None].astype(np.float32)}
    ids, sessions = np.array(["a"]), np.array(["b"])
    drawn = draw_jitter(ids, sessions, seed=0)
    moved = jitter(maps, ids, sessions, seed=0)
    scale, angle = 1 / float(drawn.side), float(drawn.angle)
    right, up = float(drawn.centre[0, 0]) * 56, -float(drawn.centre[0, 1]) * 56
    top_x = -scale * (np.cos(angle) * right - np.sin(angle) * up)
    top_y = -scale * (np.sin(angle) * right + np.cos(angle) * up)
    x, y = grid(112, 112)
    wanted = np.stack([x - top_x, y - top_y], axis=-1) / (scale * radius)
    wanted = np.concatenate([wanted, np.sqrt(1 - np.sum(wanted**2, axis=-1, keepdims=True))], axis=-1)
    inner = (slice(16, -16), slice(16, -16))
    assert degrees(moved["normal"][0].transpose(1, 2, 0).astype(np.float64), wanted)[inner].max() < 0.1
    off = (moved["depth"][0, 0] - scale * radius * wanted[..., 2])[inner]
    assert np.ptp(off) < 0.01


def test_normals_stay_unit_vectors_depth_keeps_its_mean_and_the_input_does_not_change() -> None:
    maps = bumps(48, 8)
    rng = np.random.default_rng(0)
    rough = rng.normal(size=maps["normal"].shape)
    maps["normal"] = (rough / np.linalg.norm(rough, axis=1, keepdims=True)).astype(np.float32)
    copies = {modality: array.copy() for modality, array in maps.items()}
    moved = jitter(maps, *names(8), seed=0)
    np.testing.assert_allclose(np.linalg.norm(moved["normal"], axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(moved["depth"].mean(axis=(1, 2, 3)), 0, atol=1e-4)
    for modality, array in moved.items():
        assert array.dtype == np.float32
        assert array.shape == maps[modality].shape
        assert not np.allclose(array, maps[modality], atol=1e-2)
        np.testing.assert_array_equal(maps[modality], copies[modality])


def test_outside_the_map_the_border_is_repeated() -> None:
    flat = np.full((20, 1, 32, 32), 0.7, dtype=np.float32)
    np.testing.assert_allclose(jitter({"albedo": flat}, *names(20), seed=0)["albedo"], 0.7, atol=1e-6)


def test_the_bounds_are_those_of_the_protocol() -> None:
    assert (ROTATION, SCALE, SHIFT * 112) == (5, 0.1, 4)


def test_the_maps_of_a_store_are_warped_by_the_names_of_their_rows_the_same_at_each_read() -> None:
    """The store has some rows of its table, in another order."""
    ids, sessions = names(8)
    whole = {
        modality: array * np.linspace(0.5, 1, 8, dtype=np.float32)[:, None, None, None]
        for modality, array in bumps(24, 8).items()
    }
    used = np.array([6, 1, 3, 4])
    labels = Labels(ids[used], sessions[used], np.zeros((4, 5), np.int8), DEFAULT_CLASSES, "raw", {})
    maps = JitteredMaps(MapStore(whole, used, "digest"), labels)
    rows = np.array([2, 0, 3])
    asked = used[rows]
    expected = jitter({modality: array[asked] for modality, array in whole.items()}, ids[asked], sessions[asked], TEST_SEED)
    for _ in range(2):
        found = maps.read(rows)
        assert list(found) == list(expected)
        for modality, array in found.items():
            np.testing.assert_array_equal(array, expected[modality])
