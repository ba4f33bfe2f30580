"""Scoring a model on data: the one function that validation, test and `evaluate` share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fr_ps.data.labels import ATTRIBUTES, Labels
from fr_ps.errors import InputError
from fr_ps.models.network import FaceNetwork
from fr_ps.progress import OnProgress, no_progress


class MapReader(Protocol):
    """Where maps are read from: a store, or what changes those of one."""

    def read(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The maps of some rows: modality to (len(rows), C, H, W) float32."""


@dataclass(frozen=True)
class Predictions:
    """What a model says of n sessions.

    Attributes:
        embeddings: (n, C) float32; the norm is MagFace's quality.
        probabilities: attribute to (n, classes) float32.
    """

    embeddings: np.ndarray
    probabilities: dict[str, np.ndarray]


def predict(
    network: FaceNetwork, store: MapReader, rows: np.ndarray, batch: int, advance: OnProgress = no_progress
) -> Predictions:
    """What `network` says of some rows of the store; the network is left in the mode that it was in."""
    return predict_subsets(network, store, rows, batch, [network.modalities], advance)[0]


@torch.inference_mode()
def predict_subsets(
    network: FaceNetwork,
    store: MapReader,
    rows: np.ndarray,
    batch: int,
    subsets: Sequence[Sequence[str]],
    advance: OnProgress = no_progress,
) -> list[Predictions]:
    """What `network` says of some rows of the store when it has the maps of each of `subsets` only; each branch runs once."""
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    parts: list[list[Predictions]] = [[] for _ in subsets]
    for start in range(0, len(rows), batch):
        maps = {
            modality: torch.from_numpy(array).to(device) for modality, array in store.read(rows[start : start + batch]).items()
        }
        features = network.encode(maps)
        for subset, found in zip(subsets, parts):
            found.append(_to_predictions(network.decode({modality: features[modality] for modality in subset})))
        advance(len(rows[start : start + batch]))
    network.train(was_training)
    return [concatenate(found) for found in parts]


def _to_predictions(outputs: Mapping[str, Tensor]) -> Predictions:
    probabilities: dict[str, np.ndarray] = {task: outputs[task].float().softmax(dim=1).cpu().numpy() for task in ATTRIBUTES}
    return Predictions(outputs["identity"].float().cpu().numpy(), probabilities)


def concatenate(parts: Sequence[Predictions]) -> Predictions:
    """Answers about some sessions after those about others."""
    return Predictions(
        np.concatenate([part.embeddings for part in parts]),
        {task: np.concatenate([part.probabilities[task] for part in parts]) for task in ATTRIBUTES},
    )


def session_names(labels: Labels) -> list[str]:
    """`id/session` of each row."""
    return [f"{person}/{session}" for person, session in zip(labels.ids, labels.sessions)]


def require_finite(predictions: Predictions, names: Sequence[str], model: Path) -> None:
    """Refuse answers about n sessions with NaN or infinity.

    Args:
        answers: of the model.
        names: (n,) of the sessions.
        model: its folder.

    Raises:
        InputError: there are some; names the model and the first session.
    """
    good = np.isfinite(predictions.embeddings).all(axis=1)
    for probabilities in predictions.probabilities.values():
        good &= np.isfinite(probabilities).all(axis=1)
    if not good.all():
        raise InputError(
            f"{model}: its answer about {names[int(np.argmin(good))]} is NaN or infinite ({(~good).sum()} of {len(good)} "
            "sessions); take another checkpoint, or train again with a lower optim.lr"
        )
