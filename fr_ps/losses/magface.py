"""MagFace: an angular margin that grows with the embedding's norm. Meng et al., CVPR 2021, arXiv:2103.06627."""

import torch
from torch import Tensor

from fr_ps.losses.margin import MarginLoss, add_angle


class MagFace(MarginLoss):
    """cos(theta + m(a)) for the true person, and a regulariser that pulls norms up.

    a = |x| clamped to [lower_norm, upper_norm]; m(a) is linear from lower_margin to upper_margin. The margin is the easy
    one of the paper's code: where cos theta is not above 0 there is none. The loss is the mean cross-entropy plus lambda_g
    times the mean of g(a) = a / upper_norm^2 + 1 / a.

    Args:
        channels: of the embedding.
        people: to tell apart.
        scale: s.
        lower_norm: l_a.
        upper_norm: u_a.
        lower_margin: in radians.
        upper_margin: in radians.
        lambda_g: weight of g.
        person_weights: (people,) of the cross-entropy; None: 1.
    """

    def __init__(
        self,
        channels: int,
        num_subjects: int,
        *,
        scale: float,
        lower_norm: float,
        upper_norm: float,
        lower_margin: float,
        upper_margin: float,
        lambda_g: float,
        person_weights: Tensor | None = None,
    ) -> None:
        super().__init__(channels, num_subjects, scale=scale, person_weights=person_weights)
        self.lambda_g = lambda_g
        self.lower_norm, self.upper_norm = lower_norm, upper_norm
        self.lower_margin = lower_margin
        self.slope = (upper_margin - lower_margin) / (upper_norm - lower_norm)

    def margin(self, norm: Tensor) -> Tensor:
        """m(a) in radians of clamped norms a."""
        return self.lower_margin + self.slope * (norm - self.lower_norm)

    def regulariser(self, norm: Tensor) -> Tensor:
        """g(a) of clamped norms a: convex, smallest at upper_norm."""
        return norm / self.upper_norm**2 + 1 / norm

    def apply_margin(self, cosine: Tensor, norm: Tensor) -> Tensor:
        margin = self.margin(norm.clamp(self.lower_norm, self.upper_norm))
        return torch.where(cosine > 0, add_angle(cosine, margin), cosine)

    def penalty(self, norm: Tensor) -> Tensor:
        return self.lambda_g * self.regulariser(norm.clamp(self.lower_norm, self.upper_norm)).mean()

    def saturated(self, norm: Tensor) -> Tensor:
        """Where the regulariser is blind."""
        return (norm < self.lower_norm) | (norm > self.upper_norm)
