"""How the losses of the tasks become one."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class FixedWeighting(nn.Module):
    """The sum of the losses times constant weights."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.constant = dict(weights)

    def weights(self) -> dict[str, Tensor]:
        """Task to its present weight, without gradient."""
        return {task: torch.tensor(weight) for task, weight in self.constant.items()}

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The total of the tasks in `losses`, which may be some of them."""
        return torch.stack([self.constant[task] * loss for task, loss in losses.items()]).sum()


class UncertaintyWeighting(nn.Module):
    """The sum of exp(-s_i) L_i + s_i / 2 with learnt s_i, which are to be given to the optimizer.

    Kendall, Gal, Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses", CVPR 2018, in its form for
    cross-entropy. At its fixed point a loss has the weight exp(-s_i) = 1 / (2 L_i); as a loss goes to 0 that grows without
    bound, so s_i is bounded below: s = -log(LARGEST) + softplus(raw), smooth, so that it can always come back.
    """

    LARGEST = 5.0

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        start = torch.tensor(self.LARGEST).log()  # the raw value at which s = 0: the inverse of softplus
        self.raw = nn.Parameter(torch.expm1(start).log().repeat(len(self.tasks)))

    def log_variances(self) -> Tensor:
        """(tasks,) s."""
        return functional.softplus(self.raw) - torch.tensor(self.LARGEST).log()

    def weights(self) -> dict[str, Tensor]:
        """Task to its present weight, without gradient."""
        return dict(zip(self.tasks, (-self.log_variances()).exp().detach()))

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The total of the tasks in `losses`, which may be some of them; the others' s is left alone."""
        present = torch.tensor([self.tasks.index(task) for task in losses], device=self.raw.device)
        s = self.log_variances()[present]
        return ((-s).exp() * torch.stack(list(losses.values())) + s / 2).sum()
