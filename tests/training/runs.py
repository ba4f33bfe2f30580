"""Small trainings in process, and what they told."""

import csv
from pathlib import Path
from typing import Any

from fr_ps.config import BatchConfig, Config, DataConfig, ModelConfig, TrainConfig
from fr_ps.tracking.run import Run
from fr_ps.training.train import TrainResult, train


class RecordingRun(Run):
    """A run that remembers what this process told it."""

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
        model=ModelConfig(backbone="timm:test_resnet", channels=16, reduction=8),
        train=TrainConfig(**({"epochs": 2} | train_settings)),
    )


def run_training(config: Config, folder: Path) -> tuple[TrainResult, RecordingRun, list[str]]:
    folder.mkdir(parents=True, exist_ok=True)
    run, lines = RecordingRun(folder), list[str]()
    return train(config, run, echo=lines.append), run, lines


def parts(folder: Path) -> dict[str, set[tuple[str, str]]]:
    """Part to the sessions in it, of the run in `folder`."""
    found: dict[str, set[tuple[str, str]]] = {"train": set(), "val": set(), "test": set()}
    with (folder / "split.csv").open() as file:
        for row in csv.DictReader(file):
            found[row["part"]].add((row["id"], row["session"]))
    return found
