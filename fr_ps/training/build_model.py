"""The network of a training: new, from published weights, or from trained runs of single modalities."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from fr_ps.config import BranchName, Config, ModelConfig
from fr_ps.data.labels import Classes, Labels
from fr_ps.data.leakage import Unit, split_overlap
from fr_ps.data.split_files import SPLIT_FILE, Split
from fr_ps.errors import InputError
from fr_ps.models.branch import Branch, check_input_size
from fr_ps.models.folder import ModelInfo
from fr_ps.models.network import FaceNetwork
from fr_ps.models.pretrained import load_branch, load_weights, read_branch_info
from fr_ps.tracking.resolve import resolve_model

BranchFolders = Mapping[BranchName, Path]
"""Branch to the model folder that initialises it; new branches are absent."""


def resolve_branch_folders(config: Config) -> BranchFolders:
    """The model folders of the runs in `fusion.branches`.

    Raises:
        InputError: a run does not exist.
    """
    folders = {}
    for modality, run in config.fusion.branches.items():
        with _prefix_errors(modality):
            folders[modality] = resolve_model(run)
    return folders


def branch_configs(config: Config, folders: BranchFolders, classes: Classes, size: int) -> dict[str, ModelConfig]:
    """Branch to its settings: `config.model`, or for a branch of a trained run those of that run.

    `flip_average`, `linear`, `linear_attributes` and `registration` concern the whole network, so they are always those of
    `config.model`.

    Raises:
        InputError: the run's model has other inputs or classes.
    """
    found: dict[str, ModelConfig] = {}
    for name in config.branch_names:
        found[name] = config.model
        if name in folders:
            with _prefix_errors(name):
                trained = read_branch_info(folders[name], name, config.joint, classes, size)
            found[name] = replace(
                trained.branches[name],
                flip_average=config.model.flip_average,
                linear=config.model.linear,
                linear_attributes=config.model.linear_attributes,
                registration=config.model.registration,
            )
    return found


def check_leakage(folders: BranchFolders, labels: Labels, split: Split, protocol: str) -> None:
    """Reject branches that were trained on validation or test data of the split, or selected on its test data.

    Raises:
        InputError: a branch leaks, or its folder has no split.csv.
    """
    by: Unit = "session" if protocol == "session_disjoint" else "subject"
    for modality, folder in folders.items():
        for part, rows in (("validation", split.val), ("test", np.concatenate([split.test, split.gallery]))):
            overlap = split_overlap(folder, labels.subset(rows).row_keys(), by)
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
    config: Config, info: ModelInfo, folders: BranchFolders, echo: Callable[[str], None], *, load_initial_weights: bool = True
) -> FaceNetwork:
    """The network of `info` with its initial weights.

    Args:
        config: the settings.
        info: the architecture.
        folders: branch to the model folder that initialises it.
        echo: prints a line for the user.
        load_initial_weights: whether to load `model.weights`; not needed before a resume, as the checkpoint has all weights.

    Raises:
        InputError: maps too small for a backbone, or weights that do not fit.
    """
    network = info.build_network()
    sources = {str(name): folder for name, folder in folders.items()}
    for name, module in network.branches.items():
        branch = cast(Branch, module)
        check_input_size(branch, info.size)
        if name in sources:
            with _prefix_errors(name):
                load_branch(network, name, sources[name], config.fusion.frozen)
            how = "frozen" if config.fusion.frozen else "trained further"
            echo(f"{name}: branch from {sources[name]}, {how}")
        elif config.model.weights and load_initial_weights:
            echo(load_weights(branch, Path(config.model.weights)))
    return network


@contextmanager
def _prefix_errors(branch: str) -> Iterator[None]:
    """Prefix the errors of the block with the setting of the branch."""
    try:
        yield
    except InputError as error:
        raise InputError(f"fusion.branches.{branch}: {error}") from None
