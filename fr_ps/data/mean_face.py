"""The mean face: normals averaged over the subjects of a prepared data set, the prior of the solver `integrable`."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fr_ps.config import PrepareConfig
from fr_ps.data.store import MapStore
from fr_ps.errors import InputError
from fr_ps.npy import array_bytes, read_array
from fr_ps.outputs import write_output

MEAN_FACE = "mean_face"
"""The kind of this output for `fr_ps.outputs`."""


@dataclass(frozen=True)
class MeanFace:
    """Mean normals (size, size, 3) and the digest of their content."""

    normals: np.ndarray
    digest: str


def compute_mean_face(store: MapStore, rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """(H, W, 3) float32: the mean over subjects of the mean over their sessions; shorter than 1 where they differ.

    Args:
        store: contains the normals. Only those of one subject are in memory at a time.
        rows: (m,) rows of the store to use.
        ids: (m,) the subject of each of these rows.
    """
    subjects = np.unique(ids)
    total = sum(store.read(rows[ids == subject])["normal"].mean(axis=0, dtype=np.float64) for subject in subjects)
    return np.ascontiguousarray((total / len(subjects)).transpose(1, 2, 0), dtype=np.float32)


def write_mean_face(path: Path, normals: np.ndarray) -> None:
    """Write (H, W, 3) mean normals as .npy."""
    write_output(path, MEAN_FACE, array_bytes(normals))


def read_mean_face(path: Path, size: int) -> np.ndarray:
    """The (size, size, 3) float32 mean normals at `path`.

    Raises:
        InputError: the file is missing, not a readable .npy, of another shape, or contains vectors longer than 1 or NaN.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such mean face; write it by fr-ps data mean")
    array = read_array(path)
    if array.dtype.kind != "f" or array.shape != (size, size, 3):
        shape = " x ".join(map(str, array.shape))
        raise InputError(f"{path}: {array.dtype} {shape}; a mean face for --size {size} must be float32 {size} x {size} x 3")
    lengths = np.linalg.norm(array, axis=-1)
    if not np.all(lengths <= 1 + 1e-3):  # false for NaN too
        raise InputError(f"{path}: contains vectors longer than 1, or NaN; expected the mean normals that fr-ps data mean writes")
    return array.astype(np.float32)


def load_mean_face(config: PrepareConfig) -> MeanFace | None:
    """The mean face at `config.prior`; None if that is not set.

    Raises:
        InputError: see `read_mean_face`.
    """
    if not config.prior:
        return None
    normals = read_mean_face(Path(config.prior), config.size)
    return MeanFace(normals, hashlib.sha256(normals.tobytes()).hexdigest()[:16])
