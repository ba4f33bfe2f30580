"""Divergence: non-finite steps are skipped, counted and diagnosed; growing losses give a warning."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fr_ps.errors import InputError
from fr_ps.losses.multitask import MultiTaskLoss
from fr_ps.models.network import FaceNetwork
from fr_ps.training.batch_loader import Batch

MAX_LOSS_RATIO = 1.5
"""A larger ratio of the final losses to those of the first epoch gives a warning. Noise of the batches stays below it."""
_WINDOW = 3
_MAX_SESSIONS_SHOWN = 6


class DivergedError(InputError):
    """NaN or infinity: in the loss or gradient of too many steps in a row, in the weights, or in the embeddings of validation."""


class NonFiniteGuard:
    """Skips steps with a loss or gradient that is not finite.

    Everything stays on the device. In a skipped step, a flag makes the fused optimizer update nothing, and the buffers that the
    forward pass changed (statistics of batch norm, AdaFace and task weightings) are restored from a copy. Except on MPS, nothing
    waits for the device until a counter is read. A skipped step leaves parameters, moments of the optimizer and buffers as they
    were. It still advances the random generators and the count of sessions seen, and updates the moving average of the weights
    and the loss scale of float16.

    Args:
        modules: the modules whose buffers a skipped step restores, on the device of the training.
        max_consecutive: skipped steps in a row after which the training counts as diverged.
    """

    def __init__(self, modules: Sequence[nn.Module], max_consecutive: int) -> None:
        self.max_consecutive = max_consecutive
        device = next(parameter.device for module in modules for parameter in module.parameters())
        buffers: dict[torch.dtype, list[Tensor]] = {}
        for buffer in (buffer for module in modules for buffer in module.buffers()):
            buffers.setdefault(buffer.dtype, []).append(buffer)
        self.buffers = list(buffers.values())
        self.backups = [_flatten(of_type) for of_type in self.buffers]
        self._in_step = False
        self._counts = torch.zeros(2, dtype=torch.int64, device=device)  # consecutive skipped steps, skipped ones in the epoch
        self._longest = torch.zeros((), dtype=torch.int64, device=device)

    @torch.no_grad()
    def snapshot(self) -> None:
        """Copy the buffers, before the first forward pass of a step."""
        self.backups = [_flatten(of_type) for of_type in self.buffers]
        self._in_step = True

    @torch.no_grad()
    def step(self, optimizer: torch.optim.Optimizer, loss: Tensor, grad_norm: Tensor) -> Tensor:
        """Step of a fused optimizer, without effect if the loss or the gradient norm is not finite.

        Returns:
            whether both are finite, a scalar on the device.
        """
        finite = torch.isfinite(loss + grad_norm)
        # torch's GradScaler sets this attribute too; if it is 1, a fused optimizer updates nothing.
        optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        # MPS: the fused optimizer ignores the flag, so the CPU reads `finite` instead, which waits for the device.
        if finite.device.type != "mps" or finite:
            optimizer.step()
        for of_type, backup in zip(self.buffers, self.backups):
            _copy_into(of_type, torch.where(finite, _flatten(of_type), backup))
        skipped = (~finite).long()
        self._counts += skipped
        self._counts[0] *= skipped  # the consecutive ones: 0 after a step that is not skipped
        self._longest = torch.maximum(self._longest, self._counts[0])
        self._in_step = False
        return finite

    @torch.no_grad()
    def restore(self) -> None:
        """Restore the buffers if a step was interrupted between `snapshot` and `step`; after a complete step, do nothing."""
        if not self._in_step:
            return
        for of_type, backup in zip(self.buffers, self.backups):
            _copy_into(of_type, backup)

    @property
    def consecutive_skipped(self) -> int:
        """Skipped steps since the last step that was not skipped. Waits for the device."""
        return int(self._counts[0])

    @property
    def skipped_in_epoch(self) -> int:
        """Skipped steps of the current epoch. Waits for the device."""
        return int(self._counts[1])

    @property
    def most_consecutive(self) -> int:
        """Length of the longest series of consecutive skipped steps. Unlike `consecutive_skipped`, it also counts a series that
        ended between two checks. Waits for the device."""
        return int(self._longest)

    @property
    def diverged(self) -> bool:
        """Whether too many steps in a row were skipped. Waits for the device."""
        return self.most_consecutive >= self.max_consecutive

    def start_epoch(self) -> None:
        """Count the skipped steps of the epoch from 0."""
        self._counts[1] = 0

    def state_dict(self) -> list[int]:
        """Consecutive skipped steps, and those of the epoch."""
        return self._counts.tolist()

    def load_state_dict(self, counts: Sequence[int]) -> None:
        """Restore what `state_dict` returned."""
        self._counts.copy_(torch.tensor(counts))
        self._longest.copy_(self._counts[0])


def _flatten(tensors: Sequence[Tensor]) -> Tensor:
    """All values, as one new tensor."""
    return torch.cat([tensor.flatten() for tensor in tensors])


def _copy_into(tensors: list[Tensor], values: Tensor) -> None:
    """The inverse of `_flatten`."""
    parts = values.split([tensor.numel() for tensor in tensors])
    torch._foreach_copy_(tensors, [part.view_as(tensor) for part, tensor in zip(parts, tensors)])


def diagnose_nonfinite(network: FaceNetwork, losses: MultiTaskLoss, batch: Batch) -> str:
    """A message with the tasks whose loss is not finite, else those whose gradient is not; empty if all are finite."""
    outputs = network(batch.maps, batch.present).gathered()
    task_losses = losses.task_losses(outputs, batch.targets, batch.labelled)
    bad = [task for task, loss in task_losses.items() if not torch.isfinite(loss)]
    if bad:
        return f"the loss of {', '.join(bad)} is NaN or infinite"
    parameters = [one for module in (network, losses) for one in module.parameters() if one.requires_grad]
    for task, loss in task_losses.items():
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        if not all(torch.isfinite(gradient).all() for gradient in gradients if gradient is not None):
            bad.append(task)
    return f"the gradient of {', '.join(bad)} is NaN or infinite" if bad else ""


def diverged_error(
    consecutive: int, *, cause: str, epoch: int, sessions: Sequence[str], checkpoint: str, lr: float
) -> DivergedError:
    """The error that ends a training after `consecutive` skipped steps."""
    num_more = len(sessions) - _MAX_SESSIONS_SHOWN
    shown = ", ".join(sessions[:_MAX_SESSIONS_SHOWN]) + (f" and {num_more} more" if num_more > 0 else "")
    return DivergedError(
        f"{consecutive} steps in a row were skipped in epoch {epoch}: {cause}, at the sessions {shown}; "
        f"the last good checkpoint is {checkpoint}; check those sessions, or lower optim.lr (now {lr:g})"
    )


def divergence_warning(metric_history: Mapping[str, Mapping[int, float]], attributes: Sequence[str]) -> str:
    """One line if the losses grew; empty if they did not, or if there are too few epochs to compare.

    Compares the unweighted sum of the losses of identity and `attributes` in the first epoch with its mean over the last epochs:
    three, or half of all epochs if that is fewer. Adversarial losses are left out, as they should grow.

    Args:
        metric_history: metric to epoch to value, with `train/loss/...` of each task.
        attributes: trained attributes.
    """
    losses = [metric_history.get(f"train/loss/{task}", {}) for task in ("identity", *attributes)]
    epochs = sorted(set.intersection(*(set(one) for one in losses)))
    last = epochs[len(epochs) - min(_WINDOW, len(epochs) // 2) :]
    if not last:
        return ""
    start = sum(one[epochs[0]] for one in losses)
    end = sum(one[epoch] for one in losses for epoch in last) / len(last)
    if end <= MAX_LOSS_RATIO * start:
        return ""
    return (
        f"the training diverged: the sum of the task losses rose from {start:.3g} in epoch {epochs[0]} to {end:.3g} "
        f"at the end (mean of {len(last)} epochs); lower optim.lr"
    )
