"""Focal loss. Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class FocalLoss(nn.Module):
    """Mean over the samples of alpha_c (1 - p_c)^gamma (-log p_c), c the true class.

    Args:
        alpha: (classes,) weight of each class.
        gamma: focusing exponent; 0 leaves the weighted cross-entropy of each sample.
    """

    alpha: Tensor

    def __init__(self, alpha: Tensor, gamma: float) -> None:
        super().__init__()
        self.register_buffer("alpha", alpha.float())
        self.gamma = gamma

    def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
        """The loss of (B, classes) logits and (B,) true classes, a scalar."""
        log_p = functional.log_softmax(logits.float(), dim=1).gather(1, classes[:, None])[:, 0]
        # expm1 keeps 1 - p, and its gradient, exact where p is near 1.
        focus = (-torch.expm1(log_p)).clamp_min(1e-8) ** self.gamma if self.gamma else 1.0
        return (self.alpha[classes] * focus * -log_p).mean()


def balanced_alpha(counts: Tensor) -> Tensor:
    """Class weights in inverse proportion to the (classes,) counts, summing to 1; 0 for a class without samples.

    Of two classes, each gets the frequency of the other one.
    """
    inverse = torch.where(counts > 0, 1 / counts.clamp_min(1).float(), torch.zeros(()))
    return inverse / inverse.sum()
