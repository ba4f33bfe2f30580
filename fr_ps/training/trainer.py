"""The training loop: `train` -> `train_epoch` -> `train_step` -> `_update`.

`_update` calls `forward_backward` for each batch and then `NonFiniteGuard.step`, the optimizer step.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch import nn

from fr_ps.config.checks import MAX_PROCESSES
from fr_ps.device import pick_precision
from fr_ps.distributed import (
    LostProcessError,
    average_gradients,
    copy_from_main_process,
    is_main_process,
    rank,
    sum_gradients,
    world_size,
)
from fr_ps.evaluation.evaluate_predictions import validation_metrics
from fr_ps.evaluation.metrics import Metrics
from fr_ps.losses.multitask import LossOutput
from fr_ps.models.inference import predict
from fr_ps.models.network import NetworkOutput
from fr_ps.progress import Echo, progress
from fr_ps.tracking.run import Run
from fr_ps.tracking.tracked_metrics import best_metrics, validation_curves
from fr_ps.training.batch_loader import Batch, BatchLoader, combined_seed
from fr_ps.training.checkpoint_manager import CheckpointManager
from fr_ps.training.divergence import DivergedError, diagnose_nonfinite, diverged_error
from fr_ps.training.early_stopping import BestTracker
from fr_ps.training.sampled_centres import sampled_centres
from fr_ps.training.schedule import build_schedule, reversal_alpha
from fr_ps.training.setup import TrainingSetup
from fr_ps.training.sharded_centres import sharded_parameters, total_grad_norm
from fr_ps.training.signals import GracefulStop, StopRequested
from fr_ps.training.train_state import TrainState

_CHECK_EVERY = 20
"""Batches between two checks for divergence on a GPU, since a check waits for it. On a CPU every batch is checked."""
EpochCallback = Callable[[int, Metrics], None]
"""Called after each epoch with its number, from 1, and its validation metrics. An exception ends the training."""


class Trainer:
    """Trains `state` from its position to the last epoch.

    Args:
        setup: settings, data and split.
        loader: the training batches.
        state: what is trained; already restored from the checkpoint if the training resumes.
        checkpoints: writes the checkpoints of `state`.
        run: logs the metrics.
        echo: prints a line for the user.
        on_epoch: called after each epoch, once its metrics are logged and its checkpoint is being written.
    """

    def __init__(
        self,
        setup: TrainingSetup,
        loader: BatchLoader,
        state: TrainState,
        checkpoints: CheckpointManager,
        run: Run,
        echo: Echo,
        on_epoch: EpochCallback | None = None,
    ) -> None:
        config = setup.config
        self.setup, self.loader, self.state, self.checkpoints = setup, loader, state, checkpoints
        self.run, self.echo, self.on_epoch = run, echo, on_epoch
        self.epochs, self.accumulate = config.train.epochs, config.train.accumulate
        self.clip = config.optim.clip
        self.check_every = 1 if loader.device.type == "cpu" else _CHECK_EVERY
        self.precision = pick_precision(config.train.precision, loader.device)
        self.steps_per_epoch = math.ceil(len(loader.epoch_indices(0)) / self.accumulate)
        self.lr_at = build_schedule(config.schedule, lr=config.optim.lr, epochs=self.epochs, steps_per_epoch=self.steps_per_epoch)
        self.network = torch.compile(state.network) if config.train.compile else state.network
        # parameters = network_parameters + replicated_loss_parameters + sharded_centres
        # replicated_parameters = network_parameters + replicated_loss_parameters
        self.parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
        in_network = set(state.network.parameters())
        self.network_parameters = [parameter for parameter in self.parameters if parameter in in_network]
        self.sharded_centres = sharded_parameters(state.losses)
        sharded = set(self.sharded_centres)
        self.replicated_parameters = [parameter for parameter in self.parameters if parameter not in sharded]
        self.replicated_loss_parameters = [parameter for parameter in self.replicated_parameters if parameter not in in_network]
        self.stop = GracefulStop()

    def train(self) -> None:
        """Train the remaining epochs; after each one, validate and save.

        Raises:
            InputError: a tracked metric is undefined, the disk is full, or the training diverged.
            KeyboardInterrupt, SystemExit: SIGINT or SIGTERM, once a checkpoint is on disk.
        """
        state, best_tracker = self.state, self.state.best_tracker
        with self.stop, self.checkpoints:
            try:
                while state.epoch < self.epochs and not best_tracker.should_stop:
                    train_metrics = self.train_epoch()
                    validation = self.validate()
                    self.end_epoch(train_metrics, validation)
                self.checkpoints.wait()
                self.stop.check()
            except LostProcessError as error:
                # torchrun now sends SIGTERM to the remaining processes. It must not interrupt the checkpoint.
                self.stop.acknowledge()
                raise self._lost_process_error(error) from None
            except StopRequested as request:
                self.checkpoints.save()
                self.checkpoints.wait()
                self.echo(f"stopped in epoch {state.epoch + 1}; a checkpoint is written")
                raise request.exit_exception() from None
        if best_tracker.should_stop and state.epoch < self.epochs:
            self.echo(f"early stopping: {best_tracker.patience} epochs without a better {best_tracker.metric}")

    def train_epoch(self) -> dict[str, float]:
        """Train to the end of the current epoch; returns its `train/...` metrics."""
        state = self.state
        state.network.train()
        state.losses.train()
        batch_indices = self.loader.epoch_indices(state.epoch)
        stream = self.loader.stream(batch_indices, state.epoch, state.batch)
        started = time.perf_counter() - state.seconds
        first_unchecked = state.batch
        with progress(f"epoch {state.epoch + 1}/{self.epochs}", len(batch_indices), "batches") as advance:
            advance(state.batch)
            while state.batch < len(batch_indices):
                batch_numbers = range(state.batch, min(state.batch + self.accumulate, len(batch_indices)))
                self.train_step(stream, batch_numbers)
                if self._is_check_due(batch_numbers, len(batch_indices)):
                    if state.guard.diverged:
                        raise self._diverged_error(batch_indices, range(first_unchecked, batch_numbers.stop))
                    first_unchecked = batch_numbers.stop
                state.batch = batch_numbers.stop
                state.seconds = time.perf_counter() - started
                advance(len(batch_numbers))
                self.checkpoints.save_if_due()
                self.stop.check()
        return self._train_metrics()

    def train_step(self, stream: Iterator[Batch], batch_numbers: range) -> None:
        """One optimizer step on the mean gradient of some batches (gradient accumulation).

        A step with a non-finite loss or gradient is skipped: it changes neither weights, nor buffers, nor the means in
        `state.meter`. The docstring of `NonFiniteGuard` lists what a skipped step still changes.

        The CPU does not wait for the device, so it prepares the next steps while the device computes. There are three exceptions:
        MPS (see `NonFiniteGuard`), `GradientWeighting`, and `sampled_centres` with class centres that are sharded among the
        processes.

        Args:
            stream: the next batches of the epoch, from `BatchLoader.stream`.
            batch_numbers: the batches of this step.
        """
        state, loss_config, seed = self.state, self.setup.config.loss, self.setup.config.train.seed
        step = state.epoch * self.steps_per_epoch + batch_numbers.start // self.accumulate
        lr = self.lr_at(step)
        for group in state.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        state.network.reversal_alpha = reversal_alpha(
            step, total_steps=self.steps_per_epoch * self.epochs, alpha=loss_config.reversal, ramp=loss_config.reversal_ramp
        )
        state.guard.snapshot()
        if world_size() > 1:  # so that dropout differs between the processes, and is the same after a resume
            torch.manual_seed(step_seed(seed, step, rank()))
        batches = islice(stream, len(batch_numbers))
        if loss_config.sampled_subject_share == 1:
            self._update(batches, step, len(batch_numbers))
            return
        # All batches are loaded first, because the step draws one sample of the class centres, which must contain the subjects of
        # all its batches.
        loaded = list(batches)
        subjects = torch.cat([batch.targets["identity"] for batch in loaded])
        identity_losses, share = state.losses.identity_losses, loss_config.sampled_subject_share
        # One seed for all processes. It differs from the dropout seed of each, as no process has the rank MAX_PROCESSES.
        with sampled_centres(identity_losses, state.optimizer, subjects, share, step_seed(seed, step, MAX_PROCESSES)):
            self._update(loaded, step, len(batch_numbers))

    def _update(self, batches: Iterable[Batch], step: int, batches_in_step: int) -> None:
        """Compute the mean gradient of the batches of `step` and update everything that is trained, and `state.meter`."""
        state = self.state
        losses: list[LossOutput] = []
        sessions = 0
        for batch in batches:
            losses.append(self.forward_backward(batch, is_first=not losses, batches_in_step=batches_in_step))
            sessions += len(next(iter(batch.targets.values())))  # of the whole batch; `batch.maps` is this process's share
        # The network ran on this process's own sessions only, so its gradients are summed over the processes. Each process
        # computed the losses on the outputs of all sessions, so the gradients of the losses' own parameters differ by rounding
        # only. They are averaged, so that these parameters stay identical in all processes. Sharded centres need neither: each
        # process has the whole gradient of its own rows.
        sum_gradients(self.network_parameters)
        average_gradients(self.replicated_loss_parameters)
        if state.scaler.is_enabled():
            state.scaler.unscale_(state.optimizer)
        grad_norm = total_grad_norm(self.replicated_parameters, self.sharded_centres)
        if self.clip:
            nn.utils.clip_grads_with_norm_(self.parameters, self.clip, grad_norm)
        finite = state.guard.step(state.optimizer, torch.stack([loss.total for loss in losses]).sum(), grad_norm)
        if state.scaler.is_enabled():  # `guard.step` replaces `scaler.step`; `update` reads the overflow that `unscale_` found
            state.scaler.update()
        state.ema.update(step)
        state.sessions_seen += sessions
        for loss in losses:
            state.meter.update(loss.scalars(), finite)

    def forward_backward(self, batch: Batch, *, is_first: bool, batches_in_step: int) -> LossOutput:
        """Forward and backward pass of one batch; gradients accumulate in the parameters.

        Args:
            batch: the batch.
            is_first: whether it is the first batch of the step, which clears the gradients of the step before.
            batches_in_step: number of batches in the step, by which the loss is divided.

        Returns:
            The losses, detached.
        """
        outputs = self._forward(batch)
        loss: LossOutput = self.state.losses(outputs, batch.targets, batch.labelled)
        if is_first:
            # The old gradients are cleared only now. If they were cleared before the forward pass, the activations would take
            # their memory, and backward would have to allocate new memory.
            self.state.optimizer.zero_grad(set_to_none=True)
        self.state.scaler.scale(loss.total / batches_in_step).backward()
        return loss.detach()

    def _forward(self, batch: Batch) -> NetworkOutput:
        """A forward pass in `train.precision`; returns the outputs in float32, gathered from all processes."""
        device, maps = self.loader.device.type, batch.maps
        if device == "cuda" or self.precision != torch.float32:  # then convolutions are fastest with the channels last
            maps = {modality: of_one.contiguous(memory_format=torch.channels_last) for modality, of_one in maps.items()}
        with torch.autocast(device, self.precision, enabled=self.precision != torch.float32):
            outputs: NetworkOutput = self.network(maps, batch.present)
        if self.precision != torch.float32:
            outputs = outputs.float()
        return outputs.gathered() if world_size() > 1 else outputs

    def validate(self) -> Metrics:
        """The `val/...` metrics of `state.ema.network`; none without a validation part.

        Its weights are the moving average; with `train.ema` 0, the current weights.
        """
        copy_from_main_process([*self.state.network.buffers(), *self.state.ema.network.buffers()])
        rows = self.setup.split.val
        if not len(rows):
            return Metrics()
        predictions = predict(self.state.ema.network, self.setup.dataset.store, rows, advance=self.stop.check_if_single_process)
        if not np.isfinite(predictions.embeddings).all():
            raise DivergedError(
                f"embeddings of the validation part are NaN or infinite after epoch {self.state.epoch + 1}; the last good "
                f"checkpoint is {self.checkpoints.latest_checkpoint()}; lower optim.lr (now {self.setup.config.optim.lr:g})"
            )
        labels = self.setup.dataset.labels.subset(rows)
        return validation_metrics(predictions, labels, self.setup.info.trained).with_prefix("val")

    def end_epoch(self, train_metrics: dict[str, float], validation: Metrics) -> None:
        """Log the metrics, update the best epochs, and start writing the checkpoint.

        The order ensures that the journal has the metrics of every epoch that a checkpoint contains.
        """
        state, epoch = self.state, self.state.epoch + 1
        # Without validation, every epoch counts as the best so far.
        improved = state.update_best(validation) if validation.values else [state.best_tracker.metric]
        select, values = state.best_tracker.metric, validation.defined()
        best = best_metrics(values, select) if select in improved else {}
        # The `best/...` metrics come first, since MLflow shows metrics in the order in which they were logged.
        self.run.log_metrics(best | train_metrics | validation_curves(values, list(state.trackers)), epoch)
        state.end_epoch()
        self.checkpoints.save_epoch(improved)
        self.echo(epoch_line(epoch, self.epochs, train_metrics, validation, state.best_tracker))
        if self.on_epoch:
            self.on_epoch(epoch, validation)

    def _is_check_due(self, batch_numbers: range, num_batches: int) -> bool:
        """Whether to check for divergence after these batches: every `check_every` batches, and at the end of the epoch."""
        return (
            batch_numbers.stop // self.check_every > batch_numbers.start // self.check_every or batch_numbers.stop == num_batches
        )

    def _lost_process_error(self, error: LostProcessError) -> LostProcessError:
        """The error after the connection to another process broke; the main process first writes a checkpoint, if it has the
        whole state."""
        self.state.guard.restore()
        self.state.optimizer.zero_grad(set_to_none=True)
        if self.state.losses.sharded:
            last = f"its part of the subjects' centres is lost; the last checkpoint is {self.checkpoints.latest_checkpoint()}"
        else:
            if is_main_process():
                self.checkpoints.save()
                self.checkpoints.wait()
            last = (
                f"the checkpoint {self.checkpoints.latest_checkpoint()} is of epoch {self.state.epoch + 1}, "
                f"batch {self.state.batch}"
            )
        return LostProcessError(
            f"{error}; {last}; continue with any number of processes: fr-ps train --resume {self.run.id} --processes N"
        )

    def _train_metrics(self) -> dict[str, float]:
        """The `train/...` metrics: losses, norms, task weights, learning rate, skipped steps, images (sessions) per second."""
        state = self.state
        group = state.optimizer.param_groups[0]
        values = state.meter.compute()
        values |= {f"weight/{task}": float(weight) for task, weight in state.losses.weighting.weights().items()}
        values |= {"lr": group["lr"] / group["lr_scale"], "skipped_steps": float(state.guard.skipped_in_epoch)}
        values["images_per_second"] = state.sessions_seen / state.seconds
        return {f"train/{name}": value for name, value in values.items()}

    def _diverged_error(self, batches: Sequence[np.ndarray], batch_numbers: range) -> DivergedError:
        """The error after too many skipped steps, with the cause and its sessions, sought in `batch_numbers`."""
        state = self.state
        causes = {
            number: diagnose_nonfinite(state.network, state.losses, self.loader.load(batches[number], state.epoch, number))
            for number in batch_numbers
        }
        diagnosed = [number for number, cause in causes.items() if cause]
        return diverged_error(
            state.guard.most_consecutive,
            cause=causes[diagnosed[0]] if diagnosed else "the total loss or its gradient is NaN or infinite",
            epoch=state.epoch + 1,
            sessions=[name for number in diagnosed or batch_numbers for name in self.loader.session_names(batches[number])],
            checkpoint=self.checkpoints.latest_checkpoint(),
            lr=self.setup.config.optim.lr,
        )


def step_seed(seed: int, step: int, process: int) -> int:
    """Seed for a `step`, different for each `process`: a rank, or MAX_PROCESSES for a seed that all processes share."""
    return combined_seed(seed, step, process)


def epoch_line(epoch: int, epochs: int, train_metrics: dict[str, float], validation: Metrics, selection: BestTracker) -> str:
    """One line for the user: loss, speed, skipped steps, and the metric `train.select`."""
    loss = f"loss {train_metrics['train/loss/total']:.3f}" if "train/loss/total" in train_metrics else "all steps skipped"
    line = f"epoch {epoch}/{epochs}  {loss}  {train_metrics['train/images_per_second']:.0f} images/s"
    if skipped := train_metrics["train/skipped_steps"]:
        line += f"  {skipped:.0f} non-finite steps skipped"
    if not validation.values:
        return line
    mark = "  best" if selection.best_epoch == epoch else ""
    return f"{line}  {selection.metric} {validation.values[selection.metric]:.4f}{mark}"
