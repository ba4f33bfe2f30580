"""Inference: predictions of a network on the maps of a store, shared by validation, test, `evaluate` and serving."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from fr_ps.data.labels import ATTRIBUTES
from fr_ps.device import full_float32
from fr_ps.distributed import gather_objects, rank, world_size
from fr_ps.errors import InputError
from fr_ps.models.network import FaceNetwork, NetworkOutput
from fr_ps.progress import OnProgress, no_progress


class MapReader(Protocol):
    """Source of maps: a store, or a wrapper that changes its maps."""

    def read(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Read some rows: modality to (len(rows), C, H, W) float32."""


BATCH_SIZE = 64
"""Default number of sessions per batch. The last bits of an embedding depend on it; training and serving use the same."""


@dataclass(frozen=True)
class Predictions:
    """Predictions of a model for n sessions.

    Attributes:
        embeddings: (n, C) float32; the norm is the MagFace quality.
        probabilities: attribute to (n, classes) float32.
    """

    embeddings: np.ndarray
    probabilities: dict[str, np.ndarray]


def predict(
    network: FaceNetwork, store: MapReader, rows: np.ndarray, batch: int = BATCH_SIZE, advance: OnProgress = no_progress
) -> Predictions:
    """Predictions of `network` for some rows of the store; the train or eval mode of the network does not change.

    The processes of a training share the batches, as in `predict_subsets`.
    """
    return predict_subsets(network, store, rows, batch, [network.modalities], advance)[0]


def predict_subsets(
    network: FaceNetwork,
    store: MapReader,
    rows: np.ndarray,
    batch: int,
    subsets: Sequence[Sequence[str]],
    advance: OnProgress = no_progress,
) -> list[Predictions]:
    """Predictions with each of several subsets of the modalities; each branch runs once per batch.

    The processes of a training share the batches: all call it, and each gets all predictions. The batches are those of one
    process, since the last bits of an embedding depend on them.
    """
    was_training = network.training
    network.eval()
    batches = [rows[start : start + batch] for start in range(0, len(rows), batch)]
    own: list[list[Predictions]] = []
    for batch_rows in batches[rank() :: world_size()]:
        with full_float32():  # also within a training that allows TF32
            own.append(predict_batch(network, store.read(batch_rows), subsets))
        advance(len(batch_rows))
    network.train(was_training)
    gathered = gather_objects(own)
    in_order = [gathered[number % world_size()][number // world_size()] for number in range(len(batches))]
    return [concatenate_predictions(of_subset) for of_subset in zip(*in_order)]


@torch.inference_mode()
def predict_batch(network: FaceNetwork, maps: Mapping[str, np.ndarray], subsets: Sequence[Sequence[str]]) -> list[Predictions]:
    """Predictions for one batch with each of several subsets of the modalities.

    Args:
        network: in eval mode.
        maps: modality to (n, C, H, W) float32.
        subsets: the modalities of each prediction.
    """
    device = next(network.parameters()).device
    tensors = {name: torch.from_numpy(array).to(device) for name, array in maps.items()}
    features = network.encode(tensors)
    outputs = []
    for subset in subsets:
        subset_maps = {modality: tensors[modality] for modality in subset}
        outputs.append(network.decode(network.encode_subset(features, tensors, subset), subset_maps))
    return [_to_predictions(of_subset) for of_subset in outputs]


def _to_predictions(outputs: NetworkOutput) -> Predictions:
    logits = outputs.logits
    probabilities: dict[str, np.ndarray] = {task: logits[task].float().softmax(dim=1).cpu().numpy() for task in ATTRIBUTES}
    return Predictions(outputs.embedding.float().cpu().numpy(), probabilities)


def concatenate_predictions(parts: Sequence[Predictions]) -> Predictions:
    """Concatenate predictions of consecutive sessions."""
    return Predictions(
        np.concatenate([part.embeddings for part in parts]),
        {task: np.concatenate([part.probabilities[task] for part in parts]) for task in ATTRIBUTES},
    )


def require_finite(predictions: Predictions, names: Sequence[str], model: Path) -> None:
    """Reject predictions with NaN or infinity.

    Args:
        predictions: predictions of n sessions.
        names: (n,) session names.
        model: model folder.

    Raises:
        InputError: names the model and the first such session.
    """
    finite = np.isfinite(predictions.embeddings).all(axis=1)
    for probabilities in predictions.probabilities.values():
        finite &= np.isfinite(probabilities).all(axis=1)
    if not finite.all():
        raise InputError(
            f"{model}: the prediction for {names[int(np.argmin(finite))]} is NaN or infinite ({(~finite).sum()} of {len(finite)} "
            "sessions); use another checkpoint, or train again with a lower optim.lr"
        )
