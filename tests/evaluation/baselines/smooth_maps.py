"""Maps of subjects that are random sums of slow waves, and what is computed from their embeddings."""

import numpy as np
from sklearn.metrics import roc_auc_score

from fr_ps.data.labels import ATTRIBUTES, DEFAULT_CLASSES, Labels
from fr_ps.data.store import MapStore

SIDE = 20
CHANNELS = {"albedo": 1, "normal": 3, "depth": 1}


def labels_of(ids: list[str]) -> Labels:
    sessions = [f"s{ids[:row].count(person)}" for row, person in enumerate(ids)]
    codes = np.zeros((len(ids), len(ATTRIBUTES)), dtype=np.int8)
    return Labels(np.array(ids), np.array(sessions), codes, DEFAULT_CLASSES, "raw", {})


def smooth(rng: np.random.Generator, count: int, channels: int) -> np.ndarray:
    """(count, channels, SIDE, SIDE) random sums of slow waves."""
    waves = np.cos(np.pi * np.outer(np.arange(6), (np.arange(SIDE) + 0.5) / SIDE))
    return np.einsum("ncij,ih,jw->nchw", rng.normal(size=(count, channels, 6, 6)), waves, waves)


def people(count: int, sessions: int, *modalities: str, nuisance: float = 1.0, seed: int = 0) -> tuple[MapStore, Labels]:
    """Maps with a pattern for each subject; the sessions of a subject differ much more, along three common patterns."""
    rng = np.random.default_rng(seed)
    subjects = np.repeat(np.arange(count), sessions)
    maps = {}
    for modality in modalities or ("depth",):
        channels = CHANNELS[modality]
        own, shared = smooth(rng, count, channels), smooth(rng, 3, channels)
        weights = nuisance * rng.normal(size=(len(subjects), 3))
        found = (
            own[subjects]
            + np.einsum("nk,kchw->nchw", weights, shared)
            + 0.1 * rng.normal(size=(len(subjects), channels, SIDE, SIDE))
        )
        if modality == "albedo":
            found = np.exp(found / 20)
        if modality == "normal":
            found[:, 2] = 20
            found /= np.linalg.norm(found, axis=1, keepdims=True)
        maps[modality] = found.astype(np.float32)
    return MapStore(maps, np.arange(len(subjects)), "digest"), labels_of([f"p{person:03d}" for person in subjects])


def cosines(embeddings: np.ndarray) -> np.ndarray:
    unit = embeddings.astype(np.float64)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    return unit @ unit.T


def auc(embeddings: np.ndarray, ids: np.ndarray) -> float:
    first, second = np.triu_indices(len(ids), k=1)
    return float(roc_auc_score(ids[first] == ids[second], cosines(embeddings)[first, second]))


def whitened(train: np.ndarray, tested: np.ndarray, count: int) -> np.ndarray:
    """Whitened principal components by an SVD in float64."""
    train, tested = train.astype(np.float64), tested.astype(np.float64)
    _, singular, right = np.linalg.svd(train - train.mean(axis=0), full_matrices=False)
    return (tested - train.mean(axis=0)) @ right[:count].T / singular[:count]
