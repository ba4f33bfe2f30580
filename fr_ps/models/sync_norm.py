"""Batch normalisation over the batches of all processes of a training."""

from typing import Any, cast

import torch
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn import functional

from fr_ps.distributed import gather_rows, sum_over_processes_, world_size
from fr_ps.errors import InputError


class _Normalise(torch.autograd.Function):
    """Batch norm with given statistics of the values of all processes; the gradient takes into account that x determines them.

    One exchange forward, in `_SyncedNorm`, and one backward. The rest are the kernels of torch's own batch norm.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps = eps
        return functional.batch_norm(x, mean, variance, weight, bias, eps=eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance = ctx.saved_tensors
        # With the statistics taken as constants, and from this process's values only: the gradients of x, weight and bias.
        of_x, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradients[0], x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        # As the statistics depend on x, weight * scale * (mean_of_bias + x_hat * mean_of_weight) is subtracted from
        # the gradient of x, where x_hat = (x - mean) * scale.
        mean_of_weight, mean_of_bias = sum_over_processes_(torch.stack([of_weight, of_bias])) / _count(x)
        scale = torch.rsqrt(variance + ctx.eps)
        slope = -weight * scale.square() * mean_of_weight
        offset = -weight * scale * mean_of_bias - slope * mean
        shape = _channel_shape(x)
        of_x.add_(offset.view(shape)).addcmul_(x, slope.view(shape))
        return of_x, of_weight, of_bias, None, None, None


def _count(x: Tensor) -> int:
    """Number of values of a channel in all processes together; each process has equally many."""
    return x.numel() // x.shape[1] * world_size()


def _channel_shape(x: Tensor) -> list[int]:
    return [1, -1, *[1] * (x.dim() - 2)]


class _SyncedNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm with the statistics of all processes in training. For the CPU, which torch's SyncBatchNorm does not support.

    Child modules, such as the activation of timm's `BatchNormAct2d`, are applied after the norm.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any number of dimensions after (B, C)."""

    def forward(self, input: Tensor) -> Tensor:
        output = self._normalise(input) if self.training and world_size() > 1 else super().forward(input)
        for child in self.children():
            output = child(output)
        return output

    def _normalise(self, input: Tensor) -> Tensor:
        x = input.float()
        mean, variance = self._statistics(x.detach())
        return _Normalise.apply(x, self.weight, self.bias, mean, variance, self.eps).to(input.dtype)

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(C,) mean and variance of the values of all processes; updates the running statistics."""
        # The kernel of torch's own batch norm: `torch.var_mean` over these dimensions takes three times as long on a CPU.
        own = torch.stack(torch.batch_norm_update_stats(x, None, None, 0.0))
        means, variances = gather_rows(own[None]).unbind(dim=1)  # (processes, C) each
        mean, count = means.mean(dim=0), _count(x)
        variance = variances.mean(dim=0) + (means - mean).square().mean(dim=0)
        momentum = cast(float, self.momentum)
        cast(Tensor, self.running_mean).lerp_(mean, momentum)
        cast(Tensor, self.running_var).lerp_(variance * (count / (count - 1)), momentum)
        cast(Tensor, self.num_batches_tracked).add_(1)
        return mean, variance


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
