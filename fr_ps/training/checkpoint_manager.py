"""When a checkpoint is written, what it says of its surroundings, and how a training goes on from one."""

import hashlib
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fr_ps.config import SYNTHETIC_ROOT
from fr_ps.data.split_files import SPLIT_FILE, split_text
from fr_ps.errors import InputError
from fr_ps.models.folder import copy_model, save_weights
from fr_ps.tracking.layout import BEST_CHECKPOINT, LAST_CHECKPOINT
from fr_ps.tracking.provenance import code_versions
from fr_ps.tracking.run import Run
from fr_ps.training.batch_loader import BatchLoader
from fr_ps.training.checkpoint import CheckpointWriter, latest_name, load_latest
from fr_ps.training.setup import Echo, TrainingSetup, write_config_and_split
from fr_ps.training.train_state import TrainState


def best_folder(metric: str) -> Path:
    """Of the checkpoint with the best `metric`, which is watched beside the one that decides."""
    return BEST_CHECKPOINT.with_name("best_" + metric.removeprefix("val/").replace("/", "_"))


class CheckpointManager:
    """Writes the checkpoints of a training: after every epoch, and within one after so many steps or minutes.

    To be used in a `with`, whose end waits for the disk.
    """

    def __init__(self, setup: TrainingSetup, loader: BatchLoader, state: TrainState, run: Run) -> None:
        self.setup, self.state, self.run = setup, state, run
        self.every_steps = setup.config.train.checkpoint_steps
        self.every_seconds = 60 * setup.config.train.checkpoint_minutes
        self.environment = _environment(setup, loader, state)
        self.writer = CheckpointWriter(run.folder, self._save_model)
        self.steps_since_save, self.last_save = 0, time.monotonic()

    def __enter__(self) -> "CheckpointManager":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.writer.wait()
        finally:
            self.writer.close()

    def save_if_due(self) -> None:
        """Take notice of a step, and write a checkpoint if it is time and the last step was good."""
        self.steps_since_save += 1
        by_steps = 0 < self.every_steps <= self.steps_since_save
        by_time = 0 < self.every_seconds <= time.monotonic() - self.last_save
        if (by_steps or by_time) and not self.state.guard.consecutive_skipped:
            self.save()

    def save_epoch(self, improved: Sequence[str]) -> None:
        """Write the checkpoint of an epoch's end, which is the last model, and the best by the metrics `better`."""
        train = self.setup.config.train
        folders = [LAST_CHECKPOINT, *(BEST_CHECKPOINT if metric == train.select else best_folder(metric) for metric in improved)]
        self.save([self.run.folder / folder for folder in folders])

    def save(self, model_folders: Sequence[Path] = ()) -> None:
        """Begin to write a checkpoint, and its model to the folders `models` too."""
        snapshot = self.state.state_dict()
        snapshot.values.update(surroundings=self.environment, journal=self.run.journal.size)

        def publish(model: Path) -> None:
            self.run.journal.sync()  # a checkpoint never knows more than the journal
            for folder in model_folders:
                copy_model(model, folder)

        self.writer.write(snapshot, publish)
        self.steps_since_save, self.last_save = 0, time.monotonic()

    def wait(self) -> None:
        """Wait until all is on disk.

        Raises:
            InputError: it could not be written.
        """
        self.writer.wait()

    def latest_name(self) -> str:
        """The newest checkpoint, for the user."""
        with suppress(InputError):  # that the last one could not be written is no answer here
            self.writer.wait()
        return latest_name(self.run.folder)

    def _save_model(self, folder: Path, weights: dict[str, Tensor]) -> None:
        save_weights(folder, weights, self.setup.info, write_extra=partial(write_config_and_split, setup=self.setup))


def resume(state: TrainState, setup: TrainingSetup, loader: BatchLoader, run: Run, echo: Echo, allow_changed: bool) -> None:
    """Bring `learner` to the newest checkpoint of the run, if it has one.

    What else the result depends on, as versions and threads, is compared with what the checkpoint was made with, and a
    difference told, also to the run, as a tag.

    Raises:
        InputError: the checkpoints are all damaged, or of another training, or the data or the split are others and may
            not be.
    """
    found = load_latest(run.folder, echo)
    if found is None:
        if run.metric_history:
            echo("no checkpoint was written yet: the run begins again; its curves keep the points that they have")
        return
    folder, snapshot = found
    before, now = snapshot.values["surroundings"], _environment(setup, loader, state)
    for key, what in (("data", "the data"), ("split", f"who is in which part ({SPLIT_FILE})")):
        if before[key] != now[key] and not allow_changed:
            cause = " (another version of fr-ps makes other built-in faces)" if setup.config.data.root == SYNTHETIC_ROOT else ""
            raise InputError(
                f"{setup.dataset.root}: {what} changed since {folder} was written{cause}; bring it back, or give --allow-changed"
            )
    state.load_state_dict(snapshot, str(folder))
    if before["batches"] != now["batches"] and state.batch:
        echo("epochs have another number of batches now: the present epoch begins again")
        state.reset_epoch()
    if snapshot.values["journal"] > run.journal.size:
        echo(f"{run.journal.path}: is shorter than when the checkpoint was written; points that it lost are in MLflow at most")
    changed = [f"{key} {before.get(key)} -> {value}" for key, value in now.items() if before.get(key) != value]
    at = f"epoch {state.epoch + 1}, batch {state.batch + 1}" if state.batch else f"the end of epoch {state.epoch}"
    echo(f"going on from {folder}, {at}")
    if changed:
        echo(f"not the same bits as without the interruption: {'; '.join(changed)}")
        run.set_tags({f"fr_ps.resumed.{state.epoch}.{state.batch}": "; ".join(changed)})


def _environment(setup: TrainingSetup, loader: BatchLoader, state: TrainState) -> dict[str, Any]:
    """What decides the future and is no state of the learner."""
    return {
        "data": setup.dataset.store.digest,
        "split": hashlib.sha256(split_text(setup.dataset.labels, setup.split).encode()).hexdigest()[:32],
        "batches": len(loader.epoch_batches(0)),
        "device": str(next(state.network.parameters()).device),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        **code_versions(),
    }
