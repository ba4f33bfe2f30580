"""Setup of a training: data, split and model description, and logging them to the run."""

from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from fr_ps.config import Config, flatten, to_dict, with_absolute_paths
from fr_ps.data.builtin import resolve_root
from fr_ps.data.dataset import Dataset, open_dataset
from fr_ps.data.labels import ATTRIBUTES
from fr_ps.data.preparation import find_acquisitions, find_preparation
from fr_ps.data.split_files import PARTS, SPLIT_FILE, Split, write_split
from fr_ps.data.splits import describe_split, make_split
from fr_ps.files import write_text
from fr_ps.models.folder import ModelInfo
from fr_ps.progress import Echo
from fr_ps.redaction import redact_tree
from fr_ps.tracking.environment import code_versions, environment_text
from fr_ps.tracking.run import Run
from fr_ps.tracking.run_folder import CONFIG_FILE
from fr_ps.training.batch_loader import BatchLoader
from fr_ps.training.build_model import BranchFolders, branch_configs, check_leakage

ENVIRONMENT_FILE = "environment.txt"


@dataclass(frozen=True)
class TrainingSetup:
    """What is trained on which data; fixed before the first step."""

    config: Config
    dataset: Dataset
    split: Split
    info: ModelInfo


def build_setup(
    config: Config, branch_folders: BranchFolders, device: torch.device, echo: Echo
) -> tuple[TrainingSetup, BatchLoader]:
    """Open the data, split it, check for leakage, and describe the model; returns the setup and the loader of training batches.

    Args:
        config: the settings.
        branch_folders: branch to the model folder that initialises it.
        device: where the loader puts the batches.
        echo: prints a line for the user.

    Raises:
        InputError: data, split or branches that cannot be used.
    """
    dataset = open_training_data(config, echo)
    split = make_split(dataset.labels, config.data, dataset.left_out)
    check_leakage(branch_folders, dataset.labels, split, config.data.protocol)
    loader = BatchLoader(
        dataset, split.train, config.batch, config.augment, config.train.seed, device, modality_dropout=config.fusion.dropout
    )
    classes = dataset.labels.classes
    class_counts = loader.class_counts_of_trained_attributes({task: len(names) for task, names in classes.items()})
    versions = dict(code_versions())
    commit = versions.pop("commit")
    info = ModelInfo(
        branches=branch_configs(config, branch_folders, classes, dataset.store.map_size),
        fusion=config.fusion.name,
        size=dataset.store.map_size,
        classes=classes,
        trained=tuple(class_counts),
        provenance={"data_digest": dataset.store.digest, "git_commit": commit} | versions,
        joint=config.joint,
        preparation=find_preparation(dataset.root, str(dataset.labels.ids[0]), str(dataset.labels.sessions[0])),
        acquisition=find_acquisitions(dataset.root, dataset.labels.subset(split.train).row_keys()),
    )
    return TrainingSetup(config, dataset, split, info), loader


def open_training_data(config: Config, echo: Echo = print) -> Dataset:
    """The data set that the settings name; if that is "synthetic", the built-in faces, generated unless they are cached."""
    data = config.data
    root = resolve_root(data.root, config.synthetic)
    dataset = open_dataset(root, data.modalities, data)
    labels = dataset.labels
    subjects = labels.count_subjects()
    echo(f"data: {root}: {len(labels)} sessions of {subjects} subjects, {labels.encoding} labels, {dataset.store.map_size} px")
    for note in dataset.notes:
        echo(note)
    return dataset


def default_run_name(config: Config) -> str:
    """Data, modalities, fusion and backbone, which distinguish the runs in a table."""
    fusion = [config.fusion_label] if config.fusion_label else []
    return "-".join([Path(config.data.root).name, *config.data.modalities, *fusion, config.model.backbone])


def log_setup(setup: TrainingSetup, run: Run, echo: Echo) -> None:
    """Log params, tags, data and files of the training to the run, and print the size of each part of the split.

    Writes `config.yaml`, which the next resume reads.
    """
    config, dataset, split, info = setup.config, setup.dataset, setup.split, setup.info
    for part in PARTS:
        rows = getattr(split, part)
        if len(rows) or part != "gallery":
            echo(f"{part}: {len(rows)} sessions of {dataset.labels.count_subjects(rows)} subjects")
    for note in describe_split(dataset.labels, split):
        echo(note)
    for attribute in ATTRIBUTES:
        if attribute not in info.trained:
            echo(f"{attribute}: not trained (the training part has fewer than two of its classes)")
    run.log_params(flatten(config))
    run.set_tags(
        {
            "fr_ps.protocol": config.data.protocol,
            "fr_ps.modality": "+".join(config.data.modalities),
            "fr_ps.backbone": info.backbones,
            "fr_ps.labels": dataset.labels.encoding,
            "fr_ps.data_digest": dataset.store.digest,
            "mlflow.source.git.commit": info.provenance["git_commit"],
        }
    )
    sizes = {"sessions": len(dataset.labels), "people": dataset.labels.count_subjects()}
    sizes |= {f"{part}_sessions": len(getattr(split, part)) for part in PARTS}
    run.log_dataset(dataset.root.resolve().name, str(dataset.root.resolve()), dataset.store.digest, sizes, "training")
    write_config_and_split(run.folder, setup)
    write_text(run.folder / ENVIRONMENT_FILE, environment_text())
    for name in (CONFIG_FILE, SPLIT_FILE, ENVIRONMENT_FILE):
        run.log_artifact(run.folder / name)


def write_config_and_split(folder: Path, setup: TrainingSetup) -> None:
    """Write the settings and the split, which reproduce the training, into `folder`."""
    write_config(folder, setup.config)
    write_split(folder / SPLIT_FILE, setup.dataset.labels, setup.split)


def write_config(folder: Path, config: Config) -> None:
    """Write the resolved settings into `folder`."""
    write_text(folder / CONFIG_FILE, yaml.safe_dump(redact_tree(to_dict(with_absolute_paths(config))), sort_keys=False))
