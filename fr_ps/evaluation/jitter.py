"""Random small rotations, scalings and shifts of test maps, to measure sensitivity to imperfect crops."""

import hashlib
import math
from collections.abc import Mapping

import numpy as np
import torch

from fr_ps.data.augment import Similarity, apply_similarity
from fr_ps.data.labels import Labels
from fr_ps.data.store import MapStore

TEST_SEED = 0
"""Seed of the test maps, so that all compared models get the same maps."""
ROTATION = 5.0
"""Largest rotation in degrees, both ways."""
SCALE = 0.1
"""Largest relative change of scale, both ways."""
SHIFT = 4 / 112
"""Largest shift along each axis, as a share of the side."""


class JitteredMaps:
    """Reader of a store's maps, warped by `jitter` with the test seed.

    Args:
        store: store of the original maps.
        labels: labels of its rows.
    """

    def __init__(self, store: MapStore, labels: Labels) -> None:
        self.store, self.labels = store, labels

    def read(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """See `MapStore.read`."""
        return jitter(self.store.read(rows), self.labels.ids[rows], self.labels.sessions[rows], TEST_SEED)


def jitter(maps: Mapping[str, np.ndarray], ids: np.ndarray, sessions: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """A copy of the maps, warped by one random similarity transform per session, the same for all its modalities.

    Rotation, scale and both shifts are uniform within `ROTATION`, `SCALE` and `SHIFT`. Normals rotate with the map and stay unit
    vectors, depth scales with it and keeps its zero mean; the border is repeated outside the map.

    Args:
        maps: modality to (n, C, H, W) float32.
        ids: (n,) subject of each session.
        sessions: (n,) session names.
        seed: random seed; the transform depends on seed, id and session name only.

    Returns:
        Modality to (n, C, H, W) float32.
    """
    geometry = draw_jitter(ids, sessions, seed)
    return {modality: apply_similarity(torch.from_numpy(array), modality, geometry).numpy() for modality, array in maps.items()}


def draw_jitter(ids: np.ndarray, sessions: np.ndarray, seed: int) -> Similarity:
    """The transform of each of n sessions, from the four 64-bit words of a SHA-256."""
    keys = [f"{seed}\0{subject}\0{session}".encode() for subject, session in zip(ids, sessions, strict=True)]
    words = np.frombuffer(b"".join(hashlib.sha256(key).digest() for key in keys), dtype="<u8").reshape(-1, 4)
    rotation, scale, x, y = torch.from_numpy((2 * (words / 2**64) - 1).astype(np.float32)).unbind(dim=1)
    # Coordinates go from -1 to 1: a share of the side is twice as much in them.
    centre = 2 * SHIFT * torch.stack([x, y], dim=1)
    return Similarity(torch.ones(len(keys)), math.radians(ROTATION) * rotation, 1 / (1 + SCALE * scale), centre)
