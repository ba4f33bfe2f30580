"""Task weighting: from the losses of the tasks to their total."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional

Penalties = Mapping[str, Tensor]
"""Task to the penalty in its loss, a scalar without gradient; absent: 0."""

NO_PENALTIES: Penalties = MappingProxyType({})


class Weighting(nn.Module, ABC):
    """From the losses of the tasks to their total.

    Weights learnt by gradient are parameters, for the optimizer; other state is in buffers. `state_dict` holds all of it.

    A loss can contain a penalty, such as MagFace's on the norms, which does not vanish when the task is solved. A weighting that
    takes the size of a loss as the difficulty of the task leaves the penalty out of that size. The weight itself applies to the
    whole loss: MagFace's guarantee of a unique optimal norm holds only while the weight of the penalty relative to the
    cross-entropy is fixed (`lambda_g`).
    """

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """Task to its current weight, without gradient."""

    @abstractmethod
    def forward(self, losses: Mapping[str, Tensor], shared: Sequence[Tensor], penalties: Penalties = NO_PENALTIES) -> Tensor:
        """The total of `losses`, in which tasks may be absent. Call `backward` on it once.

        Args:
            losses: task to its loss, a scalar, including the penalty.
            shared: the (B, channels, h, w) feature maps that all tasks share, one per branch; empty outside training.
            penalties: contained in the losses.
        """

    def end_epoch(self, means: Mapping[str, float]) -> None:
        """Update from the mean losses of an epoch, without penalties; a task without a loss in the epoch is absent."""


class FixedWeighting(Weighting):
    """The sum of the losses times constant weights."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.constant = dict(weights)

    def weights(self) -> dict[str, Tensor]:
        return {task: torch.tensor(weight) for task, weight in self.constant.items()}

    def forward(self, losses: Mapping[str, Tensor], shared: Sequence[Tensor], penalties: Penalties = NO_PENALTIES) -> Tensor:
        return torch.stack([self.constant[task] * loss for task, loss in losses.items()]).sum()


class UncertaintyWeighting(Weighting):
    """The sum of exp(-s_i) L_i + s_i / 2 with learnt s_i.

    Kendall, Gal, Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses", CVPR 2018, in its form for
    cross-entropy. At the optimum the weight is exp(-s_i) = 1 / (2 L_i), unbounded as L_i goes to 0. So s_i is bounded below,
    s = -log(MAX_WEIGHT) + softplus(raw), which has a gradient everywhere. s_i learns from L_i without its penalty; the penalty
    is multiplied by the same weight, but gives s_i no gradient.
    """

    MAX_WEIGHT = 5.0

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        start = torch.tensor(self.MAX_WEIGHT).log()
        # s starts at 0, where softplus(raw) = log(MAX_WEIGHT) = start. The inverse of softplus is log(expm1(start)).
        self.raw = nn.Parameter(torch.expm1(start).log().repeat(len(self.tasks)))

    def log_variances(self) -> Tensor:
        """(tasks,) s."""
        return functional.softplus(self.raw) - torch.tensor(self.MAX_WEIGHT).log()

    def weights(self) -> dict[str, Tensor]:
        return dict(zip(self.tasks, (-self.log_variances()).exp().detach()))

    def forward(self, losses: Mapping[str, Tensor], shared: Sequence[Tensor], penalties: Penalties = NO_PENALTIES) -> Tensor:
        """The total of `losses`; the s of tasks that are missing gets no gradient."""
        log_variances = dict(zip(self.tasks, self.log_variances().unbind()))
        s = torch.stack([log_variances[task] for task in losses])
        weights, all_losses = (-s).exp(), torch.stack(list(losses.values()))
        penalty = torch.stack([penalties.get(task, torch.zeros_like(loss)) for task, loss in losses.items()])
        return (weights * (all_losses - penalty) + weights.detach() * penalty + s / 2).sum()


class DynamicWeightAverage(Weighting):
    """More weight for a task whose loss falls more slowly: w_i = n exp(r_i / T) / sum_k exp(r_k / T).

    r_i is the mean loss (without penalty) of the last epoch divided by that of the epoch before; it is 1 until the task
    has had a loss in two epochs. n is the number of tasks. Liu, Johns, Davison, "End-to-End Multi-Task Learning with Attention",
    CVPR 2019.

    Adversaries keep constant weights: a rising adversarial loss means that the network succeeds.

    Args:
        tasks: with dynamic weights.
        constant: further tasks to their constant weights.
        temperature: T; a larger one makes the weights more equal.
    """

    means: Tensor

    def __init__(self, tasks: Sequence[str], constant: Mapping[str, float], temperature: float) -> None:
        super().__init__()
        self.tasks, self.constant = tuple(tasks), dict(constant)
        self.temperature = temperature
        # Row 0: of the epoch before the last one; row 1: of the last one.
        self.register_buffer("means", torch.full((2, len(self.tasks)), torch.nan))

    def weights(self) -> dict[str, Tensor]:
        before, last = self.means.clamp_min(1e-8)  # two losses of 0 have the ratio 1
        ratio = (last / before).nan_to_num(nan=1.0)
        dynamic = len(self.tasks) * (ratio / self.temperature).softmax(dim=0)
        return dict(zip(self.tasks, dynamic)) | {
            task: torch.full_like(dynamic[0], weight) for task, weight in self.constant.items()
        }

    def forward(self, losses: Mapping[str, Tensor], shared: Sequence[Tensor], penalties: Penalties = NO_PENALTIES) -> Tensor:
        weights = self.weights()
        return torch.stack([weights[task] * loss for task, loss in losses.items()]).sum()

    def end_epoch(self, means: Mapping[str, float]) -> None:
        for index, task in enumerate(self.tasks):
            if task in means:
                self.means[:, index] = torch.stack([self.means[1, index], self.means.new_tensor(means[task])])
