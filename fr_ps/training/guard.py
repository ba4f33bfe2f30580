"""Steps whose numbers went bad: undone, counted, and after too many in a row explained."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fr_ps.errors import InputError
from fr_ps.losses.multitask import MultiTaskLoss
from fr_ps.models.network import FaceNetwork


class DivergedError(InputError):
    """The training came to nothing: too many steps in a row went bad."""


class NonFiniteGuard:
    """Watches that losses and gradients are finite.

    A step that is not good must leave nothing of its numbers behind: neither in the weights, which the caller does not
    move, nor in buffers, which a forward pass changes already (the statistics of batch norm, of AdaFace, of task
    weightings). What it drew from the global random generators stays drawn.

    Args:
        modules: whose buffers are kept.
        limit: bad steps in a row after which `undo` says that it is enough.

    Attributes:
        in_row: bad steps since the last good one.
        in_epoch: bad steps since `in_epoch` was last set to 0.
    """

    def __init__(self, modules: Sequence[nn.Module], max_consecutive: int) -> None:
        self.max_consecutive = max_consecutive
        self.consecutive_skipped = 0
        self.skipped_in_epoch = 0
        self.buffers = [buffer for module in modules for buffer in module.buffers()]
        self.backup = [buffer.clone() for buffer in self.buffers]

    @torch.no_grad()
    def snapshot(self) -> None:
        """Remember the buffers; to be called before the first forward pass of a step."""
        if self.buffers:
            torch._foreach_copy_(self.backup, self.buffers)

    def is_finite(self, loss: Tensor, norm: Tensor) -> bool:
        """Whether the step's loss and the norm of its gradient are finite. Waits for the device."""
        good = bool(torch.isfinite(loss + norm))
        if good:
            self.consecutive_skipped = 0
        return good

    @torch.no_grad()
    def rollback(self) -> bool:
        """Put the buffers back and count a bad step; whether there were too many in a row."""
        if self.buffers:
            torch._foreach_copy_(self.buffers, self.backup)
        self.consecutive_skipped += 1
        self.skipped_in_epoch += 1
        return self.consecutive_skipped >= self.max_consecutive


def diagnose_nonfinite(
    network: FaceNetwork,
    losses: MultiTaskLoss,
    maps: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    present: Tensor | None,
) -> str:
    """Which tasks' losses, or else which tasks' gradients, of a batch are not finite; empty if none."""
    parts = losses.parts(network(maps, present), targets)
    bad = [task for task, loss in parts.items() if not torch.isfinite(loss)]
    if bad:
        return f"the loss of {', '.join(bad)} is NaN or infinite"
    parameters = [one for module in (network, losses) for one in module.parameters() if one.requires_grad]
    for task, loss in parts.items():
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        if not all(torch.isfinite(gradient).all() for gradient in found if gradient is not None):
            bad.append(task)
    return f"the gradient of {', '.join(bad)} is NaN or infinite" if bad else ""


def diverged_error(
    consecutive: int, cause: str, epoch: int, sessions: Sequence[str], checkpoint: str, lr: float
) -> DivergedError:
    """The end of a training whose last `limit` steps were bad."""
    shown = ", ".join(sessions[:6]) + (f" and {len(sessions) - 6} more" if len(sessions) > 6 else "")
    return DivergedError(
        f"{consecutive} steps in a row went bad: {cause}, in epoch {epoch}, at the sessions {shown}; "
        f"the last good checkpoint is {checkpoint}; look at those sessions, or lower optim.lr ({lr:g}) "
        "(fr-ps train --resume --allow-changed --optim.lr VALUE)"
    )
