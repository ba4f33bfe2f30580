"""Augmentation keeps albedo, normals and depth consistent."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from fr_ps.config import AugmentConfig
from fr_ps.data.augment import (
    Similarity,
    apply_augmentation,
    apply_similarity,
    augment,
    draw_augmentation,
    sample_similarity,
    unit_normals,
)

SIZE = 64
STILL = AugmentConfig(flip=0, crop=1, rotation=0, noise=0)


def geometry(flip: bool = False, degrees: float = 0, side: float = 1, centre: tuple[float, float] = (0, 0)) -> Similarity:
    return Similarity(
        torch.tensor([-1.0 if flip else 1.0]), torch.tensor([math.radians(degrees)]), torch.tensor([side]), torch.tensor([centre])
    )


def surface() -> dict[str, torch.Tensor]:
    """A smooth bumpy surface: depth in pixels, its exact normals, and an albedo."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    x, y = columns - (SIZE - 1) / 2, (SIZE - 1) / 2 - rows
    z = 6 * np.sin(x / 9) * np.cos(y / 13) + 0.1 * x - 0.004 * (x**2 + 2 * y**2)
    right = 6 / 9 * np.cos(x / 9) * np.cos(y / 13) + 0.1 - 0.008 * x
    up = -6 / 13 * np.sin(x / 9) * np.sin(y / 13) - 0.016 * y
    normal = np.stack([-right, -up, np.ones_like(z)])
    normal /= np.linalg.norm(normal, axis=0)
    maps = {"depth": (z - z.mean())[None], "normal": normal, "albedo": (1.5 + np.sin(x / 5 + y / 7))[None]}
    return {name: torch.from_numpy(array[None].astype(np.float32)) for name, array in maps.items()}


def normals_of(depth: torch.Tensor) -> np.ndarray:
    down, right = np.gradient(depth[0, 0].double().numpy())
    vectors = np.stack([-right, down, np.ones_like(down)])
    return vectors / np.linalg.norm(vectors, axis=0)


@pytest.mark.parametrize(
    "change",
    [
        geometry(),
        geometry(flip=True),
        geometry(degrees=20, side=0.7),
        geometry(degrees=-20, side=0.7),
        geometry(side=0.6, centre=(0.3, -0.2)),
        geometry(flip=True, degrees=15, side=0.65, centre=(-0.1, 0.1)),
    ],
)
def test_transformed_normals_match_the_transformed_depth(change):
    maps = surface()
    expected = normals_of(apply_similarity(maps["depth"], "depth", change))
    got = apply_similarity(maps["normal"], "normal", change)[0].double().numpy()
    inner = (slice(None), slice(3, -3), slice(3, -3))
    degrees = np.degrees(np.arccos(np.clip((got * expected).sum(axis=0), -1, 1)))[inner[1:]]
    assert degrees.max() < 1
    assert np.abs(np.linalg.norm(got, axis=0) - 1).max() < 1e-5


def test_rotation_by_90_degrees_equals_torch_rot90():
    maps = surface()
    turned = {name: apply_similarity(array, name, geometry(degrees=90)) for name, array in maps.items()}
    for name in ("depth", "albedo"):
        torch.testing.assert_close(turned[name], torch.rot90(maps[name], 1, (2, 3)), atol=1e-4, rtol=0)
    x, y, z = torch.rot90(maps["normal"], 1, (2, 3)).unbind(1)  # counter-clockwise, so that what looked right looks up
    torch.testing.assert_close(turned["normal"], torch.stack([-y, x, z], dim=1), atol=1e-4, rtol=0)


def test_flip_equals_torch_flip_and_is_its_own_inverse():
    maps = surface()
    for name, array in maps.items():
        once = apply_similarity(array, name, geometry(flip=True))
        expected = array.flip(3) * (torch.tensor([-1.0, 1, 1])[None, :, None, None] if name == "normal" else 1)
        torch.testing.assert_close(once, expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(apply_similarity(once, name, geometry(flip=True)), array, atol=1e-4, rtol=0)


def test_a_crop_magnifies_depth_like_the_picture():
    depth = surface()["depth"]
    half = apply_similarity(depth, "depth", geometry(side=0.5))
    corner = depth[0, 0, SIZE // 4 : 3 * SIZE // 4, SIZE // 4 : 3 * SIZE // 4]
    assert float(half.std()) == pytest.approx(2 * float(corner.std()), rel=0.02)
    assert float(half.mean()) == pytest.approx(0, abs=1e-4)


def test_disabled_augmentation_is_the_identity():
    maps = surface()
    for name, array in augment(maps, STILL, torch.Generator().manual_seed(0)).items():
        torch.testing.assert_close(array, maps[name], atol=1e-5, rtol=0)


def test_augment_depends_on_the_generator_only_and_does_not_change_its_input():
    maps = {name: array.repeat(5, 1, 1, 1) for name, array in surface().items()}
    copies = {name: array.clone() for name, array in maps.items()}
    first, again, other = (augment(maps, AugmentConfig(), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    for name in maps:
        torch.testing.assert_close(first[name], again[name], atol=0, rtol=0)
        assert not torch.equal(first[name], other[name])
        assert not torch.equal(first[name][0], first[name][1])
        torch.testing.assert_close(maps[name], copies[name], atol=0, rtol=0)


def test_all_maps_of_a_session_get_the_same_transform():
    maps = {name: array.repeat(4, 1, 1, 1) for name, array in surface().items()}
    config = AugmentConfig(flip=0.5, crop=0.7, rotation=20, noise=0)
    together = augment(maps, config, torch.Generator().manual_seed(3))
    alone = augment({"albedo": maps["depth"] * 0 + maps["albedo"]}, config, torch.Generator().manual_seed(3))
    torch.testing.assert_close(together["albedo"], alone["albedo"])
    for index in range(4):
        got = together["normal"][index].double().numpy()
        degrees = np.degrees(np.arccos(np.clip((got * normals_of(together["depth"][index : index + 1])).sum(axis=0), -1, 1)))
        assert np.median(degrees) < 1


def test_sampled_transforms_stay_within_the_settings():
    config = AugmentConfig(flip=0.25, crop=0.6, rotation=10)
    drawn = sample_similarity(4000, config, torch.Generator().manual_seed(0))
    assert float((drawn.flip < 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert float(drawn.angle.abs().max()) <= math.radians(10)
    assert 0.6 <= float(drawn.side.min()) < 0.62
    assert 0.98 < float(drawn.side.max()) <= 1
    assert float((drawn.centre.abs() + drawn.side[:, None]).max()) <= 1 + 1e-6


def test_sampled_sizes_and_shifts_stay_within_the_settings_and_are_symmetric() -> None:
    config = AugmentConfig(crop=1, scale=0.25, shift=0.1)
    drawn = sample_similarity(4000, config, torch.Generator().manual_seed(0))
    factor = 1 / drawn.side  # log-uniform
    assert 1 / 1.25 - 1e-6 <= float(factor.min()) < 0.805
    assert 1.24 < float(factor.max()) <= 1.25 + 1e-6
    assert float(factor.log().mean()) == pytest.approx(0, abs=0.01)
    assert float(factor.log().std()) == pytest.approx(math.log(1.25) / math.sqrt(3), rel=0.03)
    pixels = SIZE / 2 * drawn.centre
    assert float(pixels.abs().max()) == pytest.approx(0.1 * SIZE, rel=0.01)
    assert float(pixels.mean(dim=0).abs().max()) < 0.2
    assert float(pixels.std()) == pytest.approx(0.1 * SIZE / math.sqrt(3), rel=0.03)


def test_size_and_shift_come_on_top_of_the_crop() -> None:
    cropped = sample_similarity(50, AugmentConfig(crop=0.7), torch.Generator().manual_seed(0))
    both = sample_similarity(50, AugmentConfig(crop=0.7, scale=0.2, shift=0.05), torch.Generator().manual_seed(0))
    assert torch.equal(both.angle, cropped.angle)
    assert float((both.side / cropped.side).log().abs().max()) <= math.log(1.2) + 1e-6
    assert 0 < float((both.centre - cropped.centre).abs().max()) <= 2 * 0.05 + 1e-6


def test_maps_stay_consistent_under_every_size_and_shift() -> None:
    maps = {name: array.repeat(8, 1, 1, 1) for name, array in surface().items()}
    config = AugmentConfig(crop=1, rotation=10, noise=0, scale=0.3, shift=0.1)
    moved = augment(maps, config, torch.Generator().manual_seed(3))
    for index in range(8):
        got = moved["normal"][index].double().numpy()
        degrees = np.degrees(np.arccos(np.clip((got * normals_of(moved["depth"][index : index + 1])).sum(axis=0), -1, 1)))
        assert np.median(degrees) < 1  # the border that is repeated has no slope


def erased(erase: float, count: int = 400) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], torch.Tensor]:
    """Maps, the same with erasing, and (count, SIZE, SIZE) where the normals are (0, 0, 1)."""
    maps = {name: array.repeat(count, 1, 1, 1) for name, array in surface().items()}
    config = AugmentConfig(flip=0, crop=1, rotation=0, noise=0, erase=erase)
    still = augment(maps, STILL, torch.Generator().manual_seed(0))
    found = augment(maps, config, torch.Generator().manual_seed(0))
    upright = (found["normal"] == torch.tensor([0.0, 0, 1])[:, None, None]).all(dim=1)
    return still, found, upright


def test_an_erased_rectangle_is_a_flat_surface_in_all_maps_of_a_session() -> None:
    still, found, upright = erased(1.0)
    inside = upright[:, None]
    assert float(found["depth"][inside].abs().max()) == 0
    mean = still["albedo"].mean(dim=(1, 2, 3), keepdim=True).expand_as(inside)
    torch.testing.assert_close(found["albedo"][inside], mean[inside])
    for name, array in found.items():
        kept = ~inside.expand_as(array)
        assert torch.equal(array[kept], still[name][kept])


def test_erased_rectangles_have_the_areas_of_the_paper_and_any_aspect_up_to_three() -> None:
    _, _, upright = erased(1.0)
    rows, columns = upright.any(dim=2).sum(dim=1), upright.any(dim=1).sum(dim=1)
    assert torch.equal(rows * columns, upright.sum(dim=(1, 2)))  # rectangles
    share = (rows * columns) / SIZE**2
    assert 0.01 < float(share.min()) < 0.05
    assert 0.3 < float(share.max()) < 0.36
    aspect = (rows / columns).log().abs().exp()
    assert 2.5 < float(aspect.max()) < 3.5
    assert len(upright.flatten(1).unique(dim=0)) > 380


@pytest.mark.parametrize("probability", [0.25, 0.5])
def test_a_session_is_erased_with_the_probability_of_the_setting(probability: float) -> None:
    _, _, upright = erased(probability)
    assert float(upright.any(dim=2).any(dim=1).float().mean()) == pytest.approx(probability, abs=0.07)


def test_noise_covers_10_to_25_percent_and_normals_stay_unit():
    maps = {name: array.repeat(50, 1, 1, 1) for name, array in surface().items()}
    noisy = augment(maps, AugmentConfig(flip=0, crop=1, rotation=0, noise=0.5), torch.Generator().manual_seed(0))
    for name, array in noisy.items():
        changed = ((array - maps[name]).abs() > 1e-4).any(dim=1)
        share = changed.float().mean(dim=(1, 2))
        rows, columns = changed.any(dim=2).sum(dim=1), changed.any(dim=1).sum(dim=1)
        assert float(share.max()) <= 0.25 + 2 / SIZE
        assert float((rows * columns).max()) <= (0.25 + 2 / SIZE) * SIZE**2
        assert float(share.mean()) > 0.08
    torch.testing.assert_close(noisy["normal"].norm(dim=1), torch.ones(50, SIZE, SIZE))
    assert float(noisy["albedo"].min()) >= 0


def test_the_noise_patch_is_shared_by_the_maps_of_a_session_and_differs_between_sessions():
    maps = {name: array.repeat(20, 1, 1, 1) for name, array in surface().items()}
    still, noisy = (augment(maps, AugmentConfig(noise=noise), torch.Generator().manual_seed(0)) for noise in (0, 0.5))
    edges = {}
    for name, array in noisy.items():
        changed = ((array - still[name]).abs() > 1e-6).any(dim=1)
        edges[name] = torch.cat([changed.any(dim=2), changed.any(dim=1)], dim=1)
    assert torch.equal(edges["normal"], edges["depth"])
    assert torch.equal(edges["normal"], edges["albedo"])
    assert len(edges["normal"].unique(dim=0)) == 20


def test_the_grid_is_that_of_affine_grid() -> None:
    drawn = sample_similarity(5, AugmentConfig(rotation=30, crop=0.6, scale=0.2, shift=0.1), torch.Generator().manual_seed(0))
    maps = torch.zeros(5, 3, 24, 16)
    expected = torch.nn.functional.affine_grid(drawn.matrix(), [5, 3, 24, 16], align_corners=False)
    torch.testing.assert_close(drawn.grid(maps), expected, atol=2e-6, rtol=0)


def test_unit_normals_are_those_of_normalize_in_float64_and_zero_stays_zero() -> None:
    normals = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    normals[0, :, 2, 3] = 0
    expected = torch.nn.functional.normalize(normals.double(), dim=1)
    torch.testing.assert_close(unit_normals(normals).double(), expected, atol=1e-6, rtol=0)


def test_a_part_of_a_batch_is_augmented_as_in_the_whole_batch() -> None:
    """A process that trains on a part of the batch gets the same maps as one process with all of it."""
    config = AugmentConfig(rotation=20, scale=0.2, noise=0.3, erase=0.5)
    batch = {name: maps.repeat(6, 1, 1, 1) for name, maps in surface().items()}
    drawn = draw_augmentation(6, len(batch), config, torch.Generator().manual_seed(1))
    whole = apply_augmentation(batch, drawn)
    rows = slice(2, 5)
    part = apply_augmentation({name: maps[rows] for name, maps in batch.items()}, drawn.part(rows))
    for name, maps in part.items():
        torch.testing.assert_close(maps, whole[name][rows], atol=0, rtol=0)


def test_noise_is_standard_normal_and_differs_between_sessions_and_maps() -> None:
    count = 400
    maps = {"albedo": torch.ones(count, 1, SIZE, SIZE), "other": torch.ones(count, 1, SIZE, SIZE)}
    config = AugmentConfig(flip=0, crop=1, rotation=0, noise=1.0)
    drawn = draw_augmentation(count, 2, config, torch.Generator().manual_seed(0))
    changed = apply_augmentation(maps, drawn)["other"] - 1  # not clamped at 0, unlike albedo
    values = [one[one != 0].double() / strength for one, strength in zip(changed, drawn.noise_strength[:, 1])]
    pooled = torch.cat(values)
    assert abs(pooled.mean()) < 0.01
    assert abs(pooled.std() - 1) < 0.01
    assert abs((pooled**4).mean() - 3) < 0.1  # of a normal distribution
    correlation = [torch.corrcoef(torch.stack([a[:200], b[:200]]))[0, 1].abs() for a, b in pairwise(values)]
    assert float(torch.stack(correlation).mean()) < 0.1
    assert len(drawn.noise_start.unique()) > 2 * count - 5
