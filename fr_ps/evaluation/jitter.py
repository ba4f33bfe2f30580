"""Maps seen a little turned, scaled and shifted: how much does a model lean on perfect crops?"""

import hashlib
import math
from collections.abc import Mapping

import numpy as np
import torch

from fr_ps.data.augment import Similarity, apply_similarity
from fr_ps.data.labels import Labels
from fr_ps.data.store import MapStore

TEST_SEED = 0
"""Of the tested maps, so that all that are compared see the same ones."""
ROTATION = 5.0
"""Degrees at most, either way."""
SCALE = 0.1
"""By how much the content is larger or smaller at most."""
SHIFT = 4 / 112
"""Each way at most, as a share of the picture's side."""


class JitteredMaps:
    """The maps of a store under `jitter`, with the seed of what is tested.

    Args:
        store: of the maps as they are.
        labels: of its rows.
    """

    def __init__(self, store: MapStore, labels: Labels) -> None:
        self.store, self.labels = store, labels

    def read(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """As `Store.read`."""
        return jitter(self.store.read(rows), self.labels.ids[rows], self.labels.sessions[rows], TEST_SEED)


def jitter(maps: Mapping[str, np.ndarray], ids: np.ndarray, sessions: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """The maps under one random similarity a session, the same for all its modalities; those given are left as they are.

    Rotation, scale and both shifts are uniform within `ROTATION`, `SCALE` and `SHIFT`. Normals turn with the picture and
    stay unit vectors, depth scales with it and keeps its mean of zero; what lies outside the picture repeats its border.

    Args:
        maps: modality to (n, C, H, W) float32.
        ids: (n,) whose these are.
        sessions: (n,) which session of the person each is.
        seed: of the draw, which depends on it, the id and the session and on nothing else.

    Returns:
        Modality to (n, C, H, W) float32.
    """
    geometry = draw_jitter(ids, sessions, seed)
    return {modality: apply_similarity(torch.from_numpy(array), modality, geometry).numpy() for modality, array in maps.items()}


def draw_jitter(ids: np.ndarray, sessions: np.ndarray, seed: int) -> Similarity:
    """The similarity of each of n sessions. Its four uniform numbers are the four words of a SHA-256."""
    keys = [f"{seed}\0{person}\0{session}".encode() for person, session in zip(ids, sessions, strict=True)]
    words = np.frombuffer(b"".join(hashlib.sha256(key).digest() for key in keys), dtype="<u8").reshape(-1, 4)
    rotation, scale, x, y = torch.from_numpy((2 * (words / 2**64) - 1).astype(np.float32)).unbind(dim=1)
    # Coordinates go from -1 to 1, so that a share of the side is twice as much in them.
    centre = 2 * SHIFT * torch.stack([x, y], dim=1)
    return Similarity(torch.ones(len(keys)), math.radians(ROTATION) * rotation, 1 / (1 + SCALE * scale), centre)
