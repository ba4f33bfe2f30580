"""Batch normalisation over the batches of all processes of a training."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from fr_ps.distributed import sum_tensor, world_size


class _Sum(torch.autograd.Function):
    """The sum over the processes; the gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        return sum_tensor(own.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return sum_tensor(gradients[0].contiguous().clone())


class _SyncedNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm with the statistics of all processes in training. For the CPU, which torch's SyncBatchNorm does not support."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions after (B, C)."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(input)
        x = input.float()
        dims = [0, *range(2, x.dim())]
        count = x.numel() // x.shape[1] * world_size()
        mean = _Sum.apply(x.sum(dims)) / count
        shape = [1, -1, *[1] * (x.dim() - 2)]
        centred = x - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(dims)) / count
        with torch.no_grad():
            momentum = cast(float, self.momentum)
            cast(Tensor, self.running_mean).lerp_(mean, momentum)
            cast(Tensor, self.running_var).lerp_(variance * (count / (count - 1)), momentum)
            cast(Tensor, self.num_batches_tracked).add_(1)
        normalised = centred * torch.rsqrt(variance + self.eps).view(shape)
        return (normalised * self.weight.view(shape) + self.bias.view(shape)).to(input.dtype)


def synchronise_batch_norms(network: nn.Module, device: torch.device) -> None:
    """Replace the batch norms of `network` by ones with the statistics of all processes; weights and their names stay."""
    for name, module in network.named_children():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            setattr(network, name, _synchronised(module, device))
        else:
            synchronise_batch_norms(module, device)


def _synchronised(module: nn.modules.batchnorm._BatchNorm, device: torch.device) -> nn.Module:
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    synced = _SyncedNorm(module.num_features, module.eps, module.momentum)
    synced.load_state_dict(module.state_dict())
    for own, other in zip(synced.parameters(), module.parameters()):
        own.requires_grad_(other.requires_grad)
    return synced.to(device).train(module.training)
