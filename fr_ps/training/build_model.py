"""The network of a training: new, from weights of others, or from trained runs of single modalities."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np

from fr_ps.config import Config, Modality, ModelConfig
from fr_ps.data.labels import Classes, Labels
from fr_ps.data.leakage import Unit, split_overlap
from fr_ps.data.split_files import SPLIT_FILE, Split
from fr_ps.errors import InputError
from fr_ps.models import build_network
from fr_ps.models.branch import Branch, check_input_size
from fr_ps.models.folder import ModelInfo
from fr_ps.models.network import FaceNetwork
from fr_ps.models.pretrained import load_weights
from fr_ps.models.trained import load_branch, read_branch_info
from fr_ps.tracking.resolve import resolve_model

Folders = Mapping[Modality, Path]


def resolve_branch_folders(config: Config) -> Folders:
    """Modality to the model folder of the trained run that its branch starts from, of those that have one.

    Raises:
        InputError: there is no such run.
    """
    folders = {}
    for modality, run in config.fusion.branches.items():
        with _prefix_errors(modality):
            folders[modality] = resolve_model(run)
    return folders


def branch_configs(config: Config, folders: Folders, classes: Classes, size: int) -> dict[str, ModelConfig]:
    """Modality to the settings of its branch: those of its run, else `config.model`.

    Raises:
        InputError: the run's model reads something else, or tells other classes apart.
    """
    found: dict[str, ModelConfig] = {}
    for modality in config.data.modalities:
        with _prefix_errors(modality):
            trained = read_branch_info(folders[modality], modality, classes, size) if modality in folders else None
            found[modality] = trained.branches[modality] if trained else config.model
    return found


def check_leakage(folders: Folders, labels: Labels, split: Split, protocol: str) -> None:
    """Reject branches that were trained on validation or test data of the split, or selected on its test data.

    Raises:
        InputError: a branch was, or its folder has no split.csv.
    """
    by: Unit = "session" if protocol == "session_disjoint" else "subject"
    for modality, folder in folders.items():
        for part, rows in (("validation", split.val), ("test", np.concatenate([split.test, split.gallery]))):
            keys = list(zip(labels.ids[rows].tolist(), labels.sessions[rows].tolist()))
            overlap = split_overlap(folder, keys, by)
            if overlap is None:
                raise InputError(
                    f"fusion.branches.{modality}: {folder}: has no {SPLIT_FILE}, which must list its training subjects"
                )
            if leaked := sorted(overlap.trained | (overlap.selected if part == "test" else set())):
                raise InputError(
                    f"fusion.branches.{modality}: {folder}: {len(leaked)} of the {part} {by}s were in its training or selection, "
                    f"as {'/'.join(leaked[0])}; use its split: --data.split {folder / SPLIT_FILE}"
                )


def build_model(
    config: Config, info: ModelInfo, folders: Folders, echo: Callable[[str], None], load_initial_weights: bool = True
) -> FaceNetwork:
    """The network of `info` with the weights that `config` has it start from.

    Where it is not `fresh`, the weights come from a checkpoint, and the file of `model.weights` is not needed any more.

    Raises:
        InputError: maps too small for a backbone, or weights that cannot be used.
    """
    network = build_network(info.branches, info.fusion, info.class_counts())
    for modality, module in network.branches.items():
        branch = cast(Branch, module)
        check_input_size(branch, info.size)
        if modality in folders:
            with _prefix_errors(modality):
                load_branch(network, modality, folders[cast(Modality, modality)], config.fusion.frozen)
            how = "frozen" if config.fusion.frozen else "to be trained further"
            echo(f"{modality}: the branch of {folders[cast(Modality, modality)]}, {how}")
        elif config.model.weights and load_initial_weights:
            echo(load_weights(branch, Path(config.model.weights)))
    return network


@contextmanager
def _prefix_errors(modality: str) -> Iterator[None]:
    """What is refused in the block is about the trained run of `modality`."""
    try:
        yield
    except InputError as error:
        raise InputError(f"fusion.branches.{modality}: {error}") from None
