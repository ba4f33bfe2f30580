"""Batch normalisation over the batches of all processes of a training."""

from typing import Any, cast

import torch
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn

from fr_ps.distributed import sum_tensor, world_size
from fr_ps.errors import InputError


class _Sum(torch.autograd.Function):
    """The sum over the processes; the gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        return sum_tensor(own.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return sum_tensor(gradients[0].contiguous().clone())


class _SyncedNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm with the statistics of all processes in training. For the CPU, which torch's SyncBatchNorm does not support.

    Its children, as the activation of timm's `BatchNormAct2d`, follow the norm.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions after (B, C)."""

    def forward(self, input: Tensor) -> Tensor:
        output = self._normalise(input) if self.training and world_size() > 1 else super().forward(input)
        for child in self.children():
            output = child(output)
        return output

    def _normalise(self, input: Tensor) -> Tensor:
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
    """Give the batch norms of `network` the statistics of all processes; weights and their names stay.

    Raises:
        InputError: the network has a batch norm of an unknown kind.
    """
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            _check_norm(module)
    for parent in list(network.modules()):
        for name, module in parent.named_children():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                setattr(parent, name, convert_sync_batchnorm(module) if device.type == "cuda" else _synchronised(module))


def _check_norm(module: nn.modules.batchnorm._BatchNorm) -> None:
    plain = module.affine and module.track_running_stats and module.momentum is not None
    if type(module) not in (nn.BatchNorm1d, nn.BatchNorm2d, BatchNormAct2d) or not plain:
        raise InputError(
            f"model.backbone has a batch norm of the kind {type(module).__name__}, which cannot have the statistics of all "
            "processes; set train.sync_batch_norm to false"
        )


def _synchronised(module: nn.modules.batchnorm._BatchNorm) -> nn.Module:
    synced = _SyncedNorm(module.num_features, module.eps, module.momentum)
    for name, child in module.named_children():
        synced.add_module(name, child)
    synced.load_state_dict(module.state_dict())
    for own, other in zip(synced.parameters(recurse=False), module.parameters(recurse=False)):
        own.requires_grad_(other.requires_grad)
    return synced.train(module.training)
