"""Fits the registration of the linear embedding: the mean face, and the correction of the bias that shadows cause."""

from dataclasses import replace

import numpy as np
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from fr_ps.config import AugmentConfig
from fr_ps.data.augment import MapBatch, Similarity, apply_similarity, sample_similarity
from fr_ps.models.registration import congeal, face_differences, register

MOVED_COPIES = 4
"""Moved copies of each training session. From them the correction learns to depend less on the position of the face."""
_REGULARISATION = 1.0
"""Weight of the penalty of the ridge regression, relative to the mean squared norm of the centred differences."""
_SMALLEST_PENALTY = 1e-3
"""Of faces, the penalty is about 100; of equal maps, whose differences are rounding errors, it would be almost 0."""


def fit_registration(features: MapBatch, ids: np.ndarray, augmentation: AugmentConfig, seed: int) -> tuple[MapBatch, Tensor]:
    """The mean face of training sessions, and the correction of their registration (`correction_shape`).

    The bias of a session is the difference between its transform and the median transform of its subject's sessions. A ridge
    regression predicts it from `face_differences`. The sessions of a subject must have nearly the same crop: a difference between
    crops counts as bias, so that the correction takes back a part of the registration.

    Args:
        features: `registration_features` of the n sessions.
        ids: (n,) subjects.
        augmentation: its crop, rotation, scale and shift move the copies.
        seed: random seed of the copies.
    """
    mean_face = congeal(features)
    generator = torch.Generator().manual_seed(seed)
    expected = _subject_transforms(_matrices(register(features, mean_face)), ids)
    geometry = replace(augmentation, flip=0.0)
    differences, biases = [], []
    for copy in range(MOVED_COPIES + 1):
        motion = sample_similarity(len(ids), geometry, generator) if copy else _identity(len(ids))
        moved = {name: apply_similarity(maps, name, motion) for name, maps in features.items()} if copy else features
        found = register(moved, mean_face)
        differences.append(face_differences(moved, mean_face, found))
        biases.append(_parameters(torch.linalg.inv(expected) @ _matrices(motion) @ _matrices(found)))
    inputs = torch.cat(differences).double().numpy()
    penalty = max(_REGULARISATION * np.square(inputs - inputs.mean(axis=0)).sum(axis=1).mean(), _SMALLEST_PENALTY)
    model = Ridge(alpha=penalty, solver="cholesky").fit(inputs, torch.cat(biases).double().numpy())
    return mean_face, torch.from_numpy(np.vstack([model.coef_.T, model.intercept_])).float()


def _subject_transforms(transforms: Tensor, ids: np.ndarray) -> Tensor:
    """(n, 3, 3): for each session, the median of the (n, 3, 3) transforms of its subject."""
    parameters = _parameters(transforms)
    _, subjects = np.unique(ids, return_inverse=True)
    medians = torch.stack([parameters[subjects == one].quantile(0.5, dim=0) for one in range(subjects.max() + 1)])[subjects]
    return _matrices(Similarity(torch.ones(len(ids)), medians[:, 0], medians[:, 1].exp(), medians[:, 2:]))


def _identity(count: int) -> Similarity:
    return Similarity(torch.ones(count), torch.zeros(count), torch.ones(count), torch.zeros(count, 2))


def _matrices(similarity: Similarity) -> Tensor:
    """(B, 3, 3) from moved to original coordinates."""
    last = torch.tensor([0.0, 0.0, 1.0]).expand(len(similarity.angle), 1, 3)
    return torch.cat([similarity.matrix(), last], dim=1)


def _parameters(transforms: Tensor) -> Tensor:
    """(B, 4) angle, logarithm of the side, and centre of (B, 3, 3) similarities without mirroring."""
    cos, sin = transforms[:, 0, 0], transforms[:, 1, 0]
    return torch.stack([torch.atan2(sin, cos), torch.hypot(cos, sin).log(), transforms[:, 0, 2], transforms[:, 1, 2]], dim=1)
