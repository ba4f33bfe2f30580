"""dlib's face recognition network on albedo maps, as a baseline; it needs the extra `fr-ps[dlib]`.

King, "Dlib-ml: a machine learning toolkit", JMLR 2009; the network is `dlib_face_recognition_resnet_model_v1`, a ResNet that was
trained on about three million photographs of 7,485 subjects.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from fr_ps.data.dataset import Dataset
from fr_ps.evaluation.jitter import JitteredMaps
from fr_ps.progress import OnProgress, no_progress

NAME = "dlib_albedo"
"""Name of the baseline."""
CHIP = 150
"""Side of the network's input in pixels."""
FACE = 112
"""Side of the map in the middle of the input.

The network expects an eye distance of 0.35 of the input's side. A map matches that with a side of 127 if it is aligned (eye
distance 0.40, see `align.CANONICAL_LANDMARKS`), with 88 if it is a tight crop as in Yale B (0.60). On Yale B, 112 gives better
results than 100, 127 and 150.
"""
WHITE = 0.99
"""Quantile of the albedo within a map that becomes white."""
GAMMA = 2.2
_BATCH = 32
_WEIGHTS = "models/dlib_face_recognition_resnet_model_v1.dat"


def reason_without_dlib() -> str:
    """Why the baseline cannot be computed; empty if it can."""
    if find_spec("dlib") is None or _weights() is None:
        return "dlib or its model is not installed: pip install 'fr-ps[dlib]'"
    return ""


def dlib_embeddings(
    dataset: Dataset, rows: np.ndarray, *, jittered: bool = False, advance: OnProgress = no_progress
) -> np.ndarray:
    """(n, 128) float32 embeddings of the albedo maps of n rows; nothing is fitted.

    Args:
        dataset: data set with albedo maps.
        rows: (n,) rows to embed.
        jittered: warp the maps by `jitter`.
        advance: called with the number of maps done.
    """
    import dlib  # only if installed; it takes a second to import

    network = dlib.face_recognition_model_v1(str(_weights()))
    reader = JitteredMaps(dataset.store, dataset.labels) if jittered else dataset.store
    embeddings = np.empty((len(rows), 128), dtype=np.float32)
    for start in range(0, len(rows), _BATCH):
        block = slice(start, start + _BATCH)
        chips = list(face_chips(reader.read(rows[block])["albedo"]))
        embeddings[block] = np.array(network.compute_face_descriptor(chips))
        advance(len(chips))
    return embeddings


def face_chips(albedo: np.ndarray) -> np.ndarray:
    """(n, 150, 150, 3) uint8 grey images of (n, 1, H, W) albedo maps.

    The albedo is divided by its `WHITE` quantile and gamma-encoded. The border of the map is repeated around it.
    """
    maps = torch.from_numpy(np.ascontiguousarray(albedo, dtype=np.float32))
    white = torch.quantile(maps.flatten(1), WHITE, dim=1).clamp(min=torch.finfo(torch.float32).tiny)
    encoded = (maps / white[:, None, None, None]).clamp(0, 1) ** (1 / GAMMA)
    face = functional.interpolate(encoded, size=(FACE, FACE), mode="bilinear", antialias=True)
    before, after = (CHIP - FACE) // 2, CHIP - FACE - (CHIP - FACE) // 2
    grey = (functional.pad(face, (before, after, before, after), mode="replicate") * 255).round().to(torch.uint8)
    return np.repeat(grey.numpy().transpose(0, 2, 3, 1), 3, axis=3)


def _weights() -> Path | None:
    """The weights in the package `face_recognition_models`. Importing it would require a module that setuptools removed."""
    spec = find_spec("face_recognition_models")
    for folder in spec.submodule_search_locations or () if spec else ():
        if (path := Path(folder) / _WEIGHTS).is_file():
            return path
    return None
