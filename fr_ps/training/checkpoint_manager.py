"""Checkpoints of a running training: when they are written, how many are kept, and how a training resumes from one."""

import hashlib
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fr_ps.config import SYNTHETIC_ROOT
from fr_ps.data.split_files import SPLIT_FILE, split_text
from fr_ps.device import pick_precision
from fr_ps.distributed import any_process, from_main_process, is_main_process, world_size
from fr_ps.errors import InputError, one_line
from fr_ps.files import atomic_folder, check_free_space
from fr_ps.models.folder import copy_model
from fr_ps.progress import Echo
from fr_ps.tracking.environment import code_versions
from fr_ps.tracking.run import Run
from fr_ps.tracking.run_folder import BEST_CHECKPOINT, LAST_CHECKPOINT, MODEL_FOLDER, RESUME_CHECKPOINTS, list_checkpoints
from fr_ps.training.batch_loader import BatchLoader
from fr_ps.training.checkpoint import latest_checkpoint, load_latest, write_checkpoint
from fr_ps.training.divergence import DivergedError
from fr_ps.training.setup import TrainingSetup
from fr_ps.training.sharded_centres import Sections, scatter_centres, take_centres
from fr_ps.training.train_state import TrainState

_KEEP_LAST = 2
_DISK_RESERVE = 1 << 20


def best_folder(metric: str) -> Path:
    """The folder of the best model by `metric`, one of `train.watch`, relative to the run's folder."""
    return BEST_CHECKPOINT.with_name("best_" + metric.removeprefix("val/").replace("/", "_"))


def describe_environment(setup: TrainingSetup, loader: BatchLoader, device: torch.device) -> dict[str, Any]:
    """Everything outside the state that affects how a training continues: data, split, hardware and versions."""
    return {
        "data": setup.dataset.store.digest,
        "split": hashlib.sha256(split_text(setup.dataset.labels, setup.split).encode()).hexdigest()[:32],
        "batches": len(loader.epoch_indices(0)),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "processes": world_size(),
        "precision": str(pick_precision(setup.config.train.precision, device)).removeprefix("torch."),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        **code_versions(),
    }


class CheckpointManager:
    """Writes checkpoints of `state`: after every epoch, and every `checkpoint_steps` or `checkpoint_minutes` within one.

    `save` copies the state in the caller's thread; a background thread writes the copy. The last two checkpoints are kept.
    Leaving the context manager waits for the background thread.

    Args:
        run: run of the training; its folder holds the checkpoints.
        setup: setup of the training.
        state: state to save.
        environment: from `describe_environment`; stored in every checkpoint, and compared on resuming.
    """

    def __init__(self, run: Run, setup: TrainingSetup, state: TrainState, environment: Mapping[str, Any]) -> None:
        self.run, self.setup, self.state, self.environment = run, setup, state, environment
        self.folder = run.folder / RESUME_CHECKPOINTS
        self.every_steps = setup.config.train.checkpoint_steps
        self.every_seconds = 60 * setup.config.train.checkpoint_minutes
        self.steps_since_save, self.last_save = 0, time.monotonic()
        self._executor = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    def __enter__(self) -> "CheckpointManager":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            if error is None:
                self.wait()
        finally:
            self._executor.shutdown()

    @property
    def writing(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._pending is not None and not self._pending.done()

    def save_if_due(self) -> None:
        """Count a step, and save if a checkpoint is due and the step was not skipped."""
        due = is_main_process() and self._count_step()
        if self.state.losses.sharded:  # then all processes save together, by the clock of the main one
            due = bool(any_process(int(due)))
        if due:
            self.save()

    def _count_step(self) -> bool:
        self.steps_since_save += 1
        by_steps = 0 < self.every_steps <= self.steps_since_save
        by_time = 0 < self.every_seconds <= time.monotonic() - self.last_save
        return (by_steps or by_time) and not self.state.guard.consecutive_skipped

    def save_epoch(self, improved: Sequence[str]) -> None:
        """Save at the end of an epoch; copy the model to `checkpoints/last` and the best-model folder of each of `improved`."""
        select = self.setup.config.train.select
        folders = [LAST_CHECKPOINT, *(BEST_CHECKPOINT if metric == select else best_folder(metric) for metric in improved)]
        self.save([self.run.folder / folder for folder in folders])

    def save(self, model_folders: Sequence[Path] = ()) -> None:
        """Begin to write a checkpoint, and copies of its model to `model_folders`; waits for the previous checkpoint.

        With several processes, only the main one writes. If the class centres are sharded, each process has a part of them, so
        all must call it at the same step. Otherwise all have the same state.

        Raises:
            InputError: the previous checkpoint could not be written.
        """
        if not is_main_process() and not self.state.losses.sharded:
            return
        state = self.state.state_dict()
        if not is_main_process():
            return
        state |= {"surroundings": dict(self.environment), "journal": self.run.journal.size}
        self.wait()
        self._pending = self._executor.submit(self._write, state, model_folders)
        self.steps_since_save, self.last_save = 0, time.monotonic()

    def wait(self) -> None:
        """Wait until everything is on disk.

        Raises:
            InputError: it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending:
            pending.result()

    def latest_checkpoint(self) -> str:
        """The path of the newest checkpoint, for messages."""
        with suppress(InputError):  # the caller is about to report another error
            self.wait()
        return latest_checkpoint(self.run.folder)

    def resume(self, echo: Echo, allow_changed: bool) -> None:
        """Restore the state from the newest checkpoint of the run, if it has one.

        Differences in versions, hardware and number of threads are printed, and become a tag of the run.

        Args:
            echo: prints a line for the user.
            allow_changed: whether the data and the split may differ.

        Raises:
            InputError: all checkpoints are corrupt, the newest is of another training, or data or split differ without
                `allow_changed`.
        """
        whole_centres: Sections = {}
        found = from_main_process(lambda: self._load_latest(echo, whole_centres))
        if found is None:
            if self.run.metric_history:
                echo("no checkpoint yet: restarting from epoch 1; logged metrics keep their values")
            return
        folder, saved = found
        # Checkpoints of earlier versions lack the precision and the number of processes.
        before = {"precision": "float32", "processes": 1} | saved["surroundings"]
        now = self.environment
        for key, what in (("data", "the data"), ("split", f"the split ({SPLIT_FILE})")):
            if before[key] != now[key] and not allow_changed:
                synthetic = self.setup.config.data.root == SYNTHETIC_ROOT
                cause = " (another version of fr-ps generates other synthetic faces)" if synthetic else ""
                raise InputError(
                    f"{self.setup.dataset.root}: {what} changed since {folder} was written{cause}; restore it, or give "
                    "--allow-changed"
                )
        scatter_centres(self.state.losses, self.state.optimizer, saved, whole_centres)
        try:
            self.state.load_state_dict(saved)
        except (RuntimeError, ValueError, KeyError) as error:
            raise InputError(
                f"{folder}: not a checkpoint of this training: another architecture, losses or optimizer ({one_line(error)}); "
                "resume with the settings of the checkpoint"
            ) from None
        if before["batches"] != now["batches"] and self.state.batch:
            echo("the number of batches per epoch changed: restarting the current epoch")
            self.state.reset_epoch()
        if is_main_process() and saved["journal"] > self.run.journal.size:
            echo(
                f"{self.run.journal.path}: shorter than when the checkpoint was written; the lost metrics are only in MLflow, "
                "if they were delivered"
            )
        epoch, batch = self.state.epoch, self.state.batch
        echo(f"resuming from {folder}, {f'epoch {epoch + 1}, batch {batch + 1}' if batch else f'end of epoch {epoch}'}")
        changed = [f"{key} {before.get(key)} -> {value}" for key, value in now.items() if before.get(key) != value]
        if changed:
            echo(f"the result can differ from an uninterrupted training: {'; '.join(changed)}")
            self.run.set_tags({f"fr_ps.resumed.{epoch}.{batch}": "; ".join(changed)})

    def _load_latest(self, echo: Echo, whole_centres: Sections) -> tuple[Path, dict[str, Any]] | None:
        """As `load_latest`, with sharded centres moved to `whole_centres`, because not every process has the memory for them."""
        found = load_latest(self.run.folder, echo)
        if found is not None:
            whole_centres |= take_centres(self.state.losses, self.state.optimizer, found[1])
        return found

    def _write(self, state: Mapping[str, Any], model_folders: Sequence[Path]) -> None:
        sections = [section for section in state.values() if isinstance(section, dict)]
        tensors = [tensor for section in sections for tensor in section.values() if isinstance(tensor, Tensor)]
        check_free_space(self.folder, sum(tensor.nbytes for tensor in tensors) + _DISK_RESERVE)
        # By numpy: an operation of torch would start OpenMP threads for this thread too. With more OpenMP threads than cores,
        # waiting ones sleep, and every later step of the training takes longer.
        if not all(np.isfinite(tensor.numpy().sum()) for tensor in state["model"].values()):
            raise DivergedError(
                "the weights became NaN or infinite, and no checkpoint of them is written; the last good checkpoint is "
                f"{latest_checkpoint(self.run.folder)}; lower optim.lr"
            )
        number = max((int(path.name[:6]) for path in self.folder.glob("[0-9]*")), default=0) + 1
        with atomic_folder(self.folder / f"{number:06d}") as temporary:
            write_checkpoint(temporary, state, self.setup)
            # Journal and model copies come before the rename of the checkpoint: after a crash in between, the training resumes
            # from the previous checkpoint and writes both again.
            self.run.journal.sync()
            for folder in model_folders:
                copy_model(temporary / MODEL_FOLDER, folder)
        for old in list_checkpoints(self.run.folder)[_KEEP_LAST:]:
            shutil.rmtree(old, ignore_errors=True)
