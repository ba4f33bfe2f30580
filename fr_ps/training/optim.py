"""The optimizer, and the moving average of the weights."""

from collections.abc import Iterable

import torch
from torch import nn

from fr_ps.config import OptimConfig
from fr_ps.models.network import FaceNetwork

_WEIGHTING_LR_SCALE = 50.0
"""Learning rate of the task weights (learned if loss.weighting is uncertainty) relative to optim.lr.

The weight of a task, a function of its parameter (`UncertaintyWeighting`), moves from 1 to its optimum, about 1 / (2 L) at a loss
of L. Adam changes a parameter by about the learning rate per step, so at optim.lr the parameter would need too many steps.
"""


def build_optimizer(
    config: OptimConfig, modules: Iterable[nn.Module], weighting: nn.Module, weighting_lr_scale: float = _WEIGHTING_LR_SCALE
) -> torch.optim.Optimizer:
    """The optimizer of the trainable parameters of `modules` and of the parameters of `weighting`, which weights the task losses.

    Each parameter group has an `lr_scale`, by which the trainer multiplies the learning rate: `weighting_lr_scale` for the
    parameters of `weighting`, else 1. Weight decay applies neither to the parameters that `no_decay` returns nor to
    those of `weighting`.
    """
    decayed: list[nn.Parameter] = []
    not_decayed: list[nn.Parameter] = []
    for module in modules:
        names = no_decay(module)
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                (not_decayed if name in names else decayed).append(parameter)
    groups = [
        {"params": decayed, "lr_scale": 1.0, "weight_decay": config.weight_decay},
        {"params": not_decayed, "lr_scale": 1.0, "weight_decay": 0.0},
        {"params": list(weighting.parameters()), "lr_scale": weighting_lr_scale, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    # `lr` below is a start value only: `Trainer.train_step` sets the rate of each group before each step.
    if config.name == "sgd":
        sgd = torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0, fused=True)
        if config.momentum:
            # torch allocates the momentum buffers uninitialised, and the first step fills them. If NonFiniteGuard skips it, they
            # would keep arbitrary values.
            trained = [*decayed, *not_decayed, *weighting.parameters()]
            sgd.state.update({one: {"momentum_buffer": torch.zeros_like(one)} for one in trained})
        return sgd
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)


def no_decay(root: nn.Module) -> set[str]:
    """Names of the parameters of `root` without weight decay.

    These are norms, biases, and other scales and shifts (layer scales, gains, temperatures, slopes of PReLU), and those that a
    timm network lists in `no_weight_decay` (position embeddings).
    """
    names = set()
    for path, module in root.named_modules():
        found = {name for name, parameter in module.named_parameters(recurse=False) if not _decays(module, name, parameter)}
        if hasattr(module, "no_weight_decay"):
            found |= set(module.no_weight_decay())
        names |= {f"{path}.{name}" if path else name for name in found}
    return names


def _decays(module: nn.Module, name: str, parameter: nn.Parameter) -> bool:
    """Whether the parameter mixes channels or pixels, rather than scaling or shifting them."""
    if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
        return name == "weight"  # a gain beside it, as in normaliser-free networks, has the shape (C, 1, 1, 1)
    if isinstance(module, nn.LayerNorm) or "bias" in name:  # by name, since tables of attention biases have several dimensions
        return False
    return sum(length > 1 for length in parameter.shape) > 1  # layer scales: (C, 1, 1); temperatures: (heads, 1, 1)


class ModelEma:
    """Exponential moving average (EMA) of a network's weights: after step t, average = d average + (1 - d) weights.

    d = min(decay, 1 - (1 + t)^(-2/3)), t from 0, so that the initial weights do not dominate a short training. d is a function
    of the step, so `network.state_dict()` is the whole state.

    Uses timm's ModelEmaV3, which averages batch norm statistics and copies integer buffers (`num_batches_tracked`). torch's
    AveragedModel either averages all buffers and truncates the integer ones, or copies the statistics of the last step.

    Attributes:
        network: the network with the averaged weights, in evaluation mode; with a decay of 0 the trained network itself.
    """

    network: FaceNetwork

    def __init__(self, source: FaceNetwork, decay: float) -> None:
        self.source = source
        self.network = source
        self._ema = None
        if decay:
            from timm.utils import ModelEmaV3  # the import takes seconds

            self._ema = ModelEmaV3(source, decay=decay, use_warmup=True)
            self.network = self._ema.module

    def update(self, step: int) -> None:
        """Add the weights after the optimizer step number `step`, counted from 0."""
        if self._ema:
            self._ema.update(self.source, step=step + 1)  # timm counts from 1
