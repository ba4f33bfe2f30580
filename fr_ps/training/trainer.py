"""The training loop: `train` -> `train_epoch` -> `train_step` -> `forward_backward`."""

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fr_ps.evaluation.evaluate_predictions import validation_metrics
from fr_ps.evaluation.metrics import Metrics
from fr_ps.losses.multitask import LossOutput
from fr_ps.models.inference import predict
from fr_ps.progress import progress
from fr_ps.tracking.run import Run
from fr_ps.training.batch_loader import Batch, BatchLoader
from fr_ps.training.checkpoint_manager import CheckpointManager
from fr_ps.training.divergence import DivergedError, diagnose_nonfinite, diverged_error
from fr_ps.training.early_stopping import BestTracker
from fr_ps.training.schedule import learning_rate, reversal_alpha
from fr_ps.training.setup import Echo, TrainingSetup
from fr_ps.training.signals import GracefulStop, StopRequested
from fr_ps.training.train_state import TrainState

EpochCallback = Callable[[int, Metrics], None]
"""Called after each epoch with its number, from 1, and its validation metrics. An exception ends the training."""


class Trainer:
    """Trains `state` from its position to the last epoch.

    Args:
        setup: settings, data and split.
        loader: the training batches.
        state: what is trained; already restored if the training resumes.
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
        self.steps_per_epoch = math.ceil(len(loader.epoch_batches(0)) / self.accumulate)
        self.learning_rate = learning_rate(config.schedule, lr=config.optim.lr, epochs=self.epochs, steps=self.steps_per_epoch)
        self.parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
        self.stop = GracefulStop()

    def train(self) -> None:
        """Train the remaining epochs, validate and save after each.

        Raises:
            InputError: a metric to select by is undefined, the disk is full, or the training diverged.
            KeyboardInterrupt, SystemExit: SIGINT or SIGTERM, once a checkpoint is on disk.
        """
        state, select = self.state, self.state.selection
        with self.stop, self.checkpoints:
            try:
                while state.epoch < self.epochs and not select.should_stop:
                    train_metrics = self.train_epoch()
                    validation = self.validate()
                    self.end_epoch(train_metrics, validation)
                self.checkpoints.wait()
                self.stop.check()
            except StopRequested as request:
                self.checkpoints.save()
                self.checkpoints.wait()
                self.echo(f"stopped in epoch {state.epoch + 1}; resume with: fr-ps train --resume {self.run.id}")
                raise request.exit_exception() from None
        if select.should_stop and state.epoch < self.epochs:
            self.echo(f"early stopping: {select.patience} epochs without a better {select.metric}")

    def train_epoch(self) -> dict[str, float]:
        """Train to the end of the current epoch; returns its `train/...` metrics."""
        state = self.state
        state.network.train()
        state.losses.train()
        batches = self.loader.epoch_batches(state.epoch)
        started = time.perf_counter() - state.seconds
        with progress(f"epoch {state.epoch + 1}/{self.epochs}", len(batches), "batches") as advance:
            advance(state.batch)
            while state.batch < len(batches):
                indices = range(state.batch, min(state.batch + self.accumulate, len(batches)))
                self.train_step(batches, indices)
                state.batch = indices.stop
                state.seconds = time.perf_counter() - started
                advance(len(indices))
                self.checkpoints.save_if_due()
                self.stop.check()
        return self._train_metrics()

    def train_step(self, batches: Sequence[np.ndarray], indices: range) -> None:
        """One optimizer step on the mean gradient of the batches `indices` (gradient accumulation).

        A step with a non-finite loss or gradient is skipped: weights, buffers and meters are unchanged.

        Raises:
            DivergedError: too many steps in a row were skipped.
        """
        state = self.state
        step = state.epoch * self.steps_per_epoch + indices.start // self.accumulate
        lr = self.learning_rate(step)
        for group in state.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        state.network.reversal_alpha = self.reversal_alpha(step)
        state.guard.snapshot()
        losses: list[LossOutput] = []
        for index in indices:
            batch = self.loader.load(batches[index], state.epoch, index)
            losses.append(self.forward_backward(batch, first=index == indices.start, count=len(indices)))
            state.images_seen += len(batches[index])
        grad_norm = nn.utils.clip_grad_norm_(self.parameters, self.clip) if self.clip else _grad_norm(self.parameters)
        if state.guard.is_finite(torch.stack([loss.total for loss in losses]).sum(), grad_norm):
            state.optimizer.step()
            state.ema.update(step)
            for loss in losses:
                state.meter.update(loss.scalars())
        elif state.guard.rollback():
            raise self._diverged_error(batches, indices, lr)

    def forward_backward(self, batch: Batch, *, first: bool, count: int) -> LossOutput:
        """Forward and backward pass of one batch; gradients accumulate in the parameters.

        Args:
            batch: the batch.
            first: whether it is the first batch of the step, which clears the gradients.
            count: number of batches in the step, by which the loss is divided.

        Returns:
            The losses, detached.
        """
        outputs = self.state.network(batch.maps, batch.present)
        loss: LossOutput = self.state.losses(outputs, batch.targets)
        if first:  # not before the forward pass, which would have to allocate that memory again
            self.state.optimizer.zero_grad(set_to_none=True)
        (loss.total / count).backward()
        return loss.detach()

    def validate(self) -> Metrics:
        """The `val/...` metrics of the current weights; none without a validation part."""
        rows = self.setup.split.val
        if not len(rows):
            return Metrics()
        predictions = predict(self.state.ema.network, self.setup.dataset.store, rows, advance=self.stop.check)
        labels = self.setup.dataset.labels.subset(rows)
        return validation_metrics(predictions, labels, self.setup.info.trained).with_prefix("val")

    def end_epoch(self, train_metrics: dict[str, float], validation: Metrics) -> None:
        """Log the metrics, update the best epochs, and start writing the checkpoint.

        In this order, so that the journal has the metrics of every epoch that a checkpoint contains.
        """
        state, epoch = self.state, self.state.epoch + 1
        self.run.log_metrics(train_metrics | validation.defined(), epoch)
        improved = state.update_best(validation) if validation.values else [state.selection.metric]
        state.end_epoch()
        self.checkpoints.save_epoch(improved)
        self.echo(epoch_line(epoch, self.epochs, train_metrics, validation, state.selection))
        if self.on_epoch:
            self.on_epoch(epoch, validation)

    def reversal_alpha(self, step: int) -> float:
        """Alpha of the gradient reversal at a step of the optimizer, counted from the start of the training."""
        loss = self.setup.config.loss
        steps = self.steps_per_epoch * self.epochs
        return reversal_alpha(step, steps=steps, alpha=loss.reversal, ramp=loss.reversal_ramp)

    def _train_metrics(self) -> dict[str, float]:
        """The `train/...` metrics: mean losses and norms, task weights, learning rate, skipped steps, images per second."""
        state = self.state
        group = state.optimizer.param_groups[0]
        values = state.meter.compute()
        values |= {f"weight/{task}": float(weight) for task, weight in state.losses.weighting.weights().items()}
        values |= {"lr": group["lr"] / group["lr_scale"], "bad_steps": float(state.guard.skipped_in_epoch)}
        values["images_per_second"] = state.images_seen / state.seconds
        return {f"train/{name}": value for name, value in values.items()}

    def _diverged_error(self, batches: Sequence[np.ndarray], indices: range, lr: float) -> DivergedError:
        """The error of too many skipped steps, with the cause and the sessions of the last one."""
        state = self.state
        causes = {
            index: diagnose_nonfinite(state.network, state.losses, self.loader.load(batches[index], state.epoch, index))
            for index in indices
        }
        known = [index for index, cause in causes.items() if cause]
        return diverged_error(
            state.guard.consecutive_skipped,
            cause=causes[known[0]] if known else "the total loss or its gradient is NaN or infinite",
            epoch=state.epoch + 1,
            sessions=[name for index in known or indices for name in self.loader.session_names(batches[index])],
            checkpoint=self.checkpoints.latest_name(),
            lr=lr,
        )


def epoch_line(epoch: int, epochs: int, train_metrics: dict[str, float], validation: Metrics, selection: BestTracker) -> str:
    """One line for the user: loss, speed, skipped steps, and the metric `train.select`."""
    loss = f"loss {train_metrics['train/loss/total']:.3f}" if "train/loss/total" in train_metrics else "all steps skipped"
    line = f"epoch {epoch}/{epochs}  {loss}  {train_metrics['train/images_per_second']:.0f} images/s"
    if skipped := train_metrics["train/bad_steps"]:
        line += f"  {skipped:.0f} non-finite steps skipped"
    if not validation.values:
        return line
    mark = "  best" if selection.best_epoch == epoch else ""
    return f"{line}  {selection.metric} {validation.values[selection.metric]:.4f}{mark}"


def _grad_norm(parameters: list[nn.Parameter]) -> Tensor:
    return nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
