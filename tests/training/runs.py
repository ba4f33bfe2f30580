"""Small trainings in this process, and trainers without a run."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from fr_ps.config import AugmentConfig, BatchConfig, Config, DataConfig, LossConfig, ModelConfig, OptimConfig, TrainConfig
from fr_ps.distributed import world_size
from fr_ps.models.sync_norm import synchronise_batch_norms
from fr_ps.tracking.run import Run
from fr_ps.training.setup import build_setup
from fr_ps.training.train import TrainResult, build_train_state, train
from fr_ps.training.trainer import Trainer

TINY_MODEL = ModelConfig(backbone="timm:test_resnet", channels=16, reduction=8)
LATEST_CHECKPOINT = "runs/a/checkpoints/resume/000003"


class RecordingRun(Run):
    """A run that keeps what this process logs."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.points: list[tuple[str, float, int]] = []
        self.settings: dict[str, str] = {}

    def log_params(self, values):  # type: ignore[no-untyped-def]
        super().log_params(values)
        self.settings.update(values)

    def log_metrics(self, values, step):  # type: ignore[no-untyped-def]
        super().log_metrics(values, step)
        self.points += [(name, value, step) for name, value in values.items()]


def small_config(root: Path, **train_settings: Any) -> Config:
    return Config(
        data=DataConfig(root=str(root), val_people=2, test_people=2),
        batch=BatchConfig(people=3, sessions=2),
        model=TINY_MODEL,
        train=TrainConfig(**({"epochs": 2} | train_settings)),
    )


def run_training(config: Config, folder: Path) -> tuple[TrainResult, RecordingRun, list[str]]:
    folder.mkdir(parents=True, exist_ok=True)
    run, lines = RecordingRun(folder), list[str]()
    return train(config, run, echo=lines.append), run, lines


def read_split(folder: Path) -> dict[str, set[tuple[str, str]]]:
    """Part to its sessions, of the run in `folder`."""
    found: dict[str, set[tuple[str, str]]] = {"train": set(), "val": set(), "test": set()}
    with (folder / "split.csv").open() as file:
        for row in csv.DictReader(file):
            found[row["part"]].add((row["id"], row["session"]))
    return found


class NoCheckpoints:
    """In place of a checkpoint manager: counts the steps."""

    def __init__(self) -> None:
        self.steps = 0

    def save_if_due(self) -> None:
        self.steps += 1

    def latest_checkpoint(self) -> str:
        return LATEST_CHECKPOINT


def make_config(root: Path, *, channels: int = 16, loss: dict[str, Any] | None = None, **train_settings: Any) -> Config:
    """A training on all sessions of `root`, four batches an epoch, without validation and test."""
    return Config(
        data=DataConfig(root=str(root), val_people=0, test_people=0),
        batch=BatchConfig(people=3, sessions=2),
        augment=AugmentConfig(rotation=0, crop=1, noise=0),
        model=replace(TINY_MODEL, channels=channels),
        loss=LossConfig(**({"reversal": 0.1} | (loss or {}))),
        optim=OptimConfig(lr=2e-3),
        train=TrainConfig(**({"epochs": 2} | train_settings)),
    )


def make_trainer(config: Config) -> Trainer:
    """A trainer of `config` before its first step; it writes no checkpoint and has no run."""
    setup, loader = build_setup(config, {}, torch.device("cpu"), lambda line: None)
    torch.manual_seed(config.train.seed)
    network = setup.info.build_network()
    if world_size() > 1:
        synchronise_batch_norms(network, torch.device("cpu"))
    state = build_train_state(setup, loader, network)
    return Trainer(setup, loader, state, cast(Any, NoCheckpoints()), cast(Any, None), lambda line: None)
