"""The optimizer."""

from collections.abc import Iterable

import torch
from torch import nn

from fr_ps.config import OptimConfig


def build_optimizer(config: OptimConfig, modules: Iterable[nn.Module], weighting: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of all parameters of `modules` and of the loss `weighting`.

    Its groups have a `factor` by which whoever sets the learning rate is to multiply it: the weighting's is
    `config.weighting_factor`. What `undecayed` names and the weighting's parameters have no weight decay.
    """
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for module in modules:
        names = no_decay(module)
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                (spared if name in names else decayed).append(parameter)
    groups = [
        {"params": decayed, "factor": 1.0, "weight_decay": config.weight_decay},
        {"params": spared, "factor": 1.0, "weight_decay": 0.0},
        {"params": list(weighting.parameters()), "factor": config.weighting_factor, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0, fused=True)
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)


def no_decay(root: nn.Module) -> set[str]:
    """Names of the parameters of `root` that weight decay is not for: norms, biases, gains, slopes, and what a network of
    timm names so itself (`no_weight_decay`: embeddings of positions)."""
    names = set()
    for path, module in root.named_modules():
        spared = {name for name, parameter in module.named_parameters(recurse=False) if not _decays(module, name, parameter)}
        if hasattr(module, "no_weight_decay"):
            spared |= set(module.no_weight_decay())
        names |= {f"{path}.{name}" if path else name for name in spared}
    return names


def _decays(module: nn.Module, name: str, parameter: nn.Parameter) -> bool:
    """Whether it mixes channels or pixels, rather than scaling or shifting them."""
    if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
        return name == "weight"  # a gain beside it, as in normaliser-free networks, has the shape (C, 1, 1, 1)
    if isinstance(module, nn.LayerNorm) or "bias" in name:  # tables of attention biases have two dimensions and more
        return False
    return sum(length > 1 for length in parameter.shape) > 1  # layer scales: (C, 1, 1); temperatures: (heads, 1, 1)
