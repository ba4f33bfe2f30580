"""Shared by the benchmarks of training: settings of a network or an experiment on built-in faces, and the bare step."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
PEOPLE, SESSIONS = 24, 8
"""Built-in faces on which the benchmarks train."""


def training_settings(name: str) -> Any:
    """The config of a file of `experiments/` (`yale_fusion.yaml`), or the default config with a backbone (`miresnet18`).

    The data are built-in faces of 112 px.
    """
    from fr_ps.arguments import training_config
    from fr_ps.cli import parse_command_line
    from fr_ps.config import Config, ModelConfig, SyntheticConfig

    faces = SyntheticConfig(people=PEOPLE, sessions=SESSIONS)
    if not name.endswith(".yaml"):
        return Config(model=ModelConfig(backbone=name), synthetic=faces)
    config = training_config(parse_command_line(["train", "--config", str(EXPERIMENTS / name)])["train"])
    data = replace(config.data, root="synthetic", val_people=4, test_people=4)
    return replace(config, data=data, synthetic=faces, train=replace(config.train, threads=0))


def with_steps(config: Any, steps: int) -> Any:
    """The config with `steps` batches an epoch."""
    return replace(config, batch=replace(config.batch, steps=steps))


def bare_step(trainer: Any, batch: Any) -> Callable[[], None]:
    """Forward, losses, backward and optimizer step on one batch in memory, in the precision of the trainer."""
    import torch

    state, precision = trainer.state, trainer.precision
    lower = precision != torch.float32
    maps = batch.maps
    if lower:
        maps = {name: of_one.contiguous(memory_format=torch.channels_last) for name, of_one in maps.items()}

    def step() -> None:
        with torch.autocast("cpu", precision, enabled=lower):
            outputs = state.network(maps, batch.present)
        total = state.losses(outputs.float() if lower else outputs, batch.targets, batch.labelled).total
        state.optimizer.zero_grad(set_to_none=True)
        total.backward()
        state.optimizer.step()

    return step
