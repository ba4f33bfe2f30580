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

from fr_ps.config import SYNTHETIC
from fr_ps.data.split_files import SPLIT_FILE, split_text
from fr_ps.errors import InputError
from fr_ps.models.folder import copy_model, save_weights
from fr_ps.tracking.layout import BEST, LAST
from fr_ps.tracking.provenance import versions
from fr_ps.tracking.run import Run
from fr_ps.training.checkpoint import CheckpointWriter, latest, newest
from fr_ps.training.feed import Feed
from fr_ps.training.learner import Learner
from fr_ps.training.record import Plan, Say, write_settings


def best_folder(metric: str) -> Path:
    """Of the checkpoint with the best `metric`, which is watched beside the one that decides."""
    return BEST.with_name("best_" + metric.removeprefix("val/").replace("/", "_"))


class Keeper:
    """Writes the checkpoints of a training: after every epoch, and within one after so many steps or minutes.

    To be used in a `with`, whose end waits for the disk.
    """

    def __init__(self, plan: Plan, feed: Feed, learner: Learner, run: Run) -> None:
        self.plan, self.learner, self.run = plan, learner, run
        self.every_steps = plan.config.train.checkpoint_steps
        self.every_seconds = 60 * plan.config.train.checkpoint_minutes
        self.surroundings = _surroundings(plan, feed, learner)
        self.writer = CheckpointWriter(run.folder, self._save_model)
        self.steps, self.since = 0, time.monotonic()

    def __enter__(self) -> "Keeper":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.writer.wait()
        finally:
            self.writer.close()

    def stepped(self) -> None:
        """Take notice of a step, and write a checkpoint if it is time and the last step was good."""
        self.steps += 1
        by_steps = 0 < self.every_steps <= self.steps
        by_time = 0 < self.every_seconds <= time.monotonic() - self.since
        if (by_steps or by_time) and not self.learner.guard.in_row:
            self.write()

    def epoch_ended(self, better: Sequence[str]) -> None:
        """Write the checkpoint of an epoch's end, which is the last model, and the best by the metrics `better`."""
        train = self.plan.config.train
        folders = [LAST, *(BEST if metric == train.select else best_folder(metric) for metric in better)]
        self.write([self.run.folder / folder for folder in folders])

    def write(self, models: Sequence[Path] = ()) -> None:
        """Begin to write a checkpoint, and its model to the folders `models` too."""
        snapshot = self.learner.snapshot()
        snapshot.values.update(surroundings=self.surroundings, journal=self.run.journal.size)

        def publish(model: Path) -> None:
            self.run.journal.sync()  # a checkpoint never knows more than the journal
            for folder in models:
                copy_model(model, folder)

        self.writer.write(snapshot, publish)
        self.steps, self.since = 0, time.monotonic()

    def finish(self) -> None:
        """Wait until all is on disk.

        Raises:
            InputError: it could not be written.
        """
        self.writer.wait()

    def newest(self) -> str:
        """The newest checkpoint, for the user."""
        with suppress(InputError):  # that the last one could not be written is no answer here
            self.writer.wait()
        return newest(self.run.folder)

    def _save_model(self, folder: Path, weights: dict[str, Tensor]) -> None:
        save_weights(folder, weights, self.plan.info, also=partial(write_settings, plan=self.plan))


def go_on(learner: Learner, plan: Plan, feed: Feed, run: Run, say: Say, allow_changed: bool) -> None:
    """Bring `learner` to the newest checkpoint of the run, if it has one.

    What else the result depends on, as versions and threads, is compared with what the checkpoint was made with, and a
    difference told, also to the run, as a tag.

    Raises:
        InputError: the checkpoints are all damaged, or of another training, or the data or the split are others and may
            not be.
    """
    found = latest(run.folder, say)
    if found is None:
        if run.curves:
            say("no checkpoint was written yet: the run begins again; its curves keep the points that they have")
        return
    folder, snapshot = found
    before, now = snapshot.values["surroundings"], _surroundings(plan, feed, learner)
    for key, what in (("data", "the data"), ("split", f"who is in which part ({SPLIT_FILE})")):
        if before[key] != now[key] and not allow_changed:
            cause = " (another version of fr-ps makes other built-in faces)" if plan.config.data.root == SYNTHETIC else ""
            raise InputError(
                f"{plan.dataset.root}: {what} changed since {folder} was written{cause}; bring it back, or give --allow-changed"
            )
    learner.restore(snapshot, str(folder))
    if before["batches"] != now["batches"] and learner.batch:
        say("epochs have another number of batches now: the present epoch begins again")
        learner.restart_epoch()
    if snapshot.values["journal"] > run.journal.size:
        say(f"{run.journal.path}: is shorter than when the checkpoint was written; points that it lost are in MLflow at most")
    changed = [f"{key} {before.get(key)} -> {value}" for key, value in now.items() if before.get(key) != value]
    at = f"epoch {learner.epoch + 1}, batch {learner.batch + 1}" if learner.batch else f"the end of epoch {learner.epoch}"
    say(f"going on from {folder}, {at}")
    if changed:
        say(f"not the same bits as without the interruption: {'; '.join(changed)}")
        run.tags({f"fr_ps.resumed.{learner.epoch}.{learner.batch}": "; ".join(changed)})


def _surroundings(plan: Plan, feed: Feed, learner: Learner) -> dict[str, Any]:
    """What decides the future and is no state of the learner."""
    return {
        "data": plan.dataset.store.digest,
        "split": hashlib.sha256(split_text(plan.dataset.labels, plan.split).encode()).hexdigest()[:32],
        "batches": len(feed.order(0)),
        "device": str(next(learner.network.parameters()).device),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        **versions(),
    }
