"""Embeddings of test sessions by every linear baseline."""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from fr_ps.data.dataset import Dataset
from fr_ps.data.labels import Labels
from fr_ps.data.store import MapStore
from fr_ps.evaluation.baselines.map_reader import BaselineMaps, MapReader
from fr_ps.evaluation.baselines.single_modality import single_modality_baselines
from fr_ps.evaluation.baselines.training_rows import (
    count_maps,
    rows_with_several_sessions,
    sample_maps,
    sample_subjects,
    with_jittered_copies,
)
from fr_ps.evaluation.baselines.wccn import COPIES, SYMMETRIC_COPIES, registered_wccn, symmetric_wccn
from fr_ps.evaluation.jitter import TEST_SEED
from fr_ps.models.registration import registered_modalities
from fr_ps.progress import OnProgress, no_progress

_KINDS = (single_modality_baselines, registered_wccn, symmetric_wccn)
_CONSTANT_MAPS = "the training maps do not differ"


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
    train = MapReader(store, labels, advance)
    test = MapReader(tested.store, tested.labels, advance) if tested else train
    test_maps = [(test_rows, TEST_SEED if jittered else None)]
    maps = BaselineMaps(train, rows, rows_with_several_sessions(labels, rows), test, test_maps, seed)
    result = BaselineEmbeddings()
    constant: dict[str, str] = {}
    for kind in _KINDS:
        for name, found in kind(maps).items():
            if isinstance(found, str):
                result.omitted[name] = found
            elif found.shape[1]:
                result.embeddings[name] = found
            else:
                constant[name] = _CONSTANT_MAPS
    result.omitted.update(constant)
    return result


def count_maps_to_read(modalities: Collection[str], labels: Labels, train_rows: np.ndarray, tested: int, seed: int = 0) -> int:
    """Total of `advance` of `baseline_embeddings`, for the modalities of the store and a number of test sessions."""
    rows = sample_subjects(labels, train_rows, seed)
    repeated = len(rows_with_several_sessions(labels, rows))
    if not repeated:
        return len(modalities) * (len(rows) + tested)
    components = count_maps(sample_maps(with_jittered_copies(rows, seed, COPIES), seed))
    group = len(rows) + components + repeated * (COPIES + 1) + tested  # of a modality, and of the registered maps
    symmetric = repeated * (SYMMETRIC_COPIES + 1) + tested
    return (len(modalities) + bool(registered_modalities(modalities))) * group + symmetric
