"""The maps that the baselines of a model are fitted on and tested on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fr_ps.config import Modality
from fr_ps.data.dataset import Dataset, open_dataset
from fr_ps.data.layout import common_modalities
from fr_ps.data.split_files import SPLIT_FILE, read_parts
from fr_ps.errors import InputError
from fr_ps.models.folder import ModelInfo


@dataclass(frozen=True)
class BaselineData:
    """Data sets with the same modalities and size.

    Attributes:
        train: data set with the maps of the training subjects.
        train_rows: rows of `train` that the model was trained on.
        missing: number of training sessions of the model that `train` lacks.
        tested: data set that is evaluated.
    """

    train: Dataset
    train_rows: np.ndarray
    missing: int
    tested: Dataset

    @property
    def notes(self) -> list[str]:
        """What limits the baselines, for the user."""
        if not self.missing:
            return []
        fitted = len(self.train_rows)
        total = fitted + self.missing
        return [f"baselines: fitted on {fitted} of the model's {total} training sessions; {self.train.root} lacks the others"]


def open_baseline_data(info: ModelInfo, model: Path, dataset: Dataset, folder: Path | None) -> BaselineData:
    """Open the maps for the baselines of a model: those that it reads, and albedo and normals if all sessions have them.

    Args:
        info: description of the model.
        model: model folder.
        dataset: evaluated data set.
        folder: data set with the training subjects; None: the evaluated one.

    Raises:
        InputError: the training subjects are unknown or not in the data set, or its maps have another size.
    """
    path = model / SPLIT_FILE
    if not path.is_file():
        raise InputError(f"{path}: no such file; baselines need it to find the training subjects")
    modalities = _baseline_modalities(dataset, info)
    if folder is None:
        tested = train = open_dataset(dataset.root, modalities, classes=info.classes)
    else:
        train = open_dataset(folder, info.modalities, classes=info.classes)
        train_modalities = _baseline_modalities(train, info)
        modalities = [modality for modality in modalities if modality in train_modalities]
        tested, train = (open_dataset(root, modalities, classes=info.classes) for root in (dataset.root, folder))
        if train.store.map_size != tested.store.map_size:
            raise InputError(
                f"{folder}: maps are {train.store.map_size} px, but those of {dataset.root} are {tested.store.map_size}; "
                f"prepare with --size {tested.store.map_size}"
            )
    train_keys = {key for key, part in read_parts(path).items() if part == "train"}
    rows = [row for row, key in enumerate(train.labels.row_keys()) if key in train_keys]
    if not rows:
        raise InputError(
            f"{train.root}: holds no training session of the model; baselines need the maps of the training subjects: "
            "name their data set with --baselines-data"
        )
    return BaselineData(train, np.array(rows), len(train_keys) - len(rows), tested)


def _baseline_modalities(dataset: Dataset, info: ModelInfo) -> list[Modality]:
    available = common_modalities(dataset.root, dataset.labels)
    return [modality for modality in available if modality in info.modalities or modality != "depth"]
