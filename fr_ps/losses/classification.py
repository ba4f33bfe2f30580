"""Attribute losses, and class and subject weights from sample counts."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class FocalLoss(nn.Module):
    """Focal loss: mean over the samples of alpha_c (1 - p_c)^gamma_c (-log p_c), with c the true class.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.

    Args:
        alpha: (classes,) weight of each class.
        gamma: focusing exponent, a number or (classes,); 0 gives the weighted cross-entropy.
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


class CrossEntropy(nn.Module):
    """Cross-entropy with class weights and label smoothing: mean over the samples of -sum_k q_k w_k log p_k,
    with q = 1 - smoothing + smoothing / classes for the true class, else smoothing / classes.

    Args:
        weights: (classes,) w.
        smoothing: of the labels (Szegedy et al., CVPR 2016), 0 or more and below 1.
    """

    weights: Tensor

    def __init__(self, weights: Tensor, smoothing: float) -> None:
        super().__init__()
        self.register_buffer("weights", weights.float(), persistent=False)  # a setting, not learnt
        self.smoothing = smoothing

    def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
        """The loss of (B, classes) logits and (B,) true classes, a scalar."""
        # torch's own mean divides by the batch's weights: in a batch of one class, its weight would cancel.
        return functional.cross_entropy(
            logits.float(), classes, self.weights, reduction="none", label_smoothing=self.smoothing
        ).mean()


def balanced_alpha(counts: Tensor) -> Tensor:
    """Class weights in inverse proportion to the (classes,) counts, summing to 1; 0 for a class without samples.

    Of two classes, each has the frequency of the other as its weight.
    """
    inverse = torch.where(counts > 0, 1 / counts.clamp_min(1).float(), torch.zeros(()))
    return inverse / inverse.sum()


def balanced_weights(counts: Tensor) -> Tensor:
    """Class weights in inverse proportion to the (classes,) counts, scaled so that the mean weight of a sample is 1."""
    alpha = balanced_alpha(counts)
    return alpha * counts.sum() / (alpha * counts).sum()


def gamma_from_counts(counts: Tensor) -> Tensor:
    """Focusing exponents for (classes,) counts: sqrt(log2(max count / count)), 0 for the most frequent class.

    Within 0.35 of the exponents that the original project set by hand for its two-class tasks. A class without samples gets 0.
    """
    return torch.where(counts > 0, counts.max() / counts.clamp_min(1), torch.ones(())).log2().sqrt()


def soft_person_weights(sessions: Tensor) -> Tensor:
    """Weights sqrt(min count / count), from (subjects,) session counts of 1 or more.

    The subject with the fewest sessions has weight 1.
    """
    return (sessions.min() / sessions).sqrt()


def original_person_weights(sessions: Tensor) -> Tensor:
    """Weights that fall linearly with the (subjects,) session counts, from 1 to 0.3; all 1 if the counts are equal."""
    rarity = (sessions.max() - sessions).float()
    return 0.3 + 0.7 * rarity / rarity.max() if rarity.any() else torch.ones_like(rarity)
