"""The mean face: computation, file, and rejected files."""

from pathlib import Path

import numpy as np
import pytest

from fr_ps.config import DataConfig
from fr_ps.data.dataset import open_dataset
from fr_ps.data.mean_face import compute_mean_face, read_mean_face, write_mean_face
from tests.conftest import AssertRejected


def open_normals(root: Path):
    return open_dataset(root, ["normal"], DataConfig(root=str(root)))


def test_subjects_have_equal_weight_whatever_their_number_of_sessions(prepared: Path) -> None:
    dataset = open_normals(prepared)
    labels = dataset.labels
    # All four sessions of one subject, one of another, two of a third, not in their order.
    rows = np.array([9, 0, 1, 5, 3, 8, 2])
    ids = labels.ids[rows]
    assert sorted(np.unique(ids, return_counts=True)[1]) == [1, 2, 4]
    by_person: dict[str, list[np.ndarray]] = {}
    for row in rows:
        path = prepared / "data" / labels.ids[row] / labels.sessions[row] / "normal.npy"
        by_person.setdefault(labels.ids[row], []).append(np.load(path).astype(np.float64))
    expected = np.mean([np.mean(normals, axis=0) for normals in by_person.values()], axis=0)
    found = compute_mean_face(dataset.store, rows, ids)
    assert found.dtype == np.float32
    assert found.shape == (48, 48, 3)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_the_mean_is_a_face_and_shorter_where_subjects_differ(prepared: Path) -> None:
    dataset = open_normals(prepared)
    every = np.arange(len(dataset.labels))
    found = compute_mean_face(dataset.store, every, dataset.labels.ids)
    lengths = np.linalg.norm(found, axis=-1)
    assert lengths.max() <= 1 + 1e-6
    alone = compute_mean_face(dataset.store, every[:1], dataset.labels.ids[:1])
    np.testing.assert_allclose(np.linalg.norm(alone, axis=-1), 1, atol=1e-3)
    assert lengths.min() < 0.9 < lengths.max()
    assert found[:, :10, 0].mean() < -0.1
    assert found[:, -10:, 0].mean() > 0.1
    assert (found[..., 2] > 0).all()


def test_the_mean_face_is_read_back(tmp_path: Path) -> None:
    normals = np.random.default_rng(0).normal(size=(9, 9, 3))
    normals = (normals / np.linalg.norm(normals, axis=-1, keepdims=True) * 0.8).astype(np.float32)
    path = tmp_path / "new folder" / "mean.npy"
    write_mean_face(path, normals)
    np.testing.assert_array_equal(read_mean_face(path, 9), normals)
    write_mean_face(path, normals.astype(np.float64))
    assert read_mean_face(path, 9).dtype == np.float32
    assert [file.name for file in path.parent.iterdir()] == ["mean.npy"]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((8, 8, 3), dtype=np.float32), ["float32 8 x 8 x 3", "--size 9"]),
        (np.zeros((9, 9), dtype=np.float32), ["9 x 9; a mean face"]),
        (np.zeros((3, 9, 9), dtype=np.float32), ["3 x 9 x 9"]),
        (np.zeros((9, 9, 3), dtype=np.int16), ["int16"]),
        (np.full((9, 9, 3), 0.9, dtype=np.float32), ["longer than 1"]),
        (np.full((9, 9, 3), np.nan, dtype=np.float32), ["NaN"]),
        (np.full((9, 9, 3), np.inf, dtype=np.float32), ["longer than 1"]),
    ],
)
def test_other_arrays_are_rejected(tmp_path: Path, array: np.ndarray, words: list[str], rejected: AssertRejected) -> None:
    np.save(tmp_path / "mean.npy", array)
    with rejected(tmp_path / "mean.npy", *words):
        read_mean_face(tmp_path / "mean.npy", 9)


def test_a_file_that_is_missing_or_damaged_is_rejected(tmp_path: Path, rejected: AssertRejected) -> None:
    with rejected("mean.npy", "no such mean face", "fr-ps data mean"):
        read_mean_face(tmp_path / "mean.npy", 9)
    (tmp_path / "mean.npy").write_bytes(b"\x93NUMPY\x01\x00 not that")
    with rejected("mean.npy", "not a readable .npy"):
        read_mean_face(tmp_path / "mean.npy", 9)
    np.save(tmp_path / "objects.npy", np.full((9, 9, 3), None), allow_pickle=True)
    with rejected("objects.npy", "Python objects"):
        read_mean_face(tmp_path / "objects.npy", 9)
