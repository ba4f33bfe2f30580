"""benchmarks/alter_maps.py: blending by a loop in float64, the slopes of a plane, a relit sphere, and the written data sets."""

from pathlib import Path

import alter_maps
import numpy as np
import pytest
from alter_maps import blend_by_confidence, draw_lights, fill_from_mirror, normals_of_depth, relight

from fr_ps.data.dataset import open_dataset
from fr_ps.data.labels import read_labels
from fr_ps.photometric.maps import SurfaceMaps

SIZE = 48


def maps_of(albedo: np.ndarray, normal: np.ndarray, depth: np.ndarray | None = None, confidence: float = 1.0) -> SurfaceMaps:
    depth = np.zeros_like(albedo) if depth is None else depth
    return SurfaceMaps(albedo, normal, depth, np.full_like(albedo, confidence), {}, {})


def sphere() -> SurfaceMaps:
    """The front of a sphere of albedo 0.5, up to 37 degrees at the middle of a side."""
    x = np.linspace(-0.6, 0.6, SIZE)[None, :] + np.zeros((SIZE, 1))
    y = -x.T
    normal = np.stack([x, y, np.sqrt(1 - x**2 - y**2)], axis=-1)
    depth = normal[..., 2] * (SIZE - 1) / 1.2
    return maps_of(np.full((SIZE, SIZE), 0.5, np.float32), normal.astype(np.float32), (depth - depth.mean()).astype(np.float32))


def angles(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(H, W) degrees between unit vectors (H, W, 3)."""
    return np.degrees(np.arccos(np.clip(np.sum(first.astype(float) * second, axis=-1), -1, 1)))


def test_normals_and_albedo_are_blended_by_confidence() -> None:
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(3, 3, 3)) + np.array([0, 0, 2])
    normal = (normal / np.linalg.norm(normal, axis=-1, keepdims=True)).astype(np.float32)
    albedo, share = rng.random((2, 3, 3), dtype=np.float32)
    share[0] = 0, 1, 0.5
    found = blend_by_confidence(SurfaceMaps(albedo, normal, albedo, share, {}, {}))
    middle = sorted(albedo.ravel().tolist())[4]
    for row in range(3):
        for column in range(3):
            c = float(share[row, column])
            x, y, z = (c * normal[row, column]).astype(float) + np.array([0, 0, 1 - c])
            wanted = np.array([x, y, z]) / (x * x + y * y + z * z) ** 0.5
            np.testing.assert_allclose(found.normal[row, column], wanted, atol=1e-6)
            assert found.albedo[row, column] == pytest.approx(c * albedo[row, column] + (1 - c) * middle, abs=1e-6)
    np.testing.assert_array_equal(found.normal[0, 0], (0, 0, 1))
    np.testing.assert_allclose(found.normal[0, 1], normal[0, 1], atol=1e-6)
    assert found.depth is albedo


def test_undetermined_pixels_become_those_of_the_other_half() -> None:
    """A sphere is its own mirror image. Its left half is damaged there where the confidence is 0."""
    whole = sphere()
    albedo, normal, confidence = whole.albedo.copy(), whole.normal.copy(), whole.confidence.copy()
    damaged = (slice(10, 30), slice(0, SIZE // 2))
    albedo[damaged], normal[damaged], confidence[damaged] = 0.1, (0, 0, 1), 0
    found = fill_from_mirror(SurfaceMaps(albedo, normal, whole.depth, confidence, {}, {}))
    np.testing.assert_allclose(found.albedo, whole.albedo, atol=1e-6)
    assert angles(found.normal, whole.normal).max() < 0.1
    half = fill_from_mirror(SurfaceMaps(albedo, normal, whole.depth, np.where(confidence > 0, 0.5, 0).astype(np.float32), {}, {}))
    np.testing.assert_allclose(half.albedo[damaged], 0.1 + 0.5 * 0.4, atol=1e-6)


def test_normals_of_a_plane_follow_from_its_depth() -> None:
    row, column = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    depth = 0.5 * column - 0.25 * row  # y points up: dz/dx = 0.5, dz/dy = 0.25
    frontal = np.broadcast_to(np.float32([0, 0, 1]), (SIZE, SIZE, 3))
    found = normals_of_depth(maps_of(depth, frontal, depth))
    wanted = np.array([-0.5, -0.25, 1]) / np.sqrt(0.5**2 + 0.25**2 + 1)
    np.testing.assert_allclose(found.normal, np.broadcast_to(wanted, (SIZE, SIZE, 3)), atol=1e-5)


def test_lights_are_symmetric_and_well_conditioned() -> None:
    drawn = [draw_lights(np.random.default_rng(seed)) for seed in range(200)]
    for lights in drawn:
        np.testing.assert_allclose(np.linalg.norm(lights, axis=1), 1)
        assert lights[:, 0].sum() == pytest.approx(0)
        assert np.linalg.cond(lights) < 10
        azimuth, elevation = np.degrees([np.arctan2(-lights[:, 0], lights[:, 2]), np.arcsin(lights[:, 1])])
        assert np.abs(azimuth).max() <= 60
        assert -40 <= elevation.min() <= 0 <= elevation.max() <= 65
    in_the_middle = sum(bool((np.abs(lights[:, 0]) < 1e-12).any()) for lights in drawn)
    assert 70 < in_the_middle < 130


def test_a_relit_sphere_has_its_normals_albedo_and_depth() -> None:
    truth = sphere()
    for seed in range(8):
        lights = draw_lights(np.random.default_rng(seed))
        found = relight(truth, lights, np.random.default_rng(seed))
        lit = (np.einsum("hwc,kc->khw", truth.normal, lights) > 0.3).all(axis=0)
        assert lit.sum() > 200
        assert angles(found.normal, truth.normal)[lit].mean() < 1.5
        assert found.albedo[lit] == pytest.approx(truth.albedo[lit], abs=0.05)
        # Attached shadows bend the border of the surface; its middle keeps its depth.
        middle = slice(SIZE // 4, -SIZE // 4)
        assert np.corrcoef(found.depth[middle, middle].ravel(), truth.depth[middle, middle].ravel())[0, 1] > 0.99
        assert found.normal.dtype == found.albedo.dtype == np.float32
        again = relight(truth, lights, np.random.default_rng(seed))
        np.testing.assert_array_equal(found.normal, again.normal)


def test_pixels_without_albedo_stay_black() -> None:
    truth = sphere()
    truth.albedo[:5] = 0
    found = relight(truth, draw_lights(np.random.default_rng(0)), np.random.default_rng(0))
    assert not found.albedo[:5].any()
    np.testing.assert_array_equal(found.normal[:5], np.broadcast_to([0, 0, 1], (5, SIZE, 3)))


def run(data: Path, out: Path, how: str, *arguments: str) -> None:
    alter_maps.main(["--data", str(data), "--out", str(out), "--how", how, *arguments])


@pytest.mark.parametrize(
    ("how", "altered"), [("confidence", {"albedo", "normal"}), ("mirror", {"albedo", "normal"}), ("slopes", {"normal"})]
)
def test_the_altered_data_set_has_the_same_sessions(prepared: Path, tmp_path: Path, how: str, altered: set[str]) -> None:
    run(prepared, tmp_path / "out", how)
    maps = ["albedo", "normal", "depth"]
    source, found = open_dataset(prepared, maps), open_dataset(tmp_path / "out", maps)
    assert found.labels.row_keys() == source.labels.row_keys()
    assert (tmp_path / "out" / "labels.csv").read_text() == (prepared / "labels.csv").read_text()
    everything = np.arange(len(source.labels))
    first, second = source.store.read(everything), found.store.read(everything)
    assert {name for name in maps if (np.abs(first[name] - second[name]).max(axis=(1, 2, 3)) > 1e-3).all()} == altered
    assert {name for name in maps if not np.array_equal(first[name], second[name])} == altered


def test_relit_sessions_are_added(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(prepared, tmp_path / "out", "relight", "--copies", "1")
    assert capsys.readouterr().out.strip() == f"altered data set: {tmp_path / 'out'} (48 sessions)"
    source, found = (open_dataset(root, ["albedo", "normal", "depth"]) for root in (prepared, tmp_path / "out"))
    relit = found.labels.columns["relit"] == "1"
    original, added = (found.labels.subset(np.flatnonzero(chosen)) for chosen in (~relit, relit))
    assert original.row_keys() == source.labels.row_keys()
    assert added.row_keys() == [(subject, f"{session}-relit1") for subject, session in source.labels.row_keys()]
    np.testing.assert_array_equal(added.codes, source.labels.codes)
    assert (added.columns["quality_residual"] != source.labels.columns["quality_residual"]).all()
    maps = source.store.read(np.arange(len(source.labels)))
    for name, array in found.store.read(np.flatnonzero(~relit)).items():
        np.testing.assert_array_equal(array, maps[name])
    normals = found.store.read(np.flatnonzero(relit))["normal"]
    moved = angles(normals.transpose(0, 2, 3, 1), maps["normal"].transpose(0, 2, 3, 1)).mean(axis=(1, 2))
    assert 0.2 < moved.min() < moved.max() < 20

    run(prepared, tmp_path / "again", "relight", "--copies", "1")
    np.testing.assert_array_equal(
        open_dataset(tmp_path / "again", ["normal"]).store.read(np.flatnonzero(relit))["normal"], normals
    )
    assert read_labels(tmp_path / "again" / "labels.csv").row_keys() == found.labels.row_keys()
    with pytest.raises(SystemExit, match="has a column relit; name a data set"):
        run(tmp_path / "out", tmp_path / "twice", "relight")


def test_unusable_inputs_are_rejected_in_one_line(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="already exists; choose another --out"):
        run(prepared, tmp_path, "slopes")
    with pytest.raises(SystemExit, match=r"labels\.csv: no such file"):
        run(tmp_path / "none", tmp_path / "out", "slopes")
    assert not (tmp_path / "out").exists()
