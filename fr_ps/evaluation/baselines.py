"""Linear baselines, fitted on the training subjects of the same split.

- `pixels`: the map itself, flattened.
- `eigenfaces`: its whitened principal components (Turk and Pentland, "Eigenfaces for recognition", Journal of Cognitive
  Neuroscience 1991; whitened for the cosine as by Yambor, Draper and Beveridge, "Analyzing PCA-based face recognition
  algorithms: eigenvector selection and distance measures", 2002).
- `wccn`: principal components with within-class covariance normalisation (Hatch, Kajarekar and Stolcke, "Within-class
  covariance normalization for SVM-based speaker recognition", Interspeech 2006), fitted with jittered copies of the training
  maps; on the logarithm of albedo, on normals and depth, and on all of them concatenated.
- `wccn_albedo_normal_registered`: the same, after every session is registered to the mean face of the training sessions.
- `wccn_albedo_normal_symmetric`: the same without principal components, on the smoothed symmetric 14 x 14 maps of
  `fr_ps.models.linear_embedding`, which a model with `model.linear` contains.
- `normals_10x10`: normals averaged to 10 x 10 pixels, the resolution that Hansen found best for recognition by normals ("3D
  face recognition using photometric stereo", PhD thesis, University of the West of England, 2012).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter

import numpy as np
import torch
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from torch.nn import functional

from fr_ps.data.augment import MapBatch
from fr_ps.data.dataset import Dataset
from fr_ps.data.labels import Labels
from fr_ps.data.store import MapStore
from fr_ps.evaluation.jitter import TEST_SEED, jitter
from fr_ps.models.linear_embedding import LinearEmbedding
from fr_ps.models.registration import MODALITIES as REGISTERED
from fr_ps.models.registration import congeal, register_maps, registration_features
from fr_ps.progress import OnProgress, no_progress

MAX_SESSIONS = 2000
"""Largest number of training sessions, and of maps for the principal components."""
COMPONENTS = 150
COPIES = 4
"""Jittered copies of each training session, for `wccn`."""
SYMMETRIC_COPIES = 12
"""Jittered copies of each training session, for the symmetric maps."""
LOG_SHARE = 0.1
"""Share of the mean albedo of a map added before the logarithm; without it the darkest pixels dominate."""
MAX_PIXELS = 2**27
"""Largest size of `pixels` over all test sessions, half a gigabyte; larger ones are omitted."""

Output = Callable[[np.ndarray], np.ndarray]
"""(b, C, H, W) maps to (b, D) float32."""

_MapSources = Sequence[tuple[np.ndarray, int | None]]
"""Rows, and the jitter seed of their maps; None: no jitter."""

_CONSTANT_MAPS = "the training maps do not differ"
_BATCH = 64
_EXACT_UP_TO = 500
_RANK_TOLERANCE = 1e-5  # of the largest standard deviation; smaller ones are rounding error, which whitening would amplify

_SMALLEST_SPREAD = 1e-3  # of half faces, whose values are about 1; a smaller spread is rounding error


@dataclass(frozen=True)
class BaselineEmbeddings:
    """Baseline embeddings of n test sessions.

    Attributes:
        embeddings: name (`pixels_albedo`, `wccn_albedo_normal`, `normals_10x10`, ...) to (n, D) float32, compared by cosine.
        omitted: name of each omitted baseline to the reason.
    """

    embeddings: dict[str, np.ndarray] = field(default_factory=dict)
    omitted: dict[str, str] = field(default_factory=dict)


def baseline_embeddings(
    store: MapStore,
    labels: Labels,
    train_rows: np.ndarray,
    test_rows: np.ndarray,
    *,
    tested: Dataset | None = None,
    jittered: bool = False,
    seed: int = 0,
    advance: OnProgress = no_progress,
) -> BaselineEmbeddings:
    """Embed `test_rows` by every baseline of the store's modalities, fitted on `train_rows` only.

    Memory: the result, and twice `MAX_SESSIONS` maps of one modality.

    Args:
        store: store of the maps.
        labels: labels of the store's rows.
        train_rows: rows to fit on; beyond `MAX_SESSIONS`, a sample by `sample_subjects`.
        test_rows: rows to embed.
        tested: data set of `test_rows`, with the same modalities and size; None: the same as that of `train_rows`.
        jittered: warp the test maps by `jitter`.
        seed: random seed of the sample of subjects, the jittered copies and the principal components.
        advance: called with the number of maps done, `count_maps_to_read` in total; a registered session counts as one map.
    """
    rows = sample_subjects(labels, train_rows, seed)
    repeated_rows = _rows_with_several_sessions(labels, rows)
    test_store, test_labels = (tested.store, tested.labels) if tested else (store, labels)
    test_maps = [(test_rows, TEST_SEED if jittered else None)]
    too_few = "" if len(rows) > 1 else "fewer than two training sessions"
    result = BaselineEmbeddings()
    scores: dict[str, np.ndarray] = {}
    for modality, maps in store.maps.items():
        reader = _MapReader(_with_maps(store, [modality]), labels, itemgetter(modality), advance)
        test_reader = _MapReader(_with_maps(test_store, [modality]), test_labels, itemgetter(modality), advance)
        outputs: dict[str, Output] = {}
        if len(test_rows) * maps[0].size <= MAX_PIXELS:
            outputs[f"pixels_{modality}"] = _flatten
        else:
            result.omitted[f"pixels_{modality}"] = f"{len(test_rows)} maps have more than {MAX_PIXELS} values"
        if modality == "normal":
            outputs["normals_10x10"] = normals_10x10
        if too_few:
            result.omitted[f"eigenfaces_{modality}"] = too_few
        else:
            (outputs[f"eigenfaces_{modality}"],) = _fit_components(reader, [_flatten], [(rows, None)], whiten=True, seed=seed)
        if len(repeated_rows):
            vectors = log_albedo if modality == "albedo" else _flatten
            sample = _sample_maps(_with_jittered_copies(rows, seed, COPIES), seed)
            (components,) = _fit_components(reader, [vectors], sample, whiten=False, seed=seed)
            outputs[f"wccn_{modality}"] = components
            (scores[modality],) = reader.apply([components], _with_jittered_copies(repeated_rows, seed, COPIES))
        result.embeddings.update(zip(outputs, test_reader.apply(list(outputs.values()), test_maps)))
    not_fitted = too_few or "no training subject has two sessions"
    _apply_wccn(result, list(store.maps), scores, labels.ids[repeated_rows], not_fitted)
    registered = _registered_modalities(store.maps)
    name = "_".join(["wccn", *registered, "registered"])
    if registered and len(repeated_rows):
        mean_face = _mean_face(_with_maps(store, registered), rows, advance)
        reader, test_reader = (
            _MapReader(_with_maps(maps, registered), map_labels, _register_by(mean_face), advance)
            for maps, map_labels in ((store, labels), (test_store, test_labels))
        )
        result.embeddings[name] = _registered_wccn(reader, rows, repeated_rows, test_reader, test_maps, seed)
    else:
        result.omitted[name] = not_fitted if registered else "the data set has neither albedo nor normals"
    symmetric = LinearEmbedding(tuple(store.maps))
    name = "_".join(["wccn", *symmetric.modalities, "symmetric"])
    if len(repeated_rows):
        reader, test_reader = (
            _MapReader(_with_maps(maps, symmetric.modalities), map_labels, _half_faces_by(symmetric), advance)
            for maps, map_labels in ((store, labels), (test_store, test_labels))
        )
        result.embeddings[name] = _symmetric_wccn(reader, repeated_rows, test_reader, test_maps, seed)
    else:
        result.omitted[name] = not_fitted
    for name in [name for name, embeddings in result.embeddings.items() if not embeddings.shape[1]]:
        del result.embeddings[name]
        result.omitted[name] = _CONSTANT_MAPS
    return result


def count_maps_to_read(modalities: Collection[str], labels: Labels, train_rows: np.ndarray, tested: int, seed: int = 0) -> int:
    """Total of `advance` of `baseline_embeddings`, for the modalities of the store and a number of test sessions."""
    rows = sample_subjects(labels, train_rows, seed)
    repeated = len(_rows_with_several_sessions(labels, rows))
    with_copies = min(len(rows) * (COPIES + 1), MAX_SESSIONS) + repeated * (COPIES + 1) if repeated else 0
    registered = 1 if repeated and _registered_modalities(modalities) else 0
    symmetric = repeated * (SYMMETRIC_COPIES + 1) + tested if repeated else 0
    return (len(modalities) + registered) * (len(rows) + with_copies + tested) + symmetric


def sample_subjects(labels: Labels, rows: np.ndarray, seed: int) -> np.ndarray:
    """At most `MAX_SESSIONS` of the (n,) rows: all sessions of randomly chosen subjects, sorted by subject and session.

    A subject with more sessions than fit is skipped.
    """
    rows = rows[np.lexsort((labels.sessions[rows], labels.ids[rows]))]
    _, subject_of, counts = np.unique(labels.ids[rows], return_inverse=True, return_counts=True)
    chosen, room = np.zeros(len(counts), dtype=bool), MAX_SESSIONS
    for candidate in np.random.default_rng(seed).permutation(len(counts)):
        if counts[candidate] <= room:
            chosen[candidate] = True
            room -= counts[candidate]
    return rows[chosen[subject_of]]


def principal_components(vectors: np.ndarray, *, whiten: bool, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and scaled components (D, k) of (n, D) vectors, for (x - mean) @ components; overwrites the vectors.

    k is min(`COMPONENTS`, n - 1) without components of no variance; 0 for equal vectors. The components are exact for up to 500
    vectors, else from a randomised SVD (Halko, Martinsson and Tropp, "Finding structure with randomness", SIAM Review 2011).

    Args:
        vectors: (n, D) float32.
        whiten: scale each component to variance 1; False: scale all alike, to a total variance of 1.
        seed: random seed of the SVD.
    """
    count = min(COMPONENTS, len(vectors) - 1, vectors.shape[1])
    if count < 1 or np.ptp(vectors, axis=0).max() <= _RANK_TOLERANCE * np.abs(vectors[0]).max():
        return vectors[0], np.zeros((vectors.shape[1], 0), dtype=np.float32)
    solver = "full" if min(vectors.shape) <= _EXACT_UP_TO else "randomized"
    fitted = PCA(count, svd_solver=solver, copy=False, random_state=seed).fit(vectors)
    deviations = np.sqrt(fitted.explained_variance_)
    kept = deviations > _RANK_TOLERANCE * deviations[0]
    scale = deviations[kept] if whiten else np.linalg.norm(deviations[kept])
    return fitted.mean_, fitted.components_[kept].T / scale


def wccn(scores: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """(k, k) B that normalises (n, k) scores @ B: B B^T = W^-1, W being their covariance within the (n,) subjects.

    W is pooled, so a subject weighs by its sessions, and shrunk toward a multiple of the identity (Ledoit and Wolf, "A
    well-conditioned estimator for large-dimensional covariance matrices", Journal of Multivariate Analysis 2004). If no subject
    has differing scores, W is undefined and B is (k, 0).
    """
    _, subject_of, counts = np.unique(ids, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), scores.shape[1]))
    np.add.at(sums, subject_of, scores)
    residuals = scores - (sums / counts[:, None])[subject_of]
    if not np.abs(residuals).max(initial=0) > _RANK_TOLERANCE * np.abs(scores).max(initial=0):
        return np.zeros((scores.shape[1], 0))
    within = LedoitWolf(assume_centered=True).fit(residuals).covariance_
    return np.linalg.cholesky(np.linalg.inv(within))


def log_albedo(maps: np.ndarray) -> np.ndarray:
    """(n, H W) logarithm of (n, 1, H, W) albedo plus `LOG_SHARE` of the mean of its map."""
    vectors = np.maximum(_flatten(maps), 0)
    floor = LOG_SHARE * vectors.mean(axis=1, keepdims=True)
    return np.log(vectors + np.maximum(floor, np.finfo(np.float32).tiny))


def normals_10x10(maps: np.ndarray) -> np.ndarray:
    """(n, 300) from (n, 3, H, W) normals: averaged to 10 x 10 pixels and renormalised to unit length."""
    return _flatten(functional.normalize(functional.adaptive_avg_pool2d(torch.from_numpy(maps), 10), dim=1).numpy())


@dataclass(frozen=True)
class _MapReader:
    """Reads maps in batches; `select` makes one array (b, C, h, w) of the maps (b, C, H, W) of all modalities."""

    store: MapStore
    labels: Labels
    select: Callable[[dict[str, np.ndarray]], np.ndarray]
    advance: OnProgress

    def apply(self, outputs: Sequence[Output], sources: _MapSources) -> list[np.ndarray]:
        """(n, D) of each output; n counts the rows of all sources, one source after the other."""
        total = sum(len(rows) for rows, _ in sources)
        results: list[np.ndarray] = []
        done = 0
        for rows, seed in sources:
            for start in range(0, len(rows), _BATCH):
                maps = self._maps(rows[start : start + _BATCH], seed)
                parts = [output(maps) for output in outputs]
                results = results or [np.empty((total, part.shape[1]), dtype=np.float32) for part in parts]
                for result, part in zip(results, parts):
                    result[done : done + len(maps)] = part
                done += len(maps)
                self.advance(len(maps))
        return results

    def _maps(self, rows: np.ndarray, seed: int | None) -> np.ndarray:
        maps = self.store.read(rows)
        if seed is not None:
            maps = jitter(maps, self.labels.ids[rows], self.labels.sessions[rows], seed)
        return self.select(maps)


def _flatten(maps: np.ndarray) -> np.ndarray:
    return maps.reshape(len(maps), -1)


def _rows_with_several_sessions(labels: Labels, rows: np.ndarray) -> np.ndarray:
    """Rows of the subjects with two sessions or more among them."""
    _, subject_of, counts = np.unique(labels.ids[rows], return_inverse=True, return_counts=True)
    return rows[counts[subject_of] > 1]


def _with_jittered_copies(rows: np.ndarray, seed: int, copies: int) -> _MapSources:
    first = TEST_SEED + 1 + seed * copies
    return [(rows, None), *((rows, first + copy) for copy in range(copies))]


def _sample_maps(sources: _MapSources, seed: int) -> _MapSources:
    """A random sample of `MAX_SESSIONS` of the maps; all if there are no more."""
    sizes = [len(rows) for rows, _ in sources]
    chosen = np.sort(np.random.default_rng(seed).permutation(sum(sizes))[:MAX_SESSIONS])
    parts = np.split(chosen, np.searchsorted(chosen, np.cumsum(sizes)[:-1]))
    starts = np.cumsum([0, *sizes[:-1]])
    return [(rows[part - start], jitter_seed) for (rows, jitter_seed), part, start in zip(sources, parts, starts)]


def _fit_components(
    reader: _MapReader, vectors: Sequence[Output], sources: _MapSources, *, whiten: bool, seed: int
) -> list[Output]:
    """The principal components of the maps after each of the functions `vectors`."""
    fitted = reader.apply(vectors, sources)
    return [_components_of(one, of_one, whiten=whiten, seed=seed) for one, of_one in zip(vectors, fitted)]


def _components_of(vectors: Output, fitted_vectors: np.ndarray, *, whiten: bool, seed: int) -> Output:
    mean, components = principal_components(fitted_vectors, whiten=whiten, seed=seed)
    return lambda maps: (vectors(maps) - mean) @ components


def _apply_wccn(
    result: BaselineEmbeddings, modalities: list[str], scores: Mapping[str, np.ndarray], ids: np.ndarray, reason: str
) -> None:
    """Normalise the components of each modality, and add the normalised components of all modalities concatenated.

    Args:
        result: embeddings, with the principal component scores of the test sessions under `wccn_{modality}`.
        modalities: modalities of the store.
        scores: modality to the component scores that the normalisation is fitted on; empty: `wccn` is omitted.
        ids: subjects of the rows of `scores` without their jittered copies.
        reason: why `scores` is empty.
    """
    test_scores = {modality: result.embeddings.pop(f"wccn_{modality}") for modality in scores}
    for group in [*([modality] for modality in modalities), *([modalities] if len(modalities) > 1 else [])]:
        name = f"wccn_{'_'.join(group)}"
        if scores:
            result.embeddings[name] = _normalise([test_scores[one] for one in group], [scores[one] for one in group], ids)
        else:
            result.omitted[name] = reason


def _normalise(test_scores: Sequence[np.ndarray], scores: Sequence[np.ndarray], ids: np.ndarray) -> np.ndarray:
    """(n, k) concatenated test scores after `wccn`, fitted on the scores of the subjects `ids` and of their jittered copies."""
    joined = np.hstack(scores)
    return (np.hstack(test_scores) @ wccn(joined, np.tile(ids, len(joined) // len(ids)))).astype(np.float32)


def _registered_wccn(
    reader: _MapReader, rows: np.ndarray, repeated_rows: np.ndarray, test_reader: _MapReader, test_maps: _MapSources, seed: int
) -> np.ndarray:
    """`wccn` of all registered maps concatenated; the readers register them."""
    vectors = [_REGISTERED_VECTORS[modality] for modality in reader.store.maps]
    components = _fit_components(
        reader, vectors, _sample_maps(_with_jittered_copies(rows, seed, COPIES), seed), whiten=False, seed=seed
    )
    scores = reader.apply(components, _with_jittered_copies(repeated_rows, seed, COPIES))
    return _normalise(test_reader.apply(components, test_maps), scores, reader.labels.ids[repeated_rows])


def _symmetric_wccn(
    reader: _MapReader, repeated_rows: np.ndarray, test_reader: _MapReader, test_maps: _MapSources, seed: int
) -> np.ndarray:
    """`wccn` of half faces, which the readers make."""
    (features,) = reader.apply([_flatten], _with_jittered_copies(repeated_rows, seed, SYMMETRIC_COPIES))
    (tested,) = test_reader.apply([_flatten], test_maps)
    if np.ptp(features, axis=0).max() < _SMALLEST_SPREAD:
        return np.zeros((len(tested), 0), dtype=np.float32)
    mean = features.mean(axis=0)
    return _normalise([tested - mean], [features - mean], reader.labels.ids[repeated_rows])


def _half_faces_by(embedding: LinearEmbedding) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """A function from the maps to the (b, D) features of `embedding`."""
    return lambda maps: torch.cat(list(embedding.features(_as_tensors(maps))[0].values()), dim=1).numpy()


def _registered_modalities(modalities: Collection[str]) -> list[str]:
    return [modality for modality in REGISTERED if modality in modalities]


def _mean_face(store: MapStore, rows: np.ndarray, advance: OnProgress) -> MapBatch:
    parts = []
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        parts.append(registration_features(_as_tensors(store.read(batch))))
        advance(len(batch))
    return congeal({name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def _register_by(mean_face: MapBatch) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """A function that registers maps to the mean face and stacks those of all modalities as channels."""
    return lambda maps: torch.cat(list(register_maps(_as_tensors(maps), mean_face).values()), dim=1).numpy()


_REGISTERED_VECTORS: dict[str, Output] = {
    "albedo": lambda stacked: log_albedo(stacked[:, :1]),
    "normal": lambda stacked: _flatten(stacked[:, -3:]),
}


def _as_tensors(maps: Mapping[str, np.ndarray]) -> MapBatch:
    return {modality: torch.from_numpy(array) for modality, array in maps.items()}


def _with_maps(store: MapStore, modalities: Sequence[str]) -> MapStore:
    return replace(store, maps={modality: store.maps[modality] for modality in modalities})
