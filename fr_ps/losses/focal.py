"""Focal loss. Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class FocalLoss(nn.Module):
    """Mean over the samples of alpha_c (1 - p_c)^gamma_c (-log p_c), c the true class.

    Args:
        alpha: (classes,) weight of each class.
        gamma: focusing exponent, a number or (classes,); 0 leaves the weighted cross-entropy of each sample.
    """

    alpha: Tensor
    gamma: Tensor | float

    def __init__(self, alpha: Tensor, gamma: Tensor | float) -> None:
        super().__init__()
        self.register_buffer("alpha", alpha.float(), persistent=False)  # a setting, not learnt
        if isinstance(gamma, Tensor):
            self.register_buffer("gamma", gamma.float(), persistent=False)  # a setting, not learnt
        else:
            self.gamma = gamma

    def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
        """The loss of (B, classes) logits and (B,) true classes, a scalar."""
        log_p = functional.log_softmax(logits.float(), dim=1).gather(1, classes[:, None])[:, 0]
        gamma = self.gamma[classes] if isinstance(self.gamma, Tensor) else self.gamma
        # expm1 keeps 1 - p, and its gradient, exact where p is near 1.
        focus = (-torch.expm1(log_p)).clamp_min(1e-8) ** gamma
        return (self.alpha[classes] * focus * -log_p).mean()
