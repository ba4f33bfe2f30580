"""The complete state of a training: everything that a step or an epoch changes, and that a checkpoint holds."""

import copy
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fr_ps.distributed import is_main_process
from fr_ps.evaluation.metrics import Metrics
from fr_ps.losses.multitask import MultiTaskLoss
from fr_ps.models.network import FaceNetwork
from fr_ps.training.divergence import NonFiniteGuard
from fr_ps.training.early_stopping import BestTracker
from fr_ps.training.optim import ModelEma
from fr_ps.training.sharded_centres import gather_centres


class MeanMeter:
    """Means of scalars over batches. Sums and counts stay on the device, because reading one waits for it."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, values: Mapping[str, Tensor], counted: Tensor) -> None:
        """Add the scalars of a batch, if the scalar `counted` is true; a name may be missing in some batches."""
        for name, value in values.items():
            if name not in self.sums:
                self.sums[name] = torch.zeros_like(value)
                self._counts[name] = torch.zeros_like(counted, dtype=torch.int64)
        added = torch.where(counted, torch.stack(list(values.values())), 0).unbind()
        torch._foreach_add_([self.sums[name] for name in values], added)
        torch._foreach_add_([self._counts[name] for name in values], [counted.long()] * len(values))

    @property
    def counts(self) -> dict[str, int]:
        """Name to its number of batches, 1 or more. Waits for the device."""
        if not self._counts:
            return {}
        counts = torch.stack(list(self._counts.values())).tolist()
        return {name: count for name, count in zip(self._counts, counts) if count}

    def compute(self) -> dict[str, float]:
        """Name to its mean over the batches that had it. Waits for the device."""
        return {name: float(self.sums[name]) / count for name, count in self.counts.items()}

    def load(self, sums: Mapping[str, Tensor], counts: Mapping[str, int], device: torch.device) -> None:
        """Restore `sums` and `counts`. A name that is not in `counts` had no counted batch, and is left out."""
        self.sums = {name: sums[name].to(device) for name in counts}
        self._counts = {name: torch.tensor(count, device=device) for name, count in counts.items()}


@dataclass
class TrainState:
    """What is trained, and how far.

    Learning rate, gradient reversal and batches are functions of seed, epoch and step, so the schedule and the sampler have no
    state beside `epoch` and `batch`.

    Attributes:
        network: the trained network.
        losses: the losses, with learned weights and running statistics.
        optimizer: optimizer of the parameters of network and losses.
        ema: moving average of the network's weights, which is validated, saved and tested.
        guard: does the optimizer steps; skips and counts those with a non-finite loss or gradient.
        trackers: metric to its `BestTracker`: first `train.select`, then those of `train.watch`.
        scaler: factor on the losses of a training in float16, so that its gradients do not become 0; else disabled.
        best_metrics: `val/...` metrics of the best epoch.
        epoch: number of finished epochs.
        batch: number of finished batches of the current epoch.
        meter: mean losses and norms of the current epoch so far.
        sessions_seen: sessions trained on in the current epoch.
        seconds: training time of the current epoch.
    """

    network: FaceNetwork
    losses: MultiTaskLoss
    optimizer: torch.optim.Optimizer
    ema: ModelEma
    guard: NonFiniteGuard
    trackers: dict[str, BestTracker]
    scaler: torch.amp.GradScaler = field(default_factory=lambda: torch.amp.GradScaler("cpu", enabled=False))
    best_metrics: Metrics = field(default_factory=Metrics)
    epoch: int = 0
    batch: int = 0
    meter: MeanMeter = field(default_factory=MeanMeter)
    sessions_seen: int = 0
    seconds: float = 0.0

    @property
    def best_tracker(self) -> BestTracker:
        """The tracker of `train.select`."""
        return next(iter(self.trackers.values()))

    @property
    def best_epoch(self) -> int:
        """The best epoch so far, from 1; without validation the last one."""
        return self.best_tracker.best_epoch or self.epoch

    def update_best(self, validation: Metrics) -> list[str]:
        """Add the validation metrics of the current epoch; returns the tracked metrics that are the best so far.

        Raises:
            InputError: a tracked metric is missing or undefined.
        """
        improved = [metric for metric, tracker in self.trackers.items() if tracker.update(validation)]
        if self.best_tracker.metric in improved:
            self.best_metrics = validation
        return improved

    def end_epoch(self) -> None:
        """Finish the current epoch: pass its mean losses to the task weighting and begin the next one."""
        means = self.meter.compute()
        tasks = self.losses.weighting.weights()
        losses = {task: means[f"loss/{task}"] for task in tasks if f"loss/{task}" in means}
        # The mean penalty is absent if all steps were skipped, or if the epoch began in a version that did not measure it.
        self.losses.end_epoch(losses, means.get("norm/penalty", 0.0))
        self.epoch += 1
        self.reset_epoch()

    def reset_epoch(self) -> None:
        """Set the position to the start of the current epoch."""
        self.batch = 0
        self.meter, self.sessions_seen, self.seconds = MeanMeter(), 0, 0.0
        self.guard.start_epoch()

    def state_dict(self) -> dict[str, Any]:
        """A copy of the complete state, on the CPU.

        Sections with tensors: `model` (the weights that are validated and saved), `network` (the trained weights, if there is a
        moving average), `losses`, `means`, `rng`, `optimizer`. All other values are JSON values.

        If the centres are sharded among the processes, all of them call it at the same step; only the main one gets the state.
        """
        state: dict[str, Any] = {"model": self.ema.network.state_dict()}
        if self.ema.network is not self.network:
            state["network"] = self.network.state_dict()
        optimizer = self.optimizer.state_dict()
        slots = {f"{index}.{name}": value for index, values in optimizer["state"].items() for name, value in values.items()}
        non_tensors: dict[str, dict[str, Any]] = {}
        for path, value in slots.items():
            if not isinstance(value, Tensor):
                index, name = path.split(".", 1)
                non_tensors.setdefault(index, {})[name] = value
        state |= {
            "losses": dict(self.losses.state_dict()),
            "means": self.meter.sums,
            "epoch": self.epoch,
            "batch": self.batch,
            "images": self.sessions_seen,
            "seconds": self.seconds,
            "counts": self.meter.counts,
            "bad": self.guard.state_dict(),
            "selections": {metric: tracker.state_dict() for metric, tracker in self.trackers.items()},
            "validation": [self.best_metrics.values, self.best_metrics.reasons],
            "optimizer": {path: value for path, value in slots.items() if isinstance(value, Tensor)}
            # The rates are saved only for a metric, see `_optimizer_state`.
            | {"rates": [group["lr"] for group in optimizer["param_groups"]], "plain": non_tensors},
            "rng": rng_state(),
        }
        if self.scaler.is_enabled():
            state["scaler"] = self.scaler.state_dict()
        whole_centres = gather_centres(self.losses, self.optimizer, state)
        if self.losses.sharded and not is_main_process():
            return {}
        # Copied, because the next step runs while the checkpoint is being written.
        copied = {name: _copy(value) for name, value in state.items()}
        for section, tensors in whole_centres.items():
            copied[section] |= tensors
        return copied

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; of sharded centres only this process's part (`scatter_centres`).

        Raises:
            RuntimeError, ValueError, KeyError: the state belongs to another architecture, other losses or another optimizer.
        """
        self.network.load_state_dict(state.get("network") or state["model"])
        if self.ema.network is not self.network:
            self.ema.network.load_state_dict(state["model"])
        self.losses.load_state_dict(state.get("losses", {}))
        self.optimizer.load_state_dict(self._optimizer_state(state["optimizer"]))
        # A metric that the checkpoint lacks, for example after a change of train.watch, is tracked from here on.
        untracked = {"best": None, "best_epoch": state["epoch"], "epoch": state["epoch"]}
        for metric, tracker in self.trackers.items():
            tracker.load_state_dict(state["selections"].get(metric, untracked))
        device = next(self.network.parameters()).device
        self.meter.load(state.get("means", {}), state["counts"], device)
        self.guard.load_state_dict(state["bad"])
        if self.scaler.is_enabled() and "scaler" in state:
            self.scaler.load_state_dict(dict(state["scaler"]))
        self.best_metrics = Metrics(*state["validation"])
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.sessions_seen, self.seconds = state["images"], state["seconds"]
        restore_rng(state["rng"])

    def _optimizer_state(self, saved: Mapping[str, Any]) -> dict[str, Any]:
        """The argument of the optimizer's own `load_state_dict`.

        Raises:
            ValueError: the state belongs to other parameters.
        """
        state: dict[int, dict[str, Any]] = {int(index): dict(slots) for index, slots in saved["plain"].items()}
        for path, tensor in saved.items():
            if isinstance(tensor, Tensor):
                index, name = path.split(".", 1)
                state.setdefault(int(index), {})[name] = tensor
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        for number, slots in state.items():
            moment = next((value for value in slots.values() if isinstance(value, Tensor) and value.dim()), None)
            if number >= len(parameters) or (moment is not None and moment.shape != parameters[number].shape):
                raise ValueError(f"the optimizer's parameter {number} has another shape")
            # In the memory format of the parameter, as the fused optimizer requires; checkpoints are contiguous.
            state[number] = {
                name: torch.empty_like(parameters[number]).copy_(value) if isinstance(value, Tensor) and value.dim() else value
                for name, value in slots.items()
            }
        groups = self.optimizer.state_dict()["param_groups"]  # of today's settings: weight decay, momentum
        if len(groups) != len(saved["rates"]):
            raise ValueError(f"the optimizer has {len(groups)} groups of parameters, not {len(saved['rates'])}")
        # The rates are needed only for the metric `train/lr`, if the training resumes after the last step of an epoch and before
        # that metric is logged. Each step sets them again (`train_step`).
        return {"state": state, "param_groups": [group | {"lr": rate} for group, rate in zip(groups, saved["rates"])]}


def rng_state() -> dict[str, Any]:
    """The states of all global random generators: tensors of torch's, JSON values of numpy's and Python's."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state |= {f"cuda.{index}": tensor for index, tensor in enumerate(torch.cuda.get_rng_state_all())}
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002
    version, numbers, next_gauss = random.getstate()
    state["numpy"] = [name, np.asarray(keys).tolist(), position, has_gauss, gauss]
    state["python"] = [version, list(numbers), next_gauss]
    return state


def restore_rng(state: Mapping[str, Any]) -> None:
    """Restore what `rng_state` returned; the generator of a device that this machine lacks is skipped."""
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available():
        for name, tensor in state.items():
            if name.startswith("cuda.") and int(name[5:]) < torch.cuda.device_count():
                torch.cuda.set_rng_state(tensor, int(name[5:]))
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    version, numbers, next_gauss = state["python"]
    random.setstate((version, tuple(numbers), next_gauss))


def _copy(value: Any) -> Any:
    """A deep copy with tensors on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True).contiguous()
    if isinstance(value, dict):
        return {name: _copy(part) for name, part in value.items()}
    return copy.deepcopy(value)
