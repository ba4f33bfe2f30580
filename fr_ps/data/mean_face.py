"""The mean face: the normals that people have in common, learnt from a prepared data set."""

from pathlib import Path

import numpy as np

from fr_ps.data.store import MapStore
from fr_ps.errors import InputError
from fr_ps.files import array_bytes, read_array
from fr_ps.outputs import write_output

MEAN_FACE = "mean_face"
"""The kind of this output for `fr_ps.outputs`."""


def compute_mean_face(store: MapStore, rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """(H, W, 3) float32: the mean over people of each one's mean over sessions; shorter than 1 where they differ.

    Args:
        store: with the normals; one person's are in memory at a time.
        rows: (m,) which of its rows.
        ids: (m,) whose each of these is.
    """
    people = np.unique(ids)
    total = sum(store.read(rows[ids == person])["normal"].mean(axis=0, dtype=np.float64) for person in people)
    return np.ascontiguousarray((total / len(people)).transpose(1, 2, 0), dtype=np.float32)


def write_mean_face(path: Path, normals: np.ndarray) -> None:
    """Write (H, W, 3) mean normals as .npy."""
    write_output(path, MEAN_FACE, array_bytes(normals))


def read_mean_face(path: Path, size: int) -> np.ndarray:
    """The (size, size, 3) float32 mean normals at `path`.

    Raises:
        InputError: missing, no readable .npy, another shape, or vectors that are no mean of unit vectors.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such mean face; write it by fr-ps data mean")
    array = read_array(path)
    if array.dtype.kind != "f" or array.shape != (size, size, 3):
        shape = " x ".join(map(str, array.shape))
        raise InputError(f"{path}: {array.dtype} {shape}; a mean face for --size {size} must be float32 {size} x {size} x 3")
    lengths = np.linalg.norm(array, axis=-1)
    if not np.all(lengths <= 1 + 1e-3):  # NaN is not either
        raise InputError(f"{path}: holds vectors longer than 1, or NaN; expected the mean normals that fr-ps data mean writes")
    return array.astype(np.float32)
