"""The optimizer."""

from collections.abc import Iterable

import torch
from torch import nn

from fr_ps.config import OptimConfig


def build_optimizer(config: OptimConfig, modules: Iterable[nn.Module], weighting: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of all parameters of `modules` and of the loss `weighting`.

    Its groups have a `factor` by which whoever sets the learning rate is to multiply it: the weighting's is
    `config.weighting_factor`. Parameters of one dimension or none (norms, biases, gains) and the weighting's have no
    weight decay.
    """
    parameters = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {
            "params": [parameter for parameter in parameters if parameter.ndim > 1],
            "factor": 1.0,
            "weight_decay": config.weight_decay,
        },
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "factor": 1.0, "weight_decay": 0.0},
        {"params": list(weighting.parameters()), "factor": config.weighting_factor, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0, fused=True)
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)
