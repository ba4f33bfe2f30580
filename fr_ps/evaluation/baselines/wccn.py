"""Baselines with within-class covariance normalisation, fitted with jittered copies of the training maps.

- `wccn_albedo`, `wccn_albedo_normal`, ...: WCCN (Hatch, Kajarekar and Stolcke, "Within-class covariance normalization for
  SVM-based speaker recognition", Interspeech 2006) of the principal components of the maps, the logarithm of albedo instead of
  albedo; of each modality, and of all concatenated.
- `wccn_albedo_normal_registered`: the same, after every session is registered to the mean face of the training sessions.
- `wccn_albedo_normal_symmetric`: the same without principal components, on the smoothed symmetric 14 x 14 maps of
  `fr_ps.models.linear_embedding`, which a model with `model.linear` contains.
"""

from collections.abc import Collection

import numpy as np
import torch

from fr_ps.data.augment import MapBatch
from fr_ps.evaluation.baselines.map_reader import BaselineMaps, MapReader, Maps, ToVectors, flatten, pixels_of
from fr_ps.evaluation.baselines.projections import fit_components, wccn
from fr_ps.evaluation.baselines.training_rows import sample_maps, with_jittered_copies
from fr_ps.models.linear_embedding import LinearEmbedding
from fr_ps.models.registration import congeal, register_maps, registered_modalities, registration_features

COPIES = 4
"""Jittered copies of each training session, for the principal components and their normalisation."""
SYMMETRIC_COPIES = 12
"""Jittered copies of each training session, for the symmetric maps."""
LOG_SHARE = 0.1
"""Share of the mean albedo of a map added before the logarithm; without it the darkest pixels dominate."""

_SMALLEST_SPREAD = 1e-3  # of half faces, whose values are about 1; a smaller spread is rounding error


def registered_wccn(maps: BaselineMaps) -> dict[str, np.ndarray | str]:
    """The name of the baseline on registered maps, to its (n, k) embeddings of the test maps or the reason why it is omitted."""
    modalities = registered_modalities(maps.modalities)
    name = wccn_name(*modalities, "registered")
    reason = maps.no_wccn if modalities else "the data set has neither albedo nor normals"
    if reason:
        return {name: reason}
    maps = maps.with_modalities(modalities)
    mean_face = _mean_face(maps.train, maps.rows)

    def register(batch: Maps) -> Maps:
        return {modality: moved.numpy() for modality, moved in register_maps(_as_tensors(batch), mean_face).items()}

    maps = maps.prepared(register)
    components, scores = fit_scores(maps)
    return {name: normalise(maps.test_vectors(components).values(), scores.values(), maps.repeated_ids)}


def symmetric_wccn(maps: BaselineMaps) -> dict[str, np.ndarray | str]:
    """The name of the baseline on half faces, to its (n, D) embeddings of the test maps or the reason why it is omitted."""
    embedding = LinearEmbedding(tuple(maps.modalities))
    name = wccn_name(*embedding.modalities, "symmetric")
    if maps.no_wccn:
        return {name: maps.no_wccn}
    maps = maps.with_modalities(embedding.modalities)

    def half_faces(batch: Maps) -> np.ndarray:
        return torch.cat(list(embedding.features(_as_tensors(batch))[0].values()), dim=1).numpy()

    functions: dict[str, ToVectors] = {name: half_faces}
    features = maps.train.vectors(functions, with_jittered_copies(maps.repeated_rows, maps.seed, SYMMETRIC_COPIES))[name]
    tested = maps.test_vectors(functions)[name]
    if np.ptp(features, axis=0).max() < _SMALLEST_SPREAD:
        return {name: np.zeros((len(tested), 0), dtype=np.float32)}
    mean = features.mean(axis=0)
    return {name: normalise([tested - mean], [features - mean], maps.repeated_ids)}


def wccn_name(*parts: str) -> str:
    """`wccn_albedo_normal`, after its maps and how they are prepared."""
    return "_".join(["wccn", *parts])


def fit_scores(maps: BaselineMaps) -> tuple[dict[str, ToVectors], dict[str, np.ndarray]]:
    """Modality to the principal components of its maps, and to their (n, k) scores of the maps that WCCN is fitted on."""
    functions = {modality: _log_albedo_of if modality == "albedo" else pixels_of(modality) for modality in maps.modalities}
    sample = sample_maps(with_jittered_copies(maps.rows, maps.seed, COPIES), maps.seed)
    components = fit_components(maps.train, functions, sample, whiten=False, seed=maps.seed)
    return components, maps.train.vectors(components, with_jittered_copies(maps.repeated_rows, maps.seed, COPIES))


def normalise(tested: Collection[np.ndarray], fitted: Collection[np.ndarray], ids: np.ndarray) -> np.ndarray:
    """(n, k) float32 concatenated vectors of n test maps after `wccn`.

    Args:
        tested: (n, k_i) parts of the vectors of the test maps.
        fitted: (m (copies + 1), k_i) parts of the vectors of m training maps, then of their jittered copies.
        ids: (m,) subjects.
    """
    joined = np.hstack(list(fitted))
    return (np.hstack(list(tested)) @ wccn(joined, np.tile(ids, len(joined) // len(ids)))).astype(np.float32)


def log_albedo(maps: np.ndarray) -> np.ndarray:
    """(n, H W) logarithm of (n, 1, H, W) albedo plus `LOG_SHARE` of the mean of its map."""
    vectors = np.maximum(flatten(maps), 0)
    floor = LOG_SHARE * vectors.mean(axis=1, keepdims=True)
    return np.log(vectors + np.maximum(floor, np.finfo(np.float32).tiny))


def _mean_face(reader: MapReader, rows: np.ndarray) -> MapBatch:
    parts = [registration_features(_as_tensors(batch)) for batch in reader.batches([(rows, None)])]
    return congeal({modality: torch.cat([part[modality] for part in parts]) for modality in parts[0]})


def _log_albedo_of(maps: Maps) -> np.ndarray:
    return log_albedo(maps["albedo"])


def _as_tensors(maps: Maps) -> MapBatch:
    return {modality: torch.from_numpy(array) for modality, array in maps.items()}
