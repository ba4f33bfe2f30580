"""All that a training changes as it goes, and that therefore decides how it goes on."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fr_ps.errors import InputError, one_line
from fr_ps.evaluation.numbers.metrics import Metrics
from fr_ps.losses.multitask import MultiTaskLoss
from fr_ps.models.network import FaceNetwork
from fr_ps.training.ema import WeightAverage
from fr_ps.training.guard import Guard
from fr_ps.training.rng import restore_rng, rng_tensors, rng_values
from fr_ps.training.selection import Selection


class Means:
    """Means of scalars over batches, left on the device until they are read: reading one waits for the batch."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add a batch's scalars; a name may be missing in some batches."""
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
            self.counts[name] = self.counts.get(name, 0) + 1

    def read(self) -> dict[str, float]:
        """Name to mean over the batches that had it."""
        return {name: float(total) / self.counts[name] for name, total in self.sums.items()}


@dataclass(frozen=True)
class Snapshot:
    """A copy of a `Learner`'s state, on the CPU.

    Attributes:
        model: the weights that are validated and saved, by their names in the network.
        training: all other tensors, by a path each.
        values: the rest, as JSON holds it.
    """

    model: dict[str, Tensor]
    training: dict[str, Tensor]
    values: dict[str, Any]


@dataclass
class Learner:
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
    average: WeightAverage
    guard: Guard
    selections: dict[str, Selection]
    validation: Metrics = field(default_factory=Metrics)
    epoch: int = 0
    batch: int = 0
    means: Means = field(default_factory=Means)
    images: int = 0
    seconds: float = 0.0

    def judge(self, validation: Metrics) -> list[str]:
        """Take the metrics of the present epoch; returns those by which it is the best so far.

        Raises:
            InputError: a metric to select by is not there, or undefined.
        """
        better = [metric for metric, selection in self.selections.items() if selection.is_better(validation)]
        if next(iter(self.selections)) in better:
            self.validation = validation
        return better

    def next_epoch(self) -> None:
        """Take notice that the present epoch is over."""
        self.losses.end_epoch(self.means.read())
        self.epoch += 1
        self.restart_epoch()

    def restart_epoch(self) -> None:
        """Forget how far the present epoch is."""
        self.batch = 0
        self.means, self.images, self.seconds = Means(), 0, 0.0
        self.guard.in_epoch = 0

    def snapshot(self) -> Snapshot:
        """A copy of everything that decides the future."""
        tensors: dict[str, Tensor] = {}
        if self.average.network is not self.network:
            tensors |= _under("network", self.network.state_dict())
        tensors |= _under("losses", self.losses.state_dict())
        tensors |= _under("means", self.means.sums)
        tensors |= _under("rng", rng_tensors())
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
            "images": self.images,
            "seconds": self.seconds,
            "counts": self.means.counts,
            "bad": [self.guard.in_row, self.guard.in_epoch],
            "selections": {metric: one.state() for metric, one in self.selections.items()},
            "validation": [self.validation.values, self.validation.reasons],
            "optimizer": {"rates": [group["lr"] for group in state["param_groups"]], "plain": plain},
            "rng": rng_values(),
        }
        # Whatever is still shared with the training would change while the snapshot is being written.
        return Snapshot(_copied(self.average.network.state_dict()), _copied(tensors), copy.deepcopy(values))

    def restore(self, snapshot: Snapshot, where: str) -> None:
        """Take over the state of `snapshot`, which was read from `where`.

        Raises:
            InputError: it is of another architecture, other losses or another optimizer.
        """
        tensors, values = snapshot.training, snapshot.values
        try:
            self.network.load_state_dict(_below("network", tensors) or snapshot.model)
            if self.average.network is not self.network:
                self.average.network.load_state_dict(snapshot.model)
            self.losses.load_state_dict(_below("losses", tensors))
            self.optimizer.load_state_dict(self._optimizer_state(tensors, values["optimizer"]))
            unknown = {"best": None, "best_epoch": values["epoch"], "epoch": values["epoch"]}  # selected by from now on
            for metric, selection in self.selections.items():
                selection.restore(values["selections"].get(metric, unknown))
        except (RuntimeError, ValueError, KeyError) as error:
            text = one_line(error)
            raise InputError(
                f"{where}: is not of this training: another architecture, losses or optimizer ({text}); resume with the settings "
                "that it was made with"
            ) from None
        device = next(self.network.parameters()).device
        self.means.sums = {name: tensor.to(device) for name, tensor in _below("means", tensors).items()}
        self.means.counts = dict(values["counts"])
        self.guard.in_row, self.guard.in_epoch = values["bad"]
        self.validation = Metrics(*values["validation"])
        self.epoch, self.batch = values["epoch"], values["batch"]
        self.images, self.seconds = values["images"], values["seconds"]
        restore_rng(_below("rng", tensors), values["rng"])

    def _optimizer_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> dict[str, Any]:
        """The optimizer's state as its `load_state_dict` wants it.

        Raises:
            ValueError: it has other parameters.
        """
        state: dict[int, dict[str, Any]] = {int(index): dict(slots) for index, slots in values["plain"].items()}
        for path, tensor in _below("optimizer", tensors).items():
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


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, which no later step changes."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
