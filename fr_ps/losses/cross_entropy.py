"""Cross-entropy with class weights and label smoothing."""

from torch import Tensor, nn
from torch.nn import functional


class CrossEntropy(nn.Module):
    """Mean over the samples of -sum_k q_k w_k log p_k, q = 1 - smoothing + smoothing / classes for the true class, else
    smoothing / classes.

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
