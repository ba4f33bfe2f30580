"""Metrics of a fused network when maps are missing, for every subset of its modalities."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from fr_ps.data.labels import ATTRIBUTES, Labels
from fr_ps.evaluation.evaluate_predictions import validation_metrics
from fr_ps.evaluation.metrics import Metrics
from fr_ps.models.inference import MapReader, Predictions, predict_subsets
from fr_ps.models.network import FaceNetwork
from fr_ps.progress import OnProgress, no_progress
from fr_ps.report.table import Table

SUBSET_PREFIX = "only_"
"""Start of the metric names of a subset: `only_albedo_depth/identity/auc` has the maps albedo and depth."""
SUBSET_SECTION = "Modality subsets"
_COLUMNS = {"identity": "identity/auc", "identity EER": "identity/eer"} | {task: f"{task}/auc" for task in ATTRIBUTES}


def modality_subsets(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """All non-empty proper subsets, the small ones first."""
    return [subset for count in range(1, len(modalities)) for subset in combinations(modalities, count)]


def predict_with_subsets(
    network: FaceNetwork,
    store: MapReader,
    rows: np.ndarray,
    labels: Labels,
    trained: Sequence[str],
    batch: int,
    advance: OnProgress = no_progress,
) -> tuple[Predictions, Metrics]:
    """Predictions with all maps, and the metrics with each proper subset of the maps; each branch runs once per batch.

    The metrics are named `only_albedo/identity/auc`; a single-modality network has none. The processes of a training share the
    batches, as in `predict_subsets`.

    Args:
        network: network to evaluate.
        store: store of the maps.
        rows: rows of the store.
        labels: labels of these rows.
        trained: attributes that the network was trained on.
        batch: sessions per batch.
        advance: called with the number of sessions done.
    """
    subsets = modality_subsets(network.modalities)
    complete, *partial = predict_subsets(network, store, rows, batch, [network.modalities, *subsets], advance)
    metrics = [
        validation_metrics(predictions, labels, trained).with_prefix(SUBSET_PREFIX + "_".join(subset))
        for subset, predictions in zip(subsets, partial)
    ]
    return complete, Metrics().merge(*metrics)


def subset_table(metrics: Metrics) -> Table:
    """The main metrics with a row per part and subset of the maps, all maps last; without subset metrics no rows."""
    groups = list(dict.fromkeys(tuple(name.split("/")[:2]) for name in metrics.values if _is_subset_metric(name)))
    rows = []
    for part in dict.fromkeys(part for part, _ in groups):
        subsets = [group.removeprefix(SUBSET_PREFIX) for group_part, group in groups if group_part == part]
        rows += [[part, subset.replace("_", " + "), *_cells(metrics, f"{part}/{SUBSET_PREFIX}{subset}")] for subset in subsets]
        rows.append([part, "all", *_cells(metrics, part)])
    return Table("fewer_maps", "", ["AUC by maps", "", *_COLUMNS], rows, label_columns=2)


def _is_subset_metric(name: str) -> bool:
    return name.split("/")[1].startswith(SUBSET_PREFIX)


def _cells(metrics: Metrics, prefix: str) -> list[str]:
    values = [metrics.values.get(f"{prefix}/{name}") for name in _COLUMNS.values()]
    return ["-" if value is None else f"{value:.4f}" for value in values]
