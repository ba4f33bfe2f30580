"""Fits the linear embedding of a network to the training sessions, before the first epoch."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from fr_ps.config import AugmentConfig
from fr_ps.data.augment import MapBatch, augment
from fr_ps.data.dataset import Dataset
from fr_ps.errors import InputError
from fr_ps.evaluation.baselines import sample_subjects, wccn
from fr_ps.models.linear_embedding import LinearEmbedding
from fr_ps.models.registration import congeal, registration_features
from fr_ps.progress import progress

COPIES = 12
"""Moved copies of each training session. With them the covariance within subjects contains what a moved face changes."""
_BATCH = 64


@torch.no_grad()
def fit_linear_embedding(
    embedding: LinearEmbedding, dataset: Dataset, rows: np.ndarray, augmentation: AugmentConfig, seed: int
) -> None:
    """Set mean face, means and projections of `embedding` from training sessions and copies moved as in `augmentation`.

    Args:
        embedding: on the CPU.
        dataset: maps and labels.
        rows: (n,) the training part; of many rows, those of `sample_subjects`.
        augmentation: its crop, rotation, scale and shift move the copies.
        seed: random seed of the sample and the copies.

    Raises:
        InputError: no training subject has two sessions that differ.
    """
    rows = sample_subjects(dataset.labels, rows, seed)
    if embedding.registered:
        faces = [registration_features(maps) for maps in _batches(dataset, rows)]
        embedding.set_mean_face(congeal({name: torch.cat([part[name] for part in faces]) for name in faces[0]}))
    generator = torch.Generator().manual_seed(seed)
    geometry = replace(augmentation, flip=0.0, noise=0.0, erase=0.0)
    batches: list[list[torch.Tensor]] = []
    with progress("linear embedding", len(rows) * (COPIES + 1), "maps") as advance:
        for copy in range(COPIES + 1):
            for maps in _batches(dataset, rows):
                moved = augment(maps, geometry, generator) if copy else maps
                batches.append([torch.cat(list(part.values()), dim=1) for part in embedding.features(moved)])
                advance(len(batches[-1][0]))
    ids = np.tile(dataset.labels.ids[rows], COPIES + 1)
    for part, features in enumerate(zip(*batches)):
        values = torch.cat(features).double().numpy()
        mean = values.mean(axis=0)
        projection = wccn(values - mean, ids)
        if not projection.shape[1]:
            raise InputError("model.linear is above 0, but no training subject has two sessions that differ; set it to 0")
        embedding.means[part] = torch.from_numpy(mean)
        embedding.projections[part] = torch.from_numpy(projection)


def _batches(dataset: Dataset, rows: np.ndarray) -> Iterator[MapBatch]:
    for start in range(0, len(rows), _BATCH):
        maps = dataset.store.read(rows[start : start + _BATCH])
        yield {modality: torch.from_numpy(array) for modality, array in maps.items()}
