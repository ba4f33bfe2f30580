"""All that a training changes as it goes, and that therefore decides how it goes on."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fr_ps.errors import InputError, one_line
from fr_ps.evaluation.metrics import Metrics
from fr_ps.losses.multitask import MultiTaskLoss
from fr_ps.models.network import FaceNetwork
from fr_ps.training.early_stopping import BestTracker
from fr_ps.training.ema import ModelEma
from fr_ps.training.guard import NonFiniteGuard
from fr_ps.training.rng import restore_rng, rng_tensors, rng_values


class MeanMeter:
    """Means of scalars over batches, left on the device until they are read: reading one waits for the batch."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def update(self, values: Mapping[str, Tensor]) -> None:
        """Add a batch's scalars; a name may be missing in some batches."""
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
            self.counts[name] = self.counts.get(name, 0) + 1

    def compute(self) -> dict[str, float]:
        """Name to mean over the batches that had it."""
        return {name: float(total) / self.counts[name] for name, total in self.sums.items()}


@dataclass(frozen=True)
class CheckpointData:
    """A copy of a `Learner`'s state, on the CPU.

    Attributes:
        model: the weights that are validated and saved, by their names in the network.
        training: all other tensors, by a path each.
        values: the rest, as JSON holds it.
    """

    model: dict[str, Tensor]
    tensors: dict[str, Tensor]
    values: dict[str, Any]


@dataclass
class TrainState:
    """What is trained, and how far it is.

    The learning rate, the reversal, and the batches are functions of the epoch and the step; so the position is all that
    is to be known of schedule and sampler.

    Attributes:
        network: that is trained.
        losses: with what they learn themselves.
        optimizer: of the parameters of both.
        average: of the weights.
        guard: against bad numbers.
        selections: metric to what is known of its best epoch; the first decides.
        validation: metrics of the first selection's best epoch, `val/...`.
        epoch: finished ones.
        batch: finished ones of the present epoch.
        means: of the present epoch so far.
        images: that the present epoch has shown.
        seconds: that it took.
    """

    network: FaceNetwork
    losses: MultiTaskLoss
    optimizer: torch.optim.Optimizer
    ema: ModelEma
    guard: NonFiniteGuard
    trackers: dict[str, BestTracker]
    best_metrics: Metrics = field(default_factory=Metrics)
    epoch: int = 0
    batch: int = 0
    meter: MeanMeter = field(default_factory=MeanMeter)
    images_seen: int = 0
    seconds: float = 0.0

    def update_best(self, validation: Metrics) -> list[str]:
        """Take the metrics of the present epoch; returns those by which it is the best so far.

        Raises:
            InputError: a metric to select by is not there, or undefined.
        """
        better = [metric for metric, selection in self.trackers.items() if selection.update(validation)]
        if next(iter(self.trackers)) in better:
            self.best_metrics = validation
        return better

    def end_epoch(self) -> None:
        """Take notice that the present epoch is over."""
        self.losses.end_epoch(self.meter.compute())
        self.epoch += 1
        self.reset_epoch()

    def reset_epoch(self) -> None:
        """Forget how far the present epoch is."""
        self.batch = 0
        self.meter, self.images_seen, self.seconds = MeanMeter(), 0, 0.0
        self.guard.skipped_in_epoch = 0

    def state_dict(self) -> CheckpointData:
        """A copy of everything that decides the future."""
        tensors: dict[str, Tensor] = {}
        if self.ema.network is not self.network:
            tensors |= _add_prefix("network", self.network.state_dict())
        tensors |= _add_prefix("losses", self.losses.state_dict())
        tensors |= _add_prefix("means", self.meter.sums)
        tensors |= _add_prefix("rng", rng_tensors())
        state = self.optimizer.state_dict()
        plain: dict[str, dict[str, Any]] = {}
        for index, slots in state["state"].items():
            for name, value in slots.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{index}.{name}"] = value
                else:
                    plain.setdefault(str(index), {})[name] = value
        values = {
            "epoch": self.epoch,
            "batch": self.batch,
            "images": self.images_seen,
            "seconds": self.seconds,
            "counts": self.meter.counts,
            "bad": [self.guard.consecutive_skipped, self.guard.skipped_in_epoch],
            "selections": {metric: one.state_dict() for metric, one in self.trackers.items()},
            "validation": [self.best_metrics.values, self.best_metrics.reasons],
            "optimizer": {"rates": [group["lr"] for group in state["param_groups"]], "plain": plain},
            "rng": rng_values(),
        }
        # Whatever is still shared with the training would change while the snapshot is being written.
        return CheckpointData(_to_cpu(self.ema.network.state_dict()), _to_cpu(tensors), copy.deepcopy(values))

    def load_state_dict(self, checkpoint: CheckpointData, where: str) -> None:
        """Take over the state of `snapshot`, which was read from `where`.

        Raises:
            InputError: it is of another architecture, other losses or another optimizer.
        """
        tensors, values = checkpoint.tensors, checkpoint.values
        try:
            self.network.load_state_dict(_strip_prefix("network", tensors) or checkpoint.model)
            if self.ema.network is not self.network:
                self.ema.network.load_state_dict(checkpoint.model)
            self.losses.load_state_dict(_strip_prefix("losses", tensors))
            self.optimizer.load_state_dict(self._optimizer_state(tensors, values["optimizer"]))
            unknown = {"best": None, "best_epoch": values["epoch"], "epoch": values["epoch"]}  # selected by from now on
            for metric, selection in self.trackers.items():
                selection.load_state_dict(values["selections"].get(metric, unknown))
        except (RuntimeError, ValueError, KeyError) as error:
            text = one_line(error)
            raise InputError(
                f"{where}: is not of this training: another architecture, losses or optimizer ({text}); resume with the settings "
                "that it was made with"
            ) from None
        device = next(self.network.parameters()).device
        self.meter.sums = {name: tensor.to(device) for name, tensor in _strip_prefix("means", tensors).items()}
        self.meter.counts = dict(values["counts"])
        self.guard.consecutive_skipped, self.guard.skipped_in_epoch = values["bad"]
        self.best_metrics = Metrics(*values["validation"])
        self.epoch, self.batch = values["epoch"], values["batch"]
        self.images_seen, self.seconds = values["images"], values["seconds"]
        restore_rng(_strip_prefix("rng", tensors), values["rng"])

    def _optimizer_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> dict[str, Any]:
        """The optimizer's state as its `load_state_dict` wants it.

        Raises:
            ValueError: it has other parameters.
        """
        state: dict[int, dict[str, Any]] = {int(index): dict(slots) for index, slots in values["plain"].items()}
        for path, tensor in _strip_prefix("optimizer", tensors).items():
            index, name = path.split(".", 1)
            state.setdefault(int(index), {})[name] = tensor
        parameters = [one for group in self.optimizer.param_groups for one in group["params"]]
        for number, slots in state.items():
            moment = next((value for value in slots.values() if isinstance(value, Tensor) and value.dim()), None)
            if number >= len(parameters) or (moment is not None and moment.shape != parameters[number].shape):
                raise ValueError(f"the optimizer's parameter {number} has another shape")
        groups = self.optimizer.state_dict()["param_groups"]  # weight decay and the like are settings, which may be changed
        if len(groups) != len(values["rates"]):
            raise ValueError(f"the optimizer has {len(groups)} groups of parameters, not {len(values['rates'])}")
        return {"state": state, "param_groups": [group | {"lr": rate} for group, rate in zip(groups, values["rates"])]}


def _add_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _strip_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}


def _to_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, which no later step changes."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
