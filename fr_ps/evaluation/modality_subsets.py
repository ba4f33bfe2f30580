"""How a fused network answers when maps are missing: the metrics of every subset of its modalities."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from fr_ps.data.labels import ATTRIBUTES, Labels
from fr_ps.evaluation.evaluate_predictions import validation_metrics
from fr_ps.evaluation.metrics import Metrics
from fr_ps.models.inference import MapReader, Predictions, predict_subsets
from fr_ps.models.network import FaceNetwork
from fr_ps.progress import OnProgress, no_progress

SUBSET_PREFIX = "only_"
"""Before the modalities that were there: `only_albedo_depth/identity/auc`."""
_COLUMNS = {"identity": "identity/auc", "identity EER": "identity/eer"} | {task: f"{task}/auc" for task in ATTRIBUTES}


def modality_subsets(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """All subsets but the empty and the whole one, the small ones first."""
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
    """The answers about `rows` with all maps, and the metrics with fewer; every branch runs once.

    The latter are those of each proper subset of the modalities, named `only_albedo/identity/auc`; of one, there are none.

    Args:
        network: that answers.
        store: of maps.
        rows: of it that are scored.
        labels: of these rows.
        trained: the attributes that the network was trained on.
        batch: sessions a batch.
        advance: called with the number of sessions done.
    """
    subsets = modality_subsets(network.modalities)
    whole, *found = predict_subsets(network, store, rows, batch, [network.modalities, *subsets], advance)
    metrics = Metrics()
    for subset, answers in zip(subsets, found):
        metrics = metrics.merge(validation_metrics(answers, labels, trained).with_prefix(SUBSET_PREFIX + "_".join(subset)))
    return whole, metrics


def subset_table(metrics: Metrics) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the main metrics, a row a part and subset of the maps, all of them last; no rows without subsets."""
    groups = list(dict.fromkeys(tuple(name.split("/")[:2]) for name in metrics.values if _is_subset_metric(name)))
    parts = list(dict.fromkeys(part for part, _ in groups))
    rows = []
    for part in parts:
        subsets = [group.removeprefix(SUBSET_PREFIX) for of, group in groups if of == part]
        rows += [[part, subset.replace("_", " + "), *_cells(metrics, f"{part}/{SUBSET_PREFIX}{subset}")] for subset in subsets]
        rows.append([part, "all", *_cells(metrics, part)])
    return ["AUC by maps", "", *_COLUMNS], rows


def _is_subset_metric(name: str) -> bool:
    return name.split("/")[1].startswith(SUBSET_PREFIX)


def _cells(metrics: Metrics, prefix: str) -> list[str]:
    values = [metrics.values.get(f"{prefix}/{name}") for name in _COLUMNS.values()]
    return ["-" if value is None else f"{value:.4f}" for value in values]
