"""ArcFace: a constant angular margin. Deng et al., CVPR 2019, arXiv:1801.07698."""

import math

import torch
from torch import Tensor

from fr_ps.losses.margin import MarginLoss, add_angle


class ArcFace(MarginLoss):
    """cos(theta + m) for the true person.

    Where theta + m is beyond pi that would rise again: there it is cos theta - m sin m, as in the paper's code, which
    goes on falling with theta. The easy margin, which is none where cos theta is not above 0, is left to MagFace; above
    0 the two are the same where MagFace's margin is constant and its lambda_g 0.

    Args:
        channels: of the embedding.
        people: to tell apart.
        scale: s.
        margin: m in radians, 0 to pi / 2.
        person_weights: (people,) of the cross-entropy; None: 1.
    """

    def __init__(
        self, channels: int, num_subjects: int, *, scale: float, margin: float, person_weights: Tensor | None = None
    ) -> None:
        super().__init__(channels, num_subjects, scale=scale, person_weights=person_weights)
        self.margin = margin

    def apply_margin(self, cosine: Tensor, norm: Tensor) -> Tensor:
        below_pi = cosine > -math.cos(self.margin)
        return torch.where(below_pi, add_angle(cosine, self.margin), cosine - self.margin * math.sin(self.margin))
