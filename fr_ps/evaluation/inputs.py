"""What an evaluation reads, opened and checked before a run starts: errors of its inputs leave no run."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fr_ps.data.dataset import Dataset, open_dataset
from fr_ps.data.split_files import SPLIT_FILE, read_part, read_parts
from fr_ps.errors import InputError
from fr_ps.evaluation.baseline_data import BaselineData, open_baseline_data
from fr_ps.evaluation.pairwise.pair_list import PairList, read_pairs
from fr_ps.evaluation.pairwise.similarity import Measure
from fr_ps.models.folder import ModelInfo, load_model
from fr_ps.models.network import FaceNetwork
from fr_ps.models.thresholds import Thresholds, read_thresholds


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of `fr-ps evaluate` and `fr-ps compare`.

    Attributes:
        part: part of the model's own split; None: every row of the data set.
        pairs: CSV of the pairs to verify; None: all pairs.
        measure: similarity measure of verification.
        baselines: fit linear baselines on the training subjects and compare them.
        baselines_data: data set with the maps of the training subjects; None: the evaluated one.
        jitter: evaluate a second time on randomly warped maps.
    """

    part: str | None = None
    pairs: Path | None = None
    measure: Measure = "cosine"
    baselines: bool = False
    baselines_data: Path | None = None
    jitter: bool = False


@dataclass(frozen=True)
class EvaluationInputs:
    """A model and the sessions on which it is evaluated.

    Attributes:
        model: model folder.
        data: prepared data set, as the user named it.
        options: what to evaluate.
        network: of the model, on its device.
        info: description of the model.
        thresholds: of the model, from validation; None without any.
        dataset: with the maps that the model reads.
        rows: rows to evaluate.
        gallery_rows: rows of the enrolled sessions; may be empty.
        pair_list: pairs to verify; None: all pairs.
        baselines: maps for the baselines; None: no baselines.
    """

    model: Path
    data: Path
    options: EvaluationOptions
    network: FaceNetwork
    info: ModelInfo
    thresholds: Thresholds | None
    dataset: Dataset
    rows: np.ndarray
    gallery_rows: np.ndarray
    pair_list: PairList | None
    baselines: BaselineData | None

    @property
    def device(self) -> torch.device:
        """Device of the network, and of the comparison of all pairs."""
        return next(self.network.parameters()).device


def open_inputs(
    model: Path, data: Path, options: EvaluationOptions, device: torch.device, split_of: Path | None = None
) -> EvaluationInputs:
    """Load a model and open its data.

    Args:
        model: model folder.
        data: prepared data set.
        options: what to evaluate.
        device: device of the network.
        split_of: model folder whose split has `options.part`; None: `model`.

    Raises:
        InputError: the model, the data, the part, the pairs or the data of the baselines cannot be used.
    """
    network, info = load_model(model, device)
    dataset = open_model_dataset(info, data)
    rows = split_rows(dataset, split_of or model, options.part)
    return EvaluationInputs(
        model,
        data,
        options,
        network,
        info,
        read_thresholds(model),
        dataset,
        rows,
        _gallery_rows(dataset, model) if options.part == "test" and split_of is None else np.empty(0, dtype=int),
        read_pairs(options.pairs, dataset.labels.subset(rows)) if options.pairs else None,
        open_baseline_data(info, model, dataset, options.baselines_data) if options.baselines else None,
    )


def open_model_dataset(info: ModelInfo, data: Path) -> Dataset:
    """The data set at `data` with the maps and classes of a model.

    Raises:
        InputError: the data set is missing, lacks a map of the model, or its maps have another size.
    """
    dataset = open_dataset(data, info.modalities, classes=info.classes)
    if dataset.store.map_size != info.size:
        raise InputError(
            f"{data}: maps are {dataset.store.map_size} px, but the model reads {info.size}; prepare with --size {info.size}"
        )
    return dataset


def split_rows(dataset: Dataset, model: Path, part: str | None) -> np.ndarray:
    """Rows of a part of the model's own split; all rows if `part` is None."""
    return np.arange(len(dataset.labels)) if part is None else read_part(model / SPLIT_FILE, part, dataset.labels)


def _gallery_rows(dataset: Dataset, model: Path) -> np.ndarray:
    parts = read_parts(model / SPLIT_FILE)
    return read_part(model / SPLIT_FILE, "gallery", dataset.labels) if "gallery" in parts.values() else np.empty(0, dtype=int)
