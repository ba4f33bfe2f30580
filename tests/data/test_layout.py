"""Maps of a prepared data set: names, shapes, and rejected maps."""

import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from fr_ps.data.check import check_maps
from fr_ps.data.labels import read_labels
from fr_ps.data.layout import common_modalities, find_orphans, map_files, read_map, session_folder, session_keys
from fr_ps.data.store import open_store


def save(tmp_path, array):
    np.save(tmp_path / "map.npy", array)
    return tmp_path / "map.npy"


def unit(*shape: int) -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(*shape, 3)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_a_map_is_read_channels_first(tmp_path):
    normal = unit(4, 5)
    np.testing.assert_array_equal(read_map(save(tmp_path, normal), "normal"), normal.transpose(2, 0, 1))
    depth = np.arange(20, dtype=np.float64).reshape(4, 5, 1)
    got = read_map(save(tmp_path, depth), "depth")
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, depth[None, :, :, 0])


def test_resampled_normals_are_normalised_and_empty_ones_face_the_camera(tmp_path):
    normal = unit(4, 4)
    shortened = normal * 0.8
    shortened[1, 2] = 0
    got = read_map(save(tmp_path, shortened), "normal").transpose(1, 2, 0)
    normal[1, 2] = (0, 0, 1)
    np.testing.assert_allclose(got, normal, atol=1e-6)


@pytest.mark.parametrize(
    ("array", "modality", "word"),
    [
        (np.arange(60.0).reshape(4, 5, 3), "albedo", "4 x 5 x 3 with different channels"),
        (np.ones((4, 5, 4)), "albedo", "4 x 5 x 4"),
        (np.full((4, 5, 3), np.nan), "depth", "row 0, column 0"),
        (np.ones((4, 5)), "normal", "4 x 5"),
        (np.ones((0, 5)), "depth", "0 x 5"),
        (np.full((4, 5), np.nan), "depth", "row 0, column 0"),
        (np.full((4, 5), np.inf), "albedo", "NaN or infinity"),
        (np.full((4, 5), "x"), "albedo", "float32"),
        (np.ones((4, 5), dtype=complex), "albedo", "float32"),
        (np.full((4, 5, 3), 128.0), "normal", "unit vectors"),
        ((unit(8, 9) * np.array([1, 1, 0.01]) + 1) / 2, "normal", "2 m - 1"),
        (np.rint((unit(8, 9) + 1) * 127.5).astype(np.uint8), "normal", "m / 127.5 - 1"),
        (np.full((4, 5, 3), 0.577), "normal", "never negative"),
    ],
)
def test_a_bad_map_is_rejected_by_name(array, modality, word, tmp_path, rejected):
    path = save(tmp_path, array)
    with rejected(path, word):
        read_map(path, modality)


def test_a_frontal_plane_is_not_rejected_as_encoded(tmp_path):
    flat = np.zeros((4, 5, 3), dtype=np.float32)
    flat[..., 2] = 1
    np.testing.assert_array_equal(read_map(save(tmp_path, flat), "normal"), flat.transpose(2, 0, 1))


def test_the_original_projects_names_are_read(prepared, tmp_path):
    root = shutil.copytree(prepared, tmp_path / "set")
    for path in root.glob("data/*/*/*.npy"):
        path.rename(path.with_name(f"{path.stem}_map_new_crop.exr.npy"))
    labels = read_labels(root / "labels.csv")
    original = [read_map(path, "normal") for path in map_files(root, labels, "normal")]
    ours = [read_map(path, "normal") for path in map_files(prepared, labels, "normal")]
    np.testing.assert_array_equal(original, ours)


def test_a_row_without_a_map_is_rejected_and_maps_without_a_row_are_listed(prepared, tmp_path, rejected):
    root = shutil.copytree(prepared, tmp_path / "set")
    labels = read_labels(root / "labels.csv")
    some = labels.subset(np.arange(3, len(labels)))
    assert find_orphans(root, labels) == []
    assert find_orphans(root, some) == [f"{subject}/{session}" for subject, session in zip(labels.ids[:3], labels.sessions[:3])]
    (root / "data/S001/s02/depth.npy").unlink()
    with rejected("S001/s02", "depth.npy", "1 such rows"):
        map_files(root, labels, "depth")


@pytest.mark.parametrize("modality", ["albedo", "depth"])
def test_three_equal_channels_are_one_map(tmp_path, modality):
    plane = np.random.default_rng(0).random((4, 5), dtype=np.float32)
    got = read_map(save(tmp_path, np.repeat(plane[..., None], 3, axis=2)), modality)
    np.testing.assert_array_equal(got, plane[None])


def as_the_original(prepared: Path, root: Path) -> Path:
    """The same maps in the layout of the original project: `{id}/{session}` at the root, its names, three equal channels."""
    for subject in (prepared / "data").iterdir():
        shutil.copytree(subject, root / subject.name)
    for path in root.glob("*/*/*.npy"):
        array = np.load(path)
        path.unlink()
        if path.stem not in ("confidence", "normal_error"):
            np.save(path.with_name(f"{path.stem}_map_new_crop.exr.npy"), array if array.ndim == 3 else np.dstack([array] * 3))
    shutil.copy(prepared / "labels.csv", root / "labels.csv")
    return root


def test_a_data_set_of_the_original_has_the_same_maps_everywhere(prepared, tmp_path):
    root = as_the_original(prepared, tmp_path / "set")
    (root / "notes/of/mine").mkdir(parents=True)
    labels = read_labels(root / "labels.csv")
    assert common_modalities(root, labels) == ["albedo", "normal", "depth"]
    assert find_orphans(root, labels) == []
    assert find_orphans(root, labels.subset(np.arange(1, len(labels)))) == ["S000/s00"]
    assert session_keys(root) == session_keys(prepared)
    ours, theirs = (open_store(folder, labels, ["albedo", "normal", "depth"]) for folder in (prepared, root))
    assert ours.digest == theirs.digest
    found = check_maps(root, labels)
    assert (found.files, found.bad) == (3 * len(labels), [])


def test_a_folder_below_data_comes_before_one_at_the_root(prepared, tmp_path):
    root = as_the_original(prepared, tmp_path / "set")
    shutil.copytree(prepared / "data", root / "data")
    shutil.rmtree(root / "data/S001")
    assert session_folder(root, "S000", "s00") == root / "data/S000/s00"
    assert session_folder(root, "S001", "s00") == root / "S001/s00"
    assert session_folder(root, "unknown", "s00") == root / "data/unknown/s00"


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_folders_are_found_in_any_unicode_form(tmp_path, form):
    name = unicodedata.normalize(form, "Ánh")
    folder = tmp_path / "data" / name / unicodedata.normalize(form, "ngày")
    folder.mkdir(parents=True)
    assert session_keys(tmp_path) == [("Ánh", "ngày")]
    assert session_folder(tmp_path, "Ánh", "ngày") == folder
    assert session_folder(tmp_path, "Anh", "ngày") == tmp_path / "data/Anh/ngày"


def test_a_row_whose_id_lost_its_zeros_is_rejected_with_the_cause(tmp_path, rejected):
    (tmp_path / "data/007/a").mkdir(parents=True)
    np.save(tmp_path / "data/007/a/depth.npy", np.ones((4, 4)))
    (tmp_path / "labels.csv").write_text("id,session,Gender,Spectacles,Facial_Hair,Pose,Emotion\n7,a,,,,,\n")
    with rejected("7/a has no depth map", "lost the leading zeros of '007'"):
        map_files(tmp_path, read_labels(tmp_path / "labels.csv"), "depth")
