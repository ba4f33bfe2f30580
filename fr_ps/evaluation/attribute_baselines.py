"""Linear probes on pixels: attributes of unseen subjects without a network, fitted on the training subjects of the same split.

The maps (log albedo, normals, depth) are averaged to `SIDE` x `SIDE` pixels, each pixel is standardised over the training maps,
and logistic regression with balanced classes (King and Zeng, "Logistic regression in rare events data", Political Analysis 2001)
is fitted on their principal components, with jittered copies as for `wccn`. Its regularisation strength is the one with the
lowest class-balanced log loss on held-out training subjects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from torch.nn import functional

from fr_ps.data.dataset import Dataset
from fr_ps.data.labels import ATTRIBUTES
from fr_ps.evaluation.baselines.map_reader import MapReader
from fr_ps.evaluation.baselines.projections import principal_components
from fr_ps.evaluation.baselines.training_rows import sample_subjects, with_jittered_copies
from fr_ps.evaluation.baselines.wccn import COPIES, log_albedo
from fr_ps.evaluation.jitter import JitteredMaps
from fr_ps.progress import OnProgress, no_progress

SIDE = 28
"""Side in pixels of the averaged maps."""
INVERSE_REGULARISATIONS = 10.0 ** np.arange(8)
"""Candidates, from strong to weak regularisation: C of scikit-learn times the number of maps, for vectors of total variance 1."""
FOLDS = 5
"""Largest number of folds of training subjects that choose among them."""

_BATCH = 64
_CONSTANT = 1e-5  # standard deviation of a pixel over its largest value; smaller ones are rounding error
_NO_ROWS = "no training sessions"
_EQUAL_MAPS = "the training maps do not differ"


@dataclass(frozen=True)
class AttributeProbe:
    """Linear classifiers of attributes on the averaged pixels of maps, k principal components of D values.

    Attributes:
        modalities: maps that it reads.
        mean: (D,) mean of the training maps.
        components: (D, k), for (x - mean) @ components.
        classifiers: attribute to the classifier of the components; its classes are those of the labels.
        omitted: attribute without a classifier to the reason.
    """

    modalities: tuple[str, ...]
    mean: np.ndarray
    components: np.ndarray
    classifiers: dict[str, LogisticRegression]
    omitted: dict[str, str]

    @property
    def name(self) -> str:
        """`linear_probe_albedo_normal`, after its maps."""
        return f"linear_probe_{'_'.join(self.modalities)}"

    def predict(
        self, tested: Dataset, rows: np.ndarray, *, jittered: bool = False, advance: OnProgress = no_progress
    ) -> dict[str, np.ndarray]:
        """Attribute to the (n, classes) probabilities of n rows.

        Args:
            tested: data set with the maps of the probe.
            rows: (n,) rows to classify.
            jittered: warp the maps by `jitter`.
            advance: called with the number of sessions done.
        """
        if not self.classifiers:
            return {}
        store = tested.store.with_modalities(self.modalities)
        reader = JitteredMaps(store, tested.labels) if jittered else store
        scores = np.empty((len(rows), self.components.shape[1]))
        for start in range(0, len(rows), _BATCH):
            some = slice(start, start + _BATCH)
            scores[some] = (averaged_pixels(reader.read(rows[some])) - self.mean) @ self.components
            advance(len(rows[some]))
        return {attribute: classifier.predict_proba(scores) for attribute, classifier in self.classifiers.items()}


def fit_attribute_probe(
    train: Dataset,
    rows: np.ndarray,
    attributes: Sequence[str],
    modalities: Sequence[str],
    *,
    seed: int = 0,
    advance: OnProgress = no_progress,
) -> AttributeProbe:
    """Fit a linear probe for each attribute; one with a class that no row has is omitted.

    Args:
        train: data set of the training subjects.
        rows: rows to fit on; beyond `MAX_SESSIONS` of the baselines, a sample by `sample_subjects`.
        attributes: attributes to fit.
        modalities: maps to read.
        seed: random seed of the sample, the jittered copies, the principal components and the folds.
        advance: called with the number of sessions read, `count_fitted` in total.
    """
    rows = sample_subjects(train.labels, rows, seed)
    if not len(rows):
        nothing = np.zeros((0, 0), dtype=np.float32)
        return AttributeProbe(tuple(modalities), nothing.ravel(), nothing, {}, dict.fromkeys(attributes, _NO_ROWS))
    reader = MapReader(train.store.with_modalities(modalities), train.labels, advance)
    vectors = reader.vectors({"pixels": averaged_pixels}, with_jittered_copies(rows, seed, COPIES))["pixels"]
    mean, spread = vectors.mean(axis=0), vectors.std(axis=0)
    scale = np.divide(1, spread, out=np.zeros_like(spread), where=spread > _CONSTANT * np.abs(vectors).max(axis=0))
    vectors -= mean
    vectors *= scale
    offset, components = principal_components(vectors.copy(), whiten=False, seed=seed)
    scores = ((vectors - offset) @ components).astype(np.float64)
    labels = train.labels.subset(np.tile(rows, COPIES + 1))
    classifiers: dict[str, LogisticRegression] = {}
    omitted: dict[str, str] = {}
    for column, attribute in enumerate(ATTRIBUTES):
        if attribute not in attributes:
            continue
        codes = labels.codes[:, column]
        missing = [name for code, name in enumerate(labels.class_names(attribute)) if not (codes == code).any()]
        if missing or not components.shape[1]:
            omitted[attribute] = f"no training session is {' or '.join(missing)}" if missing else _EQUAL_MAPS
            continue
        known = codes >= 0
        inverse_regularisation = choose_regularisation(scores[known], codes[known], labels.ids[known], seed)
        classifiers[attribute] = fit_classifier(scores[known], codes[known], inverse_regularisation)
    projection = scale[:, None] * components
    return AttributeProbe(tuple(modalities), mean + offset * spread, projection, classifiers, omitted)


def count_fitted(train: Dataset, rows: np.ndarray, seed: int = 0) -> int:
    """Total of `advance` of `fit_attribute_probe`."""
    return len(sample_subjects(train.labels, rows, seed)) * (COPIES + 1)


def averaged_pixels(maps: Mapping[str, np.ndarray]) -> np.ndarray:
    """(n, D) float32: log albedo, normals and depth averaged to `SIDE` x `SIDE` pixels, one modality after the other."""
    parts = []
    for modality, array in maps.items():
        values = log_albedo(array).reshape(array.shape) if modality == "albedo" else array
        averaged = functional.adaptive_avg_pool2d(torch.from_numpy(np.ascontiguousarray(values)), SIDE)
        parts.append(averaged.numpy().reshape(len(array), -1))
    return np.hstack(parts)


def choose_regularisation(vectors: np.ndarray, codes: np.ndarray, subjects: np.ndarray, seed: int) -> float:
    """The one of `INVERSE_REGULARISATIONS` with the lowest class-balanced log loss on held-out subjects; the first of equal ones.

    The folds are of whole subjects, stratified by class, and no more than there are subjects of the rarest class. If it has only
    one, nothing can be held out, and the strongest regularisation is taken.

    Args:
        vectors: (n, k) vectors.
        codes: (n,) classes, all of them 0 or above.
        subjects: (n,) subject of each vector.
        seed: random seed of the folds.
    """
    folds = min(FOLDS, *(len(np.unique(subjects[codes == code])) for code in np.unique(codes)))
    if folds < 2:
        return float(INVERSE_REGULARISATIONS[0])
    splits = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(vectors, codes, subjects)
    weights = 1 / np.bincount(codes)[codes]
    losses = np.zeros(len(INVERSE_REGULARISATIONS))
    for fitted, held_out in splits:
        if len(np.unique(codes[fitted])) < len(np.unique(codes)):
            continue  # the classes that a subject has may leave no better split
        for place, inverse_regularisation in enumerate(INVERSE_REGULARISATIONS):
            probabilities = fit_classifier(vectors[fitted], codes[fitted], inverse_regularisation).predict_proba(
                vectors[held_out]
            )
            true = probabilities[np.arange(len(held_out)), codes[held_out]]
            losses[place] -= (weights[held_out] * np.log(np.maximum(true, np.finfo(float).tiny))).sum()
    return float(INVERSE_REGULARISATIONS[losses.argmin()])


def fit_classifier(vectors: np.ndarray, codes: np.ndarray, inverse_regularisation: float) -> LogisticRegression:
    """Logistic regression, multinomial for several classes, that weighs each class alike."""
    model = LogisticRegression(C=inverse_regularisation / len(codes), class_weight="balanced", solver="newton-cholesky")
    return model.fit(vectors, codes)
