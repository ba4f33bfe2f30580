"""Fits the linear embedding and the linear classifiers of a network to the training sessions, before the first epoch."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from fr_ps.config import AugmentConfig
from fr_ps.data.augment import MapBatch, augment
from fr_ps.data.dataset import Dataset
from fr_ps.data.labels import ATTRIBUTES, Labels
from fr_ps.data.stored_pictures import PICTURES, maps_without_light, pictures_file, read_stored_pictures
from fr_ps.errors import InputError
from fr_ps.evaluation.baselines.projections import wccn
from fr_ps.evaluation.baselines.training_rows import sample_subjects
from fr_ps.models.linear_attributes import LinearAttributes
from fr_ps.models.linear_embedding import LinearEmbedding
from fr_ps.models.network import FaceNetwork
from fr_ps.models.registration import registration_features
from fr_ps.progress import progress
from fr_ps.training.fit_registration import fit_registration

COPIES = 12
"""Moved copies of each training session. With them the covariance within subjects includes the effect of misalignment."""
_UNPROJECTED_SCALE = 0.5
"""Root mean squared norm to which the features without projection are scaled in the fit; the projected ones have a norm of 1."""
_INVERSE_REGULARISATION = 1e4
"""C of scikit-learn times the number of sessions and copies."""
_BATCH = 64


@torch.no_grad()
def fit_linear_embedding(
    network: FaceNetwork, dataset: Dataset, rows: np.ndarray, augmentation: AugmentConfig, seed: int
) -> None:
    """Fit the linear embedding of `network`, and its classifiers, to training sessions and altered copies.

    Args:
        network: on the CPU, with a linear embedding.
        dataset: maps and labels.
        rows: (n,) the training part; `sample_subjects` limits it to `MAX_SESSIONS`.
        augmentation: its crop, rotation, scale and shift move the copies. With `leave_out_light`, half of the copies of a session
            with stored pictures are solved without one of its lights. The classifiers are fitted to the sessions
            and the other half of the copies, also of sessions without stored pictures.
        seed: random seed of the sample and the copies.

    Raises:
        InputError: the sessions and moved copies of each training subject are equal, or stored pictures are damaged or do not
            fit the maps.
    """
    embedding = network.linear
    assert embedding is not None
    rows = sample_subjects(dataset.labels, rows, seed)
    if embedding.registered:
        batches = [registration_features(maps) for maps in _batches(dataset, rows)]
        faces = {name: torch.cat([batch[name] for batch in batches]) for name in embedding.compared}
        embedding.set_registration(*fit_registration(faces, dataset.labels.ids[rows], augmentation, seed))
    parts = _features(embedding, dataset, rows, augmentation, seed)
    labels = dataset.labels.subset(np.tile(rows, COPIES + 1))
    for part, values in enumerate(parts):
        mean = values.mean(axis=0)
        projection = wccn(values - mean, labels.ids)
        if not projection.shape[1]:
            raise InputError("model.linear is above 0, but no training subject has sessions or copies that differ; set it to 0")
        embedding.means[part] = torch.from_numpy(mean)
        embedding.projections[part] = torch.from_numpy(projection)
    if network.linear_attributes is not None:
        with_all_lights = np.flatnonzero(
            np.repeat([not _leaves_out_light(copy, augmentation) for copy in range(COPIES + 1)], len(rows))
        )
        centred = [torch.from_numpy(parts[0][with_all_lights]).float() - embedding.means[0]]
        features = embedding.attribute_features(embedding.project(centred), centred)
        fit_classifiers(network.linear_attributes, features.double().numpy(), labels.subset(with_all_lights))


def no_pictures_warning(dataset: Dataset, rows: np.ndarray) -> str | None:
    """A warning if `augment.leave_out_light` has no effect, because no light of the (n,) training `rows` can be left out."""
    stored = (read_stored_pictures(dataset.root, key) for key in dataset.labels.subset(rows).row_keys())
    if any(one is not None and one.removable for one in stored):
        return None
    return (
        f"warning: augment.leave_out_light has no effect: no training session has a {PICTURES}.npy from which a light can be "
        "left out (`fr-ps prepare` writes it for four to seven lights); prepare the captures again, or set "
        "augment.leave_out_light to false"
    )


def fit_classifiers(classifiers: LinearAttributes, features: np.ndarray, labels: Labels) -> None:
    """Set the weights of each attribute by logistic regression with balanced classes.

    If a class of an attribute has no session, the attribute keeps weights of 0, so that its logits are those of the network.

    Args:
        classifiers: their weights are set.
        features: (n, 2 D) `attribute_features`: D-dimensional unit vectors, then centred features, which are scaled for the fit
            to a root mean squared norm of `_UNPROJECTED_SCALE`.
        labels: of the n rows.
    """
    width = features.shape[1] // 2
    scale = np.ones(features.shape[1])
    scale[width:] = _UNPROJECTED_SCALE / np.sqrt((features[:, width:] ** 2).sum(axis=1).mean())
    for task, codes in zip(ATTRIBUTES, labels.codes.T):
        known = codes >= 0
        if task not in classifiers.tasks or len(np.unique(codes[known])) < len(labels.class_names(task)):
            continue
        # Not newton-cholesky, as in the linear probes: with so many features its Hessian takes ten times as long, and lbfgs needs
        # only tens of iterations with this regularisation.
        model = LogisticRegression(
            C=_INVERSE_REGULARISATION / known.sum(), class_weight="balanced", solver="lbfgs", tol=1e-8, max_iter=1000
        )
        with threadpool_limits(1, user_api="blas"):  # the products are small: a second thread makes them several times slower
            model.fit(features[known] * scale, codes[known])
        weights = np.hstack([model.coef_ * scale, model.intercept_[:, None]])
        if len(weights) == 1:  # with two classes, scikit-learn gives only those of the second
            weights = np.vstack([np.zeros_like(weights), weights])
        classifiers.set_weights(task, torch.from_numpy(weights.T))


def _features(
    embedding: LinearEmbedding, dataset: Dataset, rows: np.ndarray, augmentation: AugmentConfig, seed: int
) -> list[np.ndarray]:
    """For each part of the embedding: (n (COPIES + 1), D) features of the n rows, then of their altered copies."""
    generator = torch.Generator().manual_seed(seed)
    light_rng = np.random.default_rng(seed)
    geometry = replace(augmentation, flip=0.0, noise=0.0, erase=0.0)
    batches: list[list[torch.Tensor]] = []
    with progress("linear embedding", len(rows) * (COPIES + 1), "maps") as advance:
        for copy in range(COPIES + 1):
            for maps in _batches(dataset, rows, light_rng if _leaves_out_light(copy, augmentation) else None):
                moved = augment(maps, geometry, generator) if copy else maps
                batches.append([torch.cat(list(part.values()), dim=1) for part in embedding.features(moved)])
                advance(len(batches[-1][0]))
    return [torch.cat(features).double().numpy() for features in zip(*batches)]


def _leaves_out_light(copy: int, augmentation: AugmentConfig) -> bool:
    """Whether a copy is without one of the lights: with the setting, every second one. Copy 0 is the session as it is."""
    return augmentation.leave_out_light and copy % 2 == 1


def _batches(dataset: Dataset, rows: np.ndarray, light_rng: np.random.Generator | None = None) -> Iterator[MapBatch]:
    """The maps of the rows; with `light_rng`, those of sessions with stored pictures without a light that it draws."""
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        maps = dataset.store.read(batch)
        if light_rng is not None:
            _leave_out_lights(maps, dataset, batch, light_rng)
        yield {modality: torch.from_numpy(array) for modality, array in maps.items()}


def _leave_out_lights(maps: dict[str, np.ndarray], dataset: Dataset, rows: np.ndarray, light_rng: np.random.Generator) -> None:
    """Replace in place the maps of sessions with stored pictures by those without one of the lights, which is drawn."""
    for place, key in enumerate(dataset.labels.subset(rows).row_keys()):
        stored = read_stored_pictures(dataset.root, key)
        if stored is None or not (removable := stored.removable):
            continue
        left_out = removable[light_rng.integers(len(removable))]
        for modality, solved in maps_without_light(stored, left_out, list(maps)).items():
            if solved.shape != maps[modality][place].shape:
                sizes = f"are {solved.shape[-1]} pixels wide, but the {modality} maps are {maps[modality].shape[-1]}"
                raise InputError(f"{pictures_file(dataset.root, key)}: the pictures {sizes}; prepare the session again")
            maps[modality][place] = solved
