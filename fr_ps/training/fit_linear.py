"""Fits the linear embedding of a network to the training sessions, before the first epoch."""

from dataclasses import replace

import numpy as np
import torch

from fr_ps.config import AugmentConfig
from fr_ps.data.augment import augment
from fr_ps.data.dataset import Dataset
from fr_ps.errors import InputError
from fr_ps.evaluation.baselines import sample_subjects, wccn
from fr_ps.models.linear_embedding import LinearEmbedding
from fr_ps.progress import progress

COPIES = 20
"""Moved copies of each training session. With them the covariance within subjects contains what a moved face changes."""
_BATCH = 64


def fit_linear_embedding(
    embedding: LinearEmbedding, dataset: Dataset, rows: np.ndarray, augmentation: AugmentConfig, seed: int
) -> None:
    """Set mean and projection of `embedding` from training sessions and copies moved as in `augmentation`.

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
    generator = torch.Generator().manual_seed(seed)
    geometry = replace(augmentation, flip=0.0, noise=0.0, erase=0.0)
    parts = []
    with progress("linear embedding", len(rows) * (COPIES + 1), "maps") as advance:
        for copy in range(COPIES + 1):
            for start in range(0, len(rows), _BATCH):
                read = dataset.store.read(rows[start : start + _BATCH])
                maps = {modality: torch.from_numpy(array) for modality, array in read.items()}
                if copy:
                    maps = augment(maps, geometry, generator)
                parts.append(torch.cat(list(embedding.features(maps).values()), dim=1))
                advance(len(read[embedding.modalities[0]]))
    features = torch.cat(parts).double().numpy()
    mean = features.mean(axis=0)
    projection = wccn(features - mean, np.tile(dataset.labels.ids[rows], COPIES + 1))
    if not projection.shape[1]:
        raise InputError("model.linear is above 0, but no training subject has two sessions that differ; set it to 0")
    embedding.mean.copy_(torch.from_numpy(mean))
    embedding.projection.copy_(torch.from_numpy(projection))
