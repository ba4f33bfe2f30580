"""What all identity losses share: cosines to one direction a person, a margin for the true one, a scale, cross-entropy."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional


class MarginLoss(nn.Module, ABC):
    """Mean cross-entropy of scaled cosines in which the true person's is made harder by a margin.

    A loss of this family says `with_margin`, and where it has them `penalty` and `clamped`.

    Args:
        channels: of the embedding.
        people: to tell apart.
        scale: s, which multiplies the cosines.
        person_weights: (people,) by which the cross-entropy of each one's samples is multiplied; None: 1.
    """

    weight: nn.Parameter
    person_weights: Tensor | None

    def __init__(self, channels: int, num_subjects: int, *, scale: float, person_weights: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_subjects, channels))
        nn.init.normal_(self.weight, std=1 / math.sqrt(channels))
        self.scale = scale
        self.register_buffer("person_weights", person_weights, persistent=False)  # a setting, not learnt

    @abstractmethod
    def apply_margin(self, cosine: Tensor, norm: Tensor) -> Tensor:
        """(B,) cosines to the true people and (B,) norms of the embeddings to the cosines with the margin in them."""

    def penalty(self, norm: Tensor) -> Tensor:
        """What the (B,) norms add to the loss, a scalar."""
        return norm.new_zeros(())

    def saturated(self, norm: Tensor) -> Tensor:
        """(B,) whether a norm is beyond what the margin responds to."""
        return torch.zeros_like(norm, dtype=torch.bool)

    def logits(self, embeddings: Tensor, targets: Tensor) -> Tensor:
        """(B, people) scaled cosines of (B, C) embeddings, that to the true one of the (B,) people with its margin."""
        cosine = functional.linear(functional.normalize(embeddings), functional.normalize(self.weight))
        true = cosine.gather(1, targets[:, None])[:, 0]
        harder = self.apply_margin(true, embeddings.norm(dim=1))
        return self.scale * cosine.scatter(1, targets[:, None], harder[:, None])

    def forward(self, embeddings: Tensor, targets: Tensor) -> Tensor:
        """The loss of (B, C) embeddings of the (B,) true people, a scalar."""
        with torch.autocast(embeddings.device.type, enabled=False):  # cosines near 1 need more than bfloat16
            embeddings = embeddings.to(self.weight.dtype)
            return self._cross_entropy(self.logits(embeddings, targets), targets) + self.penalty(embeddings.norm(dim=1))

    def diagnostics(self, embeddings: Tensor) -> dict[str, Tensor]:
        """The mean norm of (B, C) embeddings, the share of them that is clamped, and what their norms add to the loss."""
        norm = embeddings.float().norm(dim=1)
        return {"norm/mean": norm.mean(), "norm/clamped": self.saturated(norm).float().mean(), "norm/penalty": self.penalty(norm)}

    def _cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.person_weights is None:
            return functional.cross_entropy(logits, targets)
        # torch's own `weight` divides by the batch's weights: in a batch of frequent people only, theirs would cancel.
        return (self.person_weights[targets] * functional.cross_entropy(logits, targets, reduction="none")).mean()


def add_angle(cosine: Tensor, angle: Tensor | float) -> Tensor:
    """cos(theta + angle) of cos theta, theta from 0 to pi; value and gradient are finite everywhere."""
    angle = torch.as_tensor(angle, dtype=cosine.dtype, device=cosine.device)
    # The derivative of the square root is infinite at cos = +-1.
    sine = (1 - cosine.square()).clamp_min(1e-7).sqrt()
    return cosine * angle.cos() - sine * angle.sin()
